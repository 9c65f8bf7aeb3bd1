"""Summaries of results: verdicts, the paper's findings, and every ablated component."""

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
    normalised,
    of_kind,
    outcome,
    outcome_bounds,
    patching_of,
    per_prompt,
    require_complete,
    restoration,
    simultaneous,
    single_ablations,
    with_direct_effect,
)
from hydrascope.reports.summary.caveats import EFFECTS_ALONE, of_constants, of_prompts, warnings_of
from hydrascope.reports.summary.distance_rows import DistanceRow
from hydrascope.reports.summary.findings import PLURAL, Finding, findings
from hydrascope.reports.summary.interval import Interval
from hydrascope.reports.summary.mediation_rows import Pair, Reaction, pairs, reactions
from hydrascope.reports.summary.split_rows import SplitRow, split_rows
from hydrascope.reports.summary.verdict import Verdict, verdicts
from hydrascope.utils.text import counted


@dataclass(frozen=True)
class ComponentFindings:
    """The numbers of one ablation; all means are over prompts.

    Numbers that weren't measured are NaN.

    Attributes:
        ablated: the ablation's label.
        kind: the kind of component (`hydrascope.measures.ComponentKind`).
        direct: the mean direct effect DE, in the readout's unit.
        removed: the mean of −`direct` in the results, in the readout's unit.
        lost: the mean of −`total`, in the readout's unit.
        restored: 1 − lost/removed.
        attention: the share of what is removed that attention restores.
        mlp: the share of what is removed that MLPs restore.
        norm: the share of what is removed that the norm restores. The three shares add up to `restored`.
        slope: the slope of the regression of CE on DE over prompts.
        r2: the R² of this regression.
        correlation: the correlation of DE and `lost` over prompts.
        normalised: of an ablation `counterfactual`, (patched − corrupt) / (clean − corrupt), the ratio of means: 1 is a
            run as the clean one, 0 one as the corrupt one.
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
    normalised: Interval

    @property
    def adds(self) -> bool:
        """Whether the ablation surely adds directly instead of removing.

        `restored` is then the share of the increase that is undone.
        """
        return self.removed.estimate < 0 and bool(np.isfinite(self.restored.low))


@dataclass(frozen=True)
class Summary:
    """The summary of a result; `hydrascope.reports.render` prints it.

    Attributes:
        run: the settings of the run, by name.
        verdicts: a verdict on each kind of ablated component; empty if nothing is removed directly.
        warnings: warnings about the numbers, one line each.
        findings: the paper's findings, for this model.
        components: every ablation, in the order of the results. If only effects were kept, only `removed`, `lost` and
            `restored` are known.
        bootstrap: the resampling that gave the intervals.
        reactions: the mediators' reactions, if the result is of `hydrascope.Mediation`.
        pairs: the interactions of pairs, if the result is of `hydrascope.Interactions`.
        splits: the split of each ablation, if the result is of `hydrascope.Split`.
        kicks: how hard each ablation kicks the network, if distances were given.
    """

    run: dict[str, str]
    verdicts: tuple[Verdict, ...]
    warnings: tuple[str, ...]
    findings: tuple[Finding, ...]
    components: tuple[ComponentFindings, ...]
    bootstrap: Bootstrap
    reactions: tuple[Reaction, ...] = ()
    pairs: tuple[Pair, ...] = ()
    splits: tuple[SplitRow, ...] = ()
    kicks: tuple[DistanceRow, ...] = ()


def read_effects(results: xr.Dataset, readout: str | None = None, sigma: Sigma | None = None) -> EffectsOnly:
    """Return the effects of the single ablations of a result of any kind.

    Args:
        results: a result of any kind.
        readout: the readout's label; by default the first.
        sigma: the reading of σ, as in `hydrascope.measures.per_prompt`.

    Returns:
        `Effects`; only `EffectsOnly` if the run didn't keep what components write.

    Raises:
        HydrascopeError: `results` is no result, or lacks the readout.
    """
    alone = single_ablations(results)
    keeps_components = results.attrs.get("keep") != "effects"
    return per_prompt(alone, readout, sigma) if keeps_components else effects_only(alone, readout)


def summarise_sweep(results: xr.Dataset, effects: EffectsOnly, bootstrap: Bootstrap) -> Summary:
    """Return the verdicts, the findings and the numbers of every single ablation.

    Args:
        results: a result of any kind.
        effects: its effects on one readout (`read_effects`).
        bootstrap: the resampling that gives the intervals.

    Raises:
        HydrascopeError: the results are unfinished.
    """
    if not isinstance(effects, Effects) or not effects["direct"].any():
        return summarise_without_findings(results, effects, bootstrap)
    summary, fit, shares = _measured(results, effects, bootstrap)
    return replace(summary, findings=tuple(findings(results, effects, fit, shares, bootstrap)))


def summarise_without_findings(results: xr.Dataset, effects: EffectsOnly, bootstrap: Bootstrap) -> Summary:
    """Return the verdicts and the numbers of every single ablation; pages show no more.

    Raises:
        HydrascopeError: the results are unfinished.
    """
    if not isinstance(effects, Effects):
        return _summarise_effects_only(results, effects, bootstrap)
    if not effects["direct"].any():
        require_complete(effects)
        return _summarise_losses(results, effects, bootstrap)
    return _measured(results, effects, bootstrap)[0]


def _measured(results: xr.Dataset, effects: Effects, bootstrap: Bootstrap) -> tuple[Summary, xr.Dataset, xr.Dataset]:
    """Return a summary without findings, and the regressions and shares of all ablations."""
    require_complete(effects)
    read = with_direct_effect(effects)
    fit, shares = compensation_regression(read, bootstrap), restoration(effects, bootstrap)
    bounds = {
        **{str(name): shares[name] for name in ("restored", "attention", "mlp", "norm")},
        **{str(name): fit[name] for name in ("slope", "r2")},
        "correlation": agreement(read, bootstrap)["correlation"],
        "direct": mean_interval(direct_effect(read), bootstrap),
        "removed": mean_interval(outcome(effects)["removed"], bootstrap),
        "lost": mean_interval(-effects["total"], bootstrap),
        **_normalised(effects, bootstrap),
    }
    answers = verdicts(results, effects, bootstrap)
    components = tuple(_component_findings(effects, bounds))
    warnings = warnings_of(results, effects, answers, bootstrap)
    return Summary(run_in_words(results, effects), answers, warnings, (), components, bootstrap), fit, shares


def summarise_mediation(results: xr.Dataset, effects: EffectsOnly, bootstrap: Bootstrap) -> Summary:
    """Return the summary of a mediation's single ablations, and its reactions."""
    return _with_reactions(summarise_sweep(results, effects, bootstrap), results, effects)


