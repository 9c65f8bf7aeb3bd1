"""Store what is measured of prompts in a folder, a file for each batch, so that it can be resumed."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import hydrascope as hs
from hydrascope.models.language_model import LanguageModel


def is_whole(folder: Path, prompts: int) -> bool:
    """Return whether a folder has the results of so many prompts, so that nothing is left to measure."""
    about = folder / "about.json"
    return about.exists() and bool(json.loads(about.read_text("utf-8"))["prompts"] == prompts)


def store_batches(
    folder: Path,
    tokens: Sequence[Sequence[int]],
    size: int,
    measure: Callable[[list[int]], Mapping[str, np.ndarray]],
) -> None:
    """Measure prompts in batches of like length, and write a file for each; skip those that are there.

    Args:
        folder: the folder, which is there.
        tokens: the token ids of each prompt.
        size: the number of prompts in a batch.
        measure: returns the arrays of the prompts with these indices, by name.
    """
    order = sorted(range(len(tokens)), key=lambda index: (len(tokens[index]), index))
    for start in range(0, len(order), size):
        path = folder / f"{start:04}.npz"
        if path.exists():
            continue
        indices = order[start : start + size]
        # Written aside first: what is there under the name is whole.
        aside = path.with_suffix(".part.npz")
        np.savez(aside, **measure(indices))
        aside.rename(path)
        print(f"{folder.name}: {start + len(indices)} of {len(order)}", flush=True)


def write_about(folder: Path, model: LanguageModel, prompts: hs.prompts.PromptSet, more: Mapping[str, Any]) -> None:
    """Write where the results of a folder come from; it marks them as whole.

    Args:
        folder: the folder.
        model: the measured model.
        prompts: the measured prompts.
        more: what else a study tells of the run.
    """
    about = {
        "weights": model.revision,
        "quantization": model.quantization,
        "hydrascope": hs.__version__,
        "blocks": len(model.blocks),
        "prompts": len(prompts),
        "prompts_hash": prompts.hash,
    }
    (folder / "about.json").write_text(json.dumps({**about, **more}), "utf-8")
