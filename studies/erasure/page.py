"""Render the page of the study from its numbers."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydrascope.reports.summary.interval import number
from studies.damping.cells import cells_of
from studies.damping.verdict import MOST_HELD
from studies.erasure.objections import objections
from studies.words import OUTCOMES, Bounds, correction, head, interval, markdown, name, prediction, repetition, weights

#: The directions that are pushed.
_KINDS = {
    "target": "the target",
    "fifth": "the fifth most likely token",
    "others": "drawn tokens",
    "random": "random directions",
}
_FORMS = {"token": "as one token", "profile": "as a profile"}


def claim(settings: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """Return the finding in one sentence, with its numbers."""
    cells = [*cells_of(settings, results["models"])]
    taken = {(model, label): of["confirmation"]["taken"]["target"]["own"] for model, label, of in cells}
    own = "; ".join(f"{name(model)}, {label} {interval(each)}" for (model, label), each in taken.items())
    said = _said(results["verdict"]["outcome"], [*taken.values()])
    return (
        f"**{said}** Share of the push that comes off the token beyond what common mode and frequency foresee: {own}."
    )


def _said(outcome: str, own: Sequence[Bounds]) -> str:
    if outcome == "holds":
        return "When a token is pushed, late MLPs answer mostly by a shift of all tokens by common mode and frequency."
    if outcome == "can't tell":
        return "The declared rule can't tell whether late MLPs answer a pushed token by a shift of all tokens."
    if all(low is not None and low > 0 for _, low, _ in own):
        return "Late MLPs don't only recalibrate: a token that is pushed loses more than tokens like it do."
    return "The pushed token's profile explains more of late MLPs' answer than common mode and frequency do."


@markdown
def render(settings: Mapping[str, Any], results: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of the page.

    Args:
        settings: the study's declared settings.
        results: the study's results.
    """
    models, verdict = results["models"], results["verdict"]
    caption = (
        "The target's logit is pushed up by one at a sublayer before the last quarter of the blocks. Change of other "
        "tokens' logits by what all MLPs of the last quarter write, against log frequency (least squares over 150 "
        "facts, four pushed sublayers). Stars: the pushed token. Orange: what common mode and log frequency, fitted "
        "without the pushed token, leave. Dashed: what the push adds to other tokens, with the other sign."
    )
    yield from head(
        "What erasure is for", "erasure", claim(settings, results), "Change of logits by frequency", caption
    )
    yield from prediction(settings, _outcome(settings, models, verdict))
    yield from (f"- **{title}**: {settings['terms'][key]}." for key, title in _TERMS.items())
    pushed = "; ".join(f"{name(model)} {', '.join(of['origin']['pushed'])}" for model, of in models.items())
    yield f"- **Pushed**: {pushed}: {settings['pushed']['rule']}."
    yield f"- **Halves**: {settings['halves']['rule']}; {settings['halves']['reason']}."
    yield ""
    yield "## Numbers"
    yield ""
    yield "Shares of Σ Δu² over 600 tokens that sets of terms explain alone, the target pushed, confirmation half:"
    yield ""
    yield from _table(settings, models)
    yield ""
    yield (
        "*Beyond both*: what the pushed token adds to common mode and frequency. *Beyond profile*: what they add to "
        "it. Terms overlap, so shares don't add up to one."
    )
    yield ""
    yield "The same of pushes of equal norm along other directions, and of what isn't a response:"
    yield ""
    yield from _controls(settings, models)
    yield ""
    yield "## What comes off the pushed token"
    yield ""
    yield from _taken(settings, models)
    yield ""
    yield "## Looked at afterwards: the common mode and the rest"
    yield ""
    yield from _damped(settings, models)
    yield ""
    yield from _against_random(models)
    yield ""
    yield "## Guards and other readings"
    yield ""
    yield from (f"- {guard[0].upper()}{guard[1:]}." for guard in settings["guards"])
    yield f"- {_guarded(settings, models, verdict)}"
    yield ""
    yield from _readings(settings, models)
    yield ""
    yield "## Secondary claims"
    yield ""
    yield "| declared before, for all four sets | p | adjusted | | shown, each taken alone, in |"
    yield "|---|---|---|---|---|"
    for each, of in verdict["secondary"].items():
        says = "holds" if of["holds"] else "**not shown**"
        alone = "; ".join(f"{name(model)}, {label}" for model, label in of["in"]) or "none"
        yield f"| {settings['secondary'][each]} | {of['p']:.2g} | {of['adjusted']:.2g} | {says} | {alone} |"
    yield ""
    yield correction(settings, verdict["p"])
    yield ""
    yield "## Controls"
    yield ""
    yield from _weights(settings, models)
    yield ""
    yield "## Limits"
    yield ""
    yield from _limits(settings, models)
    yield ""
    yield from repetition("erasure", settings["models"])
    yield "## Objections"
    yield ""
    yield from objections(models)


