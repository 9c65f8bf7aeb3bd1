"""The study of repairers: its estimator on profiles of known agreement, its reactions, its runs, and its page."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hydrascope as hs
from hydrascope.components.component import Component
from hydrascope.models.float64 import Float64Mode
from studies import repairers
from studies.repairers import estimator, runs
from studies.repairers.ablations import WholeAndPart
from studies.repairers.estimator import Draws, Estimate, agree
from studies.repairers.measured import Measured
from studies.repairers.profiles import Profiles
from studies.repairers.verdict import judge
from studies.study import Study

STUDY = Study("repairers")


def made(
    agreement: float, *, contexts: int = 10, units: int = 32, noise: float = 1.0, seed: int = 0, reactors: int = 60
) -> list[np.ndarray]:
    """Return reactions to two ablations in contexts whose true profiles correlate by `agreement`.

    With noise 1 the reliability of a mean over 32 units is 0.5.
    """
    random = np.random.default_rng(seed)

    def profile(*shape: int) -> np.ndarray:
        drawn = random.standard_normal((*shape, 2, reactors))
        drawn -= drawn.mean(-1, keepdims=True)
        return drawn / np.linalg.norm(drawn, axis=-1, keepdims=True) * reactors**0.5

    shared, own = profile(), profile(contexts)
    # What is a context's own is made orthogonal to what is shared, so that the truth is known for these reactors.
    own -= shared * (own * shared).mean(-1, keepdims=True)
    own /= np.sqrt((own**2).mean(-1, keepdims=True))
    true = np.sqrt(agreement) * shared + np.sqrt(1 - agreement) * own
    drawn = random.standard_normal((contexts, units, 2, reactors)) * noise * units**0.5
    found = true[:, None] + drawn
    found[:, :, 1, : reactors // 4] = np.nan
    return list(found)


def estimate(units: list[np.ndarray], resamples: int = 100, seed: int = 0, least: float = 0.3) -> Estimate:
    draws = Draws.of([len(each) for each in units], 10, resamples, seed)
    return Estimate.of(agree(units, draws, least), draws)


def test_agreement_is_that_of_the_true_profiles() -> None:
    for agreement in (0.3, 0.8):
        found = [estimate(made(agreement, seed=seed, reactors=200), 2).value for seed in range(8)]
        assert np.mean(found) == pytest.approx(agreement, abs=0.03)
        # Without the correction it would be about half of that.
        units = made(agreement, reactors=200)
        draws = Draws.of([32] * 10, 10, 2, 0)
        assert agree(units, draws, 0.3).raw[0, 0, 1] < 0.8 * agreement


def test_bounds_cover_as_often_as_they_say() -> None:
    """Contexts share what they share to a different degree; over contexts the mean of all products is known."""
    inside, by_jackknife = [], []
    for seed in range(60):
        random = np.random.default_rng(seed)
        shared, own = random.standard_normal((2, 100)), random.standard_normal((18, 2, 100))
        degree = random.uniform(0.2, 0.9, (18, 2, 1))
        true = degree * shared + np.sqrt(1 - degree**2) * own
        units = list(true[:, None] + 3 * random.standard_normal((18, 32, 2, 100)))
        found = estimate(units, 60)
        half = found.bounds(18, 0.95)[2] - found.value
        inside.append(abs(found.value - 0.55**2) < half)
        by_jackknife.append(abs(found.value - 0.55**2) < half * found.errors()[0] / max(found.errors()))
    assert np.mean(inside) > 0.9
    assert np.mean(by_jackknife) > 0.85


def test_the_signs_of_profiles_and_the_largest_heads_decide_as_they_should() -> None:
    units = made(0.9, noise=0.2)
    draws = Draws.of([32] * 10, 10, 2, 0)
    agreement = agree(units, draws, 0.3)
    # A profile of the other sign agrees by the opposite.
    turned = agree([-units[0], *units[1:]], draws, 0.3)
    assert turned.disattenuated[0, 0, 1] == pytest.approx(-agreement.disattenuated[0, 0, 1])
    # One head that reacts most everywhere makes unrelated profiles agree, until it is left out.
    loud = [each + 30 * (np.arange(60) == 50) for each in made(0.0, noise=0.2)]
    assert Estimate.of(agree(loud, draws, 0.3), draws).value > 0.7
    quiet = estimator.without_largest(loud, 1)
    assert np.isnan(quiet[0][0, :, 50]).all()
    assert abs(Estimate.of(agree(quiet, draws, 0.3), draws).value) < 0.1


def test_a_noisy_profile_is_left_out() -> None:
    units = made(0.8)
    units[3] = units[3] * 0 + np.random.default_rng(0).standard_normal(units[3].shape)
    agreement = agree(units, Draws.of([32] * 10, 10, 2, 0), 0.3)
    assert not agreement.kept[:, 3].any()
    assert agreement.kept[:, [0, 1, 2]].all()
    assert not agreement.cells[:, 3].any()
    assert agreement.cells[0, 0, 1]
    assert not agreement.cells[0, 1, 0]


def test_a_sign_within_two_standard_errors_is_unclear() -> None:
    def profiles(*removed: list[float]) -> Profiles:
        return Profiles(("a", "b"), (), {}, np.array(removed))

    # Means of 4 and 0.5, each with a standard error of 1; then the same below 0.
    one = profiles([3.0, -0.5], [5.0, 1.5])
    other = profiles([-3.0, 0.5], [-5.0, -1.5])
    measured = Measured(STUDY.settings, ("one", "other"), (one, other), (), ())
    assert measured.clear.tolist() == [[True, True], [False, False]]
    assert measured.removed()["a"] == {"mean": 0.0, "below": 1, "unclear": 0}
    assert measured.removed()["b"] == {"mean": 0.0, "below": 1, "unclear": 2}


def test_a_line_on_clean_writes_is_taken_out() -> None:
    random = np.random.default_rng(0)
    writes = [random.standard_normal((32, 2, 60)) * 0.1 + random.standard_normal((2, 60)) for _ in range(4)]
    own = [each - 0.6 * write for each, write in zip(made(0.5, contexts=4, noise=0.1), writes, strict=True)]
    left, slopes, correlations = estimator.beyond_line(own, writes)
    x, y = (np.nan_to_num(each.mean(0)[0]) for each in (writes[2], own[2]))
    assert slopes[2, 0] == pytest.approx(np.polyfit(x, y, 1)[0])
    assert correlations[2, 0] == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert abs(np.corrcoef(left[2].mean(0)[0], x)[0, 1]) < 1e-9


def test_two_ablations_of_one_context_agree_as_they_truly_do() -> None:
    """Noise that both share must not count as agreement."""
    random, found = np.random.default_rng(0), []
    for _ in range(20):
        one, other = random.standard_normal((2, 200))
        noise = 4 * random.standard_normal((32, 200))
        units = np.stack([one + noise, 0.6 * one + 0.8 * other + noise], 1)
        draws = Draws.of([32], 10, 2, 0)
        found.append(estimator.between_ablations([units], draws, np.ones((2, 1), bool))[0])
    assert np.mean(found) == pytest.approx(0.6, abs=0.04)
    assert np.corrcoef(units.mean(0))[0, 1] > 0.68


def test_sure_means_hold_for_all_reactors_at_once() -> None:
    random, false = np.random.default_rng(0), 0
    for seed in range(40):
        units = [random.standard_normal((count, 2, 50)) for count in (6, 12, 32)]
        false += any((signs != 0).any() for signs in estimator.surely(units, 300, 0.95, seed))
    assert false <= 6
    units[2][:, 1, 7] -= 5
    assert estimator.surely(units, 300, 0.95, 0)[2][1, 7] == -1


@pytest.mark.parametrize(
    ("damping", "difference", "contexts", "unsigned", "outcome"),
    [
        ([0.9, 0.8, 1.0], [0.4, 0.3, 0.5], 12, 0.3, "holds"),
        ([0.9, 0.8, 1.0], [0.4, 0.3, 0.5], 12, 0.1, "can't tell"),
        ([0.9, 0.8, 1.0], [0.4, 0.3, 0.5], 5, 0.3, "can't tell"),
        ([0.9, 0.8, 1.0], [0.1, -0.1, 0.3], 12, 0.3, "refuted"),
        ([0.9, 0.8, 1.0], [0.1, 0.05, 0.15], 12, 0.3, "refuted"),
        ([0.9, 0.8, 1.0], [0.1, -0.1, 0.3], 5, 0.3, "can't tell"),
        ([0.5, 0.4, 0.6], [0.4, 0.3, 0.5], 12, 0.3, "refuted"),
        ([0.8, 0.6, 1.0], [0.4, 0.3, 0.5], 12, 0.3, "can't tell"),
        ([0.8, 0.75, 1.0], [0.3, 0.15, 0.5], 12, 0.3, "can't tell"),
    ],
)
def test_the_declared_rule_decides(
    damping: list[float], difference: list[float], contexts: int, unsigned: float, outcome: str
) -> None:
    def of(damping: list[float], difference: list[float], contexts: int = 12, unsigned: float = 0.3) -> dict[str, Any]:
        each: dict[str, Any] = {"damping": [0.9, 0.85, 0.95], "difference": [0.4, 0.35, 0.45]}
        names = ("spearman", "without_largest", "beyond_line", "beyond_ablations", "mlps")
        other = {"same_more": [0.3, 0.2, 0.4]}
        return {
            "damping": damping,
            "content": [0.2, 0.1, 0.3],
            "difference": difference,
            "difference_contexts": contexts,
            "readings": dict.fromkeys(names, each)
            | {
                "content_unsigned": {"difference": [0.4, unsigned, 0.5]},
                "other_ablations": {"damping": other, "content": other},
                "writes_more": [0.3, 0.2, 0.4],
            },
        }

    sure = of([0.9, 0.8, 1.0], [0.4, 0.3, 0.5])
    found = judge(STUDY.settings, {"smollm2": sure, "gemma3-270m": of(damping, difference, contexts, unsigned)})
    assert found["outcome"] == outcome
    assert set(found["secondary"]) == set(STUDY.settings["secondary"])
    # The p is that of the t interval: at a bound on the limit it is 0.025.
    at = judge(STUDY.settings, {"one": of([0.8, 0.7, 0.9], [0.4, 0.3, 0.5])})
    assert at["p"] == pytest.approx(0.025, abs=1e-4)


@torch.no_grad()
def test_reactions_are_those_of_plain_hooks(tmp_path: Path) -> None:
    """Ablate a sublayer, or the readout part of its write, and freeze a head by hooks, in float64."""
    torch.set_num_threads(1)
    model = hs.load_model("built-in", dtype="float64")
    prompt = next(each for each in hs.load_prompts("world-facts") if each.answer == "Texas")
    k, d = Component.parse("attn.7"), Component.parse("head.11.1")
    ids = torch.tensor([model.encode(prompt.text)])
    answer, foil = (model.encode(f"{prompt.text} {word}")[ids.shape[1]] for word in (prompt.answer, prompt.foil))
    weight = model.unembedding.weight
    direction = model.final_norm.weight * (weight[answer] - weight[foil])
    projection = model.projection(d.sublayer)
    columns, seen = projection.columns(d.unit), {}

    def difference(part: str, *, freeze: bool) -> float:
        """Return the answer's logit less the foil's, in a plain pass."""

        def write(module: Any, inputs: Any, output: Any) -> Any:
            value = (output[0] if isinstance(output, tuple) else output).clone()
            own = value[0, -1].clone()
            if part == "full":
                value[0, -1] = 0
            elif part == "damping":
                value[0, -1] = own - direction * (own @ direction) / (direction @ direction)
            return (value, *output[1:]) if isinstance(output, tuple) else value

        def hold(module: Any, inputs: Any) -> Any:
            value = inputs[0].clone()
            if part == "clean":
                seen["head"] = value[..., columns]
            elif freeze:
                value[..., columns] = seen["head"]
            return (value, *inputs[1:])

        handles = [
            model.output(k).register_forward_hook(write),
            projection.module.register_forward_pre_hook(hold),
        ]
        with Float64Mode():
            logits = model.hf(ids).logits[0, -1]
        for handle in handles:
            handle.remove()
        return float(logits[answer] - logits[foil])

    clean = difference("clean", freeze=False)
    some = [prompt, *hs.load_prompts("world-facts").limit(3)]
    settings = {"at": "last", "target": "argmax"}
    overrides, store = runs.labels(model, [str(k)]), tmp_path / "one.zarr"
    prompts, readouts = hs.prompts.PromptSet.of(some), [hs.LogitDifference()]
    with Float64Mode():
        runs.sweep_to(store, settings, model, prompts, WholeAndPart(), overrides, readouts, "effects")
    found = Profiles.read(store, [str(place) for place in range(3)])
    place = found.reactors.index(str(d))
    for kind in ("full", "damping"):
        reaction = difference(kind, freeze=False) - difference(kind, freeze=True)
        assert abs(reaction) > 1e-4
        assert found.reactions[kind][0, 0, place] == pytest.approx(reaction, abs=1e-9)
    assert float(hs.open_results(store)["logit"].values.ravel()[0]) == pytest.approx(clean, abs=1e-9)
    # Parts add up to the whole, and a head that isn't downstream has no reaction.
    assert np.allclose(found.reactions["content"] + found.reactions["damping"], found.reactions["full"], equal_nan=True)
    assert "head.7.0" not in found.reactors


def small(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a small study of the built-in model."""
    return settings | {
        "models": ["built-in"],
        "prompts": {"facts": "world-facts", "ioi": "ioi", "passages": "passages"},
        "contexts": settings["contexts"]
        | {
            "least": 8,
            "exploration": 8,
            "confirmation": 8,
            "made": 24,
            "explored_before": 0,
            "fewest": 2,
        },
        "ablated": settings["ablated"] | {"depth": [0.8, 0.85], "count": 2, "least_heads": 5, "least_removed": 0},
        "weight_noise": settings["weight_noise"] | {"prompts": 4, "contexts": 2, "seeds": [0]},
        "intervals": settings["intervals"] | {"resamples": 30, "halvings": 4},
        "least_reliability": 0.01,
        "generalist": 2,
    }


@pytest.mark.slow
def test_a_small_run_goes_all_the_way(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    settings = small(STUDY.settings)
    prompts = {name: hs.load_prompts(source) for name, source in settings["prompts"].items()}
    # Facts come relation by relation.
    every = prompts["facts"].prompts
    prompts["facts"] = hs.prompts.PromptSet.of([*every[:24], *every[350:374], *every[-24:]])
    stores = repairers.measure(settings, prompts, tmp_path)
    results = json.loads(json.dumps(repairers.condense(settings, stores)))
    of = results["models"]["built-in"]
    assert of["about"]
    page = repairers.render(settings, results)
    assert "built-in" in page
    assert "nan" not in page.lower().replace("finance", "")
    assert len(repairers.draw(results).axes) == 2


def test_the_page_is_rendered_from_the_stored_results() -> None:
    assert STUDY.page.read_text("utf-8") == repairers.render(STUDY.settings, STUDY.read_results())
