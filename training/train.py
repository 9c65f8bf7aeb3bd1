"""Train a recipe's model with transformers' Trainer; started again, it goes on from the last checkpoint.

python -m training.train NAME...
"""

import sys
from typing import Any

import torch
from torch import Tensor, nn
from torch._inductor import config as inductor
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint

from hydrascope.utils.assets import model_path
from training.build import build
from training.optimizer import MuonAdamW
from training.recipe import ALL, Recipe


def model(recipe: Recipe, bos: int, eos: int, pad: int) -> LlamaForCausalLM:
    """A Llama of the recipe's shape, fresh or from where it starts, with its dropout on attention weights."""
    config = LlamaConfig(
        vocab_size=recipe.vocabulary,
        hidden_size=recipe.width,
        intermediate_size=recipe.mlp,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=512,
        attention_dropout=recipe.dropout,
        tie_word_embeddings=recipe.tied,
        use_cache=False,
        bos_token_id=bos,
        eos_token_id=eos,
        pad_token_id=pad,
    )
    set_seed(recipe.seed)
    if recipe.start:
        last = model_path(recipe.start) or get_last_checkpoint(str(ALL[recipe.start].folder / "checkpoints"))
        llama = LlamaForCausalLM.from_pretrained(last, config=config, dtype=torch.float32)
    else:
        llama = _small_outputs(LlamaForCausalLM(config))
    # On CPUs plain matrix products are faster than the fused kernel at this size.
    llama.set_attn_implementation("sdpa" if torch.cuda.is_available() else "eager")
    return llama


def _small_outputs(llama: LlamaForCausalLM) -> LlamaForCausalLM:
    """What a layer adds starts small, as in GPT-2, so that the residual's size doesn't grow with depth."""
    with torch.no_grad():
        for layer in llama.model.layers:
            for out in (layer.self_attn.o_proj, layer.mlp.down_proj):
                out.weight.mul_((2 * llama.config.num_hidden_layers) ** -0.5)
    return llama


def drop_out(llama: LlamaForCausalLM, share: float) -> None:
    """Dropout on the embeddings and on what every sublayer adds, while training: Llama itself has none there."""

    def hook(module: nn.Module, _: Any, output: Tensor) -> Tensor:
        return nn.functional.dropout(output, share, module.training)

    llama.model.embed_tokens.register_forward_hook(hook)
    for layer in llama.model.layers:
        layer.self_attn.o_proj.register_forward_hook(hook)
        layer.mlp.down_proj.register_forward_hook(hook)


def fail(llama: LlamaForCausalLM, left_out: float, swapped: float) -> None:
    """While training, at random places what a sublayer adds is left out, or is that of another sequence there."""

    def hook(module: nn.Module, _: Any, output: Tensor) -> Tensor:
        if not module.training:
            return output
        drawn = torch.rand(output.shape[:2], device=output.device)[..., None]
        other = torch.where(drawn < left_out, torch.zeros_like(output), output.roll(1, 0))
        return torch.where(drawn < left_out + swapped, other, output)

    for layer in llama.model.layers:
        layer.self_attn.o_proj.register_forward_hook(hook)
        layer.mlp.down_proj.register_forward_hook(hook)


def train(recipe: Recipe) -> None:
    """Train, or go on; the finished model lies in the recipe's folder, checkpoints beside it."""
    tokenizer, blocks = build(recipe)
    llama = model(recipe, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    if recipe.dropout:
        drop_out(llama, recipe.dropout)
    if recipe.left_out or recipe.swapped:
        fail(llama, recipe.left_out, recipe.swapped)
    if recipe.dropout or recipe.left_out or recipe.swapped:
        # Inductor's own random numbers are several times slower than PyTorch's on CPUs.
        inductor.fallback_random = True
    settings = TrainingArguments(
        output_dir=str(recipe.folder / "checkpoints"),
        per_device_train_batch_size=recipe.batch,
        max_steps=recipe.steps,
        learning_rate=recipe.rate,
        lr_scheduler_type="warmup_stable_decay",
        warmup_steps=recipe.warmup,
        lr_scheduler_kwargs={"num_decay_steps": recipe.decay, "decay_type": "linear"},
        weight_decay=0.1,
        adam_beta2=0.95,
        max_grad_norm=1.0,
        optim="adamw_torch_fused",
        # A processor without instructions for it takes ten times as long.
        bf16=torch.cuda.is_available() or torch.ops.mkldnn._is_mkldnn_bf16_supported(),
        torch_compile=True,
        use_cpu=not torch.cuda.is_available(),
        seed=recipe.seed,
        data_seed=recipe.seed,
        save_steps=max(1, recipe.steps // recipe.checkpoints),
        logging_steps=25,
        report_to=[],
        disable_tqdm=True,
    )
    muon = MuonAdamW(llama, recipe.rate, recipe.matrix_rate, weight_decay=0.1) if recipe.matrix_rate else None
    trainer = Trainer(
        model=llama,
        args=settings,
        train_dataset=blocks.with_format("torch"),
        processing_class=tokenizer,
        optimizers=(muon, None),
    )
    last = get_last_checkpoint(settings.output_dir) if (recipe.folder / "checkpoints").exists() else None
    trainer.train(resume_from_checkpoint=last)
    llama.config.use_cache = True
    llama.bfloat16().save_pretrained(recipe.folder)
    tokenizer.save_pretrained(recipe.folder)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        train(ALL[name])
