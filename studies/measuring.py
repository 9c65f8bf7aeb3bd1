"""Measure the results of a study, each in a store that resumes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hydrascope as hs
from hydrascope.ablations.ablation import Ablation
from hydrascope.models.language_model import LanguageModel
from hydrascope.utils.errors import HydrascopeError


def sweep_to(
    path: Path,
    settings: Mapping[str, Any],
    model: LanguageModel,
    prompts: hs.prompts.PromptSet,
    ablation: Ablation,
    ablate: Any,
    readouts: Sequence[Any],
    keep: Any = "means",
    read: Any = "layers",
) -> None:
    """Measure a sweep at the positions and for the target that the settings declare, or resume it.

    Args:
        path: the store.
        settings: the study's settings.
        model: the model.
        prompts: the prompts.
        ablation: the ablation.
        ablate: the overrides.
        readouts: the readouts.
        keep: how much of the readings is stored, as for `hs.sweep`.
        read: the components that are read besides all sublayers.
    """
    hs.sweep(
        model,
        prompts,
        ablation,
        ablate=ablate,
        at=settings["at"],
        readouts=list(readouts),
        target=settings["target"],
        keep=keep,
        read=read,
        out=path,
        resume=True,
        progress=True,
        say=print,
    )


def is_whole(path: Path, prompts: int) -> bool:
    """Return whether a store has all its prompts, so that no model need be made for it."""
    if not path.exists():
        return False
    try:
        return bool(hs.open_results(path).attrs["measured"] == prompts)
    except HydrascopeError:  # nothing is measured yet; a sweep tells anything else
        return False
