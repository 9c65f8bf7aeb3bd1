"""The study of attribution's error: made books with a known answer, plain passes, its runs, and its page."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from tiny import shared

import hydrascope as hs
from hydrascope.measures import Bootstrap
from hydrascope.models.float64 import Float64Mode
from studies import attribution
from studies.attribution import estimator, numbers, sets
from studies.attribution.ablations import Doses
from studies.attribution.gradients import predicted
from studies.attribution.runs import Run
from studies.attribution.verdict import judge
from studies.study import Study

STUDY = Study("attribution")
DOSES = [0, 0.95, 1.05, 0.45, 0.55]
NARROW = [*DOSES, 0.975, 1.025]
PROMPTS, ABLATED = 12, ["attn.0", "mlp.0", "mlp.1"]


def made(seed: int = 0) -> xr.Dataset:
    """Return books in which each term is a cubic of the dose with known coefficients, `[term, prompt, ablated]`."""
    random = np.random.default_rng(seed)
    linear, square, cube = (random.standard_normal((4, PROMPTS, len(ABLATED))) for _ in range(3))
    square[3] = cube[3] = 0  # the own write is linear
    off = 1 - np.array(sorted(DOSES))
    change = sum(each[..., None] * off ** (power + 1) for power, each in enumerate((linear, square, cube)))
    dims = ("term", "prompt", "ablated")
    return xr.Dataset(
        {
            "change": ((*dims, "dose"), change),
            "total": (("prompt", "ablated", "dose"), change.sum(0)),
            "unembed": (("prompt", "ablated"), -linear[3]),
            "linear": (dims, linear),
            "square": (dims, square),
            "cube": (dims, cube),
        },
        {"term": list(estimator.TERMS), "ablated": ABLATED, "dose": sorted(DOSES)},
    )


def test_the_books_of_each_estimate_are_those_of_the_coefficients() -> None:
    found = made()
    linear, square, cube = (found[name] for name in ("linear", "square", "cube"))
    # X(0) + X′(1) leaves the curvature; a width of ε adds ε² of the third order.
    left = {
        "atp": (estimator.predicted_by_doses(found, [1.0], 0.05), square + cube * (1 - 0.05**2)),
        "ig": (estimator.predicted_by_doses(found, [0.5], 0.05), cube * (1 - 3 / 4 - 0.05**2)),
        "lens": (estimator.predicted_by_lens(found), (linear + square + cube).where(found["term"] != "own", 0)),
    }
    for guess, expected in left.values():
        sums = estimator.left_by(found, guess)
        error = expected.sum("term")
        assert np.allclose(sums["error"], error)
        assert np.allclose(sums["product"], (expected * error).transpose("term", ...))
        assert float(sums["imbalance"].max()) < 1e-12
        responses = expected.sel(term=["attention", "mlp"]).sum("term")
        back = responses.values * found["linear"].sel(term="own").values < 0
        assert np.allclose(sums["given back"], np.where(back, responses * error, 0))
        assert np.allclose(sums["without responses²"], (error - responses) ** 2)


def test_shares_are_shapley_values_of_the_squared_error() -> None:
    sums = estimator.left_by(found := made(1), estimator.predicted_by_doses(found, [1.0], 0.05))
    left = (found["square"] + found["cube"] * (1 - 0.05**2)).transpose("prompt", "ablated", "term").values
    values = np.array([estimator.shapley(row) for row in left.reshape(-1, 4)])
    shares = estimator.shares(sums.sum(("prompt", "ablated")))
    for place, term in enumerate(estimator.TERMS):
        assert float(shares[term]) == pytest.approx(values[:, place].sum() / values.sum())
    assert float(shares["responses"]) == pytest.approx(1 - float(shares["norm"]))
    assert float(shares["given back"] + shares["taken"]) == pytest.approx(float(shares["responses"]))
    # A term that isn't booked is caught.
    broken = found.assign(change=found["change"].where(found["term"] != "norm", 0))
    caught = estimator.left_by(broken, estimator.predicted_by_doses(broken, [1.0], 0.05))["imbalance"]
    assert float(caught.max()) > 0.1


def test_sets_weigh_the_same_and_templates_are_units() -> None:
    loud, quiet = (estimator.left_by(each := made(seed), estimator.predicted_by_lens(each)) for seed in (2, 3))
    loud = loud * 100
    blocks = sets.blocks_of(PROMPTS, 6)
    together = estimator.pooled({"a": estimator.in_blocks(loud, blocks), "b": estimator.in_blocks(quiet, blocks)})
    assert together.sizes["prompt"] == 6
    found = estimator.shares(together.mean("prompt"))
    each = [float(estimator.shares(one.sum(("prompt", "ablated")))["mlp"]) for one in (loud, quiet)]
    assert float(found["mlp"]) == pytest.approx(np.mean(each))
    low, high = estimator.by_t(together, 0.95)[1:]
    share = np.zeros(6)
    for label in ("a", "b"):
        one = together.sel(set=label)
        above = one["product"].sel(term=["attention", "mlp"]).sum("term").values
        below = one["error²"].values
        share += (above - above.sum() / below.sum() * below) / below.mean() / 2
    assert high - low == pytest.approx(2 * 2.5706 * share.std(ddof=1) / 6**0.5, rel=1e-4)


def test_what_is_mended_adds_up() -> None:
    before, after = made(4), made(5)
    atp, other = (estimator.left_by(each, estimator.predicted_by_lens(each)) for each in (before, after))
    found = numbers._against({"a": other}, {"a": atp}, Bootstrap(resamples=20))
    parts = sum(found[term][0] for term in estimator.TERMS)
    assert found["ratio"][0] == pytest.approx(float(other["error²"].sum() / atp["error²"].sum()), abs=1e-4)
    assert parts == pytest.approx(1 - found["ratio"][0], abs=5e-4)


#: Prompts of tokens, each with an answer and a foil.
PAIRS = [(5, 9), (7, 3)]
PROMPTS_READ = [
    hs.Prompt(tokens=tokens, answer=answer, foil=foil)
    for tokens, (answer, foil) in zip([(1, 4, 9, 20), (1, 30, 8, 8, 17)], PAIRS, strict=True)
]


@pytest.fixture(scope="module")
def swept() -> xr.Dataset:
    """Doses of all sublayers of a tiny model in float64."""
    with Float64Mode():
        return hs.sweep(
            shared("llama"),
            PROMPTS_READ,
            Doses("zero", tuple(NARROW)),
            ablate="layers",
            readouts=[hs.LogitDifference()],
            target="answer",
            keep="patches",
        )


@torch.no_grad()
@pytest.mark.parametrize("sigma_of", ["clean", "own"])
def test_terms_are_those_of_plain_hooks(swept: xr.Dataset, sigma_of: Any) -> None:
    """Scale one sublayer's write by a hook at the last token, and read all writes by hooks, one prompt alone."""
    model, dose, (answer, foil) = shared("llama"), 0.45, PAIRS[1]
    tokens = PROMPTS_READ[1].tokens
    weight = model.unembedding.weight
    reader = (weight[answer] - weight[foil]) * model.final_norm.weight

    def run(scale: float) -> tuple[dict[str, float], float, float, float]:
        kept: dict[str, torch.Tensor] = {}

        def write(label: str, output: Any) -> Any:
            value = (output[0] if isinstance(output, tuple) else output).clone()
            value[0, -1] *= scale if label == "mlp.0" else 1
            kept[label] = value[0, -1]
            return (value, *output[1:]) if isinstance(output, tuple) else value

        handles = [
            model.output(each).register_forward_hook(lambda m, i, o, each=each: write(str(each), o))
            for each in model.sublayers
        ]
        handles.append(model.final_norm.register_forward_hook(lambda m, i, o: kept.__setitem__("z", i[0][0, -1])))
        logits = model.hf(torch.tensor([tokens])).logits[0, -1]
        for handle in handles:
            handle.remove()
        z = kept.pop("z")
        sigma = float((z.square().mean() + model.norm_eps).sqrt())
        writes = {label: float(each @ reader) for label, each in kept.items()}
        return writes, float(z @ reader), sigma, float(logits[answer] - logits[foil])

    with Float64Mode():
        (clean, z, sigma, logit), (after, z_after, sigma_after, logit_after) = run(1.0), run(dose)
    read_at = sigma if sigma_of == "clean" else sigma_after
    later = [label for label in clean if int(label[-1]) > 0]
    change = {label: after[label] / read_at - clean[label] / sigma for label in clean}
    responses = {kind: sum(change[each] for each in later if each.startswith(kind)) for kind in ("attn", "mlp")}
    if sigma_of == "clean":
        norm = z_after / sigma_after - z_after / sigma
    else:
        norm = (z - sum(clean[each] for each in [*later, "mlp.0"])) * (1 / sigma_after - 1 / sigma)
    found = estimator.changes(swept, "difference", sigma_of, NARROW).isel(prompt=1).sel(ablated="mlp.0", dose=dose)
    assert found["change"].values == pytest.approx([*responses.values(), norm, change["mlp.0"]], abs=1e-9)
    assert float(found["change"].sum("term")) == pytest.approx(logit_after - logit, abs=1e-9)
    assert float(found["total"]) == pytest.approx(logit_after - logit, abs=1e-9)
    assert min(map(abs, [*responses.values(), norm])) > 1e-4


