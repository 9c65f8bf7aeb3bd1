"""Steps of commands that read results or write files."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hydrascope.cli.options import say
from hydrascope.utils.errors import HydrascopeError, printable

if TYPE_CHECKING:
    import xarray as xr
    from rich.console import RenderableType

#: The dataset of distances in the folder that `distance --out` writes.
DISTANCE = "distance.zarr"

Results = Annotated[Path, typer.Argument(metavar="RESULTS", help="The folder of a result of `hydrascope run`.")]
Readout = Annotated[str | None, typer.Option(help="A readout of the run; default: the first.")]
Norm = Annotated[
    Literal["clean", "own"] | None,
    typer.Option(show_default="clean", help="Scale σ of the final norm for reading ablated rows."),
]


def short_names(paths: Sequence[Path]) -> list[str]:
    """Return a name of each result, with as many folders as tell it from the others.

    Raises:
        HydrascopeError: a result is given twice.
    """
    whole = [path.absolute().with_suffix("").parts for path in paths]
    names = []
    for path, parts in zip(paths, whole, strict=True):
        if whole.count(parts) > 1:
            raise HydrascopeError(f"{path} is given twice: give each result once")
        others = [each for each in whole if each != parts]
        tails = (parts[-length:] for length in range(1, len(parts) + 1))
        tail = next(tail for tail in tails if all(each[-len(tail) :] != tail for each in others))
        names.append(printable("/".join(tail)))
    return names


def open_selected(path: Path) -> "xr.Dataset":
    """Open the result at `path`; print a note if it is unfinished.

    Raises:
        HydrascopeError: there is no result that can be read.
    """
    from hydrascope.storage.reader import open_results

    results = open_results(path)
    measured, planned = results.attrs["measured"], results.attrs["prompt_count"]
    if measured < planned:
        say(f"only {measured:,} of {planned:,} prompts are measured: finish it with --resume", err=True)
    return _printable_result(results)


def _printable_result(results: "xr.Dataset") -> "xr.Dataset":
    """Return `results` with all texts safe to print on a terminal."""
    names = ("ablated", "component", "readout", "metric")
    labels = {
        name: (results[name].dims, [printable(str(label)) for label in results[name].values])
        for name in names
        if name in results.coords
    }
    texts = {key: printable(value) for key, value in results.attrs.items() if isinstance(value, str)}
    return results.assign_coords(labels).assign_attrs(texts)


def open_distance(folder: Path) -> "xr.Dataset":
    """Open the distances that `hydrascope distance --out` wrote to `folder`.

    Raises:
        HydrascopeError: there are none that can be read.
    """
    from hydrascope.storage.analysis_file import read_analysis

    return read_analysis(folder / DISTANCE, "kick", "hydrascope distance --out")


def show(shown: "RenderableType") -> None:
    """Print text and tables."""
    from rich.console import Console

    console = Console()
    # Output to a file or pipe has no width of its own.
    wide = console if console.is_terminal else Console(width=80)
    wide.print(shown, soft_wrap=False)


def require_folder(out: Path) -> None:
    """Refuse a folder that can't be written to, before anything is computed.

    Raises:
        HydrascopeError: it can't be created, or is a file.
    """
    from hydrascope.storage.paths import require_room

    if out.exists() and not out.is_dir():
        raise HydrascopeError(f"cannot write to {out} (not a folder): choose another path")
    require_room(out / "figure.png")


def require_new(out: Path, endings: tuple[str, ...], *, overwrite: bool) -> None:
    """Refuse a file that can't be written, before anything is computed.

    Raises:
        HydrascopeError: it has another ending, its folder is missing, or it exists and `overwrite` is false.
    """
    if not out.name.endswith(endings):
        raise HydrascopeError(f"cannot write {out}: give a file name that ends in {' or '.join(endings)}")
    if out.exists() and not overwrite:
        raise HydrascopeError(f"{out} exists: choose another path, or add --overwrite")
    if not out.parent.is_dir():
        raise HydrascopeError(f"cannot write {out}: there is no folder {out.parent}; create it, or choose another path")
