"""Shares of a response that sets of terms explain, over tokens and over the whole vocabulary.

Terms are collinear, so nothing is given to one of them in an order: a share is R² of a set alone, and what is unique to
a set is what R² loses without it. Squares are summed over prompts before they are divided.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import xarray as xr
from jaxtyping import Float

from hydrascope.measures import Bootstrap, interval

#: The sets of terms, by name.
SETS: dict[str, tuple[str, ...]] = {
    "both": ("common", "log_frequency"),
    "common": ("common",),
    "log_frequency": ("log_frequency",),
    "token": ("token",),
    "profile": ("profile",),
    "outside": ("outside",),
    "both+token": ("common", "log_frequency", "token"),
    "both+profile": ("common", "log_frequency", "profile"),
    "logit": ("logit",),
    "both+logit": ("common", "log_frequency", "logit"),
}
Batch = Mapping[str, np.ndarray]
Terms = Mapping[str, Float[np.ndarray, "token"]]


def explained(
    responses: Float[np.ndarray, "row token"], terms: Sequence[Float[np.ndarray, "token"]]
) -> Float[np.ndarray, "row"]:
    """Return the sum of squares about the mean that terms and a constant explain, by least squares.

    >>> explained(np.array([[1.0, 2.0, 3.0, 4.0]]), [np.array([0.0, 2.0, 4.0, 6.0])])
    array([5.])

    Args:
        responses: the values over tokens.
        terms: the regressors.
    """
    basis = np.linalg.qr(np.stack([term - term.mean() for term in terms], 1))[0]
    return np.asarray((((responses - responses.mean(1, keepdims=True)) @ basis) ** 2).sum(1))


def predicted(
    responses: Float[np.ndarray, "row token"], terms: Sequence[Float[np.ndarray, "token"]], place: int
) -> Float[np.ndarray, "row"]:
    """Return the value at one token as terms and a constant predict it, fitted on the other tokens.

    Args:
        responses: the values over tokens.
        terms: the regressors.
        place: the place of the token.
    """
    design = np.stack([np.ones_like(terms[0]), *terms], 1)
    others = np.arange(len(design)) != place
    fitted = np.linalg.lstsq(design[others], responses[:, others].T, rcond=None)[0]
    return np.asarray(design[place] @ fitted)


def terms_of(batch: Batch, prompt: int, way: int, common: Float[np.ndarray, "width"]) -> dict[str, np.ndarray]:
    """Return the terms of one prompt and one direction, each `[token]`; without `token` for a random direction."""
    profile, along = batch["profile"][prompt, way].astype(float), float(batch["unit"][prompt, way] @ common)
    mode = batch["common"][prompt].astype(float)
    terms = {
        "common": mode,
        "log_frequency": batch["log_frequency"][prompt],
        "logit": batch["logit"][prompt].astype(float),
        "profile": profile,
        "outside": profile - along * mode,
    }
    token = batch["way_token"][prompt, way]
    return terms | ({"token": (batch["token"][prompt] == token).astype(float)} if token >= 0 else {})


def squares(folder: Path) -> xr.Dataset:
    """Return the sums of squares of one run, read from its folder.

    Returns:
        `total` and, for each set of `SETS`, what it explains: [prompt, way, pushed, part], the parts being the late
        MLPs and all together. `push …` [prompt, way] are those of the push itself, `written …` [prompt, part] those of
        what is written in the clean pass, `vocabulary …` [prompt, way, pushed] those of the response over all tokens,
        with `even`, the energy of its even part. `common damped`, `common pushed`, `rest damped` and `rest pushed` are
        products of the response with the push and of the push with itself, along the common mode and beside it. `taken`
        and `foreseen` [prompt, way, pushed] are −response · push at the pushed token, as it is and as `both` predict it
        from the other tokens, `push²` the push squared.
    """
    vocabulary = dict(np.load(folder / "vocabulary.npz"))
    found = [
        _squares_of(batch, prompt, vocabulary)
        for batch in batches(folder)
        for prompt in np.argsort(batch["index"], kind="stable")
    ]
    order = np.concatenate([np.sort(batch["index"]) for batch in batches(folder)])
    return xr.concat(found, "prompt").isel(prompt=np.argsort(order, kind="stable"))


def batches(folder: Path) -> Iterator[Batch]:
    """Yield the stored batches of a run."""
    for path in sorted(folder.glob("[0-9]*.npz")):
        if ".part" not in path.name:
            yield dict(np.load(path))


def _squares_of(batch: Batch, prompt: int, vocabulary: Batch) -> xr.Dataset:
    response = batch["response"][prompt].astype(float)
    response = np.concatenate([response, response.sum(2, keepdims=True)], 2)
    ways, pushed, parts, count = response.shape
    common = vocabulary["common"]
    sums = {name: np.full((ways, pushed, parts), np.nan) for name in ("total", *SETS)}
    pushes = {name: np.full(ways, np.nan) for name in ("total", *SETS)}
    taken = {name: np.full((ways, pushed), np.nan) for name in ("taken", "foreseen", "push²")}
    for way in range(ways):
        terms = terms_of(batch, prompt, way, common)
        rows, push = response[way].reshape(-1, count), batch["profile"][prompt, way][None].astype(float)
        sums["total"][way] = _about_mean(rows).reshape(pushed, parts)
        pushes["total"][way] = _about_mean(push)[0]
        for name, members in SETS.items():
            if set(members) <= set(terms):
                chosen = [terms[each] for each in members]
                sums[name][way] = explained(rows, chosen).reshape(pushed, parts)
                pushes[name][way] = explained(push, chosen)[0]
        if "token" in terms:
            place = int(np.argmax(terms["token"]))
            both = [terms[each] for each in SETS["both"]]
            direct = batch["size"][prompt] * push[0, place]
            whole = response[way, :, -1]
            taken["taken"][way] = -whole[:, place] * direct
            taken["foreseen"][way] = -predicted(whole, both, place) * direct
            taken["push²"][way] = direct**2
    written = batch["written"][prompt].astype(float)
    written = np.concatenate([written, written.sum(0, keepdims=True)])
    both = [batch[each][prompt].astype(float) for each in SETS["both"]]
    over = ("way", "pushed")
    return xr.Dataset(
        {
            **{name: ((*over, "part"), values) for name, values in sums.items()},
            **{f"push {name}": ("way", values) for name, values in pushes.items()},
            **{name: (over, values) for name, values in taken.items()},
            "written total": ("part", _about_mean(written)),
            "written both": ("part", explained(written, both)),
            **{name: (over, values) for name, values in _over_vocabulary(batch, prompt, vocabulary).items()},
        }
    )


def _about_mean(rows: Float[np.ndarray, "row token"]) -> Float[np.ndarray, "row"]:
    return np.asarray(((rows - rows.mean(1, keepdims=True)) ** 2).sum(1))


def _over_vocabulary(batch: Batch, prompt: int, vocabulary: Batch) -> dict[str, Float[np.ndarray, "way pushed"]]:
    """Return sums over all tokens, from products of vectors with the vocabulary's sums."""
    square, common = vocabulary["square"], vocabulary["common"]
    joint, even = (batch[name][prompt].astype(float) for name in ("joint", "even"))
    units = batch["unit"][prompt].astype(float)
    odd = np.einsum("wkd,de,wke->wk", joint, square, joint)
    gram = np.array(
        [
            [common @ square @ common, common @ vocabulary["along_frequency"]],
            [common @ vocabulary["along_frequency"], vocabulary["frequency_square"]],
        ]
    )
    along = np.stack([joint @ square @ common, joint @ vocabulary["along_frequency"]], -1)
    own = np.einsum("wkd,wd->wk", joint @ square, units)
    push = units[:, None] * batch["size"][prompt].astype(float)[None, :, None]
    # The common mode is an eigenvector, so that what lies along it and the rest have nothing in common.
    beside_joint, beside_push = (each - (each @ common)[..., None] * common for each in (joint, push))
    return {
        "vocabulary total": odd,
        "vocabulary both": np.einsum("wki,ij,wkj->wk", along, np.linalg.inv(gram), along),
        "vocabulary common": along[..., 0] ** 2 / gram[0, 0],
        "vocabulary profile": own**2 / np.einsum("wd,de,we->w", units, square, units)[:, None],
        "common damped": -(joint @ common) * (push @ common),
        "common pushed": (push @ common) ** 2,
        "rest damped": -np.einsum("wkd,de,wke->wk", beside_joint, square, beside_push),
        "rest pushed": np.einsum("wkd,de,wke->wk", beside_push, square, beside_push),
        "vocabulary even": np.einsum("wkd,de,wke->wk", even, square, even),
    }


def shares(sums: xr.Dataset, bootstrap: Bootstrap) -> xr.Dataset:
    """Return the share of each set, the mean over pushed components, with bounds over prompts.

    Args:
        sums: `total` and others [prompt, pushed]; of several directions or parts their sums.
        bootstrap: how bounds are drawn.

    Returns:
        for each other variable its share of `total`, [bound]; `both − token` and `both − profile`, where there are
        these; `beyond token` and `beyond profile`: what is unique to the token or its profile; `unique token` and
        `unique profile`: what is unique to `both`.
    """

    def statistic(means: xr.Dataset) -> xr.Dataset:
        found = (means.drop_vars("total") / means["total"]).mean("pushed")
        for name in ("token", "profile"):
            if name in found:
                found[f"both − {name}"] = found["both"] - found[name]
                found[f"beyond {name}"] = found[f"both+{name}"] - found["both"]
                found[f"unique {name}"] = found[f"both+{name}"] - found[name]
        return found

    return interval(statistic, sums, bootstrap)
