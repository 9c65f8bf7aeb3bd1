"""The command line: a thin layer over the library."""

import os
import sys
import textwrap
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from hydrascope._version import __version__
from hydrascope.cli.analysis_commands import circuit, paths
from hydrascope.cli.options import Options, Overwrite, say, to_path, with_load_options, with_run_options
from hydrascope.cli.report_commands import explore, report
from hydrascope.cli.results import Norm, Readout, Results, open_selected, require_new, show
from hydrascope.cli.run_commands import RunRequest, load_and_run, measure, measure_here, sweep_arguments
from hydrascope.utils.errors import HydrascopeError, printable

# PyTorch takes seconds to import: each command imports what it needs, so that help and mistakes answer at once.
if TYPE_CHECKING:
    import xarray as xr

app = typer.Typer(
    help="The instrument that shows how a language model repairs itself.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

#: So many that the shipped models are measured in about a minute on two cores.
DEMO_PROMPTS = 400

#: What typer makes of Ctrl-C.
_INTERRUPTED = 130

#: What a mistake in the options raises: click's UsageError, of which typer brings its own copy from 0.29 on.
_UsageError: type[Exception] = typer.BadParameter.__bases__[0]


def main() -> None:
    """Run the command line; what the user can mend is said in one line, with exit code 2."""
    _quiet()
    try:
        code = app(standalone_mode=False)
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
    print(f"hydrascope: {printable(' '.join(message.split()))}", file=sys.stderr)
    sys.exit(2)


def _quiet() -> None:
    """Without the warnings of the libraries beneath, unless they are asked for: what matters is said in one line."""
    for library in ("TRANSFORMERS", "HF_HUB"):
        os.environ.setdefault(f"{library}_VERBOSITY", "error")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")


def _version(asked: bool) -> None:
    if asked:
        say(__version__)
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _without_command(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which.")] = False,
) -> None:
    if context.invoked_subcommand is None:
        say(context.get_help())


@app.command()
@with_run_options
def run(
    options: Options,
    ablate: Annotated[
        str,
        typer.Option(metavar="PARTS", help="layers, attn, mlp, heads, heads.9, head.9.6, attn.3+mlp.5, attn.3|mlp.5"),
    ] = "layers",
    read: Annotated[str, typer.Option(metavar="PARTS", help="What is read besides all layers.")] = "layers",
) -> None:
    """Ablate parts of a model on every prompt and store all effects."""
    measure(options, ablate, read)


@app.command()
@with_run_options
def mediate(
    options: Options,
    ablate: Annotated[str, typer.Option(metavar="PARTS", help="What is ablated, as for `run`.")] = "attn",
    mediators: Annotated[
        str, typer.Option(metavar="PARTS", help="Layers, heads, inputs of heads (query.9.6): whose reactions count.")
    ] = "layers",
) -> None:
    """Who repairs: ablate parts again with mediators frozen, and with all else frozen, and store all effects."""
    from hydrascope import Mediation

    measure(options, Mediation(ablate, mediators), "layers")


@app.command()
@with_run_options
def interact(
    options: Options,
    parts: Annotated[str, typer.Option(metavar="PARTS", help="Of which all pairs are ablated.")] = "layers",
) -> None:
    """Who covers for whom: ablate parts one by one and in pairs, and store all effects."""
    from hydrascope import Interactions

    measure(options, Interactions(parts), "layers")


@app.command()
@with_run_options
def rank(
    options: Options,
    parts: Annotated[str, typer.Option(metavar="PARTS", help="What is ranked.")] = "layers",
    by: Annotated[
        str, typer.Option(metavar="LIST", help="shapley, atp, atp_star, gim, integrated_gradients, besides the exact.")
    ] = "shapley,atp,gim",
    orders: Annotated[int, typer.Option(min=2, metavar="N", help="Of Shapley values: an even number.")] = 16,
    format_: Annotated[
        Literal["text", "csv"], typer.Option("--format", help="csv: a row a part, places and importances.")
    ] = "text",
) -> None:
    """Whom to credit: the importance of parts by exact measures and by estimates, in one table."""
    from hydrascope.cli import parsing
    from hydrascope.measures import per_prompt, scores
    from hydrascope.measures import rank as ranked
    from hydrascope.reports.summary.ranking_table import importances, importances_as_csv

    if options["dry_run"]:
        raise HydrascopeError("--dry-run says what one run takes, and rank makes several: ask it of `hydrascope run`")
    methods = parsing.methods(by, orders)
    model, prompts = measure_here(options, parts, f"layers,{parts}")
    effects, asked = per_prompt(open_selected(options["out"])), sweep_arguments(options)
    shared = {name: asked[name] for name in ("at", "readouts", "target")}
    found = {name: method(model, prompts, asked["ablation"], parts, shared) for name, method in methods.items()}
    table = ranked(effects, *found.values())
    if format_ == "csv":
        say(importances_as_csv(table).rstrip("\n"))
        return
    estimates = {name: each for name, each in found.items() if "estimate" in each}
    show(importances(table, scores(effects, estimates) if estimates else None))


app.command()(paths)
app.command()(circuit)


@app.command()
def figures(
    results: Results,
    out: Annotated[Path, typer.Option(parser=to_path, metavar="FOLDER", help="The folder to write to.")],
    prompt: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Figures 1 and 3: which prompt, counted from 0.")
    ] = None,
    ablated: Annotated[str | None, typer.Option(help="Figures 1 and 3: which part, as attn.3.")] = None,
    readout: Readout = None,
    norm: Norm = None,
) -> None:
    """Draw the paper's figures 1, 2, 3, 7 and 8, who responds, who repairs, and heads, as PNG, PDF and SVG."""
    _draw(open_selected(results), out, prompt, ablated, readout, norm)


