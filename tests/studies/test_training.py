"""The study of training against failures: its estimator on KL divergences with a known answer, its hooks, its page."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors.torch import load_file
from scipy.stats import ttest_1samp
from transformers import AutoTokenizer

import hydrascope as hs
from hydrascope.utils.assets import model_path
from studies import training
from studies.study import Study
from studies.training import estimator, trainer, verdict
from studies.training.corpus import Corpus
from studies.training.runs import Run
from studies.training.trainer import CONTROL, Branch

STUDY = Study("training")
SEEDS, ARMS, TESTS = [0, 1, 2], [CONTROL, "zeros 0.2", "swaps 0.2"], ["zero", "resample"]
#: The made change of the log KL of each arm (zeros, swaps) under each test.
MADE = {"zeros 0.2": (-0.6, -0.1), "swaps 0.2": (-0.4, -0.3)}


def divergences() -> xr.DataArray:
    """Return KL divergences with the made changes: seeds, sublayers and passages differ, arms by `MADE` alone."""
    base = np.random.default_rng(0).gamma(1.0, size=(3, 1, 2, 40, 5)) * np.array([8, 1, 1, 2, 0.5])
    kl = base * np.exp(np.array([(0.0, 0.0), *MADE.values()]))[None, ..., None, None]
    coords = {"seed": SEEDS, "arm": ARMS, "test": TESTS}
    return xr.DataArray(kl, coords, ("seed", "arm", "test", "prompt", "sublayer"))


def parts_of(kl: xr.DataArray) -> xr.Dataset:
    return estimator.parts(estimator.gain(estimator.log_kl(kl.mean("prompt"))))


def test_the_made_changes_are_found() -> None:
    found = parts_of(divergences())
    for name, expected in {"interaction": -0.4, "zeros": -0.5, "swaps_zero": -0.4, "swaps_resample": -0.3}.items():
        assert found[name].values == pytest.approx([expected] * 3), name


def test_parts_are_those_of_plain_sums() -> None:
    """Every cell changes by another factor, so that sums, means and logs can't be taken in another order."""
    kl = divergences() * np.random.default_rng(2).gamma(1.0, size=(3, 3, 2, 40, 5))
    found = parts_of(kl)
    for seed in SEEDS:
        # Over passages a mean, over sublayers a sum.
        control, zeros, swaps = ([np.log(sum(each.mean(0))) for each in arm] for arm in kl.values[seed])
        expected = (zeros[0] - control[0]) - (zeros[1] - control[1])
        assert float(found["zeros"].sel(seed=seed)) == pytest.approx(expected)
        expected -= (swaps[0] - control[0]) - (swaps[1] - control[1])
        assert float(found["interaction"].sel(seed=seed)) == pytest.approx(expected)
        assert float(found["swaps_resample"].sel(seed=seed)) == pytest.approx(swaps[1] - control[1])


def test_arms_or_tests_that_are_mixed_up_are_caught() -> None:
    kl = divergences()
    mixed = kl.assign_coords(arm=[CONTROL, *reversed(ARMS[1:])])
    assert parts_of(mixed)["interaction"].values == pytest.approx([0.4] * 3)
    # A control of other seeds is no control: seeds differ by more than arms do.
    shifted = xr.where(kl["arm"] == CONTROL, kl.roll(seed=1), kl)
    assert not np.allclose(parts_of(shifted)["swaps_zero"].values, -0.4, atol=0.02)


def test_at_equal_loss_the_way_of_the_control_is_taken_out() -> None:
    """The control's log KL is 2 − 3 · loss; one arm lies on that line, one 0.5 below, one beyond the control's end."""
    way_loss = xr.DataArray([[3.0, 2.0, 1.0]], {"seed": [0], "step": [0, 1, 2]}, ("seed", "step"))
    way = (2 - 3 * way_loss).expand_dims(test=TESTS)
    loss = xr.DataArray([[1.0, 1.5, 1.25, 0.5]], {"seed": [0], "arm": [*ARMS, "far"]}, ("seed", "arm"))
    logs = (2 - 3 * loss - xr.DataArray([0, 0, 0.5, 0], {"arm": loss["arm"]})).expand_dims(test=TESTS, axis=-1)
    found = estimator.at_equal_loss(logs, loss, way, way_loss)
    assert found.sel(seed=0, test="zero").values == pytest.approx([0, 0, -0.5, 1.5])


