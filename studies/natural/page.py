"""Render the page of the study from its numbers."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from hydrascope.reports.summary.interval import number
from studies.claims import half_width, side
from studies.words import OUTCOMES, correction, head, interval, markdown, name, prediction, repetition, weights


def claim(settings: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """Return the finding in one sentence, with its numbers."""
    low, high = settings["range"]
    models = results["models"]
    sides: dict[str, list[str]] = {}
    for model, of in models.items():
        best = of["passages"]["logit"]["best"]
        sides.setdefault(side(best["slope"] if best else (None,) * 3, low, high), []).append(name(model))
    said = "; ".join(f"{_SIDES[each]} {' and '.join(sides[each])}" for each in _SIDES if each in sides)
    found = "; ".join(_best(model, of["passages"]["logit"]) for model, of in models.items())
    return (
        f"**On natural text the paper's slope at the best attention sublayer {said}.** Slope of compensation on direct "
        f"effect: {found}. The paper: about 0.7; predicted: [{low}, {high}]."
    )


_SIDES = {"within": "holds in", "outside": "doesn't hold in", "unsure": "can't be confirmed or excluded in"}


def _shares_inside(models: Mapping[str, Any], low: float, high: float) -> str:
    """Return the slopes again, and on which side of the range each estimate lies."""
    words = []
    for model, of in models.items():
        best = of["passages"]["logit"]["best"]
        if best and best["slope"][0] is not None:
            estimate = best["slope"][0]
            lies = "below" if estimate < low else "above" if estimate > high else "in"
            words.append(f"{name(model)} {interval(best['slope'], 3)}, the estimate {lies} [{low}, {high}]")
    return f"{'; '.join(words)}."


def _best(model: str, of: Mapping[str, Any]) -> str:
    if not of["best"]:
        return f"{name(model)}: no choice"
    return f"{name(model)} {interval(of['best']['slope'])} (R² {interval(of['best']['r2'])}, {of['at']})"


@markdown
def render(settings: Mapping[str, Any], results: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of the page.

    Args:
        settings: the study's declared settings.
        results: the study's results.
    """
    models, verdict = results["models"], results["verdict"]
    low, high = settings["range"]
    caption = (
        "Slope of the compensatory effect (CE) on the direct effect (DE) over passages, for each ablated attention "
        "sublayer. Lines: 95% for all sublayers of a model at once; cut at the axis. Stars: the best sublayer, chosen "
        "on other passages."
    )
    yield from head(
        "The paper's slope on natural text",
        "natural",
        claim(settings, results),
        "Slope of compensation over depth on natural text",
        caption,
    )
    yield from prediction(settings, f"{OUTCOMES[verdict['outcome']]} {_shares_inside(models, low, high)}")
    yield f"- **Known before**: {settings['known_before']}. The [replication](replication.md) measured those."
    yield f"- **Choice**: {settings['selection']}."
    yield f"- **Halves**: {settings['halves']['rule']}; {settings['halves']['reason']}."
    left_out = [name(model) for model, of in models.items() if not of["passages"]["mlps"]]
    still = f" Not measured so far in {' and '.join(left_out)}." if left_out else ""
    yield f"- **MLPs**: {settings['mlps']['rule']}; {settings['mlps']['change']}.{still}"
    yield ""
    yield "## Numbers"
    yield ""
    count = {of["passages"]["number"] for of in models.values()}
    yield (
        f"{' and '.join(map(str, sorted(count)))} passages, the last token ablated and read, the model's own most "
        f"likely token as target, {settings['patches']} patches from other passages:"
    )
    yield ""
    yield from _table(models)
    yield ""
    yield (
        "*On what is removed*: under resampling the patch writes something for the target, too, so that less or more "
        "than DE is removed. *Prompt by prompt* is the slope of (total − direct) on −direct. *Restored on average* is "
        "1 − mean lost / mean removed, without an interval where what is removed may be 0. *Damping* is measured under "
        "zero ablation of the readout part."
    )
    yield ""
    yield "## All sublayers"
    yield ""
    yield "Slopes on passages with bounds that hold for all sublayers of a kind at once:"
    yield ""
    yield from _counts(models)
    yield ""
    yield "## Facts"
    yield ""
    yield from _facts(models)
    yield ""
    yield "## Secondary claims"
    yield ""
    yield "| declared before | p | adjusted | |"
    yield "|---|---|---|---|"
    for each, of in verdict["secondary"].items():
        says = "holds" if of["holds"] else "**not shown**"
        p = [f"{of[key]:.2g}" if key in of else "–" for key in ("p", "adjusted")]
        yield f"| {settings['secondary'][each]} | {' | '.join(p)} | {says} |"
    yield ""
    yield correction(settings, verdict["p"])
    yield ""
    yield "## Controls"
    yield ""
    yield from _controls(settings, models)
    yield ""
    yield "## Limits"
    yield ""
    yield from weights(models, models)
    yield "- Targets are the model's own most likely tokens, the foil its runner-up; some patches push the same token."
    yield "- Only the last position is ablated: earlier positions keep what they hold, also for later layers to read."
    yield "- A slope says that compensation grows with the direct effect, not that the total effect is small. Damping"
    yield "  of the readout's direction gives such a slope, too ([Damping or Hydra?](damping.md))."
    yield ""
    yield from repetition("natural", settings["models"])
    yield "## Objections"
    yield ""
    yield from _objections(settings, models)


