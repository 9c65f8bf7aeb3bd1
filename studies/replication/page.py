"""Render the page of the replication from its numbers."""

from collections.abc import Callable, Iterator
from typing import Any

from hydrascope.reports.summary.interval import number
from studies.replication.verdict import primary
from studies.words import HUB, OUTCOMES, head, markdown, name

ABLATIONS = {"resample": "resampled", "zero": "set to zero"}
_KINDS = {"attn": "attention sublayers", "mlp": "MLPs"}

Bounds = list[float | None]


def number_of_block(label: str) -> int:
    """Return the block of a sublayer's label.

    >>> number_of_block("attn.28")
    28
    """
    return int(label.split(".")[1])


@markdown
def render(settings: dict[str, Any], results: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of the page.

    Args:
        settings: the study's declared settings.
        results: the study's results.
    """
    runs, prompts = results["runs"], results["prompts"]["number"]
    caption = (
        "Slope of the compensatory effect (CE) on the direct effect (DE) over prompts, for each ablated attention "
        "sublayer. Lines: 95% for all sublayers of a model at once. Triangles: slopes beyond the axis."
    )
    yield from head(
        "Self-repair in two small language models",
        "replication",
        claim(settings, results),
        "Slope of compensation over depth in each model",
        caption,
    )
    yield "## Question and prediction"
    yield ""
    yield f"- **Question**: {settings['question']}"
    yield f"- **Quantity**: {settings['estimand']}."
    yield f"- **Predicted**, before these runs: {settings['prediction']}."
    yield (
        "- **Known before**: both models had been measured by hand on these prompts when the prediction was written. "
        "So this page repeats a known result by a program; prompts that nobody has looked at are still to come."
    )
    yield f"- **Refuted if** {settings['refuted_if']}. {OUTCOMES[primary(settings, results).outcome]}"
    yield f"- **Choice**: {settings['selection']}."
    yield ""
    yield "## The paper's numbers beside these"
    yield ""
    yield (
        f"{prompts:,} prompts of the paper's set (CounterFact, prompts that a reference model answers rightly), the "
        "last token ablated and read, the model's own most likely token as target. *Resampled*: each activation is "
        f"replaced by that of {settings['ablations']['resample']['patches']} other prompts in turn, as in the paper."
    )
    yield ""
    yield from _table(runs)
    yield ""
    yield "## Three questions, three answers"
    yield ""
    yield (
        "*Compensation* is the paper's claim: where a sublayer writes more for the answer, later ones make up for "
        "more. *Prompt by prompt*: does more come back where the ablation really removes more? *On average*: does a "
        "share of what is removed come back in the mean? They differ because a slope ignores a loss that is the same "
        "for all prompts, and the mean doesn't. Sublayers that surely write for the answer are counted."
    )
    yield ""
    yield from _answers(runs)
    yield ""
    yield "## What agrees, and what doesn't"
    yield ""
    yield from _agreement(runs)
    yield ""
    yield "## Limits"
    yield ""
    for model, of_model in runs.items():
        weights = of_model["resample"]
        yield f"- {name(model)}: weights {weights['quantization']}; file {weights['weights'][:19]}…"
    yield "- SmolLM2 is an Instruct model, read here on plain text without its chat template."
    yield "- A slope says that repair grows with the direct effect. It doesn't say that the total effect is small."
    yield (
        "- Under resampling the patch writes something for the target, too: less than DE is removed. The summary of a "
        "run gives the regression on what is removed beside this one (*prompt by prompt*)."
    )
    yield ""
    yield "## Repeat it"
    yield ""
    yield "```sh"
    yield "hydrascope fetch smollm2"
    yield "hydrascope fetch gemma3-270m"
    yield "make study NAME=replication                      # downloads the prompts"
    yield "make study NAME=replication PROMPTS=facts.json   # or takes them from a file"
    yield "```"
    yield ""
    yield "It resumes if it is interrupted. The originals on the Hugging Face hub are measured with"
    yield ""
    yield "```sh"
    for model in runs:
        if model in HUB:
            options = "--prompts counterfact --ablation resample --patches 15"
            yield f"hydrascope run {HUB[model]} {options} --out {model}.zarr"
    yield "```"


def claim(settings: dict[str, Any], results: dict[str, Any]) -> str:
    """Return the finding in one sentence, with its numbers."""
    main = {model: of_model["resample"] for model, of_model in results["runs"].items()}
    found = [
        f"{name(model)} {_interval(of['best']['slope'])} (R² {_interval(of['best']['r2'])}, {of['best']['at']})"
        for model, of in main.items()
        if of["best"]
    ]
    if not found:
        return "**No attention sublayer removes enough to be chosen.**"
    return (
        "**The network makes up for an ablated attention sublayer in proportion to what it wrote.** Slope of "
        f"compensation on direct effect at the best sublayer: {'; '.join(found)}. The paper found about 0.7 (R² 0.92) "
        "in Chinchilla 7B."
    )


def _table(runs: dict[str, Any]) -> Iterator[str]:
    columns = [(model, ablation) for model, of_model in runs.items() for ablation in of_model]
    yield "| | paper | " + " | ".join(f"{name(model)}, {ABLATIONS[ablation]}" for model, ablation in columns) + " |"
    yield "|---|---|" + "---|" * len(columns)
    for title, paper, cell in _ROWS:
        yield f"| {title} | {paper} | " + " | ".join(cell(runs[model][ablation]) for model, ablation in columns) + " |"


def _answers(runs: dict[str, Any]) -> Iterator[str]:
    yield "| | compensation | prompt by prompt | on average |"
    yield "|---|---|---|---|"
    for model, of_model in runs.items():
        for ablation, of in of_model.items():
            for kind, answers in of["answers"].items():
                cells = [f"{answer} ({above} of {asked})" for _, answer, above, _, asked in answers]
                yield f"| {name(model)}, {_KINDS[kind]} {ABLATIONS[ablation]} | " + " | ".join(cells) + " |"


def _agreement(runs: dict[str, Any]) -> Iterator[str]:
    for model, of_model in runs.items():
        of = of_model["resample"]
        attention, strongest = of["attention"], of["strongest"]
        count = len(attention["slopes"])
        yield (
            f"- **{name(model)}**: {attention['above_0']} of {count} attention slopes are surely above 0, "
            f"{attention['below_0']} surely below, {attention['below_1']} surely below 1. At the sublayer with the "
            f"largest mean direct effect ({strongest['at']}) the slope is {_interval(strongest['slope'])}."
        )
        if of["best"]:
            later = min(of["blocks"] - 1 - block for block in of["best"]["blocks"])
            after = (
                f"with {later} blocks after its own" if later else "so that what compensates is that block's MLP alone"
            )
            yield f"  The best sublayer is in block {_best_block(of)}, {after}; the paper's is in block 23 of 32."
    for model, of_model in runs.items():
        best = of_model["resample"]["best"]
        if best and best["slope_placebo"]:
            low, high = min(best["slope_placebo"]), max(best["slope_placebo"])
            yield (
                f"- Control in {name(model)}: for {len(best['slope_placebo'])} random other tokens the slope at the "
                f"same sublayer is {number(low, 2)} to {number(high, 2)}; for the answer it is "
                f"{number(best['slope'][0], 2)}."
            )


def _interval(bounds: Bounds, digits: int = 2) -> str:
    if bounds[0] is None:
        return "–"
    estimate, low, high = (number(float("nan") if each is None else each, digits) for each in bounds)
    return estimate if bounds[1] is None or bounds[2] is None else f"{estimate} [{low}, {high}]"


def _whole(bounds: Bounds) -> str:
    return _interval(bounds, 0)


def _from_block(bounds: Bounds, blocks: int) -> str:
    return "nowhere" if bounds[0] == blocks else f"{_whole(bounds)} of {blocks}"


def _of_best(text: Callable[[dict[str, Any]], str]) -> Callable[[dict[str, Any]], str]:
    return lambda of: text(of["best"]) if of["best"] else "no choice"


def _late_correlation(of: dict[str, Any]) -> str:
    """Return the median correlation in the first two thirds of the blocks, and in the last."""
    values = {number_of_block(name): each[0] for name, each in of["correlation"].items() if each[0] is not None}
    third = of["blocks"] // 3
    early = [value for block, value in values.items() if block < of["blocks"] - third]
    late = [value for block, value in values.items() if block >= of["blocks"] - third]
    return f"{_median(early)}; {_median(late)}"


def _median(values: list[float]) -> str:
    ordered = sorted(values)
    return number((ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2, 2) if ordered else "–"


_ROWS: tuple[tuple[str, str, Callable[[dict[str, Any]], str]], ...] = (
    ("attention sublayer with the highest R² of CE on DE, of blocks", "23 of 32", lambda of: _best_block(of)),
    ("its R², on other prompts than it was chosen on", "0.92", _of_best(lambda best: _interval(best["r2"]))),
    ("its slope", "about 0.7", _of_best(lambda best: _interval(best["slope"]))),
    ("its R², σ of the ablated pass", "", _of_best(lambda best: _interval(best["r2_own"]))),
    ("its slope, σ of the ablated pass", "", _of_best(lambda best: _interval(best["slope_own"]))),
    (
        "CE/DE in the mean, at the sublayer with the largest mean DE",
        "“approximately 70%”",
        lambda of: f"{_interval(of['strongest']['average'])} ({of['strongest']['at']})",
    ),
    (
        "all attention slopes below 1 from block",
        "13 of 32",
        lambda of: _from_block(of["slope_below_1_from"], of["blocks"]),
    ),
    ("share of prompts and sublayers that lose less than DE", "most", lambda of: _interval(of["direct_exceeds_lost"])),
    (
        "correlation of DE and loss, attention: median of the first two thirds; of the last",
        "low but late",
        _late_correlation,
    ),
    (
        "attention sublayers that respond by 10% of DE, of those downstream",
        "1 in the examples",
        lambda of: f"{_interval(of['strongest']['respond'], 1)} of {number(of['strongest']['downstream'], 1)}",
    ),
    (
        "late MLPs that push the answer down, and do so less under the ablation",
        "“many”",
        lambda of: f"{_whole(of['strongest']['erase_less'])} of {_whole(of['strongest']['erasing'])}",
    ),
    ("share of their push that is taken back", "", lambda of: _interval(of["strongest"]["taken_back"])),
    (
        "block from which MLPs respond more than attention",
        "by 22 of 32",
        lambda of: _from_block(of["strongest"]["shift"], of["blocks"]),
    ),
)


def _best_block(of: dict[str, Any]) -> str:
    return f"{' or '.join(map(str, of['best']['blocks']))} of {of['blocks']}" if of["best"] else "no choice"
