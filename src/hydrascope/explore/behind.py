"""What the page is told besides answers: of the model behind it."""

from pathlib import Path
from typing import Any

from hydrascope.explore.question import ABLATIONS
from hydrascope.explore.session import Session


def live(session: Session, folder: Path) -> dict[str, Any]:
    """What the page must know of the model to ask it: its layers, how many heads, where patches come from."""
    model = session.model
    attention = next(layer for layer in model.components if layer.kind == "attn")
    return {
        "layers": [str(layer) for layer in model.components],
        "heads": len(model.units(attention)),
        "pool": f"{len(session.pool.prompts.prompts):,} prompts of {session.pool.prompts.name}",
        "ablations": list(ABLATIONS),
        "folder": str(folder),
    }


def waiting(session: Session) -> dict[str, Any]:
    """The page before anything is asked."""
    return {"model": session.model.name, "run": [], "readouts": [], "notes": [], "arrays": {}}
