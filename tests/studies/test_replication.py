"""The page of the replication says what its stored results say, and a small run goes all the way."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hydrascope as hs
from hydrascope.utils.errors import HydrascopeError
from studies import replication
from studies.study import Study

STUDY = Study("replication")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[tuple[str, str], Path]]:
    """The settings of a small study, and the paths of its results."""
    torch.set_num_threads(1)
    settings = STUDY.settings | {
        "models": ["built-in"],
        "ablations": {"resample": {"patches": 3, "seed": 0}, "zero": {}},
        "ablate": "attn.8-12,mlp.12",
        "intervals": {"resamples": 50, "confidence": 0.95, "seed": 0},
    }
    prompts = hs.prompts.PromptSet.of(hs.load_prompts("world-facts").prompts[:16], "world-facts")
    return settings, replication.measure(settings, prompts, tmp_path_factory.mktemp("stores"))


def test_the_page_is_rendered_from_the_stored_results() -> None:
    page = replication.render(STUDY.settings, STUDY.read_results())
    assert STUDY.page.read_text("utf-8") == page


def test_results_of_other_settings_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "replication").mkdir()
    (tmp_path / "replication" / "settings.json").write_text("{}")
    monkeypatch.setattr("studies.study.STUDIES", tmp_path)
    with pytest.raises(HydrascopeError, match="replication has no results yet: make study NAME=replication"):
        STUDY.read_results()
    STUDY.write_results({"runs": {}})
    assert STUDY.read_results() == {"runs": {}}
    (tmp_path / "replication" / "settings.json").write_text('{"seed": 1}')
    with pytest.raises(HydrascopeError, match="the results of replication were measured with other settings"):
        STUDY.read_results()
    with pytest.raises(HydrascopeError, match="there is no study 'repli': give one of replication"):
        Study("repli")


@pytest.mark.slow
def test_a_small_run_goes_all_the_way(measured: tuple[dict[str, Any], dict[tuple[str, str], Path]]) -> None:
    settings, stores = measured
    results = json.loads(json.dumps(replication.condense(settings, stores)))
    page = replication.render(settings, results)
    assert "built-in, resampled" in page
    assert "NaN" not in page
    assert "nan" not in page.replace("finance", "")
    assert replication.draw(results).axes


@pytest.mark.slow
def test_slopes_and_choice_are_those_of_plain_arithmetic(
    measured: tuple[dict[str, Any], dict[tuple[str, str], Path]],
) -> None:
    """Slope and R² by numpy from the stored variables alone; the placebos' slopes by the same rule."""
    settings, stores = measured
    results = replication.condense(settings, stores)
    for (model, ablation), path in stores.items():
        stored = hs.open_results(path)
        found = results["runs"][model][ablation]["attention"]
        for label, (slope, _, _) in found["slopes"].items():
            x, y = _direct_and_compensation(stored, label)
            expected = np.polyfit(x, y, 1)[0]
            assert slope == pytest.approx(expected, abs=1e-3 * max(1, abs(expected)))
            assert found["r2"][label] == pytest.approx(np.corrcoef(x, y)[0, 1] ** 2, abs=1e-3)
        assert found["positive"] == sum(slope > 0 for slope, _, _ in found["slopes"].values())


def _direct_and_compensation(stored: Any, label: str) -> tuple[np.ndarray, np.ndarray]:
    at = stored.sel(readout="logit", ablated=label).mean("patch").load()
    later = at["downstream"].values.astype(bool)
    change = (at["unembed_ablated"] - at["unembed"]).values[:, later]
    return at["unembed"].sel(component=label).values, change.sum(1)
