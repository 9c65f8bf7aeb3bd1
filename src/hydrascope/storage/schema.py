"""Result format 3: the variables of a result, their dimensions, names and units.

Format 3 renamed coordinates and attributes by the vocabulary. A result of format 2 is refused with one line:

| format 2 | format 3 |
|---|---|
| coordinates `component_layer`, `ablated_layer` | `component_block`, `ablated_block` |
| unit `layer` of these and of `readout_before` | `block` |
| attributes `block_size`, `runs_at_once` | `chunk_size`, `overrides_at_once` |
"""

from dataclasses import dataclass

import numpy as np
import xarray as xr

FORMAT = 3

#: The numbers of formats that are no longer read, by their attribute `format`.
OLD_FORMATS = {"hydrascope results 1": 1, 2: 2}

#: The dtype of texts on disk. In memory they are Python strings, for which numpy and xarray have more methods.
_TEXT = np.dtypes.StringDType()

_LOGITS = "unit of the readout"


@dataclass(frozen=True)
class Variable:
    """The dimensions, name and units of a variable."""

    dims: tuple[str, ...]
    long_name: str
    units: str = "1"


_CLEAN = ("readout", "prompt", "component")
_MEAN = ("readout", "prompt", "ablated", "component")
_RUN = ("prompt", "ablated", "patch")

#: Variables that are measured prompt by prompt.
MEASURED_VARIABLES: dict[str, Variable] = {
    "unembed": Variable(_CLEAN, "direct effect of each component, clean run", _LOGITS),
    "unembed_ablated": Variable(_MEAN, "direct effect after the ablation, at the clean run's scale", _LOGITS),
    "unembed_ablated_own": Variable(_MEAN, "direct effect after the ablation, at the ablated run's scale", _LOGITS),
    "unembed_ablated_by_patch": Variable(
        ("readout", *_RUN, "component"), "direct effect after each patch, at the clean run's scale", _LOGITS
    ),
    "total": Variable(("readout", *_RUN), "total effect of the ablation", _LOGITS),
    "direct": Variable(("readout", *_RUN), "direct effect of the ablation, the final norm recomputed", _LOGITS),
    "indirect": Variable(("readout", *_RUN), "indirect effect of the ablation", _LOGITS),
    "scale": Variable(_RUN, "scale of the final norm in the clean run, over that in the ablated run"),
    "logit": Variable(("readout", "prompt"), "readout of the clean run", _LOGITS),
    "embed": Variable(("readout", "prompt"), "direct effect of the embedding", _LOGITS),
    "metric_clean": Variable(("metric", "prompt"), "metric of the clean run", "unit of the metric"),
    "metric_ablated": Variable(("metric", *_RUN), "metric of the ablated run", "unit of the metric"),
    "patch_prompt": Variable(("prompt", "patch"), "prompt that the patch came from, -1 where from none", "index"),
    "imbalance": Variable(("prompt",), "how far total and the sum of its parts are apart at worst", _LOGITS),
}

#: Variables that are written before anything is measured.
STATIC_VARIABLES: dict[str, Variable] = {
    "target": Variable(("prompt",), "target token", "token id"),
    "downstream": Variable(("ablated", "component"), "whether the component is downstream of what is ablated"),
    "component": Variable(("component",), "what is read"),
    "component_kind": Variable(("component",), "kind of part that is read"),
    "component_block": Variable(("component",), "block of the component", "block"),
    "component_unit": Variable(("component",), "head or neuron that is read, -1 for a layer", "index"),
    "ablated": Variable(("ablated",), "what is ablated, or frozen after |"),
    "ablated_kind": Variable(("ablated",), "kind of part that is ablated"),
    "ablated_block": Variable(("ablated",), "first block that is ablated", "block"),
    "ablated_unit": Variable(("ablated",), "head or neuron that is ablated, -1 for a layer", "index"),
    "readout": Variable(("readout",), "what is read off the residual stream"),
    "readout_before": Variable(
        ("readout",), "block before which it is read, -1 for the final residual stream", "block"
    ),
    "metric": Variable(("metric",), "function of the logits"),
    "metric_units": Variable(("metric",), "unit of the metric, empty where it is not known"),
    "text": Variable(("prompt",), "prompt"),
    "target_text": Variable(("prompt",), "target token as text"),
    "token_id": Variable(("prompt", "token"), "token of the prompt, -1 after its end", "token id"),
    "token_text": Variable(("prompt", "token"), "token of the prompt as text, empty after its end"),
    "token_ablated": Variable(("prompt", "token"), "whether parts are ablated at this token"),
    "subject": Variable(("prompt",), "subject of the prompt, empty where none is found"),
    "subject_first": Variable(("prompt",), "first token of the prompt's subject, -1 where none is found", "token"),
    "subject_end": Variable(("prompt",), "first token after the prompt's subject, -1 where none is found", "token"),
}


def texts_to_disk(variables: xr.Dataset) -> xr.Dataset:
    """Return `variables` with texts in their dtype on disk, which marks empty ones, too."""
    texts = {name: value.astype(_TEXT) for name, value in variables.variables.items() if value.dtype == object}
    return variables.assign_coords(texts)


def texts_from_disk(variable: xr.Variable) -> xr.Variable:
    """Return `variable` with texts as Python strings."""
    return variable.astype(object) if variable.dtype == _TEXT else variable


def add_units(results: xr.Dataset, unit: str) -> xr.Dataset:
    """Return `results` with the `long_name` and `units` of every variable.

    Args:
        unit: the unit of the readouts.
    """
    named = results.copy()
    for name, variable in (MEASURED_VARIABLES | STATIC_VARIABLES).items():
        if name in named.variables:
            units = unit if variable.units == _LOGITS else variable.units
            named[name].attrs = {"long_name": variable.long_name, "units": units}
    return named
