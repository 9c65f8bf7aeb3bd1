"""Options of a run do what they say; wrong ones are refused in one line, and leave nothing behind."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from plain import TEXTS, loaded, plain_run
from stored import run_to_disk

from hydrascope.ablations.ablation import Counterfactual, Noise, Resample, Zero
from hydrascope.components.component import Component
from hydrascope.engines.readouts import Logit, LogitDifference
from hydrascope.models import fingerprint
from hydrascope.models.language_model import LanguageModel
from hydrascope.prompts.prompt import Prompt, PromptSet
from hydrascope.runs.sweep import sweep
from hydrascope.storage.schema import MEASURED_VARIABLES
from hydrascope.utils.errors import HydrascopeError

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return loaded()


def test_parallel_blocks_are_said_to_be(model: LanguageModel) -> None:
    parallel = sweep(loaded("gpt_neox"), TEXTS, Zero())
    assert not parallel["downstream"].sel(ablated="attn.1", component="mlp.1")
    assert sweep(model, TEXTS, Zero())["downstream"].sel(ablated="attn.1", component="mlp.1")


def test_attributes_say_how_it_was_made(model: LanguageModel) -> None:
    prompts = PromptSet.of(TEXTS, "mine")
    results = sweep(
        model, prompts, Noise(2, 1.5, 7), ablate=["attn", Component(1, "mlp")], read="heads.1", at=[-1], batch_size=4
    )
    expected = {
        "format": 3,
        "model": "llama",
        "revision": fingerprint.hash_parameters(model.hf),
        "config_hash": fingerprint.hash_config(model.config),
        "dtype": "float64",
        "device": "cpu",
        "engine": "wavefront",
        "ablation": "noise",
        "patches": 2,
        "noise_scale": 1.5,
        "seed": 7,
        "ablate": "attn,mlp.1",
        "read": "heads.1",
        "positions": "-1",
        "readouts": """["Logit(token='target')"]""",
        "metrics": "[]",
        "units": "logits",
        "target": "argmax",
        "keep": "means",
        "prompts": "mine",
        "prompts_hash": prompts.hash,
        "prompt_count": len(TEXTS),
        "measured": len(TEXTS),
        "depth": 3,
        "batch_size": 4,
        "torch": torch.__version__,
    }
    assert {name: results.attrs[name] for name in expected} == expected
    assert str(Path.home()) not in results.attrs["command"]


def test_numbers_are_float32_unless_the_model_is_wider() -> None:
    for dtype, stored in ((torch.bfloat16, "float32"), (torch.float32, "float32"), (torch.float64, "float64")):
        results = sweep(loaded(dtype=dtype), TEXTS, Zero(), metrics=["kl"])
        assert {str(results[name].dtype) for name in MEASURED_VARIABLES if name not in ("logit_twin", "own")} == {
            stored,
            "int64",
        }
        assert results["logit"].notnull().all()


def test_the_target_can_be_the_answer_or_any_token(model: LanguageModel) -> None:
    prompts = [Prompt("the ", "cat"), Prompt("a ", "dog"), Prompt("no", "way")]
    results = sweep(model, prompts, Resample(patches=2), target="answer")
    assert list(results["target_text"].values) == ["c", "d", "w"]
    assert list(results["text"].values) == ["the ", "a ", "no "]
    prompts = [Prompt("the ", "cat"), Prompt("a ", "dog"), Prompt("no ", "way")]
    given = sweep(model, prompts, Resample(patches=2), target=9, readouts=[Logit(), Logit("answer")])
    np.testing.assert_array_equal(given["target"], 9)
    np.testing.assert_allclose(given["logit"][1], results["logit"][0], atol=1e-12)
    for number, prompt in enumerate(prompts):
        logits = plain_run(model, model.encode(prompt.text)).logits
        centred = logits - logits.mean()
        assert float(results["logit"][0, number]) == pytest.approx(
            float(centred[int(results["target"][number])]), abs=1e-6
        )
        assert float(given["logit"][0, number]) == pytest.approx(float(centred[9]), abs=1e-6)


@pytest.mark.parametrize("keep", ["auto", "means", "patches"])
def test_patches_are_kept_where_they_are_asked_for(
    model: LanguageModel, keep: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kept(**options: Any) -> bool:
        return "unembed_ablated_by_patch" in sweep(model, TEXTS, Zero(), keep=keep, **options)

    assert kept() == (keep != "means")
    for unit in ({"ablate": "head.0.0"}, {"read": "head.0.0"}):
        assert kept(**unit) == (keep == "patches")
    monkeypatch.setattr("hydrascope.runs.plan.KEEP_BYTES", len(TEXTS) * 6 * 6 * 8 - 1)
    assert kept() == (keep == "patches")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "best"}, "unknown target 'best': choose argmax or answer"),
        ({"target": 61}, "llama has no token 61 to target: it has 0 to 58"),
        ({"engine": "steam"}, "unknown engine 'steam'"),
        ({"keep": "some"}, "unknown keep 'some': choose auto, effects, means, patches"),
        ({"batch_size": 0}, "a batch of 0 prompts"),
        (
            {"ablation": Resample(8)},
            r"8 resample patches need 8 other prompts to draw from, and prompt 1 \(\"ab\"\) has 7",
        ),
        ({"ablation": Resample(0)}, "0 patches: ask for at least one"),
        ({"ablation": Noise(1, scale=0)}, "0 is no scale of noise: give a number above 0"),
        ({"ablation": Counterfactual()}, r"prompt 1 \(\"ab\"\) has no counterfactual"),
        ({"ablate": ""}, "'' is no component of a model"),
        ({"ablate": []}, "nothing is selected"),
        ({"ablate": "attn.7"}, r"llama has no attn\.7: its blocks are 0 to 2"),
        ({"read": "attn.0+mlp.1"}, "overrides several components"),
        ({"at": "middle"}, "'middle' is no position"),
        ({"at": -2}, r"prompt 3 \(\"a\"\) has no position -2: it is 1 tokens long"),
        ({"metrics": ["speed"]}, "unknown metric 'speed'"),
        ({"readouts": []}, "nothing is read out"),
    ],
)
def test_wrong_options_leave_nothing_behind(
    model: LanguageModel, tmp_path: Path, arguments: dict, message: str
) -> None:
    with pytest.raises(HydrascopeError, match=message) as caught:
        run_to_disk(model, TEXTS, out=tmp_path / "r.zarr", **{"ablation": Resample(2), **arguments})
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("odd", "arguments", "message"),
    [
        (Prompt("odd", foil="d"), {"target": "answer"}, "has no answer"),
        (Prompt("odd", "c"), {"readouts": [LogitDifference()]}, "has no foil"),
        (Prompt("odd", foil="d"), {"readouts": [Logit("answer")]}, "has no answer"),
        (Prompt("odd ", "c", foil="c"), {"readouts": [Logit("foil")]}, "begin with the same token"),
        (Prompt("odd"), {"at": "subject"}, "has no subject"),
        (Prompt("odd", subject="x"), {"at": "subject-last"}, 'does not contain its subject "x"'),
        (Prompt("odd" * 30), {}, "the context of llama holds 64"),
    ],
)
def test_a_prompt_that_does_not_fit_is_named_before_anything_is_run(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch, odd: Prompt, arguments: dict, message: str
) -> None:
    def never(*arguments: object, **options: object) -> None:
        raise AssertionError("the model is run")

    monkeypatch.setattr(type(model.hf.model), "forward", never)
    fine = [Prompt("ab ", "c", foil="d", subject="a"), Prompt("no ", "y", foil="z", subject="o")]
    with pytest.raises(HydrascopeError, match=rf'prompt 3 \("odd.*{message}'):
        sweep(model, [*fine, odd], Zero(), **arguments)
