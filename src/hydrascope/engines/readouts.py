"""Readouts of a residual stream: logits, logit differences, directions, placebo logits.

For a target token i, ŵ = W_U[:, i] − mean_j W_U[:, j] is its centred unembedding (Eq. 9). With the final norm's gain
G, bias β and scale σ (Eq. 8), and the unembedding's own bias b, the centred logit of a residual stream z is

    π̂(z) = ⟨z, a⟩ / σ(z) + c,   a = s·G ŵ (for LayerNorm with its mean removed),   c = s·(⟨β, ŵ⟩ + b_i − mean b)

where s is the model's logit multiplier. ⟨v, a⟩ / σ is the contribution of a vector v with the scale frozen at σ (Eq. 7,
8, 10). It takes one dot product for each component, instead of a product with the whole unembedding. Every readout has
this form, so the contributions of components add up. A logit difference reads ŵ_answer − ŵ_foil; a direction reads any
vector in place of ŵ. A direction before block l is read as ⟨z, a⟩, without a norm, and only components below l
contribute to it.
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
from hydrascope.models.projection import gain_of
from hydrascope.prompts.prompt import quote
from hydrascope.utils.errors import HydrascopeError

#: The value of `Linear.before` for readouts at the final residual stream.
FINAL = -1


@dataclass(frozen=True)
class Linear:
    """One readout of a batch of prompts: a direction and a constant.

    Attributes:
        direction: `[prompt, width]` the vector a.
        constant: `[prompt]` the constant c.
        before: the block before which it is read; `FINAL` (−1) for the final residual stream.
        tokens: `[prompt]` the tokens of the logit and of the subtracted logit; None for a direction.
        shared: whether the direction is the same for all prompts of any batch; it then takes no memory for each.
    """

    direction: Float[Tensor, "prompt width"]
    constant: Float[Tensor, "prompt"]
    before: int = FINAL
    tokens: tuple[Int[Tensor, "prompt"], Int[Tensor, "prompt"] | None] | None = None
    shared: bool = False


@dataclass(frozen=True)
class Tokens:
    """The tokens of each prompt of a set that readouts refer to.

    Attributes:
        target: the target token of each prompt.
        answer: the answer's first token of each prompt; empty if no readout needs it.
        foil: the foil's first token of each prompt; empty if no readout needs it.
        rival: the most likely token of each prompt but for the target, in place of foils where there are none.
    """

    target: Sequence[int]
    answer: Sequence[int] = ()
    foil: Sequence[int] = ()
    rival: Sequence[int] = ()


class Readout(Protocol):
    """A readout as a user declares it.

    Attributes:
        needs: the fields of a prompt that must be known: none, `answer`, `foil` or both.
        labels: the labels of its readings in results.
    """

    @property
    def needs(self) -> tuple[str, ...]: ...

    @property
    def labels(self) -> tuple[str, ...]: ...

    def linear(self, model: LanguageModel, tokens: Tokens, prompts: Sequence[int]) -> list[Linear]:
        """Return a `Linear` for each label.

        Args:
            model: the language model.
            tokens: the tokens of all prompts of the set.
            prompts: the indices of the prompts to read, in the set.
        """
        ...


def require_readouts(readouts: Any) -> "list[Readout]":
    """Return one or several readouts as a list.

    Raises:
        HydrascopeError: there are none, or one is a name, a class, or another object.
    """
    several = list(readouts) if isinstance(readouts, Sequence) and not isinstance(readouts, str) else [readouts]
    for readout in several:
        if isinstance(readout, type) and hasattr(readout, "linear"):
            raise HydrascopeError(f"{readout.__name__} is a class: give one of its objects, {readout.__name__}(…)")
        if not (hasattr(readout, "linear") and hasattr(readout, "needs")):
            raise HydrascopeError(
                f"{quote(str(readout))} is no readout: give hs.Logit(), hs.LogitDifference(), hs.Placebo(4), or "
                "hs.Direction(vector), hs.Directions(matrix)"
            )
    if not several:
        raise HydrascopeError("nothing is read out: give at least one readout")
    return several


@dataclass(frozen=True)
class Logit:
    """The centred logit π̂ of a token (Eq. 9), before any final soft-cap.

        >>> results = hs.sweep(model, prompts, hs.Zero(), readouts=[hs.Logit(), hs.Logit(20)])
        >>> results["readout"].values.tolist()
        ['logit', 'logit.20']

    Attributes:
        token: the run's `target`, the prompt's `answer` or `foil`, or a token's id.
    """

    token: Literal["target", "answer", "foil"] | int = "target"

    @property
    def needs(self) -> tuple[str, ...]:
        """The field of the prompts that it needs, if any."""
        return (self.token,) if self.token in ("answer", "foil") else ()

    @property
    def labels(self) -> tuple[str, ...]:
        """The label in results: `logit`, or such as `logit.answer` or `logit.42`."""
        return ("logit" if self.token == "target" else f"logit.{self.token}",)

    def linear(self, model: LanguageModel, tokens: Tokens, prompts: Sequence[int]) -> list[Linear]:
        """Return one readout; see `Readout.linear`.

        Raises:
            HydrascopeError: there is no such token.
        """
        if isinstance(self.token, int) and not isinstance(self.token, bool):
            if not 0 <= self.token < model.vocabulary:
                raise HydrascopeError(f"{model.name} has no token {self.token}: it has 0 to {model.vocabulary - 1}")
            return [_logit(model, [self.token] * len(prompts))]
        if self.token not in ("target", "answer", "foil"):
            raise HydrascopeError(f"Logit({self.token!r}): give target, answer, foil, or a token's id")
        ids = getattr(tokens, self.token)
        return [_logit(model, [ids[index] for index in prompts])]


@dataclass(frozen=True)
class LogitDifference:
    """The answer's logit minus the foil's; a change of all logits alike doesn't change it.

    If no prompt of the set has a foil, it is the target's logit minus that of the runner-up of the clean pass. If one
    has a foil, all must have an answer and a foil.

    >>> results = hs.sweep(model, prompts, hs.Zero(), readouts=[hs.LogitDifference()])
    """

    needs: ClassVar[tuple[str, ...]] = ("answer", "foil")
    labels: ClassVar[tuple[str, ...]] = ("difference",)

    def linear(self, model: LanguageModel, tokens: Tokens, prompts: Sequence[int]) -> list[Linear]:
        """Return one readout; see `Readout.linear`."""
        pair = (tokens.answer, tokens.foil) if tokens.answer and tokens.foil else (tokens.target, tokens.rival)
        answers, foils = ([ids[index] for index in prompts] for ids in pair)
        return [_logit(model, answers, foils)]


@dataclass(frozen=True)
class Placebo:
    """The logits of drawn tokens, never the target: a control for claims about the target.

        >>> results = hs.sweep(model, prompts, hs.Zero(), readouts=[hs.Logit(), hs.Placebo(2)])
        >>> results["readout"].values.tolist()
        ['logit', 'placebo.0', 'placebo.1']

    Attributes:
        tokens: the number of tokens for each prompt.
        seed: the seed of the draws, which otherwise depend only on the prompt's index in its set.
    """

    tokens: int = 4
    seed: int = 0

    needs: ClassVar[tuple[str, ...]] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in results: `placebo.0`, `placebo.1` and so on."""
        return tuple(f"placebo.{number}" for number in range(self.tokens))

    def linear(self, model: LanguageModel, tokens: Tokens, prompts: Sequence[int]) -> list[Linear]:
        """Return a readout for each token; see `Readout.linear`.

        Raises:
            HydrascopeError: the number of tokens isn't positive, or too large for the vocabulary.
        """
        vocabulary = model.vocabulary
        if not (isinstance(self.tokens, int) and 1 <= self.tokens < vocabulary):
            raise HydrascopeError(f"{self.tokens!r} placebo tokens: ask for 1 to {vocabulary - 1}")
        ids = np.stack([self._draw(vocabulary, tokens.target[index], index) for index in prompts])
        return [_logit(model, column.tolist()) for column in ids.T]

    def _draw(self, vocabulary: int, target: int, index: int) -> Int[np.ndarray, "token"]:
        others = np.random.default_rng([self.seed, index]).choice(vocabulary - 1, self.tokens, replace=False)
        return others + (others >= target)


