"""Test the citations: hydrascope and its paper, from one source, and the methods that a result holds."""

import re
from pathlib import Path

import pytest
import synthetic
import yaml
from typer.testing import CliRunner

import hydrascope as hs
from hydrascope._version import __version__
from hydrascope.cli.app import app
from hydrascope.reports.summary.citations import _METHODS, citations
from hydrascope.utils.assets import citation_path

ROOT = Path(__file__).parents[3]
ALWAYS = ["hydrascope", "mcgrath2023"]


def keys(bibtex: str) -> list[str]:
    return re.findall(r"^@\w+\{(\w+),$", bibtex, re.MULTILINE)


def test_hydrascope_and_its_paper_come_from_citation_cff() -> None:
    described = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation_path().read_text() == (ROOT / "CITATION.cff").read_text()
    assert described["version"] == __version__
    text = citations()
    assert keys(text) == ALWAYS
    assert "{The Hydra Effect: Emergent Self-repair in Language Model Computations}" in text
    assert "McGrath, Thomas and Rahtz, Matthew and Kramár, János and Mikulik, Vladimir and Legg, Shane" in text
    assert "  eprint = {2307.15771}," in text
    assert f"  version = {{{__version__}}}," in text


@pytest.mark.parametrize(
    ("attributes", "heads", "expected"),
    [
        ({"ablation": "resample", "positions": "all"}, 2, ["rushing2024selfrepair"]),
        ({"ablation": "resample", "positions": "last"}, 2, []),
        ({"ablation": "zero", "positions": "all"}, 2, []),
        ({"ablation": "resample", "positions": "all"}, 0, []),
        ({"method": "atp_star"}, 0, ["kramar2024atpstar"]),
        ({"method": "integrated_gradients"}, 0, ["sundararajan2017axiomatic"]),
        ({"method": "gim"}, 0, []),
    ],
)
def test_methods_are_cited_where_a_result_holds_them(attributes: dict, heads: int, expected: list[str]) -> None:
    results = synthetic.results(2, 3, 1, **({"heads": heads, "read_heads": False} if heads else {}))
    assert keys(citations(results.assign_attrs(attributes))) == [*ALWAYS, *expected]


def test_it_is_bibtex() -> None:
    results = synthetic.results(2, 3, 1)
    text = citations(results.assign({name: results["total"] for name in _METHODS if name != "rushing"}))
    assert text.count("{") == text.count("}")
    assert len(set(keys(text))) == len(keys(text)) == len(ALWAYS) + len(_METHODS) - 1
    assert not re.search(r"(?<!\\)[%#_&]", re.sub(r"url = .*|archivePrefix", "", text))


def test_the_command_prints_it(tmp_path: Path) -> None:
    told = CliRunner().invoke(app, ["cite"], catch_exceptions=False)
    assert told.stdout == citations()
    out = tmp_path / "run"
    hs.sweep(
        hs.load_model("phantom"),
        hs.load_prompts("phantom").limit(4),
        hs.Resample(2),
        ablate="head.4.1",
        at="all",
        out=out,
    )
    told = CliRunner().invoke(app, ["cite", str(out)], catch_exceptions=False)
    assert keys(told.stdout) == [*ALWAYS, "rushing2024selfrepair"]
