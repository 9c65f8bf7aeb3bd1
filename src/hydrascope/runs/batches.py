"""Measure chunks of prompts, batch by batch, and check each batch before it counts.

Prompts are measured in chunks, in their order; a chunk is cut into batches of prompts of similar length. Which prompts
share a batch follows from the prompt set and the batch size alone, so that a run that was interrupted goes on to the
very numbers that it would have given.
"""

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hydrascope.ablations.ablation import Patches, draw_patches
from hydrascope.components.component import Component
from hydrascope.engines import Readings, Request, balance
from hydrascope.engines.clean.activations import (
    CleanActivations,
    CleanPassFunction,
    collect_clean_activations,
    collect_shard,
    join_shards,
    padded_positions,
    plain_pass,
)
from hydrascope.engines.clean.clean_pass import CleanPass
from hydrascope.engines.clean.prefix import SharedPrefix, compute_prefix, compute_prefix_and_clean_pass
from hydrascope.engines.clean.prefix_store import PrefixStore
from hydrascope.engines.clean.readings import clean_readings
from hydrascope.engines.clean.spill_store import (
    ROOM,
    Allocator,
    Shard,
    in_memory,
    is_written,
    on_disk,
    read_shard,
    write_shard,
)
from hydrascope.engines.interface import sites_read
from hydrascope.engines.readouts import Readouts
from hydrascope.models.batching import first_batch
from hydrascope.models.memory import Batch, within_memory
from hydrascope.runs.idle import without_idle
from hydrascope.runs.parts import stretches, values_of, written
from hydrascope.runs.plan import Plan
from hydrascope.runs.sound_numbers import require_finite, require_sound
from hydrascope.storage.coordination import Workers
from hydrascope.utils.disk_errors import disk
from hydrascope.utils.progress import Advance

#: A chunk is this many batches: enough to sort by length, little to lose when a run is killed.
BATCHES_PER_CHUNK = 4


def batches(plan: Plan, chunk: Iterable[int], size: int) -> list[list[int]]:
    """Cut a chunk into batches of at most `size` prompts that may share one, by length."""
    order, found = _by_length(plan, chunk), []
    while order:
        found.append(list(first_batch(plan.model, plan.tokens, order, size)))
        order = order[len(found[-1]) :]
    return found


def _by_length(plan: Plan, chunk: Iterable[int]) -> list[int]:
    return sorted(chunk, key=lambda index: len(plan.tokens[index]))


def activation_allocator(plan: Plan, folder: Path | None = None) -> Allocator:
    """Choose where clean activations are kept: in memory, or in files if they are too many."""
    return on_disk(folder or Path(tempfile.gettempdir())) if plan.memory.activations_on_disk else in_memory


def choose_prefix_store(plan: Plan, batch: Batch, folder: Path | None = None) -> PrefixStore:
    """Choose where prefixes wait: in memory while there is room, then (on a CPU) in a file."""
    spare = plan.memory.spare_bytes(batch)
    if plan.model.device.type != "cpu":
        return PrefixStore(spare)
    return PrefixStore(spare, folder or Path(tempfile.gettempdir()))


def compute_clean_activations(
    plan: Plan, batch: Batch, chunks: Sequence[range], needed: Sequence[range] = (), folder: Path | None = None
) -> CleanActivations:
    """Run all prompts clean, in the batches in which they are measured.

    Batches are smaller if memory runs out.

    Args:
        needed: the chunks that will be measured: their prefixes are kept as far as there is room, and computed again
            where there is none, to the same bits.
        folder: for files; the folder of temporary files by default.

    Raises:
        HydrascopeError: some patches can't be drawn.
    """
    plan.require_drawable()

    def is_needed(prompts: Sequence[int]) -> bool:
        return any(prompts[0] in chunk for chunk in needed)

    def compute(batch: Batch) -> CleanActivations:
        store = choose_prefix_store(plan, batch, folder)
        clean = collect_clean_activations(
            plan.model,
            plan.prompts.prompts,
            plan.tokens,
            plan.positions,
            plan.sites,
            (each for chunk in chunks for each in batches(plan, chunk, batch.prompts)),
            _clean_pass_function(plan, store, is_needed),
            given_targets(plan),
            activation_allocator(plan, folder),
        )
        return replace(clean, prefixes=store)

    clean, fitted = within_memory(compute, batch)
    if fitted != batch:
        clean.prefixes.drop_all()  # of other batches than those that will be measured
    draw_patches(plan.ablation, clean, range(len(plan.tokens)))
    return clean


def _clean_pass_function(
    plan: Plan, store: PrefixStore, is_needed: Callable[[Sequence[int]], bool] = lambda prompts: True
) -> CleanPassFunction:
    """Return a function that runs batches clean, and puts needed prefixes into `store`."""
    if plan.engine.name != "wavefront":
        return plain_pass(plan.model, plan.tokens, plan.sites)

    def run(prompts: Sequence[int], numbers: Tensor, at: Tensor) -> CleanPass:
        start = time.perf_counter()
        prefix, found = _prefix_and_clean_pass(plan, prompts, numbers, at)
        if is_needed(prompts):
            store.put(prompts, prefix, time.perf_counter() - start)
        return found

    return run


