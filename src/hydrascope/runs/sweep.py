"""Ablate components on every prompt and measure all effects, in memory or on disk."""

import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Unpack, overload

import numpy as np
import xarray as xr

from hydrascope.ablations.ablation import Ablation
from hydrascope.components.experiments import Experiment
from hydrascope.components.selection import Selection
from hydrascope.engines.kernels.differences import Products
from hydrascope.loading.any_model import takes_any_model
from hydrascope.models.language_model import LanguageModel
from hydrascope.prompts.positions import At
from hydrascope.prompts.prompt import AnyPrompts
from hydrascope.runs import start
from hydrascope.runs.assemble import assemble, batch_attributes, chunk_attributes, initial_dataset, measured_variables
from hydrascope.runs.batch_check import CHECKED, MeasuredAlone, check_after, excess, measure_alone, most_mixed
from hydrascope.runs.batches import BATCHES_PER_CHUNK, compute_clean_activations, measure_chunks
from hydrascope.runs.config import (
    TARGET_LOGIT,
    BatchSize,
    Keep,
    Metrics,
    Output,
    Readouts,
    StoredSweepOptions,
    SweepConfig,
    SweepOptions,
    Target,
)
from hydrascope.runs.plan import Plan, make_plan
from hydrascope.storage import checksums, reader
from hydrascope.storage.coordination import join_workers
from hydrascope.storage.paths import require_room, resolve_path
from hydrascope.storage.staging import lock, recover_staging, require_only_ours
from hydrascope.utils.errors import HydrascopeError, HydrascopeWarning
from hydrascope.utils.progress import show_progress

#: A loaded model, or an object that `load_model` takes.
AnyModel = LanguageModel | Any
Say = Callable[[str], object]


@overload
def sweep(
    model: AnyModel,
    prompts: AnyPrompts,
    ablation: Ablation | None = None,
    *,
    out: None = None,
    batch_size: BatchSize = "auto",
    progress: bool = False,
    **options: Unpack[SweepOptions],
) -> xr.Dataset: ...


@overload
def sweep(
    model: AnyModel,
    prompts: AnyPrompts,
    ablation: Ablation | None = None,
    *,
    out: str | Path,
    batch_size: BatchSize = "auto",
    progress: bool = False,
    say: Say | None = None,
    **options: Unpack[StoredSweepOptions],
) -> xr.Dataset: ...


