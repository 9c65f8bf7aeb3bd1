"""The study of brakes: its numbers on made reactions, its page, and a small run that goes all the way."""

import json
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import hydrascope as hs
from hydrascope.measures import Bootstrap
from hydrascope.prompts import ioi
from studies import brakes
from studies.brakes import numbers
from studies.brakes.ablations import Boost
from studies.brakes.page import verdicts
from studies.brakes.runs import measure_model
from studies.brakes.templates import HALVES, NEW, prompts_of
from studies.study import Study

STUDY = Study("brakes")
FEW = Bootstrap(resamples=200)


def pairs(reaction: np.ndarray, kinds: str = "head", seeds: int = 1) -> xr.Dataset:
    """Return made reactions, `[template, pair]`; candidates are `head.9.0`, `head.9.1`, …"""
    count = reaction.shape[1]
    each = count // seeds
    return xr.Dataset(
        {
            "reaction": (("prompt", "pair"), reaction),
            "removed": (("prompt", "pair"), np.ones_like(reaction)),
            "lost": (("prompt", "pair"), np.full_like(reaction, 0.5)),
        }
    ).assign_coords(
        seed=("pair", np.array([f"head.1.{place // each}" for place in range(count)], object)),
        candidate=("pair", np.array([f"head.9.{place % each}" for place in range(count)], object)),
        kind=("pair", np.array([kinds] * count, object)),
    )


def test_the_share_counts_positive_reactions_of_heads_that_write_against() -> None:
    wobble = np.linspace(-0.01, 0.01, 12)[:, None]
    made = pairs(np.array([0.6, 0.3, 0.1, -0.5]) + wobble)
    removed = {"head.9.0": -0.4, "head.9.1": 0.2, "head.9.2": -0.1, "head.9.3": 0.9}
    share = numbers._share(made, removed, "head", FEW)
    assert share[0] == pytest.approx(0.7)
    assert share[1] < 0.7 < share[2]
    assert numbers._share(made, dict.fromkeys(removed, 1.0), "head", FEW)[0] == 0
    assert numbers._share(made, removed, "", FEW) == share


def test_only_sure_and_large_reactions_are_named() -> None:
    random = np.random.default_rng(0)
    means, noise = np.array([0.6, 0.3, 0.04, 0.2]), np.array([0.02, 0.02, 0.001, 0.9])
    made = pairs(means + noise * random.standard_normal((12, 4)))
    removed = {"head.1.0": 1.0, "head.9.0": -0.4, "head.9.1": 0.2, "head.9.2": -0.1, "head.9.3": -0.9}
    named = numbers._named(made, removed, FEW)
    assert [(row["reacts"], row["side"]) for row in named] == [("head.9.0", "brake"), ("head.9.1", "substitute")]


def test_loss_of_drive_is_a_line_and_a_repairer_lies_above_it() -> None:
    writes = np.array([-0.8, -0.4, 0.0, 0.4, 0.8, 0.2, -0.2, 0.6])
    reaction = -0.5 * writes
    reaction[3] += 0.5
    made = pairs(reaction + 0.002 * np.random.default_rng(1).standard_normal((12, 8)))
    removed = {f"head.9.{place}": float(value) for place, value in enumerate(writes)}
    found = numbers._drive(made, removed, FEW)
    expected = np.polyfit(writes, reaction, 1)[0]
    assert found["slope"][0] == pytest.approx(expected, abs=0.01)
    assert [row["reacts"] for row in found["above"]] == ["head.9.3"]
    assert found["correlation"][0] == pytest.approx(np.corrcoef(writes, reaction)[0, 1], abs=0.01)


def test_boost_and_inert_seeds() -> None:
    random = np.random.default_rng(2)
    reaction = np.array([0.6, 0.3, -0.2, 0.1]) + 0.01 * random.standard_normal((12, 4))
    assert numbers._boost(pairs(reaction), pairs(-0.5 * reaction), FEW)["slope"][0] == pytest.approx(-0.5)
    removed = {"head.9.0": -0.4, "head.9.1": -0.2, "head.9.2": -0.1, "head.9.3": 0.9}
    both = pairs(np.concatenate([reaction, reaction / 2], 1), seeds=2)
    found = numbers._inert(both, pairs(reaction), removed, FEW)
    assert found["active"][0] == pytest.approx(0.9, abs=0.02)
    assert found["inert"][0] == pytest.approx(0.675, abs=0.02)  # the mean over two seeds
    assert found["ratio"][0] == pytest.approx(0.75, abs=0.01)
    assert found["by_seed"]["head.1.1"]["released"] == pytest.approx(0.45, abs=0.02)


