"""Optimal ablation: constants fitted on one half of the prompts, measured on the other."""

import numpy as np
import pytest
import torch
from plain import loaded, plain_run

import hydrascope as hs
from hydrascope.ablations.fit import CHOOSES, Half, minimise, run_halves
from hydrascope.components.component import Component
from hydrascope.runs import sweep as sweeping
from hydrascope.runs.batches import compute_clean_activations, measure_chunks
from hydrascope.runs.config import SweepConfig
from hydrascope.runs.plan import make_plan
from hydrascope.storage.reader import split_range
from hydrascope.utils.errors import HydrascopeError

RANDOM = np.random.default_rng(0)
PROMPTS = [RANDOM.integers(3, 60, length).tolist() for length in RANDOM.integers(4, 9, 20)]
EXACT = {"rel": 1e-7, "abs": 1e-9}


def clean_of(model, prompts=PROMPTS, ablation=None, ablate="layers", at="last"):
    """Return the clean activations of a run."""
    plan = make_plan(model, prompts, ablation or hs.Optimal(), SweepConfig(ablate=ablate, at=at))
    batch = plan.batch("auto")
    return compute_clean_activations(plan, batch, split_range(len(plan.tokens), batch.prompts * 4))


def plain_kl(model, ids, label, vector, at="last") -> float:
    """KL of one prompt by plain passes of it alone."""
    places = [len(ids) - 1] if at == "last" else list(range(len(ids)))
    clean = plain_run(model, ids).logits.log_softmax(-1)
    ablated = plain_run(model, ids, {label: (places, vector)}).logits.log_softmax(-1)
    return float((clean.exp() * (clean - ablated)).sum())


def halves_of(ablation):
    second = ablation.second_half(len(PROMPTS))
    return np.flatnonzero(~second), np.flatnonzero(second)


@pytest.mark.parametrize("at", ["last", "all"])
@pytest.mark.parametrize("label", ["attn.1", "mlp.0", "head.1.2"])
def test_losses_are_those_of_plain_passes(label, at):
    model, ablation = loaded("llama"), hs.Optimal(steps=3)
    fit = ablation.fit(clean_of(model, ablate=label, at=at), Component.parse(label))
    halves = halves_of(ablation)
    for own, other in ((0, 1), (1, 0)):
        ablated = slice(None) if at == "all" else slice(-1, None)
        values = [plain_run(model, PROMPTS[index], units=[label]).values[label][ablated] for index in halves[own]]
        mean = torch.cat(values).mean(0)
        for number, vector in enumerate((fit.vectors[own], torch.zeros_like(mean), mean)):
            inside = [plain_kl(model, PROMPTS[index], label, vector, at) for index in halves[own]]
            outside = [plain_kl(model, PROMPTS[index], label, vector, at) for index in halves[other]]
            assert fit.inside[own, number] == pytest.approx(np.mean(inside), **EXACT)
            assert fit.outside[halves[other], number].tolist() == pytest.approx(outside, **EXACT)


def test_a_run_writes_the_other_halfs_vector():
    model, ablation = loaded("llama"), hs.Optimal(steps=3)
    run = hs.sweep(model, PROMPTS, ablation, ablate="attn.1,mlp.1", metrics=["kl"])
    assert run["patch_prompt"].values.tolist() == [[-1]] * len(PROMPTS)
    measured = run["metric_ablated"].sel(metric="kl").isel(patch=0)
    stored = run["optimal_loss"].sel(written="optimal").rename(fitted="ablated")
    assert np.allclose(measured, stored.transpose("prompt", "ablated"), atol=1e-8)
    fit = ablation.fit(clean_of(model, ablate="attn.1,mlp.1"), Component.parse("mlp.1"))
    swapped = [
        plain_kl(model, ids, "mlp.1", fit.vectors[int(second)])
        for ids, second in zip(PROMPTS, ablation.second_half(len(PROMPTS)), strict=True)
    ]
    assert not np.allclose(measured.sel(ablated="mlp.1"), swapped, atol=1e-6)


def test_no_prompt_has_a_part_in_its_own_vector():
    model, ablation = loaded("llama"), hs.Optimal(steps=3)
    first, _ = halves_of(ablation)
    changed = list(PROMPTS)
    changed[first[0]] = [5, 6, 7, 8, 9]
    before, after = (
        ablation.fit(clean_of(model, prompts, ablate="mlp.1"), Component.parse("mlp.1"))
        for prompts in (PROMPTS, changed)
    )
    assert torch.equal(before.vectors[1], after.vectors[1])  # of the half without the prompt
    assert not torch.equal(before.vectors[0], after.vectors[0])


@pytest.mark.parametrize("label", ["attn.0", "mlp.1", "head.0.3"])
def test_never_worse_than_zero_and_mean_on_the_prompts_that_choose(label):
    model, ablation = loaded("gpt2"), hs.Optimal()
    fit = ablation.fit(clean_of(model, ablate=label), Component.parse(label))
    for half, vector in zip(halves_of(ablation), fit.vectors, strict=True):
        mean = torch.stack([plain_run(model, PROMPTS[i], units=[label]).values[label][-1] for i in half]).mean(0)
        chosen = half[::CHOOSES]
        best, *others = (
            np.mean([plain_kl(model, PROMPTS[index], label, each) for index in chosen])
            for each in (vector, torch.zeros_like(mean), mean)
        )
        assert best <= min(others) + 1e-9