def test_bounds_over_seeds_are_those_of_t() -> None:
    values = np.array([-0.3, -0.5, -0.1])
    (mean, low, high), p = estimator.over_seeds(values)
    expected = ttest_1samp(values, 0)
    assert (mean, p) == pytest.approx((values.mean(), expected.pvalue))
    assert (low, high) == pytest.approx(tuple(expected.confidence_interval()))
    assert verdict.p_below(values.tolist()) == pytest.approx(ttest_1samp(values, 0, alternative="less").pvalue)


def test_a_loud_passage_is_found_and_left_out() -> None:
    kl = divergences()
    assert estimator.held_by_loudest(kl) < 1 / 3
    kl.loc[{"arm": "zeros 0.2", "test": "zero", "prompt": 7}] = 1e4
    assert estimator.held_by_loudest(kl) > 0.9
    assert parts_of(kl)["interaction"].min() > 0
    without = estimator.parts(estimator.gain(estimator.log_kl(estimator.without_loudest(kl))))
    assert without["interaction"].values == pytest.approx([-0.4] * 3)
    blocks = estimator.parts(estimator.gain(estimator.log_kl(estimator.by_block(kl))))["interaction"]
    assert float(blocks.mean("seed").median()) == pytest.approx(-0.4)


def test_pooled_slopes_have_an_intercept_for_each_sublayer() -> None:
    random = np.random.default_rng(1)
    x, y = random.standard_normal((2, 30, 4)) + np.array([0, 5, -3, 1])
    design = np.concatenate([x.reshape(-1, 1), np.tile(np.eye(4), (30, 1))], 1)
    expected = np.linalg.lstsq(design, y.ravel(), rcond=None)[0][0]
    x, y = (xr.DataArray(each, dims=("prompt", "sublayer")) for each in (x, y))
    assert estimator.pooled_slope(x, y) == pytest.approx(expected)


def numbers(interaction: list[float], equal: float = -0.2, hold: float = 0.2, without: float = -0.2) -> dict[str, Any]:
    """Return numbers that claims are decided by: all parts but the interaction lie below 0."""

    def of(seeds: list[float]) -> dict[str, Any]:
        bounds, p = estimator.over_seeds(np.array(seeds))
        return {"seeds": seeds, "bounds": bounds, "p": p}

    below = of([-0.5, -0.51, -0.49])
    arms = ["zeros 0.2", "swaps 0.2", "zeros 0.1"]
    tests = ("zero", "mean", "resample", "zero, all positions")
    effects = {arm: [1.0, 1.1, 1.3] if arm == CONTROL else [0.5, 0.7, 0.6] for arm in (CONTROL, *arms)}
    logs = {CONTROL: [0.0] * 3, "zeros 0.1": [-0.2] * 3, "zeros 0.2": [-0.3, -0.3, -0.1]}
    return {
        "parts": {"interaction": of(interaction), **dict.fromkeys(("zeros", "swaps_zero", "swaps_resample"), below)},
        "parts_at_equal_loss": {"interaction": of([equal, equal * 1.1, equal])},
        "loudest": {"hold": hold, "without": without, "blocks": -0.1},
        "gain": {test: dict.fromkeys(arms, below) for test in tests},
        "equal_loss": {test: {arm: [-0.1, -0.12, -0.11] for arm in arms} for test in tests},
        "effects": dict.fromkeys(("lost, zero", "lost, resample", "damping", "slope"), effects),
        "loss": dict.fromkeys((CONTROL, *arms), [4.0] * 3),
        "log_kl": {"zero": logs, "resample": logs},
    }


