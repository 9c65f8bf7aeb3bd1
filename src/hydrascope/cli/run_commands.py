"""How the commands that measure go about it: what their options ask for, here or by workers under Ray."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from hydrascope.cli.options import LOADING, Options, say
from hydrascope.utils.errors import HydrascopeError
from hydrascope.utils.text import counted

if TYPE_CHECKING:
    from hydrascope.components.experiments import Experiment
    from hydrascope.components.selection import Selection
    from hydrascope.models.language_model import LanguageModel
    from hydrascope.prompts.prompt import PromptSet

#: Arguments of `hydrascope.run` that say where to and how it writes.
_OF_WRITING = ("out", "resume", "join", "elsewhere", "overwrite")


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
    from hydrascope.runs import ray_backend

    (name, prompts_name, limit, loading, arguments), out = run_arguments(options, ablate, read), options["out"]
    prompts = _prompts(prompts_name, limit, arguments)
    work = name, prompts_name, limit, loading, {**arguments, "join": True}
    with _interruptible(out, len(prompts.prompts), overwrite=False):
        ray_backend.measure_with_ray(
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
    of_what = run_arguments(options, ablate, read)
    if options["dry_run"]:
        _say_cost(*of_what)
        raise typer.Exit
    return load_and_run(*of_what)


def run_arguments(
    options: Options, ablate: "Selection | Experiment", read: str
) -> tuple[str, str, int | None, dict[str, Any], dict[str, Any]]:
    """The model's name, the prompts' and how many of them, how the model is loaded, and the arguments of the run."""
    arguments = {
        **sweep_arguments(options),
        "ablate": ablate,
        "read": read,
        "metrics": [name.strip() for name in options["metric"].split(",") if name.strip()],
        **{name: options[name] for name in ("keep", *_OF_WRITING)},
    }
    return options["model"], options["prompts"], options["limit"], _loading(options), arguments


def _work_along(
    name: str, prompts_name: str, limit: int | None, loading: dict[str, Any], arguments: dict[str, Any]
) -> None:
    """The whole of a worker."""
    from hydrascope import load_model
    from hydrascope.runs import sweep

    prompts = _prompts(prompts_name, limit, arguments)
    sweep.run(load_model(name, **loading), prompts, **arguments)


def sweep_arguments(options: Options) -> dict[str, Any]:
    """The arguments of `hydrascope.sweep` that `options` stand for, but what is ablated, read and kept."""
    from hydrascope.ablations import parse
    from hydrascope.cli import parsing

    drawn = (options[name] for name in ("ablation", "patches", "noise_scale", "seed", "different_target"))
    return {
        "ablation": parse.ablation(*drawn),
        "readouts": parsing.readouts(options["readout"]),
        "target": parsing.target(options["target"]),
        "batch_size": _batch_size(options["batch_size"]),
        **{name: options[name] for name in ("at", "engine")},
    }


def _loading(options: Options) -> dict[str, Any]:
    return {name: options[name] for name in LOADING}


def _batch_size(text: str) -> int | Literal["auto"]:
    if text == "auto":
        return "auto"
    from hydrascope.components.component import is_number

    if not is_number(text) or int(text) < 1:
        raise HydrascopeError(f"--batch-size {text} is no number of prompts: give auto, or a whole number from 1 on")
    return int(text)


def load_and_run(
    name: str, prompts_name: str, limit: int | None, loading: dict[str, Any], arguments: dict[str, Any]
) -> "tuple[LanguageModel, PromptSet]":
    """Load a model and prompts, run `hydrascope.run` with these arguments, and say what came of it."""
    from hydrascope import load_model
    from hydrascope.runs import sweep

    prompts = _prompts(prompts_name, limit, arguments)
    model, out = load_model(name, **loading), arguments["out"]
    with _interruptible(out, len(prompts.prompts), overwrite=arguments["overwrite"]):
        sweep.run(model, prompts, progress=True, say=say, **arguments)
    _say_measured(out)
    return model, prompts


@contextmanager
def _interruptible(out: Path, prompts: int, *, overwrite: bool) -> Iterator[None]:
    """Say what is kept of a run of so many prompts when it is interrupted."""
    from hydrascope.storage import reader

    before = _run_at(out)
    try:
        yield
    except KeyboardInterrupt:
        if overwrite and _run_at(out) == before:
            raise HydrascopeError(f"interrupted: {out} is as it was") from None
        kept = reader.read_attributes(out)["measured"] if out.exists() else 0
        raise HydrascopeError(
            f"interrupted: {kept:,} of {prompts:,} prompts are kept in {out}: go on with --resume"
        ) from None


def _say_measured(out: Path) -> None:
    from hydrascope.storage import reader

    attributes = reader.read_attributes(out)
    say(
        f"{counted(attributes['measured'], 'prompt', 'prompts')} measured, total effects and their parts apart "
        f"by at most {attributes['worst_imbalance']:.1e} {attributes['units']}: {out}"
    )


def load_inputs(options: Options) -> "tuple[LanguageModel, PromptSet]":
    """The model and the prompts that `options` name.

    Raises:
        HydrascopeError: there is no such model, or there are no such prompts.
    """
    from hydrascope import load_model

    prompts = _read_prompts(options["prompts"], options["limit"])
    return load_model(options["model"], **_loading(options)), prompts


def _prompts(name: str, limit: int | None, arguments: dict[str, Any]) -> "PromptSet":
    """The prompts of a run with these arguments, once it is sure that it may write where it is to."""
    from hydrascope.runs import sweep
    from hydrascope.storage.paths import resolve_path

    out = arguments["out"] = resolve_path(arguments["out"])
    how = {name: arguments[name] for name in ("resume", "join", "overwrite") if name in arguments}
    sweep.refuse_existing(out, **how)
    return _read_prompts(name, limit)


def _read_prompts(name: str, limit: int | None) -> "PromptSet":
    from hydrascope import load_prompts

    prompts = load_prompts(name)
    if prompts.duplicates:
        say(f"{counted(prompts.duplicates, 'duplicate prompt', 'duplicate prompts')} left out", err=True)
    return prompts if limit is None else prompts.limit(limit)


def _say_cost(
    name: str, prompts_name: str, limit: int | None, loading: dict[str, Any], arguments: dict[str, Any]
) -> None:
    """Say what `hydrascope.run` with these arguments would measure, and what that would take."""
    from hydrascope import load_model
    from hydrascope.runs.cost import cost_of
    from hydrascope.runs.plan import make_plan

    prompts = _prompts(prompts_name, limit, arguments)
    model = load_model(name, **loading)
    plan = make_plan(
        model, prompts, **{key: each for key, each in arguments.items() if key not in (*_OF_WRITING, "batch_size")}
    )
    for line in plan.describe:
        say(line)
    say(f"would take {cost_of(plan, plan.batch(arguments['batch_size'])).line}")


def _run_at(out: Path) -> str | None:
    """The id of the run that made the result at `out`; None where none can be read."""
    from hydrascope.storage import reader

    try:
        return str(reader.read_attributes(out)["run"])
    except HydrascopeError:
        return None
