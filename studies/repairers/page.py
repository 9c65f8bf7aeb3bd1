"""Render the page of the study from its numbers."""

from collections.abc import Iterator, Mapping
from typing import Any

from hydrascope.reports.summary.interval import number
from studies.claims import half_width
from studies.repairers.objections import READINGS, objections
from studies.repairers.verdict import above
from studies.words import (
    OUTCOMES,
    correction,
    head,
    interval,
    markdown,
    name,
    p_value,
    prediction,
    repetition_of_shipped,
    weights,
)

_TITLE = "Do the same heads repair in every context?"
#: The kinds of reactions in words.
_KINDS = {
    "damping": "missing prediction (readout part)",
    "content": "missing content (the rest)",
    "full": "both (whole)",
}


def claim(settings: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """Return the finding in one sentence, with its numbers."""
    models = results["models"]
    found = "; ".join(
        f"{name(model)} {interval(of['damping'])} where the prediction is missing, {interval(of['content'])} where the "
        "rest is"
        for model, of in models.items()
    )
    return (
        f"**{_said(settings, models)}** Agreement of two contexts, corrected for noise (1: the same heads): {found}. "
        f"Predicted: over {settings['threshold']}, and by {settings['least_difference']} more than for the rest."
    )


def _said(settings: Mapping[str, Any], models: Mapping[str, Any]) -> str:
    highs = [of["full"][2] for of in models.values()]
    if all(high is not None and high < settings["threshold"] for high in highs):
        first = "Two contexts agree only in part on which heads react to an ablation"
    elif all(above(of["full"], settings["threshold"]) for of in models.values()):
        first = "Two contexts agree on which heads react to an ablation"
    else:
        first = "How far two contexts agree on which heads react to an ablation can't be told for all models"
    more = [name(model) for model, of in models.items() if above(of["difference"], 0)]
    where = "where the prediction is missing than where the rest is"
    if not more:
        return f"{first}, and not surely more {where}."
    only = "" if len(more) == len(models) else f" in {' and '.join(more)} alone"
    return f"{first}, and surely more {where}{only}."


@markdown
def render(settings: Mapping[str, Any], results: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of the page.

    Args:
        settings: the study's declared settings.
        results: the study's results.
    """
    models, verdict = results["models"], results["verdict"]
    caption = (
        "Agreement of every two contexts on how much each head downstream reacts to an ablation, corrected for noise. "
        "Above the diagonal: reactions to the part of the change along the readout; below: to the rest. A cell is "
        "the mean over the ablated sublayers, one or more, for which both profiles are kept; "
        "numbers beyond ±1 look like ±1. Framed: the mean reliability of a context's profiles, of both kinds, kept "
        "or not (a kind below 0 as 0). White: no profiles are kept."
    )
    yield from head(_TITLE, "repairers", claim(settings, results), "Agreement of every two contexts", caption)
    yield from prediction(settings, _outcome(models, verdict))
    yield from (f"- **{title}**: {settings['terms'][key]}." for key, title in _TERMS.items())
    yield f"- **Contexts**: {settings['contexts']['rule']}. {_contexts(models)}"
    yield f"- **Halves**: {settings['contexts']['halves']}."
    yield f"- **Ablated**: {settings['ablated']['rule']}. {_ablated(models)}"
    yield f"- **Changed**: {settings['changed']}."
    yield f"- **Intervals**: {settings['intervals']['rule']}."
    yield ""
    yield "## Numbers"
    yield ""
    yield "Agreement of two contexts, confirmation half, corrected for noise:"
    yield ""
    yield from _table(models)
    yield ""
    yield from _left_out(settings, models)
    yield ""
    yield "By ablated sublayer (no bounds):"
    yield ""
    yield from _by_ablated(models)
    yield ""
    yield "## Controls and other readings"
    yield ""
    yield from _readings(settings, models)
    yield ""
    yield from _controls(models)
    yield ""
    yield "## Specialists and generalists"
    yield ""
    yield from _apart(settings, models)
    yield ""
    yield "## Secondary claims"
    yield ""
    yield "| declared before confirming, for both models (†: after the exploration half was seen) | p | adjusted | |"
    yield "|---|---|---|---|"
    for each, of in verdict["secondary"].items():
        says = "holds" if of["holds"] else "**not shown**"
        yield f"| {settings['secondary'][each]} | {p_value(of['p'])} | {p_value(of['adjusted'])} | {says} |"
    yield ""
    yield correction(settings, verdict["p"])
    yield ""
    yield "## Limits"
    yield ""
    yield from weights(settings["models"], models)
    yield from _limits(models)
    yield ""
    yield from repetition_of_shipped("repairers", settings["models"])
    yield "## Objections"
    yield ""
    yield from objections(settings, models)


_TERMS = {"reliability": "Reliability", "sign": "Sign", "mean": "Which mean is taken out"}


def _outcome(models: Mapping[str, Any], verdict: Mapping[str, Any]) -> str:
    found = "; ".join(
        f"{name(model)}: damping {interval(of['damping'])}, damping less content {interval(of['difference'])}"
        for model, of in models.items()
    )
    against = f" Against it: {' and '.join(map(name, verdict['against']))}." if verdict["against"] else ""
    few = (
        f" Too few contexts for the difference in {' and '.join(map(name, verdict['few']))}." if verdict["few"] else ""
    )
    guarded = " and ".join(map(name, verdict["guarded"]))
    signs = f" The guard of signs speaks in {guarded}." if guarded and verdict["outcome"] != "refuted" else ""
    return f"{OUTCOMES[verdict['outcome']]} {found}.{against}{few}{signs}"


def _contexts(models: Mapping[str, Any]) -> str:
    words = []
    for model, of in models.items():
        half = [each for each in of["about"].values() if each["half"] == "confirmation"]
        few = [
            f"{label} ({each['right']})"
            for label, each in of["about"].items()
            if each["half"] == "confirmation" and not each["measured"]
        ]
        left = f"; too few with the answer ahead in {', '.join(few)}" if few else ""
        words.append(f"{name(model)}: {len(half) - len(few)} contexts confirm{left}")
    return f"{'. '.join(words)}."


def _ablated(models: Mapping[str, Any]) -> str:
    words = []
    for model, of in models.items():
        each = ", ".join(
            f"{label} ({of['heads'][label]} heads downstream, removes {number(removed['mean'], 2)}, in "
            f"{removed['below']} of {len(of['contexts'])} contexts below 0, in {removed['unclear']} unclear)"
            for label, removed in of["removed"].items()
        )
        words.append(f"{name(model)}: {each}")
    clear = "Means were chosen by size, above or below 0. Unclear: within two standard errors of 0."
    return f"{'. '.join(words)}. {clear}"


def _table(models: Mapping[str, Any]) -> Iterator[str]:
    yield "| | reactions to | agreement | uncorrected | mean reliability of those kept | profiles kept | pairs |"
    yield "|---|---|---|---|---|---|---|"
    for model, of in models.items():
        for kind, words in _KINDS.items():
            each = of["kinds"][kind]
            kept = f"{each['profiles']} of {len(of['contexts']) * len(of['removed'])}"
            cells = [_number(each["raw"]), _number(each["reliability"]), kept, str(each["pairs"])]
            yield f"| {name(model)} | {words} | {interval(of[kind])} | {' | '.join(cells)} |"
        yield (
            f"| {name(model)} | damping less content, pairs of both | {interval(of['difference'])} | | | | in "
            f"{of['difference_contexts']} contexts |"
        )


def _left_out(settings: Mapping[str, Any], models: Mapping[str, Any]) -> Iterator[str]:
    least = settings["least_reliability"]
    for model, of in models.items():
        for kind in ("damping", "content"):
            left = of["kinds"][kind]["left_out"]
            told = "; ".join(f"{label}: {', '.join(each)}" for label, each in left.items() if each)
            yield f"- Reliability below {least}, {name(model)}, {kind}: {told or 'none'}."
    for model, of in models.items():
        for kind in ("damping", "content"):
            jackknife, drawn = of["kinds"][kind]["errors"]
            yield (
                f"- Standard errors, {name(model)}, {kind}: {_number(jackknife, 3)} by the jackknife over contexts, "
                f"{_number(drawn, 3)} by resampling; the larger counts."
            )


def _by_ablated(models: Mapping[str, Any]) -> Iterator[str]:
    yield "| | ablated | damping | content | whole |"
    yield "|---|---|---|---|---|"
    for model, of in models.items():
        for place, label in enumerate(of["removed"]):
            cells = [_number(of["kinds"][kind]["by_ablated"][place]) for kind in ("damping", "content", "full")]
            yield f"| {name(model)} | {label} | {' | '.join(cells)} |"


def _readings(settings: Mapping[str, Any], models: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"- {guard[0].upper()}{guard[1:]}." for guard in settings["guards"])
    yield f"- Weight noise: {settings['weight_noise']['rule']}."
    yield ""
    yield "| | reading | damping | content | damping less content |"
    yield "|---|---|---|---|---|"
    for model, of in models.items():
        rows = {"as declared": of, **{words: of["readings"][key] for key, words in READINGS.items()}}
        if of["exploration"]:
            rows["exploration half, as declared"] = of["exploration"]
            rows["exploration half, slope (looked at afterwards)"] = of["exploration"]["by_removed"]
        for words, each in rows.items():
            cells = [interval(each[key]) for key in ("damping", "content", "difference")]
            yield f"| {name(model)} | {words} | {' | '.join(cells)} |"


def _controls(models: Mapping[str, Any]) -> Iterator[str]:
    for model, of in models.items():
        found = of["readings"]
        other = found["other_ablations"]
        yield (
            f"- k or the context, {name(model)}: two different k in one context agree by damping "
            f"{interval(other['damping']['agreement'])}, content {interval(other['content']['agreement'])}. The "
            f"agreement of one k in two contexts, less that: {interval(other['damping']['same_more'])} (damping), "
            f"{interval(other['content']['same_more'])} (content)."
        )
        other = found["other_ablations_unsigned"]
        yield (
            f"- Without a change of sign (looked at afterwards): {interval(other['damping']['agreement'])} and "
            f"{interval(other['content']['agreement'])}; less that {interval(other['damping']['same_more'])} and "
            f"{interval(other['content']['same_more'])}."
        )
        lines = found["lines"]
        yield (
            f"- Loss of drive, {name(model)}: what the same heads write for the answer in the clean run agrees between "
            f"contexts by {interval(found['writes'])}. The line of giving back on it, within a context: median "
            f"slope {_number(lines['damping']['slope'])} and correlation {_number(lines['damping']['correlation'])} "
            f"(damping), {_number(lines['content']['slope'])} and {_number(lines['content']['correlation'])} (content)."
        )
        yield (
            f"- Responses instead of reactions, {name(model)}: the change of what each head writes itself, whole "
            f"ablation, agrees between contexts by {interval(found['responses'])}."
        )
        sizes = found["sizes"]
        yield (
            f"- Sizes, {name(model)}: all heads downstream together react by Σ |mean reaction| / Σ |mean removed| = "
            f"{_number(sizes['head']['damping'])} (damping) and {_number(sizes['head']['content'])} (content), all "
            f"MLPs by {_number(sizes['mlp']['damping'])} and {_number(sizes['mlp']['content'])}."
        )
        yield from _noise(model, of)


def _noise(model: str, of: Mapping[str, Any]) -> Iterator[str]:
    noise = of["weight_noise"]
    if not noise:
        return
    seeds = [noise[seed] for seed in noise if seed.isdigit()]
    same = [[each["same"][kind] for each in seeds] for kind in ("damping", "content")]
    yield (
        f"- Weight noise, {name(model)}, {', '.join(noise['contexts'])}: with noise on the weights the profile of the "
        f"same prompts correlates with that without by {', '.join(map(_number, same[0]))} (damping), "
        f"{', '.join(map(_number, same[1]))} (content)."
    )
    for key, words in (("damping", "damping"), ("difference", "damping less content")):
        clean, noised = noise["none"][key][0], [each[key][0] for each in seeds]
        if clean is None or None in noised:
            yield f"- There agreement ({words}) isn't told: too few profiles of so few prompts are reliable."
            continue
        moved, half = max(abs(each - clean) for each in noised), half_width(of[key])
        told = "less" if moved < half else "**more**"
        yield (
            f"- There {words} is {number(clean, 2)}, with noise {', '.join(number(each, 2) for each in noised)}: it "
            f"moves by {number(moved, 2)}, {told} than the half-width of the claim's interval, {number(half, 2)}."
        )


def _apart(settings: Mapping[str, Any], models: Mapping[str, Any]) -> Iterator[str]:
    yield (
        "*Specialists* are heads that in one context surely react otherwise than the mean over the other contexts, "
        "scaled to fit this context, foretells. *Generalists* surely give back in at least "
        f"{settings['generalist']} contexts. Bounds hold for all k, heads and contexts at once (max-t, with Student's "
        "t for the context's prompts or templates; the mean over the others is taken as known); nothing of this was "
        "declared as a claim."
    )
    yield ""
    for model, of in models.items():
        for kind, words in (("full", "whole ablation"), ("damping", "damping")):
            each = of["apart"][kind]
            largest = "; ".join(
                f"{head.removeprefix('head.')} after {k} in {context} ({number(size, 2)})"
                for k, head, context, size in each["largest"]
            )
            many = "; ".join(
                f"{head.removeprefix('head.')} after {k} ({count} contexts, mean {number(mean, 2)})"
                for k, head, count, mean in each["generalists"][:8]
            )
            yield (
                f"- {name(model)}, {words}: {each['specialists']} of {each['pairs']:,} pairs of reaction and context "
                f"are surely apart{f', most: {largest}' if largest else ''}. {len(each['generalists'])} reactions "
                f"surely give back in {settings['generalist']} contexts or more{f', most: {many}' if many else ''}."
            )


def _limits(models: Mapping[str, Any]) -> Iterator[str]:
    yield "- In facts the wording is one with the relation (one or two wordings each): contexts differ in both."
    yield "- The readout is the difference of two tokens; the foil is another answer of the same relation."
    yield "  `logit` wasn't measured, so that nothing here holds beyond `difference`."
    yield "- Whether a few prompts with large effects make a profile wasn't looked at, beyond random halves of prompts."
    yield "- Early sublayers removed hardly anything at the last token of explored contexts, so late ones were ablated."
    yield "- The declared check of weight noise isn't passed (see the objections)."
    yield "- Bounds are for these six k, and hold the signs and the choice of profiles fixed. A k with more kept"
    yield f"  profiles counts more; with all k alike agreement for damping is {_alike(models)}."
    yield "- Which profiles are kept follows from random halvings: others keep other profiles near the limit."
    yield "- The repository's history holds the declaration from after the exploration half on: that the prediction is"
    yield "  older, and that no confirmation context was measured by then, can't be seen there."
    yield "- Content is everything that isn't along the readout; its direct effect is 0."
    yield "- Agreement says who reacts. It doesn't say that they react *for* the answer."


def _alike(models: Mapping[str, Any]) -> str:
    """Return the agreement for damping in which each ablated sublayer counts alike."""
    words = []
    for model, of in models.items():
        each = [value for value in of["kinds"]["damping"]["by_ablated"] if value is not None]
        words.append(f"{_number(sum(each) / len(each) if each else None)} in {name(model)}")
    return " and ".join(words)


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else number(value, digits)
