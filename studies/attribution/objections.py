"""Objections to the page, answered from its numbers."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from hydrascope.reports.summary.interval import number
from studies.claims import half_width
from studies.words import interval, name


def objections(settings: Mapping[str, Any], models: Mapping[str, Any]) -> Iterator[str]:
    """Yield the objections to the page, with their numbers.

    Args:
        settings: the study's settings.
        models: the numbers of each model.
    """

    def each(cell: Callable[[Mapping[str, Any]], str]) -> str:
        return "; ".join(f"{name(model)} {cell(of)}" for model, of in models.items())

    def atp(key: str, reading: str = "difference") -> str:
        return each(lambda of: interval(of[reading]["atp"]["pooled"][key]))

    yield (
        "- *It is true by construction.* At the clean σ own writes are linear in the dose, so they leave nothing, and "
        "the rest is shared by responses and the norm alone. How little the norm has of it is a finding: its "
        f"share is {atp('norm')}, without the three largest {atp('norm', 'without_largest')}."
    )
    yield (
        "- *A response isn't repair.* True, and the declared question took one for the other. Responses that act "
        f"against the sublayer's own change explain {atp('given back')} of AtP's squared error, the others "
        f"{atp('taken')}, which may be what later sublayers fail to read, since an early one no longer wrote it."
    )
    yield (
        f"- *A few early sublayers make the number.* They do: {each(_largest)}. Without the three largest the "
        f"responses explain {atp('responses', 'without_largest')}, and those that give back "
        f"{atp('given back', 'without_largest')}."
    )
    yield (
        "- *Terms covary, so that a share may be above 1 or below 0.* At the clean run's σ a change of the stream's "
        "size is counted with the responses and taken off by the norm. With each pass at its own σ that is gone: "
        f"responses {atp('responses', 'own_scale')}, norm {atp('norm', 'own_scale')}. If the responses were predicted "
        f"and nothing else, {atp('beyond responses')} of AtP's squared error would be left, at each pass's own σ "
        f"{atp('beyond responses', 'own_scale')}."
    )
    yield (
        "- *The gradient holds linear repair already.* Yes: AtP predicts responses, too, only to first order. This "
        "page says what it misses. The logit lens predicts none, and its error holds all of them: "
        f"{each(lambda of: interval(of['difference']['lens']['pooled']['given back']))} of it is what gives back; that "
        "it is more than half isn't shown in both models."
    )
    yield (
        "- *Zero ablation is a blow that AtP was never meant for.* With the twin's activation the size of AtP's error "
        f"is {each(lambda of: interval(of['counterfactual']['pooled']['size']))}, against {atp('size')}, and the "
        f"responses explain {each(lambda of: interval(of['counterfactual']['pooled']['responses']))} of it, those that "
        f"give back {each(lambda of: interval(of['counterfactual']['pooled']['given back']))}."
    )
    yield (
        "- *The answer's logit says something else.* On `logit` the responses explain "
        f"{atp('responses', 'logit')}, those that give back {atp('given back', 'logit')}."
    )
    yield (
        "- *The sign of what gives back is arbitrary where a sublayer writes hardly anything for the answer.* It may "
        "be; how little the three largest write for the answer isn't measured here. Without them the numbers stand "
        "beside."
    )
    yield (
        "- *One later sublayer may give back what another takes.* It may: the sign is that of all of them together, so "
        "this page says what they do on balance."
    )
    noisy = [name(model) for model, of in models.items() if moved(of) > half_width(of["weight_noise"]["none"]["atp"])]
    yield (
        f"- *Quantised weights make the error.* On {settings['weight_noise']['prompts']} facts noise of a quantiser's "
        f"size moves the share of responses in AtP's error by {each(lambda of: number(moved(of), 3))}. That is more "
        f"than its half-width there in {' and '.join(noisy) or 'no model'}; the smallest share under noise is "
        f"{number(min(map(_least, models.values())), 2)}."
    )
    yield (
        "- *One step of IG is a straw man.* It is the cheapest form, and takes a pass for each sublayer already. It "
        f"leaves {each(lambda of: interval(of['against_atp']['ig']['ratio']))} of AtP's squared error: the gradient "
        "halfway isn't the mean gradient."
    )
    yield (
        "- *AtP\\* is of few prompts.* It is: of "
        f"{each(lambda of: str(sum(of['estimators']['atp_star']['number'].values())))}, in six blocks. Its p, from a "
        "normal law, is a rough one."
    )
    yield (
        "- *The derivative depends on the width of the doses.* It is checked against autograd and half the width "
        "([controls](#controls))."
    )


def _least(of: Mapping[str, Any]) -> float:
    return float(min(each["atp"][0] for each in of["weight_noise"].values()))


def moved(of: Mapping[str, Any]) -> float:
    """Return the most that noise on the weights moves the share of responses in AtP's error."""
    found = {kind: each["atp"][0] for kind, each in of["weight_noise"].items()}
    return max(abs(each - found["none"]) for each in found.values())


def held_by_largest(of: Mapping[str, Any]) -> float:
    """Return the share of AtP's squared error that the three sublayers of the largest errors hold."""
    return float(sum(each["share"] for label, each in of["sublayers"].items() if label in of["largest"]))


def _largest(of: Mapping[str, Any]) -> str:
    return f"{', '.join(of['largest'])} hold {number(100 * held_by_largest(of), 0)}%"
