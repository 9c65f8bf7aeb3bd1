"""Warnings about a run's numbers."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import xarray as xr

from hydrascope.measures import (
    Bootstrap,
    Effects,
    block_numbers,
    compensable,
    kinds,
    of_kind,
    optimal_against,
    repair_profile,
)
from hydrascope.reports.summary.verdict import Verdict
from hydrascope.storage.schema import attribute
from hydrascope.utils.text import counted

#: With fewer prompts intervals miss more often than their level says.
FEW_PROMPTS = 30
#: The largest rounding error without a warning, as a share of the interval's width.
ROUNDED = 0.1
#: The largest imbalance without a warning, as a share of what an ablation removes.
OFF = 0.01
#: The warning if only effects were kept.
EFFECTS_ALONE = (
    "effects alone were kept, so that nothing can be said of who restores: measure again and keep means, too"
)
_NARROW = ("bfloat16", "float16")
#: The number of components that a warning names.
NAMED = 5


def warnings_of(
    results: xr.Dataset, effects: Effects, verdicts: Sequence[Verdict], bootstrap: Bootstrap
) -> tuple[str, ...]:
    """Return all warnings about results and their effects, one line each."""
    return (*_warnings(effects, verdicts, bootstrap), *of_constants(results, bootstrap))


def of_prompts(results: xr.Dataset) -> Iterator[str]:
    """Yield warnings about the number of prompts."""
    prompts = results.sizes["prompt"]
    # The attribute tells an unfinished run from a selection of prompts of a finished run.
    measured = results.attrs.get("measured", prompts)
    planned = results.attrs.get("prompt_count", measured)
    if measured < planned:
        yield f"only {measured:,} of {planned:,} prompts are measured: finish the run with --resume"
    if prompts < FEW_PROMPTS:
        count = counted(prompts, "prompt", "prompts")
        yield f"only {count}: from fewer than {FEW_PROMPTS} the intervals miss more often than they say"


def _warnings(effects: Effects, verdicts: Sequence[Verdict], bootstrap: Bootstrap) -> Iterator[str]:
    attributes = effects.data.attrs
    yield from of_prompts(effects.data)
    dtype, off = str(attributes.get("dtype", "")), float(attributes.get("worst_imbalance", 0))
    # A component chosen on one half of the prompts may add on the other, so absolute sizes count.
    least = min((abs(each.removed.estimate) for each in verdicts if each.component), default=float("inf"))
    if off > OFF * least or dtype in _NARROW:
        removed = f", where {least:.2g} are removed" if least < float("inf") else ""
        yield (
            f"computed in {dtype}: total effects and the sums of their parts are apart by up to {off:.2g} "
            f"{attributes.get('units', 'logits')}{removed}: take a wider dtype"
        )
    yield from of_batches(attributes)
    yield from _rounding(attributes, verdicts)
    for kind, name in (("attn", "attention"), ("mlp", "MLP")):
        chosen = of_kind(effects.isel(ablated=compensable(effects).values), "ablated", kind)  # type: ignore[arg-type]
        depths = block_numbers(chosen["ablated"])
        if len(depths) < 3 or not verdicts or kind not in kinds(effects["ablated"]):
            continue
        best = repair_profile(effects, kind, bootstrap)["best"]  # type: ignore[arg-type]
        if float(best.sel(bound="low")) == min(depths) and float(best.sel(bound="high")) == max(depths):
            yield f"which {name} sublayer is repaired best isn't settled: its interval spans the network"


def of_batches(attributes: Mapping[str, Any]) -> Iterator[str]:
    """Yield a warning where a prompt's numbers depend on the prompts it was measured with."""
    difference = attributes.get("batch_difference", 0.0)
    allowed = attributes.get("batch_tolerance", float("inf"))
    if not difference <= allowed:
        yield (
            f"the numbers of a prompt depend on the prompts that it was measured with, by {difference:.2g} "
            f"{attributes.get('units', 'logits')} where rounding explains {allowed:.2g}: measure again, each prompt "
            "alone (--batch-size 1)"
        )


def of_constants(results: xr.Dataset, bootstrap: Bootstrap) -> Iterator[str]:
    """Yield a warning where fitted constants are no better than means on other prompts."""
    if "optimal_loss" not in results:
        return
    gain = optimal_against(results, bootstrap)["gain"].sel(against="mean", bound="low")
    weak = [str(label) for label in gain["fitted"].values[gain.values <= 0]]
    if weak:
        named = ", ".join(weak[:NAMED]) + (", …" if len(weak) > NAMED else "")
        yield (
            f"the fitted constants of {len(weak):,} of {counted(gain.size, 'component', 'components')} are not surely "
            f"better than the mean on the prompts that they weren't fitted on ({named}): give more prompts, or ablate "
            "by the mean"
        )


def _rounding(attributes: Mapping[str, Any], verdicts: Sequence[Verdict]) -> Iterator[str]:
    """Yield a warning if rounding errors are large against a verdict's intervals."""
    precision = attribute(attributes, "precision", {})
    errors = precision.get("readouts", {}).get(attributes.get("readout"), {})
    for each in verdicts:
        for amount, effect in (("removed", "direct"), ("lost", "total")):
            value = getattr(each, amount)
            mean, worst = errors.get(effect, (0.0, 0.0))
            if each.component and mean > ROUNDED * (value.high - value.low):
                yield (
                    f"rounding in {attributes.get('dtype', 'its dtype')} puts {effect} effects off by {mean:.2g} "
                    f"{attributes.get('units', 'logits')} on average, up to {worst:.2g} (against "
                    f"{precision['against']}), and what ablating {each.component} "
                    f"{'removes' if amount == 'removed' else 'loses'} is known to {value.high - value.low:.2g}: take a "
                    "wider dtype"
                )
                return
