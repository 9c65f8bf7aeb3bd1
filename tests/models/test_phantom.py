"""The phantom: what is known of it is read back, by both engines, in both widths, through to the verdict."""

import json

import numpy as np
import pytest
import torch
import xarray as xr
from typer.testing import CliRunner

import hydrascope as hs
from hydrascope import measures
from hydrascope.cli.app import app
from hydrascope.measures import Bootstrap
from hydrascope.models import phantom
from hydrascope.reports import summarise

RESTORED = sum(phantom.BACKUPS.values())
#: The norms' scale isn't quite constant.
NORM = 2e-3


@pytest.fixture(scope="module")
def results():
    """Every sublayer ablated on all prompts; heads read, too."""
    return hs.sweep(hs.load_model("phantom"), hs.load_prompts("phantom"), read="heads")


def test_it_knows_every_colour():
    model, prompts = hs.load_model("phantom"), hs.load_prompts("phantom")
    assert len(prompts.prompts) == 240
    results = hs.sweep(model, prompts, hs.Zero(), ablate=phantom.SOURCE)
    assert [str(text) for text in results["target_text"].values] == [prompt.answer for prompt in prompts.prompts]


@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)])
@pytest.mark.parametrize("engine", ["wavefront", pytest.param("reference", marks=pytest.mark.slow)])
@pytest.mark.parametrize("ablation", [hs.Resample(5), hs.Zero(), hs.Mean(), hs.Counterfactual()])
def test_shares_are_read_back_on_every_prompt(engine, dtype, ablation):
    """Not only on average: each watcher restores its share of what is removed, prompt by prompt and patch by patch."""
    model, prompts = hs.load_model("phantom", dtype=dtype), hs.load_prompts("phantom").limit(20)
    results = hs.sweep(
        model,
        prompts,
        ablation,
        ablate=[phantom.SOURCE, phantom.UNWATCHED],
        read="heads",
        engine=engine,
        keep="patches",
    )
    responses = (results["unembed_ablated_by_patch"] - results["unembed"]).isel(readout=0).sel(ablated=phantom.SOURCE)
    removed = -results["direct"].isel(readout=0)
    doubt = results["text"].str.startswith("perhaps")
    for name, share in phantom.BACKUPS.items():
        gain = xr.where(doubt, 0.8, 1.2) if name == "head.4.1" else 1.0
        expected = share * gain * removed.sel(ablated=phantom.SOURCE)
        assert abs(responses.sel(component=name) - expected).max() < NORM * abs(removed).max()
    # Nobody watches the other: what it removes is lost.
    lost = -results["total"].isel(readout=0).sel(ablated=phantom.UNWATCHED)
    assert abs(lost - removed.sel(ablated=phantom.UNWATCHED)).max() < NORM * abs(removed).max()


def test_the_verdict_reads_it_back(results):
    found = summarise(results)
    attention, mlp = found.verdicts
    assert attention.answer == "yes"
    assert attention.component == phantom.SOURCE
    for value, share in (
        (attention.restored, RESTORED),
        (attention.slope, RESTORED),
        (attention.attention, phantom.BACKUPS["head.4.1"]),
    ):
        assert value.low < share < value.high
        assert value.high - value.low < 0.1
    # These two restore the same on every prompt: their intervals are points.
    assert attention.mlp.estimate == pytest.approx(phantom.BACKUPS["mlp.3"] + phantom.BACKUPS["mlp.5"], abs=NORM)
    assert attention.norm.estimate == pytest.approx(0, abs=NORM)
    responders = {each.name: each.response.estimate for each in attention.responders}
    assert list(responders)[:2] == ["attn.4", "head.4.1"] or list(responders)[:2] == ["head.4.1", "attn.4"]
    assert responders["mlp.3"] == pytest.approx(phantom.BACKUPS["mlp.3"], abs=NORM)
    assert responders["mlp.5"] == pytest.approx(phantom.BACKUPS["mlp.5"], abs=NORM)
    # mlp.3 writes for the answer, and nobody watches it.
    assert mlp.answer == "no"


def test_the_erasing_mlp_is_told_from_the_one_that_writes_more(results):
    effects = measures.per_prompt(results)
    erased = measures.erasure(effects, phantom.SOURCE, bootstrap=Bootstrap(100)).sel(bound="estimate")
    unembed = erased["unembed"].to_pandas()
    assert unembed["mlp.5"] < 0 < unembed["mlp.3"]
    assert float(erased["attenuated"]) == 1


@pytest.mark.slow
def test_its_own_values_change_nothing_and_nothing_is_restored():
    class Own:
        """Each component's own clean value: an ablation that ablates nothing."""

        patches = 1

        def draw(self, clean, prompts):
            return hs.ablations.Patches(
                np.array(prompts)[:, None], lambda component: clean.own_activations(component, prompts)
            )

    results = hs.sweep(hs.load_model("phantom"), hs.load_prompts("phantom").limit(40), Own())
    assert abs(results["total"]).max() < 1e-5
    assert {verdict.answer for verdict in summarise(results).verdicts} <= {"no"}


@pytest.mark.slow
def test_from_the_command_line_to_the_verdict(tmp_path):
    out, run = str(tmp_path / "phantom.zarr"), CliRunner()
    made = run.invoke(app, ["run", "phantom", "--prompts", "phantom", "--out", out], catch_exceptions=False)
    assert made.exit_code == 0
    told = run.invoke(app, ["summary", out, "--format", "json"], catch_exceptions=False)
    verdict = json.loads(told.stdout)["verdicts"][0]
    assert verdict["answer"] == "yes"
    assert verdict["restored"]["low"] < RESTORED < verdict["restored"]["high"]
    text = run.invoke(app, ["summary", out], catch_exceptions=False).stdout
    assert "of what that takes from the answer comes back." in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 80


def test_it_is_the_same_on_every_call():
    first, second = phantom.model().state_dict(), phantom.model().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert hs.load_prompts("phantom").hash == hs.load_prompts("phantom").hash
