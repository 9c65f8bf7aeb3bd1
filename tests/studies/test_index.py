"""The index of findings says what the stored results of all studies say."""

import json
from math import expm1

from studies.attribution.verdict import wider
from studies.index import TITLES, render_index
from studies.study import PAGES, STUDIES, Study
from studies.words import interval, share


def test_the_index_is_rendered_from_the_stored_results() -> None:
    assert (PAGES / "index.md").read_text("utf-8") == render_index()


def test_every_study_with_results_is_in_the_index() -> None:
    with_results = {path.parent.name for path in STUDIES.glob("*/results.json")}
    assert set(TITLES) == with_results
    for name in TITLES:
        assert (PAGES / f"{name}.md").is_file()
        assert (PAGES / "images" / f"{name}.png").is_file()
        assert json.loads((STUDIES / name / "settings.json").read_text())["prediction"]


def test_the_readme_says_the_numbers_of_the_results() -> None:
    told = " ".join((PAGES.parents[1] / "README.md").read_text("utf-8").split())
    names = ("damping", "brakes", "erasure", "natural", "attribution")
    damping, brakes, erasure, natural, attribution = (Study(name).read_results()["models"] for name in names)
    replicated = Study("replication").read_results()["runs"]
    for model in ("smollm2", "gemma3-270m"):
        assert interval(replicated[model]["resample"]["best"]["slope"]) in told
        content = damping[model]["sets"]["facts"]["confirmation"]["difference"]["own"]["share"]
        assert interval(content) in told
        assert share(brakes[model]["share"]["zero"]) in told
        assert interval(erasure[model]["sets"]["facts"]["confirmation"]["taken"]["target"]["own"]) in told
        assert interval(natural[model]["passages"]["logit"]["best"]["slope"]) in told
        assert share(wider(attribution[model], "atp")) in told
        assert share(attribution[model]["difference"]["atp"]["pooled"]["given back"]) in told
    gain = Study("training").read_results()["gain"]
    for test in ("zero", "resample"):
        less = [-100 * expm1(each) for each in gain[test]["zeros 0.2"]["bounds"]]
        assert f"{less[0]:.0f}% [{less[2]:.0f}, {less[1]:.0f}] less" in told