def _prefix_and_clean_pass(
    plan: Plan, prompts: Sequence[int], numbers: Tensor, at: Tensor
) -> tuple[SharedPrefix, CleanPass]:
    tokens = [plan.tokens[index] for index in prompts]
    positions = torch.from_numpy(padded_positions(plan.positions, prompts))
    sites = dict.fromkeys((*sites_read(plan.model, plan.units, plan.overrides), *plan.sites))
    return compute_prefix_and_clean_pass(plan.model, tokens, positions, sites, plan.routines, numbers, at)


def compute_clean_activations_with_workers(
    plan: Plan, batch: Batch, chunks: Sequence[range], workers: Workers, folder: Path | None = None
) -> CleanActivations:
    """Compute the same clean activations, each chunk by one of several workers.

    All workers read all chunks. The prefixes of a chunk are kept by the worker that ran it: see `Writer.chunks`.

    Raises:
        HydrascopeError: besides, the disk refuses.
    """
    plan.require_drawable()
    store = choose_prefix_store(plan, batch, folder)
    where = plan.tokens, plan.positions, plan.sites

    def compute(chunk: range, fitting: Batch) -> Shard:
        # Nothing is kept of other batches than those that will be measured.
        run = _clean_pass_function(plan, store if fitting == batch else PrefixStore())
        return collect_shard(plan.model, *where, chunk, batches(plan, chunk, fitting.prompts), run)

    for chunk in workers.share(chunks, lambda chunk: is_written(workers.clean, chunk.start), "clean-"):
        shard, _ = within_memory(partial(compute, chunk), batch)
        with disk(f"cannot keep clean values beside {workers.path}", ROOM):
            write_shard(workers.clean, chunk.start, shard)
    shards = ((chunk, read_shard(workers.clean, chunk.start)) for chunk in chunks)
    with disk(f"cannot read what workers left beside {workers.path}", "start again"):
        allocate = activation_allocator(plan, folder)
        clean = join_shards(plan.model, plan.prompts.prompts, *where, shards, given_targets(plan), allocate)
    draw_patches(plan.ablation, clean, range(len(plan.tokens)))
    return replace(clean, prefixes=store)


def given_targets(plan: Plan) -> Sequence[int] | None:
    given = {"argmax": None, "answer": plan.answers}
    return [plan.target] * len(plan.tokens) if isinstance(plan.target, int) else given[plan.target]


@dataclass(frozen=True)
class MeasuredChunk:
    """The measured variables of the chunk that begins at prompt `start`.

    Attributes:
        batch: the last batch that fitted into memory.
    """

    start: int
    measured: dict[str, np.ndarray]
    batch: Batch


def measure_chunks(
    plan: Plan, clean: CleanActivations, chunks: Iterable[range], batch: Batch, advance: Advance = lambda count: None
) -> Iterator[MeasuredChunk]:
    """Measure chunks of prompts, one after another.

    Args:
        advance: called with the number of prompts measured since the last call.
    """
    for chunk in chunks:
        remaining = _by_length(plan, chunk)
        order, pieces = np.argsort(remaining), []
        while remaining:
            tried = Batch(len(first_batch(plan.model, plan.tokens, remaining, batch.prompts)), batch.overrides)
            piece, fitted = within_memory(partial(_measure_with_retry, plan, clean, remaining, tried), tried)
            batch = batch if fitted == tried else fitted
            pieces.append(piece)
            remaining = remaining[fitted.prompts :]
            advance(fitted.prompts)
        measured = {name: _concat(pieces, name, dims, "prompt") for name, dims in plan.measured_variables.items()}
        axes = {name: dims.index("prompt") for name, dims in plan.measured_variables.items()}
        in_order = {name: values.take(order, axes[name]) for name, values in measured.items()}
        yield MeasuredChunk(chunk.start, in_order, batch)


def _concat(pieces: Sequence[dict[str, np.ndarray]], name: str, dims: Sequence[str], along: str) -> np.ndarray:
    if len(pieces) == 1 or along not in dims:
        return pieces[0][name]
    return np.concatenate([piece[name] for piece in pieces], dims.index(along))


def _measure_with_retry(
    plan: Plan, clean: CleanActivations, remaining: Sequence[int], tried: Batch, batch: Batch
) -> dict[str, np.ndarray]:
    """Measure a batch; if it is smaller than `tried`, for want of memory, drop prefixes first."""
    if batch != tried:
        clean.prefixes.drop_all()
    return _measure(plan, clean, remaining, batch)


