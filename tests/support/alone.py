"""One run, made alone by the reference engine: what experiments subtract."""

import hydrascope as hs

#: Of a few lengths.
PROMPTS = [[5, 6, 7, 8], [9, 10, 11], [12, 13, 14, 15, 16]]


def total(model, label: str):
    """[readout, prompt] its total effect, the mean over two patches."""
    made = hs.sweep(model, PROMPTS, hs.Resample(2, seed=3), ablate=[label], engine="reference")
    return made["total"].isel(ablated=0).mean("patch").values