def test_the_fit_reaches_a_minimum():
    """End where the loss is flat, if the prompts that choose also move the vector."""
    model = loaded("llama")
    clean, component = clean_of(model, ablate="mlp.0"), Component.parse("mlp.0")
    half, _ = run_halves(clean, hs.Optimal().second_half(len(PROMPTS)))
    both = Half(half.prompts, half.moving, half.moving)
    mean = clean.own_activations(component, half.prompts.tolist())[:, 0, 0].mean(0)

    def steepness(vector):
        leaf = vector.clone().requires_grad_()
        sum(batch.losses("kl", component, leaf).sum() for batch in half.moving).backward()
        return float(leaf.grad.norm())

    best = minimise(both, component, mean, "kl", steps=100)
    assert steepness(best) < 1e-3 * min(steepness(mean), steepness(torch.zeros_like(mean)))


def test_squared_needs_two_prompts_for_each_number():
    model = loaded("llama")
    with pytest.raises(HydrascopeError, match="which 10 prompts of a half can't settle by squared changes"):
        hs.sweep(model, PROMPTS, hs.Optimal(loss="squared"), ablate="mlp.0")
    run = hs.sweep(model, PROMPTS, hs.Optimal(loss="squared", steps=3), ablate="neuron.1.2")
    lost = run["total"].isel(readout=0, patch=0).values[:, 0]
    assert np.allclose(run["optimal_loss"].sel(written="optimal").values[0], lost**2, atol=1e-8)


@pytest.mark.parametrize(
    ("ablation", "prompts", "message"),
    [
        (hs.Optimal(), PROMPTS[:9], "^optimal ablation fits on one half .* give at least 10 prompts, not 9$"),
        (hs.Optimal(loss="l2"), PROMPTS, "^there is no loss 'l2': give kl or squared$"),
        (hs.Optimal(steps=0), PROMPTS, "^0 steps: ask for at least one$"),
        (hs.Optimal(seed=-1), PROMPTS, "^-1 seed: give a number from 0 on$"),
    ],
)
def test_bad_settings_are_refused_before_any_pass(ablation, prompts, message, monkeypatch):
    model = loaded("llama")
    monkeypatch.setattr(type(model), "measuring", None)  # any pass would fail
    with pytest.raises(HydrascopeError, match=message):
        make_plan(model, prompts, ablation, SweepConfig(ablate="mlp.0")).require_drawable()


@pytest.mark.parametrize("at", ["last", "0,-1", "all"])
def test_batches_and_engines_change_nothing(at):
    """The vectors are fitted on all prompts together, whatever is measured together."""
    model = loaded("gpt2")
    options = {"ablate": "attn.1,head.0.1", "at": at}
    expected = hs.sweep(model, PROMPTS, hs.Optimal(steps=2), batch_size=1, **options)
    for other in ({"batch_size": "auto"}, {"engine": "reference"}):
        found = hs.sweep(model, PROMPTS, hs.Optimal(steps=2), **options, **other)
        for name in ("total", "direct", "optimal_loss"):
            assert np.allclose(found[name], expected[name], atol=1e-7), (name, other)


def test_a_run_says_that_it_fits_first():
    plan = make_plan(loaded("llama"), PROMPTS, hs.Optimal(), SweepConfig(ablate="mlp.0"))
    assert plan.describe[-1] == hs.Optimal.notice
    assert hs.Optimal.notice not in make_plan(loaded("llama"), PROMPTS, hs.Zero(), SweepConfig(ablate="mlp.0")).describe


def test_a_resumed_run_gives_the_same_bits(tmp_path, monkeypatch):
    model, ablation = loaded("llama"), hs.Optimal(steps=3)
    options = {"ablate": "attn", "batch_size": 1, "resume": True}
    whole = hs.sweep(model, PROMPTS, ablation, out=tmp_path / "whole.zarr", **options)

    def first_chunk(*arguments):
        yield next(measure_chunks(*arguments))
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(sweeping, "measure_chunks", first_chunk)
        with pytest.raises(KeyboardInterrupt):
            hs.sweep(model, PROMPTS, ablation, out=tmp_path / "part.zarr", **options)
    again = hs.sweep(model, PROMPTS, ablation, out=tmp_path / "part.zarr", **options)
    for name in ("total", "direct", "optimal_loss", "optimal_loss_inside"):
        assert np.array_equal(whole[name], again[name]), name


def test_results_say_against_what_it_is_better():
    model = loaded("llama")
    run = hs.sweep(model, PROMPTS, hs.Optimal(steps=2), ablate="attn")
    found = hs.measures.optimal_against(run)
    losses = run["optimal_loss"]
    for against in ("zero", "mean"):
        gain = (losses.sel(written=against) - losses.sel(written="optimal")).mean("prompt")
        assert np.allclose(found["gain"].sel(bound="estimate", against=against), gain)
    assert np.allclose(found["loss"].sel(bound="estimate"), losses.mean("prompt"))
    better = replace_losses(run, optimal=0.0, others=1.0)
    worse = replace_losses(run, optimal=1.0, others=1.0)
    assert not any("fitted constants" in each for each in hs.reports.summarise(better).warnings)
    assert any("fitted constants of 3 of 3 components" in each for each in hs.reports.summarise(worse).warnings)
    with pytest.raises(HydrascopeError, match="hold no fitted constants"):
        hs.measures.optimal_against(hs.sweep(model, PROMPTS, hs.Zero(), ablate="attn"))


def replace_losses(run, optimal: float, others: float):
    """Return results with other losses, which vary a little over prompts."""
    wobble = np.linspace(0, 1e-3, run.sizes["prompt"])[None, :, None]
    level = np.array([optimal, others, others])[None, None]
    values = np.broadcast_to(level + wobble * np.array([1, 2, 1]), run["optimal_loss"].shape)
    return run.assign(optimal_loss=(run["optimal_loss"].dims, values))
