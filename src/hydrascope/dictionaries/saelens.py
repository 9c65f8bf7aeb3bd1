"""Make a dictionary of SAELens' settings and weights, of version 6 and of the older ones.

| setting | taken as |
|---|---|
| `architecture` | `standard`, `topk`, `jumprelu`, `batchtopk`, `matryoshka_batchtopk`, and four kinds of transcoders |
| `apply_b_dec_to_input` | the pre-bias is the decoder's bias |
| `rescale_acts_by_decoder_norm` | `by_decoder_norm` |
| `finetuning_scaling_factor` | decoder rows times the factor |
| `normalize_activations` | `none`; `expected_average_only_in` where its scale is known |
| `hook_name`, `hook_name_out` | the site (`dictionary_hooks.py`) |
| `prepend_bos` | `begins_with_bos` |
| `model_from_pretrained_kwargs` | `center_writing_weights`: `centred`; `fold_ln`: `before_gain` |

Whatever else changes the numbers is refused. The same holds for weights of unknown names.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hydrascope.components.dictionary_site import parse_site
from hydrascope.dictionaries.dictionary import Dictionary
from hydrascope.dictionaries.hook_names import reads_before_gain, site_of
from hydrascope.utils.errors import HydrascopeError

#: The activation of each architecture.
_ACTIVATIONS = {
    "standard": "relu",
    "topk": "topk",
    "jumprelu": "jumprelu",
    "batchtopk": "batchtopk",
    "matryoshka_batchtopk": "batchtopk",
    "transcoder": "relu",
    "skip_transcoder": "relu",
    "jumprelu_transcoder": "jumprelu",
    "jumprelu_skip_transcoder": "jumprelu",
}
_REFUSED = {
    "gated": "an activation is a product of two encoders' outputs",
    "temporal": "an activation depends on earlier tokens",
    "matching_pursuit": "its features are found one after the other",
    "abstopk": "its activations may be negative",
    "clt": "a feature writes to several blocks",
    "crosscoder": "a feature writes to several blocks",
}
_NORMALISATIONS = {
    "layer_norm": "x is divided by its own deviation, so no feature writes a fixed vector",
    "constant_norm_rescale": "x is divided by its own length, so no feature writes a fixed vector",
    "covariance_whitening": "fold it with sae.fold_activation_whitening and save it again",
    "expected_average_only_in": "fold its scale with sae.fold_activation_norm_scaling_factor and save it again",
}
#: The names of settings before version 6.
_OLD_NAMES = {
    "hook_point": "hook_name",
    "hook_point_head_index": "hook_head_index",
    "activation_fn_str": "activation_fn",
}
_WEIGHTS = ("W_enc", "W_dec", "b_enc", "b_dec")
_OPTIONAL = ("threshold", "log_threshold", "topk_threshold", "W_skip", "scaling_factor", "finetuning_scaling_factor")
#: Models without LayerNorm: TransformerLens centres nothing in them.
_RMS_NORM = re.compile("gemma|llama|mistral|mixtral|qwen|smollm|phi-3", re.IGNORECASE)
#: The processing of weights that changes what a dictionary reads.
_PROCESSING = ("center_writing_weights", "fold_value_biases")


def from_saelens(
    source: str,
    settings: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    site: str | None = None,
    name: str = "",
    scale: float | None = None,
) -> Dictionary:
    """Return the dictionary with SAELens' settings, as in its `cfg.json`, and its weights.

        from_saelens("my SAE", sae.cfg.to_dict(), sae.state_dict())

    Args:
        source: its file or class, named in errors.
        site: the site; None to find it in the settings.
        scale: the number that x was multiplied by in training, if it isn't part of the weights yet.

    Raises:
        HydrascopeError: an architecture, a setting or a site isn't supported, or weights are missing or unknown.
    """
    settings = flat(settings)
    architecture, activation = _architecture(source, settings)
    found = {key: weight.detach() for key, weight in weights.items()}
    _require_weights(source, settings, found, skip="skip" in architecture)
    _require_one_scale(source, settings, scale if "transcoder" not in architecture else None)
    if settings.get("hook_head_index") is not None:
        raise HydrascopeError(f"{source} reads head {settings['hook_head_index']} alone: only all heads are supported")
    if site is None:
        site = _site(source, settings, transcodes="transcoder" in architecture)
    place = parse_site(site)[0]
    if place == "heads":
        _require_plain_heads(source, settings)
    decoder = found["W_dec"] * _finetuned(source, settings, found)
    fields: dict[str, Any] = {
        "encoder": found["W_enc"].T.clone(memory_format=torch.contiguous_format),
        "decoder": decoder,
        "encoder_bias": found["b_enc"].clone(),
        "decoder_bias": found["b_dec"].clone(),
        "skip": found["W_skip"].clone() if "skip" in architecture else None,
        "by_decoder_norm": bool(settings.get("rescale_acts_by_decoder_norm", False)),
        "threshold": _threshold(source, activation, found),
        "k": whole(source, "k", settings.get("k")) if activation == "topk" else None,
    }
    if scale is not None:
        fields |= _scaled(fields, scale)
    if "transcoder" not in architecture and settings.get("apply_b_dec_to_input", True):
        fields["pre_bias"] = fields["decoder_bias"]
    return build(
        source,
        site=site,
        name=name,
        activation=activation,
        centred=place in ("attn", "mlp", "stream") and _is_centred(settings),
        before_gain=place == "transcoder" and _is_before_gain(settings),
        begins_with_bos=None if settings.get("prepend_bos") is None else bool(settings["prepend_bos"]),
        **fields,
    )


def build(source: str, **fields: Any) -> Dictionary:
    """Return a dictionary; name `source` in what it refuses."""
    try:
        return Dictionary(**fields)
    except HydrascopeError as error:
        raise HydrascopeError(f"cannot take {source}: {error}") from None


def whole(source: str, setting: str, value: Any) -> int:
    """Return a setting that is a whole number.

    >>> whole("my SAE", "k", 32)
    32

    Raises:
        HydrascopeError: it is none.
    """
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int):
        raise HydrascopeError(f"{source} has {setting} = {value!r}: give a whole number")
    return value


def flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings of any version under the names of version 6, the metadata among them."""
    metadata = settings.get("metadata")
    merged = {**settings, **(metadata if isinstance(metadata, Mapping) else {})}
    renamed = {_OLD_NAMES.get(key, key): value for key, value in merged.items() if key != "metadata"}
    arguments = renamed.get("activation_fn_kwargs")
    if renamed.get("activation_fn") == "topk" and isinstance(arguments, Mapping):
        renamed |= {"architecture": "topk", "k": arguments.get("k"), "signed": arguments.get("signed", False)}
    # Before version 3 there was no such setting, and TransformerLens processed the weights of each model.
    if "hook_point" in merged and renamed.get("model_from_pretrained_kwargs") is None:
        processed = _has_layer_norm(renamed)
        renamed["model_from_pretrained_kwargs"] = dict.fromkeys(_PROCESSING, processed)
    return renamed