def _draw(results: "xr.Dataset", out: Path, *choices: Any) -> None:
    from hydrascope.reports.kinds import draw_all

    say(str(draw_all(results, out, *choices)))


@app.command()
def summary(
    results: Results,
    readout: Readout = None,
    norm: Norm = None,
    full: Annotated[bool, typer.Option("--full", help="Every finding and every ablated part, too.")] = False,
    format_: Annotated[
        Literal["text", "json", "csv", "markdown"],
        typer.Option("--format", help="For programs and papers, always in full; csv: a row an ablated part."),
    ] = "text",
) -> None:
    """Say whether anything is restored, how much, how sure, and by whom."""
    from hydrascope.reports import summary as formats
    from hydrascope.reports.kinds import summarise

    found = summarise(open_selected(results), readout=readout, sigma=norm)
    if format_ == "text":
        show(formats.render(found, full=full))
    else:
        write = {"json": formats.as_json, "csv": formats.as_csv, "markdown": formats.as_markdown}[format_]
        say(write(found).rstrip("\n"))


@app.command()
def compare(
    results: Annotated[
        list[Path], typer.Argument(metavar="RESULTS…", help="Two folders or more; the first is the base.")
    ],
    out: Annotated[
        Path | None, typer.Option(parser=to_path, metavar="FOLDER", help="Draw the comparison into this folder.")
    ] = None,
    readout: Readout = None,
    norm: Norm = None,
) -> None:
    """Set results side by side: models, checkpoints, or settings."""
    from hydrascope.reports.summary.comparison import compare as compared
    from hydrascope.reports.summary.terminal import side_by_side

    stems = [path.stem for path in results]
    names = [printable(path.stem if stems.count(path.stem) == 1 else str(path)) for path in results]
    found = compared(
        {name: open_selected(path) for name, path in zip(names, results, strict=True)}, None, readout, norm
    )
    show(side_by_side(found))
    if out is not None:
        from hydrascope.reports.figures.comparison import figure_comparison
        from hydrascope.reports.figures.style import save

        say(f"{len(save(figure_comparison(found), out, 'comparison'))} files in {out}")


