"""Start a run that writes to disk: a new result, one to resume, or one to join."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydrascope.engines.clean.activations import CleanActivations
from hydrascope.engines.kernels import hardware
from hydrascope.models.memory import Batch
from hydrascope.runs.assemble import batch_attributes, initial_dataset, stored_dtype
from hydrascope.runs.attrs import settings_of
from hydrascope.runs.batch_check import MeasuredAlone, check_before, measure_alone, most_mixed
from hydrascope.runs.batches import BATCHES_PER_CHUNK, compute_clean_activations, compute_clean_activations_with_workers
from hydrascope.runs.config import BatchSize, Output
from hydrascope.runs.plan import Plan
from hydrascope.runs.rounding import precision
from hydrascope.storage import reader, writer
from hydrascope.storage.coordination import Workers
from hydrascope.storage.schema import attribute
from hydrascope.utils.disk_errors import disk
from hydrascope.utils.errors import HydrascopeError
from hydrascope.utils.fsync import make_folders


@dataclass(frozen=True)
class RunSession:
    """A run that is about to measure.

    Attributes:
        plan: the plan, with the routines by which the result is measured.
        result: the writer of its result.
        clean: its clean activations.
        batch: how much it measures at a time.
        alone: some prompts measured alone, to compare its numbers with.
    """

    plan: Plan
    result: writer.Writer
    clean: CleanActivations
    batch: Batch
    alone: MeasuredAlone


def start(output: Output, plan: Plan, batch_size: BatchSize, workers: Workers | None) -> RunSession | None:
    """Start a run; return None where nothing of the result is left to measure.

    Args:
        workers: the processes that measure the result together, with `join`.

    Raises:
        HydrascopeError: as `start_new`, `resume` or `join`.
    """
    if workers is not None:
        return join(output, plan, batch_size, workers)
    if output.resume and output.path.exists():
        return resume(output, plan, batch_size)
    return start_new(output, plan, batch_size)


def start_new(output: Output, plan: Plan, batch_size: BatchSize) -> RunSession:
    """Create a new result.

    Raises:
        HydrascopeError: as `storage.writer.create` and `compute_clean_activations`.
    """
    out, batch = output.path, plan.batch(batch_size)
    size = batch.prompts * BATCHES_PER_CHUNK
    chunks = reader.split_range(len(plan.tokens), size)
    with disk(f"cannot create {out}"):
        make_folders(out.parent)
    clean = compute_clean_activations(plan, batch, chunks, chunks, out.parent)
    alone = measure_alone(plan, clean, most_mixed(plan, chunks, batch.prompts))
    how = batch_attributes(size, batch)
    return RunSession(plan, _create(output, plan, clean, alone, how, None), clean, batch, alone)


def resume(output: Output, plan: Plan, batch_size: BatchSize) -> RunSession | None:
    """Continue the result; return None where nothing of it is left to measure.

    Raises:
        HydrascopeError: as `storage.writer.resume`; or the result was made with other options, or on another kind of
            machine.
    """
    out = output.path
    result = writer.resume(out)
    try:
        _refuse_differences(out, result.attributes, plan)
        if _is_complete(result):
            return None
        plan = _with_stored_routines(output, result.attributes, plan)
        together, batch = _batches(result.attributes, plan, batch_size)
        chunks = reader.chunks(result.attributes)
        clean = compute_clean_activations(plan, together, chunks, result.unmeasured, out.parent)
        alone = measure_alone(plan, clean, most_mixed(plan, chunks, together.prompts))
    except BaseException:
        result.close()
        raise
    return RunSession(plan, result, clean, batch, alone)


def join(output: Output, plan: Plan, batch_size: BatchSize, workers: Workers) -> RunSession | None:
    """Join the processes that measure the result; return None where nothing is left to measure.

    All follow the settings of the result or, before there is one, those of the first process.

    Raises:
        HydrascopeError: as `resume` and `start_new`.
    """
    out = output.path

    def mine() -> dict[str, Any]:
        batch = plan.batch(batch_size)
        how = {"machines": [hardware.kind(plan.model.device)], "routines": dict(plan.routines)}
        sizes = batch_attributes(batch.prompts * BATCHES_PER_CHUNK, batch)
        return {**settings_of(plan), **how, **sizes, "measured": 0}

    with workers.exclusive():
        before = reader.read_attributes(out) if out.exists() else workers.agree_on(mine)
    _refuse_differences(out, before, plan)
    if before["measured"] == before["prompt_count"]:
        result = writer.resume(out, workers)
        if _is_complete(result):
            return None
        result.close()
    plan = _with_stored_routines(output, before, plan)
    together, batch = _batches(before, plan, batch_size)
    chunks = reader.chunks(before)
    clean = compute_clean_activations_with_workers(plan, together, chunks, workers, out.parent)
    alone = measure_alone(plan, clean, most_mixed(plan, chunks, together.prompts))
    with workers.exclusive():
        if not out.exists():
            how = batch_attributes(before["chunk_size"], together)
            return RunSession(plan, _create(output, plan, clean, alone, how, workers), clean, batch, alone)
        result = writer.resume(out, workers)
    try:
        # Until now nothing kept others from it.
        _refuse_differences(out, result.attributes, plan)
        if any(result.attributes[name] != before.get(name, result.attributes[name]) for name in ("run", "chunk_size")):
            raise HydrascopeError(f"another run has made {out} meanwhile: this one ends, and may join that")
    except BaseException:
        result.close()
        raise
    return RunSession(plan, result, clean, batch, alone)


def exactness(plan: Plan, clean: CleanActivations, alone: MeasuredAlone) -> dict[str, Any]:
    """Return the attributes `precision` and `batch_difference`, before a run starts.

    Raises:
        HydrascopeError: a prompt's numbers depend on the prompts that it is measured with.
    """
    found = precision(plan, clean)
    return {**found, **check_before(plan, clean, alone, found).attributes}


def _create(
    output: Output,
    plan: Plan,
    clean: CleanActivations,
    alone: MeasuredAlone,
    how: dict[str, int],
    workers: Workers | None,
) -> writer.Writer:
    initial = initial_dataset(plan, clean).assign_attrs(exactness(plan, clean, alone), **how, worst_imbalance=0.0)
    empty = {name: (dims, stored_dtype(plan, name)) for name, dims in plan.measured_variables.items()}
    overwrite = output.overwrite and workers is None
    return writer.create(
        output.path, initial, empty, plan.sizes, how["chunk_size"], overwrite=overwrite, workers=workers
    )


def _is_complete(result: writer.Writer) -> bool:
    """Whether nothing is left to measure; if so, count all chunks and close the result."""
    if result.unmeasured:
        return False
    with result:
        # A run may have ended between writing the last block and counting it.
        result.update_measured()
    return True


def _batches(before: dict[str, Any], plan: Plan, batch_size: BatchSize) -> tuple[Batch, Batch]:
    """Return the batch of clean passes, which decides the bits, and that of the measurement."""
    given = Batch(before["batch_size"], before["overrides_at_once"])
    batch = given if batch_size == "auto" else plan.batch(batch_size)
    return Batch(before["chunk_size"] // BATCHES_PER_CHUNK, batch.overrides), batch


def _refuse_differences(out: Path, before: dict[str, Any], plan: Plan) -> None:
    settings = settings_of(plan)
    # Names may change where a hash says that what they name is the same.
    hashes = {"model": "revision", "dictionary_names": "dictionary_hashes"}
    names = {"prompts", *(name for name, of in hashes.items() if before.get(of) == settings.get(of))}
    differences = [
        f"{key} was {before.get(key)!r}, now {value!r}"
        for key, value in settings.items()
        if key not in names and before.get(key) != value
    ]
    if differences:
        raise HydrascopeError(
            f"cannot resume {out}: {'; '.join(differences)}: give the options of its start, another place, or overwrite"
        )


def _with_stored_routines(output: Output, before: dict[str, Any], plan: Plan) -> Plan:
    """Return the plan with the result's own routines; another machine may have others."""
    machines, here = attribute(before, "machines", []), hardware.kind(plan.model.device)
    routines = attribute(before, "routines", {})
    if machines[-1:] == [here] and routines.keys() == plan.routines.keys():
        return replace(plan, routines=routines)
    if not output.elsewhere:
        there = machines[-1] if machines else "no machine"
        raise HydrascopeError(
            f"cannot resume {output.path} to the same bits: it was measured on {there}, and this is {here}: go on "
            "there, or with elsewhere (--elsewhere) here, which changes the rounding"
        )
    return plan
