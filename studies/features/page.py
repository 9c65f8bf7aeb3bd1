"""Render the page of the study from its numbers."""

from collections.abc import Iterator, Mapping
from typing import Any

from hydrascope.reports.summary.interval import number
from studies.damping.verdict import MOST_HELD
from studies.features.objections import objections
from studies.features.verdict import difference
from studies.words import OUTCOMES, Bounds, correction, head, interval, markdown, name, prediction, repetition, weights

#: The kinds of directions in words.
KINDS = {
    "neurons": "gate rows",
    "matched": "matched random directions",
    "isotropic": "isotropic random directions",
    "components": "first principal components",
}
_TERMS = {
    "neurons": "Gate rows",
    "matched": "Matched random directions",
    "components": "Principal components",
    "isotropic": "Isotropic random directions",
    "stream": "Stream",
    "between": "Blocks in between",
    "content": "Content",
}


def claim(settings: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """Return the finding in one sentence, with its numbers."""
    models = results["models"]
    most = max(settings["between"])
    found = "; ".join(
        f"{name(model)} {interval(difference(of))} (features {number(of['curves']['neurons'][-1][0], 2)}, random "
        f"{number(of['curves']['matched'][-1][0], 2)})"
        for model, of in models.items()
    )
    return (
        f"**{_said(settings['threshold'], models)}** Share of a removed part that later sublayers bring back, over "
        f"{most} blocks, features less random directions of the same variance: {found}. Predicted: over "
        f"{settings['threshold']}."
    )


def _said(limit: float, models: Mapping[str, Any]) -> str:
    """Return the finding in words: in which models features come back more than random directions, or less."""
    found: dict[str, list[str]] = {}
    for model, of in models.items():
        found.setdefault(_against_random(difference(of), limit), []).append(name(model))
    parts = (f"{words} in {' and '.join(found[words])}" for words in _AGAINST_RANDOM if words in found)
    told = "; ".join(parts).replace(_LIMIT, f"{limit}")
    return f"On the mean of three depths, features (gate rows of MLP neurons) come back {told}."


_LIMIT = "LIMIT"
_AGAINST_RANDOM = (
    f"more than random directions, by over {_LIMIT},",
    f"more than random directions, but by less than {_LIMIT},",
    "more than random directions",
    "neither surely more nor surely less",
    "less than random directions",
)


def _against_random(bounds: Bounds, limit: float) -> str:
    _, low, high = bounds
    if low is None or high is None or low <= 0 <= high:
        return _AGAINST_RANDOM[3]
    if low < 0:
        return _AGAINST_RANDOM[4]
    return _AGAINST_RANDOM[0 if low > limit else 1 if high < limit else 2]


@markdown
def render(settings: Mapping[str, Any], results: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of the page.

    Args:
        settings: the study's declared settings.
        results: the study's results.
    """
    models, verdict = results["models"], results["verdict"]
    counts = " and ".join(f"{count} {label}" for label, count in next(iter(models.values()))["prompts"].items())
    caption = (
        "Share g of a removed part that is back where the direction is read, against the number of blocks in between; "
        f"mean over directions, three depths, attention and MLPs ({counts}). Bands: 95% over prompts and directions; "
        "principal components are fixed, so theirs are over prompts alone. Isotropic directions stand in the table."
    )
    told = claim(settings, results)
    yield from head("Is there a Hydra effect for features?", "features", told, "What comes back, by distance", caption)
    yield from prediction(settings, _outcome(models, verdict))
    yield from (f"- **{title}**: {settings['terms'][key]}." for key, title in _TERMS.items())
    yield f"- **Halves**: {settings['halves']['rule']}; {settings['halves']['reason']}."
    yield f"- **Intervals**: {settings['intervals']['rule']}."
    yield ""
    yield "## Numbers"
    yield ""
    yield "Share g that comes back, confirmation half:"
    yield ""
    yield from _curves(models)
    yield ""
    yield f"By depth, with {max(settings['between'])} blocks in between:"
    yield ""
    yield from _depths(models)
    yield ""
    yield from _apart(models)
    yield ""
    yield "## Secondary claims"
    yield ""
    yield from _secondary(settings, models, verdict)
    yield ""
    yield correction(settings, verdict["p"])
    yield ""
    yield "## Guards and controls"
    yield ""
    yield from (f"- {guard[0].upper()}{guard[1:]}." for guard in settings["guards"])
    yield from _controls(settings, models, verdict)
    yield ""
    yield "## Limits"
    yield ""
    yield from weights(settings["models"], models)
    yield from _limits()
    yield ""
    yield from repetition("features", settings["models"])
    yield "## Objections"
    yield ""
    yield from objections(models)


def _outcome(models: Mapping[str, Any], verdict: Mapping[str, Any]) -> str:
    found = "; ".join(f"{name(model)} {interval(difference(of), 3)}" for model, of in models.items())
    against = " and ".join(map(name, verdict["against"]))
    later = " and ".join(name(model) for model in verdict["against"] if (difference(models[model])[1] or 0) > 0)
    sharper = (
        f" In {later} by the part of the rule that was added after a first look (see the objections)." if later else ""
    )
    return f"{OUTCOMES[verdict['outcome']]} {found}.{f' Against it: {against}.' if against else ''}{sharper}"


def _curves(models: Mapping[str, Any]) -> Iterator[str]:
    between = next(iter(models.values()))["between"]
    yield f"| blocks in between | {' | '.join(map(str, between))} |"
    yield "|---" * (len(between) + 1) + "|"
    for model, of in models.items():
        for kind, words in KINDS.items():
            yield f"| {name(model)}, {words} | {' | '.join(map(interval, of['curves'][kind]))} |"
        differences = " | ".join(interval(each, 3) for each in of["difference"])
        yield f"| {name(model)}, **gate rows − matched** | {differences} |"
    yield ""
    yield "At 0 blocks in between nothing reacts to an MLP: the number is the mean of 0 and of attention's g."


def _depths(models: Mapping[str, Any]) -> Iterator[str]:
    columns = {**KINDS, "difference": "gate rows − matched"}
    yield f"| stream that enters | {' | '.join(columns.values())} |"
    yield "|---" * (len(columns) + 1) + "|"
    for model, of in models.items():
        for block, found in zip(of["directions"]["blocks"], of["depths"], strict=True):
            cells = " | ".join(interval(found[kind]) for kind in columns)
            yield f"| {name(model)}, block {block} of {of['origin']['blocks']} | {cells} |"


def _apart(models: Mapping[str, Any]) -> Iterator[str]:
    yield (
        "The difference of gate rows and matched directions, with as many blocks in between, by the kind of sublayer, "
        "the set, and what is resampled. The exploration half is 10 facts and 10 passages, which helped to choose the "
        "directions, too:"
    )
    yield ""
    yield (
        "| | attention removed | MLP removed | facts | passages | interval over prompts alone | "
        "over directions alone | exploration half | pairs in which the gate row comes back more |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for model, of in models.items():
        found = [
            *of["sublayers"].values(),
            *of["sets"].values(),
            *of["drawn"].values(),
            of["exploration"]["difference"][-1],
        ]
        cells = " | ".join(map(interval, found))
        yield f"| {name(model)} | {cells} | {number(100 * of['larger'], 0)}% |"


def _secondary(settings: Mapping[str, Any], models: Mapping[str, Any], verdict: Mapping[str, Any]) -> Iterator[str]:
    yield (
        "| declared before the confirmation half was measured, for both models | "
        f"{' | '.join(map(name, models))} | p | adjusted | |"
    )
    yield "|---" * (len(models) + 4) + "|"
    for each, of in verdict["secondary"].items():
        says = "holds" if of["holds"] else "**not shown**"
        cells = " | ".join(interval(found["over"][each], 3) for found in models.values())
        yield f"| {settings['secondary'][each]} | {cells} | {of['p']:.2g} | {of['adjusted']:.2g} | {says} |"
    yield ""
    small = "; ".join(
        f"{name(model)}: gate rows {interval(of['small']['neurons'])}, components {interval(of['small']['components'])}"
        for model, of in models.items()
    )
    yield (
        "The direction of the claim about principal components was chosen after ten passages of the exploration half. "
        f"It is about whole parts and the mean of the depths: where a tenth is removed, {small}. Where small and "
        "whole parts give another order, the answer isn't linear."
    )


def _controls(settings: Mapping[str, Any], models: Mapping[str, Any], verdict: Mapping[str, Any]) -> Iterator[str]:
    noise = settings["weight_noise"]
    for model, of in models.items():
        loud, about = of["loudest"], of["directions"]
        guarded = "**a guard forbids a verdict**" if model in verdict["guarded"] else "no guard forbids a verdict"
        over = "over" if loud["hold"] > MOST_HELD else "not over"
        yield (
            f"- {name(model)}: 5% of the prompts hold {number(100 * loud['hold'], 0)}% of Σ direct² (mean over "
            f"directions, the larger of the sets), {over} a third. "
            f"Without them the difference is {number(loud['without'], 3)}, as the median of blocks "
            f"{number(loud['blocks'], 3)}: {guarded}."
        )
        low, middle, high = about["last_variance"]
        least, most = about["alike"]
        yield (
            f"- Variance, {name(model)}: at the last tokens alone the stream's variance along a gate row is "
            f"{number(middle, 2)} times that along its matched direction (quartiles {number(low, 2)} and "
            f"{number(high, 2)}), the squared pushes {number(of['pushes'][1], 2)} times ({number(of['pushes'][0], 2)} "
            f"and {number(of['pushes'][2], 2)}). The two directions have an absolute cosine of {number(least, 2)} "
            f"(median), {number(most, 2)} at most."
        )
        without, noised = (
            of["weight_noise"]["none"],
            [each for kind, each in of["weight_noise"].items() if kind != "none"],
        )
        moved, half = max(abs(each[0] - without[0]) for each in noised), (without[2] - without[1]) / 2
        yield (
            f"- Weight noise, {name(model)}, {noise['prompts']} {noise['set']}: the difference is "
            f"{interval(without, 3)}, with noise {', '.join(number(each[0], 3) for each in noised)}: it moves by "
            f"{number(moved, 3)}, {'less' if moved < half else '**more**'} than the half-width {number(half, 3)}."
        )
        even = ", ".join(f"{number(share, 4)} ({KINDS[kind]})" for kind, share in of["turned"]["even"].items())
        yield (
            f"- Linearity, {name(model)}, {of['turned']['prompts']} {settings['turned']['set']}: the part of the "
            f"answer that keeps its sign when the push is turned has, of the energy of the part that doesn't, {even}."
        )
        small = of["small"]
        yield (
            f"- Small pushes, {name(model)}, looked at afterwards: where {number(small['dose'], 1)} of each part is "
            f"removed, gate rows come back by {interval(small['neurons'])}, matched directions by "
            f"{interval(small['matched'])}; the difference is {interval(small['difference'], 3)}."
        )


def _limits() -> Iterator[str]:
    yield (
        "- Features are gate rows of neurons. Features of a sparse dictionary weren't read, so that the page says "
        "nothing about them."
    )
    yield "- Only the last position is ablated and read, so that attention can't answer at later tokens."
    yield (
        "- The MLP that owns a gate row reads the stream after the attention of its own block, which isn't counted "
        "here: the stream is read as it enters the block."
    )
    yield (
        "- Six blocks are a fifth of SmolLM2's depth and a third of Gemma's, where the first stream that is read comes "
        "after the very first block's parts were removed: the signs may differ by place, not by model."
    )
    yield "- Percentiles aren't widened for few directions; with 32 they are about 6% too narrow."
    yield "- g says what later sublayers do to a push along a direction, not why they do it."
    yield (
        "- Whether neurons that are silent in the clean pass carry an MLP's answer was planned, and wasn't measured."
    )