def _logit(model: LanguageModel, plus: Sequence[int], minus: Sequence[int] | None = None) -> Linear:
    """Return the readout of the logit of `plus` minus that of `minus` (Eq. 9, 10).

    Both give a token for each prompt. Without `minus`, it is the centred logit of `plus`.
    """
    added = torch.tensor(plus, device=model.device)
    subtracted = None if minus is None else torch.tensor(minus, device=model.device)
    wide = wider(model.dtype)
    weight, bias = fetch(model.unembedding), fetch(model.unembedding, "bias")
    assert weight is not None
    less = model.mean_unembedding if subtracted is None else _rows(weight, subtracted).to(wide)
    direction, constant = through_norm(model, _rows(weight, added).to(wide) - less)
    if bias is not None:
        bias = bias.to(added.device, wide)
        constant = constant + bias[added] - (bias.mean() if subtracted is None else bias[subtracted])
    return Linear(direction * model.logit_scale, constant * model.logit_scale, FINAL, (added, subtracted))


def is_below(component: Component, block: int) -> bool:
    """Whether a component writes to the residual stream that enters `block`."""
    return component.block < block or (component.block == block and component.sublayer.kind == "stream")


def _rows(weight: Tensor, tokens: Tensor) -> Tensor:
    """Return the rows of some tokens, on the tokens' device."""
    return weight[tokens.to(weight.device)].to(tokens.device)


