"""Kinds, blocks and units of the components along a dimension of the results.

These are coordinates. Only the labels of several components are parsed: `attn.3+mlp.5` ablates both, `attn.3|mlp.5`
ablates the first and freezes the second.
"""

from collections.abc import Sequence
from typing import Literal, TypeVar

import numpy as np
import xarray as xr
from jaxtyping import Bool

from hydrascope.components.component import INPUT_KINDS, LOGITS, SUBLAYER_KINDS, TERM_KINDS, Component, Override
from hydrascope.components.experiments import result_kind
from hydrascope.measures.effects_type import Effects, EffectsOnly
from hydrascope.utils.errors import HydrascopeError

#: The kind of an ablation; `joint` if it names several components.
ComponentKind = Literal["attn", "mlp", "head", "neuron", "feature", "error", "bias", "joint"]

#: The types that `of_kind` selects from.
Data = TypeVar("Data", xr.DataArray, xr.Dataset, Effects, EffectsOnly)


def kinds(labels: xr.DataArray) -> list[str]:
    """Return the kind of each component, as in `ComponentKind`.

    >>> hs.measures.kinds(results["ablated"])[:3]
    ['attn', 'mlp', 'attn']

    Args:
        labels: a coordinate such as `results["ablated"]`.
    """
    return [str(kind) for kind in labels[f"{labels.dims[0]}_kind"].values]


def block_numbers(labels: xr.DataArray) -> list[int]:
    """Return the block of each component, counted from 0.

    >>> hs.measures.block_numbers(results["ablated"])[:3]
    [0, 0, 1]

    Args:
        labels: a coordinate such as `results["ablated"]`.
    """
    return [int(block) for block in labels[f"{labels.dims[0]}_block"].values]


def unit_numbers(labels: xr.DataArray) -> list[int]:
    """Return the number of each head, neuron or feature, −1 for other components.

    >>> hs.measures.unit_numbers(results["ablated"])[:3]
    [-1, -1, -1]

    Args:
        labels: a coordinate such as `results["ablated"]`.
    """
    return [int(unit) for unit in labels[f"{labels.dims[0]}_unit"].values]


def depth(results: xr.Dataset | EffectsOnly) -> int:
    """Return the number of blocks of the network.

    >>> hs.measures.depth(results)
    6

    Args:
        results: of a run, or effects.
    """
    return 1 + max(block_numbers(results["component"]))


def of_kind(data: Data, dim: str, *kind: ComponentKind) -> Data:
    """Select the components of some kinds along a dimension, in order of depth.

    >>> mlps = hs.measures.of_kind(results, "ablated", "mlp")

    Args:
        data: results, effects, or one of their variables.
        dim: `ablated` or `component`.
        kind: the kinds.
    """
    labels = data[dim]
    order = list(zip(block_numbers(labels), unit_numbers(labels), strict=True))
    chosen = [i for i, each in enumerate(kinds(labels)) if each in kind]
    return data.isel({dim: sorted(chosen, key=order.__getitem__)})


def sublayer_labels(labels: xr.DataArray) -> list[int]:
    """Return the indices of the sublayers among `labels`.

    >>> hs.measures.sublayer_labels(results["component"])[:3]
    [0, 1, 2]

    Args:
        labels: a coordinate such as `results["component"]`.
    """
    return [i for i, kind in enumerate(kinds(labels)) if kind in SUBLAYER_KINDS]


def single_ablations(results: xr.Dataset) -> xr.Dataset:
    """Select the ablations of an experiment with nothing frozen, without pairs and parts.

    >>> single = hs.measures.single_ablations(results)

    Args:
        results: of any run.

    Returns:
        the results as a sweep would have made them; those of a sweep unchanged.
    """
    separator = {"sweep": "", "mediation": "|", "interactions": "+", "split": ":"}[result_kind(results.attrs)]
    if not separator:
        return results
    chosen = [separator not in str(label) for label in results["ablated"].values]
    return results.isel(ablated=chosen).assign_attrs(experiment="")


def ablated_labels(label: str) -> list[str]:
    """Return the labels of the ablated components of an override, without the frozen ones."""
    return [str(component) for component in Override.parse(label).ablated]


def sublayer_of(label: str) -> str:
    """Return the label of a component's sublayer: `attn.9` for `head.9.6` and for `attn.9`."""
    return str(Component.parse(label).sublayer)


def sublayers_of(label: str) -> set[str]:
    """Return the labels of the sublayers of all ablated components of an override.

    Terms of a residual stream are of no sublayer.
    """
    sublayers = {component.sublayer for component in Override.parse(label).ablated}
    return {str(sublayer) for sublayer in sublayers if sublayer.kind != "stream"}


def is_ablated(ablated: xr.DataArray, component: xr.DataArray) -> xr.DataArray:
    """Whether a sublayer is ablated, in whole or in part, `[ablated, component]`.

    Raises:
        HydrascopeError: the sublayer of an ablated component is missing.
    """
    index = {str(label): i for i, label in enumerate(component.values)}
    mask: Bool[np.ndarray, "ablated component"] = np.zeros((ablated.size, component.size), bool)
    for i, label in enumerate(map(str, ablated.values)):
        missing = sublayers_of(label) - index.keys()
        if missing:
            raise HydrascopeError(f"the result ablates {label} but lacks {min(missing)}: keep it among its components")
        mask[i, [index[sublayer] for sublayer in sublayers_of(label)]] = True
    return xr.DataArray(mask, dims=("ablated", "component"))


def separable(ablated: xr.DataArray) -> xr.DataArray:
    """Whether the ablated sublayers' own change can be told from their response, `[ablated]`.

    It can't where heads or neurons of several sublayers are ablated together: the rest of the later sublayer responds
    to the ablation in the earlier one.
    """
    values = [
        len(sublayers_of(label)) < 2 or all(sublayer_of(each) == each for each in ablated_labels(label))
        for label in map(str, ablated.values)
    ]
    return xr.DataArray(values, dims="ablated")


_GROUPS = ("sublayer", "head", *INPUT_KINDS, "neuron", *TERM_KINDS, "joint", LOGITS)


def kind_of(label: str) -> str:
    """Return the kind of a component by its label: `joint` for several, `logits` for these."""
    if label == LOGITS:
        return LOGITS
    override = Override.parse(label)
    return override.ablated[0].kind if len(override.overridden) == 1 else "joint"


def group_of(label: str) -> str:
    """Return the kind of a component by its label, and `sublayer` for attention and MLPs.

    >>> group_of("mlp.3")
    'sublayer'
    """
    kind = kind_of(label)
    return "sublayer" if kind in ("attn", "mlp") else kind


def in_order(labels: Sequence[str]) -> list[int]:
    """Return the indices of labels in order of group, then of depth.

    Groups are in this order: sublayers, attention before the MLP of its block; heads, their inputs, neurons; features,
    errors and biases of dictionaries; joint ablations, logits.
    """

    def sort_key(index: int) -> tuple[int, int, bool, int, int]:
        group = _GROUPS.index(group_of(labels[index]))
        if labels[index] == LOGITS:
            return group, 0, False, 0, index
        override = Override.parse(labels[index])
        component = min(override.ablated, key=lambda component: (component.block, component.unit))
        return group, component.block, component.kind == "mlp", component.unit, index

    return sorted(range(len(labels)), key=sort_key)
