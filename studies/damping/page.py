"""Render the page of the study from its numbers."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydrascope.reports.summary.interval import number
from studies.damping.verdict import MOST_HELD
from studies.replication.page import HUB, MODELS

#: Names of the controls among the models.
CONTROLS = {"phantom": "the phantom", "built-in-depth": "built-in-depth"}

Bounds = Sequence[float | None]


def name(model: str) -> str:
    """Return the name of a model on the page."""
    return (MODELS | CONTROLS).get(model, model)


def interval(bounds: Bounds, digits: int = 2) -> str:
    """Return an estimate with its bounds, if it has any.

    >>> interval([0.2, 0.1, 0.3]), interval([1.5, None, None])
    ('0.20 [0.10, 0.30]', '1.50, unbounded')
    """
    estimate, low, high = bounds
    if estimate is None:
        return "–"
    if low is None or high is None:
        return f"{number(estimate, digits)}, unbounded"
    return f"{number(estimate, digits)} [{number(low, digits)}, {number(high, digits)}]"


def render(settings: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """Return the page as Markdown.

    Args:
        settings: the study's declared settings.
        results: the study's results.
    """
    return "\n".join(_lines(settings, results)) + "\n"


def _lines(settings: Mapping[str, Any], results: Mapping[str, Any]) -> Iterator[str]:
    models, verdict = results["models"], results["verdict"]
    yield "# Damping or Hydra?"
    yield ""
    yield "<!-- Written by `make study NAME=damping` from studies/damping/results.json. -->"
    yield ""
    yield _claim(settings, models, verdict)
    yield ""
    yield "![Shares that come back of an ablation and of its parts](images/damping.png)"
    yield ""
    yield (
        "*The share that later components bring back on `difference` (most likely token minus runner-up), on prompts "
        "of the confirmation half; lines are 95% intervals over prompts. Dark: facts; light: natural text. An ablation "
        "changes what a component writes. The **push** is the part of that change along the readout, the **content** "
        "all the rest. Whole, content and opposite are slopes over prompts; push is damping g.*"
    )
    yield ""
    yield "## Question and prediction"
    yield ""
    yield f"- **Question**: {settings['question']}"
    yield f"- **Quantity**: {settings['estimand']}."
    yield f"- **Predicted**, before measuring: {settings['prediction']}."
    yield f"- **Refuted if** {settings['refuted_if']}; {settings['otherwise']}."
    yield f"- **Outcome**: {_outcome(settings, models, verdict)}"
    yield f"- **Known before**: pilots had seen {settings['halves']['explored_before']} facts and as many passages in"
    yield "  SmolLM2; the prediction comes from them. The confirmation prompts and Gemma 3 were not looked at, but the"
    yield "  [replication](replication.md) had measured whole ablations, not their parts, on all facts."
    yield f"- **Choice**: {settings['selection']['rule']}."
    yield f"- **Halves**: {settings['halves']['rule']}. {settings['halves']['change']}."
    yield ""
    yield "## Numbers"
    yield ""
    yield "On `difference`, zero ablation of the last token, confirmation half:"
    yield ""
    yield from _table(settings, models)
    yield ""
    yield (
        "*Whole*, *opposite*: slope of the response on what is removed, or added. *Opposite* writes twice as much as "
        "in the clean pass. *Left over* is whole − slope under the push − content: what only both parts call up."
    )
    yield ""
    yield "The share of content, read in other ways:"
    yield ""
    yield from _readings(settings, models)
    yield ""
    yield "## Guards"
    yield ""
    for guard in settings["guards"]:
        yield f"- {guard[0].upper()}{guard[1:]}."
    yield f"- {_guarded(models, verdict)}"
    yield ""
    yield "## Secondary claims"
    yield ""
    yield "| declared before | p | adjusted | |"
    yield "|---|---|---|---|"
    for claim, of in verdict["secondary"].items():
        says = "holds" if of["holds"] else "**not shown**"
        yield f"| {settings['secondary'][claim]} | {of['p']:.2g} | {of['adjusted']:.2g} | {says} |"
    yield ""
    yield f"{settings['correction'][0].upper()}{settings['correction'][1:]}. Primary p: {verdict['p']:.2g}."
    yield ""
    yield "## Controls"
    yield ""
    yield from _controls(settings, models)
    yield ""
    yield "## Looked at afterwards"
    yield ""
    yield from _afterwards(settings, models)
    yield ""
    yield "## Limits"
    yield ""
    yield from _limits(settings, models)
    yield ""
    yield "## Repeat it"
    yield ""
    yield "```sh"
    yield "hydrascope fetch smollm2"
    yield "hydrascope fetch gemma3-270m"
    yield "make study NAME=damping                      # downloads the facts"
    yield "make study NAME=damping PROMPTS=facts.json   # or takes them from a file"
    yield "```"
    yield ""
    yield "It resumes if it is interrupted. The originals on the Hugging Face hub, without dequantised weights:"
    yield ""
    yield "```sh"
    originals = " ".join(f"--model {HUB[model]}" for model in settings["models"] if model in HUB)
    yield f"python -m studies damping --prompts facts.json {originals}"
    yield "```"
    yield ""
    yield "## Objections"
    yield ""
    yield from _objections(settings, models)


def _cells(settings: Mapping[str, Any], models: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for model in settings["models"]:
        for label in settings["prompts"]:
            yield model, label, models[model]["sets"][label]


def _claim(settings: Mapping[str, Any], models: Mapping[str, Any], verdict: Mapping[str, Any]) -> str:
    if verdict["largest"] is None:
        return "**Nothing can be told: in one set of prompts no component could be chosen.**"
    found = {
        (model, label): of["confirmation"]["difference"]["own"]["share"]
        for model, label, of in _cells(settings, models)
    }
    largest, limit = tuple(verdict["largest"]), settings["threshold"]
    at = f"content's share of the response is {interval(found[largest])} in {name(largest[0])} ({largest[1]})"
    below = [
        f"{name(cell[0])} ({cell[1]}) {interval(share)}"
        for cell, share in found.items()
        if cell != largest and share[2] is not None and share[2] < limit
    ]
    rest = f" It lies surely below {limit} in {' and '.join(below)}." if below and verdict["outcome"] != "holds" else ""
    said = {
        "holds": "**Later components answer the missing prediction more than the missing content",
        "refuted": "**Later components answer not only the missing prediction, but the missing content, too",
        "can't tell": "**The declared rule can't tell whether later components answer mostly the missing prediction",
    }
    most = ", the largest of all" if verdict["outcome"] == "holds" else ""
    return f"{said[verdict['outcome']]}: {at}{most}.**{rest}"


def _outcome(settings: Mapping[str, Any], models: Mapping[str, Any], verdict: Mapping[str, Any]) -> str:
    found = "; ".join(
        f"{name(model)}, {label} {interval(of['confirmation']['difference']['own']['share'])}"
        for model, label, of in _cells(settings, models)
        if of["confirmation"]["difference"]
    )
    said = {
        "holds": "**The prediction holds.**",
        "refuted": "**The prediction is refuted.**",
        "can't tell": "**It can't be told by the declared rule.**",
    }
    return f"{said[verdict['outcome']]} Share of content: {found}."


_COLUMNS = {
    "whole": "whole",
    "damping": "push, g",
    "content": "content, h",
    "share": "**share of content**",
    "boost": "opposite",
    "one_sided": "one-sided",
    "missing": "left over",
}


def _table(settings: Mapping[str, Any], models: Mapping[str, Any]) -> Iterator[str]:
    yield f"| | prompts | components | {' | '.join(_COLUMNS.values())} |"
    yield "|---" * (len(_COLUMNS) + 3) + "|"
    everywhere = [*_cells(settings, models)] + [
        (control, label, of) for control in settings["controls"] for label, of in models[control]["sets"].items()
    ]
    for model, label, of in everywhere:
        confirmed = of["confirmation"]
        if confirmed["difference"]:
            cells = [interval(confirmed["difference"]["own"][column]) for column in _COLUMNS]
            count = len(of["chosen"]["difference"])
            yield f"| {name(model)}, {label} | {confirmed['number']} | {count} | {' | '.join(cells)} |"
        else:
            yield f"| {name(model)}, {label} | {confirmed['number']} | none{' | ' * len(_COLUMNS)} |"


def _readings(settings: Mapping[str, Any], models: Mapping[str, Any]) -> Iterator[str]:
    yield "| | exploration half | clean σ | both as slopes | both through the origin | `logit` | `logit`, clean σ |"
    yield "|---|---|---|---|---|---|---|"
    for model, label, of in _cells(settings, models):
        explored, confirmed = of["exploration"]["difference"], of["confirmation"]["difference"]
        logit = of["confirmation"]["logit"]
        readings = [(explored, "own", "share"), *((confirmed, *each) for each in _SCALES)]
        readings += [(logit, scale, "share") for scale in ("own", "clean")]
        cells = [interval(found[scale][share]) if found else "–" for found, scale, share in readings]
        yield f"| {name(model)}, {label} | {' | '.join(cells)} |"


_SCALES = (("clean", "share"), ("own", "share_of_slopes"), ("own", "share_of_origins"))


def _guarded(models: Mapping[str, Any], verdict: Mapping[str, Any]) -> str:
    if verdict["guarded"]:
        cells = "; ".join(f"{name(model)}, {label}" for model, label in verdict["guarded"])
        return f"**A guard forbids a verdict in {cells}.**"
    held = [
        of["confirmation"]["difference"]["loudest"]["hold"]
        for model in models.values()
        for of in model["sets"].values()
        if of["confirmation"]["difference"]
    ]
    loud = sum(each > MOST_HELD for each in held)
    return (
        f"No guard forbids a verdict. 5% of the prompts hold {number(100 * min(held), 0)} to "
        f"{number(100 * max(held), 0)}% of all |removed|; in {loud} of {len(held)} sets that is over a third."
    )


def _controls(settings: Mapping[str, Any], models: Mapping[str, Any]) -> Iterator[str]:
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
    for model, label, of in _cells(settings, models):
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
            yield _noise(at, of["weight_noise"])
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


def _noise(at: str, noise: Mapping[str, Any]) -> str:
    without, shares = noise["without"], [each[0] for each in noise["with"]]
    moved = sum(shares) / len(shares) - without[0]
    half = None if without[1] is None else (without[2] - without[1]) / 2
    allowed = "without bounds" if half is None else f"half-width {number(half, 2)}"
    verdict = "" if half is None else (", as allowed" if abs(moved) < half else ", **more than allowed**")
    return (
        f"- **Noise on the weights** ({at}, {noise['number']} prompts): the share goes from {number(without[0], 2)} "
        f"({allowed}) to {', '.join(number(each, 2) for each in shares)} with {len(shares)} draws of noise{verdict}."
    )


def _afterwards(settings: Mapping[str, Any], models: Mapping[str, Any]) -> Iterator[str]:
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
    for model, label, of in _cells(settings, models):
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
    for model, label, of in _cells(settings, models):
        if beyond := of.get("afterwards", {}).get("beyond"):
            yield (
                f"- {name(model)}, {label} ({beyond['number']} prompts): content repair is "
                f"{interval(beyond['whole_content'])}, and {interval(beyond['content'])} beyond the embeddings (share "
                f"{interval(beyond['share'])})."
            )


def _limits(settings: Mapping[str, Any], models: Mapping[str, Any]) -> Iterator[str]:
    for model in settings["models"]:
        origin = models[model]["origin"]
        yield f"- {name(model)}: weights {origin['quantization'] or 'as shipped'}; {origin['weights'][:19]}…"
    yield "- SmolLM2 is an Instruct model, read here on plain text without its chat template."
    yield "- Targets are the model's own most likely tokens, the foil its runner-up."
    yield "- Only the last position is ablated: earlier positions keep what they hold, also for later layers to read."
    yield "- Content is all that isn't along one direction. A backup that watches a few other directions is content."
    yield "  damping is a fact about the readout's direction, not about meaning."
    yield "- Components that restore nothing are not pooled, by the rule of choice."


def _objections(settings: Mapping[str, Any], models: Mapping[str, Any]) -> Iterator[str]:
    yield "None yet."
