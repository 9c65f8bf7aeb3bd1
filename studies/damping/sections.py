"""Sections of the page that put the claim to the test."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from hydrascope.reports.summary.interval import number
from studies.damping.cells import cells_of
from studies.words import Bounds, interval, name


def controls(settings: Mapping[str, Any], models: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each control."""
    phantom = models.get("phantom", {}).get("sets", {}).get("phantom")
    if phantom:
        of = phantom["confirmation"]["difference"]["own"]
        yield (
            f"- **The phantom** repairs by content, by construction: the share is {interval(of['share'])}, and "
            f"{interval(of['damping'])} of the push comes back. So the measure can find a Hydra."
        )
    if "built-in-depth" in models:
        for label, of in models["built-in-depth"]["sets"].items():
            if of["confirmation"]["difference"]:
                found = of["confirmation"]["difference"]["own"]
                yield (
                    f"- **built-in-depth**, trained while its sublayers failed ({label}): damping "
                    f"{interval(found['damping'])}, content {interval(found['content'])}, share "
                    f"{interval(found['share'])}."
                )
    for model, label, of in cells_of(settings, models):
        at = f"{name(model)}, {label}"
        if "pushes" in of:
            yield _pushes(at, of["pushes"])
        if "weight_noise" in of:
            yield _noise(at, of["weight_noise"], of["confirmation"]["difference"]["own"]["share"])
        if "distance" in of:
            kick = of["distance"]
            yield (
                f"- **Distance** ({at}): the ablations move the stream after the next block by κ = "
                f"{number(kick['whole'], 3)} (median; 1 is as far as two prompts), the push alone by "
                f"{number(kick['readout'], 4)}, wrong content by {number(kick['wrong_content'], 3)}."
            )
    yield ""
    yield from _other_changes(settings, models)


def _other_changes(settings: Mapping[str, Any], models: Mapping[str, Any]) -> Iterator[str]:
    wrong, others = settings["wrong_content"]["prompts"], settings["if_time_allows"]
    yield (
        "*Wrong content*: the push is removed and another prompt's content written; a network that answers the push "
        "alone does the same as after the ablation, and one that answers content may, too (see the objections). "
        "*Mean*, *resampled*: the component's mean, or other prompts' activations, instead of zero."
    )
    yield ""
    yield (
        f"| | wrong content ({wrong} prompts): slope | over that of the ablation | mean "
        f"({others['mean']['prompts']}): g | h | share | resampled ({others['resample']['prompts']}): g | h | share |"
    )
    yield "|---" * 9 + "|"
    backups = [("phantom", label, of) for label, of in models.get("phantom", {}).get("sets", {}).items()]
    for model, label, of in [*cells_of(settings, models), *backups]:
        swapped = of.get("wrong_content")
        cells = [interval(swapped[each]) if swapped else "–" for each in ("slope", "ratio")]
        for kind in ("mean", "resample"):
            found = of.get(kind, {}).get("own")
            cells += [interval(found[each]) if found else "–" for each in ("damping", "content", "share")]
        yield f"| {name(model)}, {label} | {' | '.join(cells)} |"


def _pushes(at: str, pushes: Mapping[str, Any]) -> str:
    return (
        f"- **Pushes of equal length** ({at}, {pushes['number']} prompts, {len(pushes['components'])} components of "
        f"the last third, `logit`): {interval(pushes['logit'])} of a push along the target comes back, "
        f"{interval(pushes['placebo'])} along other tokens, {interval(pushes['random'])} along random directions."
    )


def _noise(at: str, noise: Mapping[str, Any], headline: Bounds) -> str:
    without, shares = noise["without"][0], [each[0] for each in noise["with"]]
    moved = max(abs(share - without) for share in shares)
    said = f"by {number(moved, 2)} at most"
    if headline[1] is not None and headline[2] is not None:
        half = (headline[2] - headline[1]) / 2
        said += f", {'less' if moved < half else '**more**'} than the half-width of its interval ({number(half, 2)})"
    return (
        f"- **Noise on the weights** ({at}, {noise['number']} prompts): the share goes from {number(without, 2)} to "
        f"{', '.join(number(each, 2) for each in shares)} with {len(shares)} draws of noise: {said}."
    )


def afterwards(settings: Mapping[str, Any], models: Mapping[str, Any]) -> Iterator[str]:
    """Yield the numbers that were not declared."""
    yield (
        "Not declared: these numbers were chosen after the shares were known, to see what they rest on. They suggest, "
        "and prove nothing."
    )
    yield ""
    yield (
        "| | middle third: g | h | share | last third: g | h | share | equal weights | lowest without one component | "
        "median component: g, h | h at equal clean readout |"
    )
    yield "|---" * 11 + "|"
    for model, label, of in cells_of(settings, models):
        if "afterwards" not in of:
            continue
        found = of["afterwards"]
        thirds = [
            interval(found["depth"][third][each]) if third in found["depth"] else "–"
            for third in ("middle", "last")
            for each in ("damping", "content", "share")
        ]
        out, least = found["without_one"]
        median = ", ".join(number(found["median"][each], 2) for each in ("damping", "content"))
        yield (
            f"| {name(model)}, {label} | {' | '.join(thirds)} | {interval(found['equal_weights'])} | "
            f"{number(least, 2)} ({out}) | {median} | {number(found['content_given_clean'], 2)} |"
        )
    yield ""
    yield (
        "Is the content really content? The final norm's gain turns the tokens' embeddings into the readout's "
        "direction; where the prediction stands in the stream without that gain, a part of it counts as content. So "
        "everything but the plane of both directions was ablated, too:"
    )
    yield ""
    for model, label, of in cells_of(settings, models):
        if beyond := of.get("afterwards", {}).get("beyond"):
            yield (
                f"- {name(model)}, {label} ({beyond['number']} prompts): content repair beyond the embeddings is "
                f"{interval(beyond['content'])} (share {interval(beyond['share'])}), {interval(beyond['less'])} less "
                "than that of the whole content."
            )


