"""The README is short, its commands exist, and its figures of speed are those of docs/benchmarks.md."""

import re
import shlex
from pathlib import Path

import pytest
from command_line import parse

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
COMPARISON = (ROOT / "docs" / "comparison.md").read_text("utf-8")
#: Commands in code, but for those in which a name in capitals stands for something.
COMMANDS = [
    command
    for page in ("README.md", "docs/models.md", "docs/start.md", "docs/json.md")
    for command in re.findall(r"(?:^ {4}|`|^)(hydrascope [^`\n#]*)", (ROOT / page).read_text("utf-8"), re.MULTILINE)
    if "--" in command and "--help" not in command and not re.search(r"\\$|[|…]|\b[A-Z]{3,}\b", command)
]
#: The races in docs/benchmarks.md by their headings.
RACES = {
    "sublayers": "GPT-2 small: 24 layers × 15 patches at the last position",
    "heads": "GPT-2 small: 144 heads × 15 patches at the last position",
    "everywhere": "GPT-2 small: 24 layers × 15 patches at all positions",
    "llama": "Llama, grouped queries: 32 layers × 15 patches at the last position",
    "smollm2": "SmolLM2-135M: 60 layers × 15 patches at the last position",
}


def times(race: str, *tools: str) -> list[int]:
    """Return how many times as long as hydrascope tools take in a race, rounded."""
    page = (ROOT / "docs" / "benchmarks.md").read_text("utf-8")
    section = re.split(r"\n##+ ", page.split(f"# {RACES[race]}\n")[1])[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line.startswith("|")]
    ratios = {row[0]: row[rows[0].index("times hydrascope's")] for row in rows}
    return [round(float(ratios[tool])) for tool in tools]


USUAL = ("hooks on transformers", "nnsight", "TransformerLens")
PEERS = ("nnsight", "TransformerLens")
LOOP = "key/value cache kept"


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= 120


def test_the_speed_is_that_of_the_benchmarks() -> None:
    told = " ".join(README.split())
    sublayers, heads = min(times("sublayers", *USUAL)), min(times("heads", *USUAL))
    assert f"it is {sublayers} times (sublayers) and {heads} times (heads) faster than hooks on transformers" in told
    kept = times("sublayers", LOOP) + times("heads", LOOP)
    assert f"and {' and '.join(map(str, dict.fromkeys(kept)))} times faster than a loop with a kept key/value" in told


def test_the_speed_on_the_comparison_is_that_of_the_benchmarks() -> None:
    told = " ".join(COMPARISON.split())
    for words, tools in (("{} to {} times as long as hydrascope", PEERS), ("{} to {} times if only", None)):
        names = tools or tuple(f"{peer}, last logits only" for peer in PEERS)
        ratios = times("sublayers", *names) + times("heads", *names)
        assert words.format(min(ratios), max(ratios)) in told
    others = times("llama", *PEERS) + times("smollm2", *PEERS)
    assert f"{min(others)} to {max(others)} times on the shapes of a Llama" in told
    assert set(times("everywhere", *PEERS)) == {5}
    assert "of short prompts 5 times" in told
    kept = sorted({*times("sublayers", LOOP), *times("heads", LOOP)})
    assert f"takes {' to '.join(map(str, kept))} times as long" in told


@pytest.mark.parametrize("command", sorted(set(COMMANDS)))
def test_its_commands_exist(command: str) -> None:
    parse(shlex.split(command)[1:])


def test_enough_commands_are_read() -> None:
    assert len(COMMANDS) > 20