def test_verdicts_follow_the_declared_rule() -> None:
    def outcome(*args: Any) -> str:
        return str(verdict.judge(STUDY.settings, numbers(*args))["outcome"])

    sure = [-0.3, -0.31, -0.29]
    assert outcome(sure) == "holds"
    assert outcome([-0.3, -0.9, -0.01]) == "can't tell"
    assert outcome([0.3, 0.31, 0.29], 0.2) == "refuted"
    assert outcome([0.3, 0.31, 0.29], -0.2) == "can't tell"
    assert outcome(sure, -0.2, 0.5, 0.1) == "can't tell"
    assert outcome(sure, -0.2, 0.2, 0.1) == "holds"
    found = verdict.judge(STUDY.settings, numbers(sure))["secondary"]
    assert found["zeros_lost"]["holds"]
    assert not found["damping"]["holds"]
    # In the last seed the KL rises from the lower dose to the higher one.
    assert not found["dose_zeros"]["holds"]
    assert not {"dose_swaps", "dropout", "natural"} & found.keys()


def small(corpus: Corpus) -> dict[str, Any]:
    """Return the settings of a small study."""
    arms = {name: STUDY.settings["arms"][name] for name in ARMS}
    shape = {"layers": 2, "width": 32, "heads": 2, "mlp": 64, "vocabulary": len(corpus.tokenizer), "tied": True}
    return STUDY.settings | {
        "arms": arms,
        "shape": shape,
        "seeds": [0, 1],
        "batch": 4,
        "steps": {"trunk": 20, "branch": 20, "warmup": 5, "decay": 10},
        "kept": [10],
        "halves": {"explored_before": 12, "rule": "r", "passages": {"exploration": 12, "confirmation": 24}},
        "patches": 3,
        "intervals": {"resamples": 50, "confidence": 0.95, "seed": 0},
    }


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    """Return a corpus of shipped passages, with the tokenizer of the built-in model."""
    torch.set_num_threads(1)
    texts = [prompt.text for prompt in hs.load_prompts("passages").prompts]
    bpe = AutoTokenizer.from_pretrained(model_path("built-in"))
    ids = [token for row in bpe(texts[200:500])["input_ids"] for token in row]
    blocks = np.array(ids[: len(ids) // 32 * 32]).reshape(-1, 32)
    return Corpus(bpe, blocks, texts[500:530], {"documents": 300, "tokens": blocks.size, "sha256": "0" * 64})


@torch.no_grad()
def test_failures_happen_while_training_at_the_same_places(corpus: Corpus) -> None:
    settings, tokens = small(corpus), torch.from_numpy(corpus.blocks[:4])
    clean, zeros, swaps, none = (
        trainer.make_llama(settings, corpus, 0, arm)
        for arm in ({}, {"left_out": 0.2}, {"swapped": 0.2}, {"left_out": 1.0})
    )

    def writes(llama: Any) -> torch.Tensor:
        kept: list[torch.Tensor] = []
        layer = llama.model.layers[0].self_attn.o_proj
        handle = layer.register_forward_hook(lambda module, inputs, output: kept.append(output))
        torch.manual_seed(5)
        llama(tokens)
        handle.remove()
        return kept[0]

    plain = writes(clean.eval())
    assert torch.equal(writes(zeros.eval()), plain)
    zeroed, swapped = writes(zeros.train()), writes(swaps.train())
    failed = (zeroed == 0).all(-1)
    assert 0.1 < failed.float().mean() < 0.3
    assert torch.equal(zeroed, plain * ~failed[..., None])
    assert torch.equal(swapped, torch.where(failed[..., None], plain.roll(1, 0), plain))
    bare = none.lm_head(none.model.norm(none.model.embed_tokens(tokens)))
    assert torch.equal(none.train()(tokens).logits, bare)


def test_rates_and_batches_are_those_of_the_settings(corpus: Corpus) -> None:
    settings = small(corpus)
    rates = [trainer.rate_at(settings, step) / settings["rate"] for step in range(40)]
    assert rates[:6] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1])
    assert rates[19:31] == pytest.approx([1] * 12)
    assert rates[31:] == pytest.approx(np.arange(0.9, 0, -0.1))
    assert trainer.rate_at(settings, 20, 3) == pytest.approx(3 * settings["rate"])
    assert trainer.rate_at(settings, 19, 3) == pytest.approx(settings["rate"])
    batches = trainer.batches_of(settings, corpus, 1)
    assert batches.shape == (40, 4, 32)
    assert len(np.unique(batches.reshape(160, 32), axis=0)) == 160
    assert not np.array_equal(batches, trainer.batches_of(settings, corpus, 0))


