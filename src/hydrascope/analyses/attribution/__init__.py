"""Attribution methods: what gradients say of the total effects that `hydrascope.sweep` measures exactly.

Every method takes the arguments of `sweep`, draws the very same patches, and gives `estimate` [readout, prompt,
ablated], the mean over patches of what it takes `total` to be, so that the two can be set side by side:

    exact = hs.sweep(model, prompts, hs.Resample(5), ablate="heads")
    guess = hs.analyses.attribution.atp(model, prompts, hs.Resample(5), ablate="heads")
    hs.measures.scores(exact, {"atp": guess})
"""

from hydrascope.analyses.attribution.atp import atp
from hydrascope.analyses.attribution.atp_star import atp_star
from hydrascope.analyses.attribution.backward_rules import Rules
from hydrascope.analyses.attribution.gim import gim
from hydrascope.analyses.attribution.integrated_gradients import integrated_gradients

__all__ = ["Rules", "atp", "atp_star", "gim", "integrated_gradients"]
