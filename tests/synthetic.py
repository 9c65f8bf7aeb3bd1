"""Results of a run that never was: shaped like a real model's, with every answer known in closed form."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

PROMPTS = (
    "The Eiffel Tower is located in the city of",
    "Honus Wagner professionally plays the sport of",
    "In 1999, a loaf cost $3 and a pint $2; by 2009 the same loaf cost",
    "北京是中国的首都，东京是日本的首都，巴黎是",
    "Danielle Darrieux, who was born in the south-west and had a career of eight decades on stage and screen, "
    "grew up speaking her mother tongue, which is",
    "def f(x):\n\treturn x **",
)
STRING = np.dtypes.StringDType()
TARGETS = (" Paris", " baseball", " $", "法", " French", " 2")


def labels(layers: int) -> list[str]:
    """`attn.0`, `mlp.0`, `attn.1`, … in the order of results."""
    return [f"{kind}.{layer}" for layer in range(layers) for kind in ("attn", "mlp")]


def downstream(layers: int, parallel: bool = False) -> np.ndarray:
    """[ablated, component] Whether the component follows the ablated one."""
    index = np.arange(2 * layers)
    position = index // 2 if parallel else index
    return position[:, None] < position[None, :]


def response(layers: int) -> np.ndarray:
    """[ablated, component] The share of what is removed that each component restores, for a plausible model.

    A few attention layers on, one takes over much of the effect; the late MLPs stop erasing. Attention's part
    falls with depth, the MLPs' part grows: together about 0.7 in the middle of the network.
    """
    shares = np.zeros((2 * layers, 2 * layers))
    for ablated in range(2 * layers):
        depth = ablated / (2 * layers)
        backup = 2 * min(ablated // 2 + 1 + layers // 12, layers - 1)
        shares[ablated, backup] = 0.9 * np.sin(np.pi * depth) * (1 - depth)
        late = [mlp for mlp in range(1, 2 * layers, 2) if mlp > ablated and mlp >= layers]
        shares[ablated, late] = 0.9 * np.sin(np.pi * depth) * depth / max(len(late), 1)
    return shares


def results(
    layers: int = 6,
    prompts: int = 20,
    patches: int = 3,
    seed: int = 0,
    *,
    parallel: bool = False,
    ablated: Sequence[str] | None = None,
    shares: np.ndarray | None = None,
    noise: float = 0.3,
    patch_noise: float = 0.4,
    norm_share: float = 0.1,
) -> xr.Dataset:
    """A result in the format of a real run, float32, whose books balance.

    Per prompt, ablated component k, patch and component c downstream of k,
    `unembed_ablated` = `unembed` + `shares`[k, c] · removed + Gaussian noise, and `norm` = `norm_share` ·
    removed, where removed = `unembed`[k] less what the patch adds. So without noise the slope of CE on what
    is removed is exactly Σ_c `shares`[k, c].
    """
    rng = np.random.default_rng(seed)
    names = labels(layers)
    below = downstream(layers, parallel)
    shares = response(layers) if shares is None else shares
    depth = np.arange(2 * layers) / (2 * layers)
    is_mlp = np.arange(2 * layers) % 2 == 1

    # Attention peaks in the later middle, prompts differing much; late MLPs take part of it back.
    strength = rng.gamma(2.0, 0.8, size=(prompts, 1))
    shape = np.exp(-(((depth - 0.62) / 0.16) ** 2)) * rng.uniform(0.3, 1.7, size=(prompts, 2 * layers))
    unembed = np.where(is_mlp, 0.0, strength * shape) * min(1.0, 8 / layers) * 2
    pushed = unembed.sum(1, keepdims=True)
    unembed -= np.where(is_mlp & (depth > 0.7), 0.4 * pushed / layers * 3, 0.0)
    unembed += rng.normal(scale=0.15, size=unembed.shape)
    unembed[:, -1] += 4.0

    patch = rng.normal(scale=patch_noise, size=(prompts, 2 * layers, patches)) if patch_noise else 0.0
    removed = unembed[:, :, None] - np.broadcast_to(patch, (prompts, 2 * layers, patches))
    moved = removed[..., None] * shares[None, :, None, :]
    # Early layers break what follows: most of their noise is damage.
    spread = noise * 0.3 * (1 + 3 * np.exp(-8 * depth))[None, :, None, None]
    moved = moved + (rng.normal(size=moved.shape) * spread if noise else 0.0)
    moved = moved * below[None, :, None, :]
    norm = norm_share * removed
    change = moved.copy()
    own = np.arange(2 * layers)
    change[:, own, :, own] -= np.moveaxis(removed, 1, 0)
    total = change.sum(-1) + norm
    direct = -removed + norm / 2

    keep = [names.index(name) for name in (ablated or names)]
    source = (
        np.stack([rng.permutation(np.delete(np.arange(prompts), p))[:patches] for p in range(prompts)])
        if prompts > patches
        else np.full((prompts, patches), -1)
    )
    text = [PROMPTS[p % len(PROMPTS)] + ("" if p < len(PROMPTS) else f" ({p})") for p in range(prompts)]
    per_patch = ("prompt", "ablated", "patch")
    return xr.Dataset(
        {
            "unembed": (("prompt", "component"), unembed.astype(np.float32)),
            "unembed_ablated": (
                (*per_patch, "component"),
                (unembed[:, None, None, :] + change)[:, keep].astype(np.float32),
            ),
            "total": (per_patch, total[:, keep].astype(np.float32)),
            "direct": (per_patch, direct[:, keep].astype(np.float32)),
            "indirect": (per_patch, (total - direct)[:, keep].astype(np.float32)),
            "norm": (per_patch, norm[:, keep].astype(np.float32)),
            "downstream": (("ablated", "component"), below[keep]),
            "patch_prompt": (("prompt", "patch"), source),
            "target": ("prompt", np.arange(prompts)),
            "logit": ("prompt", (unembed.sum(1) + 2).astype(np.float32)),
            "imbalance": ("prompt", np.full(prompts, 1e-7, np.float32)),
        },
        coords={
            # As a stored result has them.
            "component": np.array(names, STRING),
            "ablated": np.array([names[i] for i in keep], STRING),
            "text": ("prompt", np.array(text, STRING)),
            "target_text": ("prompt", np.array([TARGETS[p % len(TARGETS)] for p in range(prompts)], STRING)),
        },
        attrs={
            "model": "synthetic",
            "ablation": "resample",
            "norm": "clean",
            "engine": "none",
            "dtype": "float32",
            "seed": seed,
        },
    )