def summarise_mediation_without_findings(results: xr.Dataset, effects: EffectsOnly, bootstrap: Bootstrap) -> Summary:
    """Return what `summarise_mediation` does, less the paper's findings."""
    return _with_reactions(summarise_without_findings(results, effects, bootstrap), results, effects)


def _with_reactions(summary: Summary, results: xr.Dataset, effects: EffectsOnly) -> Summary:
    return replace(summary, reactions=reactions(results, effects.readout, summary.bootstrap))


def summarise_split(results: xr.Dataset, effects: EffectsOnly, bootstrap: Bootstrap) -> Summary:
    """Return the summary of the whole ablations of a split, and the split of each."""
    return _with_splits(summarise_sweep(results, effects, bootstrap), results, effects)


def summarise_split_without_findings(results: xr.Dataset, effects: EffectsOnly, bootstrap: Bootstrap) -> Summary:
    """Return what `summarise_split` does, less the paper's findings."""
    return _with_splits(summarise_without_findings(results, effects, bootstrap), results, effects)


def _with_splits(summary: Summary, results: xr.Dataset, effects: EffectsOnly) -> Summary:
    removed = {each.ablated: each.removed for each in summary.components}
    return replace(summary, splits=split_rows(results, effects.readout, removed, summary.bootstrap))


def summarise_interactions(results: xr.Dataset, effects: EffectsOnly, bootstrap: Bootstrap) -> Summary:
    """Return the interactions of pairs, and the outcomes of single ablations."""
    rows = pairs(results, effects.readout, bootstrap)
    components = len({name for pair in rows for name in (pair.first, pair.second)})
    run = _settings(results, f"{counted(len(rows), 'pair', 'pairs')} of {components:,} components", effects.readout)
    warnings = tuple(of_prompts(results))
    return Summary(run, (), warnings, (), _outcomes(effects, bootstrap), bootstrap, pairs=rows)


def _summarise_effects_only(results: xr.Dataset, effects: EffectsOnly, bootstrap: Bootstrap) -> Summary:
    """Return the summary of results that kept effects alone: shares are not split."""
    warnings = (EFFECTS_ALONE, *of_prompts(results), *of_constants(results, bootstrap))
    return Summary(run_in_words(results, effects), (), warnings, (), _outcomes(effects, bootstrap), bootstrap)


