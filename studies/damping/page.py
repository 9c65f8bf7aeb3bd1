"""Render the page of the study from its numbers."""

from collections.abc import Iterator, Mapping
from typing import Any

from hydrascope.reports.summary.interval import number
from studies.damping.cells import cells_of
from studies.damping.sections import afterwards, controls, objections
from studies.damping.verdict import MOST_HELD
from studies.words import OUTCOMES, Bounds, correction, head, interval, markdown, name, prediction, repetition, weights


@markdown
def render(settings: Mapping[str, Any], results: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of the page.

    Args:
        settings: the study's declared settings.
        results: the study's results.
    """
    models, verdict = results["models"], results["verdict"]
    caption = (
        "The share that later components bring back on `difference` (most likely token minus runner-up), on prompts "
        "of the confirmation half; lines are 95% intervals over prompts. Dark: facts; light: natural text. An ablation "
        "changes what a component writes. The **push** is the part of that change along the readout, the **content** "
        "all the rest. Whole, content and opposite are slopes over prompts; push is damping g."
    )
    yield from head(
        "Damping or Hydra?",
        "damping",
        claim(settings, results),
        "Shares that come back of an ablation and of its parts",
        caption,
    )
    yield from prediction(settings, _outcome(settings, models, verdict))
    yield f"- **Known before**: pilots had seen {settings['halves']['explored_before']} facts and as many passages in"
    yield "  SmolLM2; the prediction comes from them. The confirmation prompts and Gemma 3 were not looked at, but the"
    yield "  [replication](replication.md) had measured whole ablations, not their parts, on all facts."
    yield f"- **Choice**: {settings['selection']['rule']}."
    yield f"- **Halves**: {settings['halves']['rule']}. {settings['halves']['change']}."
    yield "  In the same way the controls got fewer prompts, and sublayers that the rule can't choose were left out:"
    yield "  the history of `settings.json` shows each step."
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
    for each, of in verdict["secondary"].items():
        says = "holds" if of["holds"] else "**not shown**"
        yield f"| {settings['secondary'][each]} | {of['p']:.2g} | {of['adjusted']:.2g} | {says} |"
    yield ""
    yield correction(settings, verdict["p"])
    yield ""
    yield "## Controls"
    yield ""
    yield from controls(settings, models)
    yield ""
    yield "## Looked at afterwards"
    yield ""
    yield from afterwards(settings, models)
    yield ""
    yield "## Limits"
    yield ""
    yield from _limits(settings, models)
    yield ""
    yield from repetition("damping", settings["models"])
    yield "## Objections"
    yield ""
    yield from objections(settings, models)


def claim(settings: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """Return the finding in one sentence, with its numbers."""
    models, verdict = results["models"], results["verdict"]
    if verdict["largest"] is None:
        return "**Nothing can be told: in one set of prompts no component could be chosen.**"
    found = {
        (model, label): of["confirmation"]["difference"]["own"]["share"]
        for model, label, of in cells_of(settings, models)
    }
    largest, limit = tuple(verdict["largest"]), settings["threshold"]

    def listed(side: str) -> str:
        chosen = [cell for cell in found if cell != largest and _side(found[cell], limit) == side]
        return " and ".join(f"{name(model)} ({label}) {interval(found[model, label])}" for model, label in chosen)

    said = {
        "holds": "**Later components answer the missing prediction more than the missing content",
        "refuted": "**Later components answer not only the missing prediction, but the missing content, too",
        "can't tell": "**The declared rule can't tell whether later components answer mostly the missing prediction",
    }
    sides = {"above": "is surely above", "unsure": "may lie on either side of", "below": "is surely below"}
    rest = "".join(f" It {words} {limit} in {listed(side)}." for side, words in sides.items() if listed(side))
    at = f"content's share of the response is {interval(found[largest])} in {name(largest[0])} ({largest[1]})"
    return f"{said[verdict['outcome']]}: {at}.**{rest}"


def _side(share: Bounds, limit: float) -> str:
    """Return the side of a limit on which a share surely lies: `above`, `below` or `unsure`."""
    _, low, high = share
    if low is None or high is None:
        return "unsure"
    return "above" if low > limit else "below" if high < limit else "unsure"


def _outcome(settings: Mapping[str, Any], models: Mapping[str, Any], verdict: Mapping[str, Any]) -> str:
    found = "; ".join(
        f"{name(model)}, {label} {interval(of['confirmation']['difference']['own']['share'])}"
        for model, label, of in cells_of(settings, models)
        if of["confirmation"]["difference"]
    )
    return f"{OUTCOMES[verdict['outcome']]} Share of content: {found}."


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
    everywhere = [*cells_of(settings, models)] + [
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
    for model, label, of in cells_of(settings, models):
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


def _limits(settings: Mapping[str, Any], models: Mapping[str, Any]) -> Iterator[str]:
    yield from weights(settings["models"], models)
    yield "- Targets are the model's own most likely tokens, the foil its runner-up."
    yield "- Only the last position is ablated: earlier positions keep what they hold, also for later layers to read."
    yield "- Content is all that isn't along one direction. A backup that watches a few other directions is content."
    yield "  Damping is a fact about the readout's direction, not about meaning."
    yield "- Components that restore nothing are not pooled, by the rule of choice."
