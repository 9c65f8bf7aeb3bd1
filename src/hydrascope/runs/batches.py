"""A run's unit of work: a block of prompts, measured batch by batch, each found sound before it counts.

Prompts are measured in blocks, in their order; a block is cut into batches of prompts of similar length. Which
prompts share a batch follows from the prompt set and the batch size alone, so that a run that was interrupted goes
on to the very numbers that it would have given.
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

from hydrascope.ablations.ablation import draw_patches
from hydrascope.engines import Request, balance
from hydrascope.engines.clean import prefix_store
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
from hydrascope.engines.clean.prefix_store import Back, KeepShared
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
from hydrascope.models.memory import Batch, is_on_disk, spare_bytes, within_memory
from hydrascope.runs.plan import Plan
from hydrascope.storage.coordination import Workers
from hydrascope.utils.disk_errors import disk
from hydrascope.utils.errors import HydrascopeError
from hydrascope.utils.progress import Advance

#: A block is this many batches: enough to sort by length, little to lose when a run is killed.
BATCHES_PER_CHUNK = 4


def batches(plan: Plan, block: Iterable[int], size: int) -> list[list[int]]:
    """Return the prompts of a block in batches of at most `size`, by length; only those that may share one do."""
    order, found = _by_length(plan, block), []
    while order:
        found.append(list(first_batch(plan.model, plan.tokens, order, size)))
        order = order[len(found[-1]) :]
    return found


def _by_length(plan: Plan, block: Iterable[int]) -> list[int]:
    return sorted(block, key=lambda index: len(plan.tokens[index]))


def activation_allocator(plan: Plan, folder: Path | None = None) -> Allocator:
    """Where clean values are kept: in memory; in `folder`, or where temporary files are, if they are too many."""
    return on_disk(folder or Path(tempfile.gettempdir())) if is_on_disk(plan.bank_bytes) else in_memory


def choose_prefix_store(plan: Plan, batch: Batch, folder: Path | None = None) -> KeepShared:
    """Where is kept what prompts share, until they are measured: in memory as far as there is room; of a CPU then in a
    file."""
    memory = prefix_store.in_memory(spare_bytes(plan.model, plan.load, plan.bank_bytes, batch))
    if plan.model.device.type != "cpu":
        return memory
    return prefix_store.in_either(memory, prefix_store.in_file(folder or Path(tempfile.gettempdir())))


def compute_clean_activations(
    plan: Plan, batch: Batch, chunks: Sequence[range], needed: Sequence[range] = (), folder: Path | None = None
) -> CleanActivations:
    """Run all prompts clean, in the batches in which they are measured, or in smaller ones where memory runs out.

    Args:
        needed: the blocks that will be measured: what that needs of their clean runs is kept as far as there is room,
            and made again where there is none, to the same bits.
        folder: where is kept what is kept on disk; where temporary files are by default.

    Raises:
        HydrascopeError: some patches can't be drawn.
    """
    plan.require_drawable()

    def run(batch: Batch) -> CleanActivations:
        kept: dict[tuple[int, ...], Back] = {}
        keep_shared = choose_prefix_store(plan, batch, folder)
        return replace(
            collect_clean_activations(
                plan.model,
                plan.prompts.prompts,
                plan.tokens,
                plan.positions,
                plan.sites,
                (each for chunk in chunks for each in batches(plan, chunk, batch.prompts)),
                _clean_pass_function(
                    plan, keep_shared, kept, lambda prompts: any(prompts[0] in chunk for chunk in needed)
                ),
                _targets(plan),
                activation_allocator(plan, folder),
            ),
            prefixes=kept,
        )

    clean, fitted = within_memory(run, batch)
    if fitted != batch:
        clean.prefixes.clear()  # of other batches than those that will be measured
    draw_patches(plan.ablation, clean, range(len(plan.tokens)))
    return clean


def _clean_pass_function(
    plan: Plan,
    keep_shared: KeepShared,
    kept: dict[tuple[int, ...], Back],
    is_needed: Callable[[Sequence[int]], bool] = lambda prompts: True,
) -> CleanPassFunction:
    """What runs batches of prompts clean, and keeps in `kept` what measuring those that are needed needs of it."""
    if plan.engine.name != "wavefront":
        return plain_pass(plan.model, plan.tokens, plan.sites)

    def run(prompts: Sequence[int], runs: Tensor, at: Tensor) -> CleanPass:
        start = time.perf_counter()
        common, found = _prefix_and_clean_pass(plan, prompts, runs, at)
        if is_needed(prompts) and (back := keep_shared(common, time.perf_counter() - start)):
            kept[tuple(prompts)] = back
        return found

    return run


def _prefix_and_clean_pass(
    plan: Plan, prompts: Sequence[int], runs: Tensor, at: Tensor
) -> tuple[SharedPrefix, CleanPass]:
    tokens = [plan.tokens[index] for index in prompts]
    positions = torch.from_numpy(padded_positions(plan.positions, prompts))
    sites = dict.fromkeys((*sites_read(plan.model, plan.units), *plan.sites))
    return compute_prefix_and_clean_pass(plan.model, tokens, positions, sites, plan.routines, runs, at)


def compute_clean_activations_with_workers(
    plan: Plan, batch: Batch, chunks: Sequence[range], workers: Workers, folder: Path | None = None
) -> CleanActivations:
    """As `compute_clean_activations`, to the same bits; each block is run clean by one of `workers`, and read by all.

    What measuring a block needs besides is kept by the one that ran it clean: see `Writer.blocks`.

    Raises:
        HydrascopeError: besides, the disk refuses.
    """
    plan.require_drawable()
    kept: dict[tuple[int, ...], Back] = {}
    keep_shared = choose_prefix_store(plan, batch, folder)
    of = plan.model, plan.tokens, plan.positions, plan.sites

    def part(chunk: range, fitting: Batch) -> Shard:
        # Of other batches than those that will be measured nothing is kept.
        run = _clean_pass_function(plan, keep_shared if fitting == batch else prefix_store.in_memory(0), kept)
        return collect_shard(*of, chunk, batches(plan, chunk, fitting.prompts), run)

    for block in workers.share(chunks, lambda chunk: is_written(workers.clean, chunk.start), "clean-"):
        found, _ = within_memory(partial(part, block), batch)
        with disk(f"cannot keep clean values beside {workers.path}", ROOM):
            write_shard(workers.clean, block.start, found)
    parts = ((chunk, read_shard(workers.clean, chunk.start)) for chunk in chunks)
    known = plan.model, plan.prompts.prompts, plan.tokens, plan.positions, plan.sites
    with disk(f"cannot read what workers left beside {workers.path}", "start again"):
        clean = join_shards(*known, parts, _targets(plan), activation_allocator(plan, folder))
    draw_patches(plan.ablation, clean, range(len(plan.tokens)))
    return replace(clean, prefixes=kept)


def _targets(plan: Plan) -> Sequence[int] | None:
    given = {"argmax": None, "answer": plan.answers}
    return [plan.target] * len(plan.tokens) if isinstance(plan.target, int) else given[plan.target]


@dataclass(frozen=True)
class MeasuredChunk:
    """The measured prompts from `start` on, and how much memory allowed at a time last."""

    start: int
    measured: dict[str, np.ndarray]
    batch: Batch


def measure_chunks(
    plan: Plan, clean: CleanActivations, chunks: Iterable[range], batch: Batch, advance: Advance = lambda count: None
) -> Iterator[MeasuredChunk]:
    """Measure blocks of prompts, one after another.

    Args:
        advance: is told of each number of prompts more.
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
    """As `_measure`; where less is measured than was `tried`, for want of memory, nothing is kept that takes some."""
    if batch != tried:
        clean.prefixes.clear()
    return _measure(plan, clean, remaining, batch)


