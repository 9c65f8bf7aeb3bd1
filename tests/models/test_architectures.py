"""Every declared architecture has a tiny model in the tests, and its name in docs/models.md."""

import re
import runpy
from pathlib import Path

from tiny import CONFIGS

from hydrascope.models import architectures

ROOT = Path(__file__).parents[2]
#: As declared in the file; other tests of this process declare more.
ANATOMIES = runpy.run_path(str(architectures.__file__))["_ANATOMIES"]


def test_every_architecture_is_tested() -> None:
    assert {model_type for model_type, _ in CONFIGS.values()} == set(ANATOMIES)


def test_the_page_names_the_architectures_of_each_engine() -> None:
    text = (ROOT / "docs" / "models.md").read_text().split("## Architectures")[1].replace("\n", " ")
    fast, _, rest = text.partition(" run on the fast engine; ")
    plain = rest.partition(" run on plain forward passes.")[0]
    for names, is_fast in ((fast, True), (plain, False)):
        expected = {name for name, anatomy in ANATOMIES.items() if anatomy.supports_wavefront == is_fast}
        assert set(re.findall(r"\w+", names)) - {"and"} == expected


def test_pages_count_the_architectures() -> None:
    assert f"{len(ANATOMIES)} architectures in all" in (ROOT / "README.md").read_text()
    assert f"{len(ANATOMIES)} decoder architectures" in (ROOT / "docs" / "comparison.md").read_text()
