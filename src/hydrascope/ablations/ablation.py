"""Ablations: zero, mean, noise, resample, counterfactual (Appendix A, Eq. 35–39).

An ablation has one method, `draw`, which returns the patches of some prompts. You can write your own. This one removes
a direction from the outputs of the ablated sublayers:

    >>> import dataclasses, torch
    >>> @dataclasses.dataclass(frozen=True)
    ... class ProjectOut:
    ...     direction: torch.Tensor  # [width], of length 1
    ...     patches: int = 1
    ...
    ...     def draw(self, clean, prompts):
    ...         own = np.array(prompts)[:, None]  # each prompt is its own source
    ...
    ...         def values(component):
    ...             value = clean.activations_of(component, own, prompts)  # [prompt, patch, slot, width]
    ...             return value - (value @ self.direction)[..., None] * self.direction
    ...
    ...         return hs.ablations.Patches(own, values)
    >>> direction = torch.eye(model.width)[0]
    >>> projected = hs.sweep(model, prompts, ProjectOut(direction), ablate="layers")

A draw depends only on the seed and on the prompt's index in its set. Batch size, order and number of workers change
nothing.
"""

import numbers
from collections.abc import Callable, Sequence
from dataclasses import Field, dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from hydrascope.ablations.names import ABLATIONS
from hydrascope.ablations.noise import noisy_values
from hydrascope.components.component import Component
from hydrascope.engines.clean.activations import CleanActivations
from hydrascope.prompts.prompt import prompt_label, quote
from hydrascope.utils.errors import HydrascopeError

#: A function from a component to the values that it writes at each prompt's ablated positions. A slot is the index of
#: an ablated position.
Values = Callable[[Component], Float[Tensor, "prompt patch slot columns"]]


@dataclass(frozen=True)
class Patches:
    """The patches of a batch of prompts.

    Attributes:
        sources: the index of the prompt that each patch comes from, −1 for none, `[prompt, patch]`.
        values: a function from a component to the values that it writes, `[prompt, patch, slot, columns]`; a slot is
            the index of an ablated position. It is called when a component is patched.
    """

    sources: Int[np.ndarray, "prompt patch"]
    values: Values


class Ablation(Protocol):
    """The interface of ablations.

    An ablation that reads other components than those that it patches lists their sites in an attribute `sites`. One
    with a text `patch_source` says there where its patches come from, in a few words for Figure 1; an empty text says
    that they come from nothing. One with a method `check(clean)` is checked by it before any pass. One with a method
    `record(clean, components)` adds the variables that it returns to the result. A text `notice` is told before a run.

    Attributes:
        patches: the number of patches of each prompt.
    """

    @property
    def patches(self) -> int: ...

    def draw(self, clean: CleanActivations, prompts: Sequence[int]) -> Patches:
        """Return the patches of some prompts.

        It is called once for all prompts before anything is measured, to find errors early, and then for each batch.

        Args:
            clean: the clean activations of all prompts.
            prompts: indices of prompts in the set.
        """
        ...


