"""What a page shows of a result: every number computed here, as arrays and as words."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from hydrascope import __version__
from hydrascope.errors import HydrascopeError
from hydrascope.figures.matrices import in_order, kind_of, scale_of
from hydrascope.figures.panels import unit
from hydrascope.measures import (
    Bootstrap,
    caption,
    depth,
    effects_alone,
    layers,
    one_by_one,
    outcome,
    per_prompt,
    regression,
)
from hydrascope.page.arrays import STEPS, Arrays
from hydrascope.page.pairs import interaction_picture
from hydrascope.page.pictures import Picture, mediated, pictures
from hydrascope.page.tokens import keep_tokens
from hydrascope.summary import (
    Interval,
    Pair,
    PartFindings,
    Summary,
    clearest,
    number,
    run_in_words,
    sentences,
    summarise,
    written,
)
from hydrascope.summary.sentences import headlines
from hydrascope.summary.warnings import EFFECTS_ALONE

#: Columns of the table of prompts, as `measures.outcome` names them.
AMOUNTS = ("removed", "lost", "restored")

#: Instead of a verdict.
ALONE = (
    "One prompt, measured now.",
    " What is restored on it says nothing of other prompts: there are no intervals and no verdict. Save it with all "
    "prompts of the pool to have both.",
)


#: Instead of views of what layers write, and of the warning that says so, where that wasn't kept.
NOT_KEPT = (
    "Effects alone were kept, not what layers write in ablated runs. To see who responds, and what each layer writes "
    "before and after, measure again and keep means (--keep means)."
)


def shown(results: xr.Dataset, bootstrap: Bootstrap) -> tuple[dict[str, Any], dict[str, bytes]]:
    """What a page says of `results`, as JSON, and the arrays that it draws, compressed, by name.

    Raises:
        HydrascopeError: the results are no result at all, or lack a number.
    """
    if missing := [
        name for name in ("readout", "ablated", "total", "direct", "logit") if name not in results.variables
    ]:
        raise HydrascopeError(
            f"this is no hydrascope result: it has no variable {missing[0]!r}: give that of run or sweep"
        )
    labels = [str(label) for label in np.atleast_1d(results["readout"].values)]
    arrays, readouts, first = Arrays(), [], None
    for place, label in enumerate(labels):
        found = summarise(results, bootstrap, label)
        effects, views = _views(results, label, f"{place}.", arrays, bootstrap, found.pairs)
        first = first or (effects, found)
        readouts.append({**views, **_words(found, effects, bootstrap)})
    assert first is not None
    effects, found = first
    return _page(effects, found.run, _start(found, effects), readouts, list(_notes(bootstrap)), arrays)


def shown_alone(results: xr.Dataset) -> tuple[dict[str, Any], dict[str, bytes]]:
    """As `shown`, of one prompt and one readout: what there is to say holds of this prompt and of no other."""
    arrays, once = Arrays(), Bootstrap(resamples=1)  # of one prompt there are no intervals to be drawn
    effects, views = _views(results, str(results["readout"].values[0]), "0.", arrays, once)
    samples, unit_ = outcome(effects).isel(prompt=0), unit(effects)
    lines = zip(*(samples[name].values for name in ("ablated", "removed", "lost")), strict=True)
    words = {
        "verdicts": [ALONE],
        "warnings": [],
        "parts": [
            [f"Ablating {part} removes {number(removed, 2)} {unit_} and loses {number(lost, 2)}."]
            for part, removed, lost in lines
        ],
        "fits": [None] * effects.sizes["ablated"],
    }
    start = int(effects["direct"].values[0].argmin())
    return _page(effects, run_in_words(results, effects), start, [{**views, **words}], list(_notes(once))[1:], arrays)


def _page(
    effects: xr.Dataset,
    run: Mapping[str, str],
    start: int,
    readouts: list[dict[str, Any]],
    notes: list[str],
    arrays: Arrays,
) -> tuple[dict[str, Any], dict[str, bytes]]:
    page = {
        "model": str(effects.attrs.get("model", "")),
        "run": [[name, value] for name, value in run.items() if name not in ("model", "readout", "unit")],
        "depth": depth(effects),
        "start": start,
        "parts": _parts(effects["ablated"]),
        "components": _parts(effects["component"]) if _keeps_traces(effects) else [],
        "without": None if _keeps_traces(effects) else _without(readouts),
        "prompts": [
            {"text": str(text), "target": str(target)}
            for text, target in zip(effects["text"].values, effects["target_text"].values, strict=True)
        ],
        "tokens": keep_tokens(effects, arrays),
        "readouts": readouts,
        "notes": notes,
        "arrays": arrays.known,
    }
    return page, arrays.chunks


def _without(readouts: list[dict[str, Any]]) -> dict[str, Any]:
    """Which views there aren't, and why."""
    return {"why": NOT_KEPT, "views": ["trace"] if readouts[0]["pictures"] else ["matrix", "trace"]}


