"""Render the page of the study from its numbers."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydrascope.reports.summary.interval import number
from studies.claims import half_width
from studies.context.cells import Cell
from studies.context.objections import objections
from studies.damping.verdict import MOST_HELD
from studies.words import OUTCOMES, Bounds, correction, head, interval, markdown, name, prediction, weights


def claim(settings: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """Return the finding in one sentence, with its numbers."""
    models, verdict = results["models"], results["verdict"]
    said: dict[str, list[str]] = {}
    for model, side in verdict["sides"].items():
        words = _said(side, models[model]["primary"]["difference"], settings["threshold"])
        said.setdefault(words, []).append(name(model))
    told = "; ".join(f"{words.format(' and '.join(them))}" for words, them in said.items())
    found = "; ".join(f"{name(model)} {_change(of['primary']['difference'])}" for model, of in models.items())
    return (
        f"**After 512 tokens of unrelated text instead of 8, damping {told}.** Change of g, the share of a push along "
        f"the readout that the network takes back: {found}."
    )


def _said(side: str, of: Mapping[str, Any], limit: float) -> str:
    readings, (_, low, high) = [*of["readings"].values()], of["change"]
    inside = [low is not None and high is not None and -limit < low and high < limit for _, low, high in readings]
    if side == "within":
        return (
            f"differs by less than {limit} in {{}} by the declared reading{'' if all(inside) else ', not by all three'}"
        )
    if side == "outside":
        return f"differs by more than {limit} in {{}}"
    if low is None or high is None or low <= 0 <= high:
        return f"may or may not differ by more than {limit} in {{}}"
    sure = all(low is not None and high is not None and not low <= 0 <= high for _, low, high in readings)
    told = "" if sure else " by the declared reading, not by all three"
    return f"is {'lower' if high < 0 else 'higher'} in {{}}{told}, and whether by more than {limit} can't be told"


def _change(of: Mapping[str, Any]) -> str:
    before, after = of["damping"].values()
    return f"{interval(of['change'], 3)}, from {number(before[0], 2)} to {number(after[0], 2)}"


@markdown
def render(settings: Mapping[str, Any], results: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of the page.

    Args:
        settings: the study's declared settings.
        results: the study's results.
    """
    models, verdict = results["models"], results["verdict"]
    counts = {of["cells"]["sentences"] for of in models.values()}
    caption = (
        "Damping (left) and the size of what a sublayer's content does to the readout (right), on the same "
        f"{' and '.join(map(str, sorted(counts)))} sentences with the same target and foil in all cells, against the "
        "number of tokens before the sentence. 1: a newline alone. Lines: 95% of the change from 8 tokens of the same "
        "kind (of another text for 1). Bands: the predicted limits about 8 tokens of another text. The claim is about "
        "more sentences and the declared reading, so that its numbers differ."
    )
    yield from head(
        "Does damping depend on the context?",
        "context",
        claim(settings, results),
        "Damping and content loss against the length of the context",
        caption,
    )
    yield from prediction(settings, _outcome(settings, models, verdict))
    yield f"- **Confidence**: {settings['confidence']['rule']}."
    yield "- **After the results were seen**: the words of the claim name a direction, and say where readings disagree."
    yield f"- **Texts**: {settings['texts']['rule']}."
    yield f"- **Target**: {settings['target_rule']}."
    yield f"- **Cells**: {settings['cells']['rule']}; {settings['cells']['reason']}; {settings['cells']['change']}."
    yield f"- **Changed**: {settings['change']}."
    yield f"- **Left out**: {settings['left_out']}."
    yield ""
    yield "## The primary contrast"
    yield ""
    yield from _primary(models)
    yield ""
    yield (
        "*Kept*: sentences whose target changes its log p by less than 0.5 nat. *Equal confidence*: all sentences, by "
        "regression, at no change of log p. The bold one counts by the declared rule. *g after 8* and *after 512* are "
        "of the kept sentences where these count, and else of all, without regression. Weights come from 16 sentences "
        "of the exploration half and are taken as known; sublayers are fixed by depth."
    )
    yield ""
    yield "## All cells"
    yield ""
    yield from _cells(models)
    yield ""
    yield (
        "*Content repair* h is the slope of the response to the content's ablation on what the whole ablation removes. "
        "*Lost with content* is −total where the content alone is taken away, in logits, the mean over sublayers; *its "
        "size* is the root mean square over sentences and sublayers. *log p* is that of the fixed target."
    )
    yield ""
    yield "Differences of cells, on the same sentences:"
    yield ""
    yield from _contrasts(models)
    yield ""
    yield from _confidence(models)
    yield ""
    yield "## Single sublayers"
    yield ""
    yield from _single(settings, models)
    yield ""
    yield "## Guards and other readings"
    yield ""
    yield from (f"- {guard[0].upper()}{guard[1:]}." for guard in settings["guards"])
    yield f"- {_guarded(models, verdict)}"
    yield ""
    yield from _readings(models)
    yield ""
    yield "## Secondary claims"
    yield ""
    yield "| declared before the confirmation half was measured, for both models | p | adjusted | |"
    yield "|---|---|---|---|"
    for each, of in verdict["secondary"].items():
        says = "holds" if of["holds"] else f"**not shown**{_opposite(each, models)}"
        yield f"| {_escaped(settings['secondary'][each])} | {of['p']:.2g} | {of['adjusted']:.2g} | {says} |"
    yield ""
    yield correction(settings, verdict["p"])
    yield ""
    yield "## Controls"
    yield ""
    yield from _controls(settings, models)
    yield ""
    yield "## Limits"
    yield ""
    yield from weights(settings["models"], models)
    yield "- Targets are the likeliest tokens after a newline and the sentence; in other cells others may be likelier."
    yield "- Only the last position is changed, and prefixes end in a newline: what a long sentence does isn't asked."
    yield (
        "- Another text is of one fixed other source for each source, so that it differs in its kind as well, and the "
        "source of a sentence can't be told from that of its prefix."
    )
    yield "- Kept sentences are those that the text moved least; the rest may behave otherwise."
    yield "- Prose of three sources, two of them old and widely copied; the texts come with the study."
    yield ""
    yield "## Repeat it"
    yield ""
    yield "```sh"
    yield from (f"hydrascope fetch {model}" for model in settings["models"])
    yield "make study NAME=context   # it resumes if it is interrupted"
    yield "```"
    yield ""
    yield "`python -m training.sentences` makes the texts again."
    yield ""
    yield "## Objections"
    yield ""
    yield from objections(settings, models)


