"""Objections to the page, answered from its numbers."""

from collections.abc import Iterator, Mapping
from typing import Any

from hydrascope.reports.summary.interval import number
from studies.claims import half_width, side
from studies.words import interval, name

_SIDES = {"within": "within", "outside": "outside", "unsure": "across"}


def objections(settings: Mapping[str, Any], models: Mapping[str, Any]) -> Iterator[str]:
    """Yield the objections to the page, with their numbers.

    Args:
        settings: the study's settings.
        models: the numbers of each model.
    """
    primary = {model: of["primary"]["difference"] for model, of in models.items()}
    limit = settings["threshold"]

    def each(told: Mapping[str, str]) -> str:
        return "; ".join(f"{name(model)} {words}" for model, words in told.items())

    half = {model: number(half_width(of["change"]), 3) for model, of in primary.items()}
    yield (
        f"- *Damping may be unsteady where it can't be told.* It may: half-widths of Δg are {each(half)}, against "
        f"limits of ±{limit}. An interval across a limit says neither that Δg is within it nor that it is beyond."
    )
    moved = {model: f"{number(of['log_p'][0], 2)} ± {number(of['log_p'][1], 2)}" for model, of in primary.items()}
    readings = {
        model: ", ".join(interval(of["readings"][each], 3) for each in ("kept", "adjusted", "all"))
        for model, of in primary.items()
    }
    sides = {
        model: ", ".join(_SIDES[side(each, -limit, limit)] for each in of["readings"].values())
        for model, of in primary.items()
    }
    yield (
        "- *Another text changes the prediction as well as the length.* Log p of the target changes by (mean ± "
        f"standard deviation, nats) {each(moved)}. So sentences are kept, or the change is taken out by regression. "
        f"Δg of the kept ones, at equal confidence, and of all: {each(readings)}; against the limits these are "
        f"{each(sides)}. What one of them says alone isn't established. All take for granted that log p is all of "
        "confidence."
    )
    yield (
        "- *The target is chosen where nothing but a newline stands before the sentence, so that it is extreme there.* "
        "True, and why the primary contrast leaves that cell out: after 8 and after 512 tokens of the same text the "
        "target is one and the same, chosen in neither. Contrasts with the newline alone hold regression to the mean."
    )
    yield (
        "- *Elsewhere the target may not be the likeliest token.* So g says how a push along a fixed direction is "
        "damped, not one along the prediction of the moment. With another direction each time, the length and the "
        "direction would change together."
    )
    logit = {model: interval(of["primary"]["logit"]["change"], 3) for model, of in models.items()}
    yield (
        f"- *The finding depends on the readout.* Δg on `logit`: {each(logit)}. `difference` leaves out what all "
        "logits have in common, `logit` doesn't; the primary one was declared."
    )
    loud = {
        model: f"{100 * of['loudest']['hold']:.0f}%, without them {number(of['loudest']['without'], 3)}"
        for model, of in primary.items()
    }
    yield (
        "- *A sum of squares listens to a few sentences.* The loudest 5% of the sentences hold this share of the "
        f"weights, and Δg without them is: {each(loud)} (without regression on confidence)."
    )
    sources = {
        model: ", ".join(f"{source} {interval(found, 3)}" for source, found in of["sources"].items())
        for model, of in primary.items()
    }
    yield (
        "- *Three sources are pooled, and the other text is of another one.* Δg by the source of the sentence, of all "
        f"sentences: {each(sources)}. Where they disagree, as in Gemma, the pooled number is about this mixture; "
        "these are looks after the fact, not corrected."
    )
    equal = {model: interval(of["equal_weights"], 3) for model, of in primary.items()}
    yield (
        "- *A sum over sublayers can stay while single ones move.* It can: see the single sublayers, whose bounds are "
        f"wide. Where all count alike instead of by 1/variance, without regression, Δg is {each(equal)}."
    )
    yield (
        "- *g is about one push.* It is: the readout part of a zero ablation at the last token. Whether repair of a "
        "whole ablation depends on the length isn't said by it; content repair h, in the table, is known far less well."
    )
