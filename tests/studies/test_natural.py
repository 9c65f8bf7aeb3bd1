"""The study of natural text: its numbers by plain arithmetic, its verdicts, and its page."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import hydrascope as hs
from hydrascope.measures import Bootstrap
from studies import natural
from studies.natural import numbers
from studies.natural.runs import Run
from studies.natural.verdict import judge
from studies.study import Study

STUDY = Study("natural")


def test_the_page_is_rendered_from_the_stored_results() -> None:
    assert STUDY.page.read_text("utf-8") == natural.render(STUDY.settings, STUDY.read_results())


def made(slope: list[float | None], groups: tuple[float, ...] = (0.7, 0.71, 0.72), below: int = 3) -> dict[str, Any]:
    """Return the numbers of a model with these bounds of all slopes."""
    of = {
        "best": {"slope": slope},
        "groups": [[each, 0, 1] for each in groups],
        "attention": {"slopes": dict.fromkeys("abcd"), "below_1": below},
        "placebo": {"less": [[0.5, 0.4, 0.6]]},
    }
    return {"passages": {"logit": of, "difference": of}, "facts": {"difference": of}}


def test_an_interval_wholly_outside_refutes_and_one_across_the_edge_tells_nothing() -> None:
    inside, across, above = [0.7, 0.6, 0.8], [0.85, 0.7, 1.0], [1.1, 0.95, 1.2]
    assert judge(STUDY.settings, {"a": made(inside), "b": made(inside)})["outcome"] == "holds"
    assert judge(STUDY.settings, {"a": made(inside), "b": made(across)})["outcome"] == "can't tell"
    assert judge(STUDY.settings, {"a": made(across), "b": made(above)})["outcome"] == "refuted"
    assert judge(STUDY.settings, {"a": made(inside), "b": made([0.7, None, None])})["outcome"] == "can't tell"
    found = judge(STUDY.settings, {"a": made(inside), "b": made(inside, (0.5, 0.7, 0.9), 2)})["secondary"]
    assert {name: of["holds"] for name, of in found.items()} == {
        "difference": True,
        "facts_difference": True,
        "placebo": True,
        "groups": False,
        "below_1": False,
    }


def small(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a small study of the built-in model."""
    halves = settings["halves"]
    return settings | {
        "models": ["built-in"],
        "ablate": {"passages": "attn.15-18", "facts": "attn.15-18"},
        "mlps": {"prompts": 4, "rule": "r", "change": "c"},
        "halves": halves
        | {
            "explored_before": 4,
            "passages": {"exploration": 8, "confirmation": 24},
            "facts": {"confirmation": 8},
        },
        "patches": 3,
        "groups": {"each": 1},
        "beside": {"damping": {"prompts": 6}},
        "weight_noise": {"prompts": 6, "seeds": [0], "rule": "r"},
        "distance": {"prompts": 24},
        "intervals": {"resamples": 50, "confidence": 0.95, "seed": 0},
    }


@pytest.fixture(scope="module")
def scored() -> xr.Dataset:
    """A small run that keeps single patches."""
    torch.set_num_threads(1)
    model, prompts = hs.load_model("built-in"), hs.load_prompts("world-facts").limit(10)
    readouts: list[Any] = [hs.Logit(), hs.LogitDifference(), hs.Placebo(2)]
    return hs.sweep(model, prompts, hs.Resample(4), ablate="attn.17", readouts=readouts, keep="patches")


def by_hand(scored: xr.Dataset, readout: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return DE, what is removed, and the changes downstream by patch, from the stored variables alone."""
    at = scored.sel(readout=readout, ablated="attn.17").load()
    x = at["unembed"].sel(component="attn.17").values
    after = at["unembed_ablated_by_patch"]
    own = x - after.sel(component="attn.17").mean("patch").values
    later = at["downstream"].values.astype(bool)
    return x, own, (after.values - at["unembed"].values[:, None])[..., later].sum(-1)


def test_slopes_are_those_of_plain_arithmetic(scored: xr.Dataset) -> None:
    few = Bootstrap(resamples=20)
    for readout in ("logit", "difference"):
        x, own, changes = by_hand(scored, readout)
        found = numbers._best(scored, readout, "attn.17", few)
        assert found["slope"][0] == pytest.approx(np.polyfit(x, changes.mean(1), 1)[0], abs=1e-3)
        assert found["on_removed"][0] == pytest.approx(np.polyfit(own, changes.mean(1), 1)[0], abs=1e-3)
        groups = numbers._groups({"groups": {"each": 2}}, scored, readout, "attn.17", few)
        for pair, bounds in enumerate(groups):
            some = changes[:, 2 * pair : 2 * pair + 2].mean(1)
            assert bounds[0] == pytest.approx(np.polyfit(x, some, 1)[0], abs=1e-3)
        assert len(groups) == 2
    target, *others = (
        np.polyfit(x, changes.mean(1), 1)[0]
        for x, _, changes in (by_hand(scored, name) for name in ("logit", "placebo.0", "placebo.1"))
    )
    placebo = numbers._placebo(scored, "attn.17", few)
    assert [each[0] for each in placebo["slope"]] == pytest.approx(others, abs=1e-3)
    assert [each[0] for each in placebo["less"]] == pytest.approx([target - each for each in others], abs=1e-3)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[Run, Path]]:
    """The settings of a small study, and the paths of its results."""
    torch.set_num_threads(1)
    settings = small(STUDY.settings)
    prompts = {"facts": hs.load_prompts("world-facts").limit(30), "passages": hs.load_prompts("passages").limit(60)}
    return settings, natural.measure(settings, prompts, tmp_path_factory.mktemp("stores"))


@pytest.mark.slow
def test_a_small_run_goes_all_the_way(
    measured: tuple[dict[str, Any], dict[Run, Path]],
) -> None:
    settings, stores = measured
    results = json.loads(json.dumps(natural.condense(settings, stores)))
    page = natural.render(settings, results)
    assert "built-in" in page
    assert "nan" not in page.replace("finance", "").lower()
    assert len(natural.draw(results).axes) == 1
