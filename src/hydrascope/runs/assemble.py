"""Results put together from a plan, its clean activations and the measured chunks."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from hydrascope.components.order import downstream_of_each
from hydrascope.engines.clean.activations import CleanActivations
from hydrascope.engines.kernels import hardware
from hydrascope.engines.metrics import UNITS
from hydrascope.engines.readouts import Readouts
from hydrascope.models.language_model import LanguageModel
from hydrascope.models.memory import Batch
from hydrascope.prompts.token_coords import coordinates
from hydrascope.prompts.token_ids import texts
from hydrascope.runs.attrs import command_line, patch_source_of, settings_of
from hydrascope.runs.batches import MeasuredChunk
from hydrascope.runs.plan import Plan
from hydrascope.storage.schema import FORMAT, add_units, flat_attributes

#: The dimensions and values of measured variables, by name.
Measured = dict[str, tuple[tuple[str, ...], np.ndarray]]


def assemble(initial: xr.Dataset, measured: Measured, attributes: Mapping[str, Any]) -> xr.Dataset:
    """Return a whole result in memory.

    Args:
        initial: from `initial_dataset`, of the prompts that were measured.
        measured: from `measured_variables`.
        attributes: besides those of `initial`: how exact the run is, and how it was batched.
    """
    result = add_units(initial.assign(measured), initial.attrs["units"])
    count, worst = initial.sizes["prompt"], float(measured["imbalance"][1].max())
    whole = result.assign_attrs(attributes, format=FORMAT, measured=count, prompt_count=count, worst_imbalance=worst)
    whole.attrs = flat_attributes(whole.attrs)
    return whole


def measured_variables(plan: Plan, chunks: Sequence[MeasuredChunk]) -> Measured:
    """Return the measured variables of all prompts of some chunks, one after another."""
    return {
        name: (dims, np.concatenate([chunk.measured[name] for chunk in chunks], dims.index("prompt")))
        for name, dims in plan.measured_variables.items()
    }


def chunk_attributes(plan: Plan, size: int, chunk: MeasuredChunk) -> dict[str, Any]:
    """Return the attributes of a chunk of `size` prompts: its error, batches and machine."""
    return {
        "worst_imbalance": float(chunk.measured["imbalance"].max()),
        **batch_attributes(size, chunk.batch),
        "machines": [hardware.kind(plan.model.device)],
        "routines": dict(plan.routines),
    }


def batch_attributes(size: int, batch: Batch) -> dict[str, int]:
    """Return the attributes with the sizes of chunks and batches."""
    return {"chunk_size": size, "batch_size": batch.prompts, "overrides_at_once": batch.overrides}


def stored_dtype(plan: Plan, variable: str) -> str:
    """Return the dtype of a measured variable in the result."""
    return "int64" if variable == "patch_prompt" else plan.dtype


def initial_dataset(plan: Plan, clean: CleanActivations) -> xr.Dataset:
    """Return a result before its measurement: coordinates, `target`, `downstream`, attributes."""
    model, alone = (
        plan.model,
        [
            override.ablated[0] if len(override.overridden) == 1 and not override.part else None
            for override in plan.overrides
        ],
    )
    linear = Readouts.of(model, plan.readouts, plan.tokens_of(clean), [0]).rows
    below = downstream_of_each(model, plan.overrides, plan.components)
    result = xr.Dataset(
        {"target": ("prompt", np.array(clean.targets, np.int64)), "downstream": (("ablated", "component"), below)},
        {
            "component": _text(map(str, plan.components)),
            "component_kind": ("component", _text(component.kind for component in plan.components)),
            "component_block": ("component", np.array([component.block for component in plan.components])),
            "component_unit": ("component", np.array([component.unit for component in plan.components])),
            "ablated": _text(map(str, plan.overrides)),
            "ablated_kind": (
                "ablated",
                _text(
                    "part" if override.part else "joint" if component is None else component.kind
                    for override, component in zip(plan.overrides, alone, strict=True)
                ),
            ),
            "ablated_block": (
                "ablated",
                np.array([min(c.block for c in override.ablated) for override in plan.overrides]),
            ),
            "ablated_unit": ("ablated", np.array([-1 if component is None else component.unit for component in alone])),
            "readout": _text(plan.labels),
            "readout_before": ("readout", np.array([each.before for each in linear])),
            "text": ("prompt", _text(texts(model, plan.prompts.prompts))),
            "target_text": ("prompt", _text(map(_decoder(model), clean.targets))),
            **coordinates(model, plan.prompts.prompts, plan.tokens, plan.positions, _decoder(model)),
        },
        {
            **settings_of(plan),
            # It names numbers without deciding them, so a run with another text may still be resumed.
            **patch_source_of(plan.ablation),
            "engine_reason": plan.engine.reason,
            "command": command_line(),
            "machines": [hardware.kind(model.device)],
            "routines": dict(plan.routines),
        },
    )
    if plan.reads_runner_up:
        rivals, texts_of = np.array(clean.rivals, np.int64), _text(map(_decoder(model), clean.rivals))
        result = result.assign_coords(runner_up=("prompt", rivals), runner_up_text=("prompt", texts_of))
    if plan.metrics:
        names = [metric.name for metric in plan.metrics]
        units = _text(UNITS.get(name, "") for name in names)
        result = result.assign_coords(metric=_text(names), metric_units=("metric", units))
    if hasattr(plan.ablation, "record"):
        ablated = dict.fromkeys(component for override in plan.overrides for component in override.ablated)
        result = result.merge(plan.ablation.record(clean, tuple(ablated)))
    return result


def _decoder(model: LanguageModel) -> Any:
    return str if model.tokenizer is None else model.decode


def _text(values: Iterable[str]) -> np.ndarray:
    return np.array(list(values), object)