def _outcome(settings: Mapping[str, Any], models: Mapping[str, Any], verdict: Mapping[str, Any]) -> str:
    primary = {model: of["primary"]["difference"] for model, of in models.items()}
    found = "; ".join(f"{name(model)} {interval(of['change'], 3)}" for model, of in primary.items())
    unsure = [
        f"{name(model)} {_needed(of, settings['threshold'])}"
        for model, of in primary.items()
        if verdict["sides"][model] == "unsure"
    ]
    more = f" Sentences that would tell, if the estimate and the spread stay: {'; '.join(unsure)}." if unsure else ""
    return f"{OUTCOMES[verdict['outcome']]} Δg: {found}.{more}"


def _needed(of: Mapping[str, Any], limit: float) -> str:
    """Return the number of sentences after which the interval would no longer hold the nearer limit."""
    estimate, low, high = of["change"]
    if None in (estimate, low, high) or abs(estimate) == limit:
        return "–"
    count = of["kept"] if of["used"] == "kept" else of["sentences"]
    kept = "kept ones, " if of["used"] == "kept" else ""
    needed = count * ((high - low) / 2 / abs(abs(estimate) - limit)) ** 2
    return f"about {needed:.0f} ({kept}against {count}) for an even chance"


_READINGS = {"kept": "kept", "adjusted": "equal confidence", "all": "all sentences"}


def _primary(models: Mapping[str, Any]) -> Iterator[str]:
    columns = " | ".join(f"Δg, {each}" for each in _READINGS.values())
    yield f"| | sentences | kept | g after 8 | g after 512 | {columns} |"
    yield "|---" * (5 + len(_READINGS)) + "|"
    for model, of in models.items():
        for readout, found in of["primary"].items():
            cells = [str(found["sentences"]), str(found["kept"])]
            cells += [interval(each) for each in found["damping"].values()]
            for reading in _READINGS:
                words = interval(found["readings"][reading], 3)
                cells.append(f"**{words}**" if reading == found["used"] else words)
            yield f"| {name(model)}, `{readout}` | {' | '.join(cells)} |"


def _cells(models: Mapping[str, Any]) -> Iterator[str]:
    yield "| | tokens | before the sentence | damping g | content repair h | lost with content | its size | log p |"
    yield "|---|---|---|---|---|---|---|---|"
    for model, of in models.items():
        for cell, found in sorted(of["cells"]["each"].items(), key=lambda each: Cell.parse(each[0])):
            numbers = [interval(found[key]) for key in ("damping", "content_repair")]
            numbers += [interval(found["lost"], 3), interval(found["size"]), number(found["log_p"], 2)]
            yield f"| {name(model)} | {_length(cell)} | {_context(cell)} | {' | '.join(numbers)} |"


def _contrasts(models: Mapping[str, Any]) -> Iterator[str]:
    yield "| | from | to | Δg | change of h | change of what is lost | change of its size |"
    yield "|---|---|---|---|---|---|---|"
    for model, of in models.items():
        for contrast, found in of["cells"]["contrasts"].items():
            last, first = contrast.split(" − ")
            numbers = [interval(found[key], 3) for key in ("damping", "content_repair", "lost", "size")]
            ends = [f"{_length(each)}, {_context(each)}" for each in (first, last)]
            yield f"| {name(model)} | {' | '.join([*ends, *numbers])} |"


def _length(cell: str) -> str:
    return cell.split(".")[1]


def _context(cell: str) -> str:
    return {"newline": "a newline", "other": "another text", "true": "its true context"}[cell.split(".")[0]]


