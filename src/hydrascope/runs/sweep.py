"""A run from start to end: what is selected ablated on every prompt by every patch, in memory or into a result."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr

from hydrascope.ablations.ablation import Ablation
from hydrascope.components.experiments import Experiment
from hydrascope.components.selection import Selection
from hydrascope.engines.kernels import hardware
from hydrascope.engines.metrics import MetricFunction
from hydrascope.engines.readouts import Readout
from hydrascope.models.language_model import LanguageModel
from hydrascope.prompts.positions import At
from hydrascope.prompts.prompt import AnyPrompts
from hydrascope.runs import start
from hydrascope.runs.attrs import initial_dataset
from hydrascope.runs.batch_check import EFFECTS, MeasuredAlone, check_after, measure_alone, most_mixed
from hydrascope.runs.batches import BATCHES_PER_CHUNK, compute_clean_activations, measure_chunks
from hydrascope.runs.config import TARGET_LOGIT, Keep, Target
from hydrascope.runs.plan import Plan, make_plan
from hydrascope.runs.start import exactness, sizes
from hydrascope.storage import checksums, reader
from hydrascope.storage.coordination import join_workers
from hydrascope.storage.paths import require_room, resolve_path
from hydrascope.storage.schema import FORMAT, add_units
from hydrascope.storage.staging import lock, recover_staging, require_only_ours
from hydrascope.utils.errors import HydrascopeError
from hydrascope.utils.progress import show_progress


def sweep(
    model: LanguageModel,
    prompts: AnyPrompts,
    ablation: Ablation | None = None,
    *,
    ablate: Selection | Experiment = "layers",
    read: Selection = "layers",
    at: At = "last",
    readouts: Readout | Sequence[Readout] = TARGET_LOGIT,
    metrics: str | MetricFunction | Sequence[str | MetricFunction] = (),
    target: Target = "argmax",
    keep: Keep = "auto",
    engine: str = "auto",
    batch_size: int | Literal["auto"] = "auto",
    progress: bool = False,
) -> xr.Dataset:
    """Ablate parts of `model` on every prompt and measure all effects, in memory.

        >>> hs.sweep(model, hs.load_prompts("ioi").limit(200), hs.Counterfactual(), ablate="heads", read="heads,mlp",
        ...          readouts=[hs.LogitDifference()], metrics=["kl"])                # doctest: +SKIP

    Args:
        model: what is ablated.
        prompts: a set from `load_prompts`, or texts, `Prompt`s, lists of token ids; a single text is one prompt.
        ablation: what ablated components write instead; by default `Resample()`, 15 patches from other prompts.
        ablate: what is ablated, one by one: `layers`, `attn`, `mlp`, `heads`, `heads.9`, `neurons.5`, single parts, and
            runs of several, `attn.3+mlp.5` (both ablated), `attn.3|mlp.5` (the second frozen at its clean values); or
            an experiment, `Mediation` or `Interactions`.
        read: what is read besides all layers, selected alike.
        at: where components are ablated: `last`, `all`, `subject`, `subject-last`, a position, or several.
        readouts: what is read off the residual stream, each with a `readout` of its own in the result.
        metrics: functions of the logits: `log_prob`, `prob`, `rank`, `kl`, `top`, or your own (`engines.metrics`).
        target: the token that `Logit()` and metrics are about: the likeliest (`argmax`), the `answer`'s, or an id.
        keep: what is kept of what components write in ablated runs: nothing (`effects`), `means` over patches, or each
            patch besides (`patches`); `auto` keeps patches for layers up to 4 GiB, and effects alone of `Interactions`.
        engine: `wavefront`, `reference`, or `auto`: the fastest that carries the model.
        batch_size: how many prompts at a time; `auto` takes what memory allows. Halved when memory runs out.
        progress: show on standard error how far it is: a bar on a terminal, a line every half a minute elsewhere.

    Returns:
        The variables of `hydrascope.storage.schema`: effects `[readout, prompt, ablated, …]` in the readouts' units,
        metrics, the target token, what is downstream of what; and attributes that say how all was made.

    Raises:
        HydrascopeError: an option or a prompt is wrong, or total effects and their parts don't balance.
    """
    plan = make_plan(
        model,
        prompts,
        ablation,
        ablate=ablate,
        read=read,
        at=at,
        readouts=readouts,
        metrics=metrics,
        target=target,
        keep=keep,
        engine=engine,
    )
    for note in plan.notices:
        warnings.warn(note, stacklevel=2)
    batch = plan.batch(batch_size)
    size = batch.prompts * BATCHES_PER_CHUNK
    every = reader.split_range(len(plan.tokens), size)
    clean = compute_clean_activations(plan, batch, every, every)
    alone = measure_alone(plan, clean, most_mixed(plan, every, batch.prompts))
    sound = exactness(plan, clean, alone)
    with show_progress(len(plan.tokens), 0, progress) as advance:
        chunks = list(measure_chunks(plan, clean, every, batch, advance))
    measured = {
        name: (dims, np.concatenate([chunk.measured[name] for chunk in chunks], dims.index("prompt")))
        for name, dims in plan.measured_variables.items()
    }

    def stored(index: int) -> dict[str, np.ndarray]:
        return {name: values.take(index, dims.index("prompt")) for name, (dims, values) in measured.items()}

    again, said = _check_finished(plan, alone, stored, sound)
    if said:
        warnings.warn(said, stacklevel=2)
    result = initial_dataset(plan, clean).assign(measured).assign_attrs({**sound, **again})
    return add_units(result, result.attrs["units"]).assign_attrs(
        format=FORMAT,
        measured=len(plan.tokens),
        **sizes(size, chunks[-1].batch),
        worst_imbalance=float(measured["imbalance"][1].max()),
    )


def run(
    model: LanguageModel,
    prompts: AnyPrompts,
    ablation: Ablation | None = None,
    *,
    out: str | Path,
    resume: bool = False,
    join: bool = False,
    elsewhere: bool = False,
    overwrite: bool = False,
    ablate: Selection | Experiment = "layers",
    read: Selection = "layers",
    at: At = "last",
    readouts: Readout | Sequence[Readout] = TARGET_LOGIT,
    metrics: str | MetricFunction | Sequence[str | MetricFunction] = (),
    target: Target = "argmax",
    keep: Keep = "auto",
    engine: str = "auto",
    batch_size: int | Literal["auto"] = "auto",
    progress: bool = False,
    say: Callable[[str], object] = lambda line: None,
) -> Path:
    """As `sweep`, but write the result to the folder `out`, a block of prompts at a time.

    Whatever ends the run, the blocks that are written stay. `resume` goes on to the result that the uninterrupted
    run would have given, to the bit, and measures blocks that were damaged since once more: on another kind of
    machine, or with another number of threads, where rounding differs, only if asked for by `elsewhere`. A
    `batch_size` other than `auto` may then differ from the one at the start, and changes the rounding. `open_results`
    opens `out`.

    With `join` any number of processes measure one result, of several GPUs or machines that share a folder: each takes
    a block that nobody has, until all are measured, and all end with the result that one would have given, to the bit.
    They may come and go; the block of one that dies is another's. Prompts are run clean by the first alone.

        >>> hs.run(model, hs.load_prompts("counterfact"), out="gpt2.zarr", ablate="heads")   # doctest: +SKIP

    Args:
        out: the result's folder; `~` is the user's home, and a link stands for what it points to.
        resume: go on with the result at `out`; start it where there is none.
        join: the same, together with other processes that do so with `join`.
        elsewhere: resume on another kind of machine, or with another number of threads, than the run was started on.
        overwrite: start again, and delete the result at `out` once its successor stands; refused where it holds
            files that hydrascope didn't write.
        say: is told what is measured, in a line or two, before it starts.

    Returns:
        `out`, expanded.

    Raises:
        HydrascopeError: as `sweep`; or `out` can't be written, is no result, or is one and neither `resume` nor
            `overwrite` is asked for, or was made with other options, or on another kind of machine, or another run
            writes to it; or there are no locks on files, by which to share work.
    """
    out = resolve_path(out)
    recover_staging(out)
    refuse_existing(out, resume=resume, join=join, overwrite=overwrite)
    plan = make_plan(
        model,
        prompts,
        ablation,
        ablate=ablate,
        read=read,
        at=at,
        readouts=readouts,
        metrics=metrics,
        target=target,
        keep=keep,
        engine=engine,
    )
    for line in plan.describe:
        say(line)
    with ExitStack() as held:
        if join:
            begun = start.join(out, plan, batch_size, held.enter_context(join_workers(out)), elsewhere=elsewhere)
        elif resume and out.exists():
            begun = start.resume(out, plan, batch_size, elsewhere=elsewhere)
        else:
            begun = start.start_new(out, plan, batch_size, overwrite=overwrite)
        if begun is None:
            return out
        held.enter_context(begun.result)
        left = sum(map(len, begun.result.unmeasured))
        with show_progress(len(plan.tokens), len(plan.tokens) - left, progress) as advance:
            # What was kept of prompts that were run clean here saves running them again.
            chunks = begun.result.chunks(advance, {prompts[0] for prompts in begun.clean.prefixes})
            for chunk in measure_chunks(begun.plan, begun.clean, chunks, begun.batch, advance):
                variables = {name: (plan.measured_variables[name], values) for name, values in chunk.measured.items()}
                how = {
                    "worst_imbalance": float(chunk.measured["imbalance"].max()),
                    **sizes(begun.result.attributes["block_size"], chunk.batch),
                    "machines": [hardware.kind(model.device)],
                    "routines": dict(begun.plan.routines),
                }
                begun.result.write(chunk.start, xr.Dataset(variables), how)
        if begun.result.is_complete:
            again, said = _check_finished(
                begun.plan, begun.alone, partial(_stored_numbers, out), begun.result.attributes
            )
            begun.result.add(again)
            if said:
                say(said)
    return out


def _stored_numbers(out: Path, index: int) -> dict[str, np.ndarray]:
    """Return what the result at `out` has of one prompt, as `check_after` compares it."""
    results = reader.open_results(out).isel(prompt=index)
    return {name: results[name].values for name in (*EFFECTS, "logit")}


def _check_finished(
    plan: Plan, alone: MeasuredAlone, stored: Callable[[int], Mapping[str, np.ndarray]], before: Mapping[str, Any]
) -> tuple[dict[str, float], str]:
    """Return `batch_difference` and its tolerance, now that all is measured, and a warning if that is too much."""
    after = check_after(plan, alone, stored, before)
    worse = after.excess > before["batch_difference"] / before["batch_tolerance"]
    attributes = after.attributes if worse else {name: before[name] for name in after.attributes}
    return attributes, "" if after.passed else f"{after.sentence}: don't trust them"


def refuse_existing(out: Path, *, resume: bool, overwrite: bool, join: bool = False) -> None:
    """Refuse to touch what is at `out` unless it is a result and one of the options says what to do with it.

    Raises:
        HydrascopeError: it isn't, or neither does, or both do, or another run writes to it; or it is to be
            overwritten and holds more than a result; or nothing can be made there.
    """
    if overwrite and (resume or join):
        raise HydrascopeError(f"{'join' if join else 'resume'} and overwrite exclude each other: ask for one of them")
    if overwrite or not out.exists():
        require_room(out)
    if not out.exists():
        return
    try:
        attributes = reader.read_attributes(out)
    except reader.UnreadableError:
        if not overwrite:
            raise
    except reader.NoResultError as error:
        raise HydrascopeError(f"{out} exists and is no hydrascope result: choose another place") from error
    else:
        if not (resume or join or overwrite):
            raise HydrascopeError(
                f"{out} exists ({attributes['measured']:,} of {attributes['prompt_count']:,} prompts measured): go on "
                "with resume, start again with overwrite, or choose another place"
            )
    if overwrite:
        require_only_ours(out)
    if held := lock(out, checksums.KNOWN_FILES, shared=join):
        held.close()