_TERMS = {
    "common_mode": "Common mode",
    "frequency": "Frequency",
    "push": "Push",
    "tokens": "Tokens",
    "alone": "Shares",
}


def _outcome(settings: Mapping[str, Any], models: Mapping[str, Any], verdict: Mapping[str, Any]) -> str:
    found = "; ".join(
        f"{name(model)}, {label} {interval(of['confirmation']['shares']['target']['both'])}"
        for model, label, of in cells_of(settings, models)
    )
    alone = ", ".join(f"{name(model)}, {label} ({_FORMS[form]})" for model, label, form in verdict["alone"])
    limit = settings["threshold"]
    below = [
        f"{name(model)}, {label}"
        for model, label, of in cells_of(settings, models)
        if (of["confirmation"]["shares"]["target"]["both"][2] or 0) < limit
    ]
    less = f" It is surely below {limit} in {'; '.join(below)}." if below else ""
    more = f" The pushed token alone surely explains more in {alone}." if alone else ""
    return f"{OUTCOMES[verdict['outcome']]} Share of both together: {found}.{less}{more}"


_COLUMNS = {
    "both": "**both**",
    "common": "common mode",
    "log_frequency": "log frequency",
    "profile": "pushed token, as a profile",
    "token": "as one token",
    "beyond profile": "profile beyond both",
    "beyond token": "one token beyond both",
    "unique profile": "both beyond profile",
}


def _table(settings: Mapping[str, Any], models: Mapping[str, Any]) -> Iterator[str]:
    yield f"| | prompts | {' | '.join(_COLUMNS.values())} |"
    yield "|---" * (len(_COLUMNS) + 2) + "|"
    for model, label, of in cells_of(settings, models):
        confirmed = of["confirmation"]
        cells = [interval(confirmed["shares"]["target"][column]) for column in _COLUMNS]
        yield f"| {name(model)}, {label} | {confirmed['number']} | {' | '.join(cells)} |"


def _controls(settings: Mapping[str, Any], models: Mapping[str, Any]) -> Iterator[str]:
    yield (
        "| | pushed | both | its own profile | profile beyond both | both beyond profile | of the push itself, both "
        "explain |"
    )
    yield "|---|---|---|---|---|---|---|"
    for model, label, of in cells_of(settings, models):
        confirmed = of["confirmation"]
        for kind, words in _KINDS.items():
            found = confirmed["shares"][kind]
            cells = [interval(found[key]) for key in ("both", "profile", "beyond profile", "unique profile")]
            cells.append(interval(confirmed["push"][kind]["both"]))
            yield f"| {name(model)}, {label} | {words} | {' | '.join(cells)} |"
        yield f"| {name(model)}, {label} | nothing: clean writes | {interval(confirmed['written'])} | | | | |"


def _taken(settings: Mapping[str, Any], models: Mapping[str, Any]) -> Iterator[str]:
    yield (
        "The share of a push that the late MLPs take back from the pushed token, and the share that common mode and "
        "frequency, fitted on the other tokens, foresee for a token like it. The rest is its own:"
    )
    yield ""
    yield "| | pushed | taken back | foreseen | its own |"
    yield "|---|---|---|---|---|"
    for model, label, of in cells_of(settings, models):
        for kind, words in _KINDS.items():
            if kind == "random":
                continue
            found = of["confirmation"]["taken"][kind]
            cells = [interval(found[key]) for key in ("taken", "foreseen", "own")]
            yield f"| {name(model)}, {label} | {words} | {' | '.join(cells)} |"


def _damped(settings: Mapping[str, Any], models: Mapping[str, Any]) -> Iterator[str]:
    yield (
        "Over the whole vocabulary the common mode and the rest of a push have nothing in common (c is an eigenvector "
        "of Σ a_v a_vᵀ), so that no term competes with another. Share that late MLPs take back of a push's part along "
        "the common mode, and of the rest of the same push:"
    )
    yield ""
    yield "| | pushed | common mode | the rest |"
    yield "|---|---|---|---|"
    for model, label, of in cells_of(settings, models):
        for kind, words in _KINDS.items():
            found = of["confirmation"]["damped"][kind]
            common = "–" if kind == "random" else interval(found["common"])
            yield f"| {name(model)}, {label} | {words} | {common} | {interval(found['rest'])} |"