def _architecture(source: str, settings: Mapping[str, Any]) -> tuple[str, str]:
    architecture = str(settings.get("architecture", "standard"))
    if architecture in _REFUSED:
        raise HydrascopeError(
            f"{source} has the architecture {architecture!r}, which isn't supported: {_REFUSED[architecture]}"
        )
    if architecture not in _ACTIVATIONS:
        raise HydrascopeError(f"{source} has the architecture {architecture!r}: known are {', '.join(_ACTIVATIONS)}")
    activation = _ACTIVATIONS[architecture]
    function = str(settings.get("activation_fn") or "relu")
    if function not in ("relu", activation) or settings.get("signed"):
        function = f"signed {function}" if settings.get("signed") else function
        raise HydrascopeError(f"{source} has activation_fn = {function!r}: only relu and topk are supported")
    return architecture, activation


def _require_weights(source: str, settings: Mapping[str, Any], weights: Mapping[str, Tensor], *, skip: bool) -> None:
    wanted = (*_WEIGHTS, "W_skip") if skip else _WEIGHTS
    missing = [key for key in wanted if key not in weights]
    if missing:
        raise HydrascopeError(f"{source} lacks {', '.join(missing)}")
    known = (*_WEIGHTS, *(key for key in _OPTIONAL if skip or key != "W_skip"))
    unknown = sorted(key for key in weights if key not in known)
    if unknown:
        raise HydrascopeError(f"{source} holds weights that {settings.get('architecture')} lacks: {', '.join(unknown)}")
    flat_ones = [key for key in ("W_enc", "W_dec") if weights[key].ndim != 2]
    if flat_ones:
        raise HydrascopeError(f"{source} has a {flat_ones[0]} of shape {[*weights[flat_ones[0]].shape]}: give a matrix")
    stated = [settings.get("d_in"), settings.get("d_sae")]
    shape = [*weights["W_enc"].shape]
    if any(size not in (None, real) for size, real in zip(stated, shape, strict=True)):
        raise HydrascopeError(
            f"{source} has d_in = {stated[0]} and d_sae = {stated[1]}, but its W_enc has shape {shape}: its settings "
            "and its weights belong to two dictionaries"
        )


