"""Check the books of the error in float64, and the derivative by doses."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

import hydrascope as hs
from hydrascope.models.float64 import Float64Mode, float64_copy
from hydrascope.models.language_model import LanguageModel
from hydrascope.utils.errors import HydrascopeError
from studies.attribution.ablations import Doses
from studies.attribution.estimator import changes, left_by, predicted_by_doses, shares
from studies.attribution.gradients import predicted


def check(settings: Mapping[str, Any], model: LanguageModel, prompts: hs.prompts.PromptSet) -> dict[str, float]:
    """Return what rounding and the width of the derivative change.

    Args:
        settings: the study's settings.
        model: the model.
        prompts: some prompts.

    Returns:
        `imbalance32` and `imbalance64`, the largest |Σ t − error|; `gradient`, `half_step` and `rounding`, the largest
        difference of a term's prediction by doses 1 ± ε in float64 from autograd's, from that by 1 ± ε/2, and from
        float32's; `largest`, the largest prediction; `share` and others with `share_` in their names, the share of
        responses in AtP's squared error by each.

    Raises:
        HydrascopeError: there is no room for a copy of the model in float64.
    """
    epsilon = settings["epsilon"]
    doses = (0.0, *(1 + side * part * epsilon for part in (1, 0.5) for side in (-1, 1)))
    in32, wide = _sweep(settings, model, prompts, doses), float64_copy(model)
    if wide is None:
        raise HydrascopeError(f"{model.name} is too large for a copy in float64: leave the checks out")
    with Float64Mode():
        in64 = _sweep(settings, wide, prompts, doses)
        by_autograd = predicted(settings, wide, prompts, "atp", hs.LogitDifference())
    by_doses, by_half, narrow = (
        predicted_by_doses(found, [1.0], width)
        for found, width in ((in64, epsilon), (in64, epsilon / 2), (in32, epsilon))
    )
    exact = by_doses.copy(data=by_autograd)
    left = {"share": left_by(in32, narrow), "share_64": left_by(in64, by_doses), "share_gradient": left_by(in64, exact)}
    return {
        "prompts": len(prompts),
        "imbalance32": float(left["share"]["imbalance"].max()),
        "imbalance64": float(left["share_64"]["imbalance"].max()),
        "gradient": _apart(by_doses, exact),
        "half_step": _apart(by_doses, by_half),
        "rounding": _apart(by_doses, narrow),
        "largest": float(abs(exact).max()),
        **{key: _share(each) for key, each in left.items()},
    }


def _sweep(
    settings: Mapping[str, Any], model: LanguageModel, prompts: hs.prompts.PromptSet, doses: Sequence[float]
) -> xr.Dataset:
    results = hs.sweep(
        model,
        prompts,
        Doses("zero", tuple(doses)),
        at=settings["at"],
        readouts=[hs.LogitDifference()],
        target=settings["target"],
        keep="patches",
    )
    return changes(results, "difference", "clean", doses)


def _apart(first: xr.DataArray, second: xr.DataArray) -> float:
    return float(np.abs(first.values - second.values).max())


def _share(left: xr.Dataset) -> float:
    return float(shares(left.sum(("prompt", "ablated")))["responses"])
