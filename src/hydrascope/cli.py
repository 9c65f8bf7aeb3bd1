"""The command line: a thin layer over the library."""

import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from hydrascope import __version__
from hydrascope.errors import HydrascopeError

# PyTorch takes seconds to import: each command imports what it needs, so that help and mistakes answer at once.
if TYPE_CHECKING:
    import xarray as xr

    from hydrascope.summary import Summary

app = typer.Typer(
    help="The instrument that shows how a language model repairs itself.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _place(path: str | Path) -> Path:
    from hydrascope.places import place

    return place(path)


Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A name on the hub, a folder, `built-in`, `built-in-dropout`, `built-in-depth`, `phantom`.",
    ),
]
Results = Annotated[Path, typer.Argument(metavar="RESULTS", help="A folder that `hydrascope run` made.")]
Revision = Annotated[str | None, typer.Option(help="The hub's branch, tag or commit.")]
Dtype = Annotated[
    Literal["float32", "float64", "bfloat16", "float16"], typer.Option(help="What the model computes in.")
]
Device = Annotated[str, typer.Option(help="A device of PyTorch, or `auto`: CUDA where there is one.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the result at --out; start it if there is none.")]
Elsewhere = Annotated[bool, typer.Option("--elsewhere", help="Resume on another kind of machine: other rounding.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Delete the result at --out and start again.")]


#: So many that the shipped models are measured in about a minute on two cores.
DEMO_PROMPTS = 400

#: What typer makes of Ctrl-C.
_INTERRUPTED = 130

#: What a mistake in the options raises: click's UsageError, of which typer brings its own copy from 0.29 on.
_UsageError: type[Exception] = typer.BadParameter.__bases__[0]


def main() -> None:
    """Run the command line; what the user can mend is said in one line, with exit code 2."""
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
    print(f"hydrascope: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _without_command(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which.")] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def run(
    model: Model,
    prompts: Annotated[
        str, typer.Option(metavar="FILE|NAME", help="A .txt, .json or .jsonl file, or a set: demo, counterfact, ….")
    ],
    out: Annotated[
        Path, typer.Option(parser=_place, metavar="RESULTS", help="The folder to write to, as results.zarr.")
    ],
    ablate: Annotated[
        str,
        typer.Option(metavar="PARTS", help="layers, attn, mlp, heads, heads.9, head.9.6, attn.3+mlp.5, attn.3|mlp.5"),
    ] = "layers",
    read: Annotated[str, typer.Option(metavar="PARTS", help="What is read besides all layers.")] = "layers",
    at: Annotated[
        str, typer.Option(metavar="POSITIONS", help="last, all, subject, subject-last, or numbers: -1 is the last.")
    ] = "last",
    readout: Annotated[
        str, typer.Option(metavar="LIST", help="logit, difference, placebo.N, direction:FILE.npy, direction:FILE.npy@L")
    ] = "logit",
    metric: Annotated[str, typer.Option(metavar="LIST", help="log_prob, prob, rank, kl, top")] = "",
    ablation: Annotated[
        Literal["resample", "zero", "mean", "noise", "counterfactual"],
        typer.Option(help="What ablated components write instead."),
    ] = "resample",
    patches: Annotated[
        int | None, typer.Option(min=1, show_default="15", help="How many, for resample and noise.")
    ] = None,
    noise_scale: Annotated[
        float | None, typer.Option(show_default="3", help="In standard deviations of the embeddings, for noise.")
    ] = None,
    different_target: Annotated[
        bool, typer.Option("--different-target", help="Resample only from prompts with another target.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws of patches.")] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="Measure the first so many prompts only.")] = None,
    target: Annotated[
        str, typer.Option(metavar="argmax|answer|ID", help="The token of `logit` and of metrics.")
    ] = "argmax",
    keep: Annotated[
        Literal["auto", "means", "patches"],
        typer.Option(help="Keep what components write after each patch, or its means only."),
    ] = "auto",
    engine: Annotated[
        Literal["auto", "wavefront", "reference"], typer.Option(help="How; `auto` takes the fastest.")
    ] = "auto",
    dtype: Dtype = "float32",
    device: Device = "auto",
    batch_size: Annotated[str, typer.Option(metavar="auto|N", help="How many prompts at a time.")] = "auto",
    revision: Revision = None,
    resume: Resume = False,
    elsewhere: Elsewhere = False,
    overwrite: Overwrite = False,
) -> None:
    """Ablate parts of a model on every prompt and store all effects."""
    from hydrascope import words

    arguments: dict[str, Any] = {
        "ablation": words.ablation(ablation, patches, noise_scale, seed, different_target),
        "ablate": ablate,
        "read": read,
        "at": at,
        "readouts": words.readouts(readout),
        "metrics": [name.strip() for name in metric.split(",") if name.strip()],
        "target": words.target(target),
        "keep": keep,
        "engine": engine,
        "batch_size": _batch_size(batch_size),
        "out": out,
        "resume": resume,
        "elsewhere": elsewhere,
        "overwrite": overwrite,
    }
    _measure(model, prompts, limit, {"revision": revision, "dtype": dtype, "device": device}, arguments)


