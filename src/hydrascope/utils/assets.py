"""Shipped files: three small models that recall facts, and prompt sets for them.

`training/` makes them; `docs/built-in-model.md` describes them.
"""

from pathlib import Path

from hydrascope.utils.errors import HydrascopeError

_HERE = Path(__file__).parents[1] / "assets"

#: The built-in model; its twin, trained with dropout; the first, trained on while its sublayers failed.
MODELS = ("built-in", "built-in-dropout", "built-in-depth")

#: The name of a model with weights set by formula, and of its prompts: see `hydrascope.models.phantom`.
PHANTOM = "phantom"

#: `demo`: 1,209 prompts of `world-facts` and `contexts`. `world-facts`: all facts, each in a wording held out of
#: training. `common-facts`: facts that small language models know. `contexts`: held-out running text, cut before a word
#: that the model predicts. `passages`: held-out prose, cut before a word drawn at random.
PROMPT_SETS = ("demo", "world-facts", "common-facts", "contexts", "passages")


def model_path(name: str) -> Path | None:
    """Return the folder of a shipped model; None if `name` is not in `MODELS`."""
    return _HERE / "models" / name if name in MODELS else None


def prompt_path(name: str) -> Path:
    """Return the JSONL file of a shipped prompt set.

    Raises:
        HydrascopeError: no set has this name.
    """
    if name not in PROMPT_SETS:
        raise HydrascopeError(f"no prompt set is called {name!r}: give one of {', '.join(PROMPT_SETS)}")
    return _HERE / "prompts" / f"{name}.jsonl"


def citation_path() -> Path:
    """Return the file that says how hydrascope is cited, CITATION.cff."""
    return _HERE / "CITATION.cff"
