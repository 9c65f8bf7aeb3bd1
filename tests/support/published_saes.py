"""SAELens' published forward pass, and random weights under its names."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

IN, FEATURES, OUT = 6, 10, 4


def random_weights(architecture: str, seed: int, features: int = FEATURES, *, whole: bool = False) -> dict[str, Tensor]:
    """Weights under SAELens' names in float64; whole numbers, if asked for, which make ties."""
    generator = np.random.default_rng(seed)
    outputs = OUT if "transcoder" in architecture else IN
    shapes = {"W_enc": (IN, features), "W_dec": (features, outputs), "b_enc": (features,), "b_dec": (outputs,)}
    if "jumprelu" in architecture:
        shapes["threshold"] = (features,)
    if "skip" in architecture:
        shapes["W_skip"] = (outputs, IN)
    draw = (lambda shape: generator.integers(-2, 3, shape)) if whole else (lambda shape: generator.normal(size=shape))
    weights = {key: torch.tensor(draw(shape), dtype=torch.float64) for key, shape in shapes.items()}
    if "batchtopk" in architecture:
        weights["topk_threshold"] = torch.tensor(1.5, dtype=torch.float64)
    return weights


def published(cfg: dict[str, Any], weights: dict[str, Tensor], x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute SAELens' published forward pass in float64.

    Returns:
        the writes of features, `[row, feature, output]`, and the output.
    """
    w = {key: weight.double().numpy() for key, weight in weights.items()}
    sae_in = x - w["b_dec"] * cfg["apply_b_dec_to_input"] if cfg["apply_b_dec_to_input"] else x
    hidden = sae_in @ w["W_enc"] + w["b_enc"]
    norms = (
        np.linalg.norm(w["W_dec"], axis=-1) if cfg.get("rescale_acts_by_decoder_norm") else np.ones(hidden.shape[-1])
    )
    hidden = hidden * norms
    architecture = cfg["architecture"]
    if architecture == "topk":
        kept = np.zeros(hidden.shape)
        for row, values in enumerate(hidden):
            for unit in sorted(range(len(values)), key=lambda unit: (-values[unit], unit))[: cfg["k"]]:
                kept[row, unit] = 1
        acts = np.maximum(hidden, 0) * kept
    elif "batchtopk" in architecture:
        acts = np.maximum(hidden, 0) * (hidden > w["topk_threshold"])
    elif "jumprelu" in architecture:
        acts = np.maximum(hidden, 0) * (hidden > w["threshold"])
    else:
        acts = np.maximum(hidden, 0)
    writes = (acts / norms)[..., None] * w["W_dec"] * w.get("scaling_factor", np.ones(hidden.shape[-1]))[:, None]
    out = writes.sum(-2) + w["b_dec"]
    return writes, out + x @ w["W_skip"].T if "W_skip" in w else out
