"""Parse option texts into the library's objects: readouts, targets, ways to rank."""

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from hydrascope.ablations.ablation import Ablation
from hydrascope.analyses import attribution
from hydrascope.analyses.shapley import require_pairs, shapley
from hydrascope.cli.options import READOUTS
from hydrascope.components.component import is_number
from hydrascope.engines.directions import Direction, Directions
from hydrascope.engines.readouts import Logit, LogitDifference, Placebo, Readout
from hydrascope.models.language_model import LanguageModel
from hydrascope.prompts.prompt import PromptSet
from hydrascope.runs.config import Target
from hydrascope.utils import input_files
from hydrascope.utils.errors import HydrascopeError


def readouts(text: str) -> list[Readout]:
    """Parse `--readout`, a comma-separated list.

    >>> readouts("logit,difference,placebo.2")
    [Logit(token='target'), LogitDifference(), Placebo(tokens=2, seed=0)]

    Raises:
        HydrascopeError: a word is not a readout, or a file can't be read.
    """
    return [_readout(word.strip()) for word in text.split(",")]


def _readout(word: str) -> Readout:
    name, _, rest = word.partition(".")
    if word == "logit":
        return Logit()
    if word in ("logit.answer", "logit.foil"):
        return Logit("answer" if rest == "answer" else "foil")
    if name == "logit" and is_number(rest):
        return Logit(int(rest))
    if word == "difference":
        return LogitDifference()
    if word == "placebo":
        return Placebo()
    if name == "placebo" and is_number(rest):
        return Placebo(int(rest))
    if word.startswith("direction:"):
        return _direction(word.removeprefix("direction:"), "direction", Direction)
    if word.startswith("directions:"):
        return _direction(word.removeprefix("directions:"), "directions", Directions)
    raise HydrascopeError(f"unknown --readout {word}: give {READOUTS}")


def _direction(text: str, word: str, kind: type[Direction] | type[Directions]) -> Direction | Directions:
    """Read directions in a file of NumPy.

    Args:
        text: the file, and after `@` the block before which is read.
        word: the word that names the readout.
        kind: one vector, or one for each prompt; or a row for each direction.
    """
    file, at, block = text.rpartition("@")
    if not at:
        file, block = text, ""
    if at and not is_number(block):
        raise HydrascopeError(f"--readout {word}:{text}: {block!r} is not a block: give a number, counted from 0")
    path = Path(os.path.expanduser(file))  # unlike Path.expanduser, leaves an unknown user's ~ as it is
    try:
        vector = np.load(io.BytesIO(input_files.read(path, f"the {word}")), allow_pickle=False)
    except Exception as error:  # NumPy raises many kinds of errors
        raise HydrascopeError(f"cannot read the {word} {file} ({error}): give a .npy file of numbers") from error
    if not isinstance(vector, np.ndarray) or vector.dtype.kind not in "fiu":
        raise HydrascopeError(f"cannot read the {word} {file}: give a .npy file of numbers, as numpy.save writes it")
    name = Path(file).stem
    return kind(vector, int(block), f"{name}@{block}") if at else kind(vector, None, name)


def target(text: str) -> Target:
    """Parse `--target`: `argmax`, `answer`, or a token id.

    Raises:
        HydrascopeError: it is none of these.
    """
    if text == "argmax":
        return "argmax"
    if text == "answer":
        return "answer"
    if is_number(text):
        return int(text)
    raise HydrascopeError(f"unknown --target {text}: give argmax, answer, or a token id")


#: A way to rank: it maps (model, prompts, ablation, components, options of `sweep`) to importances for `rank`.
Method = Callable[[LanguageModel, PromptSet, Ablation, str, dict[str, Any]], xr.Dataset]


def methods(text: str, orders: int) -> dict[str, Method]:
    """Parse `--by`, a comma-separated list of ways to rank; return them by name.

    Args:
        text: the list.
        orders: the number of orders for Shapley values.

    Raises:
        HydrascopeError: a word is not a way to rank, or the number of orders is odd.
    """
    require_pairs(orders)
    available: dict[str, Method] = {"shapley": _shapley(orders)}
    names = ("atp", "atp_star", "integrated_gradients", "gim")
    available |= {name: _attribution(getattr(attribution, name)) for name in names}
    chosen = [word.strip() for word in text.split(",") if word.strip()]
    if unknown := [word for word in chosen if word not in available]:
        raise HydrascopeError(f"unknown --by {unknown[0]}: choose from {', '.join(available)}")
    return {name: available[name] for name in chosen}


def _shapley(orders: int) -> Method:
    return lambda model, prompts, ablation, components, shared: shapley(
        model, prompts, ablation, components=components, orders=orders, progress=True, **shared
    )


def _attribution(method: Callable[..., xr.Dataset]) -> Method:
    return lambda model, prompts, ablation, components, shared: method(
        model, prompts, ablation, ablate=components, progress=True, **shared
    )
