"""What is read off a residual stream: a target's logit, a logit difference, any direction, or a placebo's logit.

For a target token i, ŵ = W_U[:, i] − mean_j W_U[:, j] is its centred unembedding (Eq. 9). With the final norm's gain
G, bias β and scale σ (Eq. 8), and the unembedding's own bias b, the centred logit of a residual stream z is

    π̂(z) = ⟨z, a⟩ / σ(z) + c,   a = s·G ŵ (for LayerNorm with its mean removed),   c = s·(⟨β, ŵ⟩ + b_i − mean b)

where s is the model's logit multiplier. ⟨v, a⟩ / σ is what a vector v contributes when the scale is frozen at σ (Eq. 7,
8, 10): one dot product a component, no product with the whole unembedding. Every readout has this form, so components
add up: a logit difference reads ŵ_answer − ŵ_foil, a direction any vector in ŵ's place. A direction before block l is
read as it is, ⟨z, a⟩: no norm stands there, and only what is below l belongs to it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from hydrascope.components.component import Component
from hydrascope.models.language_model import LanguageModel, wider
from hydrascope.models.offload import fetch
from hydrascope.prompts.prompt import quote
from hydrascope.utils.errors import HydrascopeError

#: Readouts at the final residual stream, in `Linear.before`.
FINAL = -1


@dataclass(frozen=True)
class Linear:
    """One readout of a batch of prompts: a direction and a constant.

    Attributes:
        direction: `[prompt, width]` a.
        constant: `[prompt]` c.
        before: the block that it is read before; `FINAL` (−1) for the final residual stream.
        tokens: `[prompt]` whose logit it is, and whose is subtracted; None where it is no token's.
    """

    direction: Float[Tensor, "prompt width"]
    constant: Float[Tensor, "prompt"]
    before: int = FINAL
    tokens: tuple[Int[Tensor, "prompt"], Int[Tensor, "prompt"] | None] | None = None


@dataclass(frozen=True)
class Tokens:
    """The tokens of each prompt of a set that readouts speak of: its target, and answer and foil where asked for."""

    target: Sequence[int]
    answer: Sequence[int] = ()
    foil: Sequence[int] = ()


class Readout(Protocol):
    """What is to be read, as a user declares it.

    Attributes:
        needs: which of a prompt's `answer` and `foil` must be known.
        labels: what its readings are called in results.
    """

    @property
    def needs(self) -> tuple[str, ...]: ...

    @property
    def labels(self) -> tuple[str, ...]: ...

    def linear(self, model: LanguageModel, tokens: Tokens, prompts: Sequence[int]) -> list[Linear]:
        """A `Linear` a label, for the prompts of these places in the set."""
        ...


def require_readouts(readouts: Any) -> "list[Readout]":
    """`readouts`, one or several, as a list.

    Raises:
        HydrascopeError: there are none, or one is a name, a class, or something else.
    """
    several = list(readouts) if isinstance(readouts, Sequence) and not isinstance(readouts, str) else [readouts]
    for each in several:
        if isinstance(each, type) and hasattr(each, "linear"):
            raise HydrascopeError(f"{each.__name__} is a class: give one of its objects, {each.__name__}(…)")
        if not (hasattr(each, "linear") and hasattr(each, "needs")):
            raise HydrascopeError(
                f"{quote(str(each))} is no readout: give hs.Logit(), hs.LogitDifference(), hs.Placebo(4), or "
                "hs.Direction(vector)"
            )
    if not several:
        raise HydrascopeError("nothing is read out: give at least one readout")
    return several


@dataclass(frozen=True)
class Logit:
    """The centred logit π̂ of a token (Eq. 9), before any final soft-cap.

        >>> hs.sweep(model, prompts, readouts=[hs.Logit(), hs.Logit("answer")])  # doctest: +SKIP

    Attributes:
        token: the run's `target`, the prompt's `answer` or `foil`, or a token's id.
    """

    token: Literal["target", "answer", "foil"] | int = "target"

    @property
    def needs(self) -> tuple[str, ...]:
        """The field of the prompts that it reads."""
        return (self.token,) if self.token in ("answer", "foil") else ()

    @property
    def labels(self) -> tuple[str, ...]:
        """`logit`, or `logit.answer`, `logit.42`."""
        return ("logit" if self.token == "target" else f"logit.{self.token}",)

    def linear(self, model: LanguageModel, tokens: Tokens, prompts: Sequence[int]) -> list[Linear]:
        """One readout.

        Raises:
            HydrascopeError: there is no such token.
        """
        if isinstance(self.token, int) and not isinstance(self.token, bool):
            if not 0 <= self.token < model.vocabulary:
                raise HydrascopeError(f"{model.name} has no token {self.token}: it has 0 to {model.vocabulary - 1}")
            return [_logit(model, [self.token] * len(prompts))]
        if self.token not in ("target", "answer", "foil"):
            raise HydrascopeError(f"Logit({self.token!r}): give target, answer, foil, or a token's id")
        known = getattr(tokens, self.token)
        return [_logit(model, [known[index] for index in prompts])]


@dataclass(frozen=True)
class LogitDifference:
    """The answer's logit minus the foil's: whatever moves all logits alike leaves it as it is.

    >>> hs.sweep(model, hs.load_prompts("ioi"), readouts=[hs.LogitDifference()])  # doctest: +SKIP
    """

    needs: ClassVar[tuple[str, ...]] = ("answer", "foil")
    labels: ClassVar[tuple[str, ...]] = ("difference",)

    def linear(self, model: LanguageModel, tokens: Tokens, prompts: Sequence[int]) -> list[Linear]:
        """One readout."""
        answers, foils = ([known[index] for index in prompts] for known in (tokens.answer, tokens.foil))
        return [_logit(model, answers, foils)]


@dataclass(frozen=True, eq=False)
class Direction:
    """Any vector: a probe's weights, a feature of a sparse autoencoder, a difference of means.

        >>> hs.sweep(model, prompts, readouts=[hs.Direction(probe, before=8)])  # doctest: +SKIP

    Attributes:
        vector: `[width]`, or `[prompt, width]` with one for each prompt of the set.
        before: read the residual stream that enters this block, as it is; None: the final one, through the final norm.
        name: its label in results.
    """

    vector: Any
    before: int | None = None
    name: str = "direction"

    needs: ClassVar[tuple[str, ...]] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """Its name."""
        return (self.name,)

    @property
    def numbers(self) -> Tensor:
        """The vector in float64 on the CPU: a tensor of any dtype, on any device, with gradients or without."""
        if isinstance(self.vector, Tensor):
            return self.vector.detach().to("cpu", torch.float64)
        try:
            return torch.from_numpy(np.array(self.vector, np.float64))
        except (TypeError, ValueError) as error:
            raise HydrascopeError(f"the direction {self.name!r} is no vector of numbers: {error}") from error

    def linear(self, model: LanguageModel, tokens: Tokens, prompts: Sequence[int]) -> list[Linear]:
        """One readout.

        Raises:
            HydrascopeError: the vector has another width, isn't finite, or isn't there for each prompt; there is no
                such block.
        """
        count, depth = len(tokens.target), len(model.blocks)
        vector = self.numbers.to(wider(model.dtype))
        if vector.shape not in {(model.width,), (count, model.width)}:
            raise HydrascopeError(
                f"the direction {self.name!r} has the shape {list(vector.shape)}: give {model.width} numbers, or a row "
                f"of as many for each of the {count} prompts"
            )
        if not vector.isfinite().all():
            raise HydrascopeError(f"the direction {self.name!r} holds a number that is not finite: mend it")
        if self.before is not None and not (isinstance(self.before, int) and 0 <= self.before < depth):
            raise HydrascopeError(f"{model.name} has no block {self.before!r} to read before: it has 0 to {depth - 1}")
        rows = vector.expand(count, -1)[list(prompts)].to(model.device)
        if self.before is not None:
            return [Linear(rows, rows.new_zeros(len(rows)), self.before)]
        return [Linear(*_through_norm(model, rows))]


@dataclass(frozen=True)
class Placebo:
    """The logit of other tokens, drawn for each prompt, never its target: the control that a claim about it needs.

        >>> hs.sweep(model, prompts, readouts=[hs.Logit(), hs.Placebo(4)])  # doctest: +SKIP

    Attributes:
        tokens: how many.
        seed: of the draws, which depend on the prompt's place in its set alone.
    """

    tokens: int = 4
    seed: int = 0

    needs: ClassVar[tuple[str, ...]] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """`placebo.0`, `placebo.1`, …"""
        return tuple(f"placebo.{number}" for number in range(self.tokens))

    def linear(self, model: LanguageModel, tokens: Tokens, prompts: Sequence[int]) -> list[Linear]:
        """A readout a token.

        Raises:
            HydrascopeError: none is asked for, or more than the vocabulary has.
        """
        vocabulary = model.vocabulary
        if not (isinstance(self.tokens, int) and 1 <= self.tokens < vocabulary):
            raise HydrascopeError(f"{self.tokens!r} placebo tokens: ask for 1 to {vocabulary - 1}")
        drawn = np.stack([self._drawn(vocabulary, tokens.target[index], index) for index in prompts])
        return [_logit(model, column.tolist()) for column in drawn.T]

    def _drawn(self, vocabulary: int, target: int, index: int) -> Int[np.ndarray, "token"]:
        others = np.random.default_rng([self.seed, index]).choice(vocabulary - 1, self.tokens, replace=False)
        return others + (others >= target)


def _logit(model: LanguageModel, plus: Sequence[int], minus: Sequence[int] | None = None) -> Linear:
    """The centred logit of `plus`, less that of `minus`, a token a prompt (Eq. 9, 10)."""
    added = torch.tensor(plus, device=model.device)
    subtracted = None if minus is None else torch.tensor(minus, device=model.device)
    wide = wider(model.dtype)
    weight, bias = fetch(model.unembedding), fetch(model.unembedding, "bias")
    assert weight is not None
    less = model.mean_unembedding if subtracted is None else _rows(weight, subtracted).to(wide)
    direction, constant = _through_norm(model, _rows(weight, added).to(wide) - less)
    if bias is not None:
        bias = bias.to(added.device, wide)
        constant = constant + bias[added] - (bias.mean() if subtracted is None else bias[subtracted])
    return Linear(direction * model.logit_scale, constant * model.logit_scale, FINAL, (added, subtracted))


def _rows(weight: Tensor, tokens: Tensor) -> Tensor:
    """The rows of some tokens, wherever the whole is."""
    return weight[tokens.to(weight.device)].to(tokens.device)


def _through_norm(model: LanguageModel, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """The direction and the constant with which `vectors` `[prompt, width]` read the final norm's output."""
    gain, bias = fetch(model.final_norm), fetch(model.final_norm, "bias")
    assert gain is not None
    direction = vectors * (gain.to(vectors) + model.anatomy.norm_offset)
    if model.anatomy.norm_kind == "layer":
        direction = direction - direction.mean(-1, keepdim=True)
    return direction, vectors.new_zeros(len(vectors)) if bias is None else vectors @ bias.to(vectors)