def _against_random(models: Mapping[str, Any]) -> Iterator[str]:
    for model, of in models.items():
        found = [each["confirmation"]["damped"] for each in of["sets"].values()]
        sure = [words for kind, words in _KINDS.items() if all(_surely_more(each, kind) for each in found)]
        yield (
            f"- {name(model)}: of the rest surely more comes back than of a random push, on both sets, for "
            f"{' and '.join(sure) or 'none of them'}."
        )


def _surely_more(damped: Mapping[str, Any], kind: str) -> bool:
    low, high = damped[kind]["rest"][1], damped["random"]["rest"][2]
    return low is not None and high is not None and low > high


def _guarded(settings: Mapping[str, Any], models: Mapping[str, Any], verdict: Mapping[str, Any]) -> str:
    if verdict["guarded"]:
        cells = "; ".join(f"{name(model)}, {label}" for model, label in verdict["guarded"])
        return f"**A guard forbids a verdict that the prediction holds in {cells}.**"
    held = [of["confirmation"]["loudest"]["hold"] for _, _, of in cells_of(settings, models)]
    loud = sum(each > MOST_HELD for each in held)
    return (
        f"No guard forbids a verdict. 5% of the prompts hold {number(100 * min(held), 0)} to "
        f"{number(100 * max(held), 0)}% of all squares; in {loud} of {len(held)} sets that is over a third."
    )


def _readings(settings: Mapping[str, Any], models: Mapping[str, Any]) -> Iterator[str]:
    yield (
        "| share of both | exploration half | whole vocabulary | without the loudest 5% | median of 20 blocks | with "
        "the logit | pushed sublayers apart | late MLPs apart |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    for model, label, of in cells_of(settings, models):
        explored, confirmed = of["exploration"], of["confirmation"]
        apart = [[each[0] for each in confirmed[key].values()] for key in ("each_pushed", "each_late")]
        cells = [
            interval(explored["shares"]["target"]["both"]),
            interval(confirmed["vocabulary"]["target"]["both"]),
            number(confirmed["loudest"]["without"], 2),
            number(confirmed["loudest"]["blocks"], 2),
            interval(confirmed["shares"]["target"]["both+logit"]),
            *(f"{number(min(each), 2)} to {number(max(each), 2)}" for each in apart),
        ]
        yield f"| {name(model)}, {label} | {' | '.join(cells)} |"


def _weights(settings: Mapping[str, Any], models: Mapping[str, Any]) -> Iterator[str]:
    noise = settings["weight_noise"]
    for model, of in models.items():
        found = of["weight_noise"]
        without, noised = found["none"], [each for kind, each in found.items() if kind != "none"]
        moved = max(abs(each[0] - without[0]) for each in noised)
        half = (without[2] - without[1]) / 2
        says = "less" if moved < half else "**more**"
        yield (
            f"- Weight noise, {name(model)}, {noise['prompts']} {noise['set']}: the share is {interval(without)}, with "
            f"noise {', '.join(number(each[0], 2) for each in noised)}: it moves by {number(moved, 3)}, {says} than "
            f"the half-width {number(half, 3)}."
        )
        yield (
            f"- Kick, {name(model)}: pushing the target moves the stream by {number(of['kick']['kick'], 4)} (median; 1 "
            "is as far as two prompts are apart)."
        )
        even = [each["confirmation"]["even"] for each in of["sets"].values()]
        yield (
            f"- Up and down, {name(model)}: the part of the response that doesn't change sign has "
            f"{' and '.join(interval(each, 4) for each in even)} of the energy of the part that does."
        )


def _limits(settings: Mapping[str, Any], models: Mapping[str, Any]) -> Iterator[str]:
    yield from weights(settings["models"], models)
    yield "- Targets are the model's own most likely tokens, which are frequent; the fifth most likely stands beside."
    yield "- Only the last position is pushed, at four sublayers just before the last quarter."
    yield "- Frequency is the model's own mean prediction over a few passages, not that of its training text."
    yield "- A push along the readout isn't an ablation: what late MLPs do about missing content isn't seen here."
