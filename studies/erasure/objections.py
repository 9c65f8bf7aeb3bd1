"""Objections to the page, answered from its numbers."""

from collections.abc import Iterator, Mapping
from typing import Any

from hydrascope.reports.summary.interval import number
from studies.words import name


def objections(models: Mapping[str, Any]) -> Iterator[str]:
    """Yield the objections to the page, with their numbers.

    Args:
        models: the numbers of each model.
    """

    def each(*keys: str) -> str:
        """Return the smallest and the largest estimate of a number over the sets of each model."""
        return "; ".join(f"{name(model)} {_span(of, *keys)}" for model, of in models.items())

    yield (
        "- *One of 600 tokens can't explain half.* True: as one token against all others the target explains at most "
        f"{_most(models, 'token')}, whatever it suffers. The fair rival is its profile, since a linear write against a "
        "token also falls on all tokens that point the same way. And what comes off the token itself is given apart, "
        "where the other 599 only foretell it."
    )
    yield (
        "- *Profile and common mode are nearly one, so that a small difference decides.* True where a push is mostly "
        f"a push of the common mode: of the push itself both explain ({each('push', 'target', 'both')}). There sums "
        "of squares hardly tell a common shift from a push turned round: both minus profile is "
        f"({each('shares', 'target', 'both − profile')}). The table of the common mode and the rest tells more: were "
        "the answer a common shift alone, nothing would come back of the rest."
    )
    yield (
        "- *Common mode and frequency fit badly, so that they foresee too little.* Where they explain little of the "
        "answer, most of it is neither they nor the profile, and this page doesn't say what it is. *Its own* then "
        "says only that the pushed token loses more than the others do."
    )
    yield (
        "- *A push turned round would leave something of its own, too.* It would: the push itself adds more to its "
        "token than common mode and frequency foretell. So *its own* speaks against a common shift alone, not for a "
        "component that looks for one token. Words that point as the token does fall with it."
    )
    yield (
        "- *Log frequency is idle.* Alone it explains "
        f"({each('shares', 'target', 'log_frequency')}), the common mode alone ({each('shares', 'target', 'common')}). "
        "The two go together where the first principal direction of the readouts is a direction of frequency."
    )
    yield (
        "- *Any write lies along the common mode.* Of the same MLPs' clean writes both explain "
        f"({each('written')}), of their answers to random pushes ({each('shares', 'random', 'both')})."
    )
    yield (
        f"- *The sum of all late MLPs hides single ones.* The share of both in single MLPs runs from {_single(models)}."
    )
    yield (
        "- *Damping may happen before these MLPs.* The pushed sublayers are in the two blocks before, and attention in "
        "between may answer, too: this page says what late MLPs write, not what reaches the logits."
    )
    yield (
        "- *Random directions are answered as well.* Of a random push "
        f"({each('damped', 'random', 'rest')}) comes back along itself, beside the common mode; of the target's "
        f"({each('damped', 'target', 'rest')}). So late MLPs damp what stands in the stream, and what is read out by "
        "more; that they aim at a prediction isn't shown."
    )


def _values(of: Mapping[str, Any], *keys: str) -> list[float]:
    """Return the estimates of a number in the confirmation halves of a model."""
    values = []
    for label in of["sets"]:
        found = of["sets"][label]["confirmation"]
        for key in keys:
            found = found[key]
        values.append(found[0])
    return values


def _span(of: Mapping[str, Any], *keys: str) -> str:
    low, high = (number(pick(_values(of, *keys)), 2) for pick in (min, max))
    return low if low == high else f"{low} to {high}"


def _most(models: Mapping[str, Any], term: str) -> str:
    return number(max(max(_values(of, "shares", "target", term)) for of in models.values()), 2)


def _single(models: Mapping[str, Any]) -> str:
    spans = []
    for model, of in models.items():
        found = [bounds[0] for each in of["sets"].values() for bounds in each["confirmation"]["each_late"].values()]
        spans.append(f"{number(min(found), 2)} to {number(max(found), 2)} in {name(model)}")
    return ", from ".join(spans)
