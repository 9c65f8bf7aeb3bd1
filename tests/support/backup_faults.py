"""Faults in how backups are measured, each of a kind that makes wrong numbers."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

import pytest
import torch

import hydrascope as hs
from hydrascope.analyses import backup_energies
from hydrascope.analyses.attribution.estimator import PromptBatch
from hydrascope.components.component import Component, Override

Plant = Callable[[pytest.MonkeyPatch], None]


def weigh_by_the_ablated_run(patch: pytest.MonkeyPatch) -> None:
    """Probabilities are those of the run after the change, not clean ones."""

    def energy(change: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        after = (weight.log() - change).softmax(-1)
        return (after * change**2).sum(-1) - (after * change).sum(-1) ** 2

    patch.setattr(backup_energies, "energy", energy)


def take_another_patch_of_the_seed_set(patch: pytest.MonkeyPatch) -> None:
    """ℓ^S is that of another patch than ℓ^{S∪u}."""
    measure = backup_energies.prompt_energies

    def shifted(model: Any, clean: Any, streams: torch.Tensor, places: Any, *rest: Any) -> Any:
        streams = streams.clone()
        streams[places.seeds] = streams[places.seeds].roll(1, 1)
        return measure(model, clean, streams, places, *rest)

    patch.setattr(backup_energies, "prompt_energies", shifted)


def refer_to_the_clean_run(patch: pytest.MonkeyPatch) -> None:
    """A metric sees the clean run in the place of the run with S ablated."""
    measure = backup_energies._metrics

    def clean_only(metrics: Any, logits: Any, clean: Any, target: int, reference: Any) -> Any:
        return measure(metrics, logits, clean, target, clean)

    patch.setattr(backup_energies, "_metrics", clean_only)


@dataclass(frozen=True)
class _Held:
    """An ablation in which one component writes its own clean value."""

    ablation: Any
    held: Component

    @property
    def patches(self) -> int:
        return int(self.ablation.patches)

    def draw(self, clean: Any, prompts: Any) -> Any:
        base = self.ablation.draw(clean, prompts)

        def values(component: Component) -> torch.Tensor:
            drawn: torch.Tensor = base.values(component)
            return clean.own_activations(component, prompts).expand_as(drawn) if component == self.held else drawn

        return replace(base, values=values)


def freeze_at_ablated_positions_alone(patch: pytest.MonkeyPatch) -> None:
    """A frozen candidate is free at all positions but the ablated ones."""
    module: Any = import_module("hydrascope.analyses.backups")
    sweep = module.sweep

    def freezing(model: Any, prompts: Any, ablation: Any, ablate: Any, **options: Any) -> Any:
        found = sweep(model, prompts, ablation, ablate=ablate, **options).load()
        for override in ablate:
            if override.frozen:
                both = Override((*override.ablated, *override.frozen))
                made = hs.sweep(model, prompts, _Held(ablation, override.frozen[0]), ablate=[both], **options)
                place = list(map(str, found["ablated"].values)).index(str(override))
                found["total"][{"ablated": place}] = made["total"].isel(ablated=0)
        return found

    patch.setattr(module, "sweep", freezing)


def estimate_from_clean_values(patch: pytest.MonkeyPatch) -> None:
    """Slopes are those of the state, values those of the clean pass."""
    products = PromptBatch.products
    patch.setattr(PromptBatch, "products", lambda self, slopes, graph=None: products(self, slopes))


#: Each with the name of a number that it makes wrong.
FAULTS: list[tuple[Plant, str]] = [
    (weigh_by_the_ablated_run, "single"),
    (take_another_patch_of_the_seed_set, "conditional"),
    (refer_to_the_clean_run, "given fall"),
    (freeze_at_ablated_positions_alone, "reaction"),
    (estimate_from_clean_values, "atp_two_state"),
]
