"""Attribution methods: estimates, from gradients, of the effects that `sweep` measures.

Every method takes the arguments of `sweep`, draws the same patches, and returns `estimate` [readout, prompt, ablated],
its estimate of `total`, mean over patches. So the two can be compared:

    >>> exact = hs.measures.per_prompt(hs.sweep(model, prompts, hs.Resample(2), ablate="mlp"))
    >>> guess = hs.analyses.attribution.atp(model, prompts, hs.Resample(2), ablate="mlp")
    >>> scores = hs.measures.scores(exact, {"atp": guess})
"""

from hydrascope.analyses.attribution.atp import atp
from hydrascope.analyses.attribution.atp_star import atp_star
from hydrascope.analyses.attribution.backward_rules import Rules
from hydrascope.analyses.attribution.gim import gim
from hydrascope.analyses.attribution.integrated_gradients import integrated_gradients

__all__ = ["Rules", "atp", "atp_star", "gim", "integrated_gradients"]
