"""Measure edges: the exact effect of a component's change on what another one reads.

With component u ablated, the residual stream that v reads changes by δ_u at the ablated positions. The edge u → v is
the effect of v reading the clean stream plus δ_u while nothing else sees it; v and all downstream of it are recomputed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Unpack

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from hydrascope.ablations.ablation import Ablation, Resample
from hydrascope.analyses.edge_changes import source_changes
from hydrascope.analyses.edge_slopes import edge_slopes, integrated_slopes, require_other_prompts
from hydrascope.components.component import LOGITS, Component, Override
from hydrascope.components.edge import EMBED, EVERYTHING, Edge, Reader, exists, parse_reader, source_label
from hydrascope.components.selection import refuse_terms, select_components, select_mediators
from hydrascope.engines import balance
from hydrascope.engines.clean.activations import CleanActivations
from hydrascope.engines.edges import EdgeReadings, EdgeRequest
from hydrascope.engines.readouts import Readouts
from hydrascope.engines.reference import edges as reference
from hydrascope.engines.wavefront import edges as wavefront
from hydrascope.loading.any_model import takes_any_model
from hydrascope.models.batching import first_batch
from hydrascope.models.language_model import LanguageModel
from hydrascope.prompts.prompt import AnyPrompts
from hydrascope.runs.assemble import initial_dataset
from hydrascope.runs.batches import compute_clean_activations
from hydrascope.runs.config import BatchSize, ExperimentOptions, SweepConfig
from hydrascope.runs.plan import Plan, make_plan
from hydrascope.runs.sweep import tell
from hydrascope.utils.errors import HydrascopeError
from hydrascope.utils.progress import show_progress

#: The floats that the rows of one batch may hold at the widest place of a block.
_FLOATS = 2**28

_MEASURE = {"wavefront": wavefront.measure_edges, "reference": reference.measure_edges}
_WORDS = {"queries": "query", "keys": "key", "values": "value"}


@takes_any_model
def edges(
    model: LanguageModel,
    prompts: AnyPrompts,
    ablation: Ablation | None = None,
    *,
    sources: str | Sequence[str] = "embed,layers",
    readers: str | Sequence[str] = "layers,logits",
    slopes: bool = True,
    integrated: bool = False,
    **options: Unpack[ExperimentOptions],
) -> xr.Dataset:
    """Measure the exact effect of every edge between components, and its linear estimate.

        >>> found = hs.analyses.edges(model, prompts, hs.Zero())
        >>> found["edge"].dims
        ('readout', 'prompt', 'source', 'reader')

    Args:
        model: the model.
        prompts: as for `sweep`.
        ablation: the change of sources, as for `sweep`; by default `Resample(1)`, since there are many edges.
        sources: the components that change: `embed` (the token embeddings), and sublayers and heads, selected as for
            `sweep`.
        readers: the components that read the change: sublayers; inputs of heads, `query.9.6`, `keys.9`, …; inputs that
            heads of a group share, `group.9.2.key`; and `logits`, the final norm.
        slopes: whether to estimate edges to sublayers and logits by their slopes (EAP), which takes gradients.
        integrated: whether to estimate them by slopes averaged between the embeddings of the patch and the prompt's own
            (EAP-IG, inputs), too. All positions must be ablated, by other prompts.
        options: as for `sweep`.

    Returns:
        in the readouts' units, means over patches; `exists` [source, reader] says which edges there are, others are 0:

        - `edge` [readout, prompt, source, reader]: the effect of the edge;
        - `total` [readout, prompt, source]: the effect of all edges out of a source at once, its total effect;
        - `edge_remainder` [readout, prompt, source]: Σ over readers of `edge` − `total`, if the readers are all
          sublayers and the logits: edges need not add up;
        - `eap` [readout, prompt, source, reader]: ⟨δ, slope⟩ at the clean pass; NaN for inputs of heads;
        - `eap_ig`, the same with averaged slopes, and `completeness` [readout], if `embed` is a source: the sum of its
          `eap_ig` over all readers, divided by its `total`;
        - `metric_edge` [metric, prompt, source, reader]: metrics with the edge minus those of the clean pass;
        - `imbalance` [prompt]: the largest difference between an effect and its terms.

    Raises:
        HydrascopeError: a source or reader is unknown, no edge exists, edges and their terms don't balance, or as
            `sweep`.
    """
    writing, ablation = _sources(model, sources), Resample(1) if ablation is None else ablation
    chosen = {name: value for name, value in options.items() if name not in ("batch_size", "progress")}
    plan = _plan(model, prompts, ablation, writing, SweepConfig(**chosen))  # type: ignore[arg-type]
    reading = _readers(model, readers)
    found = [Edge(source, reader) for source in writing for reader in reading]
    present = [edge for edge in found if exists(model, edge)]
    if integrated:
        require_other_prompts(plan)
    if not present:
        raise HydrascopeError("no reader is downstream of a source: choose readers after the sources")
    totals = [Edge(source, Reader(EVERYTHING)) for source in writing]
    every = [*present, *totals]
    pieces, order = [], []
    size = _batch_size(plan, len(every), options.get("batch_size", "auto"))
    clean = compute_clean_activations(plan, plan.batch("auto"), [range(len(plan.tokens))])
    remaining = sorted(range(len(plan.tokens)), key=lambda index: len(plan.tokens[index]))
    with show_progress(len(remaining), 0, options.get("progress", False)) as advance:
        while remaining:
            indices = list(first_batch(model, plan.tokens, remaining, size))
            changes = source_changes(plan, clean, writing, indices)
            pieces.append(_measure(plan, clean, every, changes, indices))
            if slopes:
                pieces[-1] |= {"eap": edge_slopes(plan, clean, present, changes, indices)}
            if integrated:
                pieces[-1] |= {"eap_ig": integrated_slopes(plan, clean, present, changes, indices)}
            order += indices
            remaining = remaining[len(indices) :]
            advance(len(indices))
    measured = {name: np.concatenate([piece[name] for piece in pieces], 1) for name in pieces[0]}
    measured = {name: values[:, np.argsort(order)] for name, values in measured.items()}
    return _assemble(plan, clean, measured, writing, reading, present)


def _plan(
    model: LanguageModel,
    prompts: AnyPrompts,
    ablation: Ablation | None,
    sources: Sequence[Component],
    config: SweepConfig,
) -> Plan:
    named = [source for source in sources if source != EMBED]
    plan = make_plan(model, prompts, ablation, replace(config, ablate=named or "attn.0", keep="effects"))
    for metric in plan.answer_metrics:
        raise HydrascopeError(f"{metric.name} reads more than the next token: edges take other metrics")
    tell(plan.notices, None)
    # The embeddings are drawn for integrated slopes, too.
    return replace(plan, overrides=tuple(Override((source,)) for source in dict.fromkeys((*sources, EMBED))))


def _sources(model: LanguageModel, sources: str | Sequence[str]) -> tuple[Component, ...]:
    """Return the sources, each once."""
    words = _words(sources)
    named = [word for word in words if word != "embed"]
    chosen = select_components(model, named) if named else ()
    refuse_terms(chosen, "an edge")
    for component in chosen:
        if component.kind == "neuron":
            raise HydrascopeError(f"{component} can't be the source of an edge: give embed, sublayers or heads")
    return tuple(dict.fromkeys((*([EMBED] if "embed" in words else []), *chosen)))


def _readers(model: LanguageModel, readers: str | Sequence[str]) -> tuple[Reader, ...]:
    """Return the readers, each once."""
    labels: list[str] = []
    for word in _words(readers):
        plural = word.partition(".")[0]
        if plural in ("layers", "attn", "mlp"):
            labels += [str(each) for each in select_components(model, word)]
        elif plural in _WORDS:
            labels += [str(each) for each in select_mediators(model, word)]
        else:
            labels.append(word)
    found = tuple(dict.fromkeys(parse_reader(model, label, model.kv_heads) for label in labels))
    if any(reader.inputs for reader in found) and not model.anatomy.supports_wavefront:
        raise HydrascopeError(
            f"{model.config.model_type} does not attend through transformers' AttentionInterface: inputs of its heads "
            "can't read an edge; name sublayers"
        )
    return found


def _words(selection: Any) -> list[str]:
    """Return the single labels and words of a selection."""
    several = selection if isinstance(selection, Iterable) and not isinstance(selection, str) else [selection]
    return [word.strip() for each in several for word in str(each).split(",")]


def _measure(
    plan: Plan,
    clean: CleanActivations,
    every: Sequence[Edge],
    changes: dict[Component, Tensor],
    indices: Sequence[int],
) -> dict[str, np.ndarray]:
    """Return the measured numbers of some prompts, `[readout or metric, prompt, …]`."""
    readouts = Readouts.of(plan.model, plan.readouts, plan.tokens_of(clean), indices)
    request = EdgeRequest(
        [plan.tokens[index] for index in indices],
        torch.from_numpy(clean.padded_positions(indices)),
        every,
        plan.ablation.patches,
        changes,
        readouts,
        plan.metrics,
        torch.tensor([clean.targets[index] for index in indices]),
        plan.routines,
    )
    readings = _MEASURE[plan.engine.name](plan.model, request)
    off = _require_sound(plan, indices, readings, readouts, every)
    effects = (readings.logit_edge - readings.logit[..., None, None]).mean(-1)
    metrics = (readings.metrics_edge - readings.metrics[..., None, None]).mean(-1)
    return {
        "edge": _numpy(effects),
        "metric_edge": _numpy(metrics),
        "logit": _numpy(readings.logit),
        "imbalance": off[None],
    }


def _require_sound(
    plan: Plan, indices: Sequence[int], readings: EdgeReadings, readouts: Readouts, every: Sequence[Edge]
) -> np.ndarray:
    """Return the largest imbalance of each prompt.

    Raises:
        HydrascopeError: the numbers aren't finite, or don't balance.
    """
    off, size = readings.imbalance(readouts), readings.size(readouts)
    if not readings.logit_edge.isfinite().all():
        raise HydrascopeError("an edge is not finite: the model overflows; take a wider dtype")
    # A comparison so that a NaN fails.
    share = off / (balance.TOLERANCE[plan.model.dtype] * size)
    if not bool((share <= 1).all()):
        readout, prompt, edge, _ = (int(each) for each in np.unravel_index(int(share.argmax()), share.shape))
        name = f"{source_label(every[edge].source)} → {every[edge].reader}"
        raise HydrascopeError(
            f"the edge {name} of {plan.prompt_label(indices[prompt])} on {plan.labels[readout]} and its terms do not "
            f"balance: off by {float(off.max()):.2g}; take a wider dtype, or see hydrascope check"
        )
    return np.asarray(_numpy(off).max((0, 2, 3)))


def _batch_size(plan: Plan, rows: int, asked: BatchSize) -> int:
    if asked != "auto":
        return plan.batch(asked).prompts
    suffix = max(len(ids) - each.positions[0] for ids, each in zip(plan.tokens, plan.positions, strict=True))
    widest = max(plan.model.width, int(getattr(plan.model.config, "intermediate_size", 0) or 4 * plan.model.width))
    return max(1, min(16, _FLOATS // (rows * plan.ablation.patches * suffix * widest)))


def _assemble(
    plan: Plan,
    clean: CleanActivations,
    measured: dict[str, np.ndarray],
    sources: Sequence[Component],
    readers: Sequence[Reader],
    present: Sequence[Edge],
) -> xr.Dataset:
    """Return the dataset of `edges` from what was measured of each edge."""
    row = {source: number for number, source in enumerate(sources)}
    column = {reader: number for number, reader in enumerate(readers)}
    places = tuple(np.array([(row[e.source], column[e.reader]) for e in present]).T)

    def matrix(values: np.ndarray) -> np.ndarray:
        whole = np.zeros((*values.shape[:2], len(sources), len(readers)))
        whole[:, :, places[0], places[1]] = values
        return whole

    there = np.zeros((len(sources), len(readers)), bool)
    there[places] = True
    count = len(present)
    edge, total = matrix(measured["edge"][..., :count]), measured["edge"][..., count:]
    variables = {
        "edge": (("readout", "prompt", "source", "reader"), edge),
        "total": (("readout", "prompt", "source"), total),
        "exists": (("source", "reader"), there),
        "logit": (("readout", "prompt"), measured["logit"]),
        "imbalance": (("prompt",), measured["imbalance"][0]),
    }
    if {reader.label for reader in readers} >= {LOGITS, *map(str, plan.model.sublayers)}:
        whole = [reader.label == LOGITS or (reader.sublayer is not None and not reader.inputs) for reader in readers]
        variables["edge_remainder"] = (("readout", "prompt", "source"), edge[..., whole].sum(-1) - total)
    for name in ("eap", "eap_ig"):
        if name in measured:
            variables[name] = (("readout", "prompt", "source", "reader"), matrix(measured[name]))
    if "eap_ig" in measured and "edge_remainder" in variables and EMBED in sources:
        through = variables["eap_ig"][1][:, :, row[EMBED]][..., whole].sum(-1).mean(1)
        variables["completeness"] = (("readout",), through / total[:, :, row[EMBED]].mean(1))
    base = initial_dataset(plan, clean)
    if plan.metrics:
        variables["metric_edge"] = (
            ("metric", "prompt", "source", "reader"),
            matrix(measured["metric_edge"][..., :count]),
        )
    kept = [name for name in ("readout", "readout_before", "text", "target_text", "metric") if name in base.coords]
    coords = {name: base[name].variable for name in kept}
    coords["source"] = np.array([source_label(each) for each in sources], object)  # type: ignore[assignment]
    coords["reader"] = np.array([str(each) for each in readers], object)  # type: ignore[assignment]
    attrs = {name: value for name, value in base.attrs.items() if name not in ("ablate", "read", "keep")}
    return xr.Dataset(variables, coords, attrs)


def _numpy(values: Tensor) -> np.ndarray:
    return np.asarray(values.detach().double().cpu())
