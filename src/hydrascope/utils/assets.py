"""What hydrascope brings along: three small models that recall facts, and the prompts to measure them on.

How they were made is in `training/`; what they show, in `docs/built-in-model.md`.
"""

from pathlib import Path

from hydrascope.utils.errors import HydrascopeError

_HERE = Path(__file__).parents[1] / "assets"

#: A model; its twin, which differs in dropout while it was trained; the first trained on while its sublayers failed.
MODELS = ("built-in", "built-in-dropout", "built-in-depth")

#: A model set by formula, and prompts for it, made by code: see `hydrascope.models.phantom`.
PHANTOM = "phantom"

#: 1,209 prompts of the next two sets; all facts, each in a wording kept from training; held-out running text, cut
#: where the model predicts the next word; the same, cut at random.
PROMPT_SETS = ("demo", "world-facts", "contexts", "passages")


def model_path(name: str) -> Path | None:
    """The folder of a model that is shipped; None if `name` is none of `MODELS`."""
    return _HERE / "models" / name if name in MODELS else None


def prompt_path(name: str) -> Path:
    """The JSONL file of a prompt set that is shipped.

    Raises:
        HydrascopeError: no set has this name.
    """
    if name not in PROMPT_SETS:
        raise HydrascopeError(f"no prompt set is called {name!r}: give one of {', '.join(PROMPT_SETS)}")
    return _HERE / "prompts" / f"{name}.jsonl"
