"""The study of context: Δg on made effects with known answers, its prompts, its runs, and its page."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import hydrascope as hs
from hydrascope.measures import Bootstrap
from studies import context
from studies.context import estimator, runs
from studies.context.cells import Cell, prompts_of, read_texts
from studies.context.verdict import judge
from studies.study import Study

STUDY = Study("context")
FEW = Bootstrap(resamples=100)
SUBLAYERS = ("attn.1", "mlp.1", "attn.2")


def test_the_page_is_rendered_from_the_stored_results() -> None:
    assert STUDY.page.read_text("utf-8") == context.render(STUDY.settings, STUDY.read_results())


def made(before: float, after: float, on_confidence: float = 0.0, prompts: int = 200) -> xr.Dataset:
    """Return effects in two cells of a network that damps by a share, and by more where confidence rises."""
    draw = np.random.default_rng(0)
    shape = (2, prompts, len(SUBLAYERS))
    moved = draw.standard_normal(prompts)
    removed = draw.standard_normal(shape) * [0.1, 1, 10] + [0.2, -1, 5]
    pushed = removed * (1 + 0.1 * draw.standard_normal(shape))
    share = np.array([before, after])[:, None] + on_confidence * moved * np.array([0, 1])[:, None]
    lost = 0.5 - 0.25 * np.stack([0 * moved, moved])[..., None] + 0 * removed
    values = {
        "removed": removed,
        "restored": 0 * removed,
        "pushed": pushed,
        "damped": share[..., None] * pushed,
        "content": 0.3 * removed + 2,
        "lost": lost,
    }
    effects = {name: (("cell", "prompt", "ablated"), each) for name, each in values.items()}
    log_p = {"log_p": (("cell", "prompt"), np.stack([0 * moved, moved]))}
    return xr.Dataset({**effects, **log_p}, {"cell": ["other.8", "other.512"], "ablated": list(SUBLAYERS)})


def test_a_change_of_damping_is_told_and_none_where_there_is_none() -> None:
    for before, after in ((0.8, 0.8), (0.8, 0.7)):
        effects = made(before, after)
        weights = estimator.weights_of(effects)
        found = estimator.change(effects, weights, FEW)
        assert found.values == pytest.approx(after - before)
        assert estimator.change_of_each(effects, FEW).sel(bound="estimate").values == pytest.approx(after - before)
        assert estimator.change_of_blocks(effects, weights) == pytest.approx(after - before)
        assert estimator.change_without(effects, weights, [0, 3]) == pytest.approx(after - before)


def test_confidence_is_taken_out() -> None:
    """Damping changes by 0.1, and by 0.3 for each nat that confidence rises."""
    effects = made(0.8, 0.7, on_confidence=0.3)
    weights = estimator.weights_of(effects)
    assert float(estimator.change_at_equal_confidence(effects, weights, FEW)[0]) == pytest.approx(-0.1)
    # Where the change of confidence is forgotten, it is mistaken for a change of damping.
    risen = effects.isel(prompt=effects["log_p"].isel(cell=1).values > 0)
    assert float(estimator.change(risen, weights, FEW)[0]) > 0.05
    assert float(estimator.change_at_equal_confidence(risen, weights, FEW)[0]) == pytest.approx(-0.1)
    places = estimator.kept(effects, 0.5)
    assert set(places) == {place for place, each in enumerate(effects["log_p"].values[1]) if abs(each) < 0.5}
    assert float(estimator.slope_on_confidence(effects, FEW)[0]) == pytest.approx(-0.25)


def test_numbers_are_those_of_loops() -> None:
    effects = made(0.8, 0.7, on_confidence=0.3, prompts=20)
    draw = np.random.default_rng(1)
    for name in ("damped", "content", "lost"):
        effects[name] = effects[name] + draw.standard_normal(effects[name].shape)
    weights = estimator.weights_of(effects)
    cells, contrasts = estimator.by_cell(effects, weights, [("other.512", "other.8")], FEW)
    for cell in (0, 1):
        above = below = covariance = variance = 0.0
        for place, label in enumerate(SUBLAYERS):
            one = {name: effects[name].values[cell, :, place] for name in ("removed", "pushed", "damped", "content")}
            weight = 1 / effects["removed"].values[:, :, place].var()
            above += weight * sum(one["pushed"] * one["damped"])
            below += weight * sum(one["pushed"] ** 2)
            covariance += weight * np.cov(one["removed"], one["content"], bias=True)[0, 1]
            variance += weight * one["removed"].var()
            assert float(weights.sel(ablated=label)) == pytest.approx(weight)
        found = cells.isel(bound=0, cell=cell)
        assert float(found["damping"]) == pytest.approx(above / below)
        assert float(found["content_repair"]) == pytest.approx(covariance / variance)
        assert float(found["lost"]) == pytest.approx(effects["lost"].values[cell].mean())
        assert float(found["size"]) == pytest.approx(np.sqrt((effects["lost"].values[cell] ** 2).mean()))
    for name in ("damping", "lost", "size"):
        change = float(contrasts[name].isel(bound=0, contrast=0))
        assert change == pytest.approx(float(cells[name][0, 1] - cells[name][0, 0]))


def numbers(change: list[float], clean: float = 0.0, hold: float = 0.2, without: float = 0.0) -> dict[str, Any]:
    """Return the numbers of a model that claims are decided by."""
    of = {"change": change, "clean": [clean, 0, 0], "loudest": {"hold": hold, "without": without, "blocks": 0.0}}
    names = ("other.32 − other.8", "other.128 − other.8", "other.512 − other.8", "newline.1 − other.8")
    contrast = {"damping": [0.0, -0.01, 0.01], "lost": [-0.1, -0.15, -0.05], "size": [0.1, 0.05, 0.15]}
    contrasts = dict.fromkeys([*names, "true.512 − true.8"], contrast)
    return {
        "primary": {"difference": of, "logit": of},
        "cells": {"contrasts": contrasts, "confidence": [-0.1, -0.2, 0.0]},
    }


def test_verdicts_follow_the_declared_rule() -> None:
    inside, across, outside = [0.0, -0.02, 0.02], [0.02, 0.0, 0.04], [0.1, 0.05, 0.15]

    def outcome(other: dict[str, Any]) -> str:
        return str(judge(STUDY.settings, {"a": numbers(inside), "b": other})["outcome"])

    assert outcome(numbers(inside)) == "holds"
    assert outcome(numbers(across)) == "can't tell"
    assert outcome(numbers(outside, clean=0.2)) == "refuted"
    assert outcome(numbers(outside, clean=0.0)) == "can't tell"
    assert outcome(numbers(inside, clean=0.05)) == "can't tell"
    assert outcome(numbers(inside, hold=0.5, without=-0.05)) == "can't tell"
    assert outcome(numbers(inside, hold=0.2, without=-0.05)) == "holds"
    found = judge(STUDY.settings, {"a": numbers(inside)})["secondary"]
    assert found["true"]["holds"]
    assert found["content_true"]["holds"]
    assert not found["content_size"]["holds"]


def test_a_sentence_is_the_same_in_all_cells_and_prefixes_are_nested() -> None:
    model, texts = hs.load_model("built-in"), read_texts()[:5]
    assert [text.source for text in texts[:4]] == ["austen", "bible", "jargon", "austen"]
    *special, newline = model.encode("\n")
    shortest = prompts_of(model, texts, Cell("newline", 1))
    for place, (text, ids) in enumerate(zip(texts, shortest, strict=True)):
        assert ids == tuple(model.encode(f"\n{text.sentence}"))
        for kind, before in (("true", text.before), ("other", texts[(place + 1) % 5].before)):
            long, short = (prompts_of(model, texts, Cell(kind, length))[place] for length in (32, 8))
            assert len(long) == len(ids) + 31
            assert long[len(special) + 24 :] == short[len(special) :]
            assert short[len(special) + 7 :] == ids[len(special) :]
            assert short[len(special) + 7] == newline
            assert before.endswith(model.tokenizer.decode(long[len(special) : len(special) + 31]))


def test_texts_are_apart_and_sources_differ_from_those_of_other_texts() -> None:
    texts = read_texts()
    halves = texts[:32], texts[32:]
    assert [len(each) for each in halves] == [32, 96]
    assert len({text.sentence for text in texts}) == len({text.before for text in texts}) == 128
    for half in halves:
        for text, other in zip(half, [*half[1:], half[0]], strict=True):
            assert text.source != other.source
            assert text.sentence not in other.before


def small(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a small study of the built-in model."""
    cells = {"primary": ["other.2", "other.4"], "others": ["newline.1", "true.4"]}
    return settings | {
        "models": ["built-in"],
        "texts": settings["texts"] | {"exploration": 4, "confirmation": 23},
        "confidence": settings["confidence"] | {"least_sentences": 3},
        "cells": settings["cells"] | cells | {"sentences": {"other.4": 3, "others": 4}},
        "if_time_allows": {
            "distance": {"sentences": 22},
            "weight_noise": {"sentences": 3, "seeds": [0], "rule": "r"},
        },
        "intervals": {"resamples": 50, "confidence": 0.95, "seed": 0},
    }


