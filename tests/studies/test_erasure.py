"""The study of erasure: its shares on made responses with a known answer, its runs, and its page."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hydrascope as hs
from hydrascope.components.component import Component
from hydrascope.measures import Bootstrap
from studies import erasure
from studies.erasure import estimator, geometry, numbers, runs
from studies.erasure.verdict import judge
from studies.study import Study

STUDY = Study("erasure")
FEW = Bootstrap(resamples=100)
WIDTH, TOKENS, READ, PROMPTS, WAYS = 12, 400, 60, 8, 9


class Made:
    """A vocabulary with a common mode that goes with frequency, and prompts whose responses are made from it."""

    def __init__(self, folder: Path) -> None:
        random = np.random.default_rng(0)
        self.folder, self.common = folder, np.eye(WIDTH)[0]
        self.rows = random.standard_normal((TOKENS, WIDTH))
        self.rows[:, 0] *= 4
        self.rows -= self.rows.mean(0)
        self.log_frequency = self.rows[:, 0] + 2 * random.standard_normal(TOKENS)
        square = self.rows.T @ self.rows
        self.common = np.linalg.eigh(square)[1][:, -1]
        centred = self.log_frequency - self.log_frequency.mean()
        np.savez(
            folder / "vocabulary.npz",
            square=square,
            common=self.common,
            energy=0.5,
            along_frequency=self.rows.T @ centred,
            frequency_square=(centred**2).sum(),
        )
        self.read = np.stack([random.permutation(TOKENS)[:READ] for _ in range(PROMPTS)])
        self.ways = self.read[:, : WAYS - 3]
        units = np.concatenate([self.rows[self.ways], random.standard_normal((PROMPTS, 3, WIDTH))], 1)
        self.units = units / np.linalg.norm(units, axis=-1, keepdims=True)
        self.size = 1 + random.random((PROMPTS, 4))

    def squares(self, joint: np.ndarray | None = None, response: np.ndarray | None = None) -> Any:
        """Store the responses of two MLPs, as vectors or over tokens, and return their sums of squares."""
        readers = self.rows[self.read]
        if response is None:
            response = np.einsum("pwkd,pvd->pwkv", joint, readers)
        joint = np.zeros((PROMPTS, WAYS, 4, WIDTH)) if joint is None else joint
        np.savez(
            self.folder / "0000.npz",
            response=np.stack([0.25 * response, 0.75 * response], 3),
            written=np.einsum("pd,pvd->pv", np.ones((PROMPTS, WIDTH)), readers)[:, None].repeat(2, 1),
            joint=joint,
            even=np.zeros_like(joint),
            size=self.size,
            unit=self.units,
            profile=np.einsum("pwd,pvd->pwv", self.units, readers),
            common=readers @ self.common,
            logit=readers @ np.arange(WIDTH),
            log_frequency=self.log_frequency[self.read],
            token=self.read,
            way_token=np.concatenate([self.ways, np.full((PROMPTS, 3), -1)], 1),
            index=np.arange(PROMPTS),
        )
        return estimator.squares(self.folder)

    def shares(self, sums: Any, way: int = 0) -> dict[str, float]:
        """Return the shares of one direction."""
        found = estimator.shares(numbers._sets(sums.isel(part=-1, way=[way])), FEW)
        return {str(name): float(each.sel(bound="estimate")) for name, each in found.items()}


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path)


def pushes(made: Made) -> np.ndarray:
    """Return the pushes as vectors, `[prompt, way, pushed, width]`."""
    return made.units[:, :, None] * made.size[:, None, :, None]


def test_recalibration_is_told(made: Made) -> None:
    """Each push is answered along the common mode alone, by as much as lies along it."""
    answer = -(pushes(made) @ made.common)[..., None] * made.common
    sums = made.squares(answer)
    found = made.shares(sums)
    assert found["both"] == pytest.approx(1)
    assert found["common"] == pytest.approx(1)
    assert found["token"] < 0.3
    assert found["beyond profile"] == pytest.approx(0, abs=1e-9)
    every = made.rows @ answer[0, 0, 0]
    assert sums["vocabulary total"].values[0, 0, 0] == pytest.approx((every**2).sum())
    assert sums["vocabulary both"].values[0, 0, 0] == pytest.approx((every**2).sum())


def test_a_response_to_frequency_is_told_and_a_shuffled_frequency_is_caught(made: Made) -> None:
    response = np.broadcast_to(-made.log_frequency[made.read][:, None, None], (PROMPTS, WAYS, 4, READ))
    assert made.shares(made.squares(response=response))["both"] == pytest.approx(1)
    made.log_frequency = made.log_frequency[::-1]
    # The common mode still holds the 4/5 of it that go with frequency here.
    assert made.shares(made.squares(response=response))["both"] == pytest.approx(0.8, abs=0.1)


def test_suppression_of_the_pushed_token_is_told(made: Made) -> None:
    """A write against the pushed direction is its profile; a fall of one token alone is that token."""
    found = made.shares(made.squares(-0.7 * pushes(made)), way=3)
    assert found["profile"] == pytest.approx(1)
    assert found["unique profile"] == pytest.approx(0, abs=1e-9)
    assert found["both − profile"] < 0
    direct = np.einsum("pwkd,pwd->pwk", pushes(made)[:, :6], made.rows[made.ways])
    response = np.zeros((PROMPTS, WAYS, 4, READ))
    for way in range(6):
        response[:, way, :, way] = -0.4 * direct[:, way]
    sums = made.squares(response=response)
    assert made.shares(sums, 2)["token"] == pytest.approx(1)
    taken = numbers._taken(sums.isel(part=-1, way=[2]), FEW).sel(bound="estimate")
    assert float(taken["taken"]) == pytest.approx(0.4)
    assert float(taken["foreseen"]) == pytest.approx(0, abs=1e-9)
    assert float(taken["own"]) == pytest.approx(0.4)


def test_damping_is_parted_by_the_common_mode(made: Made) -> None:
    along = (pushes(made) @ made.common)[..., None] * made.common
    sums = made.squares(-0.9 * along - 0.3 * (pushes(made) - along))
    found = numbers._damped(sums.isel(part=-1, way=[0, 1]), FEW).sel(bound="estimate")
    assert float(found["common"]) == pytest.approx(0.9)
    assert float(found["rest"]) == pytest.approx(0.3)


def test_squares_are_those_of_plain_least_squares(made: Made) -> None:
    joint = np.random.default_rng(3).standard_normal((PROMPTS, WAYS, 4, WIDTH))
    sums = made.squares(joint)
    readers = made.rows[made.read[5]]
    response, frequency = readers @ joint[5, 4, 2], made.log_frequency[made.read[5]]
    for name, terms in {
        "both": [readers @ made.common, frequency],
        "both+token": [readers @ made.common, frequency, made.read[5] == made.ways[5, 4]],
        "outside": [readers @ (made.units[5, 4] - made.common * (made.units[5, 4] @ made.common))],
    }.items():
        design = np.stack([np.ones(READ), *terms], 1)
        rest = response - design @ np.linalg.lstsq(design, response, rcond=None)[0]
        expected = ((response - response.mean()) ** 2).sum() - (rest**2).sum()
        assert sums[name].values[5, 4, 2, -1] == pytest.approx(expected)
        assert sums[name].values[5, 4, 2, 0] == pytest.approx(expected / 16)
    every = made.rows @ joint[5, 4, 2]
    design = np.stack([np.ones(TOKENS), made.rows @ made.common, made.log_frequency], 1)
    rest = every - design @ np.linalg.lstsq(design, every, rcond=None)[0]
    assert sums["vocabulary both"].values[5, 4, 2] == pytest.approx((every**2).sum() - (rest**2).sum())
    others = np.arange(READ) != 4
    design = np.stack([np.ones(READ), readers @ made.common, frequency], 1)
    fitted = np.linalg.lstsq(design[others], response[others], rcond=None)[0]
    direct = made.size[5, 2] * (readers[4] @ made.units[5, 4])
    assert sums["foreseen"].values[5, 4, 2] == pytest.approx(-direct * (design[4] @ fitted))


def cell(both: list[float], less_profile: list[float], vocabulary: float = 0.8, hold: float = 0.2) -> dict[str, Any]:
    """Return the numbers of a set that claims are decided by."""
    target = {"both": both, "both − token": [0.4, 0.3, 0.5], "both − profile": less_profile}
    taken = {"taken": [0.7, 0.6, 0.8], "more_than_half": [0.2, 0.1, 0.3], "own": [0.1, 0.05, 0.15]}
    return {
        "shares": {"target": target, "others": target, "fifth": target},
        "taken": {"target": taken, "others": taken},
        "beyond": {"push": [0.1, 0.05, 0.15], "written": [0.0, -0.1, 0.1]},
        "vocabulary": {"target": {"both": [vocabulary, 0, 1]}},
        "loudest": {"hold": hold, "without": 0.4, "blocks": 0.7},
    }


def test_verdicts_follow_the_declared_rule() -> None:
    settings = STUDY.settings | {"models": ["a"], "prompts": {"facts": "f", "passages": "p"}}
    good, both = cell([0.7, 0.6, 0.8], [0.1, 0.05, 0.2]), [0.9, 0.8, 0.95]

    def outcome(other: dict[str, Any]) -> str:
        of = {"sets": {"facts": {"confirmation": good}, "passages": {"confirmation": other}}}
        return str(judge(settings, {"a": of})["outcome"])

    assert outcome(good) == "holds"
    assert outcome(cell(both, [-0.1, -0.2, -0.05])) == "refuted"
    assert outcome(cell([0.6, 0.4, 0.8], [0.1, 0, 0.2])) == "can't tell"
    assert outcome(cell(both, [-0.1, -0.2, 0.05], vocabulary=0.4)) == "can't tell"
    assert outcome(cell(both, [-0.1, -0.2, -0.05], hold=0.5)) == "can't tell"
    assert outcome(cell(both, [0.1, 0, 0.2], hold=0.5)) == "can't tell"
    of = {"sets": {"facts": {"confirmation": good}, "passages": {"confirmation": cell([0.3, 0.2, 0.4], [0.1, 0, 0.2])}}}
    found = judge(settings, {"a": of})["secondary"]
    assert found["follows"]["holds"]
    assert not found["another"]["holds"]
    assert found["another"]["in"] == [["a", "facts"]]
    assert found["beyond_writes"]["in"] == []


def test_tokens_are_chosen_once_and_matched_by_frequency() -> None:
    logits = np.array([5.0, 4.0, 0, 0, 0, 0, 0, 0, 0, 0])
    log_frequency = np.array([-1.0, -5.0, -4.5, -1.2, -9, -9, -9, -9, -9, -2])
    chosen = geometry.choose_tokens(logits, log_frequency, [9, 1], (2, 2, 3), np.random.default_rng(0))
    assert chosen[:5].tolist() == [0, 1, 3, 2, 9]
    assert len(set(chosen.tolist())) == len(chosen) == 7


def test_the_common_mode_is_that_of_all_readout_directions() -> None:
    model = hs.load_model("built-in")
    frequency = np.linspace(-9, -1, model.vocabulary)
    found = geometry.Geometry.of(model, frequency)
    weight = model.unembedding.weight.detach().double().numpy()[: model.vocabulary]
    rows = (weight - weight.mean(0)) * model.final_norm.weight.detach().double().numpy()
    values, vectors = np.linalg.eigh(rows.T @ rows)
    assert abs(vectors[:, -1] @ found.common) == pytest.approx(1, abs=1e-4)
    assert found.energy == pytest.approx(values[-1] / values.sum(), rel=1e-4)


@torch.no_grad()
def test_responses_are_those_of_plain_hooks() -> None:
    """Push one sublayer by a hook at the last token, and read late MLPs by hooks, one prompt at a time."""
    torch.set_num_threads(1)
    model = hs.load_model("built-in")
    settings = small(STUDY.settings)
    places = runs.Places.of(settings, model, "built-in")
    prompts = hs.load_prompts("world-facts").limit(2)
    tokens = [model.tokenizer(prompt.text)["input_ids"] for prompt in prompts.prompts]
    frequency = np.linspace(-9, -1, model.vocabulary)
    common = geometry.Geometry.of(model, frequency).common
    found = runs.push(settings, model, places, [0, 1], tokens, frequency, common)
    row, way, number = 1, 3, 2
    place = places.pushed[number]

    def late(dose: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what late MLPs write, and the final stream."""
        kept: dict[Component | str, torch.Tensor] = {}

        def change(module: Any, inputs: Any, output: Any) -> Any:
            value = (output[0] if isinstance(output, tuple) else output).clone()
            along = value[0, -1] @ torch.from_numpy(found["unit"][row, 0])
            value[0, -1] += dose * along * torch.from_numpy(found["unit"][row, way])
            return (value, *output[1:]) if isinstance(output, tuple) else value

        handles = [model.output(place).register_forward_hook(change)]
        for each in places.late:
            handles.append(
                model.output(each).register_forward_hook(lambda m, i, o, each=each: kept.__setitem__(each, o[0, -1]))
            )
        handles.append(model.final_norm.register_forward_hook(lambda m, i, o: kept.__setitem__("final", i[0][0, -1])))
        model.hf(torch.tensor([tokens[row]]))
        for handle in handles:
            handle.remove()
        return torch.stack([kept[each] for each in places.late]), kept["final"]

    (up, _), (down, _), (_, final) = late(1.0), late(-1.0), late(0.0)
    sigma = (final.double().square().mean() + model.norm_eps).sqrt()
    weight = model.unembedding.weight.double()
    rows = (weight[found["token"][row]] - weight.mean(0)) * model.final_norm.weight.double()
    expected = ((up - down) / 2).double() @ rows.T / sigma
    assert np.allclose(found["response"][row, way, number], expected, atol=2e-5)
    assert abs(expected).max() > 1e-3
    assert np.allclose(found["joint"][row, way, number], ((up - down) / 2).sum(0) / sigma, atol=2e-5)


