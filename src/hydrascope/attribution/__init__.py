"""Attribution methods: what gradients say of the total effects that `hydrascope.sweep` measures exactly.

Every method takes the arguments of `sweep`, draws the very same patches, and gives `estimate` [readout, prompt,
ablated], the mean over patches of what it takes `total` to be, so that the two can be set side by side:

    exact = hs.sweep(model, prompts, hs.Resample(5), ablate="heads")
    guess = hs.attribution.atp(model, prompts, hs.Resample(5), ablate="heads")
    hs.measures.scores(exact, {"atp": guess})
"""

from hydrascope.attribution.atp import atp
from hydrascope.attribution.atp_star import atp_star
from hydrascope.attribution.gim import gim
from hydrascope.attribution.integrated_gradients import integrated_gradients
from hydrascope.attribution.rules import Rules

__all__ = ["Rules", "atp", "atp_star", "gim", "integrated_gradients"]
