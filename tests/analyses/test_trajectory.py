"""Trajectories: each stored result is a plain sweep of its checkpoint, on one target for all."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from tiny import save_tiny
from transformers import AutoTokenizer

import hydrascope as hs
from hydrascope.analyses.trajectory import Checkpoint, trajectory
from hydrascope.utils.errors import HydrascopeError

PROMPTS = ["the cat", "no", "Hello, world", "abc", "xyz."]
TWO = hs.Resample(2)


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three checkpoints, whose likeliest tokens differ."""
    folder = tmp_path_factory.mktemp("steps")
    return [save_tiny(folder / f"step{seed}", seed=seed) for seed in (1, 2, 3)]


def likeliest(folder: Path) -> list[int]:
    """The likeliest next token of every prompt, by transformers alone."""
    model = hs.load_model(folder)
    with torch.no_grad():
        return [int(model.hf(torch.tensor([model.encode(text)])).logits[0, -1].argmax()) for text in PROMPTS]


def answered(folder: Path) -> list[hs.Prompt]:
    return [hs.Prompt(text, token) for text, token in zip(PROMPTS, likeliest(folder), strict=True)]


def same_numbers(found: xr.Dataset, expected: xr.Dataset) -> None:
    assert set(found.data_vars) == set(expected.data_vars)
    for name in expected.data_vars:
        np.testing.assert_array_equal(found[name].values, expected[name].values, err_msg=str(name))


def test_results_are_plain_sweeps_at_the_last_checkpoints_targets(steps: list[Path], tmp_path: Path) -> None:
    paths = trajectory(steps, PROMPTS, TWO, out=tmp_path / "t")
    assert list(paths) == ["step1", "step2", "step3"]
    assert likeliest(steps[0]) != likeliest(steps[2])  # else the test would show nothing
    for step, path in zip(steps, paths.values(), strict=True):
        assert path == tmp_path / "t" / f"{step.name}.zarr"
        found = hs.open_results(path)
        assert found["target"].values.tolist() == likeliest(steps[2])
        assert found.attrs["prompts"] == "prompts answered by step3"
        expected = hs.sweep(hs.load_model(step), answered(steps[2]), TWO, target="answer", keep="means")
        same_numbers(found, expected)


def test_answers_of_the_prompts_come_first(steps: list[Path], tmp_path: Path) -> None:
    own = [hs.Prompt(text, 9) for text in PROMPTS]
    paths = trajectory(steps[:2], own, TWO, out=tmp_path / "t")
    for path in paths.values():
        found = hs.open_results(path)
        assert found["target"].values.tolist() == [9] * 5
        assert found.attrs["prompts"] == "prompts"


@pytest.mark.slow
@pytest.mark.parametrize("target", ["argmax", 7])
def test_another_target_is_taken_as_by_a_sweep(steps: list[Path], tmp_path: Path, target: int) -> None:
    paths = trajectory(steps[:2], PROMPTS, TWO, out=tmp_path / "t", target=target)
    for step, path in zip(steps, paths.values(), strict=False):
        same_numbers(hs.open_results(path), hs.sweep(hs.load_model(step), PROMPTS, TWO, target=target, keep="means"))


@pytest.mark.slow
def test_prompts_of_the_same_tokens_count_once(steps: list[Path], tmp_path: Path) -> None:
    model = hs.load_model(steps[0])
    twice = [*PROMPTS[:2], model.encode(PROMPTS[0]), *PROMPTS[2:]]
    paths = trajectory(steps, twice, TWO, out=tmp_path / "t")
    assert hs.open_results(paths["step1"])["target"].values.tolist() == likeliest(steps[2])