@takes_any_model
def sweep(
    model: LanguageModel,
    prompts: AnyPrompts,
    ablation: Ablation | None = None,
    *,
    ablate: Selection | Experiment = "layers",
    read: Selection = "layers",
    at: At = "last",
    readouts: Readouts = TARGET_LOGIT,
    metrics: Metrics = (),
    target: Target = "argmax",
    keep: Keep = "auto",
    engine: str = "auto",
    products: Products = "float32",
    batch_size: BatchSize = "auto",
    out: str | Path | None = None,
    resume: bool = False,
    join: bool = False,
    elsewhere: bool = False,
    overwrite: bool = False,
    progress: bool = False,
    say: Say | None = None,
) -> xr.Dataset:
    """Ablate components of `model` on every prompt and measure all effects.

        >>> hs.sweep(model, hs.load_prompts("ioi").limit(200), hs.Counterfactual(), ablate="heads", read="heads,mlp",
        ...          readouts=[hs.LogitDifference()], metrics=["kl"])                          # doctest: +SKIP
        >>> hs.sweep(model, hs.load_prompts("counterfact"), out="gpt2.zarr", ablate="heads")   # doctest: +SKIP

    Without `out` everything is measured in memory. With `out` the result is written to a folder, a chunk of prompts at
    a time: whatever ends the run, the chunks that are written stay. `resume` continues it to the result that the
    uninterrupted run would have given, to the bit, and measures damaged chunks again. With `join` any number of
    processes, of several GPUs or of machines that share a folder, measure one result: each takes a chunk that nobody
    has; they may come and go, and all end with the same result, to the bit.

    Args:
        model: the model.
        prompts: a set from `load_prompts`, or texts, `Prompt`s, lists of token ids; a single text is one prompt.
        ablation: what ablated components write instead; by default `Resample()`, 15 patches from other prompts.
        ablate: components ablated one by one: `layers` (all sublayers), `attn`, `mlp`, `heads`, `heads.9`,
            `neurons.5`, single ones; several at once, `attn.3+mlp.5` (both ablated), `attn.3|mlp.5` (the second frozen
            at its clean activation); or an experiment, `Mediation` or `Interactions`.
        read: components read besides all sublayers, selected alike.
        at: the positions of ablations: `last`, `all`, `subject`, `subject-last`, a number, or several.
        readouts: readouts of the residual stream, each with a `readout` of its own in the result.
        metrics: functions of the logits: `log_prob`, `prob`, `rank`, `kl`, `fisher`, `top`, or your own
            (`engines.metrics`); and `answer_log_prob`, of the whole answer, which takes a second pass.
        target: the token of `Logit()` and of metrics: the likeliest (`argmax`), the `answer`'s, or an id.
        keep: what is kept of the writes in ablated rows: nothing (`effects`), `means` over patches, or each patch as
            well (`patches`); `auto` keeps patches of sublayers up to 4 GiB, and effects alone of `Interactions`.
        engine: `wavefront`, `reference`, or `auto`, the fastest that supports the model.
        products: `float32`, or `bfloat16-differences`: the wavefront engine multiplies each row's difference from the
            clean run in bfloat16, faster on many processors and nearly as exact (`docs/quantities.md`).
        batch_size: prompts measured at a time; `auto` takes what memory allows. Halved when memory runs out. With
            `resume`, a number other than that of the start changes the rounding.
        out: the result's folder; `~` is the user's home, and a link stands for its target.
        resume: continue the result at `out`; start it where there is none.
        join: the same, together with other processes that `join`.
        elsewhere: resume on another kind of machine, or with another number of threads, where rounding differs.
        overwrite: start again, and delete the result at `out` once its successor stands; refused where the folder
            holds files that hydrascope didn't write.
        progress: show progress on standard error: a bar on a terminal, a line every half minute elsewhere.
        say: takes each line about the prompts and the measurement; by default notices are warnings.

    Returns:
        The variables of `hydrascope.storage.schema`: effects `[readout, prompt, ablated, …]` in the readouts' units,
        metrics, target tokens, `downstream`; and attributes that say how all was made. With `out`, as `open_results`.

    Raises:
        HydrascopeError: an option or a prompt is wrong, or total effects and their parts don't balance; or `out` can't
            be written, is no result, or holds a result that was made with other options, or is being written.
    """
    config = SweepConfig(ablate, read, at, readouts, metrics, target, keep, engine, products)
    if out is None:
        if resume or join or elsewhere or overwrite:
            raise HydrascopeError("resume, join, elsewhere and overwrite are for a result on disk: give out as well")
        plan = make_plan(model, prompts, ablation, config)
        tell([*plan.notices, *plan.dictionary_notices], say)
        return _measure_in_memory(plan, batch_size, progress, say)
    output = Output(resolve_path(out), resume, join, elsewhere, overwrite)
    recover_staging(output.path)
    refuse_existing(output)
    plan = make_plan(model, prompts, ablation, config)
    tell(plan.describe if say else [*plan.notices, *plan.dictionary_notices], say)
    _measure_to_disk(plan, output, batch_size, progress, say)
    return reader.open_results(output.path)


def tell(lines: Iterable[str], say: Say | None) -> None:
    """Hand lines to `say`; warn of each where there is none."""
    for line in lines:
        if say is None:
            warnings.warn(line, HydrascopeWarning, stacklevel=4)
        else:
            say(line)