def through_norm(model: LanguageModel, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Return the direction and constant that make `vectors` read the final norm's output.

    Args:
        model: the language model.
        vectors: `[prompt, width]` the vectors.
    """
    bias = fetch(model.final_norm, "bias")
    direction = vectors * gain_of(model.final_norm, model.anatomy.norm_offset, vectors)
    if model.anatomy.norm_kind == "layer":
        direction = direction - direction.mean(-1, keepdim=True)
    return direction, vectors.new_zeros(len(vectors)) if bias is None else vectors @ bias.to(vectors)


def final_scale(model: LanguageModel, residual: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows"]:
    """Return σ of the final norm at each residual stream (Eq. 8).

    For LayerNorm it is the standard deviation.
    """
    residual = residual.to(wider(residual.dtype))
    if model.anatomy.norm_kind == "layer":
        # The statistics of LayerNorm come from one fused operation; `var` takes several times as long.
        moments = torch.native_layer_norm(residual, residual.shape[-1:], None, None, model.norm_eps)
        return moments[2][..., 0].reciprocal()
    # The norm of a vector is one fused operation; squares and their mean would be three.
    square: Tensor = torch.linalg.vector_norm(residual, dim=-1).square() / residual.shape[-1]
    return (square + model.norm_eps).sqrt()


@dataclass(frozen=True)
class Readouts:
    """All readouts of a batch of prompts, read together.

    Attributes:
        rows: the readouts, in the order of their labels.
    """

    rows: tuple[Linear, ...]

    @classmethod
    @torch.no_grad()
    def of(
        cls, model: LanguageModel, declared: Sequence[Readout], tokens: Tokens, prompts: Sequence[int]
    ) -> "Readouts":
        """Return the declared readouts of some prompts.

        Args:
            model: the language model.
            declared: the readouts as declared by the user.
            tokens: the tokens of all prompts of the set.
            prompts: the indices of the prompts to read, in the set.

        Raises:
            HydrascopeError: a readout doesn't fit the model or the prompts.
        """
        return cls(tuple(linear for readout in declared for linear in readout.linear(model, tokens, prompts)))

    @cached_property
    def shared(self) -> bool:
        """Whether every prompt has the same readouts."""
        return len(self._shared) == len(self.rows)

    @cached_property
    def _shared(self) -> list[int]:
        """The readouts whose vector is one for all prompts."""
        return [number for number, readout in enumerate(self.rows) if readout.shared]

    @cached_property
    def _own(self) -> list[int]:
        """The readouts that have a vector for each prompt."""
        return [number for number, readout in enumerate(self.rows) if not readout.shared]

    @cached_property
    def _matrix(self) -> Float[Tensor, "width readout"]:
        """The vectors of `_shared`, side by side: one product reads them all."""
        return torch.stack([self.rows[number].direction[0] for number in self._shared], -1)

    @cached_property
    def _own_directions(self) -> Float[Tensor, "prompt width readout"]:
        """The vectors of `_own`."""
        return torch.stack([self.rows[number].direction for number in self._own], -1)

    @cached_property
    def directions(self) -> Float[Tensor, "prompt width readout"]:
        """The vector a of each readout."""
        if self.shared and self.rows:
            return self._matrix.expand(len(self.rows[0].direction), -1, -1)
        return torch.stack([readout.direction for readout in self.rows], -1)

    @cached_property
    def constants(self) -> Float[Tensor, "prompt readout"]:
        """The constant c of each readout, in its unit."""
        return torch.stack([readout.constant for readout in self.rows], -1)

    @cached_property
    def final(self) -> Tensor:
        """Whether each readout is read through the final norm, `[readout]`."""
        return torch.tensor([readout.before == FINAL for readout in self.rows], device=self.constants.device)

    @cached_property
    def _before(self) -> Int[np.ndarray, "readout"]:
        return np.array([readout.before for readout in self.rows], np.int64)

    @property
    def blocks(self) -> set[int]:
        """The blocks before which there is a readout."""
        return set(self._before.tolist()) - {FINAL}

    def read_before(self, block: int) -> list[int]:
        """Return the indices of the readouts before `block`."""
        return [int(number) for number in np.flatnonzero(self._before == block)]

    def select(self, numbers: Sequence[int]) -> "Readouts":
        """Return some of the readouts."""
        return Readouts(tuple(self.rows[number] for number in numbers))

    def belongs(self, component: Component) -> Tensor | None:
        """Return whether `component` is below each readout, `[readout]`; None if it is below all."""
        below = (self._before == FINAL) | np.array([is_below(component, int(before)) for before in self._before], bool)
        return None if below.all() else torch.from_numpy(below).to(self.constants.device)

    def read(self, vectors: Float[Tensor, "prompt rows width"]) -> Float[Tensor, "prompt rows readout"]:
        """Return ⟨v, a⟩ of each vector: its contribution times σ.

        Readouts that are the same for all prompts are read by one product.
        """
        vectors = vectors.to(self.constants.dtype)
        if not self._shared:
            return torch.matmul(vectors, self.directions)
        together = vectors @ self._matrix
        if self.shared:
            return together
        read = vectors.new_empty(*vectors.shape[:-1], len(self.rows))
        read[..., self._shared] = together
        read[..., self._own] = torch.matmul(vectors, self._own_directions)
        return read

    def rescale(self, values: Tensor, scale: Tensor) -> Tensor:
        """Divide `values` […, readout] by σ […] for readouts through the final norm."""
        return values / torch.where(self.final, scale[..., None], 1.0)
