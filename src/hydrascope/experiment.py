"""The paper's protocol from start to end: every component ablated on every prompt by every patch.

Prompts are measured in blocks, in their order; a block is cut into batches of prompts of similar length. Which
prompts share a batch follows from the prompt set and the batch size alone, so that a run that was interrupted goes
on to the very numbers that it would have given.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr

from hydrascope import books, store
from hydrascope.ablation import Ablation, Resample, draw
from hydrascope.engines import Effects, Request, sweep_plan
from hydrascope.errors import HydrascopeError
from hydrascope.memory import within_memory
from hydrascope.model import LanguageModel
from hydrascope.plan import Clean, Plan, Target, clean_runs, known, planned
from hydrascope.progress import bar
from hydrascope.prompts import Prompt, PromptSet

#: A block is this many batches: enough to sort by length, little to lose when a run is killed.
BATCHES_PER_BLOCK = 4


def sweep(
    model: LanguageModel,
    prompts: PromptSet | Iterable[str | Prompt],
    ablation: Ablation | None = None,
    *,
    norm: books.Norm = "clean",
    target: Target = "argmax",
    engine: str = "auto",
    batch_size: int | Literal["auto"] = "auto",
    progress: bool = False,
) -> xr.Dataset:
    """Ablate every component of `model` on every prompt and measure all effects, in memory.

    Args:
        model: what is ablated.
        prompts: texts, or a set from `load_prompts`.
        ablation: what ablated components write instead; by default `Resample()`, 15 patches from other prompts.
        norm: at which σ ablated runs are read: the `clean` run's, or each `run`'s own.
        target: whose logit is read: the most likely token's (`argmax`), or the `answer`'s.
        engine: `wavefront`, `reference`, or `auto`: the fastest that carries the model.
        batch_size: how many prompts at a time; `auto` takes what memory allows. Halved when memory runs out.
        progress: show a bar when standard error is a terminal.

    Returns:
        The variables of `hydrascope.store.MEASURED`, in logits; `target` `[prompt]`, the token id; `downstream`
        `[ablated, component]`; and attributes that say how all was made.

    Raises:
        HydrascopeError: an option or a prompt is wrong, or the books don't balance.
    """
    plan = planned(model, prompts, ablation or Resample(), norm, target, engine)
    size = plan.batch_size(batch_size)
    clean = clean_runs(plan, size)
    blocks = list(_blocks(plan, clean, 0, size * BATCHES_PER_BLOCK, size, progress))
    measured = xr.concat([block.dataset for block in blocks], dim="prompt")
    result = known(plan, clean)
    return result.merge(measured).assign_attrs(
        result.attrs,
        format=store.FORMAT,
        measured=measured.sizes["prompt"],
        block_size=size * BATCHES_PER_BLOCK,
        batch_size=blocks[-1].batch_size,
        worst_imbalance=float(measured["imbalance"].max()),
    )


def run(
    model: LanguageModel,
    prompts: PromptSet | Iterable[str | Prompt],
    ablation: Ablation | None = None,
    *,
    out: str | Path,
    resume: bool = False,
    overwrite: bool = False,
    norm: books.Norm = "clean",
    target: Target = "argmax",
    engine: str = "auto",
    batch_size: int | Literal["auto"] = "auto",
    progress: bool = False,
) -> Path:
    """As `sweep`, but write the result to the folder `out`, a block of prompts at a time.

    Whatever ends the run, the blocks that are written stay. `resume` goes on to the result that the uninterrupted
    run would have given, to the bit where the machine and the number of threads are the same; a `batch_size` other
    than `auto` may then differ from the one at the start, and changes the rounding. `open_results` opens `out`.

    Args:
        out: the result's folder.
        resume: go on with the result at `out`; start it where there is none.
        overwrite: delete the result at `out` and start again.

    Returns:
        `out`.

    Raises:
        HydrascopeError: as `sweep`; or `out` can't be written, is no result, or is one and neither `resume` nor
            `overwrite` is asked for, or was made with other options.
    """
    out = Path(out)
    refuse_existing(out, resume=resume, overwrite=overwrite)
    plan = planned(model, prompts, ablation or Resample(), norm, target, engine)
    if resume and out.exists():
        before = store.read_attributes(out)
        _refuse_differences(out, before, plan)
        start, block_size, worst = before["measured"], before["block_size"], before["worst_imbalance"]
        size = before["batch_size"] if batch_size == "auto" else plan.batch_size(batch_size)
        if start == len(plan.tokens):
            return out
        clean = clean_runs(plan, block_size // BATCHES_PER_BLOCK)
    else:
        size = plan.batch_size(batch_size)
        start, block_size, worst = 0, size * BATCHES_PER_BLOCK, 0.0
        clean = clean_runs(plan, size)
        so_far = {"block_size": block_size, "batch_size": size, "worst_imbalance": worst}
        result = known(plan, clean).assign_attrs(so_far)
        store.create(out, result, clean.patches, plan.stored, block_size, overwrite=overwrite)
    for block in _blocks(plan, clean, start, block_size, size, progress):
        worst = max(worst, float(block.dataset["imbalance"].max()))
        store.write(out, block.start, block.dataset, {"worst_imbalance": worst, "batch_size": block.batch_size})
    return out


def refuse_existing(out: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse to touch what is at `out` unless it is a result and one of the options says what to do with it.

    Raises:
        HydrascopeError: it isn't, or neither does, or both do.
    """
    if resume and overwrite:
        raise HydrascopeError("--resume and --overwrite exclude each other: give one of them")
    if not out.exists():
        return
    try:
        attributes = store.read_attributes(out)
    except HydrascopeError as error:
        raise HydrascopeError(f"{out} exists and is no hydrascope result: choose another --out") from error
    if not (resume or overwrite):
        raise HydrascopeError(
            f"{out} exists ({attributes['measured']:,} of {attributes['prompt_count']:,} prompts measured): go on with "
            "--resume, start again with --overwrite, or choose another --out"
        )