def _keeps_traces(effects: xr.Dataset) -> bool:
    return "unembed_ablated" in effects


def _views(
    results: xr.Dataset,
    label: str,
    prefix: str,
    arrays: Arrays,
    bootstrap: Bootstrap,
    pairs: Sequence[Pair] = (),
) -> tuple[xr.Dataset, dict[str, Any]]:
    """One readout: its effects in the order of the page, and what the page shows of it."""
    plain = one_by_one(results) if results.attrs.get("experiment") else results
    effects = (effects_alone if results.attrs.get("keep") == "effects" else per_prompt)(plain, label)
    effects = effects.isel({dim: in_order(list(map(str, effects[dim].values))) for dim in ("ablated", "component")})
    of_runs = pictures if _keeps_traces(effects) else mediated
    matrices = [*of_runs(results, effects, bootstrap)]
    if _keeps_traces(effects):
        _keep_traces(effects, prefix, arrays)
    if pairs:
        matrices.insert(0, interaction_picture(pairs, list(map(str, effects["ablated"].values))))
    arrays.add(f"{prefix}amounts", _stack(outcome(effects), AMOUNTS, ("ablated", "prompt")))
    for place, picture in enumerate(matrices):
        arrays.add(f"{prefix}picture.{place}", picture.bounds)
    return effects, {
        "name": label,
        "caption": caption(effects),
        "unit": unit(effects),
        "clean": [float(value) for value in effects["logit"].values],
        "pictures": [_described(each) for each in matrices],
    }


def _words(found: Summary, effects: xr.Dataset, bootstrap: Bootstrap) -> dict[str, Any]:
    """What the page says of one readout."""
    of_part = {each.ablated: each for each in found.parts}
    return {
        "verdicts": _told(found),
        "warnings": [warning for warning in found.warnings if warning != EFFECTS_ALONE],
        "parts": [_said(of_part[str(name)], unit(effects)) for name in effects["ablated"].values],
        "fits": _fits(outcome(effects), bootstrap),
    }


def _told(found: Summary) -> list[tuple[str, str]]:
    """Every verdict's question and answer, and what else is said of it."""
    heads = headlines(found)
    return [(head, text.removeprefix(head)) for head, text in zip(heads, sentences(found), strict=True)]


def _start(found: Summary, effects: xr.Dataset) -> int:
    """The part that the page opens at: that of the clearest verdict, or of the most redundant pair, else the one that
    removes most.
    """
    names = [str(name) for name in effects["ablated"].values]
    covering = found.pairs[0].first if found.pairs else ""
    part = clearest(found.verdicts).part.split(" or ")[0] if found.verdicts else covering
    return names.index(part) if part in names else int(effects["direct"].mean("prompt").values.argmin())


def _parts(labels: xr.DataArray) -> list[dict[str, Any]]:
    return [
        {"name": name, "kind": kind_of(name), "layer": layer}
        for name, layer in zip(map(str, labels.values), layers(labels), strict=True)
    ]


