"""Result format 3: the variables of a result, their dimensions, names and units.

Format 3 renamed coordinates and attributes by the vocabulary. A result of format 2 is refused with one line:

| format 2 | format 3 |
|---|---|
| coordinates `component_layer`, `ablated_layer` | `component_block`, `ablated_block` |
| unit `layer` of these and of `readout_before` | `block` |
| attributes `block_size`, `runs_at_once` | `chunk_size`, `overrides_at_once` |
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

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
_ROW = ("prompt", "ablated", "patch")

#: Variables that are measured prompt by prompt.
MEASURED_VARIABLES: dict[str, Variable] = {
    "unembed": Variable(_CLEAN, "direct effect of each component in the clean pass", _LOGITS),
    "unembed_ablated": Variable(_MEAN, "direct effect after the ablation, at the clean scale", _LOGITS),
    "unembed_ablated_own": Variable(_MEAN, "direct effect after the ablation, at the ablated scale", _LOGITS),
    "unembed_ablated_by_patch": Variable(
        ("readout", *_ROW, "component"), "direct effect after each patch, at the clean scale", _LOGITS
    ),
    "total": Variable(("readout", *_ROW), "total effect of the ablation", _LOGITS),
    "direct": Variable(("readout", *_ROW), "direct effect of the ablation, with the final norm recomputed", _LOGITS),
    "indirect": Variable(("readout", *_ROW), "indirect effect of the ablation", _LOGITS),
    "own": Variable(
        ("readout", *_ROW), "change of a residual stream by its own overridden terms, at the clean scale", _LOGITS
    ),
    "scale": Variable(_ROW, "scale of the final norm in the clean pass, divided by that in the ablated row"),
    "logit": Variable(("readout", "prompt"), "readout of the clean pass", _LOGITS),
    "logit_twin": Variable(("readout", "prompt"), "readout of the counterfactual's clean pass", _LOGITS),
    "embed": Variable(("readout", "prompt"), "direct effect of the embedding", _LOGITS),
    "metric_clean": Variable(("metric", "prompt"), "metric of the clean pass", "unit of the metric"),
    "metric_ablated": Variable(("metric", *_ROW), "metric of the ablated row", "unit of the metric"),
    "patch_prompt": Variable(("prompt", "patch"), "prompt of the patch, -1 if it came from none", "index"),
    "imbalance": Variable(("prompt",), "largest difference between total and the sum of its terms", _LOGITS),
}

#: Variables that are written before anything is measured.
STATIC_VARIABLES: dict[str, Variable] = {
    "target": Variable(("prompt",), "target token", "token id"),
    "downstream": Variable(("ablated", "component"), "whether the component is downstream of the override"),
    "component": Variable(("component",), "component that is read"),
    "component_kind": Variable(("component",), "kind of the component"),
    "component_block": Variable(("component",), "block of the component", "block"),
    "component_unit": Variable(
        ("component",), "head, neuron or feature of the component, -1 if there is none", "index"
    ),
    "ablated": Variable(("ablated",), "override: ablated components, frozen ones after |, the part after :"),
    "ablated_kind": Variable(
        ("ablated",), "kind of the ablated component, joint if several are overridden, part of a split"
    ),
    "ablated_block": Variable(("ablated",), "first block with an ablated component", "block"),
    "ablated_unit": Variable(
        ("ablated",), "head, neuron or feature of the ablated component, -1 if there is none", "index"
    ),
    "readout": Variable(("readout",), "readout of the residual stream"),
    "readout_before": Variable(
        ("readout",), "block that the readout is taken before, -1 for the final residual stream", "block"
    ),
    "metric": Variable(("metric",), "function of the logits"),
    "metric_units": Variable(("metric",), "unit of the metric, empty if unknown"),
    "text": Variable(("prompt",), "prompt"),
    "target_text": Variable(("prompt",), "target token as text"),
    "runner_up": Variable(("prompt",), "likeliest token of the clean pass but for the target", "token id"),
    "runner_up_text": Variable(("prompt",), "likeliest token but for the target, as text"),
    "token_id": Variable(("prompt", "token"), "token of the prompt, -1 after its end", "token id"),
    "token_text": Variable(("prompt", "token"), "token of the prompt as text, empty after its end"),
    "token_ablated": Variable(("prompt", "token"), "whether components are ablated at this token"),
    "subject": Variable(("prompt",), "subject of the prompt, empty if none is found"),
    "subject_first": Variable(("prompt",), "first token of the prompt's subject, -1 if none is found", "token"),
    "subject_end": Variable(("prompt",), "first token after the prompt's subject, -1 if none is found", "token"),
}

#: Variables that only results of optimal ablation have, written before anything is measured.
FITTED_VARIABLES: dict[str, Variable] = {
    "fitted": Variable(("fitted",), "component with a fitted constant"),
    "written": Variable(("written",), "vector that the component writes"),
    "half": Variable(("half",), "half of the prompts", "index"),
    "optimal_loss": Variable(
        ("fitted", "prompt", "written"), "loss by vectors of the other half of the prompts", "unit of the loss"
    ),
    "optimal_loss_inside": Variable(
        ("fitted", "half", "written"), "mean loss over the half of the prompts that fits", "unit of the loss"
    ),
}


class JsonRecord(str):
    """A mapping as JSON text: netCDF takes it, and its values are read by name.

    Iteration and comparison are those of a text: `dict(record)` is the mapping.

    >>> record = JsonRecord({"clean": {"rows": 2}})
    >>> record["clean"], record.get("other", 0), str(record)
    ({'rows': 2}, 0, '{"clean": {"rows": 2}}')
    """

    def __new__(cls, value: Mapping[str, Any] | str) -> Self:
        """Take a mapping, or the text of one: copies of a record are made from its text."""
        return super().__new__(cls, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))

    def __getitem__(self, key: Any) -> Any:
        """Return the value of a name; characters by number, as of any text."""
        return json.loads(self)[key] if isinstance(key, str) else super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        """Whether the mapping has this name."""
        return key in json.loads(self)

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of a name, or the default."""
        return json.loads(self).get(key, default)

    def keys(self) -> Iterable[str]:
        """Return the names, so that `dict(record)` is the mapping."""
        names: Iterable[str] = json.loads(self).keys()
        return names


def flat_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes as netCDF takes them: mappings as records, lists as JSON texts.

    >>> flat_attributes({"seed": 0, "metrics": ["kl"], "routines": {"32 to 96": "matmul"}})
    {'seed': 0, 'metrics': '["kl"]', 'routines': '{"32 to 96": "matmul"}'}
    """
    return {name: _flat(value) for name, value in attributes.items()}


def _flat(value: Any) -> Any:
    if isinstance(value, Mapping):
        return JsonRecord(value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | tuple) else value


def attribute(attributes: Mapping[str, Any], name: str, default: Any) -> Any:
    """Return an attribute that is a mapping or a list, or a JSON text of one.

    >>> attribute({"metrics": '["kl"]'}, "metrics", []), attribute({}, "routines", {})
    (['kl'], {})
    """
    value = attributes.get(name, default)
    return json.loads(value) if isinstance(value, str) else value


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
    for name, variable in (MEASURED_VARIABLES | STATIC_VARIABLES | FITTED_VARIABLES).items():
        if name in named.variables:
            units = unit if variable.units == _LOGITS else variable.units
            named[name].attrs = {"long_name": variable.long_name, "units": units}
    return named
