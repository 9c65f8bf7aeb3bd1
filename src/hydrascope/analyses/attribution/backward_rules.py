"""Backward rules that change a model's gradients but not its outputs (Edin et al. 2025).

Each rule returns the value of one expression with the gradient of another.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from hydrascope.components.component import Component
from hydrascope.engines.attention import Attend, AttentionInputs, attending, capped, softmax
from hydrascope.models.hooks import Handle, hooked, on_input
from hydrascope.models.language_model import LanguageModel, wider
from hydrascope.models.offload import fetch
from hydrascope.models.projection import weight_of
from hydrascope.utils.errors import HydrascopeError

#: Largest deviation of a norm's output from its formula, relative to the largest output; narrow dtypes round.
_TOLERANCE = 0.02


@dataclass(frozen=True)
class Rules:
    """A choice among GIM's three rules; `Rules(1.0, False, False)` is plain backpropagation.

        >>> rules = hs.analyses.attribution.Rules(temperature=1.0)

    Attributes:
        temperature: T of the softmax whose Jacobian replaces that of attention's softmax; 1 keeps its own.
        freeze_norms: whether the scale of norms is a constant.
        divide: whether both factors of a product get half of the gradient.
    """

    temperature: float = 2.0
    freeze_norms: bool = True
    divide: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise HydrascopeError(f"invalid temperature {self.temperature:g}: give a number above 0")


def straight_through(value: Tensor, like: Tensor) -> Tensor:
    """Return `value` with the gradient of `like`."""
    return value.detach() + (like - like.detach())


def half_gradient(factor: Tensor) -> Tensor:
    """Return a factor of a product that gets half of its gradient."""
    return straight_through(factor, factor / 2)


def tempered_softmax(scores: Tensor, temperature: float, sinks: Tensor | None = None) -> Tensor:
    """Return softmax(s) with the gradient of a flatter softmax.

    For a gradient g from above it is p ⊙ (g − ⟨g, p⟩) with p = softmax(s/T). That is the Jacobian of softmax at s/T
    without the factor 1/T of the chain rule.
    """
    flatter = softmax(scores / temperature, None if sinks is None else sinks / temperature)
    return straight_through(softmax(scores, sinks), temperature * flatter)


def frozen_norm(x: Tensor, gain: Tensor | float, eps: float, *, centred: bool) -> Tensor:
    """Return a norm without its bias, whose scale σ is a constant to autograd.

    RMSNorm is G x/σ; LayerNorm (`centred`) is G (x − mean x)/σ.
    """
    x = x - x.mean(-1, keepdim=True) if centred else x
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt().detach() * gain


@contextmanager
def apply_rules(model: LanguageModel, rules: Rules) -> Iterator[None]:
    """Make autograd follow `rules` in passes of `model` within this context.

    Raises:
        HydrascopeError: the rules don't cover the model's attention or MLPs.
    """
    gated = require_supported(model)

    def hooks() -> Iterator[Handle]:
        if rules.freeze_norms:
            for norm in _norms(model):
                yield norm.register_forward_hook(partial(_freeze, model))
        if rules.divide:
            for sublayer in gated:
                # The neurons' output is the product: half of its gradient is half of that of both factors.
                yield on_input(model.projection(sublayer).module, half_gradient)

    with attending(model, ruled_attention(rules)), hooked(hooks()):
        yield


def require_supported(model: LanguageModel) -> list[Component]:
    """Return the gated MLPs, whose neurons are products of two projections.

    Raises:
        HydrascopeError: the rules don't cover the model's attention or MLPs.
    """
    if not model.anatomy.supports_wavefront:
        raise HydrascopeError(
            f"gim doesn't support {model.config.model_type}: its attention does not go through transformers' "
            "AttentionInterface; use atp"
        )
    return [sublayer for sublayer in model.sublayers if sublayer.kind == "mlp" and _is_gated(model, sublayer)]


def _is_gated(model: LanguageModel, sublayer: Component) -> bool:
    try:
        projection = model.projection(sublayer)
    except HydrascopeError:
        raise HydrascopeError(
            f"gim has no rule for {sublayer} of {model.name}, a mixture of experts: use atp"
        ) from None
    path = model.anatomy.neurons_out.rpartition(".")[0]
    siblings = model.blocks[sublayer.block].get_submodule(path).children()
    others = [each for each in siblings if each is not projection.module and _has_matrix(each)]
    rows = sum(weight_of(each).shape[0] for each in others)
    if rows not in (projection.units, 2 * projection.units):
        raise HydrascopeError(f"gim can't tell whether {sublayer} of {model.name} is gated: use atp")
    return rows == 2 * projection.units


def _has_matrix(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return weight is not None and weight.ndim == 2


def ruled_attention(rules: Rules) -> Attend:
    """Return the attention function that the model computes, differentiated by `rules`."""
    factor = half_gradient if rules.divide else lambda each: each

    def attend(inputs: AttentionInputs) -> Tensor:
        key, value = inputs.per_query_head(inputs.key), inputs.per_query_head(inputs.value)
        scores = capped(factor(inputs.query) @ factor(key).transpose(-1, -2) * inputs.scaling, inputs.softcap)
        weights = tempered_softmax(scores.masked_fill(~inputs.mask, -torch.inf), rules.temperature, inputs.sinks)
        return factor(weights).to(value.dtype) @ factor(value)

    return attend


def _norms(model: LanguageModel) -> list[Any]:
    """Return all norms of the model, those of queries and keys included."""
    return [each for each in model.hf.modules() if "Norm" in type(each).__name__ and not list(each.children())]


def _freeze(model: LanguageModel, norm: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
    """Return a norm's output, its scale a constant to autograd."""
    wide = wider(output.dtype)
    weight, bias = fetch(norm), fetch(norm, "bias")
    gain = 1.0 if weight is None else weight.to(wide) + model.anatomy.norm_offset
    like = frozen_norm(args[0].to(wide), gain, model.eps_of(norm), centred="LayerNorm" in type(norm).__name__)
    expected = output.detach().to(wide) - (0 if bias is None else bias.to(wide))
    # A NaN passes here: it says nothing about the norm, and estimates with NaN are refused later.
    if bool((expected - like).abs().max() > _TOLERANCE * expected.abs().max()):
        raise HydrascopeError(f"gim has no rule for the norm {type(norm).__name__} of {model.name}: use atp")
    return straight_through(output, like.to(output.dtype))