Measured = tuple[dict[str, Any], dict[Run, Path], Path]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, corpus: Corpus) -> Measured:
    """Return the settings of a small study, the paths of its results, and the folder of its models."""
    settings, stores = small(corpus), tmp_path_factory.mktemp("stores")
    corpus.write(stores / "corpus")
    prompts = {"passages": hs.load_prompts("passages").limit(80)}
    return settings, training.measure(settings, prompts, stores), stores


@pytest.mark.slow
def test_a_small_run_goes_all_the_way(measured: Measured) -> None:
    settings, paths, _ = measured
    results = json.loads(json.dumps(training.condense(settings, paths)))
    page = training.render(settings, results)
    assert "| zeros 0.2 |" in page
    assert "nan" not in page.lower()
    assert len(training.draw(results).axes) == 3
    # Where it has its own loss the control is itself.
    assert results["equal_loss"]["zero"][CONTROL] == [0, 0]


@pytest.mark.slow
def test_a_training_that_is_interrupted_ends_the_same(
    measured: Measured, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, _, stores = measured
    branch = Branch(1, "swaps 0.2")
    (tmp_path / "models").mkdir()
    Branch(1).at(tmp_path).symlink_to(Branch(1).at(stores))
    write = trainer.write_state

    def stop(llama: Any, optimizer: Any, step: int, path: Path) -> None:
        write(llama, optimizer, step, path)
        raise InterruptedError

    monkeypatch.setattr(trainer, "_EVERY", 9)
    monkeypatch.setattr(trainer, "write_state", stop)
    for _ in range(2):
        with pytest.raises(InterruptedError):
            trainer.train(settings, corpus, branch, tmp_path)
    monkeypatch.setattr(trainer, "write_state", write)
    trainer.train(settings, corpus, branch, tmp_path)
    whole, resumed = (load_file(branch.at(folder) / "state.safetensors") for folder in (stores, tmp_path))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.slow
@torch.no_grad()
def test_divergences_are_those_of_plain_hooks(measured: Measured) -> None:
    """Set one sublayer to zero at the last token by a hook, one passage at a time, in float64."""
    _, paths, stores = measured
    stored, texts = np.load(paths[Run(0, "zeros 0.2", "zero")]), hs.load_prompts("passages").prompts[13:17:2]
    model = hs.load_model(str(Branch(0, "zeros 0.2").model(stores)), dtype="float64")
    llama = model.hf

    def ablate(module: Any, inputs: Any, output: Any) -> Any:
        value = (output[0] if isinstance(output, tuple) else output).clone()
        value[:, -1] = 0
        return (value, *output[1:]) if isinstance(output, tuple) else value

    for place, (label, part) in enumerate([("attn.1", "self_attn"), ("mlp.0", "mlp")]):
        tokens = model.tokenizer(texts[place].text, return_tensors="pt")["input_ids"]
        clean = llama(tokens).logits[0, -1].log_softmax(-1)
        handle = getattr(llama.model.layers[int(label[-1])], part).register_forward_hook(ablate)
        ablated = llama(tokens).logits[0, -1].log_softmax(-1)
        handle.remove()
        expected = float((clean.exp() * (clean - ablated)).sum())
        found = stored["kl"][place, stored["sublayer"].tolist().index(label)]
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-6), label


def test_the_page_is_rendered_from_the_stored_results() -> None:
    assert STUDY.page.read_text("utf-8") == training.render(STUDY.settings, STUDY.read_results())