class NamedAblation(Ablation, Protocol):
    """The interface of the ablations with a name, which are dataclasses that need no arguments.

    Attributes:
        patch_source: where patches come from, in a few words for Figure 1; empty for nothing.
        uses_other_prompts: whether patches are made of other prompts' activations.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]
    patch_source: ClassVar[str]
    uses_other_prompts: ClassVar[bool]


def require_ablation(ablation: Any) -> None:
    """Make sure that `ablation` is an ablation with valid settings.

    Raises:
        HydrascopeError: it is a class or a name, has no `draw`, or its patches, seed or scale are invalid.
    """
    if isinstance(ablation, type) and hasattr(ablation, "draw"):
        raise HydrascopeError(f"{ablation.__name__} is a class: give one of its objects, {ablation.__name__}(…)")
    if not hasattr(ablation, "draw") or not hasattr(ablation, "patches"):
        named = ", ".join(f"hs.{each.capitalize()}()" for each in ABLATIONS)
        raise HydrascopeError(
            f"{quote(str(ablation))} is no ablation: give {named}, or an object of your own with patches and draw"
        )
    require_whole(ablation.patches, 1, "patches", "ask for at least one")
    if isinstance(ablation, Noise | Resample):
        require_whole(ablation.seed, 0, "seed", "give a number from 0 on")
    if isinstance(ablation, Noise) and not (isinstance(ablation.scale, numbers.Real) and 0 < ablation.scale < np.inf):
        raise HydrascopeError(f"{ablation.scale} is no scale of noise: give a number above 0")


def require_drawable(ablation: Ablation, clean: CleanActivations) -> None:
    """Check before any forward pass that patches can be drawn.

    Ablations of the user's own, and resampling with different targets, can't be checked without clean activations.

    Args:
        clean: the prompts and their positions; activations aren't needed.

    Raises:
        HydrascopeError: some patches can't be drawn.
    """
    if type(ablation) is Counterfactual or (type(ablation) is Resample and not ablation.different_target):
        ablation.draw(clean, range(len(clean.tokens)))
    if hasattr(ablation, "check"):
        ablation.check(clean)


def require_whole(value: Any, least: int, name: str, otherwise: str) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise HydrascopeError(f"{name} cannot be {value!r}: give a whole number")
    if value < least:
        raise HydrascopeError(f"{value} {name}: {otherwise}")


def draw_patches(ablation: Ablation, clean: CleanActivations, prompts: Sequence[int]) -> Patches:
    """Draw the patches of some prompts, and check types and shapes.

    Raises:
        HydrascopeError: patches can't be drawn, or an ablation of the user's own draws another type or shape.
    """
    patches = ablation.draw(clean, prompts)
    _require_type(ablation, "patches", patches, Patches)
    shape = (len(prompts), ablation.patches)
    _require_shape(ablation, "sources", np.shape(patches.sources), shape)

    def values(component: Component) -> Tensor:
        drawn = patches.values(component)
        _require_type(ablation, f"values of {component}", drawn, Tensor)
        like = clean.own_activations(component, prompts).shape
        _require_shape(ablation, f"values of {component}", drawn.shape, (*shape, *like[2:]))
        return drawn

    return Patches(patches.sources, values)


def _require_type(ablation: Ablation, name: str, drawn: Any, expected: type) -> None:
    if not isinstance(drawn, expected):
        raise HydrascopeError(
            f"the ablation {type(ablation).__name__} draws {name} as a {type(drawn).__name__}: give a "
            f"{expected.__name__}"
        )


def _require_shape(ablation: Ablation, name: str, drawn: Sequence[int], expected: Sequence[int]) -> None:
    if tuple(drawn) != tuple(expected):
        raise HydrascopeError(
            f"the ablation {type(ablation).__name__} draws {name} of shape {list(drawn)}: give {list(expected)}"
        )


@dataclass(frozen=True)
class Zero:
    """Write zeros (Eq. 35).

    >>> results = hs.sweep(model, prompts, hs.Zero())
    """

    patches: ClassVar[int] = 1
    patch_source: ClassVar[str] = ""
    uses_other_prompts: ClassVar[bool] = False

    def draw(self, clean: CleanActivations, prompts: Sequence[int]) -> Patches:
        """Return a patch of zeros for each prompt."""
        return Patches(
            _no_sources(prompts, 1), lambda component: torch.zeros_like(clean.own_activations(component, prompts))
        )


@dataclass(frozen=True)
class Mean:
    """Write the component's mean over the prompt set at corresponding positions (Eq. 36).

    >>> results = hs.sweep(model, prompts, hs.Mean())
    """

    patches: ClassVar[int] = 1
    patch_source: ClassVar[str] = "mean over prompts"
    uses_other_prompts: ClassVar[bool] = True

    def draw(self, clean: CleanActivations, prompts: Sequence[int]) -> Patches:
        """Return a patch of mean activations for each prompt."""
        return Patches(_no_sources(prompts, 1), lambda component: clean.reduce_activations(component, prompts, _mean))


def _mean(values: Float[Tensor, "row columns"]) -> Float[Tensor, "columns"]:
    return values.mean(0)


@dataclass(frozen=True)
class Noise:
    """Write the component's activation after Gaussian noise on the token embeddings (Eq. 37).

    >>> results = hs.sweep(model, prompts, hs.Noise(patches=2))

    Attributes:
        patches: the number of draws of noise for each prompt.
        scale: the standard deviation of the noise, in units of the standard deviation of the token embeddings.
        seed: the seed of the draws.
    """

    patches: int = 15
    scale: float = 3.0
    seed: int = 0

    patch_source: ClassVar[str] = "this prompt, noised"
    uses_other_prompts: ClassVar[bool] = False

    def draw(self, clean: CleanActivations, prompts: Sequence[int]) -> Patches:
        """Return patches from noised copies of each prompt.

        Raises:
            HydrascopeError: the noise is so small that it is lost in the rounding of the embeddings.
        """
        least = torch.finfo(clean.model.dtype).eps
        if self.scale < least:
            kind = str(clean.model.dtype).removeprefix("torch.")
            raise HydrascopeError(
                f"noise of scale {self.scale:g} is lost in the rounding of {kind} embeddings: give at least {least:.1g}"
            )
        return Patches(
            _no_sources(prompts, self.patches), noisy_values(clean, prompts, self.patches, self.scale, self.seed)
        )


@dataclass(frozen=True)
class Resample:
    """Write the component's activation at corresponding positions of other prompts (Eq. 38).

    >>> results = hs.sweep(model, prompts, hs.Resample(patches=3))

    Attributes:
        patches: the number of source prompts for each prompt, all distinct, never the prompt itself.
        seed: the seed of the draws.
        different_target: draw only prompts with another target, so that no patch favours the prompt's own target.
    """

    patches: int = 15
    seed: int = 0
    different_target: bool = False

    patch_source: ClassVar[str] = "another prompt"
    uses_other_prompts: ClassVar[bool] = True

    def draw(self, clean: CleanActivations, prompts: Sequence[int]) -> Patches:
        """Return patches from other prompts.

        Raises:
            HydrascopeError: a prompt has too few other prompts to draw from.
        """
        targets = np.asarray(clean.targets)
        sources = np.stack([self._others(clean, targets, index) for index in prompts])
        return Patches(sources, lambda component: clean.activations_of(component, sources, prompts))

    def _others(
        self, clean: CleanActivations, targets: Int[np.ndarray, "prompt"], index: int
    ) -> Int[np.ndarray, "patch"]:
        """Return the source prompts for the prompt at `index`."""
        donors = clean.donors(index)
        allowed = donors & (targets != targets[index]) if self.different_target else donors.copy()
        allowed[index] = False
        others = np.flatnonzero(allowed)
        if len(others) < self.patches:
            short = len(targets) - donors.sum()
            reasons, otherwise = "", "add prompts or ask for fewer patches"
            if short and _is_at_subject(clean, index):
                reasons = (
                    f" (the subjects of {short} have fewer tokens than its {len(clean.positions[index].positions)})"
                )
                otherwise = f"ablate at subject-last, leave the prompt out, {otherwise}"
            elif short:
                reasons = f" ({short} are too short for its positions)"
            kind = "with another target " if self.different_target else ""
            raise HydrascopeError(
                f"{self.patches} resample patches need {self.patches} other prompts {kind}to draw from, and "
                f"{prompt_label(index + 1, clean.prompts[index])} has {len(others)}{reasons}: {otherwise}"
            )
        return np.random.default_rng([self.seed, index]).choice(others, self.patches, replace=False)


def _is_at_subject(clean: CleanActivations, index: int) -> bool:
    """Whether a prompt is ablated at its subject; False if the subject is the whole prompt."""
    positions = clean.positions[index]
    return (positions.start, positions.end) != (0, len(clean.tokens[index]))


@dataclass(frozen=True)
class Counterfactual:
    """Write the component's activation on the prompt's twin, its `counterfactual`.

    Positions correspond by their distance from the end. If another position than the last is ablated, both texts must
    have the same number of tokens.

    >>> results = hs.sweep(model, prompts, hs.Counterfactual())
    """

    patches: ClassVar[int] = 1
    patch_source: ClassVar[str] = "this prompt’s twin"
    uses_other_prompts: ClassVar[bool] = False

    def draw(self, clean: CleanActivations, prompts: Sequence[int]) -> Patches:
        """Return patches from the twins.

        Raises:
            HydrascopeError: a prompt has no twin, or one of another length at a position other than the last.
        """
        twins = [clean.twins[index] for index in prompts]
        return Patches(_no_sources(prompts, 1), clean.activations_of_texts(prompts, twins))


def _no_sources(prompts: Sequence[int], patches: int) -> Int[np.ndarray, "prompt patch"]:
    """Return sources of patches that come from no prompt."""
    return np.full((len(prompts), patches), -1)
