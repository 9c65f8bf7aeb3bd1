"""Objections to the page, answered from its numbers."""

from collections.abc import Iterator, Mapping
from typing import Any

from hydrascope.reports.summary.interval import number
from studies.features.verdict import difference
from studies.words import interval, name


def objections(models: Mapping[str, Any]) -> Iterator[str]:
    """Yield the objections to the page, with their numbers.

    Args:
        models: the numbers of each model.
    """

    def each(*keys: Any) -> str:
        """Return an interval of each model."""
        return "; ".join(f"{name(model)} {interval(_at(of, *keys))}" for model, of in models.items())

    yield (
        "- *This is forgetting, not repair.* Nothing here tells them apart: pushes along random directions fade as "
        f"well. For each unit that comes back of a gate row, {_ratios(models)} comes back of a random direction of the "
        "same variance, so that little or none of it is special to gate rows. First principal components come back by "
        f"({each('curves', 'components', -1)})."
    )
    yield (
        "- *Matched directions aren't random enough.* They share a gate row's length along each principal component: "
        "their cosine with it is given above; where it is large, the pair is partly one direction, and the difference "
        "is drawn to 0. Against directions drawn from the sphere, whose "
        f"variance is another, the difference is ({each('over', 'isotropic')})."
    )
    yield (
        "- *Equal variance of the stream isn't an equal push.* True: the squared pushes along a gate row are "
        f"{_pushes(models)} times those along its matched direction (median). A linear answer gives the same g for any "
        "size of push; how far from linear the answers are is given above, by kind. Where only a small share of each "
        f"part is removed (looked at afterwards), the difference is ({each('small', 'difference')})."
    )
    yield (
        "- *A few directions decide.* The interval over directions alone is given beside that over prompts alone; "
        f"the gate row comes back more in {_larger(models)} of the pairs."
    )
    yield f"- *The mean over depths hides single ones.* The difference by depth: {_depths(models)}."
    yield (
        "- *A part along one direction isn't an ablation.* How far the effect of all else that the sublayer wrote goes "
        f"with the removed part, over prompts, is h, over gate rows ({each('content', 'neurons')}), over matched "
        f"directions ({each('content', 'matched')})."
    )
    yield (
        "- *A gate row isn't a feature.* It is one of the two rows by which a neuron reads the stream, through the "
        "norm and after its own block's attention; whether it means something to us isn't asked. A dictionary's "
        "features might come back otherwise."
    )
    yield (
        "- *The rule was made sharper.* At first the prediction was to be refuted where an interval holds 0 or lies "
        "below. After a look at ten passages of the exploration half, and before the confirmation half was measured, "
        "an interval wholly below the predicted 0.1 was added, since it contradicts the prediction as well. By the "
        f"first rule the prediction is refuted in {_refuting(models)}."
    )
    yield (
        "- *A secondary claim was chosen by looking.* After the same ten passages it was settled that gate rows should "
        "come back more than first principal components, not less. The confirmation half tested it."
    )


def _at(of: Any, *keys: Any) -> Any:
    for key in keys:
        of = of[key]
    return of


def _refuting(models: Mapping[str, Any]) -> str:
    """Return the models in which the difference isn't surely above 0."""
    return " and ".join(name(model) for model, of in models.items() if (difference(of)[1] or 0) <= 0) or "neither model"


def _ratios(models: Mapping[str, Any]) -> str:
    found = []
    for model, of in models.items():
        random, own = (of["curves"][kind][-1][0] for kind in ("matched", "neurons"))
        found.append(f"{number(random / own, 2)} ({name(model)})")
    return ", ".join(found)


def _pushes(models: Mapping[str, Any]) -> str:
    return ", ".join(f"{number(of['pushes'][1], 2)} ({name(model)})" for model, of in models.items())


def _larger(models: Mapping[str, Any]) -> str:
    return ", ".join(f"{number(100 * of['larger'], 0)}% ({name(model)})" for model, of in models.items())


def _depths(models: Mapping[str, Any]) -> str:
    found = {model: ", ".join(interval(each["difference"]) for each in of["depths"]) for model, of in models.items()}
    return "; ".join(f"{name(model)} {each}" for model, each in found.items())