def _confidence(models: Mapping[str, Any]) -> Iterator[str]:
    for model, of in models.items():
        yield (
            f"- {name(model)}: per nat of the target's log p, within sentences, what is lost with content changes by "
            f"{interval(of['cells']['confidence'], 3)} logits."
        )


def _single(settings: Mapping[str, Any], models: Mapping[str, Any]) -> Iterator[str]:
    limit = settings["threshold"]
    yield "Δg of each sublayer, with bounds that hold for all sublayers of a model at once:"
    yield ""
    sure = " | ".join(f"bounds {each}" for each in (f"within ±{limit}", "outside", "below 0", "above 0"))
    yield f"| | sublayers | {sure} | median | extremes |"
    yield "|---|---|---|---|---|---|---|---|"
    for model, of in models.items():
        each = of["primary"]["difference"]["each"]
        bounds = [*each.values()]
        counts = [
            _count(bounds, lambda low, high: -limit < low and high < limit),
            _count(bounds, lambda low, high: low > limit or high < -limit),
            _count(bounds, lambda low, high: high < 0),
            _count(bounds, lambda low, high: low > 0),
        ]
        order = sorted(each, key=lambda label: each[label][0])
        median = number(sorted(value[0] for value in bounds)[len(bounds) // 2], 3)
        ends = " to ".join(f"{label} {number(each[label][0], 2)}" for label in (order[0], order[-1]))
        yield f"| {name(model)} | {len(bounds)} | {' | '.join(map(str, counts))} | {median} | {ends} |"


def _count(bounds: Sequence[Bounds], holds: Any) -> int:
    return sum(low is not None and high is not None and holds(low, high) for _, low, high in bounds)


def _guarded(models: Mapping[str, Any], verdict: Mapping[str, Any]) -> str:
    if verdict["guarded"]:
        return f"**A guard forbids a verdict in {' and '.join(map(name, verdict['guarded']))}.**"
    held = [of["primary"]["difference"]["loudest"]["hold"] for of in models.values()]
    loud = sum(each > MOST_HELD for each in held)
    shares = " and ".join(f"{number(100 * each, 0)}%" for each in held)
    return (
        f"No guard forbids a verdict. 5% of the sentences hold {shares} of the weights of g; in {loud} of {len(held)} "
        "models that is over a third."
    )


def _opposite(claim: str, models: Mapping[str, Any]) -> str:
    """Return the models in which the whole interval of a one-sided claim lies on the other side."""
    read = {
        "content_confidence": lambda of: of["cells"]["confidence"],
        "content_size": lambda of: of["cells"]["contrasts"].get("other.512 − other.8", {}).get("size", (None,) * 3),
    }.get(claim)
    found = [name(model) for model, of in models.items() if read and (read(of)[1] or 0) > 0]
    return f"; the other way in {' and '.join(found)}" if found else ""


def _escaped(text: str) -> str:
    """Return a text for a cell of a table."""
    return text.replace("|", "\\|")


def _readings(models: Mapping[str, Any]) -> Iterator[str]:
    sources = list(next(iter(models.values()))["primary"]["difference"]["sources"])
    yield (
        "| Δg | exploration half, all | clean σ | without the loudest 5% | median of 20 blocks | equal weights | "
        f"{' | '.join(f'{source}, all' for source in sources)} |"
    )
    yield "|---" * (6 + len(sources)) + "|"
    for model, of in models.items():
        for readout, found in of["primary"].items():
            cells = [
                interval(of["exploration"][readout], 3),
                interval(found["clean"], 3),
                number(found["loudest"]["without"], 3),
                number(found["loudest"]["blocks"], 3),
                interval(found["equal_weights"], 3),
                *(interval(each, 3) for each in found["sources"].values()),
            ]
            yield f"| {name(model)}, `{readout}` | {' | '.join(cells)} |"


def _controls(settings: Mapping[str, Any], models: Mapping[str, Any]) -> Iterator[str]:
    sentences = settings["if_time_allows"]["weight_noise"]["sentences"]
    for model, of in models.items():
        noise = of["weight_noise"]
        if noise:
            without, noised = noise["none"], [each[0] for kind, each in noise.items() if kind != "none"]
            moved = max(abs(each - without[0]) for each in noised)
            half = (without[2] - without[1]) / 2
            says = "less" if moved < half else "**more**"
            yield (
                f"- Weight noise, {name(model)}, {sentences} sentences: Δg is {interval(without, 3)}, with noise "
                f"{', '.join(number(each, 3) for each in noised)}: it moves by {number(moved, 3)}, {says} than the "
                f"half-width {number(half, 3)}. All sentences of the claim have one of "
                f"{number(half_width(of['primary']['difference']['change']), 3)}: rounding of the weights alone may "
                "move Δg by as much as that."
            )
        else:
            yield f"- Weight noise, {name(model)}: not measured."
        kicks = "; ".join(
            f"after {_length(cell)} tokens zero ablation moves the stream by {number(kick['whole'], 3)}, its readout "
            f"part by {number(kick['readout'], 4)}"
            for cell, kick in of["kick"].items()
        )
        told = f"{kicks} (median; 1 is as far as two prompts are apart)" if kicks else "not measured"
        yield f"- Kick, {name(model)}: {told}."