_ROWS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "slope": lambda of: interval(of["best"]["slope"]),
    "R²": lambda of: interval(of["best"]["r2"]),
    "slope, σ of the ablated pass": lambda of: interval(of["best"]["own_scale"]["slope"]),
    "slope on what is removed": lambda of: interval(of["best"]["on_removed"]),
    "prompt by prompt": lambda of: interval(of["best"]["restored_slope"]),
    "restored on average": lambda of: interval(of["best"]["restored"]),
    "removed (mean)": lambda of: interval(of["best"]["removed"]),
    "lost (mean)": lambda of: interval(of["best"]["lost"]),
    "slope without the 5% of largest DE": lambda of: number(of["best"]["loudest"]["without"], 2),
    "their share of all DE": lambda of: f"{100 * of['best']['loudest']['hold']:.0f}%",
    "slope by each third of the patches": lambda of: ", ".join(number(each[0], 2) for each in of["groups"]),
    "chosen on these passages, scored on the others": lambda of: _swapped(of["swapped"]),
}


def _swapped(of: Mapping[str, Any] | None) -> str:
    return f"{interval(of['slope'])} ({of['at']})" if of else "no choice"


def _table(models: Mapping[str, Any]) -> Iterator[str]:
    columns = [(model, readout) for model in models for readout in ("logit", "difference")]
    found = [models[model]["passages"][readout] for model, readout in columns]
    yield f"| | {' | '.join(f'{name(model)}, `{readout}`' for model, readout in columns)} |"
    yield "|---" * (len(columns) + 1) + "|"
    yield f"| best attention sublayer, chosen on other passages | {' | '.join(of['at'] or 'none' for of in found)} |"
    for title, cell in _ROWS.items():
        yield f"| {title} | {' | '.join(cell(of) if of['best'] else '–' for of in found)} |"
    damping = [
        interval((models[model]["beside"] or {"damping": {}})["damping"].get(readout, [None] * 3))
        for model, readout in columns
    ]
    yield f"| damping g there | {' | '.join(damping)} |"


def _counts(models: Mapping[str, Any]) -> Iterator[str]:
    yield "| | passages | sublayers | surely above 0 | surely below 0 | surely below 1 | surely above 1 |"
    yield "|---|---|---|---|---|---|---|"
    for model, of in models.items():
        for readout in ("logit", "difference"):
            for kind, words in (("attention", "attention"), ("mlp", "MLPs")):
                found = of["passages"][readout][kind]
                if found is None:
                    continue
                cells = [found[key] for key in ("above_0", "below_0", "below_1", "above_1")]
                prompts = of["passages"]["number" if kind == "attention" else "mlps"]
                row = " | ".join(map(str, (prompts, len(found["slopes"]), *cells)))
                yield f"| {name(model)}, {words}, `{readout}` | {row} |"


def _facts(models: Mapping[str, Any]) -> Iterator[str]:
    yield "| | prompts | best sublayer | slope | R² | attention slopes surely above 0, of all |"
    yield "|---|---|---|---|---|---|"
    for model, of in models.items():
        for readout in ("logit", "difference"):
            found = of["facts"][readout]
            best = found["best"] or {"at": "none", "slope": [None] * 3, "r2": [None] * 3}
            slopes = found["attention"]
            yield (
                f"| {name(model)}, `{readout}` | {of['facts']['number']} | {best['at']} | {interval(best['slope'])} | "
                f"{interval(best['r2'])} | {slopes['above_0']} of {len(slopes['slopes'])} |"
            )