def small(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a small study of the built-in model."""
    return settings | {
        "models": ["built-in"],
        "prompts": {"facts": "world-facts", "passages": "passages"},
        "halves": {
            "explored_before": 2,
            "rule": "r",
            "reason": "r",
            "facts": {"exploration": 3, "confirmation": 24},
            "passages": {"exploration": 3, "confirmation": 3},
        },
        "tokens": {"likely": 12, "matched": 12, "drawn": 12, "seed": 0},
        "frequency": {"passages": 3},
        "weight_noise": {"prompts": 2, "set": "facts", "seeds": [0], "rule": "r"},
        "distance": {"prompts": 24, "set": "facts"},
        "intervals": {"resamples": 50, "confidence": 0.95, "seed": 0},
    }


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[runs.Run, Path]]:
    """The settings of a small study, and the folders of its results."""
    torch.set_num_threads(1)
    settings = small(STUDY.settings)
    prompts = {name: hs.load_prompts(source).limit(60) for name, source in settings["prompts"].items()}
    return settings, erasure.measure(settings, prompts, tmp_path_factory.mktemp("stores"))


@pytest.mark.slow
def test_a_small_run_goes_all_the_way(measured: tuple[dict[str, Any], dict[runs.Run, Path]]) -> None:
    settings, stores = measured
    results = json.loads(json.dumps(erasure.condense(settings, stores)))
    page = erasure.render(settings, results)
    assert "built-in, facts" in page
    assert "nan" not in page.replace("finance", "").lower()
    assert len(erasure.draw(results).axes) == 1


def test_the_page_is_rendered_from_the_stored_results() -> None:
    assert STUDY.page.read_text("utf-8") == erasure.render(STUDY.settings, STUDY.read_results())
