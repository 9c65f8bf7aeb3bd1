"""The command `trajectory`: sweeps of several checkpoints, their table and figure."""

from dataclasses import replace
from functools import partial
from typing import Annotated, Literal

import typer

from hydrascope.cli.options import TrajectoryOptions, say, with_options
from hydrascope.cli.prompt_request import PromptRequest
from hydrascope.cli.results import open_selected, require_folder, show
from hydrascope.cli.run_commands import sweep_arguments
from hydrascope.utils.errors import HydrascopeError


@with_options
def trajectory(
    options: TrajectoryOptions,
    checkpoints: Annotated[
        list[str] | None,
        typer.Argument(metavar="CHECKPOINT", help="Folders, GGUF files, or NAME@REVISION of the hub, from the first."),
    ] = None,
    ablate: Annotated[str, typer.Option(metavar="COMPONENTS", help="Components to ablate, as for `run`.")] = "layers",
    format_: Annotated[
        Literal["text", "csv", "json"],
        typer.Option("--format", help="text: a table; csv: a row a checkpoint and component; json: kinds, too."),
    ] = "text",
) -> None:
    """Measure checkpoints of one model alike: what is removed and restored, one after the other."""
    from hydrascope.analyses import trajectory as measure
    from hydrascope.measures import trajectory as over_checkpoints
    from hydrascope.reports.figures.origin import save_of_several
    from hydrascope.reports.figures.trajectory import figure_trajectory
    from hydrascope.reports.summary.serialize import as_json, rows_as_csv
    from hydrascope.reports.summary.shapes import Checkpoints
    from hydrascope.reports.summary.trajectory_table import (
        kind_rows,
        target_in_words,
        trajectory_in_text,
        trajectory_rows,
    )
    from hydrascope.utils.disk_errors import disk

    if options.revision is not None:
        raise HydrascopeError("--revision belongs to one model: give each checkpoint as NAME@REVISION")
    require_folder(options.out)
    shared = options.target == "shared"
    arguments = sweep_arguments(replace(options, target="argmax") if shared else options)
    loading = {name: value for name, value in options.loading.items() if name != "revision"}
    given = [*(checkpoints or ()), options.model]
    # To stderr, since programs read the rows from stdout.
    tell = partial(say, err=True)
    try:
        paths = measure(
            given,
            PromptRequest.of(options).read(),
            out=options.out,
            ablate=ablate,
            loading=loading,
            progress=True,
            say=tell,
            **{**arguments, "target": "shared" if shared else arguments["target"]},
        )
    except KeyboardInterrupt:
        raise HydrascopeError(
            f"interrupted: what is measured is stored in {options.out}: continue with the same command"
        ) from None
    results = {label: open_selected(path) for label, path in paths.items()}
    readouts = [str(readout) for readout in next(iter(results.values()))["readout"].values]
    found = [over_checkpoints(results, readout=readout) for readout in readouts]
    rows = [row for each in found for row in trajectory_rows(each)]
    kinds = [row for each in found for row in kind_rows(each)]
    if format_ == "csv":
        say(rows_as_csv(rows).rstrip("\n"))
    elif format_ == "json":
        say(as_json(Checkpoints(target_in_words(found[0]), tuple(kinds), tuple(rows))))
    else:
        show(trajectory_in_text(found[0], trajectory_rows(found[0]), kind_rows(found[0])))
    drawn = save_of_several(figure_trajectory(found[0]), results, options.out, "trajectory", readouts[0])
    with disk(f"cannot write to {options.out}"):
        (options.out / "trajectory.csv").write_text(rows_as_csv(rows))
    tell(f"{len(drawn) + 1} files in {options.out}")