def _controls(settings: Mapping[str, Any], models: Mapping[str, Any]) -> Iterator[str]:
    for model, of in models.items():
        best, placebo = of["passages"]["logit"]["best"], of["passages"]["logit"].get("placebo")
        if not best or not of["beside"]:
            continue
        slopes, target = sorted(each[0] for each in placebo["slope"]), number(best["slope"][0], 2)
        yield (
            f"- Other tokens, {name(model)}: at {of['passages']['logit']['at']} the slopes of {len(slopes)} drawn "
            f"tokens are {number(slopes[0], 2)} to {number(slopes[-1], 2)}; the target's is {target}."
        )
        groups = [each[0] for each in of["passages"]["logit"]["groups"]]
        half = (best["slope"][2] - best["slope"][1]) / 2
        yield (
            f"- Patches, {name(model)}: the slopes of three disjoint groups differ by "
            f"{number(max(groups) - min(groups), 3)}, the half-width over passages is {number(half, 3)}."
        )
        noise = of["beside"]["weight_noise"]
        without, noised = noise["noise.none"], [each for kind, each in noise.items() if kind[6:].isdigit()]
        moved = max(abs(each[0] - without[0]) for each in noised)
        width = (without[2] - without[1]) / 2
        says = "less" if moved < width else "**more**"
        yield (
            f"- Weight noise, {name(model)}, {noise['number']} passages: the slope is {interval(without)}, with noise "
            f"{', '.join(number(each[0], 2) for each in noised)}: it moves by {number(moved, 3)}, {says} than the "
            f"half-width {number(width, 3)}."
        )
        kicks = ", ".join(f"{pick} {number(each, 3)}" for pick, each in of["beside"]["kick"].items())
        if not kicks:
            yield f"- Kick, {name(model)}: not measured so far."
            continue
        yield (
            f"- Kick, {name(model)}: resampling moves the stream by {kicks} (median; 1 is as far as two prompts are "
            "apart)."
        )


def _objections(settings: Mapping[str, Any], models: Mapping[str, Any]) -> Iterator[str]:
    chosen = {
        model: {**of["passages"]["logit"], "damping": of["beside"]["damping"]["logit"]}
        for model, of in models.items()
        if of["passages"]["logit"]["best"]
    }

    def each(cell: Callable[[Mapping[str, Any]], str]) -> str:
        return "; ".join(f"{name(model)} {cell(of)}" for model, of in chosen.items())

    low, high = settings["range"]
    yield (
        f"- *The range [{low}, {high}] is wide.* It is, and so are the intervals: half-widths of "
        f"{each(lambda of: number(half_width(of['best']['slope']), 2))}, against the 0.10 that was hoped for. Slopes "
        "of 0.5 and of 0.9 would be two findings, which these intervals hardly tell apart."
    )
    yield (
        "- *The best sublayer is another one each time.* Chosen on these passages instead, and scored on the others: "
        f"{each(lambda of: _swapped(of['swapped']))}. On facts: "
        + "; ".join(_on_facts(model, of) for model, of in models.items())
        + ". The claim is about the best one, wherever it is."
    )
    yield (
        "- *A few passages may make the slope.* The 5% of largest DE hold "
        f"{each(lambda of: _percent(of['best']['loudest']['hold']))} of all DE; without them the slope is "
        f"{each(lambda of: number(of['best']['loudest']['without'], 2))}."
    )
    yield (
        "- *DE isn't what resampling removes.* On what is really removed the slope is "
        f"{each(lambda of: interval(of['best']['on_removed']))}."
    )
    yield (
        "- *A slope isn't a repair on average.* Restored on average at the same sublayer: "
        f"{each(lambda of: interval(of['best']['restored']))}. A slope ignores what every prompt loses alike."
    )
    yield (
        "- *Other tokens have slopes, too.* So they do: "
        f"{each(lambda of: _others(of['placebo']))}. Part of what is made up for isn't about the target."
    )
    yield (
        "- *It is no repair, only damping.* This page can't part them: a network that undoes a share of any push along "
        "the readout has such a slope. Damping g at the same sublayer: "
        f"{each(lambda of: interval(of['damping']))}; what exceeds it is "
        "something else. See [Damping or Hydra?](damping.md) and [What erasure is for](erasure.md)."
    )
    yield (
        "- *`last` hides backups.* Earlier positions keep what the sublayer wrote there, and later layers may read it: "
        "a part of what comes back may come from there."
    )


def _percent(value: float) -> str:
    return f"{100 * value:.0f}%"


def _others(placebo: Mapping[str, Any]) -> str:
    slopes = sorted(each[0] for each in placebo["slope"])
    return f"{number(slopes[0], 2)} to {number(slopes[-1], 2)}"


def _on_facts(model: str, of: Mapping[str, Any]) -> str:
    best = of["facts"]["logit"]["best"]
    return f"{name(model)} {best['at'] if best else 'no choice'}"
