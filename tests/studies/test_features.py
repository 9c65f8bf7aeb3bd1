"""The study of features: its estimator on made changes with a known answer, its runs, and its page."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hydrascope as hs
from hydrascope.components.component import Component
from hydrascope.measures import Bootstrap
from studies import features
from studies.features import directions, estimator, runs
from studies.features.verdict import judge
from studies.study import Study

STUDY = Study("features")
KIND = np.repeat(["neurons", "matched", "isotropic"], [5, 5, 2])


def made(g: Any, h: float, prompts: int = 40, noise: float = 0.0, seed: int = 0) -> estimator.Samples:
    """Return changes of two depths and four places of which g and h are known.

    Args:
        g: the damping, `[depth, place, direction]` or a number.
        h: the share that content brings back.
        prompts: the number of prompts.
        noise: the size of what varies between prompts.
        seed: the seed of the pushes.
    """
    random = np.random.default_rng(seed)
    direct = 1 + random.standard_normal((prompts, 2, 4, len(KIND)))
    total = (1 - np.broadcast_to(g, direct.shape[1:])) * direct + noise * random.standard_normal(direct.shape)
    # What content brings back goes with what is removed, and has a mean of its own.
    return estimator.Samples(direct, total, total - h * direct + 3)


def test_damping_and_content_are_those_that_were_made() -> None:
    g = np.random.default_rng(1).random((2, 4, len(KIND)))
    samples, weights = made(g, 0.3), np.ones((1, 40))
    assert np.allclose(estimator.damping(samples, weights)[0], g)
    assert np.allclose(estimator.content(samples, weights)[0], 0.3)
    # The same by plain loops, with weights.
    noisy, counts = made(g, 0.3, noise=1.0), np.arange(40.0)
    found, brought = (each(noisy, counts[None])[0, 1, 2, 3] for each in (estimator.damping, estimator.content))
    rows = [n for n in range(40) for _ in range(n)]
    d, t, w = (each[rows, 1, 2, 3] for each in (noisy.direct, noisy.total, noisy.whole))
    assert found == pytest.approx(1 - (t * d).sum() / (d * d).sum())
    assert brought == pytest.approx(np.polyfit(-d, w - t, 1)[0])


def test_means_are_over_directions_and_draws_keep_pairs_together() -> None:
    g = np.random.default_rng(1).random((2, 4, len(KIND)))
    weights = estimator.Weights.draw({"one": 40}, {"neurons": 5, "matched": 5, "isotropic": 2}, 2, Bootstrap(20))
    means = estimator.by_kind(estimator.damping(made(g, 0), weights.prompts["one"]), KIND, weights.directions)
    expected = g[:, :, :5].mean(2).reshape(2, 2, 2)
    assert np.allclose(means["neurons"][0], expected)
    # A gate row comes back by as much more than its matched direction in all pairs: so in all draws.
    g[..., 5:10] = g[..., :5] - 0.2
    means = estimator.by_kind(estimator.damping(made(g, 0), weights.prompts["one"]), KIND, weights.directions)
    assert np.allclose(means["neurons"] - means["matched"], 0.2)
    assert np.ptp(means["neurons"].mean((1, 2, 3))) > 0.01


def test_bounds_cover_as_often_as_they_say() -> None:
    kinds, inside = {"neurons": 5, "matched": 5, "isotropic": 2}, 0
    for seed in range(60):
        samples = made(0.5, 0, noise=2.0, seed=seed)
        weights = estimator.Weights.draw({"one": 40}, kinds, 2, Bootstrap(100, seed=seed), by_direction=False)
        means = estimator.by_kind(estimator.damping(samples, weights.prompts["one"]), KIND, weights.directions)
        _, low, high = estimator.bounds(means["neurons"].mean((1, 2, 3)), Bootstrap(100))
        inside += low <= 0.5 <= high
    assert 50 <= inside <= 60


def test_loud_prompts_are_found() -> None:
    g = np.zeros((2, 4, len(KIND)))
    g[..., :5] = 0.3
    samples = made(g, 0)
    samples.direct[:2] *= 30
    # The loud prompts say the opposite.
    samples.total[:2] = samples.direct[:2] * (1 - g[..., ::-1])
    samples.total[2:] = samples.direct[2:] * (1 - g)
    found = estimator.loudest([samples], KIND, share=0.05, blocks=10)
    assert found["prompts"] == 2
    assert found["hold"] > 0.9
    assert found["without"] == pytest.approx(0.3, abs=1e-4)


def test_matched_directions_have_the_same_variance() -> None:
    random = np.random.default_rng(0)
    stream = random.standard_normal((500, 12)) * np.arange(1, 13)
    stream[:, 1] += stream[:, 0]
    covariance, rows = np.cov(stream.T), random.standard_normal((6, 12))
    found = directions.matched(rows, covariance, random)
    assert np.allclose((stream @ found.T).var(0), (stream @ rows.T).var(0))
    assert np.allclose(np.linalg.norm(found, axis=1), np.linalg.norm(rows, axis=1))
    assert abs(np.corrcoef(found.ravel(), rows.ravel())[0, 1]) < 0.7


@pytest.mark.parametrize(
    ("difference", "hold", "outcome"),
    [
        ([0.15, 0.12, 0.18], 0.2, "holds"),
        ([0.05, 0.01, 0.09], 0.2, "refuted"),
        ([0.10, 0.05, 0.15], 0.2, "can't tell"),
        ([0.06, -0.01, 0.12], 0.2, "refuted"),
        ([0.15, 0.12, 0.18], 0.4, "can't tell"),
    ],
)
def test_the_declared_rule_decides(difference: list[float], hold: float, outcome: str) -> None:
    def of(found: list[float], hold: float) -> dict[str, Any]:
        over = {claim: [0.3, 0.2, 0.4] for claim in STUDY.settings["secondary"]}
        return {
            "difference": [[0, 0, 0], found],
            "loudest": {"hold": hold, "without": 0.05, "blocks": 0.15},
            "over": over,
        }

    models = {"smollm2": of([0.2, 0.15, 0.25], 0.1), "gemma3-270m": of(difference, hold)}
    found = judge(STUDY.settings, models)
    assert found["outcome"] == outcome
    assert all(each["holds"] for each in found["secondary"].values())


@torch.no_grad()
def test_changes_are_those_of_plain_hooks() -> None:
    """Push one sublayer by a hook at the last token, in float64, and read the stream that enters the block."""
    torch.set_num_threads(1)
    model = hs.load_model("built-in", dtype="float64")
    tokens = [model.tokenizer(prompt.text)["input_ids"] for prompt in hs.load_prompts("world-facts").limit(2).prompts]
    declared = {"neurons": 1, "components": 1, "isotropic": 1, "active": 0.0, "seed": 0}
    chosen = directions.choose(STUDY.settings | {"directions": declared}, model, [3, 6], tokens)
    found = runs.push(model, chosen, [0, 2], tokens)
    depth, block, row = 1, 6, 1

    def stream(place: Component, unit: torch.Tensor | None = None, dose: float = 1.0) -> torch.Tensor:
        """Return the stream that enters the block at the last token, without a part of a sublayer or all of it."""
        kept: list[torch.Tensor] = []

        def write(module: Any, inputs: Any, output: Any) -> Any:
            value = (output[0] if isinstance(output, tuple) else output).clone()
            value[0, -1] -= dose * (value[0, -1] if unit is None else (value[0, -1] @ unit) * unit)
            return (value, *output[1:]) if isinstance(output, tuple) else value

        handles = [
            model.output(place).register_forward_hook(write),
            model.blocks[block].register_forward_pre_hook(lambda module, args: kept.append(args[0][0, -1].clone())),
        ]
        model.hf(torch.tensor([tokens[row]]))
        for handle in handles:
            handle.remove()
        return kept[0]

    units, sublayers = torch.from_numpy(chosen.units[depth]), runs.places(block, [0, 2])
    clean = stream(sublayers[0], dose=0.0)
    for number, place in enumerate(sublayers):
        expected = torch.stack([(stream(place, unit) - clean) @ unit for unit in units])
        assert np.allclose(found["total"][row, depth, number], expected, atol=1e-9)
        assert np.allclose(found["whole"][row, depth, number], units @ (stream(place) - clean), atol=1e-9)
    # Nothing stands between the last MLP and the block that is read.
    assert np.allclose(found["total"][:, :, 1], found["direct"][:, :, 1])
    assert abs(found["total"][:, :, 3] - found["direct"][:, :, 3]).max() > 1e-3


def small(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a small study of the built-in model."""
    return settings | {
        "models": ["built-in"],
        "prompts": {"facts": "world-facts", "passages": "passages"},
        "halves": {
            "explored_before": 2,
            "rule": "r",
            "reason": "r",
            "facts": {"exploration": 8, "confirmation": 8},
            "passages": {"exploration": 8, "confirmation": 8},
        },
        "explored": {"facts": 8, "passages": 8, "rule": "r"},
        "directions": {"neurons": 4, "active": 0.05, "components": 2, "isotropic": 2, "seed": 0},
        "weight_noise": {"prompts": 4, "set": "facts", "seeds": [0], "rule": "r"},
        "turned": {"prompts": 4, "set": "facts", "rule": "r"},
        "intervals": {"resamples": 50, "confidence": 0.95, "seed": 0, "rule": "r"},
    }


@pytest.mark.slow
def test_a_small_run_goes_all_the_way(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    settings = small(STUDY.settings)
    prompts = {name: hs.load_prompts(source).limit(40) for name, source in settings["prompts"].items()}
    stores = features.measure(settings, prompts, tmp_path)
    results = json.loads(json.dumps(features.condense(settings, stores)))
    curves = results["models"]["built-in"]["curves"]
    # With no block in between, attention's part meets one MLP and the MLP's none at all.
    assert results["models"]["built-in"]["between"] == [0, 1, 3, 6]
    assert all(abs(curves[kind][0][0]) < abs(curves[kind][-1][0]) + 0.5 for kind in curves)
    page = features.render(settings, results)
    assert "built-in" in page
    assert "nan" not in page.lower().replace("finance", "")
    assert len(features.draw(results).axes) == 1


def test_the_page_is_rendered_from_the_stored_results() -> None:
    assert STUDY.page.read_text("utf-8") == features.render(STUDY.settings, STUDY.read_results())
