"""Steps of measuring commands: from options to a run, here or under Ray."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from hydrascope.cli.options import AblationOptions, RunOptions, SweepOptions, say
from hydrascope.cli.prompt_request import PromptRequest
from hydrascope.utils.errors import HydrascopeError
from hydrascope.utils.text import counted

if TYPE_CHECKING:
    from hydrascope.components.experiments import Experiment
    from hydrascope.components.selection import Selection
    from hydrascope.models.language_model import LanguageModel
    from hydrascope.prompts.prompt import PromptSet
    from hydrascope.runs.config import Output


@dataclass(frozen=True)
class RunRequest:
    """A run as requested on the command line: by names, nothing loaded.

    Attributes:
        model: the model's name or folder.
        prompts: the set of prompts.
        loading: keywords of `hydrascope.load_model`.
        options: keywords of `hydrascope.sweep`.
        output: where the result is written.
    """

    model: str
    prompts: PromptRequest
    loading: dict[str, Any]
    options: dict[str, Any]
    output: "Output"

    @classmethod
    def of(cls, options: RunOptions, ablate: "Selection | Experiment", read: str) -> "RunRequest":
        """Make a request from the options of a command.

        Raises:
            HydrascopeError: an option is wrong.
        """
        from hydrascope.runs.config import Output
        from hydrascope.storage.paths import resolve_path

        metrics = [name.strip() for name in options.metric.split(",") if name.strip()]
        arguments = {**sweep_arguments(options), "ablate": ablate, "read": read, "metrics": metrics}
        return cls(
            options.model,
            PromptRequest.of(options),
            options.loading,
            {**arguments, "keep": options.keep, "products": options.products},
            Output(resolve_path(options.out), options.resume, options.join, options.elsewhere, options.overwrite),
        )

    def read_prompts(self) -> "PromptSet":
        """Read the prompts, after checking that the result may be written."""
        from hydrascope.runs.sweep import refuse_existing

        refuse_existing(self.output)
        return self.prompts.read()

    def sweep(self, model: "LanguageModel", prompts: "PromptSet", **options: Any) -> None:
        """Call `hydrascope.sweep` with the requested options."""
        from hydrascope.runs import sweep

        output = self.output
        sweep.sweep(
            model,
            prompts,
            out=output.path,
            resume=output.resume,
            join=output.join,
            elsewhere=output.elsewhere,
            overwrite=output.overwrite,
            **self.options,
            **options,
        )


def measure(options: RunOptions, ablate: "Selection | Experiment", read: str) -> None:
    """Measure with the options of a command, here or by workers under Ray.

    Raises:
        HydrascopeError: as `hydrascope.sweep`; an option is wrong; Ray is missing.
    """
    if options.ray is None:
        measure_here(options, ablate, read)
        return
    if options.dry_run:
        raise HydrascopeError("--dry-run estimates a run on this machine: leave out --ray")
    from hydrascope.runs import ray_backend

    request = RunRequest.of(options, ablate, read)
    out, count = request.output.path, len(request.read_prompts().prompts)
    request = replace(request, output=replace(request.output, join=True))
    with _interruptible(out, count, overwrite=False):
        ray_backend.measure_with_ray(
            _join,
            (request,),
            out,
            count,
            address=options.ray,
            workers=options.workers,
            device=options.device,
            say=say,
        )
    _say_measured(out, say)


def measure_here(
    options: RunOptions, ablate: "Selection | Experiment", read: str, tell: Callable[[str], None] = say
) -> "tuple[LanguageModel, PromptSet]":
    """Measure with the options of a command in this process; return the model and the prompts.

    Args:
        options: the options of the command.
        ablate: the overrides.
        read: the components that are read.
        tell: prints what is measured, and the outcome.

    Raises:
        HydrascopeError: as `hydrascope.sweep`; an option is wrong.
    """
    if options.ray is not None or options.workers is not None:
        raise HydrascopeError(
            "--ray works with run, mediate and interact only, and --workers needs --ray: to measure with other "
            "processes, use --join"
        )
    request = RunRequest.of(options, ablate, read)
    if options.dry_run:
        _say_cost(request)
        raise typer.Exit
    return load_and_run(request, tell)


def _join(request: RunRequest) -> None:
    """Load the model and the prompts in a worker, and join the run."""
    from hydrascope import load_model

    prompts = request.read_prompts()
    request.sweep(load_model(request.model, **request.loading), prompts)


def sweep_arguments(options: SweepOptions) -> dict[str, Any]:
    """Return the keywords of `hydrascope.sweep` except ablate, read, metrics, keep and products."""
    batch_size = _batch_size(options.batch_size)
    return {**ablation_arguments(options), "batch_size": batch_size, "at": options.at}


def ablation_arguments(options: AblationOptions) -> dict[str, Any]:
    """Return the ablation, readouts, target and engine, as keywords of `hydrascope.sweep`."""
    from hydrascope.ablations import parse
    from hydrascope.cli import parsing

    return {
        "ablation": parse.ablation(
            options.ablation, options.patches, options.noise_scale, options.seed, options.different_target
        ),
        "readouts": parsing.readouts(options.readout or "logit"),
        "target": parsing.target(options.target),
        "engine": options.engine,
    }


def _batch_size(text: str) -> int | Literal["auto"]:
    if text == "auto":
        return "auto"
    from hydrascope.components.component import is_number

    if not is_number(text) or int(text) < 1:
        raise HydrascopeError(f"invalid --batch-size {text}: give auto, or a whole number from 1")
    return int(text)


def load_and_run(request: RunRequest, tell: Callable[[str], None] = say) -> "tuple[LanguageModel, PromptSet]":
    """Load the model and the prompts, run the sweep, and print the outcome."""
    from hydrascope import load_model

    prompts = request.read_prompts()
    model = load_model(request.model, **request.loading)
    run_loaded(request, model, prompts, tell)
    return model, prompts


def run_loaded(
    request: RunRequest, model: "LanguageModel", prompts: "PromptSet", tell: Callable[[str], None] = say
) -> None:
    """Run the sweep of a request, and print the outcome."""
    out = request.output.path
    with _interruptible(out, len(prompts.prompts), overwrite=request.output.overwrite):
        request.sweep(model, prompts, progress=True, say=tell)
    _say_measured(out, tell)


@contextmanager
def _interruptible(out: Path, prompts: int, *, overwrite: bool) -> Iterator[None]:
    """Print how many prompts are stored when the run is interrupted."""
    from hydrascope.storage import reader

    before = _run_at(out)
    try:
        yield
    except KeyboardInterrupt:
        if overwrite and _run_at(out) == before:
            raise HydrascopeError(f"interrupted: {out} is unchanged") from None
        kept = reader.read_attributes(out)["measured"] if out.exists() else 0
        raise HydrascopeError(
            f"interrupted: {kept:,} of {prompts:,} prompts are stored in {out}: continue with --resume"
        ) from None


def _say_measured(out: Path, tell: Callable[[str], None]) -> None:
    from hydrascope.storage import reader

    attributes = reader.read_attributes(out)
    tell(
        f"{counted(attributes['measured'], 'prompt', 'prompts')} measured, total effects equal the sum of "
        f"their terms within {attributes['worst_imbalance']:.1e} {attributes['units']}: {out}"
    )


def load_inputs(options: SweepOptions) -> "tuple[LanguageModel, PromptSet]":
    """Load the model and the prompts that `options` name.

    Raises:
        HydrascopeError: there is no such model, or there are no such prompts.
    """
    from hydrascope import load_model

    prompts = PromptRequest.of(options).read()
    return load_model(options.model, **options.loading), prompts


def _say_cost(request: RunRequest) -> None:
    """Print what the run would measure, and its cost."""
    from hydrascope import load_model
    from hydrascope.runs.config import SweepConfig
    from hydrascope.runs.cost import cost_of
    from hydrascope.runs.plan import make_plan

    prompts = request.read_prompts()
    options = dict(request.options)
    ablation, batch_size = options.pop("ablation"), options.pop("batch_size")
    plan = make_plan(load_model(request.model, **request.loading), prompts, ablation, SweepConfig(**options))
    for line in plan.describe:
        say(line)
    say(f"would take {cost_of(plan, plan.batch(batch_size)).line}")


def _run_at(out: Path) -> str | None:
    """Return the id of the run that wrote the result at `out`; None if there is none."""
    from hydrascope.storage import reader

    try:
        return str(reader.read_attributes(out)["run"])
    except HydrascopeError:
        return None
