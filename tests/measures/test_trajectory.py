"""The measure of a trajectory equals its formulas written out in NumPy."""

import numpy as np
import pytest
import torch
import xarray as xr
from tiny import tiny

import hydrascope as hs
from hydrascope.reports.figures import figure_trajectory
from hydrascope.reports.summary.trajectory_table import kind_rows, steps_of, target_in_words, trajectory_rows
from hydrascope.utils.errors import HydrascopeError

FEW = hs.measures.Bootstrap(resamples=300, seed=4)
PROMPTS = [list(map(int, ids)) for ids in np.random.default_rng(5).integers(3, 60, (40, 6))]
KINDS = ("attn", "mlp")


@pytest.fixture(scope="module")
def results() -> dict[str, xr.Dataset]:
    """Three checkpoints, in float64."""
    prompts = [hs.Prompt(tokens=tuple(ids), answer=7) for ids in PROMPTS]
    return {
        f"step{seed}": hs.sweep(tiny("llama", seed=seed), prompts, hs.Zero(), target="answer") for seed in (1, 2, 9)
    }


@pytest.fixture(scope="module")
def alike() -> dict[str, xr.Dataset]:
    """Two checkpoints that hardly differ: the same sublayers write in both."""
    prompts = [hs.Prompt(tokens=tuple(ids), answer=7) for ids in PROMPTS]
    models = [tiny("llama", seed=2), tiny("llama", seed=2)]
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in models[1].hf.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
    return {name: hs.sweep(each, prompts, hs.Zero(), target="answer") for name, each in zip("ab", models, strict=True)}


@pytest.fixture(scope="module")
def found(results: dict[str, xr.Dataset]) -> xr.Dataset:
    return hs.measures.trajectory(results, FEW)