def test_an_interrupted_trajectory_goes_on_and_measures_nothing_twice(
    steps: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trajectory(steps, PROMPTS, TWO, out=tmp_path / "whole", batch_size=1)
    from hydrascope.runs import sweep

    measure, chunks = sweep.measure_chunks, []

    def some(*arguments, **keywords):
        for chunk in measure(*arguments, **keywords):
            if len(chunks) == stop:
                raise KeyboardInterrupt
            chunks.append(chunk.start)
            yield chunk

    monkeypatch.setattr(sweep, "measure_chunks", some)
    # A chunk is four prompts: step3, measured first, has two of them, and step1 is stopped within.
    stop = 3
    with pytest.raises(KeyboardInterrupt):
        trajectory(steps, PROMPTS, TWO, out=tmp_path / "t", batch_size=1)
    assert hs.open_results(tmp_path / "t" / "step3.zarr").attrs["measured"] == 5
    assert hs.open_results(tmp_path / "t" / "step1.zarr").attrs["measured"] == 4
    assert not (tmp_path / "t" / "step2.zarr").exists()
    stop = 100
    paths = trajectory(steps, PROMPTS, TWO, out=tmp_path / "t", batch_size=1)
    assert chunks == [0, 4, 0, 4, 0, 4]
    for label, path in paths.items():
        same_numbers(hs.open_results(path), hs.open_results(whole[label]))
    assert trajectory(steps, PROMPTS, TWO, out=tmp_path / "t", batch_size=1) == paths
    assert len(chunks) == 6


def test_other_settings_than_those_stored_are_refused(steps: list[Path], tmp_path: Path) -> None:
    trajectory(steps[:1], PROMPTS, TWO, out=tmp_path / "t")
    with pytest.raises(HydrascopeError, match=r"checkpoint step1: cannot resume .*ablation was 'resample', now 'zero'"):
        trajectory(steps[:1], PROMPTS, hs.Zero(), out=tmp_path / "t")


def test_another_tokenizer_is_refused_before_it_is_measured(steps: list[Path], tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(steps[0], other)
    text = (other / "tokenizer.json").read_text()
    (other / "tokenizer.json").write_text(text.replace('"a":4', '"a":0').replace('"a": 4', '"a": 0'))
    assert AutoTokenizer.from_pretrained(other)("a")["input_ids"] == [0]
    with pytest.raises(HydrascopeError, match="checkpoint other: its tokenizer splits the prompts or answers"):
        trajectory([other, steps[1]], PROMPTS, TWO, out=tmp_path / "t")
    assert [path.name for path in (tmp_path / "t").glob("*.zarr")] == ["step2.zarr"]


def test_another_network_is_refused(steps: list[Path], tmp_path: Path) -> None:
    short = save_tiny(tmp_path / "short", "gpt2")
    deeper = hs.load_model(short).hf.config
    deeper.n_layer = 2
    type(hs.load_model(short).hf)(deeper).save_pretrained(short)
    with pytest.raises(HydrascopeError, match="checkpoint short: it has other components than step1"):
        trajectory([short, steps[0]], PROMPTS, TWO, out=tmp_path / "t")


def test_a_damaged_checkpoint_is_named_and_the_others_stay(steps: list[Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(steps[0], broken)
    (broken / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(HydrascopeError, match=r"checkpoint broken: .*broken") as error:
        trajectory([steps[1], broken, steps[2]], PROMPTS, TWO, out=tmp_path / "t")
    assert "\n" not in str(error.value)
    kept = sorted(path.name for path in (tmp_path / "t").glob("*.zarr"))
    assert kept == ["step2.zarr", "step3.zarr"]
    assert hs.open_results(tmp_path / "t" / "step2.zarr").attrs["measured"] == len(PROMPTS)


def test_equal_labels_are_refused(steps: list[Path], tmp_path: Path) -> None:
    with pytest.raises(HydrascopeError, match="two checkpoints are called step1"):
        trajectory([steps[0], f"{steps[0]}/"], PROMPTS, out=tmp_path / "t")
    with pytest.raises(HydrascopeError, match="give a list"):
        trajectory(str(steps[0]), PROMPTS, out=tmp_path / "t")
    assert not (tmp_path / "t").exists()


def test_a_difference_to_runners_up_is_refused(steps: list[Path], tmp_path: Path) -> None:
    with pytest.raises(HydrascopeError, match="each checkpoint's own runner-up"):
        trajectory(steps[:2], PROMPTS, out=tmp_path / "t", readouts=hs.LogitDifference())


def test_labels_are_folders_or_revisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a@b").mkdir()
    monkeypatch.chdir(tmp_path / "a@b")
    assert Checkpoint.of(tmp_path / "a@b" / "") == Checkpoint("a@b", str(tmp_path / "a@b"), None)
    assert Checkpoint.of(".").label == "a@b"
    assert Checkpoint.of("org/name@refs/pr/1") == Checkpoint("refs-pr-1", "org/name", "refs/pr/1")
    assert Checkpoint.of("org/name") == Checkpoint("name", "org/name", None)
    (tmp_path / "m.gguf").touch()
    assert Checkpoint.of(tmp_path / "m.gguf").label == "m"