METHODS = {
    "atp": hs.analyses.attribution.atp,
    "atp_star": hs.analyses.attribution.atp_star,
    "gim": hs.analyses.attribution.gim,
}


@pytest.mark.parametrize("method", METHODS)
def test_gradients_by_term_add_up_to_the_estimate(swept: xr.Dataset, method: str) -> None:
    settings, model = {"at": "last", "target": "answer"}, shared("llama")
    prompts = hs.prompts.PromptSet.of(PROMPTS_READ)
    with Float64Mode():
        terms = predicted(settings, model, prompts, method, hs.LogitDifference())
        given = METHODS[method](model, prompts, hs.Zero(), readouts=[hs.LogitDifference()], target="answer")
    assert np.allclose(terms.sum(0), given["estimate"].values[0], atol=1e-9)
    found = estimator.changes(swept, "difference", "clean", NARROW)
    assert np.allclose(terms[3], found["change"].sel(term="own", dose=0), atol=1e-9)
    if method == "atp":
        wide, narrow = (estimator.predicted_by_doses(found, [1.0], width).values for width in (0.05, 0.025))
        # Two widths together are exact to the fourth order.
        assert np.allclose(terms, (4 * narrow - wide) / 3, atol=1e-6)
        assert not np.allclose(terms, wide, atol=1e-6)


