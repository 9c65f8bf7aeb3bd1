"""Render the page of the study of brakes from its numbers."""

from collections.abc import Iterator, Mapping
from typing import Any

from hydrascope.reports.summary.interval import number
from studies.brakes.numbers import LISTED, NOTABLE
from studies.brakes.verdict import primary
from studies.words import HUB, OUTCOMES, head, interval, markdown, name, prediction, share

#: The names of the runs on the page.
_RUNS = {
    "zero": "set to zero, the claim",
    "mean": "replaced by its mean",
    "counterfactual": "taken from the twin prompt",
    "all positions": "set to zero at all positions",
    "explored": "set to zero, exploration prompts",
}
_SCORES = {
    "coax": "CoAx",
    "ratio": "CoAx’ ratio",
    "conditional": "conditional energy",
    "single": "single energy",
    "coupling": "coupling energy",
    "|direct|": "direct effect, size",
    "depth": "depth alone",
    "synergy": "synergy",
}


@markdown
def render(settings: Mapping[str, Any], results: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of the page.

    Args:
        settings: the study's declared settings.
        results: the study's results.
    """
    models = results["models"]
    main = models[settings["models"][0]]
    caption = (
        "A dot is a head downstream of an ablated head: its reaction (what is lost again if it is frozen) against "
        "what it writes for the answer in the clean run. Upper left: brakes let go. Upper right: substitutes. Line: "
        "the fit of a loss of drive, in which every head just writes less of what it always writes."
    )
    yield from head(
        "Who makes up for an ablated head: a brake let go",
        "brakes",
        claim(settings, results),
        "Reaction of each head against what it writes in the clean run",
        caption,
    )
    told = f"{OUTCOMES[primary(settings, results).outcome]} {share(main['share']['zero'])}."
    yield from prediction(settings, told)
    yield (
        "- **Known before**: a pilot had seen 48 prompts of the exploration templates in SmolLM2; the prediction comes "
        "from it. The confirmation templates and Gemma 3 had not been read."
    )
    yield f"- **Templates**: {settings['templates']}. Unit of resampling: {settings['unit']}."
    yield f"- **Seeds**: {settings['seeds']['rule']}."
    yield ""
    yield "## Numbers"
    yield ""
    yield from _seeds(models)
    yield ""
    yield "Share of all positive reactions of heads that brakes carry:"
    yield ""
    yield "| the seed is | " + " | ".join(map(name, models)) + " |"
    yield "|---|" + "---|" * len(models)
    for run, words in _RUNS.items():
        yield f"| {words} | " + " | ".join(share(each["share"][run]) for each in models.values()) + " |"
    yield (
        "| set to zero, heads and MLPs | "
        + " | ".join(share(each["share_with_mlps"]) for each in models.values())
        + " |"
    )
    yield ""
    for model, of in models.items():
        yield from _named(model, of)
        yield ""
    yield "## Is it repair? Three controls"
    yield ""
    for model, of in models.items():
        yield from _controls(model, of)
    yield ""
    yield (
        "So a brake that lets go does make up for the ablated head, and nothing here shows that it does so *for* the "
        "answer: where every head downstream loses drive alike, brakes give back and movers take away."
    )
    yield ""
    yield "## Secondary claims"
    yield ""
    for model, of in models.items():
        yield f"- **{name(model)}**: {_secondary(of)}"
        yield from _substitutes(of)
    yield ""
    yield "## Published scores on trial"
    yield ""
    yield (
        "Rank correlation of each score with both truths, among the heads and MLPs downstream: means over the twelve "
        "seed heads, intervals over them. *Reaction*: what the candidate does about the ablation. *Synergy*: what "
        "ablating it costs more once the seed is gone."
    )
    yield ""
    yield from _scores(models)
    yield ""
    yield "## Limits"
    yield ""
    yield "- Both models are small; their weights are dequantised; SmolLM2 is an Instruct model read on plain text."
    yield "- One task (IOI), read as answer minus foil; the last token alone is ablated, where not said otherwise."
    yield (
        "- A head’s sign can depend on the template. It is taken from the exploration templates, and reactions from "
        "the confirmation templates, so that it isn’t chosen on what it explains."
    )
    yield (
        "- A share of positive reactions counts small ones, too; noise adds to brakes and substitutes alike and pulls "
        "the share to the share of brakes among the heads."
    )
    yield ""
    yield "## Repeat it"
    yield ""
    yield "```sh"
    for model in models:
        yield f"hydrascope fetch {model}"
    yield "make study NAME=brakes"
    yield (
        "make study NAME=brakes MODEL="
        + HUB.get(settings["models"][0], "…")
        + "   # the original weights, from the hub"
    )
    yield "```"
    yield ""
    yield "## Objections"
    yield ""
    yield from _objections(settings, models)


def _objections(settings: Mapping[str, Any], models: Mapping[str, Any]) -> Iterator[str]:
    yield (
        "- *The share follows from a loss of drive.* If every head downstream only wrote less of what it always "
        "writes, all positive reactions would be brakes’. So the share says that nobody substitutes; it doesn’t say "
        "that brakes repair."
    )
    for model, of in models.items():
        without = of["share_without"]
        yield (
            f"- *One head, or one seed, carries it* ({name(model)}). Looked at afterwards, the lowest share with one "
            f"reacting head left out is {share(without['candidate']['share'])} (without {without['candidate']['label']}"
            f"), with one seed left out {share(without['seed']['share'])} (without {without['seed']['label']})."
        )
    blocks = {name(model): len({seed.split(".")[1] for seed in of["seeds"]}) for model, of in models.items()}
    told = "; ".join(f"{model}: {count} {'block' if count == 1 else 'blocks'}" for model, count in blocks.items())
    yield (
        f"- *The seeds are no independent cases.* The heads that remove at least {settings['seeds']['least_removed']} "
        f"stand in few blocks ({told}) and share most of what is downstream. The interval is over templates, with the "
        "seeds fixed."
    )
    yield (
        "- *A head can do both.* The sign is of the mean over templates, of zero ablation at the last token. A head "
        "that writes for the answer in some sentences and against it in others counts on one side."
    )
    yield (
        "- *Seeds that remove nothing after all.* A seed is chosen on the exploration prompts. Where it doesn’t surely "
        "remove anything on the confirmation prompts it has no share restored, and the fit of a loss of drive leaves "
        "it out: that was changed after the numbers were seen, since they were ratios to nothing. The claim counts it, "
        "as declared."
    )
    yield (
        "- *The confirmation was touched before.* The program was tried on 24 of its prompts; that result was deleted "
        "unread, and the numbers of the page are of the first reading."
    )


def claim(settings: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """Return the finding in one sentence, with its numbers."""
    models = results["models"]
    told = "; ".join(f"{name(model)} {share(of['share']['zero'])}" for model, of in models.items())
    return (
        "**When a head is ablated in IOI, the heads that give most back are those that held the answer down, and now "
        f"hold less.** Share of all positive reactions carried by such brakes: {told}."
    )


def _seeds(models: Mapping[str, Any]) -> Iterator[str]:
    yield "| model | seed head | removed | lost | restored |"
    yield "|---|---|---|---|---|"
    for model, of in models.items():
        for seed, each in of["seeds"].items():
            cells = " | ".join(interval(each[key]) for key in ("removed", "lost", "restored"))
            yield f"| {name(model)} | {seed} | {cells} |"


def _named(model: str, of: Mapping[str, Any]) -> Iterator[str]:
    rows = of["named"]
    yield (
        f"**{name(model)}**: {len(rows)} reactions are surely above {NOTABLE:.0%} of what the seed removes (bounds for "
        f"all pairs at once){'; the largest:' if rows else '.'}"
    )
    if not rows:
        return
    yield ""
    yield "| seed | reacts | reaction | writes in the clean run | |"
    yield "|---|---|---|---|---|"
    for row in rows[:LISTED]:
        yield (
            f"| {row['seed']} | {row['reacts']} | {interval(row['reaction'])} | {number(row['writes'], 2)} | "
            f"{row['side']} |"
        )


def _controls(model: str, of: Mapping[str, Any]) -> Iterator[str]:
    drive, boost, inert = of["drive"], of["boost"], of["inert_reactions"]
    rows = [f"{row['reacts']} (without {row['seed']})" for row in drive["above"][:LISTED]]
    above = ", ".join(rows) or "none"
    yield f"- **{name(model)}**"
    yield (
        f"    - *Loss of drive.* Over {drive['pairs']:,} pairs of a seed that surely removes and a head, the slope of "
        f"the reaction on what the head writes is {interval(drive['slope'])}, r = {interval(drive['correlation'])}. "
        f"Heads surely above the line by {NOTABLE:.0%} of what the seed removes: {above}."
    )
    yield (
        f"    - *Boost.* Where the seed writes twice as much, the heads react {interval(boost['slope'])} times as they "
        "do to the ablation (−1: exactly the other way round)."
    )
    yield (
        f"    - *Seeds that remove nothing* ({len(inert['by_seed'])} heads with the largest kick among those that "
        f"remove less than 0.05): brakes give back {interval(inert['inert'])} in sum for such a seed, and "
        f"{interval(inert['active'])} for one that removes: {interval(inert['ratio'])} times as much."
    )


def _secondary(of: Mapping[str, Any]) -> str:
    found = verdicts(of)
    return "; ".join(f"{claim}: {'holds' if holds else 'doesn’t hold'}" for claim, holds in found.items()) + "."


def _substitutes(of: Mapping[str, Any]) -> Iterator[str]:
    """Yield the reactions of heads that write for the answer, and whether their seed removes anything."""
    for row in of["named"]:
        if row["side"] == "substitute" and row["reacts"].startswith("head."):
            removes = row["seed"] in of["removing"]
            seed = "" if removes else ", which doesn’t surely remove anything on the confirmation prompts"
            yield f"    - {row['reacts']} reacts by {interval(row['reaction'])} to {row['seed']}{seed}."


def verdicts(of: Mapping[str, Any]) -> dict[str, bool]:
    """Return whether each secondary claim holds in one model.

    >>> verdicts({"named": [], "drive": {"slope": [-0.6, -0.7, -0.5]}, "boost": {"slope": [-0.4, -0.5, -0.3]},
    ...           "inert_reactions": {"ratio": [0.3, 0.2, 0.4]}})["no substitute"]
    True
    """
    substitutes = [row for row in of["named"] if row["side"] == "substitute" and row["reacts"].startswith("head.")]
    return {
        "no substitute": not substitutes,
        "loss of drive": of["drive"]["slope"][2] < 0,
        "two-sided": of["boost"]["slope"][2] < 0,
        "inert": of["inert_reactions"]["ratio"][1] > NOTABLE,
    }


def _scores(models: Mapping[str, Any]) -> Iterator[str]:
    heads = [f"{name(model)}, {truth}" for model in models for truth in ("reaction", "synergy")]
    yield "| score | " + " | ".join(heads) + " |"
    yield "|---|" + "---|" * len(heads)
    for score, words in _SCORES.items():
        cells = [
            interval(of["scores"][truth][score]) if score in of["scores"][truth] else "–"
            for of in models.values()
            for truth in ("reaction", "synergy")
        ]
        yield f"| {words} | " + " | ".join(cells) + " |"