@dataclass(frozen=True)
class _Block:
    """The measured prompts from `start` on, and the batch size that memory allowed last."""

    start: int
    dataset: xr.Dataset
    batch_size: int


def _refuse_differences(out: Path, before: dict[str, Any], plan: Plan) -> None:
    settings = plan.settings()
    # Names may change where a hash says that what they name is the same.
    names = {"prompts", "model"} if settings["revision"] else {"prompts"}
    differences = [
        f"{key} was {before.get(key)!r}, now {value!r}"
        for key, value in settings.items()
        if key not in names and before.get(key) != value
    ]
    if differences:
        raise HydrascopeError(
            f"cannot resume {out}: {'; '.join(differences)}: give the options of its start, another --out, "
            "or --overwrite"
        )


def _blocks(plan: Plan, clean: Clean, start: int, block_size: int, batch_size: int, progress: bool) -> Iterator[_Block]:
    """Measure the prompts from `start` on, a block at a time."""
    with bar(len(plan.tokens), start, progress) as advance:
        for first in range(start, len(plan.tokens), block_size):
            block = range(first, min(first + block_size, len(plan.tokens)))
            remaining = sorted(block, key=lambda index: len(plan.tokens[index]))
            order, batches = np.argsort(remaining), []
            while remaining:
                tried = min(batch_size, len(remaining))
                batch, fitted = within_memory(partial(_measured, plan, clean, remaining), tried)
                batch_size = batch_size if fitted == tried else fitted
                batches.append(batch)
                remaining = remaining[fitted:]
                advance(fitted)
            variables = {
                name: (dims, np.concatenate([batch[name] for batch in batches])[order])
                for name, dims in store.MEASURED.items()
            }
            yield _Block(first, xr.Dataset(variables), batch_size)


def _measured(plan: Plan, clean: Clean, remaining: Sequence[int], count: int) -> dict[str, np.ndarray]:
    """The `MEASURED` variables of one batch: the first `count` of the prompts `remaining`, in that order.

    Raises:
        HydrascopeError: the model's numbers aren't finite, the engine's two ways to the clean run differ, or the
            books don't balance.
    """
    indices = remaining[:count]
    patches = draw(plan.ablation, plan.model, clean.bank, plan.tokens, clean.targets, indices)
    request = Request(
        [plan.tokens[index] for index in indices],
        torch.tensor([clean.targets[index] for index in indices]),
        sweep_plan(plan.model.components, clean.patches),
        patches.values,
    )
    effects = plan.engine.measure(plan.model, request)
    measured = {
        name: value.numpy().astype(plan.stored)
        for name, value in books.quantities(effects, plan.downstream, plan.norm).items()
    }
    measured["imbalance"] = books.imbalance(measured, plan.downstream.numpy()).astype(plan.stored)
    _require_sound(plan, indices, measured, effects)
    return measured | {"patch_prompt": patches.sources}


def _require_sound(plan: Plan, indices: Sequence[int], measured: dict[str, np.ndarray], effects: Effects) -> None:
    for name, values in measured.items():
        bad = np.flatnonzero(~np.isfinite(values).reshape(len(indices), -1).all(1))
        if len(bad):
            raise HydrascopeError(
                f"{name} of {plan.called(indices[bad[0]])} is not finite: the model overflows; take a wider --dtype"
            )
    size = books.size(effects)
    allowed = books.TOLERANCE[plan.model.dtype] * size
    # Comparisons so that a NaN fails.
    if not effects.clean_error <= allowed.max():
        raise HydrascopeError(
            f"the {plan.engine.name} engine does not reproduce the clean run: off by {effects.clean_error:.2g} logits, "
            f"rounding explains {allowed.max():.2g}; take a wider --dtype or --engine reference"
        )
    off = np.maximum(measured["imbalance"], books.rescaling_error(effects))
    worst = int((off / allowed).argmax())
    if not off[worst] <= allowed[worst]:
        raise HydrascopeError(
            f"the books of {plan.called(indices[worst])} do not balance: off by {off[worst]:.2g} logits, "
            f"rounding explains {allowed[worst]:.2g}; take a wider --dtype, or see hydrascope check"
        )
