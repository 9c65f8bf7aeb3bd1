"""The commands that make pages: of a result as a file, and with a model behind it."""

from pathlib import Path
from typing import Annotated

import typer

from hydrascope.cli.options import Options, say, to_path, with_load_options
from hydrascope.cli.results import Results, open_selected, require_new
from hydrascope.utils.errors import HydrascopeError


def report(
    results: Results,
    out: Annotated[Path, typer.Option(parser=to_path, metavar="FILE", help="The page to write: .html.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it is there.")] = False,
) -> None:
    """Write one page that shows the result: it opens from disk, needs no network, and can be sent to anyone."""
    from hydrascope.reports.kinds import report as write

    require_new(out, (".html",), overwrite=overwrite)
    written = write(open_selected(results), out, overwrite=overwrite)
    say(f"{written.stat().st_size / 1e6:.1f} MB: {written}")


@with_load_options
def explore(
    asked: Options,
    prompts: Annotated[
        str | None,
        typer.Option(metavar="FILE|NAME", help="What patches come from; by default those of --results, or 64 of demo."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Take the first so many prompts only.")] = None,
    results: Annotated[
        Path | None, typer.Option(metavar="RESULTS", help="What the page shows at first: a folder that `run` made.")
    ] = None,
    port: Annotated[
        int, typer.Option(min=1, max=65535, metavar="N", help="The next one that is free, if it is taken.")
    ] = 8765,
    out: Annotated[
        Path, typer.Option(parser=to_path, metavar="FOLDER", help="Where the page saves results and reports.")
    ] = Path("."),
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Don't open the page.")] = False,
) -> None:
    """A page with the model behind it: type a prompt, ablate and freeze parts, and see at once what that does."""
    from hydrascope.explorer import require_server

    require_server()
    from hydrascope import load_model
    from hydrascope.explorer.page_state import pool_of, require_same_model
    from hydrascope.explorer.server import serve
    from hydrascope.explorer.session import Session

    if not out.is_dir():
        raise HydrascopeError(f"there is no folder {out}: make it, or choose another --out")
    shown = None if results is None else open_selected(results)
    pool = pool_of(asked["model"], prompts, limit, shown)
    loaded = load_model(**asked)
    if shown is not None:
        require_same_model(loaded, shown, str(results))
    session = Session(loaded, pool)
    if session.pool.said:
        say(session.pool.said, err=True)
    say("Ctrl-C ends it. The page, for this machine alone:", err=True)
    serve(session, port=port, folder=out.resolve(), results=shown, browser=not no_browser, say=say)
