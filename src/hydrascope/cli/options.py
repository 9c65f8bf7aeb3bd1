"""The options that measuring commands share."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import typer
from typer.models import OptionInfo

from hydrascope.ablations.names import ABLATIONS, AblationName
from hydrascope.utils.errors import HydrascopeError, printable

#: The words of `--readout`, for help and for messages; `parsing.readouts` reads them.
READOUTS = (
    "logit, logit.answer, logit.foil, logit.ID, difference, placebo.N, direction:FILE.npy, direction:FILE.npy@B, "
    "directions:FILE.npy, directions:FILE.npy@B"
)

#: The words of `--metric`.
METRICS = "log_prob, prob, rank, kl, fisher, top, answer_log_prob"


def to_path(path: str | Path) -> Path:
    """Return the local path that `--out` names.

    Raises:
        HydrascopeError: it is an address, or can't be used.
    """
    from hydrascope.storage.paths import is_address, resolve_path

    if is_address(path):
        copy = f"aws s3 cp --recursive RESULT.zarr {path}" if str(path).startswith("s3:") else "rclone"
        raise HydrascopeError(f"cannot write to the address {path}: write to a local folder and copy it, as by {copy}")
    return resolve_path(path)


Ablation = Annotated[AblationName, typer.Option(metavar="ABLATION", help=f"How to ablate: {', '.join(ABLATIONS)}.")]

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Delete the result at --out and start again.")]


def say(text: str = "", *, err: bool = False) -> None:
    """Print `text`, with control characters escaped."""
    typer.echo(printable(text), err=err)


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """The options that load a model."""

    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A name on the hub, a folder, a GGUF file, a model of `hydrascope fetch`, or `built-in`.",
        ),
    ]
    dtype: Annotated[
        Literal["float32", "float64", "bfloat16", "float16"],
        typer.Option(metavar="DTYPE", help="Dtype of the model: float32, float64, bfloat16, float16."),
    ] = "float32"
    device: Annotated[str, typer.Option(help="A device of PyTorch, or `auto`: CUDA if available.")] = "auto"
    offload: Annotated[
        Literal["cpu", "disk"] | None,
        typer.Option("--offload", help="Keep weights there, for models larger than the device."),
    ] = None
    device_map: Annotated[
        str | None,
        typer.Option("--device-map", metavar="auto|FILE.json", help="Spread the model over GPUs, memory and disk."),
    ] = None
    revision: Annotated[str | None, typer.Option(help="The hub's branch, tag or commit.")] = None
    gguf: Annotated[
        str | None, typer.Option("--gguf", metavar="FILE", help="The GGUF file to read in a folder or repository.")
    ] = None
    adapter: Annotated[
        str | None, typer.Option("--adapter", metavar="FOLDER|NAME", help="A LoRA adapter to merge into the weights.")
    ] = None
    dictionaries: Annotated[
        list[str] | None,
        typer.Option(
            "--dictionary",
            metavar="[SITE=]PATH",
            help="A file or folder of an SAE or transcoder, with its site, as mlp.5=PATH, where the file names none.",
        ),
    ] = None
    allow_unused_weights: Annotated[
        bool, typer.Option("--allow-unused-weights", help="Load a model even if its configuration leaves out weights.")
    ] = False

    @property
    def loading(self) -> dict[str, Any]:
        """Return the keywords of `hydrascope.load_model`."""
        return {each.name: getattr(self, each.name) for each in fields(LoadOptions) if each.name != "model"}


@dataclass(frozen=True, kw_only=True)
class AblationOptions(LoadOptions):
    """The options that say how components are ablated and what is read."""

    readout: Annotated[
        str | None,
        typer.Option(metavar="LIST", show_default="logit", help=READOUTS),
    ] = None
    target: Annotated[
        str,
        typer.Option(
            metavar="argmax|answer|ID", help="The token of `logit` and of metrics, but for `answer_log_prob`."
        ),
    ] = "argmax"
    ablation: Ablation = "resample"
    patches: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", show_default="15", help="Patches a prompt, for resample and noise."),
    ] = None
    noise_scale: Annotated[
        float | None, typer.Option(show_default="3", help="Scale of noise, in standard deviations of the embeddings.")
    ] = None
    different_target: Annotated[
        bool, typer.Option("--different-target", help="Resample only from prompts with another target.")
    ] = False
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Seed of the patches.")] = 0
    engine: Annotated[
        Literal["auto", "wavefront", "reference"],
        typer.Option(metavar="ENGINE", help="wavefront, reference, or auto: the fastest."),
    ] = "auto"


@dataclass(frozen=True, kw_only=True)
class SweepOptions(AblationOptions):
    """The options of a measurement of a set of prompts."""

    prompts: Annotated[
        str,
        typer.Option(
            metavar="FILE|NAME",
            help="A .txt, .json, .jsonl, .csv or .parquet file, hf:ORG/NAME[:split[:column]], or a set: demo, ioi, ….",
        ),
    ]
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Measure only the first N prompts.")] = None
    swapped: Annotated[
        bool, typer.Option("--swapped", help="Exchange each prompt with its counterfactual: the other way of patching.")
    ] = False
    chat: Annotated[
        bool, typer.Option("--chat", help="Put each prompt into the tokenizer's chat template, as a user's message.")
    ] = False
    at: Annotated[
        str,
        typer.Option(metavar="POSITIONS", help="last, all, subject, subject-last, or numbers: -1 is the last."),
    ] = "last"
    batch_size: Annotated[str, typer.Option(metavar="auto|N", help="Prompts measured at a time.")] = "auto"


@dataclass(frozen=True, kw_only=True)
class ZeroOptions(SweepOptions):
    """The options of a measurement that sets components to zero unless asked otherwise."""

    ablation: Ablation = "zero"


@dataclass(frozen=True, kw_only=True)
class MapOptions(AblationOptions):
    """The options of a map of one prompt."""

    prompt: Annotated[str, typer.Option("--prompt", metavar="TEXT", help="The prompt.")]
    answer: Annotated[
        str | None, typer.Option("--answer", metavar="TEXT", help="Its answer, for readouts that need one.")
    ] = None
    foil: Annotated[str | None, typer.Option("--foil", metavar="TEXT", help="A wrong answer, likewise.")] = None
    counterfactual: Annotated[
        str | None, typer.Option("--counterfactual", metavar="TEXT", help="Its twin, of as many tokens, to ablate by.")
    ] = None
    chat: Annotated[
        bool, typer.Option("--chat", help="Put the prompt into the tokenizer's chat template, as a user's message.")
    ] = False
    # One prompt has no others to take patches from.
    ablation: Ablation = "zero"
    prompts: Annotated[
        str | None,
        typer.Option(metavar="FILE|NAME", help="Others that patches come from, for the ablations resample and mean."),
    ] = None
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Take only the first N of --prompts.")] = None


@dataclass(frozen=True, kw_only=True)
class RunOptions(SweepOptions):
    """The options of a measurement that stores a result."""

    out: Annotated[
        Path, typer.Option(parser=to_path, metavar="RESULTS", help="The folder to write to, e.g. results.zarr.")
    ]
    metric: Annotated[str, typer.Option(metavar="LIST", help=f"Functions of the logits: {METRICS}.")] = ""
    keep: Annotated[
        Literal["auto", "effects", "means", "patches"],
        typer.Option(
            metavar="KEEP",
            help="Writes to keep: each of the `patches`, `means` over them, none (`effects`); `auto`: what fits.",
        ),
    ] = "auto"
    products: Annotated[
        Literal["float32", "bfloat16-differences"],
        typer.Option(
            metavar="PRODUCTS",
            help="float32, or bfloat16-differences: multiply differences from the clean run in bfloat16.",
        ),
    ] = "float32"
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the result at --out; start it if there is none.")
    ] = False
    join: Annotated[bool, typer.Option("--join", help="Measure together with other processes that use --join.")] = False
    elsewhere: Annotated[
        bool, typer.Option("--elsewhere", help="Allow --resume on another kind of machine; rounding differs.")
    ] = False
    overwrite: Overwrite = False
    ray: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS|local", help="Measure by workers under Ray, there or here."),
    ] = None
    workers: Annotated[
        int | None, typer.Option(min=1, metavar="N", show_default="a GPU each", help="Number of workers, for --ray.")
    ] = None
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Measure nothing; print the cost of the run.")] = False


@dataclass(frozen=True, kw_only=True)
class TrajectoryOptions(SweepOptions):
    """The options of a measurement of several checkpoints, of which `model` is the last."""

    model: Annotated[str, typer.Argument(metavar="LAST", help="The last checkpoint, likewise.")]
    target: Annotated[
        str,
        typer.Option(
            metavar="shared|argmax|answer|ID",
            help="The token of `logit`; shared: the answers, or unless all prompts have one the last's likeliest.",
        ),
    ] = "shared"
    out: Annotated[
        Path, typer.Option(parser=to_path, metavar="FOLDER", help="The folder of all results; continued if it exists.")
    ]


#: The panels of the help, from the first. Of two fields of one name the later one counts.
_PANELS = {
    SweepOptions: "Measurement",
    AblationOptions: "Measurement",
    ZeroOptions: "Measurement",
    MapOptions: "Measurement",
    RunOptions: "Result",
    LoadOptions: "Model",
    TrajectoryOptions: "Measurement",
}


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that the type of its first parameter declares.

    The help lists the command's own options first, then a panel for each class of options.
    """
    (first, *_), hints = inspect.signature(command).parameters, get_type_hints(command, include_extras=True)
    declared, own = hints[first], dict(inspect.signature(command).parameters)
    del own[first]
    shared = {name: each for panel in _PANELS if issubclass(declared, panel) for name, each in _parameters(panel)}
    parameters = [each.replace(kind=each.KEYWORD_ONLY, annotation=hints[name]) for name, each in own.items()]

    @wraps(command)
    def run(**values: Any) -> None:
        command(declared(**{name: values.pop(name) for name in shared}), **values)

    signature = inspect.Signature([*parameters, *shared.values()])
    run.__signature__ = signature  # type: ignore[attr-defined]
    run.__annotations__ = {name: each.annotation for name, each in signature.parameters.items()}
    return run


def _parameters(panel: type) -> Iterator[tuple[str, inspect.Parameter]]:
    """Yield the parameters that the fields of one class declare, without those of its bases."""
    hints = get_type_hints(panel, include_extras=True)
    for each in fields(panel):
        if each.name in panel.__annotations__:
            annotation = hints[each.name]
            option = annotation.__metadata__[0]
            if isinstance(option, OptionInfo):
                option.rich_help_panel = _PANELS[panel]
            default = inspect.Parameter.empty if each.default is MISSING else each.default
            yield (
                each.name,
                inspect.Parameter(each.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation),
            )