@pytest.mark.slow
def test_no_word_and_no_template_is_in_both_halves() -> None:
    model = hs.load_model("built-in")
    made: dict[str, dict[str, Any]] = {}
    settings = STUDY.settings | {"halves": STUDY.settings["halves"] | {"exploration": 12, "confirmation": 12}}
    for label in sets.TEMPLATES:
        for half in ("exploration", "confirmation"):
            chosen = sets.prompts_of(settings, {}, label, half, model)  # type: ignore[arg-type]
            assert len(chosen) == 12
            assert len({prompt.template for prompt in chosen}) == len(sets.TEMPLATES[label][half])  # type: ignore[index]
            made.setdefault(label, {})[half] = {
                field: {getattr(prompt, field) for prompt in chosen} for field in ("template", "subject")
            }
    for of in made.values():
        for field in ("template", "subject"):
            assert not of["exploration"][field] & of["confirmation"][field]


def cell(lens: list[float], atp: list[float], own: float | None = None) -> dict[str, Any]:
    """Return the numbers of a model that claims are decided by."""
    both = {"lens": lens, "atp": atp}
    parts = {"given back": [0.3, 0.2, 0.4], "taken − given back": [0.3, 0.2, 0.4]}
    reading = {
        each: {
            "pooled": {"responses": of, "mlp − attention": [0.2, 0.1, 0.3], **parts},
            "t": of,
            "sets": {"a": {"responses": of}},
        }
        for each, of in both.items()
    }
    at_own = {each: {"pooled": {"responses": [own if own is not None else of[0]]}} for each, of in both.items()}
    return {
        "difference": reading,
        "logit": reading,
        "without_largest": reading,
        "own_scale": at_own,
        "counterfactual": reading["atp"],
        "loudest": {each: {"a": {"hold": 0.1, "without": 0, "blocks": 0}} for each in both},
        "against_atp": {each: {"ratio": [0.4, 0.3, 0.45]} for each in ("ig", "atp_star", "gim")},
        "kappa": {"more": [0.2, 0.1, 0.3]},
    }