@pytest.mark.slow
@torch.no_grad()
def test_effects_are_those_of_plain_hooks(tmp_path: Path) -> None:
    """Change one sublayer by a hook at the last token, one prompt at a time, and read the difference of two logits."""
    torch.set_num_threads(1)
    model, settings = hs.load_model("built-in"), small(STUDY.settings)
    prompts = runs.prompts_with_answers(settings, model, "exploration", "other.4").limit(1)
    parts, readouts = runs.Parts("attn.15"), [hs.LogitDifference(), hs.Logit()]
    sweep = hs.sweep(model, prompts, hs.Zero(), ablate=parts, readouts=readouts, target="answer", keep="means")
    assert [str(label).partition(":")[2] for label in sweep["ablated"].values] == [
        "",
        "readout(difference)",
        "content(difference)",
        "readout(logit)",
    ]
    runs._measure_log_p(model, prompts, tmp_path / "log_p.json")
    log_p = {"other.4": json.loads((tmp_path / "log_p.json").read_text())}
    effects = estimator.effects_of({"other.4": sweep}, log_p, "difference").isel(cell=0, ablated=0)
    place = hs.Component.parse("attn.15")
    weight = model.unembedding.weight.double()
    for row, prompt in enumerate(prompts):
        direction = (weight[prompt.answer] - weight[prompt.foil]) * model.final_norm.weight.double()
        unit = (direction / direction.norm()).float()

        def passed(
            keep_along: float, keep_beside: float, prompt: Any = prompt, unit: torch.Tensor = unit
        ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            """Return the logits, the final stream and what the sublayer writes where parts of it are kept."""
            kept: dict[str, torch.Tensor] = {}

            def change(module: Any, inputs: Any, output: Any) -> Any:
                value = (output[0] if isinstance(output, tuple) else output).clone()
                kept["own"] = value[0, -1].clone()
                along = (value[0, -1] @ unit) * unit
                value[0, -1] = keep_along * along + keep_beside * (value[0, -1] - along)
                kept["written"] = value[0, -1].clone()
                return (value, *output[1:]) if isinstance(output, tuple) else value

            handles = [
                model.output(place).register_forward_hook(change),
                model.final_norm.register_forward_hook(lambda m, i, o: kept.__setitem__("final", i[0][0, -1])),
            ]
            logits = model.hf(torch.tensor([prompt.tokens])).logits[0, -1].double()
            for handle in handles:
                handle.remove()
            return logits, kept["final"].double(), (kept["written"] - kept["own"]).double()

        def difference(stream: torch.Tensor, direction: torch.Tensor = direction) -> float:
            return float(stream @ direction / (stream.square().mean() + model.norm_eps).sqrt())

        clean, final, _ = passed(1, 1)
        log_p = float(clean.log_softmax(-1)[prompt.answer])
        assert float(effects["log_p"][row]) == pytest.approx(log_p, abs=1e-4)
        for keeps, taken, answered in (((0, 0), "removed", "restored"), ((0, 1), "pushed", "damped")):
            logits, _, changed = passed(*keeps)
            total = float((logits - clean)[prompt.answer] - (logits - clean)[prompt.foil])
            direct = difference(final + changed) - difference(final)
            assert float(effects[taken][row]) == pytest.approx(-direct, abs=2e-4)
            assert float(effects[answered][row]) == pytest.approx(total - direct, abs=2e-4)
        logits, _, _ = passed(1, 0)
        total = float((logits - clean)[prompt.answer] - (logits - clean)[prompt.foil])
        assert float(effects["lost"][row]) == pytest.approx(-total, abs=2e-4)
        assert abs(total) > 1e-3


@pytest.mark.slow
def test_a_small_run_goes_all_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(runs, "sublayers_of", lambda model: ["attn.15", "mlp.16", "attn.17"])
    settings = small(STUDY.settings)
    stores = context.measure(settings, {}, tmp_path)
    results = json.loads(json.dumps(context.condense(settings, stores)))
    page = context.render(settings, results)
    assert "built-in" in page
    assert "nan" not in page.replace("finance", "").lower()
    assert len(context.draw(results).axes) == 2
