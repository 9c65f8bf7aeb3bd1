"""The ablations that have a name, for the tests that hold for any."""

from dataclasses import fields
from typing import Any

from hydrascope.ablations.ablation import Ablation
from hydrascope.ablations.optimal import Optimal
from hydrascope.ablations.parse import CLASSES


def every_ablation(patches: int = 2, seed: int = 0) -> list[Ablation]:
    """One of each class in `CLASSES`; a new one is among them by itself.

    Optimal ablation is left out: it needs more prompts than these tests have (`test_optimal.py`).
    """
    chosen: dict[str, Any] = {"patches": patches, "seed": seed}
    settings = {
        each: {field.name: chosen[field.name] for field in fields(each) if field.name in chosen}
        for each in CLASSES.values()
        if each is not Optimal
    }
    return [each(**given) for each, given in settings.items()]
