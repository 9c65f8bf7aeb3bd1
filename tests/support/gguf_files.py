"""Write tiny models as GGUF files, by the rules of the format alone."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.convert_slow_tokenizer import bytes_to_unicode

#: Rows of 64 numbers hold two blocks of 32.
CONFIG = LlamaConfig(
    vocab_size=256,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
    rms_norm_eps=1e-5,
    tie_word_embeddings=False,
    bos_token_id=None,
    eos_token_id=0,
)

#: A token for each byte but the last, and one for "ab".
TOKENS = [*list(bytes_to_unicode().values())[:-1], "ab"]

_NAMES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}


def written_llama(
    path: Path,
    kind: str = "F32",
    *,
    settings: dict[str, Any] | None = None,
    tensors: dict[str, np.ndarray] | None = None,
    architecture: str = "llama",
    tokenizer: bool = True,
) -> LlamaForCausalLM:
    """Write a random Llama with weights in format `kind`; return it with the weights that the file stands for."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(CONFIG).eval()
    quant = gguf.GGMLQuantizationType[kind]
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in _settings(architecture).items():
        (writer.add_float32 if isinstance(value, float) else writer.add_uint32)(key, value)
    for key, value in (settings or {}).items():
        add = {str: writer.add_string, int: writer.add_uint32, float: writer.add_float32}[type(value)]
        add(key, value)
    if tokenizer:
        _add_tokenizer(writer)
    for name, parameter in model.state_dict().items():
        values = parameter.numpy()
        if values.ndim > 1:
            stored = gguf.quantize(values, quant)
            parameter.copy_(torch.from_numpy(np.array(gguf.dequantize(stored, quant))))
            values = parameter.numpy()
        gguf_name, values = _in_gguf(name, values)
        plain = values.ndim == 1
        writer.add_tensor(
            gguf_name,
            values if plain else gguf.quantize(values, quant),
            raw_dtype=gguf.GGMLQuantizationType.F32 if plain else quant,
        )
    for name, values in (tensors or {}).items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


def _settings(architecture: str) -> dict[str, int | float]:
    values: dict[str, int | float] = {
        "block_count": CONFIG.num_hidden_layers,
        "context_length": CONFIG.max_position_embeddings,
        "embedding_length": CONFIG.hidden_size,
        "feed_forward_length": CONFIG.intermediate_size,
        "attention.head_count": CONFIG.num_attention_heads,
        "attention.head_count_kv": CONFIG.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": CONFIG.rms_norm_eps,
        "rope.freq_base": 10000.0,
        "rope.dimension_count": 16,
        "vocab_size": CONFIG.vocab_size,
    }
    return {f"{architecture}.{key}": value for key, value in values.items()}


def _add_tokenizer(writer: gguf.GGUFWriter) -> None:
    """Add a token for each byte but the last, one for "ab", and a chat template that fails if it is rendered."""
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(TOKENS)
    writer.add_token_types([gguf.TokenType.NORMAL] * 256)
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(0)
    writer.add_chat_template("{{ raise_exception('rendered') }}{% include 'x' %}")


def _in_gguf(name: str, values: np.ndarray) -> tuple[str, np.ndarray]:
    """Return a weight's name and values in GGUF, which orders the rows of queries and keys in its own way."""
    top = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    stem = name.removesuffix(".weight")
    if stem in top:
        return f"{top[stem]}.weight", values
    _, _, block, inner = stem.split(".", 3)
    (short,) = (key for key, value in _NAMES.items() if value == inner)
    heads = {"attn_q": CONFIG.num_attention_heads, "attn_k": CONFIG.num_key_value_heads}.get(short)
    if heads:
        values = values.reshape(heads, 2, len(values) // heads // 2, -1).swapaxes(1, 2).reshape(values.shape)
    return f"blk.{block}.{short}.weight", np.ascontiguousarray(values)
