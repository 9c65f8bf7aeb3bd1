"""What ablated components write instead: zero, mean, noise, resample, counterfactual (Appendix A, Eq. 35–39).

An ablation says which runs its patches come from, and what of them a component writes: one method, `draw`. Anyone can
write another. This one takes a direction out of what the ablated layers write:

    @dataclasses.dataclass(frozen=True)
    class ProjectOut:
        direction: torch.Tensor                                     # [width], of length 1
        patches: int = 1

        def draw(self, clean, prompts):
            own = np.array(prompts)[:, None]                        # each prompt is its own source

            def values(component):
                value = clean.take(component, own, prompts)         # [prompt, patch, slot, width]
                return value - (value @ self.direction)[..., None] * self.direction

            return hs.ablations.Patches(own, values)

    hs.sweep(model, prompts, ProjectOut(direction), ablate="layers")

Every draw depends on the seed and on the prompt's place in its set alone: batch size, order and number of workers
change nothing.
"""

import numbers
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from hydrascope.ablations.noise import noisy_values
from hydrascope.components.component import Component
from hydrascope.engines.clean.activations import CleanActivations
from hydrascope.prompts.prompt import prompt_label, quote
from hydrascope.utils.errors import HydrascopeError

#: From a component to `[prompt, patch, slot, columns]`, what it writes at each of the prompt's ablated positions.
Values = Callable[[Component], Float[Tensor, "prompt patch slot columns"]]


@dataclass(frozen=True)
class Patches:
    """What the ablated components of a batch of prompts write.

    Attributes:
        sources: `[prompt, patch]` the prompt that each patch comes from, −1 where it comes from none.
        values: what each component writes; asked for when it is needed.
    """

    sources: Int[np.ndarray, "prompt patch"]
    values: Values


class Ablation(Protocol):
    """How ablated components are patched.

    One that draws from other components' values than those that it patches says where these stand: `sites`.

    Attributes:
        patches: how many patches each prompt gets.
    """

    @property
    def patches(self) -> int: ...

    def draw(self, clean: CleanActivations, prompts: Sequence[int]) -> Patches:
        """The patches of some prompts, by their places in the set.

        It is called once for all prompts before anything is measured, to find what cannot be drawn, and then a batch at
        a time.
        """
        ...


def require_ablation(ablation: Any) -> None:
    """Make sure that `ablation` is one, with numbers that can be drawn from.

    Raises:
        HydrascopeError: it is a class or a name, has no `draw`, or its patches, seed or scale are wrong.
    """
    if isinstance(ablation, type) and hasattr(ablation, "draw"):
        raise HydrascopeError(f"{ablation.__name__} is a class: give one of its objects, {ablation.__name__}(…)")
    if not hasattr(ablation, "draw") or not hasattr(ablation, "patches"):
        raise HydrascopeError(
            f"{quote(str(ablation))} is no ablation: give hs.Zero(), hs.Mean(), hs.Resample(15), hs.Noise(15), "
            "hs.Counterfactual(), or an object of yours with patches and draw"
        )
    _require_whole(ablation.patches, 1, "patches", "ask for at least one")
    if isinstance(ablation, Noise | Resample):
        _require_whole(ablation.seed, 0, "seed", "give a number from 0 on")
    if isinstance(ablation, Noise) and not (isinstance(ablation.scale, numbers.Real) and 0 < ablation.scale < np.inf):
        raise HydrascopeError(f"{ablation.scale} is no scale of noise: give a number above 0")


def require_drawable(ablation: Ablation, clean: CleanActivations) -> None:
    """Find out before anything is run whether patches can be drawn, as far as the places of prompts tell.

    Of ablations of the user's own, and of targets that must differ, only the runs themselves do.

    Args:
        clean: nothing of it needs to have been run.

    Raises:
        HydrascopeError: some can't.
    """
    if type(ablation) is Counterfactual or (type(ablation) is Resample and not ablation.different_target):
        ablation.draw(clean, range(len(clean.tokens)))


def _require_whole(value: Any, least: int, name: str, otherwise: str) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise HydrascopeError(f"{name} cannot be {value!r}: give a whole number")
    if value < least:
        raise HydrascopeError(f"{value} {name}: {otherwise}")


def draw_patches(ablation: Ablation, clean: CleanActivations, prompts: Sequence[int]) -> Patches:
    """What `ablation` draws for some prompts; that its values have the shape of `Patches` is seen to.

    Raises:
        HydrascopeError: patches can't be drawn, or, in an ablation of the user's own, have another shape.
    """
    patches = ablation.draw(clean, prompts)
    _require_made(ablation, "patches", patches, Patches)
    shape = (len(prompts), ablation.patches)
    _require_shape(ablation, "sources", np.shape(patches.sources), shape)

    def values(component: Component) -> Tensor:
        found = patches.values(component)
        _require_made(ablation, f"values of {component}", found, Tensor)
        like = clean.own_activations(component, prompts).shape
        _require_shape(ablation, f"values of {component}", found.shape, (*shape, *like[2:]))
        return found

    return Patches(patches.sources, values)