def objections(settings: Mapping[str, Any], models: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a hostile reader said, and the answer."""

    def everywhere(text: Callable[[Mapping[str, Any]], str]) -> str:
        return "; ".join(
            f"{name(model)}, {label} {text(of)}"
            for model, label, of in cells_of(settings, models)
            if "afterwards" in of
        )

    equal = everywhere(lambda of: interval(of["afterwards"]["equal_weights"]))
    without = everywhere(lambda of: "{1:.2f} without {0}".format(*of["afterwards"]["without_one"]))
    median = everywhere(
        lambda of: " and ".join(number(of["afterwards"]["median"][each], 2) for each in ("damping", "content"))
    )
    others = "; ".join(
        f"{name(model)}, {label} {interval(of[kind]['own']['share'])} ({kind})"
        for model, label, of in cells_of(settings, models)
        for kind in ("mean", "resample")
        if of.get(kind, {}).get("own")
    )
    counts = "; ".join(
        f"{name(model)}, {label} {of['components']['prediction']} and {of['components']['content']} of "
        f"{len(of['components']['each'])}"
        for model, label, of in cells_of(settings, models)
    )
    phantom = models.get("phantom", {}).get("sets", {}).get("phantom")
    one_sided = number(phantom["confirmation"]["difference"]["own"]["one_sided"][0], 2) if phantom else "–"
    noise = "; ".join(
        f"{name(model)} {', '.join(number(each[0], 2) for each in of['weight_noise']['with'])}"
        for model, _, of in cells_of(settings, models)
        if "weight_noise" in of
    )
    beyond = "; ".join(
        f"{name(model)}, {label} {interval(of['afterwards']['beyond']['share'])}"
        for model, label, of in cells_of(settings, models)
        if of.get("afterwards", {}).get("beyond")
    )
    yield (
        "- *The weights decide.* Weights 1/variance make a component that hardly varies count as much as one that "
        f"removes ten times more. Where components count by what they remove, the share is: {equal}. So a verdict "
        "that differs between the two is one about the declared pool, not about what most of the repair does."
    )
    yield (
        "- *Few components carry it.* The interval is over prompts, with the components fixed. The lowest share with "
        f"one of them left out: {without}. Median g and h over components: {median}. Components that surely answer "
        f"the prediction more, and the content more (bounds for all at once): {counts}."
    )
    yield (
        f"- *Zero is far from natural activations.* On fewer prompts, under other ablations: {others}. None of these "
        "was a primary claim, and their intervals are wide."
    )
    yield (
        "- *Rounded weights.* Another rounding of the weights moves the share (controls above), in a few prompts. With "
        f"{settings['threshold']} as the limit it lies, from one draw to the next, at: {noise}."
    )
    yield (
        "- *Is content repair a repair?* h is a slope: where more was removed, the loss of content is followed by more "
        "for the answer. It needs no component that watches the content for the answer's sake. If the loss of content "
        "only pulled the readout towards its mean, h would vanish at equal clean readout (table above)."
    )
    yield (
        "- *The content may hold the prediction in another direction.* Left of the share of content, once what lies "
        f"along the tokens' plain embeddings isn't called content: {beyond}. Other directions, in which earlier blocks "
        "may hold the prediction, were not tried."
    )
    yield (
        "- *Few prompts.* Half of what was declared first, for time; where an interval holds the limit, the other half "
        "may decide: the next places of each half are untouched."
    )
    yield (
        "- *The threshold is arbitrary.* It was declared from pilots in SmolLM2, so that SmolLM2 passing it is weaker "
        "evidence than another model passing or failing it."
    )
    swapped = interval(phantom["wrong_content"]["ratio"]) if phantom and "wrong_content" in phantom else "–"
    yield (
        "- *Wrong content can't tell the two apart.* Another prompt's content has nothing to do with what was removed, "
        "so that it adds noise to a slope and no bias: on the phantom, which answers content alone, the ratio is "
        f"{swapped}, as far from 0 as a damping network's. The declared control is weaker than it was thought to be."
    )
    yield (
        "- *A two-sided response is no evidence for damping.* A network that answers content linearly is two-sided, "
        f"too: the phantom's response is one-sided by {one_sided}. It speaks against thresholds, not against backups."
    )
