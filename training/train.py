"""Train a recipe's model with transformers' Trainer; started again, it goes on from the last checkpoint.

python -m training.train NAME...
"""

import sys

import torch
from torch._inductor import config as inductor
from transformers import LlamaForCausalLM, Trainer, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint

from hydrascope.utils.assets import model_path
from training.build import build
from training.llama import drop_out, fail, fresh, shape
from training.optimizer import MuonAdamW
from training.recipe import ALL, Recipe


def model(recipe: Recipe, bos: int, eos: int, pad: int) -> LlamaForCausalLM:
    """A Llama of the recipe's shape, fresh or from where it starts, with its dropout on attention weights."""
    if not recipe.start:
        llama = fresh(recipe, bos, eos, pad)
    else:
        set_seed(recipe.seed)
        last = model_path(recipe.start) or get_last_checkpoint(str(ALL[recipe.start].folder / "checkpoints"))
        config = shape(recipe, bos, eos, pad)
        llama = LlamaForCausalLM.from_pretrained(last, config=config, dtype=torch.float32)
    # On CPUs plain matrix products are faster than the fused kernel at this size.
    llama.set_attn_implementation("sdpa" if torch.cuda.is_available() else "eager")
    return llama


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