def _measure(plan: Plan, clean: CleanActivations, remaining: Sequence[int], batch: Batch) -> dict[str, np.ndarray]:
    """The measured variables of one batch: the first of the prompts `remaining`, in that order.

    Raises:
        HydrascopeError: the model's numbers aren't finite, the engine's two ways to the clean run differ, or total
            effects and their parts don't balance.
    """
    indices = remaining[: batch.prompts]
    patches = draw_patches(plan.ablation, clean, indices)
    readouts = Readouts.of(plan.model, plan.readouts, plan.tokens_of(clean), indices)
    tokens, positions = [plan.tokens[index] for index in indices], torch.from_numpy(clean.padded_positions(indices))
    back = clean.prefixes.pop(tuple(indices), None)
    common = back() if back else None
    if common is None and plan.engine.name == "wavefront":
        common = compute_prefix(plan.model, tokens, positions, sites_read(plan.model, plan.units), plan.routines)
    pieces, worst = [], np.zeros(len(indices))
    for first in range(0, len(plan.overrides), batch.overrides):
        runs = slice(first, first + batch.overrides)
        request = Request(
            tokens,
            positions,
            plan.overrides[runs],
            plan.ablation.patches,
            patches.values,
            plan.units,
            readouts,
            plan.metrics,
            torch.tensor([clean.targets[index] for index in indices]),
            plan.routines,
            common,
        )
        readings = plan.engine.measure(plan.model, request)
        changing = plan.may_change[runs].to(readings.scale.device)
        off = balance.imbalance(readings, changing, readouts.final)
        rounding = balance.TOLERANCE[plan.model.dtype]
        allowed = rounding * balance.balance_size(readings, changing.shape[1], readouts.final)
        if (off > allowed).any():
            # Looked for only where it is needed: it takes a run more.
            allowed = allowed + rounding * balance.ROUNDINGS * balance.product_size(
                plan.model, request.tokens, readouts
            )
        quantities = balance.quantities(readings, readouts.final)
        pieces.append(
            {
                name: quantities[name].cpu().numpy().astype(plan.dtype)
                for name in plan.measured_variables
                if name in quantities
            }
        )
        _require_sound(plan, indices, pieces[-1], float(readings.clean_error), _numpy(off), _numpy(allowed))
        worst = np.maximum(worst, _numpy(off).max((0, 2, 3)))
    measured = {name: _concat(pieces, name, plan.measured_variables[name], "ablated") for name in pieces[0]}
    return measured | {"imbalance": worst.astype(plan.dtype), "patch_prompt": patches.sources}


