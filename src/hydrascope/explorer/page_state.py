"""The model behind a page and the prompts that patches come from: which they are, and what the page is told of them."""

from pathlib import Path
from typing import Any

import xarray as xr

from hydrascope.explorer.question import ABLATIONS
from hydrascope.explorer.session import Session
from hydrascope.loading import self_check
from hydrascope.models.language_model import LanguageModel
from hydrascope.prompts.load import load_prompts
from hydrascope.prompts.positions import NAMES
from hydrascope.prompts.prompt import Prompt, PromptSet
from hydrascope.utils import assets
from hydrascope.utils.errors import HydrascopeError

#: So many that they are run in seconds, and 15 patches can be drawn from them in many ways.
DEFAULT_PROMPTS = 64


def live_config(
    session: Session, folder: Path, results: xr.Dataset | None = None, *, notebook: bool = False
) -> dict[str, Any]:
    """What the page must know of the model to ask it: its layers, how many heads, where patches come from.

    Args:
        folder: where results and reports are saved.
        results: what the page shows: questions are asked as they were, unless others are.
        notebook: whether it asks the notebook that it stands in, and not a server.
    """
    model = session.model
    attention = next(sublayer for sublayer in model.sublayers if sublayer.kind == "attn")
    return {
        "layers": [str(sublayer) for sublayer in model.sublayers],
        "heads": len(model.units(attention)),
        "pool": f"{len(session.pool.prompts.prompts):,} prompts of {session.pool.prompts.name}",
        "ablations": list(ABLATIONS),
        "folder": str(folder),
        "notebook": notebook,
        "defaults": {} if results is None else _asked(results),
    }


def _asked(results: xr.Dataset) -> dict[str, Any]:
    """How results were measured, as a question says it."""
    attributes = results.attrs
    named = ("ablation", "patches", "seed", "noise_scale", "different_target")
    found = {name: attributes[name] for name in named if name in attributes}
    found = found if found.get("ablation") in ABLATIONS else {}  # it may be one of the user's own
    return found | ({"at": attributes["positions"]} if attributes.get("positions") in NAMES else {})


def empty_page(session: Session) -> dict[str, Any]:
    """The page before anything is asked."""
    return {"model": session.model.name, "run": [], "readouts": [], "notes": [], "arrays": {}}


def pool_of(model: str, prompts: str | None, limit: int | None, results: xr.Dataset | None) -> PromptSet:
    """The prompts that patches come from: as asked for, those of the results, or some that are shipped.

    Args:
        model: its name.

    Raises:
        HydrascopeError: they can't be read.
    """
    if prompts is not None:
        found = load_prompts(prompts)
    elif results is not None:
        found = PromptSet.of(_prompts(results), str(results.attrs.get("prompts", "prompts")))
    elif model == assets.PHANTOM:
        found = load_prompts(assets.PHANTOM)
    else:
        found = load_prompts("demo").limit(DEFAULT_PROMPTS)
    return found if limit is None else found.limit(limit)


def _prompts(results: xr.Dataset) -> list[Prompt]:
    """The prompts of results, with the subjects that they tell."""
    texts = results["text"].values
    subjects = results["subject"].values if "subject" in results.coords else [""] * len(texts)
    return [Prompt(str(text), subject=str(subject) or None) for text, subject in zip(texts, subjects, strict=True)]


def require_same_model(model: LanguageModel, results: xr.Dataset, name: str) -> None:
    """Refuse the results of another model than the one behind the page.

    Raises:
        HydrascopeError: they are.
    """
    revision = self_check.revision(model)
    if results.attrs.get("revision") != revision:
        raise HydrascopeError(
            f"{name} is of {results.attrs.get('model')} ({results.attrs.get('revision')}), and {model.name} is "
            f"{revision}: give the model that was measured"
        )
