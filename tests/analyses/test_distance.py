"""Distances of ablated streams, by their definition, from plain passes of each prompt alone."""

import numpy as np
import pytest
import torch
from dictionaries import with_dictionary
from plain import loaded, plain_run
from rest_slow import rest_slow
from tiny import CONFIGS, shared, tolerance

import hydrascope as hs
from hydrascope.analyses.distance import FEWEST, Spread
from hydrascope.utils.errors import HydrascopeError

RANDOM = np.random.default_rng(0)
PROMPTS = [RANDOM.integers(3, 60, length).tolist() for length in RANDOM.integers(4, 9, 26)]
BLOCKS = 3


def streams_of(model, ids, changes=None) -> np.ndarray:
    """`[block, width]` the residual stream after each block at the last position, by a plain pass."""
    return plain_run(model, ids, changes).streams[1:].numpy()


def by_definition(clean: np.ndarray, after: np.ndarray, prompt: int, source: int) -> tuple[float, float, float]:
    """Relative distance, rank and kick of one stream, with loops and no shared sums."""
    others = [index for index in range(len(clean)) if index not in (prompt, source)]
    mean, deviation = clean[others].mean(0), clean[others].std(0, ddof=1)

    def far(stream: np.ndarray) -> float:
        return float((((stream - mean) / deviation) ** 2).mean())

    each = []
    for index in range(len(clean)):
        rest = np.delete(clean, index, 0)
        each.append(np.log((((clean[index] - rest.mean(0)) / rest.std(0, ddof=1)) ** 2).mean()))
    off = abs(np.log(far(after)) - np.median(each))
    rank = np.mean([abs(one - np.median(each)) >= off * (1 - 1e-6) for one in each])
    kick = (((after - clean[prompt]) / deviation) ** 2).mean() / 2
    return far(after) / far(clean[prompt]), float(rank), float(kick)


@pytest.mark.parametrize("engine", ["wavefront", "reference"])
def test_distances_are_those_of_the_definition(engine):
    model = loaded("llama")
    clean = np.stack([streams_of(model, ids) for ids in PROMPTS])
    found = hs.analyses.distance(model, PROMPTS, hs.Zero(), ablate="attn.0,mlp.1", engine=engine)
    for label in ("attn.0", "mlp.1"):
        for prompt in (0, 7, 25):
            nothing = torch.zeros(1, model.width, dtype=torch.float64)
            after = streams_of(model, PROMPTS[prompt], {label: ([len(PROMPTS[prompt]) - 1], nothing)})
            for block in range(BLOCKS):
                expected = by_definition(clean[:, block], after[block], prompt, prompt)
                at = found.sel(ablated=label, block=block + 1).isel(prompt=prompt)
                assert [float(at[name]) for name in ("relative", "rank", "kick")] == pytest.approx(expected, abs=1e-6)


def test_a_patch_leaves_its_source_out():
    model = loaded("llama")
    clean = np.stack([streams_of(model, ids) for ids in PROMPTS])
    found = hs.analyses.distance(model, PROMPTS, hs.Resample(1), ablate="mlp.2")
    run = hs.sweep(model, PROMPTS, hs.Resample(1), ablate="mlp.2")
    for prompt in (3, 11):
        source = int(run["patch_prompt"].values[prompt, 0])
        value = plain_run(model, PROMPTS[source]).values["mlp.2"][-1:]
        after = streams_of(model, PROMPTS[prompt], {"mlp.2": ([len(PROMPTS[prompt]) - 1], value)})
        expected = by_definition(clean[:, 2], after[2], prompt, source)
        at = found.sel(ablated="mlp.2", block=3).isel(prompt=prompt)
        assert [float(at[name]) for name in ("relative", "rank", "kick")] == pytest.approx(expected, abs=1e-6)
        wrong = by_definition(clean[:, 2], after[2], prompt, prompt)
        assert float(at["kick"]) != pytest.approx(wrong[2], abs=1e-9)


@pytest.mark.parametrize("case", rest_slow(CONFIGS, ("gpt2", "gpt_neox", "gemma2")))
def test_both_engines_agree_and_upstream_nothing_is_kicked(case):
    model = shared(case)
    found = hs.analyses.distance(model, PROMPTS, hs.Resample(2), ablate="attn,mlp.1,attn.0+mlp.1")
    again = hs.analyses.distance(model, PROMPTS, hs.Resample(2), ablate="attn,mlp.1,attn.0+mlp.1", engine="reference")
    for name in ("relative", "rank", "kick"):
        scale = max(1.0, float(abs(again[name]).max()))
        close = abs(found[name] - again[name]) <= 1e3 * tolerance(case) * scale
        # A rank counts prompts: one more or less is a tie that rounding decides.
        assert bool(close.all()) or (
            name == "rank" and float(abs(found[name] - again[name]).max()) < 1.5 / len(PROMPTS)
        )
    before = found["block"] < found["first_block"]
    assert float(found["kick"].where(before).max()) <= 1e3 * tolerance(case)
    assert float(found["kick"].where(found["block"] == found["first_block"]).min("prompt").min()) > 0


