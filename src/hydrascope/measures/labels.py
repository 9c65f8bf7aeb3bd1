"""Which parts of the network a dimension of the results holds: layers, heads, neurons, joint ablations.

Kind, layer and unit of each are coordinates. A label is only taken apart where it names several parts: `attn.3+mlp.5`
ablates both, `attn.3|mlp.5` ablates the first and freezes the second.
"""

from collections.abc import Sequence
from typing import Literal, TypeVar

import numpy as np
import xarray as xr
from jaxtyping import Bool

from hydrascope.components.component import INPUT_KINDS, LOGITS, SUBLAYER_KINDS, Component, Override
from hydrascope.components.experiments import result_kind
from hydrascope.measures.effects_type import Effects, EffectsOnly
from hydrascope.utils.errors import HydrascopeError

ComponentKind = Literal["attn", "mlp", "head", "neuron", "joint"]

#: What parts can be chosen of.
Data = TypeVar("Data", xr.DataArray, xr.Dataset, Effects, EffectsOnly)


def kinds(labels: xr.DataArray) -> list[str]:
    """The kind of each part, as in `ComponentKind`; `labels` is a coordinate such as `results["ablated"]`."""
    return [str(kind) for kind in labels[f"{labels.dims[0]}_kind"].values]


def block_numbers(labels: xr.DataArray) -> list[int]:
    """The layer of each part, counted from 0."""
    return [int(layer) for layer in labels[f"{labels.dims[0]}_block"].values]


def unit_numbers(labels: xr.DataArray) -> list[int]:
    """The number of each head or neuron in its layer, −1 for what is no such part."""
    return [int(unit) for unit in labels[f"{labels.dims[0]}_unit"].values]


def depth(results: xr.Dataset | EffectsOnly) -> int:
    """How many layers the network has, all of which are among what is read."""
    return 1 + max(block_numbers(results["component"]))


def of_kind(data: Data, dim: str, *kind: ComponentKind) -> Data:
    """The part of `data` whose `dim`, `ablated` or `component`, is of one of these kinds, in order of depth."""
    labels = data[dim]
    places = list(zip(block_numbers(labels), unit_numbers(labels), strict=True))
    chosen = [i for i, each in enumerate(kinds(labels)) if each in kind]
    return data.isel({dim: sorted(chosen, key=places.__getitem__)})


def sublayer_labels(labels: xr.DataArray) -> list[int]:
    """Where along `labels` the layers stand: what sums run over, since heads and neurons are parts of them."""
    return [i for i, kind in enumerate(kinds(labels)) if kind in SUBLAYER_KINDS]


def single_ablations(results: xr.Dataset) -> xr.Dataset:
    """The runs that show what becomes of each ablation: of an experiment those with nothing frozen, and no pairs.

    They are as a plain run would have made them.
    """
    left_out = {"sweep": "", "mediation": "|", "interactions": "+"}[result_kind(results.attrs)]
    if not left_out:
        return results
    chosen = [left_out not in str(label) for label in results["ablated"].values]
    return results.isel(ablated=chosen).assign_attrs(experiment="")


def ablated_labels(label: str) -> list[str]:
    """The labels of all parts that a run ablates, those that it freezes left out."""
    return [str(component) for component in Override.parse(label).ablated]


def sublayer_of(part: str) -> str:
    """The label of the layer that a part belongs to: `attn.9` for `head.9.6`; a layer's own."""
    return str(Component.parse(part).sublayer)


def sublayers_of(label: str) -> set[str]:
    """The labels of the layers that hold what a run ablates."""
    return {sublayer_of(part) for part in ablated_labels(label)}


def is_ablated(ablated: xr.DataArray, component: xr.DataArray) -> xr.DataArray:
    """`[ablated, component]` whether the layer `component` holds what the run ablates, in whole or in part.

    Raises:
        HydrascopeError: there is no such layer.
    """
    place = {str(label): i for i, label in enumerate(component.values)}
    found: Bool[np.ndarray, "ablated component"] = np.zeros((ablated.size, component.size), bool)
    for i, label in enumerate(map(str, ablated.values)):
        missing = sublayers_of(label) - place.keys()
        if missing:
            raise HydrascopeError(f"the result ablates {label}, but {min(missing)} isn't among its components")
        found[i, [place[layer] for layer in sublayers_of(label)]] = True
    return xr.DataArray(found, dims=("ablated", "component"))


def separable(ablated: xr.DataArray) -> xr.DataArray:
    """`[ablated]` whether the ablated layers' own change can be told from their response.

    It can't where heads or neurons of several layers are ablated together: what is left of the later layer
    answers to the ablation in the earlier one.
    """
    known = [
        len(sublayers_of(label)) == 1 or all(sublayer_of(part) == part for part in ablated_labels(label))
        for label in map(str, ablated.values)
    ]
    return xr.DataArray(known, dims="ablated")


_RANK = {kind: rank for rank, kind in enumerate(("attn", "mlp", "head", *INPUT_KINDS, "neuron", "joint", LOGITS))}


def kind_of(label: str) -> str:
    """The kind of the part that a label names; `joint` of several, `logits` of these."""
    if label == LOGITS:
        return LOGITS
    override = Override.parse(label)
    return override.ablated[0].kind if len(override.overridden) == 1 else "joint"


def in_order(labels: Sequence[str]) -> list[int]:
    """Attention before MLPs, then heads, what they attend by, neurons, joint ablations and the logits; each from the
    bottom of the network up."""

    def place(number: int) -> tuple[int, int, int, int]:
        if labels[number] == LOGITS:
            return _RANK[LOGITS], 0, 0, number
        override = Override.parse(labels[number])
        component = min(override.ablated, key=lambda component: (component.block, component.unit))
        return _RANK[kind_of(labels[number])], component.block, component.unit, number

    return sorted(range(len(labels)), key=place)