def _batch_size(text: str) -> int | Literal["auto"]:
    if text == "auto":
        return "auto"
    if not text.isdecimal() or int(text) < 1:
        raise HydrascopeError(f"--batch-size {text} is no number of prompts: give auto, or a whole number from 1 on")
    return int(text)


def _measure(
    name: str, prompts_name: str, limit: int | None, loading: dict[str, Any], arguments: dict[str, Any]
) -> None:
    from hydrascope import load_model, load_prompts, places, runs, store

    out = arguments["out"] = places.place(arguments["out"])
    runs.refuse_existing(out, resume=arguments["resume"], overwrite=arguments["overwrite"])
    prompts = load_prompts(prompts_name)
    if prompts.duplicates:
        typer.echo(f"{prompts.duplicates:,} duplicate prompts left out", err=True)
    prompts = prompts if limit is None else prompts.limit(limit)
    model = load_model(name, **loading)
    before = _run_at(out)
    try:
        runs.run(model, prompts, progress=True, say=typer.echo, **arguments)
    except KeyboardInterrupt:
        if arguments["overwrite"] and _run_at(out) == before:
            raise HydrascopeError(f"interrupted: {out} is as it was") from None
        kept = store.read_attributes(out)["measured"] if out.exists() else 0
        raise HydrascopeError(
            f"interrupted: {kept:,} of {len(prompts.prompts):,} prompts are kept in {out}: go on with --resume"
        ) from None
    attributes = store.read_attributes(out)
    typer.echo(
        f"{attributes['measured']:,} prompts measured, total effects and their parts apart by at most "
        f"{attributes['worst_imbalance']:.1e} {attributes['units']}: {out}"
    )


def _run_at(out: Path) -> str | None:
    """The id of the run that made the result at `out`; None where none can be read."""
    from hydrascope import store

    try:
        return str(store.read_attributes(out)["run"])
    except HydrascopeError:
        return None


Readout = Annotated[str | None, typer.Option(help="Which of the run's readouts; by default the first.")]
Norm = Annotated[
    Literal["clean", "own"] | None,
    typer.Option(show_default="clean", help="At which scale of the final norm ablated runs are read."),
]


@app.command()
def figures(
    results: Results,
    out: Annotated[Path, typer.Option(parser=_place, metavar="FOLDER", help="The folder to write to.")],
    prompt: Annotated[int | None, typer.Option(min=0, help="Figures 1 and 3: which prompt, counted from 0.")] = None,
    ablated: Annotated[str | None, typer.Option(help="Figures 1 and 3: which part, as attn.3.")] = None,
    readout: Readout = None,
    norm: Norm = None,
) -> None:
    """Draw the paper's figures 1, 2, 3, 7 and 8, and ablated heads, as PNG, PDF and SVG."""
    _draw(_opened(results), out, prompt, ablated, readout, norm)


def _opened(path: Path) -> "xr.Dataset":
    from hydrascope.store import open_results

    results = open_results(path)
    measured, planned = results.attrs["measured"], results.attrs["prompt_count"]
    if measured < planned:
        typer.echo(f"only {measured:,} of {planned:,} prompts are measured: finish with --resume", err=True)
    return results


def _draw(results: "xr.Dataset", out: Path, *choices: Any) -> None:
    from hydrascope.figures import draw_all

    typer.echo(str(draw_all(results, out, *choices)))


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
    from hydrascope import summary as formats

    found = formats.summarise(_opened(results), readout=readout, sigma=norm)
    if format_ == "text":
        _print(found, full=full)
    else:
        write = {"json": formats.as_json, "csv": formats.as_csv, "markdown": formats.as_markdown}[format_]
        typer.echo(write(found).rstrip("\n"))


def _print(found: "Summary", *, full: bool) -> None:
    from rich.console import Console

    from hydrascope.summary import render

    console = Console()
    # What is not read on a terminal has no width of its own.
    wide = console if console.is_terminal else Console(width=80)
    wide.print(render(found, full=full), soft_wrap=False)