def _keep_traces(effects: xr.Dataset, prefix: str, arrays: Arrays) -> None:
    """What every layer writes, intact and ablated: means over prompts as they are, and each prompt's, rounded."""
    clean, ablated = effects["unembed"], effects["unembed_ablated"]
    arrays.add(f"{prefix}clean.mean", clean.mean("prompt").values)
    arrays.add(f"{prefix}ablated.mean", ablated.mean("prompt").transpose("ablated", "component").values)
    arrays.add(f"{prefix}clean", clean.transpose("prompt", "component").values)
    # What isn't downstream stays as it is in the intact network, exactly.
    moved = (effects["is_ablated"] | effects["downstream"]).transpose("ablated", "component").values
    each = ablated.transpose("ablated", "prompt", "component").values
    for part, (values, columns) in enumerate(zip(each, moved, strict=True)):
        arrays.add_rounded(f"{prefix}ablated.{part}", values, np.flatnonzero(columns).tolist())


def _stack(samples: xr.Dataset, names: tuple[str, ...], dims: tuple[str, ...]) -> np.ndarray:
    return np.stack([samples[name].transpose(*dims).values for name in names])


def _described(picture: Picture) -> dict[str, Any]:
    return {
        "name": picture.name,
        "meaning": picture.meaning,
        "axis": picture.axis,
        "columns": picture.columns,
        "kinds": list(map(kind_of, picture.columns)),
        "joint": picture.joint,
        "grey": picture.grey,
        "most": scale_of(picture.bounds[0]),
    }


def _said(part: PartFindings, of: str) -> list[str]:
    """What the ablation of one part does, in sentences."""
    lost = f"loses {written(part.lost, 2)} {of}"
    if np.isnan(part.removed.estimate):
        return [f"Ablating {part.ablated} {lost}; nothing is removed directly, where it is ablated."]
    removed = f"Ablating {part.ablated} removes {written(part.removed, 2)} {of} and {lost}."
    if np.isnan(part.restored.low):
        return [removed, "What share of it is restored can't be said: what it removes may be 0."]
    restored = f"Restored: {written(part.restored, 2)} of what it removes"
    if np.isnan(part.attention.estimate):
        return [removed, f"{restored}."]
    shares = f"attention {written(part.attention, 2)}, MLPs {written(part.mlp, 2)}, the norm {written(part.norm, 2)}"
    return [removed, f"{restored}; by {shares}."]


def _fits(samples: xr.Dataset, bootstrap: Bootstrap) -> list[dict[str, Any] | None]:
    """Of each ablated part the line of restored on removed over prompts, from end to end, and its slope in words."""
    fit = regression(samples["removed"], samples["restored"], bootstrap)
    slope, intercept = (fit[name].sel(bound="estimate", drop=True) for name in ("slope", "intercept"))
    ends = [samples["removed"].min("prompt"), samples["removed"].max("prompt")]
    points = np.stack([np.stack([x.values, (intercept + slope * x).values], -1) for x in ends], 1)
    return [
        {"slope": written(Interval.at(fit["slope"], str(part)), 2), "line": line.tolist()}
        if np.isfinite(line).all()
        else None
        for part, line in zip(samples["ablated"].values, points, strict=True)
    ]


def _notes(bootstrap: Bootstrap) -> Iterator[str]:
    yield (
        f"Intervals: {bootstrap.confidence:.0%}, percentile bootstrap over prompts, {bootstrap.resamples:,} resamples; "
        "those of a matrix hold for all its cells at once (max-t)."
    )
    yield (
        "Removed is −direct effect, lost −total effect, restored total − direct, means over patches, by the model’s "
        "own final norm. What layers write in ablated runs is read at the clean run’s σ."
    )
    yield (
        "Numbers are kept in single precision. What layers write on single prompts in ablated runs is rounded to "
        f"{STEPS:,} steps of its range over prompts: off by at most 1/{2 * STEPS:,} of it."
    )
    yield f"Made by hydrascope {__version__}. Every number was computed by it; this page only shows them."
