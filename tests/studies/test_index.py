"""The index of findings says what the stored results of all studies say."""

import json

from studies.index import TITLES, render_index
from studies.study import PAGES, STUDIES


def test_the_index_is_rendered_from_the_stored_results() -> None:
    assert (PAGES / "index.md").read_text("utf-8") == render_index()


def test_every_study_with_results_is_in_the_index() -> None:
    with_results = {path.parent.name for path in STUDIES.glob("*/results.json")}
    assert set(TITLES) == with_results
    for name in TITLES:
        assert (PAGES / f"{name}.md").is_file()
        assert (PAGES / "images" / f"{name}.png").is_file()
        assert json.loads((STUDIES / name / "settings.json").read_text())["prediction"]
