"""Compare results: of several models, checkpoints or settings."""

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
)
from hydrascope.measures.effects import complete_effects
from hydrascope.reports.summary.interval import UNKNOWN, Interval
from hydrascope.reports.summary.verdict import ASKED, Verdict, verdicts
from hydrascope.utils.errors import HydrascopeError

#: Attributes that should be equal in compared results, and their names in warnings.
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
    """One kind of ablated component in one result, and its difference from the first result.

    Attributes:
        name: the name of the result.
        verdict: the verdict on this result alone.
        restored: the share restored minus the share restored in the first result. Each is measured at its own
            component, chosen on one half of the prompts and measured on the other. Unknown for the first result, and
            where a result has no such component or its ablation may remove nothing.
    """

    name: str
    verdict: Verdict
    restored: Interval


@dataclass(frozen=True)
class Comparison:
    """Results side by side.

    Attributes:
        rows: a row for each result and kind of component.
        paired: for each result but the first, whether it has the first's prompts; then prompts are resampled together.
        over_depth: for each result and kind, the share restored [bound, ablated] of each component that removes enough
            to be chosen; the coordinate `relative_depth` [ablated] runs from 0 to 1.
        warnings: further differences between the results.
        bootstrap: the resampling that gave the intervals.
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
    """Compare the verdicts and the shares restored of several results with the first one.

    The difference is paired if two results have the same prompts; else each result is resampled alone.

        >>> few = hs.measures.Bootstrap(resamples=50)
        >>> comparison = hs.reports.compare({"first": results, "again": results}, few)
        >>> comparison.paired
        {'again': True}

    Args:
        results: at least two results, by name.
        bootstrap: the resampling that gives the intervals; by default `Bootstrap()`.
        readout: the readout's label; by default the first of each result.
        sigma: the reading of σ, as in `hydrascope.measures.per_prompt`.

    Returns:
        The comparison; `comparison.rows` has a row for each result and kind of component.

    Raises:
        HydrascopeError: there are fewer than two results, or one is no result or is unfinished.
    """
    if len(results) < 2:
        raise HydrascopeError("there is nothing to compare: give at least two results")
    bootstrap = bootstrap or Bootstrap()
    effects = {name: complete_effects(name, each, readout, sigma) for name, each in results.items()}
    first, *others = effects
    paired = {name: _same_prompts(effects[first], effects[name]) for name in others}
    rows = list(_rows(results, effects, paired, bootstrap))
    if not rows:
        raise HydrascopeError(
            "there is nothing to compare: no component with anything downstream was ablated alone at the last position"
        )
    curves = {
        (name, kind): _over_depth(each, kind, bootstrap)
        for name, each in effects.items()
        for kind in ASKED
        if _removes(each) and kind in kinds(each["ablated"])
    }
    return Comparison(tuple(rows), paired, curves, tuple(_warnings(effects, paired)), bootstrap)


def _rows(
    results: Mapping[str, xr.Dataset],
    effects: Mapping[str, Effects],
    paired: Mapping[str, bool],
    bootstrap: Bootstrap,
) -> Iterator[Compared]:
    by_kind = {
        name: {each.kind: each for each in verdicts(results[name], effects[name], bootstrap)} if _removes(read) else {}
        for name, read in effects.items()
    }
    first = next(iter(effects))
    for kind in ASKED:
        for name in effects:
            if kind not in by_kind[name]:
                continue
            change = UNKNOWN
            if name != first and kind in by_kind[first]:
                change = _change(effects[first], effects[name], kind, bootstrap, paired=paired[name])
            yield Compared(name, by_kind[name][kind], change)


def _change(first: Effects, second: Effects, kind: ComponentKind, bootstrap: Bootstrap, *, paired: bool) -> Interval:
    before, after = (held_out(candidates(each, kind), most_restored) for each in (first, second))
    if before is None or after is None:
        return UNKNOWN
    names = ["restored", "removed"]
    shares = difference(_share, before.samples[names], after.samples[names], bootstrap, paired=paired)
    # A share of an amount that may be 0 has no bounds, and neither has a difference of such shares.
    lows = [budget_shares(choice.samples, bootstrap)["restored"].sel(bound="low") for choice in (before, after)]
    return Interval.of(shares["restored"]) if np.isfinite(lows).all() else UNKNOWN


def _share(means: xr.Dataset) -> xr.Dataset:
    return means[["restored"]] / means["removed"].where(means["removed"] != 0)


def _over_depth(effects: Effects, kind: ComponentKind, bootstrap: Bootstrap) -> xr.DataArray:
    samples = candidates(effects, kind)
    relative_depth = np.array(block_numbers(samples["ablated"])) / max(depth(effects) - 1, 1)
    return budget_shares(samples, bootstrap)["restored"].assign_coords(relative_depth=("ablated", relative_depth))


def _removes(effects: Effects) -> bool:
    """Whether anything is removed directly: not if only earlier positions are ablated."""
    return bool(effects["direct"].any())


def _same_prompts(first: Effects, second: Effects) -> bool:
    texts = [list(map(str, each["text"].values)) for each in (first, second)]
    return texts[0] == texts[1]


def _warnings(effects: Mapping[str, Effects], paired: Mapping[str, bool]) -> Iterator[str]:
    first = next(iter(effects))
    for name, same in paired.items():
        if not same:
            yield f"{name} has other prompts than {first}: the difference is unpaired"
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
        yield f"the numbers of blocks differ ({named}): depths are relative"