def _numpy(values: torch.Tensor) -> np.ndarray:
    return np.asarray(values.double().cpu())


def _require_sound(
    plan: Plan,
    indices: Sequence[int],
    measured: dict[str, np.ndarray],
    clean_error: float,
    off: np.ndarray,
    allowed: np.ndarray,
) -> None:
    """That all is finite, and the clean run and the balance, `[readout, prompt, run, patch]`, are off by rounding."""
    for name, values in measured.items():
        by_prompt = np.moveaxis(values, plan.measured_variables[name].index("prompt"), 0).reshape(len(indices), -1)
        bad = np.flatnonzero(~np.isfinite(by_prompt).all(1))
        if len(bad) and not name.startswith("metric"):
            raise HydrascopeError(
                f"{name} of {plan.prompt_label(indices[bad[0]])} is not finite: the model overflows; take a wider dtype"
            )
    # Comparisons so that a NaN fails.
    if not clean_error <= allowed.max():
        raise HydrascopeError(
            f"the {plan.engine.name} engine does not reproduce the clean run: off by {clean_error:.2g}, rounding "
            f"explains {allowed.max():.2g}; take a wider dtype or the reference engine"
        )
    worst = np.unravel_index((off / allowed).argmax(), off.shape)
    readout, prompt = int(worst[0]), int(worst[1])
    if not off[worst] <= allowed[worst]:
        raise HydrascopeError(
            f"total effects of {plan.prompt_label(indices[prompt])} on {plan.labels[readout]} and their parts do not "
            f"balance: off by {off[worst]:.2g}, rounding explains {allowed[worst]:.2g}; take a wider dtype, or see "
            "hydrascope check"
        )