def _outcomes(effects: EffectsOnly, bootstrap: Bootstrap) -> tuple[ComponentFindings, ...]:
    outcomes = outcome_bounds(effects, bootstrap)
    bounds = {"lost": outcomes["lost"], **_normalised(effects, bootstrap)}
    if effects["direct"].any():  # not if only positions before the last are ablated
        bounds |= {"removed": outcomes["removed"], "restored": outcomes["share"]}
    return tuple(_component_findings(effects, bounds))


def _summarise_losses(results: xr.Dataset, effects: Effects, bootstrap: Bootstrap) -> Summary:
    """Return the summary of ablations at earlier positions alone: nothing is removed directly."""
    lost = mean_interval(-effects["total"], bootstrap)
    most_lost = []
    for kind in dict.fromkeys(kinds(effects["ablated"])):
        samples = of_kind(-effects["total"], "ablated", kind).rename("lost").to_dataset()  # type: ignore[arg-type]
        # The largest of many losses is above 0 by chance; bounds that hold for all of them allow for that.
        losses = simultaneous(lambda means: means, samples, bootstrap, "ablated")["lost"]
        most = str(losses["ablated"].values[int(losses.sel(bound="estimate").argmax("ablated"))])
        meaning = f"−total; the most of the {PLURAL[kind]}, with bounds that hold for all of them"  # type: ignore[index]
        most_lost.append(Finding(f"lost at {most}", Interval.at(losses, most), meaning))
    warnings = (
        "only positions before the last are ablated: nothing is removed directly, so that nothing can be said of how "
        "much is restored",
        *warnings_of(results, effects, (), bootstrap),
    )
    components = tuple(_component_findings(effects, {"lost": lost, **_normalised(effects, bootstrap)}))
    return Summary(run_in_words(results, effects), (), warnings, tuple(most_lost), components, bootstrap)


def _normalised(effects: EffectsOnly, bootstrap: Bootstrap) -> dict[str, xr.DataArray]:
    """Return the normalised share [bound, ablated] by its field, if there is a corrupt run."""
    return {} if patching_of(effects.data) is None else {"normalised": normalised(effects, bootstrap)}


def run_in_words(results: xr.Dataset, effects: EffectsOnly) -> dict[str, str]:
    """Return the settings of a run as text, by name.

    Args:
        results: the results of the run.
        effects: the effects of these results.
    """
    return _settings(results, _ablated_counts(effects), effects.caption)


def _ablated_counts(effects: EffectsOnly) -> str:
    """Return the number of ablated components of each kind as text."""
    ablated = kinds(effects["ablated"])
    named = ((ablated.count(kind), several) for kind, several in PLURAL.items())
    return ", ".join(counted(count, _singular(several), several) for count, several in named if count)


def _singular(several: str) -> str:
    return "bias" if several == "biases" else several.removesuffix("s")


def _settings(results: xr.Dataset, ablated: str, readout: str) -> dict[str, str]:
    """Return the settings of a run as text, by name."""
    names = ("model", "weights_changed", "ablation", "patching", "positions", "engine", "dtype", "seed")
    sets = {"of": str(results.attrs["prompts"])} if "prompts" in results.attrs else {}
    known = {name.replace("_", " "): str(results.attrs[name]) for name in names if name in results.attrs}
    return known | {
        "unit": str(results.attrs.get("units", "logits")),
        "prompts": f"{results.sizes['prompt']:,}",
        **sets,
        "patches": str(results.sizes.get("patch", "averaged")),
        "ablated": ablated,
        "readout": readout,
    }


def _component_findings(effects: EffectsOnly, bounds: dict[str, xr.DataArray]) -> Iterator[ComponentFindings]:
    """Yield the numbers of every ablation.

    `bounds` holds arrays [bound, ablated] by field; missing numbers are NaN.
    """
    values = {name: array.transpose("ablated", "bound").values for name, array in bounds.items()}
    rows = {name: {str(label): i for i, label in enumerate(b["ablated"].values)} for name, b in bounds.items()}
    unknown = np.full(len(BOUNDS), np.nan)
    for label, kind in zip(map(str, effects["ablated"].values), kinds(effects["ablated"]), strict=True):
        found = {name: values[name][at[label]] if label in at else unknown for name, at in rows.items()}
        found = {field.name: found.get(field.name, unknown) for field in fields(ComponentFindings)[2:]}
        yield ComponentFindings(label, kind, **{name: Interval(*map(float, each)) for name, each in found.items()})
