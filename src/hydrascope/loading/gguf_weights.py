"""Load a model from a GGUF file, dequantised, by transformers' own reader.

Only numbers and texts are read from the file; its chat template is never rendered.
"""

import functools
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    modeling_gguf_pytorch_utils,
)

from hydrascope.loading.gguf_header import GgufHeader
from hydrascope.utils.errors import HydrascopeError

#: Settings that show in the shapes of weights, which are checked.
_SHAPES = ("block_count", "embedding_length", "feed_forward_length", "vocab_size", "expert_feed_forward_length")
#: Values that switch something off, or are everyone's default.
_NEUTRAL = (0, 1, "", "none")

_ONE_AT_A_TIME = threading.Lock()


def read_config(path: Path, header: GgufHeader) -> PretrainedConfig:
    """Return the configuration that transformers makes of a GGUF file.

    Raises:
        HydrascopeError: a setting of the file is lost in it, so that numbers would be another model's.
        Exception: as transformers raises; it documents none.
    """
    config: Any = AutoConfig.from_pretrained(path.parent, gguf_file=path.name, trust_remote_code=False)
    for key, value in _lost_settings(header, config):
        raise HydrascopeError(
            f"cannot load {path}: transformers leaves out its setting {key} ({value}), which changes what the model "
            "computes: load the original model with safetensors"
        )
    return config  # type: ignore[no-any-return]


def read_tokenizer(path: Path, header: GgufHeader) -> Any:
    """Return the tokenizer of a GGUF file; None if the file has none."""
    if "tokenizer.ggml.model" not in header.settings:
        return None
    return AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, trust_remote_code=False)


def read_weights(
    path: Path, header: GgufHeader, dtype: torch.dtype, attention: dict[str, str]
) -> tuple[Any, dict[str, Any]]:
    """Return the model of a GGUF file, dequantised, and transformers' report on its weights.

    Args:
        path: the file.
        header: its header.
        dtype: the dtype to compute in.
        attention: what chooses how the model attends, for `from_pretrained`.

    Raises:
        HydrascopeError: a number format can't be dequantised, or tensors of the file are left out.
        Exception: as transformers raises; it documents none.
    """
    _require_dequantizable(path, header)
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=dtype, trust_remote_code=False, output_loading_info=True, **attention
    )
    hf, info = loaded
    _require_all_used(path, header, hf)
    # The weights are plain numbers now: save_pretrained would refuse a quantised model.
    hf.config.__dict__.pop("quantization_config", None)
    hf.hf_quantizer, hf.is_quantized = None, False
    return hf, info


def _lost_settings(header: GgufHeader, config: PretrainedConfig) -> Iterator[tuple[str, Any]]:
    """Yield the settings of the architecture that the configuration doesn't hold."""
    numbers, texts = [*_numbers(config.to_dict()), *_derived(config)], set(_texts(config.to_dict()))
    for key, value in header.settings.items():
        prefix, _, name = key.partition(".")
        if prefix != header.architecture or name in _SHAPES or value in _NEUTRAL:
            continue
        known = all(any(math.isclose(each, other, rel_tol=1e-6) for other in numbers) for each in _numbers([value]))
        if not known or any(text not in texts for text in _texts([value])):
            yield key, value


def _derived(config: Any) -> Iterator[float]:
    """Yield the widths of a head, and of its rotated part."""
    if config.num_attention_heads:
        width = getattr(config, "head_dim", None) or config.hidden_size / config.num_attention_heads
        yield width
        yield width * (config.to_dict().get("rope_parameters") or {}).get("partial_rotary_factor", 1.0)


def _numbers(value: Any) -> Iterator[float]:
    """Yield all numbers in nested lists and dictionaries."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for each in value:
            yield from _numbers(each)
    elif isinstance(value, int | float):
        yield float(value)


def _texts(value: Any) -> Iterator[str]:
    """Yield all texts in nested lists and dictionaries."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)
    elif isinstance(value, str):
        yield value


def _require_dequantizable(path: Path, header: GgufHeader) -> None:
    for name in sorted({tensor.type for tensor in header.tensors.values()}):
        kind = gguf.GGMLQuantizationType[name]
        try:
            gguf.dequantize(np.zeros((1, gguf.GGML_QUANT_SIZES[kind][1]), np.uint8), kind)
        except NotImplementedError:
            raise HydrascopeError(
                f"cannot load {path}: its quantisation {name} can't be dequantised: give the model in another one, "
                "such as Q8_0, Q6_K, Q4_K or F16"
            ) from None


def _require_all_used(path: Path, header: GgufHeader, hf: Any) -> None:
    """Make sure that the model has as many numbers as the file.

    transformers skips tensors that it has no place for, and says nothing.
    """
    stored = sum(tensor.numel for tensor in header.tensors.values())
    used = sum(parameter.numel() for parameter in hf.parameters())
    if stored != used:
        raise HydrascopeError(
            f"cannot load {path}: its tensors hold {stored:,} numbers, and the model that transformers makes of them "
            f"{used:,}: load the original model with safetensors"
        )


@contextmanager
def quick_reader() -> Iterator[None]:
    """Let transformers read a GGUF file in a tenth of the time, and print no progress.

    Else it opens the file four times, through slices of a memory map, and computes the table of names for each module.
    """
    patches = [
        (gguf, "GGUFReader", functools.cache(_QuickReader)),
        (gguf, "get_tensor_name_map", functools.cache(gguf.get_tensor_name_map)),
        (modeling_gguf_pytorch_utils, "tqdm", lambda tensors, **_: tensors),
    ]
    with _ONE_AT_A_TIME:
        own = [(module, name, getattr(module, name)) for module, name, _ in patches]
        for module, name, quick in patches:
            setattr(module, name, quick)
        try:
            yield
        finally:
            for module, name, value in own:
                setattr(module, name, value)


class _QuickReader(gguf.GGUFReader):
    """A reader whose slices are plain arrays: slices of a memory map take ten times as long."""

    @property
    def data(self) -> Any:
        return self._plain

    @data.setter
    def data(self, mapped: Any) -> None:
        self._plain = mapped.view(np.ndarray)