@app.command()
def compare(
    results: Annotated[
        list[Path], typer.Argument(metavar="RESULTS…", help="Two folders or more; the first is the base.")
    ],
    out: Annotated[
        Path | None, typer.Option(parser=_place, metavar="FOLDER", help="Draw the comparison into this folder.")
    ] = None,
    readout: Readout = None,
    norm: Norm = None,
) -> None:
    """Set results side by side: models, checkpoints, or settings."""
    from rich.console import Console

    from hydrascope.comparison import compare as compared
    from hydrascope.summary.terminal import side_by_side

    names = [path.stem if [each.stem for each in results].count(path.stem) == 1 else str(path) for path in results]
    found = compared({name: _opened(path) for name, path in zip(names, results, strict=True)}, None, readout, norm)
    console = Console()
    (console if console.is_terminal else Console(width=80)).print(side_by_side(found))
    if out is not None:
        from hydrascope.figures.comparison import figure_comparison
        from hydrascope.figures.style import save

        typer.echo(f"{len(save(figure_comparison(found), out, 'comparison'))} files in {out}")


@app.command()
def export(
    results: Results,
    out: Annotated[Path, typer.Option(parser=_place, metavar="FILE", help="The file to write: .csv, or .csv.gz.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it is there.")] = False,
) -> None:
    """Write a row for each readout, prompt and ablated part, effects averaged over patches."""
    from hydrascope.table import tidy

    if not out.name.endswith((".csv", ".csv.gz")):
        raise HydrascopeError(f"cannot export to {out}: give a file that ends in .csv or .csv.gz")
    if out.exists() and not overwrite:
        raise HydrascopeError(f"{out} exists: choose another place or --overwrite")
    table = tidy(_opened(results))
    try:
        table.to_csv(out, index=False)
    except OSError as error:
        raise HydrascopeError(f"cannot write {out} ({error.strerror or error}): choose another place") from error
    typer.echo(f"{len(table):,} rows: {out}")


@app.command()
def check(
    model: Model,
    revision: Revision = None,
    dtype: Dtype = "float32",
    device: Device = "auto",
    machine: Annotated[
        bool, typer.Option("--machine", help="Say instead how fast this machine multiplies, and by what it will.")
    ] = False,
) -> None:
    """Run the self-check: what must hold for any model if its anatomy is right."""
    from hydrascope.check import identities
    from hydrascope.loading import read_model

    read = read_model(model, revision=revision, dtype=dtype, device=device)
    if machine:
        from hydrascope.machine import page

        typer.echo("\n".join(page(read)))
        return
    failed = 0
    for identity in identities(read):
        verdict = "holds" if identity.passed else "FAILS"
        failed += not identity.passed
        typer.echo(f"{verdict}  off by {identity.error:.1e} of {identity.tolerance:.0e} allowed  {identity.name}")
    if failed:
        raise HydrascopeError(f"{model} fails {failed} of the identities above: its anatomy is wrong, or it is broken")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(parser=_place, metavar="FOLDER", help="The folder to write to.")] = Path("demo"),
    limit: Annotated[int, typer.Option(min=1, help="Measure the first so many prompts of each model.")] = DEMO_PROMPTS,
    overwrite: Overwrite = False,
) -> None:
    """The shipped models side by side, each layer ablated by zero: does any of them repair itself?"""
    from hydrascope import zoo

    measured = {}
    for name in zoo.MODELS:
        results = out / f"{name}.zarr"
        again = {"out": results, "resume": not overwrite, "overwrite": overwrite}
        _measure(name, "demo", limit, {}, {**again, **_demo_run()})
        measured[name] = _opened(results)
    _tell(measured, out)


def _demo_run() -> dict[str, Any]:
    from hydrascope import Logit, Placebo, Zero

    return {"ablation": Zero(), "readouts": [Logit(), Placebo(2)]}


def _tell(measured: "dict[str, xr.Dataset]", out: Path) -> None:
    """A verdict a model, on the kind of layer of which most is restored; the comparison; the figures of the best."""
    from hydrascope.comparison import compare as compared
    from hydrascope.figures.comparison import figure_comparison
    from hydrascope.figures.style import save
    from hydrascope.summary import clearest, in_short, summarise

    found = {name: clearest(summarise(results).verdicts) for name, results in measured.items()}
    best = max(found, key=lambda name: (found[name].answer == "yes", found[name].restored.estimate))
    save(figure_comparison(compared(measured)), out / "figures", "comparison")
    _draw(measured[best], out / "figures")
    typer.echo()
    for name, verdict in found.items():
        typer.echo(textwrap.fill(f"{name}: {in_short(verdict)}", 79, subsequent_indent="  ") + "\n")
    typer.echo(f"One picture: {out / 'figures' / 'comparison.png'}. The others beside it are of {best}.")
    typer.echo(f"Look further: hydrascope summary {out / f'{best}.zarr'} --full")


@app.command()
def motifs(out: Annotated[Path, typer.Option(parser=_place, metavar="FOLDER", help="The folder to write to.")]) -> None:
    """Draw the paper's figures 5 and 6: effects, erasure and self-repair in models small enough to see through."""
    from hydrascope.figures.motifs import draw_all

    typer.echo(f"{len(draw_all(out))} files in {out}")
