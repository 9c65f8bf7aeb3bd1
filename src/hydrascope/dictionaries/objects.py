"""Take the dictionaries of other tools: live sparse autoencoders and transcoders.

The tools are recognised by the names of their classes: hydrascope doesn't import them. SAELens' settings are read from
`cfg`. Any other module is known by the names of its weights; what these leave open is settled by its own output on
random vectors, which the dictionary must give, too.
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from hydrascope.dictionaries.dictionary import Dictionary
from hydrascope.dictionaries.saelens import from_saelens
from hydrascope.dictionaries.weights import from_weights, known
from hydrascope.utils.class_names import is_of
from hydrascope.utils.errors import HydrascopeError, cause

#: Rows of random vectors on which a module's output is compared, at two scales.
_ROWS = 8
#: The largest relative difference to the module's own output, by dtype; and for those of 16 bits.
_TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-4}
_COARSE = 0.05


def dictionary_of(sae: Any, site: str | None = None, name: str = "") -> Dictionary:
    """Return the dictionary that another tool's object holds.

        sae = sae_lens.SAE.from_pretrained("gpt2-small-res-jb", "blocks.8.hook_resid_pre")
        model = hs.load_model("gpt2").with_dictionaries(hs.Dictionary.of(sae))

    Its weights are copied. SAELens' objects say where they belong; for any other, `site` is needed.

    Args:
        sae: an SAE or transcoder of SAELens; a torch module, or a mapping, with weights under usual names, such as
            `W_enc` and `W_dec` or `encoder.weight` and `decoder.weight` (`weights.py` lists them).
        site: its site, such as `mlp.5`; None to take what the object says.
        name: a name for messages and results.

    Raises:
        HydrascopeError: it is no dictionary, has a setting or an architecture that isn't supported, doesn't say where
            it belongs, or computes something else than the dictionary of its weights.
    """
    if isinstance(sae, Dictionary):
        return replace(sae, site=site or sae.site, name=name or sae.name)
    if is_of(sae, "torch", "OptimizedModule"):
        sae = sae._orig_mod
    if is_of(sae, "sae_lens", "SAE"):
        return _of_saelens(sae, site, name)
    if isinstance(sae, nn.Module):
        return _of_module(sae, site, name)
    if isinstance(sae, Mapping):
        return from_weights("the mapping", sae, site, name)
    kind = type(sae).__name__
    raise HydrascopeError(
        f"a {kind} is no dictionary: give an SAE of SAELens, a torch module or weights by name; files are read by "
        "hs.Dictionary.load"
    )


def _of_saelens(sae: Any, site: str | None, name: str) -> Dictionary:
    source = type(sae).__name__
    made = from_saelens(source, sae.cfg.to_dict(), sae.state_dict(), site, name)
    # With an error term its output is x itself, in batches its own threshold isn't used, and its reshaping of heads
    # remembers the shape of what it was given last.
    told = ("use_error_term", "hook_z_reshaping_mode")
    if made.activation != "batchtopk" and not any(getattr(sae, each, False) for each in told):
        _require_agreement(source, _difference(sae, made), made)
    return made


def _of_module(module: nn.Module, site: str | None, name: str) -> Dictionary:
    source = type(module).__name__
    given: dict[str, Any] = {key: value for key, value in module.state_dict().items() if known(key)}
    inner = getattr(module, "activation_function", None)
    for key, holder in (("k", module), ("k", inner), ("apply_b_dec_to_input", module)):
        value = getattr(holder, key, None)
        if key not in given and isinstance(value, (bool, int, float)):
            given[key] = value
    if "topk" in source.lower() and {"k", "threshold"} <= set(given):
        batch = "batchtopk" in source.lower()
        given.pop("k" if batch else "threshold")
        given["activation"] = "batchtopk" if batch else "topk"
    candidates = [from_weights(source, each, site, name) for each in _readings(given)]
    differences = [_difference(module, each) for each in candidates]
    best = min(range(len(candidates)), key=differences.__getitem__)
    _require_agreement(source, differences[best], candidates[best])
    return candidates[best]


def _readings(given: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the weights in each way that their names leave open."""
    subtracted = [given["apply_b_dec_to_input"]] if "apply_b_dec_to_input" in given else [False, True]
    if "pre_bias" in given or not {"b_dec", "decoder.bias", "decoder_bias"} & set(given):
        subtracted = []
    encoder = given.get("W_enc")
    square = isinstance(encoder, Tensor) and encoder.ndim == 2 and encoder.shape[0] == encoder.shape[1]
    for subtract, turned in itertools.product(subtracted or [None], [False, True] if square else [False]):
        reading = {key: value for key, value in given.items() if key != "apply_b_dec_to_input"}
        if subtract is not None:
            reading["apply_b_dec_to_input"] = subtract
        if turned and encoder is not None:
            reading["W_enc"] = encoder.T
        yield reading


def _difference(module: nn.Module, dictionary: Dictionary) -> float:
    """Return the relative difference between the outputs of both, in most of the rows.

    In the quarter left out a feature may be just above the threshold for one and below it for the other.

    Raises:
        HydrascopeError: the module can't be run on vectors of the dictionary's width.
    """
    weight = dictionary.encoder
    x = torch.randn(_ROWS, dictionary.inputs, generator=torch.Generator().manual_seed(0)).to(weight)
    x = torch.cat([x, 10 * x])
    if dictionary.centred:  # the module is given centred vectors
        x = x - x.mean(-1, keepdim=True)
    with torch.no_grad():
        try:
            output = module(x)
        except Exception as error:  # another tool's code
            raise HydrascopeError(
                f"{type(module).__name__} can't be run on vectors of {dictionary.inputs} numbers, so it "
                f"can't be compared ({cause(error)}): give its weights and settings as a mapping"
            ) from None
        expected = (dictionary.encode(x) @ dictionary.decoder + dictionary.rest(x)).double()
    outputs = [output] if isinstance(output, Tensor) else _items(output)
    found = [each.double() for each in outputs if isinstance(each, Tensor) and each.shape == expected.shape]
    lengths = expected.norm(dim=-1).clamp_min(torch.finfo(torch.float64).tiny)
    errors = [((each - expected).norm(dim=-1) / lengths).nan_to_num(torch.inf).quantile(0.75).item() for each in found]
    return min(errors, default=torch.inf)


def _items(output: Any) -> list[Any]:
    if isinstance(output, Mapping):
        return list(output.values())
    return list(output) if isinstance(output, (tuple, list)) else list(getattr(output, "__dict__", {}).values())


def _require_agreement(source: str, difference: float, dictionary: Dictionary) -> None:
    if difference > _TOLERANCE.get(dictionary.encoder.dtype, _COARSE):
        raise HydrascopeError(
            f"{source} computes something else than {dictionary.activation} of its weights (its output differs by "
            f"{difference:.1g}): remove its hooks, or give its weights and settings as a mapping"
        )