def test_constant_dimensions_are_left_out_and_counted():
    streams = np.random.default_rng(1).normal(size=(30, 5)) + 1e4
    streams[:, 2] = 7.0
    spread = Spread(streams)
    assert spread.constant == 1
    rest = np.delete(streams, 4, 0)[:, [0, 1, 3, 4]]
    expected = (((streams[4, [0, 1, 3, 4]] - rest.mean(0)) / rest.std(0, ddof=1)) ** 2).mean()
    assert float(spread.distance(streams[4], np.array([4, -1]))) == pytest.approx(expected, rel=1e-6)


def test_the_control_changes_as_much_in_another_direction():
    model = loaded("llama")
    clean = hs.activations(model, PROMPTS, "attn.1", keep=["activation"])["activation"].values[:, 0, 0]
    control = hs.ablations.SameSize(hs.Zero())
    changed = hs.activations(model, PROMPTS, "attn.1", ablation=control, ablate="attn.1", keep=["activation"])
    after = changed["activation_ablated"].values[:, 0, 0, 0, 0]
    np.testing.assert_allclose(np.linalg.norm(after - clean, axis=-1), np.linalg.norm(clean, axis=-1))
    cosines = (after - clean) @ -clean[0] / np.linalg.norm(after - clean, axis=-1) / np.linalg.norm(clean[0])
    assert abs(cosines).max() < 0.8
    by_one = hs.sweep(model, PROMPTS, control, ablate="attn.1", batch_size=1)
    together = hs.sweep(model, PROMPTS, control, ablate="attn.1")
    np.testing.assert_allclose(by_one["total"], together["total"], atol=1e-9)
    everywhere = [hs.sweep(model, PROMPTS, control, ablate="attn.1", at="all", batch_size=size) for size in (1, 26)]
    np.testing.assert_allclose(*(each["total"] for each in everywhere), atol=1e-9)
    other = hs.sweep(model, PROMPTS, hs.ablations.SameSize(hs.Zero(), seed=1), ablate="attn.1")
    assert float(abs(other["total"] - together["total"]).max()) > 1e-3


def test_the_control_is_a_sweep_of_random_directions():
    model, readouts = loaded("llama"), [hs.Logit(), hs.LogitDifference()]
    found = hs.analyses.distance(model, PROMPTS, hs.Resample(2), ablate="attn", readouts=readouts)
    control = hs.ablations.SameSize(hs.Resample(2))
    run = hs.sweep(model, PROMPTS, control, ablate="attn", readouts=readouts)
    for name in ("total", "direct"):
        np.testing.assert_allclose(found[f"control_{name}"], run[name].mean("patch"), atol=1e-12)
    effects = hs.measures.per_prompt(hs.sweep(model, PROMPTS, hs.Resample(2), ablate="attn", readouts=readouts))
    slopes = hs.measures.restoration_by_kick(effects, found)["control_slope"]
    expected = hs.measures.restoration(hs.measures.per_prompt(run))["restored_slope"]
    np.testing.assert_allclose(slopes, expected, rtol=1e-9)
    other = hs.measures.per_prompt(hs.sweep(model, PROMPTS, hs.Resample(2), ablate="attn", readouts=hs.Placebo(1)))
    with pytest.raises(HydrascopeError, match=r"no control read on 'placebo\.0'"):
        hs.measures.restoration_by_kick(other, found)


def test_refusals_are_one_line():
    model = loaded("llama")
    with pytest.raises(HydrascopeError, match=f"give at least {FEWEST + 2}"):
        hs.analyses.distance(model, PROMPTS[:21], hs.Zero())
    with pytest.raises(HydrascopeError, match=r"freezes mlp\.1"):
        hs.analyses.distance(model, PROMPTS, hs.Zero(), ablate="attn.0|mlp.1")


def test_terms_of_dictionaries_are_ablated_as_well():
    model = with_dictionary("llama", "mlp.1")
    found = hs.analyses.distance(model, PROMPTS, hs.Zero(), ablate="feature.mlp.1,error.mlp.1")
    assert float(found["kick"].sel(block=1).max()) <= 1e-6
    assert float(found["kick"].sel(block=3).mean()) > 1e-3


def test_restoration_by_kick_regresses_within_thirds():
    model = loaded("llama")
    found = hs.analyses.distance(model, PROMPTS, hs.Zero(), ablate="attn")
    effects = hs.measures.per_prompt(hs.sweep(model, PROMPTS, hs.Zero(), ablate="attn"))
    by_kick = hs.measures.restoration_by_kick(effects, found)
    for label in ("attn.0", "attn.1"):
        kick = found["kick"].sel(ablated=label, block=int(found["first_block"].sel(ablated=label))).values
        at = effects.data.sel(ablated=label)
        slopes = []
        for some in np.array_split(np.argsort(kick, kind="stable"), 3):
            removed, back = -at["direct"].values[some], (at["total"] - at["direct"]).values[some]
            slopes.append(np.polyfit(removed, back, 1)[0])
        measured = by_kick["restored_slope"].sel(ablated=label, bound="estimate").values
        np.testing.assert_allclose(measured, slopes, rtol=1e-6)
        rise = float(by_kick["rise"].sel(ablated=label, bound="estimate"))
        assert rise == pytest.approx(slopes[2] - slopes[0], rel=1e-6)
    other = hs.measures.per_prompt(hs.sweep(model, PROMPTS, hs.Mean(), ablate="attn"))
    with pytest.raises(HydrascopeError, match="another ablation"):
        hs.measures.restoration_by_kick(other, found)