def _require_one_scale(source: str, settings: Mapping[str, Any], scale: float | None) -> None:
    given = settings.get("normalize_activations")
    # Before it had names, the setting was true or false.
    normalisation = str(given or "none") if given is not True else "expected_average_only_in"
    if normalisation == "none" or (normalisation == "expected_average_only_in" and scale is not None):
        return
    reason = _NORMALISATIONS.get(normalisation, f"known is none, and {', '.join(_NORMALISATIONS)} are refused")
    raise HydrascopeError(f"{source} has normalize_activations = {given!r}, which isn't supported: {reason}")


def _site(source: str, settings: Mapping[str, Any], *, transcodes: bool) -> str:
    hook, output = settings.get("hook_name"), settings.get("hook_name_out")
    # SAELens names it so for Gemma 3, too, where it is what comes after the norm: the second name is exact.
    if str(hook).endswith("hook_mlp_in") and settings.get("hf_hook_name"):
        hook, output = settings["hf_hook_name"], settings.get("hf_hook_name_out")
    if not hook or (transcodes and not output):
        missing = "hook_name_out" if hook else "hook_name"
        raise HydrascopeError(f"{source} has no {missing}: say where it belongs, as site='mlp.5'")
    return site_of(source, str(hook), str(output) if transcodes else None)


def _finetuned(source: str, settings: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Tensor:
    """Return the factor of each decoder row, `[feature, 1]`."""
    factor = weights.get("finetuning_scaling_factor", weights.get("scaling_factor"))
    if factor is None or bool((factor == 1).all()):
        return weights["W_dec"].new_ones(1)
    if not settings.get("finetuning_scaling_factor"):
        raise HydrascopeError(f"{source} holds a scaling_factor, but its finetuning_scaling_factor is false")
    if settings.get("rescale_acts_by_decoder_norm"):
        raise HydrascopeError(f"{source} has finetuning_scaling_factor and rescale_acts_by_decoder_norm: give one")
    if factor.shape != weights["W_dec"].shape[:1]:
        raise HydrascopeError(f"the scaling_factor of {source} has shape {[*factor.shape]}: give a number per feature")
    return factor[:, None]


def _threshold(source: str, activation: str, weights: Mapping[str, Tensor]) -> Tensor | float | None:
    if activation not in ("jumprelu", "batchtopk"):
        return None
    threshold = weights.get("topk_threshold" if activation == "batchtopk" else "threshold")
    if threshold is None and "log_threshold" in weights:
        threshold = weights["log_threshold"].exp()
    if threshold is None and activation == "batchtopk":
        threshold = weights.get("threshold")
    if threshold is None or (activation == "batchtopk" and not bool((threshold > 0).any())):
        raise HydrascopeError(f"{source} has no threshold, which {activation} learns in training")
    # SAELens applies relu before the threshold, so one below 0 acts as 0.
    threshold = threshold.clamp_min(0)
    return threshold.item() if threshold.ndim == 0 else threshold.clone()


def _scaled(fields: Mapping[str, Any], scale: float) -> dict[str, Any]:
    """Return the weights that do for x what they now do for `scale` times x."""
    scaled = {
        "encoder": fields["encoder"] * scale,
        "decoder": fields["decoder"] / scale,
        "decoder_bias": fields["decoder_bias"] / scale,
    }
    # The threshold is compared to z times the length of the decoder's row, which is now shorter.
    if fields["by_decoder_norm"] and fields["threshold"] is not None:
        scaled["threshold"] = fields["threshold"] / scale
    return scaled


def _loading(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    given = settings.get("model_from_pretrained_kwargs")
    return given if isinstance(given, Mapping) else {}


def _has_layer_norm(settings: Mapping[str, Any]) -> bool:
    return not _RMS_NORM.search(str(settings.get("model_name") or ""))


def _is_centred(settings: Mapping[str, Any]) -> bool:
    return bool(_loading(settings).get("center_writing_weights")) and _has_layer_norm(settings)


def _is_before_gain(settings: Mapping[str, Any]) -> bool:
    """Whether it reads the MLP's input before the gain, or the gain was folded into the MLP."""
    return reads_before_gain(str(settings.get("hook_name"))) or bool(_loading(settings).get("fold_ln"))


def _require_plain_heads(source: str, settings: Mapping[str, Any]) -> None:
    """Refuse a dictionary of heads' outputs that only a model processed by TransformerLens has."""
    for change in ("fold_value_biases", "refactor_factored_attn_matrices"):
        if _loading(settings).get(change):
            raise HydrascopeError(
                f"{source} was trained on a model changed by {change}: in the model itself, its heads' outputs are "
                "others"
            )
