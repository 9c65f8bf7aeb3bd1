"""Write small dictionaries as other tools write them, and compare one that is read."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from hydrascope.dictionaries.dictionary import Dictionary

IN, FEATURES = 6, 10
ROWS = np.random.default_rng(0).normal(size=(30, IN))

#: Settings of SAELens from version 6 on.
NEW = {
    "architecture": "standard",
    "d_in": IN,
    "d_sae": FEATURES,
    "dtype": "float32",
    "apply_b_dec_to_input": True,
    "normalize_activations": "none",
    "reshape_activations": "none",
    "metadata": {"sae_lens_version": "6.2.0", "hook_name": "blocks.4.hook_resid_post", "prepend_bos": False},
}

#: The shapes of Gemma Scope's weights.
GEMMA = {
    "W_enc": (IN, FEATURES),
    "W_dec": (FEATURES, IN),
    "b_enc": (FEATURES,),
    "b_dec": (IN,),
    "threshold": (FEATURES,),
}


def random(*shape: int, seed: int = 0) -> Tensor:
    """Return normal numbers in float64, the same for a shape and a seed."""
    return torch.tensor(np.random.default_rng([seed, *shape]).normal(size=shape))


def require_output(found: Dictionary, acts: np.ndarray, decoder: Tensor, rest: np.ndarray | Tensor) -> None:
    """Compare the features' writes and the rest with numbers from plain numpy."""
    x = torch.from_numpy(ROWS)
    assert 0 < (acts > 0).sum() < acts.size
    np.testing.assert_allclose(found.encode(x).numpy(), acts, atol=1e-12)
    np.testing.assert_allclose(found.decoder.numpy(), decoder.numpy())
    np.testing.assert_allclose(found.rest(x).numpy(), np.broadcast_to(rest, (len(ROWS), found.outputs)), atol=1e-12)


def small(**more: Any) -> Dictionary:
    """Return a dictionary of random weights at an MLP."""
    return Dictionary("mlp.1", encoder=random(FEATURES, IN), decoder=random(FEATURES, IN), **more)


def saelens(folder: Path, config: dict[str, Any], **more: Tensor) -> dict[str, Tensor]:
    """Write a folder of SAELens, and return its weights."""
    weights = {
        "W_enc": random(IN, FEATURES),
        "W_dec": random(FEATURES, IN),
        "b_enc": random(FEATURES),
        "b_dec": random(IN),
    }
    weights |= more
    save_file({key: weight.contiguous() for key, weight in weights.items()}, folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(json.dumps(config))
    return weights


def circuit_tracer(folder: Path, config: dict[str, Any], **more: Tensor) -> dict[str, Tensor]:
    """Write a folder of circuit-tracer, and return the weights of its two layers.

    It has as many features as inputs, so that only the format says which way W_enc lies.
    """
    weights = {key: random(*shape, seed=3) for key, shape in {
        "W_enc": (IN, IN), "W_dec": (IN, IN), "b_enc": (IN,), "b_dec": (IN,), "W_skip": (IN, IN)}.items()}  # fmt: skip
    weights["W_dec"] = random(IN, IN, seed=4)
    weights["W_skip"] = random(IN, IN, seed=5)
    weights |= more
    for layer in range(2):
        save_file({key: weight + layer if key == "b_dec" else weight for key, weight in weights.items()},
                  folder / f"layer_{layer}.safetensors")  # fmt: skip
    lines = {"model_kind": "transcoder_set", "feature_output_hook": "hook_mlp_out", **config}
    (folder / "config.yaml").write_text("\n".join(f"{key}: {value}" for key, value in lines.items()))
    return weights


def gemma_scope(**renamed: str) -> dict[str, Tensor]:
    """Return weights under the names of Gemma Scope, some renamed."""
    weights = {renamed.get(key, key): random(*shape, seed=7) for key, shape in GEMMA.items()}
    weights["threshold"].abs_()
    return weights
