"""Measure the replication: one stored result for each model and ablation, resumed if there is one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydrascope as hs

_ABLATIONS = {"resample": hs.Resample, "zero": hs.Zero}


def runs(settings: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield model and ablation of each run, the quick ones first."""
    for ablation in sorted(settings["ablations"], reverse=True):
        for model in settings["models"]:
            yield model, ablation


def measure(settings: dict[str, Any], prompts: hs.prompts.PromptSet, stores: Path) -> dict[tuple[str, str], Path]:
    """Measure all runs of the study; return the paths of their results by model and ablation."""
    paths = {run: stores / f"{run[0]}-{run[1]}.zarr" for run in runs(settings)}
    for (name, ablation), path in paths.items():
        model = hs.load_model(name, dtype=settings["dtype"])
        hs.sweep(
            model,
            prompts,
            _ABLATIONS[ablation](**settings["ablations"][ablation]),
            ablate=settings["ablate"],
            at=settings["at"],
            readouts=[hs.Logit(), hs.Placebo(4)],
            target=settings["target"],
            out=path,
            resume=True,
            progress=True,
            say=print,
        )
    return paths
