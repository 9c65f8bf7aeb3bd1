"""An analysis of features whose numbers are made by hand, so that its shares are known."""

import numpy as np
import xarray as xr

PARTS = ["sublayer", "features", "error", "bias"]
ABLATED = ["attn.0", "attn.1", "mlp.0"]
FEATURES = ["feature.mlp.1.7", "feature.mlp.1.12034"]
#: The shares of features, error and bias in the response of a sublayer, by ablation.
SHARES = np.array([[0.7, 0.2, 0.1], [1.4, -0.5, 0.1], [0.5, 0.5, 0.0]])
#: What freezing each part takes away of what freezing the sublayer does; these don't add up.
RESTORED = np.array([[0.6, 0.3, 0.0], [0.9, 0.9, 0.1], [-0.2, 1.0, 0.3]])


def made(prompts: int = 40) -> xr.Dataset:
    """Responses of two readouts; the last ablation's is nothing but noise around 0."""
    generator = np.random.default_rng(0)
    around = np.array([2.0, -1.0, 0.0])
    whole = around * generator.normal(1, 0.1, (2, prompts, 3)) * np.array([1.0, 3.0])[:, None, None]
    whole[..., 2] = generator.normal(0, 1, (2, prompts))
    whole[..., 2] -= whole[..., 2].mean(1, keepdims=True)
    parts = {"response": whole[..., None] * SHARES, "restored_by": 2 * whole[..., None] * RESTORED}
    sublayer = {"response": whole, "restored_by": 2 * whole}
    dims = ("readout", "prompt", "ablated", "part")
    arrays = {name: np.concatenate([sublayer[name][..., None], parts[name]], -1) for name in parts}
    singles = generator.normal([0.5, -2.0], 0.5, (2, prompts, 3, 2)) * np.array([1, 3, 2])[:, None]
    return xr.Dataset(
        {
            "removed": (dims[:3], generator.normal(1, 0.1, (2, prompts, 3))),
            **{name: (dims, values) for name, values in arrays.items()},
            "feature_unembed": (("readout", "prompt", "feature"), generator.normal(1, 0.1, (2, prompts, 2))),
            "feature_response": (("readout", "prompt", "ablated", "feature"), singles),
        },
        {
            "readout": ["logit", "probe"],
            "ablated": ABLATED,
            "part": PARTS,
            "feature": FEATURES,
            "text": ("prompt", [str(number) for number in range(prompts)]),
        },
        {"model": "tiny", "units": "logits", "chosen_on": 30, "ablation": "zero", "positions": "last"},
    )