def final_scale(model: LanguageModel, residual: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows"]:
    """σ of the final norm at each residual stream (Eq. 8), or for LayerNorm the standard deviation."""
    residual = residual.to(wider(residual.dtype))
    if model.anatomy.norm_kind == "layer":
        # The statistics of LayerNorm itself: one fused pass, where `var` takes several times as long.
        moments = torch.native_layer_norm(residual, residual.shape[-1:], None, None, model.norm_eps)
        return moments[2][..., 0].reciprocal()
    # The norm of a vector is one fused pass where squares and their mean would be three.
    square = torch.linalg.vector_norm(residual, dim=-1).square() / residual.shape[-1]
    return (square + model.norm_eps).sqrt()


@dataclass(frozen=True)
class Readouts:
    """All readouts of a batch of prompts, read together."""

    rows: tuple[Linear, ...]

    @classmethod
    @torch.no_grad()
    def of(
        cls, model: LanguageModel, declared: Sequence[Readout], tokens: Tokens, prompts: Sequence[int]
    ) -> "Readouts":
        """What is `declared`, for the prompts of these places in the set.

        Raises:
            HydrascopeError: a readout doesn't fit the model or the prompts.
        """
        return cls(tuple(linear for readout in declared for linear in readout.linear(model, tokens, prompts)))

    @cached_property
    def directions(self) -> Float[Tensor, "prompt width readout"]:
        """a of each."""
        return torch.stack([readout.direction for readout in self.rows], -1)

    @cached_property
    def constants(self) -> Float[Tensor, "prompt readout"]:
        """c of each, in its unit."""
        return torch.stack([readout.constant for readout in self.rows], -1)

    @cached_property
    def final(self) -> Tensor:
        """`[readout]` Whether it is read through the final norm."""
        return torch.tensor([readout.before == FINAL for readout in self.rows], device=self.constants.device)

    @property
    def blocks(self) -> set[int]:
        """Before which blocks something is read."""
        return {readout.before for readout in self.rows} - {FINAL}

    def read_before(self, block: int) -> list[int]:
        """The readouts that are read before `block`."""
        return [number for number, readout in enumerate(self.rows) if readout.before == block]

    def belongs(self, component: Component) -> Tensor | None:
        """`[readout]` Whether `component` is below each readout; None if it is below all."""
        below = [readout.before == FINAL or component.block < readout.before for readout in self.rows]
        return None if all(below) else torch.tensor(below, device=self.constants.device)

    def read(self, vectors: Float[Tensor, "prompt rows width"]) -> Float[Tensor, "prompt rows readout"]:
        """⟨v, a⟩ of each vector: what it contributes, times σ."""
        return torch.matmul(vectors.to(self.directions.dtype), self.directions)

    def rescale(self, values: Tensor, scale: Tensor) -> Tensor:
        """`values` […, readout] over σ […], where a norm is read through."""
        return values / torch.where(self.final, scale[..., None], 1.0)
