"""The options that measuring commands share."""

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from hydrascope.ablations.names import ABLATIONS, AblationName
from hydrascope.utils.errors import printable


def to_path(path: str | Path) -> Path:
    """Return the path that an argument on the command line names."""
    from hydrascope.storage.paths import resolve_path

    return resolve_path(path)


Overwrite = Annotated[bool, typer.Option("--overwrite", help="Delete the result at --out and start again.")]


def say(text: str = "", *, err: bool = False) -> None:
    """Print `text`, with control characters escaped."""
    typer.echo(printable(text), err=err)


#: The options that load a model: arguments of `hydrascope.load_model`.
LOADING = ("revision", "dtype", "device", "offload", "device_map", "allow_unused_weights")

#: The shared options of a command, by name.
Options = dict[str, Any]


#: The options of commands that store a result.
_STORING = ("out", "metric", "keep", "resume", "join", "elsewhere", "overwrite", "ray", "workers", "dry_run")


def with_run_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `_shared`; it gets them in its first argument.

    The help lists required options first, then the command's own, then the others.
    """
    return _with_options(command, inspect.signature(_shared).parameters)


def with_sweep_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `_shared` except those for storing a result."""
    shared = inspect.signature(_shared).parameters
    return _with_options(command, {name: each for name, each in shared.items() if name not in _STORING})


def with_load_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command only the options that load a model, as arguments of `load_model`."""
    shared = inspect.signature(_shared).parameters
    return _with_options(command, {name: shared[name] for name in ("model", *LOADING)})


def _with_options(command: Callable[..., None], shared: Mapping[str, inspect.Parameter]) -> Callable[..., None]:
    """Return `command` with the options `shared`, passed on as a dictionary."""
    own = dict(list(inspect.signature(command).parameters.items())[1:])
    required = {name: each for name, each in shared.items() if each.default is each.empty}
    parameters = {name: each.replace(kind=each.KEYWORD_ONLY) for name, each in {**required, **own, **shared}.items()}

    @wraps(command)
    def with_options(**values: Any) -> None:
        command({name: values.pop(name) for name in shared}, **values)

    with_options.__signature__ = inspect.Signature(list(parameters.values()))  # type: ignore[attr-defined]
    with_options.__annotations__ = {name: each.annotation for name, each in parameters.items()}
    return with_options


def _shared(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A name on the hub, a folder, or `built-in`, `built-in-dropout`, `built-in-depth`, `phantom`.",
        ),
    ],
    prompts: Annotated[
        str,
        typer.Option(metavar="FILE|NAME", help="A .txt, .json or .jsonl file, or a set: demo, counterfact, …."),
    ],
    out: Annotated[
        Path, typer.Option(parser=to_path, metavar="RESULTS", help="The folder to write to, e.g. results.zarr.")
    ],
    at: Annotated[
        str,
        typer.Option(metavar="POSITIONS", help="last, all, subject, subject-last, or numbers: -1 is the last."),
    ] = "last",
    readout: Annotated[
        str,
        typer.Option(metavar="LIST", help="logit, difference, placebo.N, direction:FILE.npy, direction:FILE.npy@B"),
    ] = "logit",
    metric: Annotated[str, typer.Option(metavar="LIST", help="log_prob, prob, rank, kl, fisher, top")] = "",
    ablation: Annotated[
        AblationName,
        typer.Option(metavar="ABLATION", help=f"How to ablate: {', '.join(ABLATIONS)}."),
    ] = "resample",
    patches: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", show_default="15", help="Patches a prompt, for resample and noise."),
    ] = None,
    noise_scale: Annotated[
        float | None, typer.Option(show_default="3", help="Scale of noise, in standard deviations of the embeddings.")
    ] = None,
    different_target: Annotated[
        bool, typer.Option("--different-target", help="Resample only from prompts with another target.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Seed of the patches.")] = 0,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Measure only the first N prompts.")] = None,
    target: Annotated[
        str, typer.Option(metavar="argmax|answer|ID", help="The token of `logit` and metrics.")
    ] = "argmax",
    keep: Annotated[
        Literal["auto", "effects", "means", "patches"],
        typer.Option(
            metavar="KEEP",
            help="Writes to keep: each of the `patches`, `means` over them, none (`effects`); `auto`: what fits.",
        ),
    ] = "auto",
    engine: Annotated[
        Literal["auto", "wavefront", "reference"],
        typer.Option(metavar="ENGINE", help="wavefront, reference, or auto: the fastest."),
    ] = "auto",
    dtype: Annotated[
        Literal["float32", "float64", "bfloat16", "float16"],
        typer.Option(metavar="DTYPE", help="Dtype of the model: float32, float64, bfloat16, float16."),
    ] = "float32",
    device: Annotated[str, typer.Option(help="A device of PyTorch, or `auto`: CUDA if available.")] = "auto",
    offload: Annotated[
        Literal["cpu", "disk"] | None,
        typer.Option("--offload", help="Keep weights there, for models larger than the device."),
    ] = None,
    device_map: Annotated[
        str | None,
        typer.Option("--device-map", metavar="auto|FILE.json", help="Spread the model over GPUs, memory and disk."),
    ] = None,
    batch_size: Annotated[str, typer.Option(metavar="auto|N", help="Prompts measured at a time.")] = "auto",
    revision: Annotated[str | None, typer.Option(help="The hub's branch, tag or commit.")] = None,
    allow_unused_weights: Annotated[
        bool, typer.Option("--allow-unused-weights", help="Load a model even if its configuration leaves out weights.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the result at --out; start it if there is none.")
    ] = False,
    join: Annotated[
        bool, typer.Option("--join", help="Measure together with other processes that use --join.")
    ] = False,
    elsewhere: Annotated[
        bool, typer.Option("--elsewhere", help="Allow --resume on another kind of machine; rounding differs.")
    ] = False,
    overwrite: Overwrite = False,
    ray: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS|local", help="Measure by workers under Ray, there or here."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, metavar="N", show_default="a GPU each", help="Number of workers, for --ray.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Measure nothing; print the cost of the run.")] = False,
) -> None:
    """Declare the shared options; only the signature of this function is used."""