def test_verdicts_follow_the_declared_rule() -> None:
    high, low, across = [0.8, 0.7, 0.9], [0.2, 0.1, 0.3], [0.45, 0.3, 0.6]
    good = cell(high, low)

    def outcome(other: dict[str, Any]) -> str:
        return str(judge(STUDY.settings, {"a": good, "b": other})["outcome"])

    assert outcome(good) == "holds"
    assert outcome(cell(high, high)) == "refuted"
    assert outcome(cell(low, low)) == "refuted"
    assert outcome(cell(high, across)) == "can't tell"
    assert outcome(cell(high, high, own=0.1)) == "can't tell"
    assert outcome(cell(high, low, own=0.9)) == "can't tell"
    assert judge(STUDY.settings, {"a": good})["secondary"]["kappa"]["holds"]
    assert judge(STUDY.settings, {"a": cell(high, high)})["p"] == pytest.approx(1)


def small(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a small study of the built-in model."""
    return settings | {
        "models": ["built-in"],
        "prompts": {"facts": "world-facts"},
        "halves": settings["halves"] | {"explored_before": 2, "exploration": 12, "confirmation": 24},
        "solved": settings["solved"] | {"share": 0.0},
        "counterfactual": {"prompts": 6},
        "gradients": {"gim": 6, "atp_star": 2, "rule": "r"},
        "weight_noise": {"prompts": 6, "set": "facts", "seeds": [0], "rule": "r"},
        "kick": {"prompts": 24},
        "checks": {"prompts": 2, "set": "facts", "rule": "r"},
        "intervals": {"resamples": 50, "confidence": 0.95, "seed": 0},
    }


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[Run, Path]]:
    """The settings of a small study, and the paths of its results."""
    torch.set_num_threads(1)
    settings = small(STUDY.settings)
    prompts = {name: hs.load_prompts(source).limit(80) for name, source in settings["prompts"].items()}
    return settings, attribution.measure(settings, prompts, tmp_path_factory.mktemp("stores"))


@pytest.mark.slow
def test_a_small_run_goes_all_the_way(measured: tuple[dict[str, Any], dict[Run, Path]]) -> None:
    settings, stores = measured
    results = json.loads(json.dumps(attribution.condense(settings, stores)))
    of = results["models"]["built-in"]
    assert of["imbalance"] < 1e-4
    assert of["checks"]["imbalance64"] < 1e-9
    page = attribution.render(settings, results)
    assert "built-in, facts" in page
    assert "nan" not in page.replace("finance", "").lower()
    assert len(attribution.draw(results).axes) == 1


def test_the_page_is_rendered_from_the_stored_results() -> None:
    assert STUDY.page.read_text("utf-8") == attribution.render(STUDY.settings, STUDY.read_results())
