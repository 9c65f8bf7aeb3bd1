"""The components that are chosen on the exploration half."""

from collections.abc import Iterable, Mapping, Sequence
from math import ceil
from typing import Any

import xarray as xr

from hydrascope.components.component import Component
from hydrascope.measures import single_ablations
from studies.damping.estimator import Chosen, choose, responses


def candidates(labels: Iterable[str], depth: int) -> list[str]:
    """Return the sublayers from one third of the depth on, without the last MLP.

    >>> candidates(["attn.1", "attn.2", "mlp.4", "attn.5", "mlp.5"], depth=6)
    ['attn.2', 'mlp.4', 'attn.5']
    """
    parsed = [Component.parse(label) for label in labels]
    last = Component(depth - 1, "mlp")
    return [str(each) for each in parsed if each.block >= ceil(depth / 3) and each != last]


def last_third(labels: Sequence[str], depth: int) -> list[str]:
    """Return the components of the last third of the blocks.

    >>> last_third(["attn.3", "mlp.4"], depth=6)
    ['mlp.4']
    """
    return [label for label in labels if Component.parse(label).block >= ceil(2 * depth / 3)]


def pick(settings: Mapping[str, Any], results: xr.Dataset, readout: str) -> Chosen:
    """Return the components that `settings` choose on the prompts of a result.

    Args:
        settings: the study's settings.
        results: of a split, on the prompts to choose on.
        readout: the readout's label.
    """
    return pick_from(settings, responses(results, readout), labels_of(results), int(results.attrs["depth"]))


def pick_from(settings: Mapping[str, Any], measured: xr.Dataset, labels: Sequence[str], depth: int) -> Chosen:
    """Return the components that `settings` choose on the prompts of `measured`."""
    rule = settings["selection"]
    return choose(measured, candidates(labels, depth), rule["least_slope"], rule["least_removed"])


def labels_of(results: xr.Dataset) -> list[str]:
    """Return the labels of the whole ablations of a split."""
    return [str(label) for label in single_ablations(results)["ablated"].values]
