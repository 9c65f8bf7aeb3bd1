"""The options that commands have in common, which measure."""

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from hydrascope.utils.errors import printable


def to_path(path: str | Path) -> Path:
    """The place that a path on the command line names."""
    from hydrascope.storage.paths import resolve_path

    return resolve_path(path)


Overwrite = Annotated[bool, typer.Option("--overwrite", help="Delete the result at --out and start again.")]


def say(text: str = "", *, err: bool = False) -> None:
    """Print `text`: what it quotes may be anyone's."""
    typer.echo(printable(text), err=err)


#: The options that say how a model is loaded: arguments of `hydrascope.load_model`.
LOADING = ("revision", "dtype", "device", "offload", "device_map", "allow_unused_weights")

#: The options that all commands have that measure, by name.
Options = dict[str, Any]


#: Those that only commands have that store what they measure.
_OF_STORING = ("out", "metric", "keep", "resume", "join", "elsewhere", "overwrite", "ray", "workers", "dry_run")


def with_run_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give `command` the options of `_shared`, which it gets in its first argument, besides its own.

    They stand in the order of the help: what must be given, then what is the command's own.
    """
    return _given(command, inspect.signature(_shared).parameters)


def with_sweep_options(command: Callable[..., None]) -> Callable[..., None]:
    """As `measuring`, for a command that prints what it measures: without the options of storing it."""
    shared = inspect.signature(_shared).parameters
    return _given(command, {name: each for name, each in shared.items() if name not in _OF_STORING})


def with_load_options(command: Callable[..., None]) -> Callable[..., None]:
    """As `measuring`, for a command that measures nothing: only the model and how it is loaded, for `load_model`."""
    shared = inspect.signature(_shared).parameters
    return _given(command, {name: shared[name] for name in ("model", *LOADING)})


def _given(command: Callable[..., None], shared: Mapping[str, inspect.Parameter]) -> Callable[..., None]:
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
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A name on the hub, a folder, `built-in`, `built-in-dropout`, `built-in-depth`, `phantom`.",
        ),
    ],
    prompts: Annotated[
        str, typer.Option(metavar="FILE|NAME", help="A .txt, .json or .jsonl file, or a set: demo, counterfact, ….")
    ],
    out: Annotated[
        Path, typer.Option(parser=to_path, metavar="RESULTS", help="The folder to write to, as results.zarr.")
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
        typer.Option(
            metavar="HOW", help="What ablated components write instead: resample, zero, mean, noise, counterfactual."
        ),
    ] = "resample",
    patches: Annotated[
        int | None, typer.Option(min=1, metavar="N", show_default="15", help="How many, for resample and noise.")
    ] = None,
    noise_scale: Annotated[
        float | None, typer.Option(show_default="3", help="In standard deviations of the embeddings, for noise.")
    ] = None,
    different_target: Annotated[
        bool, typer.Option("--different-target", help="Resample only from prompts with another target.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Of the draws of patches.")] = 0,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Measure the first so many prompts only.")
    ] = None,
    target: Annotated[
        str, typer.Option(metavar="argmax|answer|ID", help="The token of `logit` and of metrics.")
    ] = "argmax",
    keep: Annotated[
        Literal["auto", "effects", "means", "patches"],
        typer.Option(
            metavar="WHAT",
            help="Of what components write: `patches` each, `means` over them, or `effects` only; `auto` what fits.",
        ),
    ] = "auto",
    engine: Annotated[
        Literal["auto", "wavefront", "reference"],
        typer.Option(metavar="ENGINE", help="auto, wavefront, or reference; `auto` takes the fastest."),
    ] = "auto",
    dtype: Annotated[
        Literal["float32", "float64", "bfloat16", "float16"],
        typer.Option(metavar="DTYPE", help="What the model computes in: float32, float64, bfloat16, float16."),
    ] = "float32",
    device: Annotated[str, typer.Option(help="A device of PyTorch, or `auto`: CUDA where there is one.")] = "auto",
    offload: Annotated[
        Literal["cpu", "disk"] | None,
        typer.Option("--offload", help="Where weights wait for their turn, for models larger than the device."),
    ] = None,
    device_map: Annotated[
        str | None,
        typer.Option(
            "--device-map", metavar="auto|FILE.json", help="Spread the model: what fits on GPUs, memory, disk."
        ),
    ] = None,
    batch_size: Annotated[str, typer.Option(metavar="auto|N", help="How many prompts at a time.")] = "auto",
    revision: Annotated[str | None, typer.Option(help="The hub's branch, tag or commit.")] = None,
    allow_unused_weights: Annotated[
        bool, typer.Option("--allow-unused-weights", help="Take a model whose configuration leaves weights out.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the result at --out; start it if there is none.")
    ] = False,
    join: Annotated[
        bool, typer.Option("--join", help="Measure it together with other processes that --join it.")
    ] = False,
    elsewhere: Annotated[
        bool, typer.Option("--elsewhere", help="Resume on another kind of machine: other rounding.")
    ] = False,
    overwrite: Overwrite = False,
    ray: Annotated[
        str | None, typer.Option(metavar="ADDRESS|local", help="Measure by workers under Ray, there or here.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, metavar="N", show_default="a GPU each", help="How many, for --ray.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Measure nothing: say what the run would take.")] = False,
) -> None:
    """Only its signature counts."""
