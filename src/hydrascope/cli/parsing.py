"""What the command line says in words, as the library's objects: ablations, readouts, targets, ways to rank."""

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
from hydrascope.components.component import is_number
from hydrascope.engines.readouts import Direction, Logit, LogitDifference, Placebo, Readout
from hydrascope.models.language_model import LanguageModel
from hydrascope.prompts.prompt import PromptSet
from hydrascope.runs.config import Target
from hydrascope.utils import input_files
from hydrascope.utils.errors import HydrascopeError

_READOUTS = "logit, logit.answer, logit.foil, logit.ID, difference, placebo.N, direction:FILE.npy, direction:FILE.npy@L"


def readouts(text: str) -> list[Readout]:
    """The readouts of `--readout`, words with commas between.

    >>> readouts("logit,difference,placebo.2")
    [Logit(token='target'), LogitDifference(), Placebo(tokens=2, seed=0)]

    Raises:
        HydrascopeError: a word is no readout, or a file can't be read.
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
        return _direction(word.removeprefix("direction:"))
    raise HydrascopeError(f"--readout {word} is none that is known: give {_READOUTS}")


def _direction(place: str) -> Direction:
    """The vector, or one a prompt, in a file that numpy saved, and the block that it is read before."""
    file, at, block = place.rpartition("@")
    if not at:
        file, block = place, ""
    if at and not is_number(block):
        raise HydrascopeError(f"--readout direction:{place}: {block!r} is no block: give its number, counted from 0")
    path = Path(os.path.expanduser(file))  # unlike Path.expanduser, as it is where it is nobody's
    try:
        vector = np.load(io.BytesIO(input_files.read(path, "the direction")), allow_pickle=False)
    except Exception as error:  # numpy's own, of many kinds, for what is no array
        raise HydrascopeError(f"cannot read the direction {file} ({error}): give a .npy file of numbers") from error
    if not isinstance(vector, np.ndarray) or vector.dtype.kind not in "fiu":
        raise HydrascopeError(f"cannot read the direction {file}: give a .npy file of numbers, as numpy.save makes it")
    name = Path(file).stem
    return Direction(vector, int(block), f"{name}@{block}") if at else Direction(vector, None, name)


def target(text: str) -> Target:
    """The target of `--target`: `argmax`, `answer`, or a token's id.

    Raises:
        HydrascopeError: it is none of these.
    """
    if text == "argmax":
        return "argmax"
    if text == "answer":
        return "answer"
    if is_number(text):
        return int(text)
    raise HydrascopeError(f"--target {text} is none that is known: give argmax, answer, or a token's id")


#: From a model, prompts, an ablation, parts, and options of `sweep`, to importances for `hydrascope.measures.rank`.
Method = Callable[[LanguageModel, PromptSet, Ablation, str, dict[str, Any]], xr.Dataset]


def methods(text: str, orders: int) -> dict[str, Method]:
    """The ways to rank of `--by`, words with commas between, by name.

    Args:
        orders: of Shapley values.

    Raises:
        HydrascopeError: a word is none, or the orders are no pairs.
    """
    require_pairs(orders)
    known: dict[str, Method] = {"shapley": _shapley(orders)}
    names = ("atp", "atp_star", "integrated_gradients", "gim")
    known |= {name: _attribution(getattr(attribution, name)) for name in names}
    chosen = [word.strip() for word in text.split(",") if word.strip()]
    if unknown := [word for word in chosen if word not in known]:
        raise HydrascopeError(f"--by {unknown[0]} is no way to rank: choose from {', '.join(known)}")
    return {name: known[name] for name in chosen}


def _shapley(orders: int) -> Method:
    return lambda model, prompts, drawn, parts, shared: shapley(
        model, prompts, drawn, components=parts, orders=orders, progress=True, **shared
    )


def _attribution(method: Callable[..., xr.Dataset]) -> Method:
    return lambda model, prompts, drawn, parts, shared: method(
        model, prompts, drawn, ablate=parts, progress=True, **shared
    )