def test_secondary_claims_are_decided_by_bounds() -> None:
    holds = {
        "named": [{"reacts": "head.9.0", "side": "brake"}, {"reacts": "mlp.9", "side": "substitute"}],
        "drive": {"slope": [-0.6, -0.7, -0.5]},
        "boost": {"slope": [-0.4, -0.5, -0.3]},
        "inert_reactions": {"ratio": [0.3, 0.2, 0.4]},
    }
    assert all(verdicts(holds).values())
    fails = {
        "named": [{"reacts": "head.9.0", "side": "substitute"}],
        "drive": {"slope": [-0.6, -0.7, 0.1]},
        "boost": {"slope": [-0.4, -0.5, 0.1]},
        "inert_reactions": {"ratio": [0.3, 0.04, 0.4]},
    }
    assert not any(verdicts(fails).values())


def test_confirmation_sentences_are_others_and_fit_the_task() -> None:
    assert not set(NEW) & set(ioi.TEMPLATES)
    assert len(set(NEW)) == 12
    for template in NEW:
        text = template.format(first="Ann", second="Ben", giver="Ben")
        assert text.endswith(" to")
        assert text.count("Ben") == 2


def test_the_page_is_rendered_from_the_stored_results() -> None:
    assert STUDY.page.read_text("utf-8") == brakes.render(STUDY.settings, STUDY.read_results())


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Any]:
    """The settings of a small study of the built-in model, and the paths of its results."""
    torch.set_num_threads(1)
    settings = STUDY.settings | {
        "models": ["built-in"],
        "prompts_each": 24,
        "prompts_all_positions": 4,
        "prompts_scored": 24,
        "kick_prompts": 24,
        "seeds": STUDY.settings["seeds"]
        | {"least_removed": -9.0, "scored": 2, "inert": {"count": 1, "most_removed": 9.0}},
        "intervals": {"resamples": 50, "confidence": 0.95, "seed": 0},
    }
    return settings, measure_model(settings, "built-in", tmp_path_factory.mktemp("stores"))


@pytest.mark.slow
def test_reactions_are_those_of_frozen_runs_by_template(measured: tuple[dict[str, Any], Any]) -> None:
    settings, stores = measured
    results = hs.open_results(stores.reactions["zero"])
    made = prompts_of("confirmation", hs.load_model("built-in"), settings["prompts_each"])
    expected = [HALVES["confirmation"].index(prompt.template) for prompt in made.prompts]
    assert numbers.templates(results).tolist() == expected
    found = numbers.reactions(results)
    assert found.sizes["prompt"] == 12
    total = results["total"].isel(readout=0, patch=0)
    for place in (0, found.sizes["pair"] // 2, found.sizes["pair"] - 1):
        seed, candidate = (str(found[name].values[place]) for name in ("seed", "candidate"))
        each = total.sel(ablated=seed).values - total.sel(ablated=f"{seed}|{candidate}").values
        means = [each[np.array(expected) == number].mean() for number in range(12)]
        assert np.allclose(found["reaction"].values[:, place], means, atol=1e-6)


@pytest.mark.slow
def test_a_small_run_goes_all_the_way(measured: tuple[dict[str, Any], Any]) -> None:
    settings, stores = measured
    results = json.loads(json.dumps(brakes.condense(settings, {"built-in": stores})))
    page = brakes.render(settings, results)
    assert "built-in" in page
    assert "nan" not in page.replace("finance", "").lower()
    assert len(brakes.draw(results).axes) == 1


def test_boost_writes_twice_as_much() -> None:
    model = hs.load_model("built-in")
    prompts = hs.load_prompts("world-facts").limit(4)
    run = hs.sweep(model, prompts, Boost(), ablate="head.10.1")
    zero = hs.sweep(model, prompts, hs.Zero(), ablate="head.10.1")
    own = run["unembed"].sel(component="attn.10")
    added = run["unembed_ablated"].sel(component="attn.10", ablated="head.10.1") - own
    taken = zero["unembed_ablated"].sel(component="attn.10", ablated="head.10.1") - own
    assert np.allclose(added, -taken, atol=1e-4)
