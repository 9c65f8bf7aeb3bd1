"""Results of a run that never was: shaped like a real model's, with every answer known in closed form."""

import re
from collections.abc import Mapping, Sequence

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
STRING = object
TARGETS = (" Paris", " baseball", " $", "法", " French", " 2")
HOLDER = {"attn": "attn", "head": "attn", "mlp": "mlp", "neuron": "mlp"}


def labels(layers: int) -> list[str]:
    """`attn.0`, `mlp.0`, `attn.1`, … in the order of results."""
    return [f"{kind}.{block}" for block in range(layers) for kind in ("attn", "mlp")]


def head_labels(layers: int, heads: int) -> list[str]:
    """`head.0.0`, `head.0.1`, … in the order of results."""
    return [f"head.{block}.{head}" for block in range(layers) for head in range(heads)]


def downstream(layers: int, parallel: bool = False) -> np.ndarray:
    """[ablated, component] Whether the sublayer follows the ablated one."""
    index = np.arange(2 * layers)
    position = index // 2 if parallel else index
    return position[:, None] < position[None, :]


def response(layers: int) -> np.ndarray:
    """[ablated, component] The share of what is removed that each sublayer restores, for a plausible model.

    A few attention sublayers on, one takes over much of the effect; the late MLPs stop erasing. Attention's share
    falls with depth, the MLPs' share grows: together about 0.7 in the middle of the network.
    """
    shares = np.zeros((2 * layers, 2 * layers))
    for ablated in range(2 * layers):
        depth = ablated / (2 * layers)
        backup = 2 * min(ablated // 2 + 1 + layers // 12, layers - 1)
        shares[ablated, backup] = 0.9 * np.sin(np.pi * depth) * (1 - depth)
        late = [mlp for mlp in range(1, 2 * layers, 2) if mlp > ablated and mlp >= layers]
        shares[ablated, late] = 0.9 * np.sin(np.pi * depth) * depth / max(len(late), 1)
    return shares


def parts_of(label: str) -> list[str]:
    """What a run ablates: `attn.1` and `mlp.2` of `attn.1+mlp.2`; `attn.1` of `attn.1|mlp.2`."""
    return label.split("|")[0].split("+")


def holder(part: str) -> str:
    """The sublayer that a component belongs to."""
    kind, layer = part.split(".")[:2]
    return f"{HOLDER[kind]}.{layer}"


def _joint(label: str) -> list:
    """As of a stored result: the block of several components is the lowest with an ablated one."""
    return ["joint", min(int(each.split(".")[1]) for each in label.split("|")[0].split("+")), -1]


def coordinates(dim: str, names: Sequence[str]) -> dict[str, tuple[str, np.ndarray]]:
    """The coordinates of `component` or `ablated`."""
    split = [_joint(name) if set(name) & set("+|") else [*name.split("."), -1][:3] for name in names]
    return {
        dim: (dim, np.array(names, STRING)),
        f"{dim}_kind": (dim, np.array([kind for kind, _, _ in split], STRING)),
        f"{dim}_block": (dim, np.array([int(layer) for _, layer, _ in split])),
        f"{dim}_unit": (dim, np.array([int(unit) for _, _, unit in split])),
    }


def tokens(texts: Sequence[str], kind: type | np.dtype = STRING) -> dict[str, tuple]:
    """The coordinates that tell each prompt's tokens: up to six letters each. The last is ablated; every other prompt
    has its second and third for a subject, if it has so many.
    """
    each = [re.findall(r"\s?\S{1,6}|\s", text) or [""] for text in texts]
    width = max(map(len, each))
    ends = np.array([len(own) for own in each])
    ids = np.where(np.arange(width) < ends[:, None], np.arange(width), -1)
    has = (ends > 2) & (np.arange(len(each)) % 2 == 0)
    subjects = ["".join(own[1:3]).strip() if good else "" for own, good in zip(each, has, strict=True)]
    return {
        "subject": ("prompt", np.array(subjects, kind)),
        "token_id": (("prompt", "token"), ids),
        "token_text": (("prompt", "token"), np.array([[*own, *[""] * (width - len(own))] for own in each], kind)),
        "token_ablated": (("prompt", "token"), np.arange(width) == ends[:, None] - 1),
        "subject_first": ("prompt", np.where(has, 1, -1)),
        "subject_end": ("prompt", np.where(has, 3, -1)),
    }


def pairs(parts: Sequence[str], prompts: int, seed: int = 0) -> xr.Dataset:
    """Effects of all pairs of `parts`, as a run of `hydrascope.Interactions` keeps them: the first covers for each."""
    rng, count = np.random.default_rng(seed), len(parts)
    one, other = np.triu_indices(count, 1)
    alone = rng.normal(-1, 0.3, (prompts, count))
    together = alone[:, one] + alone[:, other] + rng.normal(0, 0.2, (prompts, len(one))) - 0.5 * (one == 0)
    base = results(1, prompts, 1, by_patch=False)
    kept = base.drop_vars(["unembed_ablated", "unembed_ablated_own"]).isel(ablated=[0])
    runs = [*parts, *(f"{parts[i]}+{parts[j]}" for i, j in zip(one, other, strict=True))]
    total = np.concatenate([alone, together], 1)[None, :, :, None].astype(np.float32)
    wide = kept.isel(ablated=np.zeros(len(runs), int)).assign_coords(coordinates("ablated", runs))
    effects = {name: (wide["total"].dims, values) for name, values in (("total", total), ("direct", 1.2 * total))}
    return wide.assign(effects).assign_attrs(experiment="interactions", keep="effects", heads=12, parallel=False)


def world(
    rng: np.random.Generator,
    layers: int,
    prompts: int,
    patches: int,
    runs: Sequence[str],
    heads: int,
    shares: np.ndarray,
    noise: float,
    patch_noise: float,
    below: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """One readout: `unembed` [prompt, component] of sublayers, then heads; what every run removes [prompt, run, patch];
    by how much every run changes the sublayers, and the heads [prompt, run, patch, component].
    """
    names = labels(layers)
    count = 2 * layers
    depth = np.arange(count) / count
    is_mlp = np.arange(count) % 2 == 1

    # Attention peaks in the later middle, prompts differing much; late MLPs take part of it back.
    strength = rng.gamma(2.0, 0.8, size=(prompts, 1))
    shape = np.exp(-(((depth - 0.62) / 0.16) ** 2)) * rng.uniform(0.3, 1.7, size=(prompts, count))
    unembed = np.where(is_mlp, 0.0, strength * shape) * min(1.0, 8 / layers) * 2
    pushed = unembed.sum(1, keepdims=True)
    unembed -= np.where(is_mlp & (depth > 0.7), 0.4 * pushed / layers * 3, 0.0)
    unembed += rng.normal(scale=0.15, size=unembed.shape)
    unembed[:, -1] += 4.0

    patch = rng.normal(scale=patch_noise, size=(prompts, count, patches)) if patch_noise else np.zeros(1)
    patch = np.broadcast_to(patch, (prompts, count, patches))
    wobble = rng.normal(size=(prompts, count, patches, count)) if noise else np.zeros(1)
    wobble = np.broadcast_to(wobble, (prompts, count, patches, count))
    # What each head writes is a share of what its sublayer writes, and the rest is the bias.
    weights = rng.uniform(0.2, 1.8, size=(layers, heads)) / max(heads, 1)
    of_heads = (unembed[:, 0::2, None] * weights).reshape(prompts, -1)
    clean = dict(zip([*names, *head_labels(layers, heads)], [*unembed.T, *of_heads.T], strict=True))

    # Early sublayers break what follows: most of their noise is damage.
    spread = noise * 0.3 * (1 + 3 * np.exp(-8 * depth))
    removed = np.zeros((prompts, len(runs), patches))
    change = np.zeros((prompts, len(runs), patches, count))
    change_heads = np.zeros((prompts, len(runs), patches, layers, heads))
    for r, run in enumerate(runs):
        parts = parts_of(run)
        held = {holder(part): names.index(holder(part)) for part in parts}
        for part in parts:
            own = names.index(holder(part))
            taken = clean[part][:, None] - patch[:, own]
            removed[:, r] += taken
            change[:, r] += (taken[..., None] * shares[own] + wobble[:, own] * spread[own]) * below[own]
        # Ablated and frozen sublayers answer to nothing.
        frozen = [names.index(part) for part in run.split("|")[1].split("+")] if "|" in run else []
        change[:, r][..., [*(i for name, i in held.items() if name in parts), *frozen]] = 0
        change_heads[:, r] = change[:, r][..., 0::2, None] * weights
        for part in parts:
            own = names.index(holder(part))
            taken = clean[part][:, None] - patch[:, own]
            change[:, r, :, own] -= taken
            if part.startswith("attn"):
                change_heads[:, r, :, own // 2] -= taken[..., None] * weights[own // 2]
            elif part.startswith("head"):
                change_heads[:, r, :, own // 2, int(part.split(".")[2])] -= taken
    flat = change_heads.reshape(prompts, len(runs), patches, -1)
    return np.concatenate([unembed, of_heads], 1), removed, change, flat


def results(
    layers: int = 6,
    prompts: int = 20,
    patches: int = 3,
    seed: int = 0,
    *,
    parallel: bool = False,
    ablated: Sequence[str] | None = None,
    heads: int = 0,
    read_heads: bool = True,
    readouts: Mapping[str, int] | None = None,
    metrics: Sequence[str] = (),
    by_patch: bool = True,
    shares: np.ndarray | None = None,
    noise: float = 0.3,
    patch_noise: float = 0.4,
    norm_share: float = 0.1,
    dtype: str = "float32",
) -> xr.Dataset:
    """A result in the format of a real run, which balances in both readings of σ.

    Per prompt, ablated sublayer or head k, patch and sublayer c downstream of k, on the first readout,
    `unembed_ablated` = `unembed` + `shares`[k's sublayer, c] · removed + Gaussian noise, and at the clean σ the norm's
    share is `norm_share` · removed, where removed = `unembed`[k] less what the patch adds. So without noise the slope
    of CE on what is removed is exactly Σ_c `shares`[k, c]. Half of the norm's share is direct.

    Args:
        ablated: labels of what is ablated, joint ablations of sublayers among them; by default all sublayers, and all
            heads where there are any.
        heads: how many each attention sublayer has; `read_heads`: whether they are read, too.
        readouts: from each readout's label to the block before which it is read, −1 for the final residual
            stream. Each is a network of its own with the same final norm; the first must be read at the end.
    """
    readouts = readouts or {"logit": -1}
    below = downstream(layers, parallel)
    shares = response(layers) if shares is None else shares
    layer_names, head_names = labels(layers), head_labels(layers, heads)
    runs = list(ablated or [*layer_names, *head_names])
    names = [*layer_names, *(head_names if read_heads else [])]
    rng = np.random.default_rng(seed)
    size = (layers, prompts, patches, runs, heads, shares, noise, patch_noise, below)
    worlds = [world(rng, *size) for _ in readouts]

    unembed, removed, change, _ = worlds[0]
    embed = np.full(prompts, 20.0)
    # So that (s − 1)(e + Σ u^k) is the norm's share.
    whole = embed[:, None, None] + unembed[:, None, None, : 2 * layers].sum(-1) + change.sum(-1)
    scale = (1 + norm_share * removed / whole).astype(dtype).astype(np.float64)

    measured = {name: [] for name in ("unembed", "clean", "own", "by_patch", "total", "direct", "embed", "logit")}
    layer_of = np.array([int(name.split(".")[1]) for name in names])
    for i, (before, (unembed, removed, change, change_heads)) in enumerate(zip(readouts.values(), worlds, strict=True)):
        s = scale if before < 0 else np.ones_like(scale)
        seen = (layer_of < before) | (before < 0)
        clean = np.where(seen, unembed[:, : len(names)], 0)
        moved = np.concatenate([change, change_heads], -1)[..., : len(names)]
        after = np.where(seen, clean[:, None, None] + moved, 0)
        e = embed - 3.0 * i
        of_layers = after[..., : 2 * layers].sum(-1)
        total = s * (e[:, None, None] + of_layers) - (e + clean[:, : 2 * layers].sum(1))[:, None, None]
        norm = (s - 1) * (e[:, None, None] + of_layers)
        reached = [all(layer_of[names.index(holder(p))] < before or before < 0 for p in parts_of(run)) for run in runs]
        measured["unembed"].append(clean)
        measured["clean"].append(after.mean(2))
        measured["own"].append((s[..., None] * after).mean(2))
        measured["by_patch"].append(after)
        measured["total"].append(total)
        measured["direct"].append(np.where(np.array(reached)[:, None], -removed + norm / 2, 0))
        measured["embed"].append(e)
        measured["logit"].append(e + clean[:, : 2 * layers].sum(1) + 2)
    stacked = {name: np.stack(values).astype(dtype) for name, values in measured.items()}

    source = (
        np.stack([rng.permutation(np.delete(np.arange(prompts), p))[:patches] for p in range(prompts)])
        if prompts > patches
        else np.full((prompts, patches), -1)
    )
    text = [PROMPTS[p % len(PROMPTS)] + ("" if p < len(PROMPTS) else f" ({p})") for p in range(prompts)]
    follows = {
        (run, name): any(below[layer_names.index(holder(p)), layer_names.index(holder(name))] for p in parts_of(run))
        for run in runs
        for name in names
    }
    per_patch = ("readout", "prompt", "ablated", "patch")
    variables = {
        "unembed": (("readout", "prompt", "component"), stacked["unembed"]),
        "unembed_ablated": (("readout", "prompt", "ablated", "component"), stacked["clean"]),
        "unembed_ablated_own": (("readout", "prompt", "ablated", "component"), stacked["own"]),
        "unembed_ablated_by_patch": ((*per_patch, "component"), stacked["by_patch"]),
        "total": (per_patch, stacked["total"]),
        "direct": (per_patch, stacked["direct"]),
        "indirect": (per_patch, stacked["total"] - stacked["direct"]),
        "scale": (per_patch[1:], scale.astype(dtype)),
        "logit": (("readout", "prompt"), stacked["logit"]),
        "embed": (("readout", "prompt"), stacked["embed"]),
        "downstream": (("ablated", "component"), np.array([[follows[run, name] for name in names] for run in runs])),
        "patch_prompt": (("prompt", "patch"), source),
        "target": ("prompt", np.arange(prompts)),
        "imbalance": ("prompt", np.full(prompts, 1e-7, np.float32)),
    }
    if not by_patch:
        del variables["unembed_ablated_by_patch"]
    if metrics:
        shape = (len(metrics), prompts, len(runs), patches)
        values = rng.integers(0, 4, size=shape) if metrics == ("top",) else rng.normal(size=shape)
        variables["metric_clean"] = (("metric", "prompt"), values[:, :, 0, 0].astype(dtype))
        variables["metric_ablated"] = (("metric", *per_patch[1:]), values.astype(dtype))
    return xr.Dataset(
        {name: (*value, {"long_name": name, "units": "logits"}) for name, value in variables.items()},
        coords={
            # As a stored result has them.
            **coordinates("component", names),
            **coordinates("ablated", runs),
            "readout": np.array(list(readouts), STRING),
            "readout_before": ("readout", np.array(list(readouts.values()))),
            **({"metric": np.array(list(metrics), STRING)} if metrics else {}),
            "text": ("prompt", np.array(text, STRING)),
            "target_text": ("prompt", np.array([TARGETS[p % len(TARGETS)] for p in range(prompts)], STRING)),
            **tokens(text),
        },
        attrs={
            "format": 3,
            "model": "synthetic",
            "ablation": "resample",
            "patch_source": "another prompt",
            "positions": "last",
            "engine": "none",
            "dtype": dtype,
            "seed": seed,
            "depth": layers,
        },
    )
