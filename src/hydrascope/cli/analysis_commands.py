"""Commands of analyses, from `paths` to `map`.

They print what they measure, and write it to a folder if asked to.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hydrascope.cli.options import MapOptions, SweepOptions, ZeroOptions, say, to_path, with_options
from hydrascope.cli.prompt_request import PromptRequest
from hydrascope.cli.results import DISTANCE, require_folder, show
from hydrascope.cli.run_commands import ablation_arguments, load_inputs, sweep_arguments
from hydrascope.utils.errors import HydrascopeError

if TYPE_CHECKING:
    import xarray as xr
    from _typeshed import DataclassInstance
    from matplotlib.figure import Figure
    from rich.console import RenderableType

Out = Annotated[
    Path | None,
    typer.Option(parser=to_path, metavar="FOLDER", help="Write all rows as CSV and a figure to it."),
]
Format = Annotated[
    Literal["text", "csv", "json"],
    typer.Option("--format", help="text: a table; csv, json: all rows of all readouts."),
]


@with_options
def paths(
    options: SweepOptions,
    senders: Annotated[
        str, typer.Option("--from", metavar="COMPONENTS", help="Components to ablate, one by one.")
    ] = "heads",
    receivers: Annotated[
        str,
        typer.Option("--to", metavar="COMPONENTS", help="Sublayers, heads, inputs of heads (query.9.6), and `logits`."),
    ] = "mlp,logits",
    out: Out = None,
    format_: Format = "text",
) -> None:
    """Measure which effects of components go through other components (path patching)."""
    from hydrascope.analyses import path_patching
    from hydrascope.reports.figures import figure_paths
    from hydrascope.reports.summary.path_table import path_rows, paths_in_text
    from hydrascope.reports.summary.shapes import Paths

    arguments = _checked_arguments(options, out)
    model, prompts = load_inputs(options)
    found = path_patching(model, prompts, senders=senders, receivers=receivers, progress=True, **arguments)
    rows = [path_rows(found, str(readout)) for readout in found["readout"].values]
    _print(format_, rows, paths_in_text(found, rows[0]), Paths(tuple(chain(*rows))))
    if out is not None:
        _write({"paths": rows}, out, figure_paths(found), found)


@with_options
def circuit(
    options: SweepOptions,
    keep: Annotated[str, typer.Option(metavar="COMPONENTS", help="Components to keep, the most important first.")],
    of: Annotated[
        str, typer.Option(metavar="COMPONENTS", help="All components of circuits, e.g. heads,mlp.")
    ] = "layers",
    out: Out = None,
    format_: Format = "text",
) -> None:
    """Measure how much of the readout is left if few components are kept, the others ablated."""
    from hydrascope.analyses import faithfulness
    from hydrascope.analyses.faithfulness import growing_sets
    from hydrascope.reports.figures import figure_circuit
    from hydrascope.reports.summary.faithfulness_table import circuit_in_text, steps
    from hydrascope.reports.summary.shapes import Circuits

    arguments = _checked_arguments(options, out)
    model, prompts = load_inputs(options)
    order, shares = growing_sets(model, keep, of)
    found = faithfulness(model, prompts, order=order, shares=shares, progress=True, **arguments)
    rows = [steps(found, order, str(readout)) for readout in found["readout"].values]
    _print(format_, rows, circuit_in_text(found, rows[0]), Circuits(tuple(chain(*rows))))
    if out is not None:
        _write({"circuit": rows}, out, figure_circuit(found), found)


@with_options
def edges(
    options: SweepOptions,
    sources: Annotated[
        str, typer.Option("--from", metavar="COMPONENTS", help="Sources to ablate: embed, sublayers, heads.")
    ] = "embed,layers",
    readers: Annotated[
        str,
        typer.Option(
            "--to", metavar="READERS", help="Sublayers, query.9.6, keys.9, group.9.2.key and such, and `logits`."
        ),
    ] = "layers,logits",
    slopes: Annotated[bool, typer.Option(help="Estimate edges by gradients, too (EAP).")] = True,
    integrated: Annotated[
        bool, typer.Option("--integrated", help="Estimate by gradients along the inputs, too (EAP-IG); needs --at all.")
    ] = False,
    out: Out = None,
    format_: Format = "text",
) -> None:
    """Measure the exact effect of every edge, with estimates beside; one patch by default."""
    from hydrascope.analyses import edges as measure
    from hydrascope.reports.figures import figure_edges
    from hydrascope.reports.summary.edge_table import edge_rows, edges_in_text
    from hydrascope.reports.summary.shapes import Edges

    if options.patches is None and options.ablation in ("resample", "noise"):
        options = replace(options, patches=1)  # there are many edges
    arguments = _checked_arguments(options, out)
    model, prompts = load_inputs(options)
    found = measure(
        model,
        prompts,
        sources=sources,
        readers=readers,
        slopes=slopes,
        integrated=integrated,
        progress=True,
        **arguments,
    )
    rows = [edge_rows(found, str(readout)) for readout in found["readout"].values]
    _print(format_, rows, edges_in_text(found, rows[0]), Edges(tuple(chain(*rows))))
    if out is not None:
        _write({"edges": rows}, out, figure_edges(found), found)


@with_options
def features(
    options: SweepOptions,
    ablate: Annotated[
        str, typer.Option(metavar="COMPONENTS", help="Components to ablate, one by one, before the dictionary.")
    ] = "attn",
    site: Annotated[
        str | None, typer.Option(metavar="SITE", help="The dictionary's site, such as mlp.5, if there are several.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, metavar="N", help="Features to show one by one.")] = 10,
    out: Out = None,
    format_: Format = "text",
) -> None:
    """Measure how much of a repair the features of a dictionary carry, and its error."""
    from hydrascope.analyses import features as measure
    from hydrascope.reports.figures import figure_features
    from hydrascope.reports.summary.feature_table import feature_rows, feature_share_rows, features_in_text
    from hydrascope.reports.summary.shapes import Features

    arguments = _checked_arguments(options, out)
    model, prompts = load_inputs(options)
    found = measure(model, prompts, ablate=ablate, site=site, top=top, seed=options.seed, progress=True, **arguments)
    labels = [str(readout) for readout in found["readout"].values]
    shares = [feature_share_rows(found, label) for label in labels]
    rows = [feature_rows(found, label) for label in labels]
    _print(
        format_,
        shares,
        features_in_text(found, shares[0], rows[0]),
        Features(tuple(chain(*shares)), tuple(chain(*rows))),
    )
    if out is not None:
        _write({"features": shares, "single-features": rows}, out, figure_features(found), found)


@with_options
def distance(
    options: SweepOptions,
    ablate: Annotated[str, typer.Option(metavar="COMPONENTS", help="Components to ablate, one by one.")] = "layers",
    out: Annotated[
        Path | None,
        typer.Option(
            parser=to_path,
            metavar="FOLDER",
            help="Write all rows as CSV to it, and the dataset for `summary --distance`.",
        ),
    ] = None,
    format_: Format = "text",
) -> None:
    """Measure how far ablations push the residual stream, and whether that drives repair."""
    from hydrascope import sweep
    from hydrascope.analyses import distance as measure
    from hydrascope.measures import per_prompt
    from hydrascope.reports.summary.distance_rows import distance_rows
    from hydrascope.reports.summary.distance_table import distances_in_text
    from hydrascope.reports.summary.serialize import rows_as_csv
    from hydrascope.reports.summary.shapes import Distances
    from hydrascope.storage.analysis_file import write_analysis
    from hydrascope.utils.disk_errors import disk

    arguments = {**_checked_arguments(options, out), "ablate": ablate, "progress": True}
    if len(arguments["readouts"]) > 1:
        raise HydrascopeError(f"one readout is compared, not {len(arguments['readouts'])}: give one --readout")
    model, prompts = load_inputs(options)
    found = measure(model, prompts, **arguments)
    effects = per_prompt(sweep(model, prompts, **arguments))
    rows = distance_rows(found, effects)
    _print(format_, [rows], distances_in_text(rows, found.sizes["prompt"]), Distances(rows))
    if out is not None:
        with disk(f"cannot write to {out}"):
            out.mkdir(parents=True, exist_ok=True)
            (out / "distance.csv").write_text(rows_as_csv(list(rows)))
        write_analysis(found, out / DISTANCE)
        say(f"distance.csv and {DISTANCE} in {out}", err=True)


@with_options
def backups(
    options: ZeroOptions,
    of: Annotated[
        str,
        typer.Option(
            "--of",
            metavar="SETS",
            help="Seed sets: components joined by +, as head.9.6+head.9.9; top.3: the three heads that remove most, "
            "chosen on half of the prompts.",
        ),
    ] = "top.1,top.3",
    candidates: Annotated[
        str, typer.Option(metavar="COMPONENTS", help="Candidates, one by one: heads, or sublayers, too.")
    ] = "heads",
    slopes: Annotated[bool, typer.Option(help="Estimate by gradients, too (AtP, AtP* in two states).")] = True,
    out: Out = None,
    format_: Annotated[
        Literal["text", "csv", "json"],
        typer.Option("--format", help="text: tables; csv: all candidates; json: scores as well, of all readouts."),
    ] = "text",
) -> None:
    """Find backups of ablated heads by their reaction, and score published ways to find them."""
    from hydrascope.analyses import backups as measure
    from hydrascope.reports.figures import figure_backups
    from hydrascope.reports.summary.backup_table import backup_rows, backup_score_rows, backups_in_text
    from hydrascope.reports.summary.shapes import BackupSearch

    arguments = _checked_arguments(options, out)
    model, prompts = load_inputs(options)
    found = measure(
        model, prompts, of=of, candidates=candidates, slopes=slopes, seed=options.seed, progress=True, **arguments
    )
    labels = [str(readout) for readout in found["readout"].values]
    rows, scores = [backup_rows(found, each) for each in labels], [backup_score_rows(found, each) for each in labels]
    searched = BackupSearch(tuple(chain(*rows)), tuple(chain(*scores)))
    _print(format_, rows, backups_in_text(found, rows[0], scores[0]), searched)
    if out is not None:
        _write({"backups": rows, "backup-scores": scores}, out, figure_backups(found), found)


@with_options
def position_map(
    options: MapOptions,
    components: Annotated[
        str, typer.Option(metavar="COMPONENTS", help="Components to ablate, one by one, at each token.")
    ] = "layers",
    out: Out = None,
    format_: Format = "text",
) -> None:
    """Map one prompt: the exact cost of ablating each component at each token."""
    from hydrascope import Prompt, load_model
    from hydrascope.analyses import position_map as measure
    from hydrascope.prompts.prompt import PromptSet
    from hydrascope.reports.figures import figure_map
    from hydrascope.reports.summary.map_table import map_cells, map_in_text
    from hydrascope.reports.summary.shapes import PositionMap

    if out is not None:
        require_folder(out)
    arguments = ablation_arguments(options)
    readouts = arguments.pop("readouts")
    if len(readouts) > 1:
        raise HydrascopeError(f"a map shows one readout, not {len(readouts)}: give one --readout")
    own = PromptSet.of(Prompt(options.prompt, options.answer, foil=options.foil, counterfactual=options.counterfactual))
    own = own.chat() if options.chat else own
    others = None if options.prompts is None else PromptRequest(options.prompts, options.limit).read()
    model = load_model(options.model, **options.loading)
    found = measure(model, own, components=components, others=others, readout=readouts[0], progress=True, **arguments)
    cells = map_cells(found)
    _print(format_, [cells], map_in_text(found, cells), PositionMap(cells))
    if out is not None:
        _write({"map": [cells]}, out, figure_map(found), found)


def _checked_arguments(options: SweepOptions, out: Path | None) -> dict[str, Any]:
    """Return the arguments for `sweep`, after checking that `out` can be written to."""
    if out is not None:
        require_folder(out)
    return sweep_arguments(options)


def _print(format_: str, rows: Sequence[Sequence[Any]], text: "RenderableType", as_object: "DataclassInstance") -> None:
    """Print the rows of all readouts as CSV or JSON, or a table of the first readout."""
    from hydrascope.reports.summary.serialize import as_json, rows_as_csv

    if format_ == "csv":
        say(rows_as_csv(list(chain.from_iterable(rows))).rstrip("\n"))
    elif format_ == "json":
        say(as_json(as_object))
    else:
        show(text)


def _write(tables: Mapping[str, Sequence[Sequence[Any]]], out: Path, figure: "Figure", found: "xr.Dataset") -> None:
    """Write the rows of an analysis as CSV, and its figure, named as the first table."""
    from hydrascope.measures import select_readout
    from hydrascope.reports.figures.origin import as_metadata
    from hydrascope.reports.figures.style import save
    from hydrascope.reports.flow.source import as_named, source_of_analysis
    from hydrascope.reports.summary.serialize import rows_as_csv
    from hydrascope.utils.disk_errors import disk

    # The figure shows the first readout.
    run, name = as_named(source_of_analysis(select_readout(found))), next(iter(tables))
    drawn = save(figure, out, name, as_metadata(name, run))
    with disk(f"cannot write to {out}"):
        for each, rows in tables.items():
            (out / f"{each}.csv").write_text(rows_as_csv(list(chain.from_iterable(rows))))
    # To stderr, since programs read the rows from stdout.
    say(f"{len(drawn) + len(tables)} files in {out}", err=True)