def _measure(plan: Plan, clean: CleanActivations, remaining: Sequence[int], batch: Batch) -> dict[str, np.ndarray]:
    """Measure one batch: the first of the prompts `remaining`, in that order.

    Raises:
        HydrascopeError: the model's numbers aren't finite, the engine's clean row differs from the clean pass, or
            total effects and the changes of components don't balance.
    """
    indices = remaining[: batch.prompts]
    prepared = prepare_batch(plan, clean, indices)
    readouts = prepared.readouts
    pieces, worst = [], np.zeros(len(indices))
    for some in stretches(plan.overrides, batch.overrides):
        found, off, _ = measure_batch(plan, clean, prepared, some)
        pieces.append(found)
        worst = np.maximum(worst, off.max((0, 2, 3)))
    measured = {name: _concat(pieces, name, plan.measured_variables[name], "ablated") for name in pieces[0]}
    if plan.patches_from_twins:
        twins = clean_readings(plan.model, [clean.twins[index] for index in indices], readouts)
        measured["logit_twin"] = twins.cpu().numpy().astype(plan.dtype)
        require_finite(plan, indices, measured)
    return measured | {"imbalance": worst.astype(plan.dtype), "patch_prompt": prepared.patches.sources}


@dataclass(frozen=True)
class PreparedBatch:
    """The things that all passes over one batch of prompts share.

    Attributes:
        indices: the indices of the prompts.
        patches: their patches.
        readouts: their readouts.
        positions: `[prompt, slot]` their ablated positions.
        prefix: the tensors that all rows of the wavefront engine share; None for the other engine.
    """

    indices: Sequence[int]
    patches: Patches
    readouts: Readouts
    positions: Tensor
    prefix: SharedPrefix | None


def prepare_batch(
    plan: Plan, clean: CleanActivations, indices: Sequence[int], summed: Sequence[Component] = ()
) -> PreparedBatch:
    """Prepare the passes over a batch of prompts.

    Args:
        plan: the plan.
        clean: the clean activations of all prompts.
        indices: the prompts.
        summed: the dictionaries whose features are summed, as in `Request`.
    """
    patches = draw_patches(plan.ablation, clean, indices)
    readouts = Readouts.of(plan.model, plan.readouts, plan.tokens_of(clean), indices)
    tokens, positions = [plan.tokens[index] for index in indices], torch.from_numpy(clean.padded_positions(indices))
    prefix = None if summed else clean.prefixes.take(indices)
    if prefix is None and plan.engine.name == "wavefront":
        sites = sites_read(plan.model, (*plan.units, *summed), plan.overrides)
        prefix = compute_prefix(plan.model, tokens, positions, sites, plan.routines)
    return PreparedBatch(indices, patches, readouts, positions, prefix)


def measure_batch(
    plan: Plan, clean: CleanActivations, batch: PreparedBatch, some: slice, summed: tuple[Component, ...] = ()
) -> tuple[dict[str, np.ndarray], np.ndarray, Readings]:
    """Measure some overrides on a batch of prompts, and check that they balance.

    Args:
        plan: the plan.
        clean: the clean activations of all prompts.
        batch: the batch.
        some: the overrides.
        summed: the dictionaries whose features are summed, as in `Request`.

    Returns:
        the measured variables, the imbalance `[readout, prompt, ablated, patch]`, and the readings.

    Raises:
        HydrascopeError: the numbers aren't finite or don't balance.
    """
    readouts, indices = batch.readouts, batch.indices
    values = values_of(plan, clean, batch.patches.values, readouts, indices, plan.overrides[some])
    overrides, values = without_idle(clean, indices, written(plan.overrides[some]), values)
    request = Request(
        [plan.tokens[index] for index in indices],
        batch.positions,
        overrides,
        plan.ablation.patches,
        values,
        plan.units,
        readouts,
        plan.metrics,
        torch.tensor([clean.targets[index] for index in indices]),
        plan.routines,
        batch.prefix,
        plan.answers_of(indices),
        summed,
        plan.products,
    )
    readings = plan.engine.measure(plan.model, request)
    changing = plan.may_change[some].to(readings.scale.device)
    off = balance.imbalance(readings, changing, readouts.final)
    rounding = balance.TOLERANCE[plan.model.dtype]
    allowed = rounding * balance.balance_size(readings, changing.shape[1], readouts.final)
    if (off > allowed).any():
        # Computed only where it is needed: it takes one more pass.
        allowed = allowed + rounding * balance.ROUNDINGS * balance.product_size(plan.model, request.tokens, readouts)
    quantities = balance.quantities(readings, readouts.final)
    measured = {
        name: quantities[name].cpu().numpy().astype(plan.dtype)
        for name in plan.measured_variables
        if name in quantities
    }
    require_sound(plan, indices, measured, float(readings.clean_error), _numpy(off), _numpy(allowed))
    return measured, _numpy(off), readings


def _numpy(values: torch.Tensor) -> np.ndarray:
    return np.asarray(values.double().cpu())
