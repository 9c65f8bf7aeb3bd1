"""What a run found, put together: the verdicts, the paper's findings, and every ablated part's numbers."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import numpy as np
import xarray as xr

from hydrascope.measures import (
    BOUNDS,
    Bootstrap,
    Effects,
    EffectsOnly,
    Sigma,
    agreement,
    compensation_regression,
    direct_effect,
    effects_only,
    kinds,
    mean_interval,
    of_kind,
    outcome_bounds,
    per_prompt,
    require_complete,
    restoration,
    simultaneous,
    single_ablations,
    with_direct_effect,
)
from hydrascope.reports.summary.caveats import EFFECTS_ALONE, of_prompts, warnings_of
from hydrascope.reports.summary.findings import PLURAL, Finding, findings
from hydrascope.reports.summary.interval import Interval
from hydrascope.reports.summary.mediation_rows import Pair, Reaction, pairs, reactions
from hydrascope.reports.summary.verdict import Verdict, verdicts
from hydrascope.utils.text import counted


@dataclass(frozen=True)
class ComponentFindings:
    """One ablated part: what its ablation removes, what of it is restored and by what, and how CE follows DE.

    Attributes:
        ablated: its label.
        kind: as in `hydrascope.measures.ComponentKind`.
        direct: mean direct effect, in logits; NaN, as all that is derived from it, where it wasn't read.
        removed: mean −`direct`, in logits.
        lost: mean −`total`, in logits.
        restored: 1 − lost/removed.
        attention, mlp, norm: the shares of what is removed that each restores; they add up to `restored`.
        slope, r2: of the regression of CE on DE over prompts.
        correlation: of DE and `lost` over prompts.
    """

    ablated: str
    kind: str
    direct: Interval
    removed: Interval
    lost: Interval
    restored: Interval
    attention: Interval
    mlp: Interval
    norm: Interval
    slope: Interval
    r2: Interval
    correlation: Interval

    @property
    def adds(self) -> bool:
        """Whether ablating it adds directly instead of removing, surely: there is a share of what it does.

        Then `restored` is the share of the increase that is undone.
        """
        return self.removed.estimate < 0 and bool(np.isfinite(self.restored.low))


@dataclass(frozen=True)
class Summary:
    """What a run found.

    Attributes:
        run: what was measured and how, by name.
        verdicts: whether anything is restored, of each kind of ablated part; none where nothing is removed directly.
        warnings: what a reader should know before believing the numbers.
        findings: the paper's findings, for this model.
        parts: every ablated part, in the order of the results; where effects alone were kept only what it removes,
            loses and has restored is known of it.
        bootstrap: how the intervals were drawn.
        reactions: who restores what, of a result of `hydrascope.Mediation`.
        pairs: who covers for whom, of a result of `hydrascope.Interactions`.
    """

    run: dict[str, str]
    verdicts: tuple[Verdict, ...]
    warnings: tuple[str, ...]
    findings: tuple[Finding, ...]
    components: tuple[ComponentFindings, ...]
    bootstrap: Bootstrap
    reactions: tuple[Reaction, ...] = ()
    pairs: tuple[Pair, ...] = ()


def read_effects(results: xr.Dataset, readout: str | None = None, sigma: Sigma | None = None) -> EffectsOnly:
    """Read the effects of single ablations, and what parts write where that was kept; of results of any kind.

    Args:
        readout, sigma: as in `hydrascope.measures.per_prompt`.

    Raises:
        HydrascopeError: this is no result, or has no such readout.
    """
    alone = single_ablations(results)
    keeps_written = results.attrs.get("keep") != "effects"
    return per_prompt(alone, readout, sigma) if keeps_written else effects_only(alone, readout)


def summarise_sweep(results: xr.Dataset, effects: EffectsOnly, bootstrap: Bootstrap) -> Summary:
    """The verdict, and every finding of the paper that these results can tell of, with intervals over prompts.

    Args:
        results: of any kind.
        effects: on one readout, as `read_effects` gives them.

    Raises:
        HydrascopeError: the results are unfinished.
    """
    if not isinstance(effects, Effects):
        return _of_effects(results, effects, bootstrap)
    require_complete(effects)
    if not effects["direct"].any():
        return _of_losses(results, effects, bootstrap)
    read = with_direct_effect(effects)
    fit, shares = compensation_regression(read, bootstrap), restoration(effects, bootstrap)
    per_part = {
        **{str(name): shares[name] for name in ("restored", "attention", "mlp", "norm")},
        **{str(name): fit[name] for name in ("slope", "r2")},
        "correlation": agreement(read, bootstrap)["correlation"],
        "direct": mean_interval(direct_effect(read), bootstrap),
        "removed": mean_interval(-effects["direct"], bootstrap),
        "lost": mean_interval(-effects["total"], bootstrap),
    }
    found = verdicts(results, effects, bootstrap)
    told = warnings_of(effects, found, bootstrap)
    return Summary(
        run_in_words(results, effects),
        found,
        told,
        tuple(findings(results, effects, fit, shares, bootstrap)),
        tuple(_parts(effects, per_part)),
        bootstrap,
    )


def summarise_mediation(results: xr.Dataset, effects: EffectsOnly, bootstrap: Bootstrap) -> Summary:
    """Of a mediation what `summarise_sweep` says of its ablations, and who restores what."""
    plain = summarise_sweep(results, effects, bootstrap)
    return replace(plain, reactions=reactions(results, effects.readout, bootstrap))


def summarise_interactions(results: xr.Dataset, effects: EffectsOnly, bootstrap: Bootstrap) -> Summary:
    """Who covers for whom, and of single ablations what becomes of their effects."""
    found = pairs(results, effects.readout, bootstrap)
    parts = len({name for pair in found for name in (pair.first, pair.second)})
    run = _run(results, f"{counted(len(found), 'pair', 'pairs')} of {parts:,} parts", effects.readout)
    told = tuple(of_prompts(results))
    return Summary(run, (), told, (), _outcomes(effects, bootstrap), bootstrap, pairs=found)


def _of_effects(results: xr.Dataset, effects: EffectsOnly, bootstrap: Bootstrap) -> Summary:
    """What can be said where effects alone were kept: how much is restored, not by whom."""
    told = (EFFECTS_ALONE, *of_prompts(results))
    return Summary(run_in_words(results, effects), (), told, (), _outcomes(effects, bootstrap), bootstrap)


def _outcomes(effects: EffectsOnly, bootstrap: Bootstrap) -> tuple[ComponentFindings, ...]:
    found = outcome_bounds(effects, bootstrap)
    # Where only positions before the last are ablated nothing is known of what would have been removed.
    known = {"removed": "removed", "restored": "share"} if effects["direct"].any() else {}
    return tuple(_parts(effects, {name: found[of] for name, of in {"lost": "lost", **known}.items()}))


def _of_losses(results: xr.Dataset, effects: Effects, bootstrap: Bootstrap) -> Summary:
    """What can be said where only positions before the last are ablated: nothing is removed directly, and nothing is
    known of what would have been."""
    lost = mean_interval(-effects["total"], bootstrap)
    most_lost = []
    for kind in dict.fromkeys(kinds(effects["ablated"])):
        samples = of_kind(-effects["total"], "ablated", kind).rename("lost").to_dataset()  # type: ignore[arg-type]
        # The most of many is easily above 0 where none is: bounds that hold for all know of the others.
        of_one = simultaneous(lambda means: means, samples, bootstrap, "ablated")["lost"]
        most = str(of_one["ablated"].values[int(of_one.sel(bound="estimate").argmax("ablated"))])
        meaning = f"−total; the most of the {PLURAL[kind]}, with bounds that hold for all of them"  # type: ignore[index]
        most_lost.append(Finding(f"lost at {most}", Interval.at(of_one, most), meaning))
    told = (
        "only positions before the last are ablated: nothing is removed directly, so that nothing can be said of how "
        "much is restored",
        *warnings_of(effects, (), bootstrap),
    )
    parts = tuple(_parts(effects, {"lost": lost}))
    return Summary(run_in_words(results, effects), (), told, tuple(most_lost), parts, bootstrap)


def run_in_words(results: xr.Dataset, effects: EffectsOnly) -> dict[str, str]:
    """What was measured and how.

    Args:
        effects: of `results`.
    """
    return _run(results, _counted(effects), effects.caption)


def _counted(effects: EffectsOnly) -> str:
    """How many parts of each kind were ablated, in words."""
    found = kinds(effects["ablated"])
    named = ((found.count(kind), several) for kind, several in PLURAL.items())
    return ", ".join(counted(count, several.removesuffix("s"), several) for count, several in named if count)


def _run(results: xr.Dataset, ablated: str, readout: str) -> dict[str, str]:
    """What was measured and how."""
    names = ("model", "ablation", "positions", "engine", "dtype", "seed")
    sets = {"of": str(results.attrs["prompts"])} if "prompts" in results.attrs else {}
    return {name: str(results.attrs[name]) for name in names if name in results.attrs} | {
        "unit": str(results.attrs.get("units", "logits")),
        "prompts": f"{results.sizes['prompt']:,}",
        **sets,
        "patches": str(results.sizes.get("patch", "averaged")),
        "ablated": ablated,
        "readout": readout,
    }


def _parts(effects: EffectsOnly, per_part: dict[str, xr.DataArray]) -> Iterator[ComponentFindings]:
    """Every ablated part's numbers."""
    values = {name: bounds.transpose("ablated", "bound").values for name, bounds in per_part.items()}
    rows = {name: {str(label): i for i, label in enumerate(b["ablated"].values)} for name, b in per_part.items()}
    unknown = np.full(len(BOUNDS), np.nan)
    for label, kind in zip(map(str, effects["ablated"].values), kinds(effects["ablated"]), strict=True):
        found = {name: values[name][at[label]] if label in at else unknown for name, at in rows.items()}
        found = {field.name: found.get(field.name, unknown) for field in fields(ComponentFindings)[2:]}
        yield ComponentFindings(label, kind, **{name: Interval(*map(float, bounds)) for name, bounds in found.items()})
