"""A response is never called a repair: "restored by" is said of mediations alone."""

import re
from pathlib import Path

import pytest
import synthetic

from hydrascope.measures import Bootstrap
from hydrascope.reports.kinds import summarise
from hydrascope.reports.pages import page_data
from hydrascope.reports.summary import as_markdown, sentences

ROOT = Path(__file__).parents[2]
#: Of a component, not of a kind of frozen run.
CLAIM = re.compile(r"\b(restored|made up for|repaired) (most )?by `?(attn|mlp|head|attention|MLPs)", re.IGNORECASE)
FEW = Bootstrap(resamples=40)
#: Pages on mediations.
ABOUT_MEDIATION = {"who-repairs.md", "quantities.md"}


def test_the_claim_is_found_where_it_is_made() -> None:
    assert CLAIM.search("0.87 is restored by `mlp.1`")
    assert CLAIM.search("Restored most by attention")


def test_summaries_and_pages_of_a_sweep_do_not_claim_it() -> None:
    results = synthetic.results(4, 40, 2)
    summary = summarise(results, FEW)
    told = " ".join([*sentences(summary), as_markdown(summary)])
    assert "responses" in told
    described, _ = page_data(results, FEW)
    for text in (told, str(described["readouts"])):
        assert not CLAIM.search(text)


@pytest.mark.parametrize(
    "page", [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"], ids=lambda each: each.name
)
def test_nor_do_the_docs(page: Path) -> None:
    if page.name not in ABOUT_MEDIATION:
        assert not CLAIM.search(" ".join(page.read_text("utf-8").split()))
