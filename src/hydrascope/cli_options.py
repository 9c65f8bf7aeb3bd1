"""What the commands that measure have in common: their options, and how they go about it."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hydrascope.errors import HydrascopeError, printable

if TYPE_CHECKING:
    from hydrascope.components import Selection
    from hydrascope.experiments import Experiment
    from hydrascope.model import LanguageModel
    from hydrascope.prompts import PromptSet


def to_place(path: str | Path) -> Path:
    """The place that a path on the command line names."""
    from hydrascope.places import place

    return place(path)


Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A name on the hub, a folder, `built-in`, `built-in-dropout`, `built-in-depth`, `phantom`.",
    ),
]
Revision = Annotated[str | None, typer.Option(help="The hub's branch, tag or commit.")]
Dtype = Annotated[
    Literal["float32", "float64", "bfloat16", "float16"], typer.Option(help="What the model computes in.")
]
Device = Annotated[str, typer.Option(help="A device of PyTorch, or `auto`: CUDA where there is one.")]
Offloading = Annotated[
    Literal["cpu", "disk"] | None,
    typer.Option("--offload", help="Where weights wait for their turn, for models larger than the device."),
]
DeviceMapped = Annotated[
    str | None,
    typer.Option("--device-map", metavar="auto|FILE.json", help="Spread the model: what fits on GPUs, memory, disk."),
]
Unused = Annotated[
    bool, typer.Option("--allow-unused-weights", help="Take a model whose configuration leaves weights out.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the result at --out; start it if there is none.")]
Join = Annotated[bool, typer.Option("--join", help="Measure it together with other processes that --join it.")]
Elsewhere = Annotated[bool, typer.Option("--elsewhere", help="Resume on another kind of machine: other rounding.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Delete the result at --out and start again.")]


DryRun = Annotated[bool, typer.Option("--dry-run", help="Measure nothing: say what the run would take.")]


def say(text: str = "", *, err: bool = False) -> None:
    """Print `text`: what it quotes may be anyone's."""
    typer.echo(printable(text), err=err)


#: The options that say how a model is loaded: arguments of `hydrascope.load_model`.
LOADING = ("revision", "dtype", "device", "offload", "device_map", "allow_unused_weights")

#: The options that all commands have that measure, by name.
Options = dict[str, Any]


def measuring(command: Callable[..., None]) -> Callable[..., None]:
    """Give `command` the options of `_shared`, which it gets in its first argument, besides its own.

    They stand in the order of the help: what must be given, then what is the command's own.
    """
    shared = inspect.signature(_shared).parameters
    own = dict(list(inspect.signature(command).parameters.items())[1:])
    must = {name: each for name, each in shared.items() if each.default is each.empty}
    every = {name: each.replace(kind=each.KEYWORD_ONLY) for name, each in {**must, **own, **shared}.items()}

    @wraps(command)
    def with_options(**given: Any) -> None:
        command({name: given.pop(name) for name in shared}, **given)

    with_options.__signature__ = inspect.Signature(list(every.values()))  # type: ignore[attr-defined]
    with_options.__annotations__ = {name: each.annotation for name, each in every.items()}
    return with_options


