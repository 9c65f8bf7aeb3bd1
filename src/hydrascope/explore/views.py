"""What the page is told besides answers: the model behind it, and the views of a result or of one prompt."""

from pathlib import Path
from typing import Any

import xarray as xr

from hydrascope.explore.question import ABLATIONS
from hydrascope.explore.session import Session
from hydrascope.measures import Bootstrap
from hydrascope.page.data import shown


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


def of_results(results: xr.Dataset) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The page of a stored result, and its arrays."""
    return shown(results, Bootstrap())


def of_one_prompt(results: xr.Dataset) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The page of a sweep over one prompt: what there is to say of it holds of this prompt, and of no other."""
    page, arrays = shown(results, Bootstrap())
    for readout in page["readouts"]:
        readout["verdicts"] = [
            (
                "One prompt, measured now.",
                " What is restored on it says nothing of other prompts: no interval is given, and no verdict. Save it "
                "with all prompts of the pool to have both.",
            )
        ]
        readout["warnings"] = []
        readout["parts"] = [said[:1] for said in readout["parts"]]
    page["notes"] = page["notes"][1:]
    return page, arrays
