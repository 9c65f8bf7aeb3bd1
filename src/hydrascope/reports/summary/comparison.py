"""Results side by side: models, checkpoints, or settings of one run against another's."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from hydrascope.measures import (
    Bootstrap,
    ComponentKind,
    Effects,
    Sigma,
    block_numbers,
    budget_shares,
    candidates,
    depth,
    difference,
    held_out,
    kinds,
    most_restored,
    per_prompt,
    require_complete,
)
from hydrascope.reports.summary.interval import UNKNOWN, Interval
from hydrascope.reports.summary.verdict import ASKED, Verdict, verdicts
from hydrascope.utils.errors import HydrascopeError

#: What should be alike in results that are compared, and how it is called.
_ALIKE = {
    "ablation": "ablations",
    "patches": "numbers of patches",
    "positions": "positions",
    "dtype": "dtypes",
    "readout": "readouts",
    "units": "units",
}


@dataclass(frozen=True)
class Compared:
    """One kind of ablated part in one result, and how it differs from the first result.

    Attributes:
        name: of the result.
        verdict: of it alone.
        restored: the share restored less that of the first result, each at its own part, chosen on one half of the
            prompts and measured on the other; unknown for the first itself, and where either has no choice, or removes
            what may be nothing.
    """

    name: str
    verdict: Verdict
    restored: Interval


@dataclass(frozen=True)
class Comparison:
    """Results side by side.

    Attributes:
        rows: each kind of part in each result.
        paired: of each result but the first, whether it is of the first's prompts: then prompts are resampled together.
        over_depth: of each result and kind, per ablated part that removes enough to be chosen: its depth from 0 to 1
            along `ablated` as `relative_depth`, and `restored` [bound, ablated].
        warnings: what differs besides what is compared.
        bootstrap: how the intervals were drawn.
    """

    rows: tuple[Compared, ...]
    paired: Mapping[str, bool]
    over_depth: Mapping[tuple[str, ComponentKind], xr.DataArray]
    warnings: tuple[str, ...]
    bootstrap: Bootstrap


def compare(
    results: Mapping[str, xr.Dataset],
    bootstrap: Bootstrap | None = None,
    readout: str | None = None,
    sigma: Sigma | None = None,
) -> Comparison:
    """The verdicts of several results, and how the share that is restored differs from the first one's.

        compare({"before": hs.open_results("a.zarr"), "after": hs.open_results("b.zarr")}).rows

    Where two results are of the same prompts the difference is paired, else each is resampled alone.

    Args:
        results: two at least, by name.
        readout, sigma: as in `hydrascope.measures.per_prompt`.

    Raises:
        HydrascopeError: there are fewer than two, or one is no result or unfinished.
    """
    if len(results) < 2:
        raise HydrascopeError("there is nothing to compare: give two results or more")
    bootstrap = bootstrap or Bootstrap()
    effects = {name: _read(name, each, readout, sigma) for name, each in results.items()}
    first, *others = effects
    paired = {name: _same_prompts(effects[first], effects[name]) for name in others}
    rows = list(_rows(results, effects, paired, bootstrap))
    if not rows:
        raise HydrascopeError(
            "there is nothing to compare: no part with anything downstream was ablated alone at the last position"
        )
    curves = {
        (name, kind): _over_depth(each, kind, bootstrap)
        for name, each in effects.items()
        for kind in ASKED
        if _removes(each) and kind in kinds(each["ablated"])
    }
    return Comparison(tuple(rows), paired, curves, tuple(_warnings(effects, paired)), bootstrap)


def _read(name: str, results: xr.Dataset, readout: str | None, sigma: Sigma | None) -> Effects:
    """The effects of one of the results, which is named where they can't be read."""
    try:
        effects = per_prompt(results, readout, sigma)
        require_complete(effects)
    except HydrascopeError as error:
        raise HydrascopeError(f"{name}: {error}") from error
    return effects


def _rows(
    results: Mapping[str, xr.Dataset],
    effects: Mapping[str, Effects],
    paired: Mapping[str, bool],
    bootstrap: Bootstrap,
) -> Iterator[Compared]:
    found = {
        name: {each.kind: each for each in verdicts(results[name], effects[name], bootstrap)} if _removes(read) else {}
        for name, read in effects.items()
    }
    first = next(iter(effects))
    for kind in ASKED:
        for name in effects:
            if kind not in found[name]:
                continue
            change = UNKNOWN
            if name != first and kind in found[first]:
                change = _change(effects[first], effects[name], kind, bootstrap, paired=paired[name])
            yield Compared(name, found[name][kind], change)


def _change(first: Effects, second: Effects, kind: ComponentKind, bootstrap: Bootstrap, *, paired: bool) -> Interval:
    before, after = (held_out(candidates(each, kind), most_restored) for each in (first, second))
    if before is None or after is None:
        return UNKNOWN
    names = ["restored", "removed"]
    found = difference(_share, before.samples[names], after.samples[names], bootstrap, paired=paired)
    # To what may be 0 neither share has bounds, nor has their difference.
    each = [budget_shares(held.samples, bootstrap)["restored"].sel(bound="low") for held in (before, after)]
    return Interval.of(found["restored"]) if np.isfinite(each).all() else UNKNOWN


def _share(means: xr.Dataset) -> xr.Dataset:
    return means[["restored"]] / means["removed"].where(means["removed"] != 0)


def _over_depth(effects: Effects, kind: ComponentKind, bootstrap: Bootstrap) -> xr.DataArray:
    samples = candidates(effects, kind)
    place = np.array(block_numbers(samples["ablated"])) / max(depth(effects) - 1, 1)
    return budget_shares(samples, bootstrap)["restored"].assign_coords(relative_depth=("ablated", place))


def _removes(effects: Effects) -> bool:
    """Whether anything is removed directly: not where only positions before the last are ablated."""
    return bool(effects["direct"].any())


def _same_prompts(first: Effects, second: Effects) -> bool:
    texts = [list(map(str, each["text"].values)) for each in (first, second)]
    return texts[0] == texts[1]


def _warnings(effects: Mapping[str, Effects], paired: Mapping[str, bool]) -> Iterator[str]:
    first = next(iter(effects))
    for name, same in paired.items():
        if not same:
            yield f"{name} is of other prompts than {first}: the difference is unpaired"
    for name, each in effects.items():
        if not _removes(each):
            yield f"{name} is left out: only positions before the last are ablated, and nothing is removed directly"
    for key, called in _ALIKE.items():
        values = {name: str(each.data.attrs.get(key, "")) for name, each in effects.items()}
        if len(set(values.values())) > 1:
            yield f"the {called} differ: " + ", ".join(f"{name} {value}" for name, value in values.items())
    depths = {name: depth(each) for name, each in effects.items()}
    if len(set(depths.values())) > 1:
        named = ", ".join(f"{name} {count}" for name, count in depths.items())
        yield f"the numbers of layers differ ({named}): depths are relative"
