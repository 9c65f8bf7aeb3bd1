"""A tiny random model of every architecture, with everything that the architecture can do turned on."""

from functools import cache
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from hydrascope.loading.soft_cap import attention_to_read
from hydrascope.models.language_model import LanguageModel

VOCABULARY = 61

_LLAMA = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_EXPERTS = {"num_experts_per_tok": 2}
# A window of 3 in the middle block: shorter than most test prompts.
_SLIDING = {"sliding_window": 3, "layer_types": ["full_attention", "sliding_attention", "full_attention"]}
_GPT = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2}

#: Per case the architecture's name in transformers, and its configuration.
CONFIGS: dict[str, tuple[str, dict]] = {
    "gpt2": ("gpt2", {**_GPT, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64}),
    "llama": ("llama", _LLAMA),
    "llama-bias": ("llama", {**_LLAMA, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    "mistral": ("mistral", {**_LLAMA, "sliding_window": 3}),
    "mixtral": ("mixtral", {**_LLAMA, **_EXPERTS, "num_local_experts": 4}),
    "qwen2": ("qwen2", {**_LLAMA, "use_sliding_window": True, **_SLIDING}),
    "qwen3": ("qwen3", {**_LLAMA, "head_dim": 8}),
    "qwen3_moe": (
        "qwen3_moe",
        {**_LLAMA, **_EXPERTS, "num_experts": 4, "moe_intermediate_size": 24, "head_dim": 8, "mlp_only_layers": [1]},
    ),
    "gemma": ("gemma", {**_LLAMA, "head_dim": 8}),
    "gemma2": ("gemma2", {**_LLAMA, **_SLIDING, "head_dim": 8, "query_pre_attn_scalar": 12}),
    "gemma3_text": ("gemma3_text", {**_LLAMA, **_SLIDING, "head_dim": 8, "query_pre_attn_scalar": 12}),
    "olmo2": ("olmo2", _LLAMA),
    "olmo2-bias": ("olmo2", {**_LLAMA, "attention_bias": True}),
    "olmo3": ("olmo3", {**_LLAMA, **_SLIDING}),
    "gpt_neox": ("gpt_neox", {**_LLAMA, "use_parallel_residual": True}),
    "gpt_neox-sequential": ("gpt_neox", {**_LLAMA, "use_parallel_residual": False}),
    "gptj": ("gptj", {**_GPT, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64, "rotary_dim": 4}),
    "gpt_neo": (
        "gpt_neo",
        {
            **_GPT,
            "hidden_size": 32,
            "num_layers": 3,
            "num_heads": 4,
            "max_position_embeddings": 64,
            "window_size": 3,
            "attention_types": [[["global", "local", "global"], 1]],
        },
    ),
    "opt": ("opt", {**_LLAMA, "ffn_dim": 48, "word_embed_proj_dim": 32}),
    "opt-plain": ("opt", {**_LLAMA, "ffn_dim": 48, "enable_bias": False, "layer_norm_elementwise_affine": False}),
    "phi": ("phi", {**_LLAMA, "qk_layernorm": True, "partial_rotary_factor": 0.5}),
    "phi3": ("phi3", {**_LLAMA, "sliding_window": 3}),
    "stablelm": ("stablelm", {**_LLAMA, "use_parallel_residual": False, "qk_layernorm": True}),
    "stablelm-parallel": ("stablelm", {**_LLAMA, "use_parallel_residual": True}),
    "cohere": ("cohere", {**_LLAMA, "use_qk_norm": True, "logit_scale": 0.3}),
    "granite": (
        "granite",
        {
            **_LLAMA,
            "residual_multiplier": 0.22,
            "logits_scaling": 8.0,
            "embedding_multiplier": 12.0,
            "attention_multiplier": 0.3,
        },
    ),
    "starcoder2": ("starcoder2", {**_LLAMA, "sliding_window": 3}),
    "nemotron": ("nemotron", _LLAMA),
    "falcon": ("falcon", {**_LLAMA, "alibi": False, "multi_query": True, "parallel_attn": True}),
    "falcon-new": (
        "falcon",
        {**_LLAMA, "new_decoder_architecture": True, "num_kv_heads": 2, "parallel_attn": True, "bias": True},
    ),
    "falcon-sequential": ("falcon", {**_LLAMA, "alibi": True, "parallel_attn": False, "multi_query": False}),
    "bloom": ("bloom", {**_GPT, "hidden_size": 32, "n_layer": 3, "n_head": 4}),
    "mpt": ("mpt", {**_GPT, "d_model": 32, "n_layers": 3, "n_heads": 4, "expansion_ratio": 2, "max_seq_len": 64}),
    "smollm3": ("smollm3", {**_LLAMA, "no_rope_layers": [1, 0, 1]}),
    "deepseek_v3": (
        "deepseek_v3",
        {
            **_LLAMA,
            **_EXPERTS,
            "num_key_value_heads": 4,
            "n_routed_experts": 4,
            "n_group": 2,
            "topk_group": 1,
            "first_k_dense_replace": 1,
            "moe_intermediate_size": 24,
            "q_lora_rank": 16,
            "kv_lora_rank": 16,
            "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 4,
            "v_head_dim": 6,
        },
    ),
    "gpt_oss": ("gpt_oss", {**_LLAMA, **_EXPERTS, **_SLIDING, "num_local_experts": 4, "head_dim": 8}),
}

#: Cases whose float64 model computes something in float32 all the same: transformers writes RMSNorm (and Cohere's
#: LayerNorm) so, and the eager attention of the last four its scores or softmax.
_FLOAT32_INSIDE = {
    *("llama", "llama-bias", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe", "gemma", "gemma2", "gemma3_text"),
    *("olmo2", "olmo2-bias", "olmo3", "phi3", "cohere", "granite", "smollm3", "deepseek_v3", "gpt_oss"),
    *("gptj", "gpt_neo", "bloom", "mpt"),
}


def tolerance(case: str) -> float:
    """How far two float64 computations of one model may differ, relative to the size of what is compared."""
    return 1e-5 if case in _FLOAT32_INSIDE else 1e-9


def tiny(case: str, dtype: torch.dtype = torch.float64, seed: int = 0) -> LanguageModel:
    """A random model of one of `CONFIGS`, all of its parameters random, the norms' and biases' too."""
    torch.manual_seed(seed)
    model_type, settings = CONFIGS[case]
    config = AutoConfig.for_model(model_type, **settings)
    hf = AutoModelForCausalLM.from_config(config, **attention_to_read(config))
    with torch.no_grad():
        for name, parameter in hf.named_parameters():
            # Norm gains near one, everything else large enough that an error anywhere would show.
            is_gain = parameter.ndim == 1 and "bias" not in name and "sinks" not in name
            noise = torch.randn_like(parameter) * (0.2 if parameter.ndim == 1 else 0.15)
            parameter.copy_(parameter + noise if is_gain else noise)
    return LanguageModel(hf.to(dtype), name=case)


@cache
def shared(case: str, seed: int = 0) -> LanguageModel:
    """`tiny` in float64, made once: for tests that leave it as it is."""
    return tiny(case, seed=seed)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of single characters, with `VOCABULARY` tokens."""
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ,."
    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, **{letter: 4 + i for i, letter in enumerate(letters)}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def save_tiny(folder: Path, case: str = "llama", seed: int = 0) -> Path:
    """A tiny random model in float32 with `tiny_tokenizer`, saved to `folder` as transformers saves."""
    tiny(case, torch.float32, seed).hf.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder
