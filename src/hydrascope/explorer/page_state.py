"""The state of a page: its model, and the prompts that patches come from."""

from pathlib import Path
from typing import Any

import xarray as xr

from hydrascope.ablations import parse
from hydrascope.ablations.names import LIVE_ABLATIONS
from hydrascope.explorer.question import Question
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
#: The length of the longest prompt that is an example to click.
EXAMPLE_LETTERS = 90


def live_config(
    session: Session, folder: Path, results: xr.Dataset | None = None, *, notebook: bool = False
) -> dict[str, Any]:
    """Return the facts that the page needs to ask: sublayers, heads, prompts, ablations.

    Args:
        folder: the folder of saved results and reports.
        results: the results on the page; questions start with their options.
        notebook: whether a notebook answers, and not a server.
    """
    model = session.model
    attention = next(sublayer for sublayer in model.sublayers if sublayer.kind == "attn")
    pool = f"{len(session.pool.prompts.prompts):,} prompts of {session.pool.prompts.name}"
    return {
        "sublayers": [str(sublayer) for sublayer in model.sublayers],
        "heads": len(model.units(attention)),
        "ablations": [_describe_ablation(name, pool) for name in LIVE_ABLATIONS],
        "folder": str(folder),
        "notebook": notebook,
        "defaults": {} if results is None else _asked(results),
        "examples": _examples(session),
    }


def _examples(session: Session) -> list[dict[str, str]]:
    """Return prompts of the pool, each with a run that shows something of its own."""
    texts = [prompt.text for prompt in session.pool.prompts.prompts if 0 < len(prompt.text) <= EXAMPLE_LETTERS]
    last = len(session.model.blocks) - 1
    early, late = f"attn.{last // 3}", f"attn.{max(last - 1, 0)}"
    runs = [
        (late, f"ablate {late}"),
        (f"mlp.{last}", f"ablate mlp.{last}"),
        (f"{early}|mlp.{last}", f"ablate {early} with mlp.{last} frozen"),
    ]
    spread = texts[:: max(len(texts) // len(runs), 1)]
    return [{"text": text, "run": run, "shows": shows} for text, (run, shows) in zip(spread, runs, strict=False)]


def _describe_ablation(name: str, pool: str) -> dict[str, Any]:
    """Return an ablation's name, its controls on the page, and its use of other prompts."""
    alone = Question("", ablation=name).is_alone
    if alone:
        use = "Your prompt is measured alone, since its counterfactual patches it."
    elif parse.class_of(name).uses_other_prompts:
        use = f"Patches come from {pool}, and your prompt is one more of them."
    else:
        use = f"Results can be saved with the prompts of the pool, too: {pool}."
    return {"name": name, "controls": [*parse.options_of(name), *(["counterfactual"] if alone else [])], "use": use}


def _asked(results: xr.Dataset) -> dict[str, Any]:
    """Return the options of results as fields of a question."""
    attributes = results.attrs
    named = ("ablation", "patches", "seed", "noise_scale", "different_target")
    found = {name: attributes[name] for name in named if name in attributes}
    found = found if found.get("ablation") in LIVE_ABLATIONS else {}  # it may be one of the user's own
    return found | ({"at": attributes["positions"]} if attributes.get("positions") in NAMES else {})


def empty_page(session: Session) -> dict[str, Any]:
    """Return the page before anything is asked."""
    return {"model": session.model.name, "run": [], "readouts": [], "notes": [], "arrays": {}}


def pool_of(model: str, prompts: str | None, limit: int | None, results: xr.Dataset | None) -> PromptSet:
    """Return the prompts that patches come from: given, of the results, or shipped ones.

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
    """Return the prompts of results, with their subjects."""
    texts = results["text"].values
    subjects = results["subject"].values if "subject" in results.coords else [""] * len(texts)
    return [Prompt(str(text), subject=str(subject) or None) for text, subject in zip(texts, subjects, strict=True)]


def require_same_model(model: LanguageModel, results: xr.Dataset, name: str) -> None:
    """Refuse the results of another model than the one behind the page.

    Raises:
        HydrascopeError: the models differ.
    """
    revision = self_check.revision(model)
    if results.attrs.get("revision") != revision:
        raise HydrascopeError(
            f"{name} is of {results.attrs.get('model')} ({results.attrs.get('revision')}), and {model.name} is "
            f"{revision}: give the model that was measured"
        )
