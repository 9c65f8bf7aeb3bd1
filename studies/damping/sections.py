"""Sections of the page that put the claim to the test."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from hydrascope.reports.summary.interval import number
from studies.damping.words import Bounds, cells_of, interval, name


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
        if "wrong_content" in of:
            wrong = of["wrong_content"]
            yield (
                f"- **Wrong content** ({at}, {wrong['number']} prompts): with the push removed and another prompt's "
                f"content written, the slope is {interval(wrong['slope'])}, {interval(wrong['ratio'])} of that of the "
                "ablation."
            )
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
        for kind, said in (("mean", "its mean over prompts"), ("resample", "other prompts' activations")):
            if of.get(kind, {}).get("own"):
                found = of[kind]["own"]
                yield (
                    f"- **Replaced by {said}** instead of zero ({at}, {of[kind]['number']} prompts): damping "
                    f"{interval(found['damping'])}, content {interval(found['content'])}, share "
                    f"{interval(found['share'])}."
                )


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
        "- *Is content repair a repair?* h is a slope: where more was removed, the loss of content is followed by more "
        "for the answer. It needs no component that watches the content for the answer's sake. If the loss of content "
        "only pulled the readout towards its mean, h would vanish at equal clean readout (table above)."
    )
    yield (
        "- *The content may hold the prediction in another direction.* See the ablation beyond the embeddings above; "
        "other directions of earlier blocks were not tried."
    )
    yield (
        "- *The threshold is arbitrary.* It was declared from pilots in SmolLM2, so that SmolLM2 passing it is weaker "
        "evidence than another model passing or failing it."
    )
    yield (
        "- *Boost and slope are no independent evidence for damping.* A network that answers content linearly is "
        "two-sided, too, as the phantom is: a ratio near 1 and a small one-sided share speak against thresholds, not "
        "against backups."
    )
