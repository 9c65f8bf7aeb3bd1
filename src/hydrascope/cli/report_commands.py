"""Commands that make pages: `report` writes a file, `explore` serves a page with a model."""

from pathlib import Path
from typing import Annotated

import typer

from hydrascope.cli.options import LoadOptions, say, to_path, with_options
from hydrascope.cli.results import open_distance, open_selected, require_new, short_names
from hydrascope.utils.errors import HydrascopeError


def report(
    results: Annotated[
        list[Path],
        typer.Argument(metavar="RESULTS…", help="The folder of a result, or of two to six, to compare with the first."),
    ],
    out: Annotated[Path, typer.Option(parser=to_path, metavar="FILE", help="The page to write: .html.")],
    mediation: Annotated[
        Path | None,
        typer.Option(metavar="RESULTS", help="A result of `mediate` on the same prompts: it shows who is necessary."),
    ] = None,
    other: Annotated[
        Path | None, typer.Option(metavar="RESULTS", help="The same components under another ablation.")
    ] = None,
    distance: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="The folder of `distance --out`: says how hard the ablation kicks."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
) -> None:
    """Write one page that shows a result, or compares several; it needs no network."""
    from hydrascope.reports.pages import report as write
    from hydrascope.reports.pages import report_comparison

    require_new(out, (".html",), overwrite=overwrite)
    if len(results) > 1:
        if mediation is not None or other is not None or distance is not None:
            raise HydrascopeError(
                "--mediation, --other and --distance belong to the page of one result: leave them out, or give one "
                "result"
            )
        opened = {name: open_selected(path) for name, path in zip(short_names(results), results, strict=True)}
        written = report_comparison(opened, out, overwrite=overwrite)
    else:
        frozen, compared = (None if path is None else open_selected(path) for path in (mediation, other))
        kicks = None if distance is None else open_distance(distance)
        written = write(
            open_selected(results[0]), out, mediation=frozen, other=compared, distance=kicks, overwrite=overwrite
        )
    say(f"{written.stat().st_size / 1e6:.1f} MB: {written}")


@with_options
def explore(
    options: LoadOptions,
    prompts: Annotated[
        str | None,
        typer.Option(metavar="FILE|NAME", help="Source of patches; default: the prompts of --results, or 64 of demo."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Take only the first N prompts.")] = None,
    results: Annotated[
        Path | None, typer.Option(metavar="RESULTS", help="A result of `run` that the page shows first.")
    ] = None,
    port: Annotated[
        int, typer.Option(min=1, max=65535, metavar="N", help="The port; if it is taken, the next free one.")
    ] = 8765,
    out: Annotated[
        Path,
        typer.Option(parser=to_path, metavar="FOLDER", help="Folder for results and reports saved by the page."),
    ] = Path("."),
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Don't open a browser.")] = False,
) -> None:
    """Open a page with a model: type a prompt, ablate and freeze components, see the effects."""
    from hydrascope.explorer import require_server

    require_server()
    from hydrascope import load_model
    from hydrascope.explorer.page_state import pool_of, require_same_model
    from hydrascope.explorer.server import serve
    from hydrascope.explorer.session import Session

    if not out.is_dir():
        raise HydrascopeError(f"there is no folder {out}: create it, or choose another --out")
    shown = None if results is None else open_selected(results)
    pool = pool_of(options.model, prompts, limit, shown)
    loaded = load_model(options.model, **options.loading)
    if shown is not None:
        require_same_model(loaded, shown, str(results))
    session = Session(loaded, pool)
    if session.pool.said:
        say(session.pool.said, err=True)
    say("Press Ctrl-C to stop. The page, reachable from this machine only:", err=True)
    serve(session, port=port, folder=out.resolve(), results=shown, browser=not no_browser, say=say)
