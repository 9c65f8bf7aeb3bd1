"""The books of an estimate's error: what it leaves of each term, and shares of the squared error.

An ablation changes a readout by the sum of four terms: responses of downstream attention and of downstream MLPs, the
final norm, and the component's own write. An estimate predicts each of them; t_i is what it leaves of term i, and the
error is Σ t_i. In the game in which the terms of a set S are left, worth (Σ_S t)², the Shapley value of term i is
t_i · error: shares of Σ error² add up to one, and one is negative where a term makes up for others.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import permutations

import numpy as np
import xarray as xr

from hydrascope.measures import Sigma, by_patch, select_readout

#: The terms whose sum is the total effect.
TERMS = ("attention", "mlp", "norm", "own")
#: The terms that are responses of downstream sublayers.
RESPONSES = ["attention", "mlp"]


def changes(results: xr.Dataset, readout: str, sigma: Sigma, doses: Sequence[float]) -> xr.Dataset:
    """Return the change of each term at each dose.

    Args:
        results: of a sweep that kept each patch; its patches are doses.
        readout: the name of the readout.
        sigma: the scale at which ablated passes are read: that of the clean pass, or their own.
        doses: the doses in the order of the patches.

    Returns:
        `change` [term, prompt, ablated, dose], in the readout's unit, in float64; `total` [prompt, ablated, dose];
        `unembed` [prompt, ablated], the clean write of the ablated sublayer on the readout; `response`
        [prompt, ablated, dose, component], the responses of downstream sublayers apart.
    """
    chosen = select_readout(results, readout).load()
    after = by_patch(results, readout, sigma)
    assert after is not None
    clean = chosen["unembed"].astype(np.float64).transpose("prompt", "component")
    own = chosen["ablated"] == chosen["component"]
    change = after - clean
    response = change.where(chosen["downstream"].astype(bool), 0)
    kind = chosen["component_kind"].values.astype(str)
    scale = chosen["scale"].astype(np.float64)
    if sigma == "clean":
        fixed = after.sum("component")
    else:
        fixed = clean.where(~own & ~chosen["downstream"].astype(bool), 0).sum("component")
    terms = {
        "attention": response.isel(component=kind == "attn").sum("component"),
        "mlp": response.isel(component=kind == "mlp").sum("component"),
        "norm": (scale - 1) * (chosen["embed"].astype(np.float64) + fixed),
        "own": change.where(own, 0).sum("component"),
    }
    found = xr.Dataset(
        {
            "change": xr.concat([terms[name] for name in TERMS], "term", coords="minimal", compat="override"),
            "total": chosen["total"].astype(np.float64),
            "unembed": clean.where(own, 0).sum("component"),
            "response": response,
        }
    )
    plain = found.drop_vars([name for name in found.coords if name not in ("ablated", "component")])
    named = plain.assign_coords(term=list(TERMS), component_kind=("component", kind))
    named = named.rename(patch="dose").assign_coords(dose=list(doses)).sortby("dose")
    return named.transpose("term", "prompt", "ablated", "dose", ...)


def slope(values: xr.DataArray, dose: float, epsilon: float) -> xr.DataArray:
    """Return the derivative by the dose, from the doses on either side."""
    above, below = (values.sel(dose=dose + side * epsilon, method="nearest", tolerance=1e-6) for side in (1, -1))
    return (above - below) / (2 * epsilon)


def predicted_by_doses(found: xr.Dataset, steps: Sequence[float], epsilon: float) -> xr.DataArray:
    """Return what gradients at some doses predict of each term: −mean derivative, `[term, prompt, ablated]`.

    AtP has the gradient at dose 1, integrated gradients those at midpoints.
    """
    return -sum(slope(found["change"], step, epsilon) for step in steps) / len(steps)


def predicted_by_lens(found: xr.Dataset) -> xr.DataArray:
    """Return what the logit lens predicts of each term: −unembed of the own write, nothing of the others."""
    return xr.where(found["change"]["term"] == "own", -found["unembed"], 0).transpose("term", ...)


def left_by(found: xr.Dataset, predicted: xr.DataArray) -> xr.Dataset:
    """Return sums of squares of one estimate's error.

    Args:
        found: from `changes`.
        predicted: the estimate of each term, `[term, prompt, ablated]`.

    Returns:
        each [prompt, ablated]: `error`, `error²`, `total²`; `product` [term, …], whose sum over terms is `error²`;
        `given back`, the part of the responses' product in which they act against the sublayer's own change, so that
        more comes back, or less is lost, than was predicted; `without responses²`, the squared error if all responses
        were predicted; `imbalance`, |Σ t − error|, which the books allow for rounding alone.
    """
    whole = found.sel(dose=0)
    left = whole["change"] - predicted
    error = whole["total"] - predicted.sum("term")
    responses = left.sel(term=RESPONSES).sum("term")
    gives_back = responses * whole["change"].sel(term="own", drop=True) < 0
    return xr.Dataset(
        {
            "error": error,
            "product": left * error,
            "given back": (responses * error).where(gives_back, 0),
            "error²": error**2,
            "total²": whole["total"] ** 2,
            "without responses²": (error - responses) ** 2,
            "imbalance": abs(left.sum("term") - error),
        }
    )


def brakes_left(found: xr.Dataset, steps: Sequence[float], epsilon: float, brakes: Sequence[str]) -> xr.DataArray:
    """Return what an estimate leaves of the responses of some sublayers, `[prompt, ablated]`.

    Args:
        found: from `changes`.
        steps: the doses at which gradients are taken; none for the logit lens.
        epsilon: the width of the derivative.
        brakes: the sublayers.
    """
    response = found["response"].isel(component=np.isin(found["component"].values.astype(str), list(brakes)))
    response = response.sum("component")
    return response.sel(dose=0) + sum(slope(response, step, epsilon) for step in steps) / max(len(steps), 1)


def shapley(terms: Sequence[float], worth: Callable[[float], float] = np.square) -> list[float]:
    """Return the Shapley value of each term in the game of their sums, by enumeration.

    >>> shapley([1.0, 2.0])
    [3.0, 6.0]
    """
    orders = list(permutations(range(len(terms))))
    values = np.zeros(len(terms))
    for order in orders:
        before = 0.0
        for place in order:
            values[place] += worth(before + terms[place]) - worth(before)
            before += terms[place]
    return [float(each) for each in values / len(orders)]


def in_blocks(sums: xr.Dataset, blocks: Sequence[int]) -> xr.Dataset:
    """Return means over the prompts of each block, summed over ablations: [prompt, …], a prompt being a block."""
    summed = sums.drop_vars("imbalance", errors="ignore").sum("ablated")
    grouped = summed.groupby(xr.DataArray(np.asarray(blocks), dims="prompt", name="block")).mean()
    return grouped.rename(block="prompt").drop_vars("prompt")


def pooled(each: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """Return sums of several sets, each [prompt, …], along a dimension `set`."""
    return xr.concat([*each.values()], xr.Variable("set", np.array(list(each), object)))


def shares(means: xr.Dataset) -> xr.Dataset:
    """Return shares of the squared error: of each term, of all responses, and what is left relative to Σ total².

    Args:
        means: sums of squares, along any dimensions; those of a dimension `set` are shared out before the mean.

    Returns:
        the terms; `responses`, their share, and its parts `given back` and `taken`, with their difference; `beyond
        responses`, what would be left of Σ error² if they were predicted; `size`, Σ error² / Σ total²; `brakes`, the
        share of brakes' responses, where they are told apart.
    """
    parts = means["product"] / means["error²"]
    found = xr.Dataset({name: parts.sel(term=name, drop=True) for name in TERMS})
    found["responses"] = parts.sel(term=RESPONSES).sum("term")
    found["mlp − attention"] = found["mlp"] - found["attention"]
    found["given back"] = means["given back"] / means["error²"]
    found["taken"] = found["responses"] - found["given back"]
    found["taken − given back"] = found["taken"] - found["given back"]
    found["beyond responses"] = means["without responses²"] / means["error²"]
    found["size"] = means["error²"] / means["total²"]
    if "brakes" in means:
        found["brakes"] = means["brakes"] / means["error²"]
    return found.mean("set") if "set" in found.dims else found


def by_t(sums: xr.Dataset, confidence: float) -> list[float]:
    """Return the share of responses with a t interval over blocks, of the ratio made linear in each set.

    Args:
        sums: [prompt, set, …], as `pooled` gives them.
        confidence: the confidence level.
    """
    from scipy.special import stdtrit

    above = sums["product"].sel(term=RESPONSES).sum("term")
    below = sums["error²"]
    share = above.mean("prompt") / below.mean("prompt")
    influence = ((above - share * below) / below.mean("prompt")).mean("set").values
    count, estimate = len(influence), float(share.mean("set"))
    half = float(-stdtrit(count - 1, (1 - confidence) / 2) * influence.std(ddof=1) / np.sqrt(count))
    return [estimate, estimate - half, estimate + half]