def _shared(
    model: Model,
    prompts: Annotated[
        str, typer.Option(metavar="FILE|NAME", help="A .txt, .json or .jsonl file, or a set: demo, counterfact, ….")
    ],
    out: Annotated[
        Path, typer.Option(parser=to_place, metavar="RESULTS", help="The folder to write to, as results.zarr.")
    ],
    at: Annotated[
        str, typer.Option(metavar="POSITIONS", help="last, all, subject, subject-last, or numbers: -1 is the last.")
    ] = "last",
    readout: Annotated[
        str, typer.Option(metavar="LIST", help="logit, difference, placebo.N, direction:FILE.npy, direction:FILE.npy@L")
    ] = "logit",
    metric: Annotated[str, typer.Option(metavar="LIST", help="log_prob, prob, rank, kl, fisher, top")] = "",
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
        Literal["auto", "effects", "means", "patches"],
        typer.Option(help="Keep what components write after each patch, or its means, or effects only."),
    ] = "auto",
    engine: Annotated[
        Literal["auto", "wavefront", "reference"], typer.Option(help="How; `auto` takes the fastest.")
    ] = "auto",
    dtype: Dtype = "float32",
    device: Device = "auto",
    offload: Offloading = None,
    device_map: DeviceMapped = None,
    batch_size: Annotated[str, typer.Option(metavar="auto|N", help="How many prompts at a time.")] = "auto",
    revision: Revision = None,
    allow_unused_weights: Unused = False,
    resume: Resume = False,
    join: Join = False,
    elsewhere: Elsewhere = False,
    overwrite: Overwrite = False,
    ray: Annotated[
        str | None, typer.Option(metavar="ADDRESS|local", help="Measure by workers under Ray, there or here.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, show_default="a GPU each", help="How many, for --ray.")] = None,
    dry_run: DryRun = False,
) -> None:
    """Only its signature counts."""


def measure(options: Options, ablate: "Selection | Experiment", read: str) -> None:
    """Measure as `options` say, of these runs, here or by workers under Ray.

    Raises:
        HydrascopeError: as `hydrascope.run`; an option is wrong; there is no Ray.
    """
    if options["ray"] is None:
        measure_here(options, ablate, read)
        return
    if options["dry_run"]:
        raise HydrascopeError("--dry-run says what a run takes on this machine: leave out --ray")
    from hydrascope import on_ray

    (name, prompts_name, limit, loading, arguments), out = _of_what(options, ablate, read), options["out"]
    prompts = _prompts(prompts_name, limit, arguments)
    work = name, prompts_name, limit, loading, {**arguments, "join": True}
    with _interruptible(out, len(prompts.prompts), overwrite=False):
        on_ray.measured_by_workers(
            _work_along,
            work,
            out,
            len(prompts.prompts),
            address=options["ray"],
            workers=options["workers"],
            device=options["device"],
            say=say,
        )
    _say_measured(out)


def measure_here(options: Options, ablate: "Selection | Experiment", read: str) -> "tuple[LanguageModel, PromptSet]":
    """Measure as `options` say, of these runs, in this process; the model and the prompts that they name.

    Raises:
        HydrascopeError: as `hydrascope.run`; an option is wrong.
    """
    if options["ray"] is not None or options["workers"] is not None:
        raise HydrascopeError(
            "--ray ADDRESS and --workers N are for run, mediate and interact, and --workers for --ray: other processes "
            "work along with --join"
        )
    of_what = _of_what(options, ablate, read)
    if options["dry_run"]:
        _say_cost(*of_what)
        raise typer.Exit
    return measured(*of_what)


def _of_what(
    options: Options, ablate: "Selection | Experiment", read: str
) -> tuple[str, str, int | None, dict[str, Any], dict[str, Any]]:
    """The model's name, the prompts' and how many of them, how the model is loaded, and the arguments of the run."""
    loading = {name: options[name] for name in LOADING}
    arguments = {**asked_of(options), "ablate": ablate, "read": read}
    return options["model"], options["prompts"], options["limit"], loading, arguments


def _work_along(
    name: str, prompts_name: str, limit: int | None, loading: dict[str, Any], arguments: dict[str, Any]
) -> None:
    """The whole of a worker."""
    from hydrascope import load_model, runs

    prompts = _prompts(prompts_name, limit, arguments)
    runs.run(load_model(name, **loading), prompts, **arguments)


def asked_of(options: Options) -> dict[str, Any]:
    """The arguments of `hydrascope.run` that `options` stand for, but what is ablated and read."""
    from hydrascope import words

    drawn = (options[name] for name in ("ablation", "patches", "noise_scale", "seed", "different_target"))
    return {
        "ablation": words.ablation(*drawn),
        "readouts": words.readouts(options["readout"]),
        "metrics": [name.strip() for name in options["metric"].split(",") if name.strip()],
        "target": words.target(options["target"]),
        "batch_size": _batch_size(options["batch_size"]),
        **{name: options[name] for name in ("at", "keep", "engine", "out", "resume", "join", "elsewhere", "overwrite")},
    }


def _batch_size(text: str) -> int | Literal["auto"]:
    if text == "auto":
        return "auto"
    from hydrascope.components import is_number

    if not is_number(text) or int(text) < 1:
        raise HydrascopeError(f"--batch-size {text} is no number of prompts: give auto, or a whole number from 1 on")
    return int(text)


def measured(
    name: str, prompts_name: str, limit: int | None, loading: dict[str, Any], arguments: dict[str, Any]
) -> "tuple[LanguageModel, PromptSet]":
    """Load a model and prompts, run `hydrascope.run` with these arguments, and say what came of it."""
    from hydrascope import load_model, runs

    prompts = _prompts(prompts_name, limit, arguments)
    model, out = load_model(name, **loading), arguments["out"]
    with _interruptible(out, len(prompts.prompts), overwrite=arguments["overwrite"]):
        runs.run(model, prompts, progress=True, say=say, **arguments)
    _say_measured(out)
    return model, prompts


@contextmanager
def _interruptible(out: Path, prompts: int, *, overwrite: bool) -> Iterator[None]:
    """Say what is kept of a run of so many prompts when it is interrupted."""
    from hydrascope import store

    before = _run_at(out)
    try:
        yield
    except KeyboardInterrupt:
        if overwrite and _run_at(out) == before:
            raise HydrascopeError(f"interrupted: {out} is as it was") from None
        kept = store.read_attributes(out)["measured"] if out.exists() else 0
        raise HydrascopeError(
            f"interrupted: {kept:,} of {prompts:,} prompts are kept in {out}: go on with --resume"
        ) from None


def _say_measured(out: Path) -> None:
    from hydrascope import store

    attributes = store.read_attributes(out)
    say(
        f"{attributes['measured']:,} prompts measured, total effects and their parts apart by at most "
        f"{attributes['worst_imbalance']:.1e} {attributes['units']}: {out}"
    )


def _prompts(name: str, limit: int | None, arguments: dict[str, Any]) -> "PromptSet":
    """The prompts of a run with these arguments, once it is sure that it may write where it is to."""
    from hydrascope import load_prompts, places, runs

    out = arguments["out"] = places.place(arguments["out"])
    how = {name: arguments[name] for name in ("resume", "join", "overwrite") if name in arguments}
    runs.refuse_existing(out, **how)
    prompts = load_prompts(name)
    if prompts.duplicates:
        say(f"{prompts.duplicates:,} duplicate prompts left out", err=True)
    return prompts if limit is None else prompts.limit(limit)


def _say_cost(
    name: str, prompts_name: str, limit: int | None, loading: dict[str, Any], arguments: dict[str, Any]
) -> None:
    """Say what `hydrascope.run` with these arguments would measure, and what that would take."""
    from hydrascope import load_model
    from hydrascope.costs import cost_of
    from hydrascope.plan import planned

    prompts = _prompts(prompts_name, limit, arguments)
    model = load_model(name, **loading)
    of_writing = ("out", "resume", "join", "elsewhere", "overwrite", "batch_size")
    plan = planned(model, prompts, **{key: each for key, each in arguments.items() if key not in of_writing})
    for line in plan.lines:
        say(line)
    say(f"would take {cost_of(plan, plan.batch(arguments['batch_size'])).line}")


def _run_at(out: Path) -> str | None:
    """The id of the run that made the result at `out`; None where none can be read."""
    from hydrascope import store

    try:
        return str(store.read_attributes(out)["run"])
    except HydrascopeError:
        return None
