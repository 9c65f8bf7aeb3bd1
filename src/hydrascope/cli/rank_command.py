"""The command `rank`: a run, and estimates of importance beside it."""

from functools import partial
from typing import Annotated, Literal

import typer

from hydrascope.cli.options import RunOptions, say, with_options
from hydrascope.cli.results import open_selected, show
from hydrascope.cli.run_commands import measure_here, sweep_arguments
from hydrascope.utils.errors import HydrascopeError


@with_options
def rank(
    options: RunOptions,
    components: Annotated[str, typer.Option(metavar="COMPONENTS", help="Components to rank.")] = "layers",
    by: Annotated[
        str,
        typer.Option(metavar="LIST", help="Besides exact measures: shapley, atp, atp_star, gim, integrated_gradients."),
    ] = "shapley,atp,gim",
    orders: Annotated[int, typer.Option(min=2, metavar="N", help="Number of orders for Shapley values, even.")] = 16,
    format_: Annotated[
        Literal["text", "csv", "json"],
        typer.Option("--format", help="text: a table; csv: a row a component; json: estimators as well."),
    ] = "text",
) -> None:
    """Rank components by importance: exact measures and estimates in one table."""
    from hydrascope.cli import parsing
    from hydrascope.measures import per_prompt, scores
    from hydrascope.measures import rank as ranked
    from hydrascope.reports.summary.ranking_table import (
        estimator_rows,
        importance_rows,
        importances,
        ranked_rows,
    )
    from hydrascope.reports.summary.serialize import as_json, rows_as_csv
    from hydrascope.reports.summary.shapes import Ranking

    if options.dry_run:
        raise HydrascopeError("rank has no --dry-run, since it makes several runs: use `hydrascope run --dry-run`")
    methods = parsing.methods(by, orders)
    model, prompts = measure_here(options, components, f"layers,{components}", partial(say, err=True))
    effects, arguments = per_prompt(open_selected(options.out)), sweep_arguments(options)
    shared = {name: arguments[name] for name in ("at", "readouts", "target")}
    ablation = arguments["ablation"]
    found = {name: method(model, prompts, ablation, components, shared) for name, method in methods.items()}
    table = ranked(effects, *found.values())
    if format_ == "csv":
        say(rows_as_csv(importance_rows(table)).rstrip("\n"))
        return
    estimates = {name: each for name, each in found.items() if "estimate" in each}
    scored = scores(effects, estimates) if estimates else None
    if format_ == "json":
        units, estimators = table.attrs.get("units", "logits"), estimator_rows(scored) if scored is not None else ()
        say(as_json(Ranking(table.attrs["readout"], units, ranked_rows(table), estimators)))
        return
    show(importances(table, scored))