def effects_of(result: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return the amounts removed and lost on each prompt, [prompt, ablated]."""
    one = result.isel(readout=0, patch=0).transpose("prompt", "ablated", ...)
    return -one["direct"].values, -one["total"].values


def slope(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.array([np.polyfit(x[:, i], y[:, i], 1)[0] for i in range(x.shape[1])])


def resampled(count: int) -> list[np.ndarray]:
    """The prompts of each resample, drawn as `Bootstrap` says: the same for every checkpoint."""
    return list(np.random.default_rng(FEW.seed).integers(count, size=(FEW.resamples, count)))


def bounds(values: list[np.ndarray]) -> np.ndarray:
    tail = FEW.tail(len(PROMPTS))
    return np.quantile(np.array(values), [tail, 1 - tail], axis=0)


def test_numbers_are_those_of_numpy(results: dict[str, xr.Dataset], found: xr.Dataset) -> None:
    assert found["removed"].dims == ("bound", "checkpoint", "ablated")
    assert found["checkpoint"].values.tolist() == list(results)
    unsure = 0
    for name, result in results.items():
        removed, lost = effects_of(result)
        at = found.sel(checkpoint=name)
        draws = resampled(len(removed))
        for variable, values in {"removed": removed, "lost": lost}.items():
            np.testing.assert_allclose(at[variable].sel(bound="estimate"), values.mean(0), atol=1e-9)
            expected = bounds([values[draw].mean(0) for draw in draws])
            np.testing.assert_allclose(at[variable].sel(bound=["low", "high"]), expected, atol=1e-9)
        sure = at["removed"].sel(bound="low").values > 0
        unsure += int((~sure).sum())
        share = np.where(sure, 1 - lost.mean(0) / removed.mean(0), np.nan)
        np.testing.assert_allclose(at["restored"].sel(bound="estimate"), share, atol=1e-9)
        assert np.isnan(at["restored"].values[:, ~sure]).all()
        assert np.isfinite(at["restored"].values[:, sure]).all()
        np.testing.assert_allclose(
            at["restored_slope"].sel(bound="estimate"), slope(removed, removed - lost), rtol=1e-7, atol=1e-9
        )
        expected = bounds([slope(removed[draw], (removed - lost)[draw]) for draw in draws])
        np.testing.assert_allclose(at["restored_slope"].sel(bound=["low", "high"]), expected, rtol=1e-6, atol=1e-8)
    assert unsure


def test_compensation_is_the_change_of_what_is_downstream(results: dict[str, xr.Dataset], found: xr.Dataset) -> None:
    for name, result in results.items():
        one = result.isel(readout=0, patch=0)
        labels = [str(label) for label in one["ablated"].values]
        for column, label in enumerate(labels[:-1]):
            later = labels[column + 1 :]
            after = one["unembed_ablated"].sel(ablated=label, component=later).sum("component")
            compensated = (after - one["unembed"].sel(component=later).sum("component")).transpose("prompt").values
            own = one["unembed"].sel(component=label).values
            expected = np.polyfit(own, compensated, 1)[0]
            estimate = float(found["compensation_slope"].sel(checkpoint=name, ablated=label, bound="estimate"))
            assert estimate == pytest.approx(expected, rel=1e-6, abs=1e-8)
        assert np.isnan(found["compensation_slope"].sel(checkpoint=name, ablated=labels[-1])).all()


@pytest.mark.parametrize("which", ["results", "alike"])
def test_medians_are_over_the_sublayers_that_surely_write(which: str, request: pytest.FixtureRequest) -> None:
    results = request.getfixturevalue(which)
    found = hs.measures.trajectory(results, FEW)
    counts: list[int] = []
    shared: list[int] = []
    for name, result in results.items():
        removed, lost = effects_of(result)
        draws, at = resampled(len(removed)), found.sel(checkpoint=name)
        labels = [str(label) for label in result["ablated"].values]
        for kind in KINDS:
            # The last MLP has nothing downstream.
            asked = [i for i, label in enumerate(labels) if label.startswith(kind) and i < len(labels) - 1]
            writes = -result.isel(readout=0, patch=0).transpose("prompt", "ablated", ...)["direct"].values
            own = result["unembed"].isel(readout=0).transpose("prompt", "component").values[:, asked]
            mean, means = own.mean(0), np.array([own[draw].mean(0) for draw in draws])
            error = means.std(0)
            q = np.quantile((abs(means - mean) / error).max(1), 1 - 2 * FEW.tail(len(writes)))
            chosen = [i for i, low in zip(asked, mean - q * error, strict=True) if low > 0]
            assert [labels[i] for i in chosen] == [
                label for label in labels if label.startswith(kind) and bool(at["writes"].sel(ablated=label))
            ]
            median = at.sel(kind=kind)
            assert int(median["writers"]) == len(chosen)
            counts.append(len(chosen))
            if not chosen:
                assert np.isnan(median["median_restored_slope"]).all()
                continue
            x, y = removed[:, chosen], (removed - lost)[:, chosen]
            assert float(median["median_removed"].sel(bound="estimate")) == pytest.approx(np.median(x.mean(0)))
            expected = np.median(slope(x, y))
            assert float(median["median_restored_slope"].sel(bound="estimate")) == pytest.approx(expected)
            low, high = bounds([np.median(slope(x[draw], y[draw])) for draw in draws])
            np.testing.assert_allclose(
                median["median_restored_slope"].sel(bound=["low", "high"]), [low, high], rtol=1e-6
            )
            common = [
                i
                for i in chosen
                if all(
                    bool(found["writes"][c, i]) and np.isfinite(found["restored"].values[0, c, i])
                    for c in range(len(results))
                )
            ]
            assert int(median["with_share"]) == len(common)
            shared.append(len(common))
            middle = median["median_restored"]
            if not common:
                assert np.isnan(middle).all()
                continue
            x, y = removed[:, common], (removed - lost)[:, common]
            assert float(middle.sel(bound="estimate")) == pytest.approx(np.median(y.mean(0) / x.mean(0)))
            expected = bounds([np.median(y[draw].mean(0) / x[draw].mean(0)) for draw in draws])
            np.testing.assert_allclose(middle.sel(bound=["low", "high"]), expected, rtol=1e-6)
    assert max(counts) > 1
    # Checkpoints that write by other sublayers share none.
    assert max(shared) == (0 if which == "results" else 2)


def test_one_checkpoint_is_what_it_is_among_others(results: dict[str, xr.Dataset], found: xr.Dataset) -> None:
    alone = hs.measures.trajectory({"step2": results["step2"]}, FEW).drop_vars(["median_restored", "with_share"])
    xr.testing.assert_identical(alone.drop_attrs(), found.sel(checkpoint=["step2"])[list(alone)].drop_attrs())


def test_heads_have_no_median_and_no_compensation_unless_they_are_read() -> None:
    prompts = [hs.Prompt(tokens=tuple(ids), answer=7) for ids in PROMPTS]
    result = hs.sweep(tiny("llama", seed=1), prompts, hs.Zero(), ablate="heads.1,attn.0", target="answer")
    found = hs.measures.trajectory({"step1": result, "step2": result}, FEW)
    heads = [str(label) for label in found["ablated"].values if str(label).startswith("head")]
    assert found["kind"].values.tolist() == ["attn"]
    assert np.isnan(found["compensation_slope"].sel(ablated=heads)).all()
    assert np.isfinite(found["compensation_slope"].sel(ablated="attn.0")).all()
    assert not found["writes"].sel(ablated=heads).any()
    only = hs.measures.trajectory({"a": result.isel(ablated=result["ablated_kind"].values == "head")}, FEW)
    assert kind_rows(only) == ()
    assert len(trajectory_rows(only)) == 4
    assert len(figure_trajectory(only).axes) == 3


def test_what_differs_is_refused(results: dict[str, xr.Dataset]) -> None:
    first, second, _ = results.values()
    other = hs.sweep(tiny("llama", seed=1), [hs.Prompt(tokens=(5, 6, 7), answer=7)] * 1, hs.Zero(), target="answer")
    for given, message in (
        ({}, "no trajectory of no results"),
        ({"a": first, "b": other}, "b has other tokens than a"),
        ({"a": first, "b": second.isel(ablated=slice(2))}, "b has other ablations than a"),
        ({"a": first, "b": second.assign_attrs(ablation="mean")}, "b has other ablation than a"),
        ({"a": first, "b": xr.Dataset()}, "b: "),
    ):
        with pytest.raises(HydrascopeError, match=message):
            hs.measures.trajectory(given, FEW)


def test_rows_and_figure_hold_the_numbers(found: xr.Dataset) -> None:
    rows = trajectory_rows(found)
    assert len(rows) == 3 * 6
    assert [row.checkpoint for row in rows[::6]] == ["step1", "step2", "step9"]
    at = found.sel(checkpoint="step2", ablated="mlp.1")
    row = next(row for row in rows if (row.checkpoint, row.ablated) == ("step2", "mlp.1"))
    assert row.lost.high == float(at["lost"].sel(bound="high"))
    assert row.restored_slope.low == float(at["restored_slope"].sel(bound="low"))
    assert [(each.kind, each.checkpoint) for each in kind_rows(found)][2:4] == [("attn", "step9"), ("mlp", "step1")]
    medians = found["median_restored_slope"].sel(bound="estimate", kind="mlp").values
    panel = figure_trajectory(found).axes[2]
    assert any(np.array_equal(line.get_ydata(), medians, equal_nan=True) for line in panel.lines)
    assert panel.lines[-1].get_xdata().tolist() == [1, 2, 9]


@pytest.mark.parametrize(
    ("labels", "steps", "scale"),
    [
        (("step1", "step1000"), [1, 1000], "log"),
        (("step0", "step1", "step1000"), [0, 1, 1000], "symlog"),
        (("checkpoint-100", "checkpoint-2000"), [100, 2000], "linear"),
        (("step2", "step1"), None, "linear"),
        (("step1", "main"), None, "linear"),
        (("llama3", "llama4"), None, "linear"),
    ],
)
def test_steps_space_the_axis(found: xr.Dataset, labels: tuple[str, ...], steps: list[int] | None, scale: str) -> None:
    few = found.isel(checkpoint=slice(len(labels))).assign_coords(checkpoint=list(labels))
    read = steps_of(few)
    assert (None if read is None else read.tolist()) == steps
    axes = figure_trajectory(few).axes[0]
    assert axes.get_xscale() == scale
    assert axes.lines[-1].get_xdata().tolist() == (steps or list(range(len(labels))))


def test_the_target_is_said(found: xr.Dataset) -> None:
    said = {
        ("answer", "prompts"): "the prompts' answers",
        ("answer", "ioi answered by step9"): "the likeliest tokens of step9 in all checkpoints",
        ("argmax", "prompts"): "each checkpoint's own likeliest token, so a change may be one of the target",
        (7, "prompts"): "token 7 in all checkpoints",
    }
    for (target, prompts), words in said.items():
        assert target_in_words(found.assign_attrs(target=target, prompts=prompts)) == words
