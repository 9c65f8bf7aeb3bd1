"""Agreement of linear estimates of edges with the exact effects."""

import numpy as np
import xarray as xr

from hydrascope.measures.bootstrap import Bootstrap, mean_interval
from hydrascope.measures.effects_per_prompt import select_readout
from hydrascope.measures.estimator_scores import agreement
from hydrascope.utils.errors import HydrascopeError

#: The estimates that a result may hold, and their names.
ESTIMATES = {"eap": "EAP", "eap_ig": "EAP-IG"}


def edge_scores(found: xr.Dataset, readout: str | None = None, bootstrap: Bootstrap | None = None) -> xr.Dataset:
    """Score estimates of edges against the exact effects, over all edges that are estimated.

        >>> scores = hs.measures.edge_scores(hs.analyses.edges(model, prompts, hs.Zero()))
        >>> scores["spearman"].dims
        ('estimator',)

    Args:
        found: the result of `hydrascope.analyses.edges`.
        readout: the readout's label; by default the first.
        bootstrap: how bounds are drawn.

    Returns:
        [estimator], of means over prompts: `pearson` and `spearman`, correlations over edges; `top`, the share of the
        ten edges with the largest |effect| that are among the ten with the largest |estimate|. They have no bounds:
        noise that effects and estimates share raises them in every resample. And `spearman_by_prompt` [bound,
        estimator], the mean over prompts of each prompt's own correlation.

    Raises:
        HydrascopeError: the result holds no estimate, or there is no such readout.
    """
    names = [name for name in ESTIMATES if name in found]
    if not names:
        raise HydrascopeError("the result holds no estimate of edges: measure with slopes=True")
    chosen = select_readout(found, readout)
    estimates = np.stack([chosen[name].values for name in names])
    scored = found["exists"].values & np.isfinite(estimates).all((0, 1))
    samples = xr.Dataset(
        {
            "exact": (("prompt", "ablated"), chosen["edge"].values[:, scored]),
            "estimate": (("estimator", "prompt", "ablated"), estimates[..., scored]),
        },
        {"estimator": names},
    )
    scores = agreement(samples.mean("prompt"))
    each = agreement(samples)["spearman"].transpose("prompt", "estimator")
    return scores.assign(spearman_by_prompt=mean_interval(each, bootstrap or Bootstrap()))