@app.command()
def export(
    results: Results,
    out: Annotated[Path, typer.Option(parser=to_path, metavar="FILE", help="The file to write: .csv, or .csv.gz.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it is there.")] = False,
) -> None:
    """Write a row for each readout, prompt and ablated part, effects averaged over patches."""
    from hydrascope.measures.table import tidy

    require_new(out, (".csv", ".csv.gz"), overwrite=overwrite)
    table = tidy(open_selected(results))
    try:
        table.to_csv(out, index=False)
    except OSError as error:
        raise HydrascopeError(f"cannot write {out} ({error.strerror or error}): choose another place") from error
    say(f"{len(table):,} rows: {out}")


app.command()(report)
app.command()(explore)


@app.command()
@with_load_options
def check(
    asked: Options,
    machine: Annotated[
        bool, typer.Option("--machine", help="Say instead how fast this machine multiplies, and by what it will.")
    ] = False,
) -> None:
    """Run the self-check: what must hold for any model if its anatomy is right."""
    from hydrascope.loading.load import read_model
    from hydrascope.loading.self_check import explain_failure, identities

    read = read_model(**asked)
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
        raise HydrascopeError(f"{asked['model']} fails {failed} of the identities above; {explain_failure(read)}")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(parser=to_path, metavar="FOLDER", help="The folder to write to.")] = Path("demo"),
    limit: Annotated[
        int, typer.Option(min=1, metavar="N", help="Measure the first so many prompts of each model.")
    ] = DEMO_PROMPTS,
    overwrite: Overwrite = False,
) -> None:
    """The shipped models side by side, each layer ablated by zero: does any of them repair itself?"""
    from hydrascope.runs.config import Output
    from hydrascope.utils import assets

    found = {}
    for name in assets.MODELS:
        place = out / f"{name}.zarr"
        output = Output(place, resume=not overwrite, overwrite=overwrite)
        load_and_run(RunRequest(name, "demo", limit, {}, _demo_run(), output))
        found[name] = open_selected(place)
    _tell(found, out)


def _demo_run() -> dict[str, Any]:
    from hydrascope import Logit, Placebo, Zero

    return {"ablation": Zero(), "readouts": [Logit(), Placebo(2)]}


def _tell(measured: "dict[str, xr.Dataset]", out: Path) -> None:
    """A verdict a model, on the kind of layer of which most is restored; the comparison; the figures of the best."""
    from hydrascope.reports.figures.comparison import figure_comparison
    from hydrascope.reports.figures.style import save
    from hydrascope.reports.kinds import summarise
    from hydrascope.reports.summary import clearest_verdict, one_line
    from hydrascope.reports.summary.comparison import compare as compared

    found = {name: clearest_verdict(summarise(results).verdicts) for name, results in measured.items()}
    best = max(found, key=lambda name: (found[name].answer == "yes", found[name].restored.estimate))
    save(figure_comparison(compared(measured)), out / "figures", "comparison")
    _draw(measured[best], out / "figures")
    say()
    for name, verdict in found.items():
        say(textwrap.fill(f"{name}: {one_line(verdict)}", 79, subsequent_indent="  ") + "\n")
    say(f"One picture: {out / 'figures' / 'comparison.png'}. The others beside it are of {best}.")
    say(f"Look further: hydrascope summary {out / f'{best}.zarr'} --full")


@app.command()
def motifs(
    out: Annotated[Path, typer.Option(parser=to_path, metavar="FOLDER", help="The folder to write to.")],
) -> None:
    """Draw the paper's figures 4, 5 and 6: a network as a causal graph, its effects, erasure and self-repair."""
    from hydrascope.causal.figures.motifs import draw_all

    say(f"{len(draw_all(out))} files in {out}")