def _measure_in_memory(plan: Plan, batch_size: BatchSize, progress: bool, say: Say | None) -> xr.Dataset:
    batch = plan.batch(batch_size)
    size = batch.prompts * BATCHES_PER_CHUNK
    chunks = reader.split_range(len(plan.tokens), size)
    clean = compute_clean_activations(plan, batch, chunks, chunks)
    alone = measure_alone(plan, clean, most_mixed(plan, chunks, batch.prompts))
    exact = start.exactness(plan, clean, alone)
    with show_progress(len(plan.tokens), 0, progress) as advance:
        done = list(measure_chunks(plan, clean, chunks, batch, advance))
    measured = measured_variables(plan, done)

    def stored(index: int) -> dict[str, np.ndarray]:
        return {name: values.take(index, dims.index("prompt")) for name, (dims, values) in measured.items()}

    checked, warning = _check_finished(plan, alone, stored, exact)
    tell([warning] if warning else [], say)
    attributes = {**exact, **checked, **batch_attributes(size, done[-1].batch)}
    return assemble(initial_dataset(plan, clean), measured, attributes)


def _measure_to_disk(plan: Plan, output: Output, batch_size: BatchSize, progress: bool, say: Say | None) -> None:
    with ExitStack() as stack:
        workers = stack.enter_context(join_workers(output.path)) if output.join else None
        session = start.start(output, plan, batch_size, workers)
        if session is None:
            return
        plan, result = session.plan, session.result
        stack.enter_context(result)
        size, count = result.attributes["chunk_size"], len(plan.tokens)
        with show_progress(count, count - sum(map(len, result.unmeasured)), progress) as advance:
            # Prompts whose clean pass was made here are measured first: their prefixes are kept.
            chunks = result.chunks(advance, {prompts[0] for prompts in session.clean.prefixes.prompts})
            for chunk in measure_chunks(plan, session.clean, chunks, session.batch, advance):
                variables = {name: (plan.measured_variables[name], values) for name, values in chunk.measured.items()}
                result.write(chunk.start, xr.Dataset(variables), chunk_attributes(plan, size, chunk))
        if result.is_complete:
            stored = partial(_stored_numbers, output.path)
            checked, warning = _check_finished(plan, session.alone, stored, result.attributes)
            result.add(checked)
            tell([warning] if warning else [], say)


def _stored_numbers(out: Path, index: int) -> dict[str, np.ndarray]:
    """Return one prompt's numbers in the result at `out`, for `check_after`."""
    results = reader.open_results(out).isel(prompt=index)
    return {name: results[name].values for name in CHECKED if name in results}


def _check_finished(
    plan: Plan, alone: MeasuredAlone, stored: Callable[[int], Mapping[str, np.ndarray]], before: Mapping[str, Any]
) -> tuple[dict[str, float], str]:
    """Return `batch_difference` and its tolerance of a finished result, and a warning."""
    after = check_after(plan, alone, stored, before)
    worse = after.excess > excess(before["batch_difference"], before["batch_tolerance"])
    attributes = after.attributes if worse else {name: before[name] for name in after.attributes}
    return attributes, "" if after.passed else f"{after.sentence}: don't trust them"


def refuse_existing(output: Output) -> None:
    """Refuse an existing path unless it is a result and an option says what to do with it.

    Raises:
        HydrascopeError: it isn't, or no option does, or another run writes to it; or it is to be overwritten and holds
            more than a result; or nothing can be made there.
    """
    out = output.path
    if output.overwrite or not out.exists():
        require_room(out)
    if not out.exists():
        return
    try:
        attributes = reader.read_attributes(out)
    except reader.UnreadableError:
        if not output.overwrite:
            raise
    except reader.NoResultError as error:
        raise HydrascopeError(f"{out} exists and is no hydrascope result: choose another place") from error
    else:
        if not (output.resume or output.join or output.overwrite):
            raise HydrascopeError(
                f"{out} exists ({attributes['measured']:,} of {attributes['prompt_count']:,} prompts measured): go on "
                "with resume, start again with overwrite, or choose another place"
            )
    if output.overwrite:
        require_only_ours(out)
    if held := lock(out, checksums.KNOWN_FILES, shared=output.join):
        held.close()
