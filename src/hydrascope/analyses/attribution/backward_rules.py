"""Backward rules that leave what a model computes as it is, and change what autograd makes of it (Edin et al. 2025).

Each is one line: the value of one thing with the slope of another.
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

#: How far a norm's output may be from what its formula gives, as a share of its largest number: narrow dtypes round.
_TOLERANCE = 0.02


@dataclass(frozen=True)
class Rules:
    """Which of GIM's three rules apply; `Rules(1.0, False, False)` is plain backpropagation.

    Attributes:
        temperature: T of the softmax whose Jacobian stands in for attention's own; 1 is its own.
        freeze_norms: whether the scale of norms counts as a constant.
        divide: whether a product of two things gives each of them half of its gradient.
    """

    temperature: float = 2.0
    freeze_norms: bool = True
    divide: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise HydrascopeError(f"a temperature of {self.temperature:g}: give a number above 0")


def straight_through(value: Tensor, like: Tensor) -> Tensor:
    """`value`, which autograd takes for `like`."""
    return value.detach() + (like - like.detach())


def half_gradient(factor: Tensor) -> Tensor:
    """A factor of a product of two, which gets half of its gradient."""
    return straight_through(factor, factor / 2)


def tempered_softmax(scores: Tensor, temperature: float, sinks: Tensor | None = None) -> Tensor:
    """softmax(s), with the gradient p ⊙ (g − ⟨g, p⟩), p = softmax(s/T), of what comes from above, g.

    That is the Jacobian of softmax at s/T: the factor 1/T, which the chain rule would add, is left out.
    """
    flatter = softmax(scores / temperature, None if sinks is None else sinks / temperature)
    return straight_through(softmax(scores, sinks), temperature * flatter)


def frozen_norm(x: Tensor, gain: Tensor | float, eps: float, *, centred: bool) -> Tensor:
    """G x/σ, or of LayerNorm G (x − mean x)/σ, without its bias, σ a constant."""
    x = x - x.mean(-1, keepdim=True) if centred else x
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt().detach() * gain


@contextmanager
def apply_rules(model: LanguageModel, rules: Rules) -> Iterator[None]:
    """Let autograd follow `rules` through whatever `model` computes in here.

    Raises:
        HydrascopeError: the model attends or multiplies in a way that the rules say nothing of.
    """
    gated = require_supported(model)

    def hooks() -> Iterator[Handle]:
        if rules.freeze_norms:
            for norm in _norms(model):
                yield norm.register_forward_hook(partial(_freeze, model))
        if rules.divide:
            for sublayer in gated:
                # What the neurons hand on is the product; halving its gradient is halving that of both factors.
                yield on_input(model.projection(sublayer).module, half_gradient)

    with attending(model, ruled_attention(rules)), hooked(hooks()):
        yield


def require_supported(model: LanguageModel) -> list[Component]:
    """The MLPs whose neurons are products of two projections, a gate and a value.

    Raises:
        HydrascopeError: the model attends or multiplies in a way that the rules say nothing of.
    """
    if not model.anatomy.supports_wavefront:
        raise HydrascopeError(
            f"gim can't follow {model.config.model_type}, which does not attend through transformers' "
            "AttentionInterface: take atp"
        )
    return [sublayer for sublayer in model.sublayers if sublayer.kind == "mlp" and _is_gated(model, sublayer)]


def _is_gated(model: LanguageModel, sublayer: Component) -> bool:
    try:
        projection = model.projection(sublayer)
    except HydrascopeError:
        raise HydrascopeError(
            f"gim has no rule for {sublayer} of {model.name}, a mixture of experts: take atp"
        ) from None
    path = model.anatomy.neurons_out.rpartition(".")[0]
    siblings = model.blocks[sublayer.block].get_submodule(path).children()
    others = [each for each in siblings if each is not projection.module and getattr(each, "weight", None) is not None]
    rows = sum(weight_of(each).shape[0] for each in others if weight_of(each).ndim == 2)
    if rows not in (projection.units, 2 * projection.units):
        raise HydrascopeError(f"gim can't tell whether {sublayer} of {model.name} is gated: take atp")
    return rows == 2 * projection.units


def ruled_attention(rules: Rules) -> Attend:
    """Attend as the model does, to be differentiated by `rules`."""
    factor = half_gradient if rules.divide else lambda each: each

    def attend(inputs: AttentionInputs) -> Tensor:
        key, value = inputs.per_query_head(inputs.key), inputs.per_query_head(inputs.value)
        scores = capped(factor(inputs.query) @ factor(key).transpose(-1, -2) * inputs.scaling, inputs.softcap)
        weights = tempered_softmax(scores.masked_fill(~inputs.mask, -torch.inf), rules.temperature, inputs.sinks)
        return factor(weights).to(value.dtype) @ factor(value)

    return attend


def _norms(model: LanguageModel) -> list[Any]:
    """Every norm of the model, those of queries and keys included."""
    return [each for each in model.hf.modules() if "Norm" in type(each).__name__ and not list(each.children())]


def _freeze(model: LanguageModel, norm: nn.Module, args: tuple, output: Tensor) -> Tensor:
    """What `norm` gives, its scale a constant to autograd."""
    wide = wider(output.dtype)
    weight, bias = fetch(norm), fetch(norm, "bias")
    gain = 1.0 if weight is None else weight.to(wide) + model.anatomy.norm_offset
    like = frozen_norm(args[0].to(wide), gain, model.eps_of(norm), centred="LayerNorm" in type(norm).__name__)
    expected = output.detach().to(wide) - (0 if bias is None else bias.to(wide))
    # A NaN says nothing of the norm; it ends the run later.
    if bool((expected - like).abs().max() > _TOLERANCE * expected.abs().max()):
        raise HydrascopeError(f"gim has no rule for the norm {type(norm).__name__} of {model.name}: take atp")
    return straight_through(output, like.to(output.dtype))