def _require_made(ablation: Ablation, what: str, found: Any, wanted: type) -> None:
    if not isinstance(found, wanted):
        raise HydrascopeError(
            f"the ablation {type(ablation).__name__} draws {what} as a {type(found).__name__}: give a {wanted.__name__}"
        )


def _require_shape(ablation: Ablation, what: str, found: Sequence[int], wanted: Sequence[int]) -> None:
    if tuple(found) != tuple(wanted):
        raise HydrascopeError(
            f"the ablation {type(ablation).__name__} draws {what} of shape {list(found)}: give {list(wanted)}"
        )


@dataclass(frozen=True)
class Zero:
    """Write zeros (Eq. 35)."""

    patches: ClassVar[int] = 1

    def draw(self, clean: CleanActivations, prompts: Sequence[int]) -> Patches:
        """Zeros, from no prompt."""
        return Patches(
            _nobody(prompts, 1), lambda component: torch.zeros_like(clean.own_activations(component, prompts))
        )


@dataclass(frozen=True)
class Mean:
    """Write the component's mean over the prompt set, at the corresponding places (Eq. 36)."""

    patches: ClassVar[int] = 1

    def draw(self, clean: CleanActivations, prompts: Sequence[int]) -> Patches:
        """The means, from no prompt in particular."""
        return Patches(_nobody(prompts, 1), lambda component: clean.mean_activations(component, prompts))


@dataclass(frozen=True)
class Noise:
    """Write what the component writes when Gaussian noise is added to the prompt's token embeddings (Eq. 37).

    Attributes:
        patches: how many draws of noise.
        scale: the noise's standard deviation, in units of the token embeddings' standard deviation.
        seed: of the draws.
    """

    patches: int = 15
    scale: float = 3.0
    seed: int = 0

    def draw(self, clean: CleanActivations, prompts: Sequence[int]) -> Patches:
        """What noised copies of each prompt write.

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
            _nobody(prompts, self.patches), noisy_values(clean, prompts, self.patches, self.scale, self.seed)
        )


@dataclass(frozen=True)
class Resample:
    """Write what the component writes at the corresponding places of other prompts of the set (Eq. 38).

    Attributes:
        patches: how many prompts, all distinct, never the prompt itself.
        seed: of the draws.
        different_target: take only prompts whose target differs, so that no patch pushes the same token.
    """

    patches: int = 15
    seed: int = 0
    different_target: bool = False

    def draw(self, clean: CleanActivations, prompts: Sequence[int]) -> Patches:
        """Patches from other prompts.

        Raises:
            HydrascopeError: a prompt has fewer others to draw from than it needs patches.
        """
        targets = np.asarray(clean.targets)
        sources = np.stack([self._others(clean, targets, index) for index in prompts])
        return Patches(sources, lambda component: clean.activations_of(component, sources, prompts))

    def _others(
        self, clean: CleanActivations, targets: Int[np.ndarray, "prompt"], index: int
    ) -> Int[np.ndarray, "patch"]:
        """The prompts that the patches of the prompt at `index` come from."""
        fitting = clean.donors(index)
        allowed = fitting & (targets != targets[index]) if self.different_target else fitting.copy()
        allowed[index] = False
        others = np.flatnonzero(allowed)
        if len(others) < self.patches:
            short = len(targets) - fitting.sum()
            reasons, otherwise = "", "add prompts or ask for fewer patches"
            if short and _counted_from_subject(clean, index):
                reasons = (
                    f" (the subjects of {short} have fewer tokens than its {len(clean.positions[index].positions)})"
                )
                otherwise = f"ablate at subject-last, leave it out, {otherwise}"
            elif short:
                reasons = f" ({short} are too short for its positions)"
            kind = "with another target " if self.different_target else ""
            raise HydrascopeError(
                f"{self.patches} resample patches need {self.patches} other prompts {kind}to draw from, and "
                f"{prompt_label(index + 1, clean.prompts[index])} has {len(others)}{reasons}: {otherwise}"
            )
        return np.random.default_rng([self.seed, index]).choice(others, self.patches, replace=False)


def _counted_from_subject(clean: CleanActivations, index: int) -> bool:
    """Whether the positions of the prompt at `index` are of its subject; not seen where that is the whole prompt."""
    positions = clean.positions[index]
    return (positions.start, positions.end) != (0, len(clean.tokens[index]))


@dataclass(frozen=True)
class Counterfactual:
    """Write what the component writes on the prompt's own twin, its `counterfactual` text, as far from its end.

    Where another position than the last is ablated, both must have as many tokens.
    """

    patches: ClassVar[int] = 1

    def draw(self, clean: CleanActivations, prompts: Sequence[int]) -> Patches:
        """The twins' values.

        Raises:
            HydrascopeError: a prompt has no twin, or one of another length where that matters.
        """
        twins = [clean.twins[index] for index in prompts]
        return Patches(_nobody(prompts, 1), clean.activations_of_texts(prompts, twins))


def _nobody(prompts: Sequence[int], patches: int) -> Int[np.ndarray, "prompt patch"]:
    return np.full((len(prompts), patches), -1)
