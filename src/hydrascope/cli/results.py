"""What the commands that read results have in common."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hydrascope.cli.options import say
from hydrascope.utils.errors import HydrascopeError, printable

if TYPE_CHECKING:
    import xarray as xr
    from rich.console import RenderableType

Results = Annotated[Path, typer.Argument(metavar="RESULTS", help="A folder that `hydrascope run` made.")]
Readout = Annotated[str | None, typer.Option(help="Which of the run's readouts; by default the first.")]
Norm = Annotated[
    Literal["clean", "own"] | None,
    typer.Option(show_default="clean", help="At which scale of the final norm ablated runs are read."),
]


def open_selected(path: Path) -> "xr.Dataset":
    """The result at `path`; what is unfinished about it is said.

    Raises:
        HydrascopeError: it is none that can be read.
    """
    from hydrascope.storage.reader import open_results

    results = open_results(path)
    measured, planned = results.attrs["measured"], results.attrs["prompt_count"]
    if measured < planned:
        say(f"only {measured:,} of {planned:,} prompts are measured: finish with --resume", err=True)
    return _shown(results)


def _shown(results: "xr.Dataset") -> "xr.Dataset":
    """`results`, all that is printed of it as a terminal may see it."""
    names = ("ablated", "component", "readout", "metric")
    labels = {
        name: (results[name].dims, [printable(str(label)) for label in results[name].values])
        for name in names
        if name in results.coords
    }
    texts = {key: printable(value) for key, value in results.attrs.items() if isinstance(value, str)}
    return results.assign_coords(labels).assign_attrs(texts)


def show(shown: "RenderableType") -> None:
    """Print what is made of text and tables."""
    from rich.console import Console

    console = Console()
    # What is not read on a terminal has no width of its own.
    wide = console if console.is_terminal else Console(width=80)
    wide.print(shown, soft_wrap=False)


def require_folder(out: Path) -> None:
    """Refuse a folder that can't be made, before anything is computed for it.

    Raises:
        HydrascopeError: it can't, or is a file.
    """
    from hydrascope.storage.paths import require_room

    if out.exists() and not out.is_dir():
        raise HydrascopeError(f"cannot write to {out} (it is no folder): choose another place")
    require_room(out / "figure.png")


def require_new(out: Path, endings: tuple[str, ...], *, overwrite: bool) -> None:
    """Refuse a file that can't be made, before anything is computed for it.

    Raises:
        HydrascopeError: it can't, or is there and not to be replaced.
    """
    if not out.name.endswith(endings):
        raise HydrascopeError(f"cannot write {out}: give a file that ends in {' or '.join(endings)}")
    if out.exists() and not overwrite:
        raise HydrascopeError(f"{out} exists: choose another place or --overwrite")
    if not out.parent.is_dir():
        raise HydrascopeError(f"cannot write {out}: there is no folder {out.parent}: make it, or choose another place")
