"""How a run begins: a new result, one that goes on, or one that several processes measure."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from hydrascope.engines.clean.activations import CleanActivations
from hydrascope.engines.kernels import hardware
from hydrascope.models.memory import Batch
from hydrascope.runs.attrs import initial_dataset, settings_of, stored_dtype
from hydrascope.runs.batch_check import MeasuredAlone, check_before, measure_alone, most_mixed
from hydrascope.runs.batches import BATCHES_PER_CHUNK, compute_clean_activations, compute_clean_activations_with_workers
from hydrascope.runs.plan import Plan
from hydrascope.runs.rounding import precision
from hydrascope.storage import reader, writer
from hydrascope.storage.coordination import Workers
from hydrascope.utils.disk_errors import disk
from hydrascope.utils.errors import HydrascopeError
from hydrascope.utils.fsync import make_folders

BatchSize = int | Literal["auto"]


@dataclass(frozen=True)
class RunSession:
    """A run that is about to measure.

    Attributes:
        result: where it writes.
        clean: what its clean runs left.
        batch: how much it measures at a time.
        alone: some prompts measured alone, to compare its numbers with.
    """

    plan: Plan
    result: writer.Writer
    clean: CleanActivations
    batch: Batch
    alone: MeasuredAlone


def start_new(out: Path, plan: Plan, batch_size: BatchSize, *, overwrite: bool) -> RunSession:
    """A new result at `out`.

    Raises:
        HydrascopeError: as `writing.create`, and as `compute_clean_activations`.
    """
    batch = plan.batch(batch_size)
    size = batch.prompts * BATCHES_PER_CHUNK
    every = reader.split_range(len(plan.tokens), size)
    with disk(f"cannot create {out}"):
        make_folders(out.parent)
    clean = compute_clean_activations(plan, batch, every, every, out.parent)
    alone = measure_alone(plan, clean, most_mixed(plan, every, batch.prompts))
    result = _create(out, plan, clean, alone, sizes(size, batch), None, overwrite=overwrite)
    return RunSession(plan, result, clean, batch, alone)


def resume(out: Path, plan: Plan, batch_size: BatchSize, *, elsewhere: bool) -> RunSession | None:
    """The result at `out`, to go on with; None where nothing of it is left to measure.

    Raises:
        HydrascopeError: as `writing.resume`; or it was made with other options, or on another kind of machine.
    """
    result = writer.resume(out)
    try:
        _refuse_differences(out, result.attributes, plan)
        if _is_complete(result):
            return None
        plan = _with_stored_routines(out, result.attributes, plan, elsewhere=elsewhere)
        together, batch = _batches(result.attributes, plan, batch_size)
        every = reader.chunks(result.attributes)
        clean = compute_clean_activations(plan, together, every, result.unmeasured, out.parent)
        alone = measure_alone(plan, clean, most_mixed(plan, every, together.prompts))
    except BaseException:
        result.close()
        raise
    return RunSession(plan, result, clean, batch, alone)


def join(out: Path, plan: Plan, batch_size: BatchSize, workers: Workers, *, elsewhere: bool) -> RunSession | None:
    """The result at `out`, to be measured together with others; None where nothing of it is left to measure.

    What they do alike is what the result says or, before there is one, the first of them.

    Raises:
        HydrascopeError: as `resumed`, and as `created`.
    """

    def mine() -> dict[str, Any]:
        batch = plan.batch(batch_size)
        how = {"machines": [hardware.kind(plan.model.device)], "routines": dict(plan.routines)}
        return {**settings_of(plan), **how, **sizes(batch.prompts * BATCHES_PER_CHUNK, batch), "measured": 0}

    with workers.exclusive():
        before = reader.read_attributes(out) if out.exists() else workers.agree_on(mine)
    _refuse_differences(out, before, plan)
    if before["measured"] == before["prompt_count"]:
        result = writer.resume(out, workers)
        if _is_complete(result):
            return None
        result.close()
    plan = _with_stored_routines(out, before, plan, elsewhere=elsewhere)
    together, batch = _batches(before, plan, batch_size)
    clean = compute_clean_activations_with_workers(plan, together, reader.chunks(before), workers, out.parent)
    alone = measure_alone(plan, clean, most_mixed(plan, reader.chunks(before), together.prompts))
    with workers.exclusive():
        if not out.exists():
            result = _create(out, plan, clean, alone, sizes(before["block_size"], together), workers, overwrite=False)
            return RunSession(plan, result, clean, batch, alone)
        result = writer.resume(out, workers)
    try:
        # Until now nothing kept others from it.
        _refuse_differences(out, result.attributes, plan)
        if any(result.attributes[name] != before.get(name, result.attributes[name]) for name in ("run", "block_size")):
            raise HydrascopeError(f"another run has made {out} meanwhile: this one ends, and may join that")
    except BaseException:
        result.close()
        raise
    return RunSession(plan, result, clean, batch, alone)


def exactness(plan: Plan, clean: CleanActivations, alone: MeasuredAlone) -> dict[str, Any]:
    """Return how exact a run will be, before it starts: the attributes `precision` and `batch_difference`.

    Raises:
        HydrascopeError: a prompt's numbers depend on the prompts that it is measured with.
    """
    found = precision(plan, clean)
    return {**found, **check_before(plan, clean, alone, found).attributes}


def sizes(block: int, batch: Batch) -> dict[str, int]:
    """How many prompts are written and measured at a time, and how many runs of each, for the attributes."""
    return {"block_size": block, "batch_size": batch.prompts, "runs_at_once": batch.overrides}


def _create(
    out: Path,
    plan: Plan,
    clean: CleanActivations,
    alone: MeasuredAlone,
    how: dict[str, int],
    workers: Workers | None,
    *,
    overwrite: bool,
) -> writer.Writer:
    new = initial_dataset(plan, clean).assign_attrs(exactness(plan, clean, alone), **how, worst_imbalance=0.0)
    empty = {name: (dims, stored_dtype(plan, name)) for name, dims in plan.measured_variables.items()}
    return writer.create(out, new, empty, plan.sizes, how["block_size"], overwrite=overwrite, workers=workers)


def _is_complete(result: writer.Writer) -> bool:
    """Whether nothing is left to measure; if so all is counted, and the result let go of."""
    if result.unmeasured:
        return False
    with result:
        # A run may have ended between writing the last block and counting it.
        result.update_measured()
    return True


def _batches(before: dict[str, Any], plan: Plan, batch_size: BatchSize) -> tuple[Batch, Batch]:
    """How much is run clean at a time, which decides the bits, and how much is measured."""
    given = Batch(before["batch_size"], before["runs_at_once"])
    batch = given if batch_size == "auto" else plan.batch(batch_size)
    return Batch(before["block_size"] // BATCHES_PER_CHUNK, batch.overrides), batch


def _refuse_differences(out: Path, before: dict[str, Any], plan: Plan) -> None:
    settings = settings_of(plan)
    # Names may change where a hash says that what they name is the same.
    names = {"prompts", "model"} if before.get("revision") == settings["revision"] else {"prompts"}
    differences = [
        f"{key} was {before.get(key)!r}, now {value!r}"
        for key, value in settings.items()
        if key not in names and before.get(key) != value
    ]
    if differences:
        raise HydrascopeError(
            f"cannot resume {out}: {'; '.join(differences)}: give the options of its start, another place, or overwrite"
        )


def _with_stored_routines(out: Path, before: dict[str, Any], plan: Plan, *, elsewhere: bool) -> Plan:
    """The plan with the routines that the run at `out` multiplies by; other machines than its last may have others."""
    machines, here = before.get("machines", []), hardware.kind(plan.model.device)
    routines = before.get("routines", {})
    if machines[-1:] == [here] and routines.keys() == plan.routines.keys():
        return replace(plan, routines=routines)
    if not elsewhere:
        raise HydrascopeError(
            f"cannot resume {out} to the same bits: it was measured on {machines[-1] if machines else 'no machine'}, "
            f"and this is {here}: go on there, or with elsewhere (--elsewhere) here, which changes the rounding"
        )
    return plan
