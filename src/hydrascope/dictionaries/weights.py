"""Make a dictionary of weights that are known by name alone.

| part | names |
|---|---|
| encoder | `W_enc` `[input, feature]`, `encoder.weight` `[feature, input]`, `encoder` `[feature, input]` |
| decoder | `W_dec` `[feature, output]`, `decoder.weight` `[output, feature]`, `decoder` `[feature, output]` |
| encoder's bias | `b_enc`, `encoder.bias`, `latent_bias`, `encoder_bias` |
| decoder's bias | `b_dec`, `decoder.bias`, `decoder_bias` |
| pre-bias | `pre_bias`; `b_dec` too where `apply_b_dec_to_input` is true |
| both biases | `bias`; `pre_bias` beside `latent_bias`, as in OpenAI's autoencoders |
| skip matrix | `W_skip` `[output, input]`, `affine_skip_connection` `[input, output]`, `skip` `[output, input]` |
| threshold | `threshold`, `log_threshold`, `activation_function.threshold` |

`W_enc` is `[feature, input]` in circuit-tracer. If only that fits the decoder, it is taken so; a square one is read as
SAELens does.
"""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hydrascope.components.dictionary_site import parse_site
from hydrascope.dictionaries.dictionary import Dictionary
from hydrascope.dictionaries.saelens import build, whole
from hydrascope.utils.errors import HydrascopeError

#: The names of each part.
_NAMES = {
    "encoder": ("encoder", "W_enc", "w_enc", "encoder.weight"),
    "decoder": ("decoder", "W_dec", "w_dec", "decoder.weight"),
    "encoder_bias": ("encoder_bias", "b_enc", "encoder.bias", "latent_bias"),
    "decoder_bias": ("decoder_bias", "b_dec", "decoder.bias"),
    "pre_bias": ("pre_bias",),
    "skip": ("skip", "W_skip", "affine_skip_connection"),
    "threshold": ("threshold", "log_threshold", "activation_function.threshold"),
    "k": ("k",),
}
_TRANSPOSED = ("W_enc", "w_enc", "decoder.weight", "affine_skip_connection")
#: The bias that is both subtracted from x and written.
_SHARED_BIAS = "bias"
_SUBTRACTED = "apply_b_dec_to_input"
_SETTINGS = tuple(field.name for field in fields(Dictionary) if field.name not in _NAMES)


def known(name: str) -> bool:
    """Whether a weight or setting has a name that is read."""
    return name in (*(each for names in _NAMES.values() for each in names), *_SETTINGS, _SHARED_BIAS, _SUBTRACTED)


def from_weights(source: str, given: Mapping[str, Any], site: str | None = None, name: str = "") -> Dictionary:
    """Return the dictionary of weights and settings by name.

        from_weights("my file", {"W_enc": enc, "W_dec": dec, "b_enc": bias, "k": 32}, site="mlp.3")

    Settings are named as the attributes of `Dictionary`; `apply_b_dec_to_input` is needed where there is a decoder's
    bias, except for a transcoder. Without `activation` it is `topk` if there is a `k`, `jumprelu` if there is a
    threshold, and `relu` otherwise.

    Args:
        source: the file or class that they come from, named in errors.

    Raises:
        HydrascopeError: a weight or setting is missing, unknown or given twice, or doesn't fit.
    """
    unknown = [str(key) for key in given if not known(str(key))]
    if unknown:
        raise HydrascopeError(f"{source} holds {', '.join(unknown)}, which no dictionary has: leave them out")
    parts = {part: value for part in _NAMES if (value := _part(source, part, given)) is not None}
    missing = [part for part in ("encoder", "decoder") if part not in parts]
    if missing:
        raise HydrascopeError(f"{source} has no {missing[0]}: give {' or '.join(_NAMES[missing[0]])}")
    settings = {key: given[key] for key in _SETTINGS if given.get(key) is not None}
    settings |= {key: value for key, value in (("site", site), ("name", name)) if value}
    if "site" not in settings:
        raise HydrascopeError(f"{source} doesn't say where it belongs: give its site, as site='mlp.5', or mlp.5=PATH")
    if "W_enc" in given or "w_enc" in given:
        parts["encoder"] = _as_read(parts["encoder"], parts["decoder"])
    shared = given.get(_SHARED_BIAS) is not None or (given.get("latent_bias") is not None and "pre_bias" in parts)
    if shared:
        if "decoder_bias" in parts:
            raise HydrascopeError(f"{source} gives a bias that is also written, and a decoder's bias: give one")
        bias = _tensor(source, _SHARED_BIAS, given[_SHARED_BIAS]) if "pre_bias" not in parts else parts["pre_bias"]
        parts |= {"pre_bias": bias, "decoder_bias": bias}
    elif _is_subtracted(source, given, parts, str(settings["site"])):
        parts["pre_bias"] = parts["decoder_bias"]
    settings.setdefault("activation", _activation(source, parts))
    return build(source, **settings, **parts)


def _part(source: str, part: str, given: Mapping[str, Any]) -> Any:
    names = [name for name in _NAMES[part] if given.get(name) is not None]
    if len(names) > 1:
        raise HydrascopeError(f"{source} holds {' and '.join(names)}, which are one part: give one")
    if not names:
        return None
    value = given[names[0]]
    if part == "k":
        return whole(source, "k", value)
    if part == "threshold" and isinstance(value, (int, float)):
        return float(value)
    tensor = _tensor(source, names[0], value)
    if names[0] == "log_threshold":
        tensor = tensor.exp()
    if part == "threshold" and tensor.numel() == 1:
        return tensor.item()
    return tensor.mT.contiguous() if names[0] in _TRANSPOSED and tensor.ndim > 1 else tensor


def _tensor(source: str, name: str, value: Any) -> Tensor:
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        value = torch.tensor(value)
    if not isinstance(value, Tensor):
        raise HydrascopeError(f"{source} has {name} of type {type(value).__name__}: give a tensor")
    return value.detach().clone()


def _as_read(encoder: Tensor, decoder: Tensor) -> Tensor:
    """Return the encoder as `[feature, input]`, if it is so already before it was transposed."""
    fits = encoder.ndim == decoder.ndim == 2 and len(encoder) != len(decoder) == encoder.shape[1]
    return encoder.T.contiguous() if fits else encoder


def _is_subtracted(source: str, given: Mapping[str, Any], parts: Iterable[str], site: str) -> bool:
    """Whether the decoder's bias is subtracted from x."""
    if _SUBTRACTED in given:
        if given[_SUBTRACTED] and not {"decoder_bias"} <= set(parts):
            raise HydrascopeError(f"{source} has {_SUBTRACTED} and no decoder's bias")
        if given[_SUBTRACTED] and "pre_bias" in parts:
            raise HydrascopeError(f"{source} has {_SUBTRACTED} and a pre_bias: give one")
        return bool(given[_SUBTRACTED])
    if "decoder_bias" in parts and "pre_bias" not in parts and parse_site(site)[0] != "transcoder":
        raise HydrascopeError(
            f"{source} holds a decoder's bias and doesn't say whether it is subtracted from x first: give "
            f"{_SUBTRACTED}, True or False"
        )
    return False


def _activation(source: str, parts: Iterable[str]) -> str:
    found = {"k", "threshold"} & set(parts)
    if len(found) == 2:
        raise HydrascopeError(f"{source} has k and a threshold: give one, or activation='batchtopk' without k")
    return {"k": "topk", "threshold": "jumprelu"}.get("".join(found), "relu")
