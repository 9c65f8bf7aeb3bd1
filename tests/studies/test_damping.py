"""Damping or Hydra: the estimator on made data, the phantom's known answer, and the page."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import hydrascope as hs
from hydrascope.components.component import Component
from hydrascope.engines.clean.activations import CleanActivations
from hydrascope.measures import Bootstrap
from hydrascope.utils.errors import HydrascopeError
from studies import damping
from studies.__main__ import load_prompts
from studies.damping import afterwards, verdict
from studies.damping.ablations import BeyondEmbeddings, Pushes, WrongContent
from studies.damping.estimator import (
    Chosen,
    Scored,
    both_ways,
    choose,
    loudest,
    responses,
    share_without,
    shares,
    weigh,
)
from studies.damping.halves import places
from studies.damping.runs import Run
from studies.damping.weight_noise import steps, with_noise
from studies.study import Study

STUDY = Study("damping")
LABELS = ("attn.1", "mlp.1", "attn.2", "mlp.2", "attn.3")
BOOTSTRAP = Bootstrap(resamples=200)


def made(damped: float, content: float, prompts: int = 80, seed: int = 0, noise: float = 0.3) -> xr.Dataset:
    """Return responses of a network that undoes a share of a push, and writes for a share of missing content."""
    draw = np.random.default_rng(seed)
    shape = (prompts, len(LABELS))
    sizes, levels = np.array([0.2, 0.5, 1, 2, 5]), np.array([0.5, -1, 0, 2, -3])
    removed = levels + sizes * draw.standard_normal(shape)
    pushed = removed + 0.1 * sizes * draw.standard_normal(shape)
    to_content = content * removed + noise * sizes * draw.standard_normal(shape)
    to_push = damped * pushed
    values = {
        "removed": removed,
        "restored": to_content + to_push,
        "pushed": pushed,
        "damped": to_push,
        "content": to_content,
        "doubled": -removed,
        "undone": -to_content - to_push,
    }
    return xr.Dataset({name: (("prompt", "ablated"), each) for name, each in values.items()}, {"ablated": list(LABELS)})


def everything(measured: xr.Dataset) -> list[Scored]:
    return [Scored(np.ones(measured.sizes["prompt"], bool), weigh(measured, LABELS))]


@pytest.mark.parametrize(("damped", "content", "share"), [(0.8, 0, 0), (0, 0.7, 1), (0.6, 0.2, 0.25)])
def test_the_share_of_content_is_that_of_made_networks(damped: float, content: float, share: float) -> None:
    measured = made(damped, content, prompts=4000, noise=0.05)
    found = shares(measured, everything(measured), BOOTSTRAP).sel(bound="estimate")
    assert float(found["share"]) == pytest.approx(share, abs=0.01)
    assert float(found["damping"]) == pytest.approx(damped, abs=0.01)
    assert float(found["content"]) == pytest.approx(content, abs=0.01)
    assert float(found["share_of_slopes"]) == pytest.approx(share, abs=0.01)
    assert float(found["share_of_origins"]) == pytest.approx(share, abs=0.01)
    assert float(found["one_sided"]) == pytest.approx(0, abs=1e-12)


def test_pooled_numbers_are_those_of_loops() -> None:
    """Each number again, component by component, with each half scored by the components of the other."""
    measured = made(0.6, 0.2, prompts=41).assign(undone=made(0.3, 0.1, prompts=41, seed=1)["restored"])
    first, second = Chosen(LABELS[:3], (1.0, 2.0, 0.5)), Chosen(LABELS[2:], (3.0, 0.7, 1.1))
    found = shares(measured, both_ways(41, (first, second)), BOOTSTRAP).sel(bound="estimate")
    sums = dict.fromkeys(("xy", "xx", "xc", "pd", "pp", "PD", "PP", "bu", "bb", "even", "all"), 0.0)
    for chosen, start in ((first, 1), (second, 0)):
        for label, weight in zip(chosen.labels, chosen.weights, strict=True):
            of = {str(name): each.sel(ablated=label).values[start::2] for name, each in measured.items()}
            x, p, b = of["removed"], of["pushed"], of["doubled"]
            even, odd = (of["restored"] + of["undone"]) / 2, (of["restored"] - of["undone"]) / 2
            for name, value in (
                ("xy", np.cov(x, of["restored"], bias=True)[0, 1]),
                ("xx", x.var()),
                ("xc", np.cov(x, of["content"], bias=True)[0, 1]),
                ("pd", np.cov(p, of["damped"], bias=True)[0, 1]),
                ("pp", p.var()),
                ("PD", np.mean(p * of["damped"])),
                ("PP", np.mean(p**2)),
                ("bu", np.cov(b, of["undone"], bias=True)[0, 1]),
                ("bb", b.var()),
                ("even", np.mean(even**2)),
                ("all", np.mean(even**2 + odd**2)),
            ):
                sums[name] += weight * value
    g, h = sums["PD"] / sums["PP"], sums["xc"] / sums["xx"]
    for name, expected in (
        ("whole", sums["xy"] / sums["xx"]),
        ("readout", sums["pd"] / sums["pp"]),
        ("boost", sums["bu"] / sums["bb"]),
        ("damping", g),
        ("content", h),
        ("share", h / (h + g)),
        ("one_sided", sums["even"] / sums["all"]),
    ):
        assert float(found[name]) == pytest.approx(expected, rel=1e-9), name


@pytest.mark.slow
def test_intervals_of_the_share_cover_it() -> None:
    covered = []
    for seed in range(200):
        measured = made(0.6, 0.2, prompts=40, seed=seed, noise=1)
        chosen = Chosen(LABELS, tuple(1 / np.array([0.2, 0.5, 1, 2, 5]) ** 2))
        _, low, high = shares(measured, [Scored(np.ones(40, bool), chosen)], BOOTSTRAP)["share"].values
        covered.append(low <= 0.25 <= high)
    assert 0.9 <= np.mean(covered) <= 0.99


def test_components_that_remove_and_come_back_are_chosen() -> None:
    measured = made(0.6, 0.2, noise=0)
    measured["restored"][:, 1] = 0.1 * measured["removed"][:, 1]
    measured["removed"][:, 0] *= 0.01
    measured["restored"][:, 0] *= 0.01
    chosen = choose(measured, LABELS[:4], least_slope=0.2, least_removed=0.1)
    assert chosen.labels == ("attn.2", "mlp.2")
    assert chosen.weights == pytest.approx([1 / measured["removed"].values[:, place].var() for place in (2, 3)])


def test_loud_prompts_are_found_and_left_out() -> None:
    measured = made(0.8, 0, prompts=100)
    for name in ("removed", "content"):
        measured[name][7] = 50
    weights = [Scored(np.ones(100, bool), Chosen(LABELS, (1.0,) * 5))]
    top, held = loudest(measured, weights)
    size = abs(measured["removed"].values).sum(1)
    assert 7 in top
    assert len(top) == 5
    assert held == pytest.approx(np.sort(size)[-5:].sum() / size.sum())
    assert float(shares(measured, weights, BOOTSTRAP)["share"][0]) > 0.3
    assert abs(share_without(measured, weights, top)) < 0.1


def test_a_share_of_nothing_has_no_bounds() -> None:
    measured = made(0, 0)
    found = shares(measured, everything(measured), BOOTSTRAP)
    assert np.isnan(found["share"].values[1:]).all()
    assert np.isfinite(found["content"].values).all()


def test_halves_are_apart_and_the_pilot_is_in_the_first() -> None:
    explored, confirmed = (places(half, 788, 150) for half in ("exploration", "confirmation"))
    assert not {*explored} & {*confirmed}
    assert sorted(explored + confirmed) == list(range(788))
    assert min(confirmed) == 151
    assert all(place % 2 for place in confirmed)


def _cell(share: list[float], clean: float, held: float = 0.1, without: float = 0.1) -> dict[str, Any]:
    own = {"share": share, "boost_ratio": [1, 0.95, 1.05], "one_sided": [0.1, 0.05, 0.15]}
    of = {
        "own": own,
        "clean": own | {"share": [clean, clean - 0.01, clean + 0.01]},
        "loudest": {"hold": held, "without": without, "blocks": share[0]},
    }
    return {"confirmation": {"difference": of, "logit": of}}


@pytest.mark.parametrize(
    ("second", "outcome"),
    [
        (_cell([0.2, 0.1, 0.3], 0.2), "holds"),
        (_cell([0.5, 0.4, 0.6], 0.5), "refuted"),
        (_cell([0.3, 0.2, 0.4], 0.3), "can't tell"),
        (_cell([0.2, 0.1, 0.3], 0.4), "can't tell"),
        (_cell([0.5, 0.4, 0.6], 0.3), "can't tell"),
        (_cell([0.2, 0.1, 0.3], 0.2, held=0.5, without=0.4), "can't tell"),
        (_cell([0.2, 0.1, 0.3], 0.2, held=0.2, without=0.4), "holds"),
    ],
)
def test_the_outcome_is_the_declared_one(second: dict[str, Any], outcome: str) -> None:
    settings = STUDY.settings | {"models": ["one", "two"], "prompts": {"facts": "counterfact"}}
    first = _cell([0.1, 0.0, 0.2], 0.1)
    found = verdict.judge(settings, {"one": {"sets": {"facts": first}}, "two": {"sets": {"facts": second}}})
    assert found["outcome"] == outcome
    assert found["secondary"]["boost"]["holds"]
    assert not found["secondary"]["wrong_content"]["holds"]


def test_a_file_stands_in_for_the_downloaded_set_alone(tmp_path: Path) -> None:
    file = tmp_path / "facts.json"
    file.write_text('[{"prompt": "Iron is"}]')
    found = load_prompts(STUDY.settings["prompts"], str(file))
    assert [len(found[name]) for name in ("facts", "passages")] == [1, 788]
    assert len(load_prompts("counterfact", str(file))) == 1
    with pytest.raises(HydrascopeError, match="takes no file of prompts: it declares passages"):
        load_prompts({"texts": "passages"}, str(file))


def test_noise_is_as_large_as_rounding_and_leaves_the_model_alone() -> None:
    grid = torch.randint(0, 16, (8, 64), generator=torch.Generator().manual_seed(0)) * 0.25 - 1.0
    assert steps(grid).unique().tolist() == [0.25]
    model = hs.load_model("built-in")
    before = {name: weight.clone() for name, weight in model.hf.named_parameters()}
    noised = with_noise(model, 0)
    for name, weight in model.hf.named_parameters():
        assert torch.equal(weight, before[name])
    changed = {name: weight - before[name] for name, weight in noised.hf.named_parameters()}
    assert all(bool(each.any()) == (each.ndim == 2) for each in changed.values())


def test_wrong_content_has_another_direction_and_the_same_size() -> None:
    """Compare with plain vectors, which a fake set of activations gives."""
    prompts = hs.prompts.PromptSet.of(["The sun is", "The moon is", "A star is"])
    model = hs.load_model("built-in")
    taken: dict[str, Any] = {}

    @dataclass(frozen=True)
    class Spy(WrongContent):
        def draw(self, clean: CleanActivations, prompts: Any) -> Any:
            taken.update(clean=clean, patches=super().draw(clean, prompts))
            return taken["patches"]

    hs.sweep(model, prompts, Spy(), ablate="attn.8", readouts=[hs.LogitDifference()])
    component, clean = Component.parse("attn.8"), taken["clean"]
    own = clean.own_activations(component, range(3)).numpy()[:, 0, 0]
    unembedding = model.unembedding.weight.detach().numpy()
    gain = model.final_norm.weight.detach().numpy()
    written = WrongContent().draw(clean, range(3)).values(component).numpy()[:, 0, 0]
    sources = WrongContent().draw(clean, range(3)).sources[:, 0]
    for place in range(3):
        a = gain * (unembedding[clean.targets[place]] - unembedding[clean.rivals[place]])
        content = [vector - a * (vector @ a) / (a @ a) for vector in (own[place], own[sources[place]])]
        expected = content[1] * np.linalg.norm(content[0]) / np.linalg.norm(content[1])
        assert written[place] == pytest.approx(expected, abs=1e-5)
        assert sources[place] != place


def test_content_is_judged_among_prompts_of_equal_clean_readout() -> None:
    """A loss that is a share of the clean readout shows as content repair, until the readout is in the regression."""
    measured = made(0.6, 0, prompts=3000, noise=0.1)
    clean = np.random.default_rng(1).standard_normal(3000)
    pulled = measured.assign(
        removed=measured["removed"] - 2 * clean[:, None], content=measured["content"] - clean[:, None]
    )
    chosen = weigh(pulled, LABELS)
    assert float(shares(pulled, everything(pulled), BOOTSTRAP)["content"][0]) > 0.1
    assert afterwards.content_given(pulled, chosen, clean) == pytest.approx(0, abs=0.01)


def test_thirds_and_single_components_are_taken_apart() -> None:
    measured = made(0.8, 0, prompts=400, noise=0.01)
    measured["content"][:, :2] = measured["removed"][:, :2]
    chosen = weigh(measured, LABELS)
    found = afterwards.by_depth(measured, chosen, 4, BOOTSTRAP)
    # attn.3 alone is in the last third of four blocks.
    assert float(found["last"]["share"][0]) == pytest.approx(0, abs=0.02)
    assert float(found["middle"]["content"][0]) == pytest.approx(0.5, abs=0.02)
    lowest = afterwards.without_one(measured, chosen)
    assert lowest["attn.3"] == pytest.approx(float(found["middle"]["share"][0]))
    assert min(lowest, key=lambda label: lowest[label]) in LABELS[:2]


def test_the_plane_of_both_directions_stays() -> None:
    """Leave the readout's direct effect and the plain embeddings' product, in their plane."""
    prompts = hs.load_prompts("common-facts").limit(4)
    model = hs.load_model("built-in")
    left = hs.sweep(model, prompts, BeyondEmbeddings(), ablate="attn.12", readouts=[hs.LogitDifference()])
    changed = hs.measures.own_change(hs.measures.per_prompt(left, "difference"))
    assert changed.values == pytest.approx(0, abs=1e-5)
    assert abs(left["total"].values).max() > 1e-3


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[Run, Path]]:
    """The settings of a small study, and the paths of its results."""
    torch.set_num_threads(1)
    declared = STUDY.settings
    settings = declared | {
        "models": ["built-in"],
        "prompts": {"facts": "common-facts"},
        "ablate": "mlp.12,attn.14",
        "halves": declared["halves"] | {"explored_before": 4, "facts": {"exploration": 8, "confirmation": 24}},
        "selection": declared["selection"] | {"least_slope": -9, "least_removed": 0},
        "controls": {"phantom": declared["controls"]["phantom"] | {"exploration": 8, "confirmation": 12}},
        "wrong_content": {"prompts": 4, "seed": 0},
        "pushes": {"prompts": 4, "set": "facts", "tokens": 2, "directions": 2, "seed": 0},
        "weight_noise": {"prompts": 4, "set": "facts", "seeds": [0]},
        "distance": {"prompts": 24, "set": "facts"},
        "if_time_allows": {"mean": {"prompts": 4}, "resample": {"prompts": 4, "patches": 2, "seed": 0}},
        "intervals": {"resamples": 50, "confidence": 0.95, "seed": 0},
    }
    prompts = {"facts": hs.load_prompts("common-facts").limit(60)}
    return settings, damping.measure(settings, prompts, tmp_path_factory.mktemp("stores"))


@pytest.fixture(scope="module")
def condensed(quick: tuple[dict[str, Any], dict[Run, Path]]) -> dict[str, Any]:
    """The numbers of the small study."""
    return damping.condense(*quick)


@pytest.mark.slow
def test_the_phantom_repairs_content_alone(condensed: dict[str, Any]) -> None:
    phantom = condensed["models"]["phantom"]["sets"]["phantom"]
    assert phantom["chosen"] == {"difference": ["attn.3"], "logit": ["attn.3"]}
    for readout in ("difference", "logit"):
        for scale in ("own", "clean"):
            of = phantom["confirmation"][readout][scale]
            assert of["share"] == pytest.approx([1, 1, 1], abs=2e-3)
            assert of["damping"][0] == pytest.approx(0, abs=2e-3)
            assert of["content"][0] == pytest.approx(of["whole"][0], abs=2e-3)
    assert phantom["components"]["content"] == 1
    assert phantom["components"]["prediction"] == 0


@pytest.mark.slow
def test_responses_are_those_of_the_stored_effects(quick: tuple[dict[str, Any], dict[Run, Path]]) -> None:
    """Each variable from the labels alone; books at both scales; the readout part pushed by hand."""
    _, stores = quick
    stored = hs.open_results(stores[Run("built-in", "facts", "confirmation", "zero")]).load()
    of = {label: stored.sel(readout="difference", ablated=label).isel(patch=0) for label in stored["ablated"].values}
    own, clean = responses(stored, "difference"), responses(stored, "difference", "clean")
    for label in ("mlp.12", "attn.14"):
        whole, content = of[label], of[f"{label}:content(difference)"]
        push, boost = of[f"{label}:readout(difference)"], of[f"{label}:boost"]
        for name, values in {
            "removed": -whole["direct"],
            "restored": whole["total"] - whole["direct"],
            "pushed": -push["direct"],
            "damped": push["total"] - push["direct"],
            "content": content["total"] - content["direct"],
            "doubled": -boost["direct"],
            "undone": boost["total"] - boost["direct"],
        }.items():
            assert own[name].sel(ablated=label).values == pytest.approx(values.values, abs=1e-6), name
        moved = (whole["unembed_ablated"] - whole["unembed"]).astype(float)
        later = whole["downstream"].values.astype(bool)
        assert clean["removed"].sel(ablated=label).values == pytest.approx(-moved.sel(component=label).values, abs=1e-5)
        assert clean["restored"].sel(ablated=label).values == pytest.approx(moved.values[:, later].sum(1), abs=1e-5)
    assert float(stored["imbalance"].max()) < 1e-3
    main = hs.open_results(stores[Run("built-in", "facts", "confirmation", "zero")])
    pushed = hs.open_results(stores[Run("built-in", "facts", "confirmation", "pushes")])
    expected = main["total"].sel(readout="logit", ablated="attn.14:readout(logit)").values[:4, 0]
    assert pushed["total"].sel(readout="logit", ablated="attn.14", patch=0).values == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
def test_a_small_run_goes_all_the_way(quick: tuple[dict[str, Any], dict[Run, Path]], condensed: dict[str, Any]) -> None:
    results = json.loads(json.dumps(condensed))
    page = damping.render(quick[0], results)
    assert "NaN" not in page
    assert "nan" not in page
    assert damping.draw(results).axes


def test_the_page_is_rendered_from_the_stored_results() -> None:
    assert STUDY.page.read_text("utf-8") == damping.render(STUDY.settings, STUDY.read_results())


def test_pushes_are_as_long_as_the_readout_part() -> None:
    prompts = hs.load_prompts("common-facts").limit(5)
    model = hs.load_model("built-in")
    push = Pushes(tokens=1, directions=1)
    stored = hs.sweep(model, prompts, push, ablate="attn.12", readouts=push.readouts(model.width))
    assert stored["readout"].values.tolist() == ["logit", "placebo.0", "random.0"]
    assert push.patches == stored.sizes["patch"] == 3
