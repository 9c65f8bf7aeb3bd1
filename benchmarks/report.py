"""The figures as tables, for a terminal and for docs/benchmarks.md alike: Markdown from the records of the parts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.task import PATCHES
from benchmarks.tools import CACHED, ENGINE, LAST, USUAL, USUAL_LAST, WHOLE

_BEGIN, _END = "<!-- measured: begin -->", "<!-- measured: end -->"

Record = dict[str, Any]


def render(records: dict[str, Record]) -> str:
    """All parts of which there is a record, as Markdown."""
    sections = [_machine(records["machine"])] if "machine" in records else []
    for name, record in records.items():
        if name.startswith("race-"):
            sections.append(_race(record))
    for name, write in _SECTIONS.items():
        if name in records:
            sections.append(write(records[name]))
    if "precision" in records:
        sections.append(_precision(records["precision"], records.get("race-layers")))
    return "\n\n".join(sections) + "\n"


def insert(page: Path, text: str) -> None:
    """Put `text` in the place of the measured part of `page`."""
    before, _, rest = page.read_text().partition(_BEGIN)
    _, _, after = rest.partition(_END)
    page.write_text(f"{before}{_BEGIN}\n\n{text}\n{_END}{after}")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, its columns aligned to be read as text too; all but the first to the right."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        padded = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
        return f"| {' | '.join(padded)} |"

    rule = "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])])
    return "\n".join([line(head), f"|{rule}|", *map(line, rows)])


def _machine(record: Record) -> str:
    return "### The machine\n\n" + "\n".join(f"- {key}: {value}" for key, value in record.items())


def _race(record: Record) -> str:
    tools: dict[str, Record] = record["tools"]
    rows = [
        [
            name,
            f"{tool['seconds']:.3f}",
            f"{min(tool['rounds']):.3f}–{max(tool['rounds']):.3f}",
            f"{tool['times']:.2f}" if tool["times"] < 2 else f"{tool['times']:.1f}",
            f"{tool['share']:.1%} ({tool['share_in_round']:.1%})" if name in (ENGINE, WHOLE) else "",
            f"{tool['difference']:.0e}" if name != ENGINE else "",
        ]
        for name, tool in tools.items()
    ]
    head = ["", "s a prompt", "rounds", "times hydrascope's", "share of the rate", "differs by, logits"]
    what = f"{record['ablated']} {record['ablate']}"
    where = "at the last position" if record["at"] == "last" else "at all positions"
    one_in = record["one_in"]
    share = f" A peer ablates one in {one_in} of them, others each round, and its time counts {one_in} times."
    lines = [
        f"### {record['model']}: {what} × {PATCHES} patches {where}",
        f"{record['prompts']} prompts of {record['mean_tokens']:.1f} tokens on average, the longest "
        f"{record['longest']}.{share if one_in > 1 else ''}",
        table(head, rows),
        f"Medians of {record['rounds']} rounds. A prompt needs {record['operations'] / 1e9:.1f} GFLOP; the machine's "
        f"best sustained rate was {record['best_rate'] / 1e9:.0f} GFLOP/s ({_rates(record['rates'])}); shares are of "
        "this best and, in brackets, of the better library's rate just before and after. The largest number in the "
        f"answers is {record['size']:.2f} logits. Load of the machine at the start: {record['load']:.1f}.",
    ]
    found = [
        f"{title}: **{min(tools[name]['times'] for name in names):.1f}** times hydrascope's time."
        for title, names in (
            ("The fastest of the usual code", [name for name in USUAL if name in tools]),
            (f"The fastest of the usual code{LAST}", [name for name in USUAL_LAST if name in tools]),
            ("The expert's loop", [name for name in (CACHED,) if name in tools]),
        )
        if names
    ]
    return "\n\n".join([*lines, "\n".join(f"- {line}" for line in found)])


def _rates(rates: dict[str, list[float]]) -> str:
    return "; ".join(f"{name} {min(each) / 1e9:.0f}–{max(each) / 1e9:.0f}" for name, each in rates.items())


def _products(record: Record) -> str:
    large = {library: max(rates) for library, rates in record["large"].items()}
    everything = {"4,096 × 4,096 × 4,096": large, **record["rates"]}
    rows = [[name, *(f"{rate / 1e9:.0f}" for rate in rates.values())] for name, rates in everything.items()]
    return "### The products alone, 16 prompts at a time, GFLOP/s\n\n" + table(["", *large], rows)


_PHASES = {
    "products": "products with weights",
    "layers": "the rest of the model, and hydrascope's hooks in it",
    "outside": "outside the model",
}


def _phases(record: Record) -> str:
    totals = {work: sum(seconds.values()) for work, seconds in record.items()}
    rows = [
        [title, *(f"{seconds[name]:.4f} ({seconds[name] / totals[work]:.1%})" for work, seconds in record.items())]
        for name, title in _PHASES.items()
    ]
    rows.append(["together", *(f"{total:.4f}" for total in totals.values())])
    return "### Where the time of hydrascope.sweep goes, s a prompt\n\n" + table(["", *record], rows)


def _metrics(record: Record) -> str:
    return (
        f"### Metrics\n\nAll layers × {PATCHES} patches at the last position: {record['without']:.4f} s a prompt; with "
        f"log_prob and kl {record['more']:.4f}: **{record['times']:.2f}** times."
    )


def _pairs(record: Record) -> str:
    return (
        f"### All pairs of layers\n\nAll layers with one patch: {record['without']:.4f} s a prompt; all pairs of them "
        f"with one patch {record['more']:.4f}: **{record['times']:.2f}** times."
    )


def _mediation(record: Record) -> str:
    ours, plain, hooks, last = (record[name] for name in ("mediation", "plain", "hooks", "hooks_last"))
    return (
        "### Who repairs\n\n"
        "All layers, and each again with everything downstream frozen, with each mediator frozen, and with all but it: "
        f"{record['runs']:,} overrides × 5 patches take {ours:.4f} s a prompt, **{ours / plain:.1f}** times the plain "
        f"sweep with 5 patches ({plain:.4f}). Hooks on transformers take {hooks:.1f} s for the same overrides (from "
        f"{record['made']} of them), **{hooks / ours:.0f}** times as long; {last:.1f} s, **{last / ours:.0f}** times, "
        "where only the last position meets the unembedding. Answers differ by "
        f"{record['difference']:.0e} of the largest effect."
    )


def _head_pairs(record: Record) -> str:
    return (
        f"All {record['runs']:,} heads and pairs of heads of {record['model']}, set to zero, by "
        f"`hs.analyses.interactions`, clean passes and checks included: {record['seconds']:.1f} s a prompt for "
        f"{record['flop'] / 1e12:.2f} TFLOP, **{record['flop'] / record['seconds'] / record['rate']:.0%}** of the "
        "machine's rate."
    )


def _shapley(record: Record) -> str:
    return (
        f"Shapley values of all layers in {record['runs']} orders × {record['patches']} patches, by "
        f"`hs.analyses.shapley`: {record['seconds']:.1f} s a prompt; the largest standard error of a mean over "
        f"{record['prompts']} prompts is {record['error']:.1%} of the largest mean."
    )


def _precision(record: Record, race: Record | None) -> str:
    rows = [
        [
            name,
            f"{error['size']:.4f}",
            f"{error['error']:.5f}",
            f"{error['error'] / error['size']:.2%}",
            f"{error['worst']:.4f}",
        ]
        for name, error in record["errors"].items()
    ]
    faster = record["float32"] / record["bfloat16"]
    said = [f"- {faster:.1f} times as fast as hydrascope in float32."]
    if faster < 1:
        said = [
            f"- {1 / faster:.1f} times as **slow** as hydrascope in float32: this processor has no instructions for it."
        ]
    elif race is not None:
        fastest = min(race["tools"][name]["seconds"] for name in USUAL if name in race["tools"])
        said.append(f"- **{fastest / record['bfloat16']:.0f}** times as fast as the usual code in float32.")
    return "\n\n".join(
        [
            "### bfloat16",
            f"{record['bfloat16']:.4f} s a prompt (float32 in the same run: {record['float32']:.4f}).",
            "\n".join(said),
            table(["quantity", "size", "error", "relative", "worst"], rows),
            "Size and error are root mean squares, in logits; a model with random weights.",
        ]
    )


_MEMORY = {
    "weights": "the weights",
    "peak": "peak of the process",
    "beside_weights": "peak beside the weights",
    "imports": "of which Python and its libraries",
    "bank": "of which the clean activations",
    "disk": "the result on disk",
}


def _memory(record: Record) -> str:
    rows = [[title, *(f"{each[name] / 2**30:.3f}" for each in record.values())] for name, title in _MEMORY.items()]
    rows.append(["the result on disk for 1,209 prompts", *(f"{_of_all(each):.3f}" for each in record.values())])
    head = ["", *(f"{name}, {each['prompts']} prompts" for name, each in record.items())]
    return "### Memory of hydrascope.sweep at the default batch, GiB\n\n" + table(head, rows)


def _of_all(memory: Record) -> float:
    """GiB: every prompt takes the same on disk."""
    return float(memory["disk"]) / memory["prompts"] * 1209 / 2**30


#: The parts that need no other's record.
_SECTIONS = {
    "metrics": _metrics,
    "pairs": _pairs,
    "mediation": _mediation,
    "head-pairs": _head_pairs,
    "head-pairs-smollm2": _head_pairs,
    "shapley": _shapley,
    "products": _products,
    "phases": _phases,
    "memory": _memory,
}
