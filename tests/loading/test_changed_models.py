"""A model that was changed since it was loaded is proven and named anew; one that wasn't is believed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from plain import TEXTS, loaded
from torch import nn

import hydrascope as hs
from hydrascope.components.component import Override
from hydrascope.explorer.job_monitor import JobMonitor
from hydrascope.explorer.question import Question
from hydrascope.explorer.session import Session
from hydrascope.loading import self_check
from hydrascope.models import fingerprint
from hydrascope.models.language_model import LanguageModel
from hydrascope.utils.errors import HydrascopeError

torch.set_num_threads(1)


@pytest.fixture(params=["gpt2", "llama", pytest.param("gemma2", marks=pytest.mark.slow)])
def model(request: pytest.FixtureRequest) -> LanguageModel:
    found = loaded(request.param)
    found.revision = fingerprint.hash_parameters(found.hf)
    return found


def trained(model: LanguageModel) -> None:
    """A step of training."""
    weights = list(model.hf.parameters())
    optimizer = torch.optim.SGD(weights, lr=0.01)
    with torch.enable_grad():
        for each in weights:
            each.requires_grad_(True)
        model.hf(torch.tensor([[1, 2, 3]])).logits.square().mean().backward()
    optimizer.step()


def loaded_into(model: LanguageModel) -> None:
    model.hf.load_state_dict({name: each + 0.01 for name, each in model.hf.state_dict().items()}, strict=True)


def widened(model: LanguageModel) -> None:
    model.hf.to(torch.float32)


def replaced(model: LanguageModel) -> None:
    norm = model.final_norm
    norm.weight = nn.Parameter(norm.weight.detach() * 1.1)


def written_to(model: LanguageModel) -> None:
    """As by much code in use: PyTorch doesn't count it."""
    weight = model.projection(model.sublayers[0]).module.weight
    weight.data[1, 2] += 0.5


@pytest.mark.slow
@pytest.mark.parametrize("change", [trained, loaded_into, widened, replaced, written_to])
def test_a_changed_model_is_another_one(model: LanguageModel, change: Any, tmp_path: Path) -> None:
    out = tmp_path / "a.zarr"
    hs.sweep(model, TEXTS[:2], hs.Zero(), ablate="attn", out=out)
    before = hs.open_results(out).attrs["revision"]
    change(model)
    after = hs.sweep(model, TEXTS[:2], hs.Zero(), ablate="attn")
    assert after.attrs["revision"] == fingerprint.hash_parameters(model.hf) != before
    with pytest.raises(HydrascopeError, match=r"cannot resume .*revision was"):
        hs.sweep(model, TEXTS[:2], hs.Zero(), ablate="attn", out=out, resume=True)
    again = hs.sweep(LanguageModel(model.hf, model.tokenizer), TEXTS[:2], hs.Zero(), ablate="attn")
    np.testing.assert_array_equal(after["total"], again["total"])
    assert np.abs(after["total"] - hs.open_results(out)["total"]).max() > 1e-9


@pytest.mark.parametrize("where", ["final norm", "projection", "layer"])
def test_a_hook_that_breaks_what_was_proven_is_found(model: LanguageModel, where: str) -> None:
    module = {
        "final norm": model.final_norm,
        "projection": model.projection(model.sublayers[0]).module,
        "layer": model.output(model.sublayers[1]),
    }[where]
    hs.sweep(model, TEXTS[:2], hs.Zero(), ablate="heads.0", read="heads")
    handle = module.register_forward_hook(lambda module, inputs, output: output * 1.5 + 0.1)
    if where != "layer":
        for _ in range(2):
            with pytest.raises(HydrascopeError, match="fails the self-check"):
                hs.sweep(model, TEXTS[:2], hs.Zero(), ablate="heads.0", read="heads")
    handle.remove()
    found = hs.sweep(model, TEXTS[:2], hs.Zero(), ablate="heads.0", read="heads")
    assert found.attrs["revision"] == fingerprint.hash_parameters(model.hf)


def test_hooks_alone_change_no_hash(model: LanguageModel) -> None:
    model.revision = "a commit"
    model.final_norm.register_forward_hook(lambda *_: None)
    assert hs.sweep(model, TEXTS[:2], hs.Zero(), ablate="attn").attrs["revision"] == "a commit"
    trained(model)
    assert hs.sweep(model, TEXTS[:2], hs.Zero(), ablate="attn").attrs["revision"].startswith("sha256:")


def test_one_that_was_not_changed_is_not_proven_again(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_check, "require_valid", lambda model: pytest.fail("nothing was changed"))
    for ablation in (hs.Zero(), hs.Resample(1)):
        hs.sweep(model, TEXTS, ablation, ablate="attn")
    handle = model.final_norm.register_forward_hook(lambda *_: None)
    handle.remove()
    with model.measuring():
        model.hf(torch.tensor([[1, 2, 3]]))
    with JobMonitor(lambda *_: None).attach(model):
        hs.sweep(model, TEXTS, hs.Zero(), ablate="attn")
    hs.analyses.shapley(model, TEXTS, hs.Zero(), components="attn", orders=2)


def test_a_model_made_by_hand_is_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, hashed = loaded("gpt2"), []
    monkeypatch.setattr(fingerprint, "hash_parameters", lambda hf: hashed.append(hf) or f"sha256:{len(hashed)}")
    for expected in ("sha256:1", "sha256:1"):
        assert hs.sweep(model, TEXTS[:2], hs.Zero(), ablate="attn").attrs["revision"] == expected
    written_to(model)
    for expected in ("sha256:2", "sha256:2"):
        assert hs.sweep(model, TEXTS[:2], hs.Zero(), ablate="attn").attrs["revision"] == expected


def test_weights_made_in_inference_mode_are_taken_as_they_are_and_noticed_when_written_to() -> None:
    with torch.inference_mode():
        found = loaded("gpt2")
        found.hf.load_state_dict({name: each.clone() for name, each in found.hf.state_dict().items()}, assign=True)
    assert all(each.is_inference() for each in found.hf.parameters())
    again = LanguageModel(found.hf, found.tokenizer)
    before = hs.sweep(again, TEXTS[:2], hs.Zero())
    np.testing.assert_array_equal(before["total"], hs.sweep(loaded("gpt2"), TEXTS[:2], hs.Zero())["total"])
    with torch.inference_mode():
        written_to(again)
    assert hs.sweep(again, TEXTS[:2], hs.Zero()).attrs["revision"] != before.attrs["revision"]


def test_the_explorer_forgets_what_it_knew_of_a_model_that_is_trained(model: LanguageModel) -> None:
    question, monitor = Question(TEXTS[0], "attn.1", patches=2), JobMonitor(lambda *_: None)
    session = Session(model, TEXTS)
    before = session.measured(question, [Override.parse("attn.1")], monitor)
    trained(model)
    found = session.measured(question, [Override.parse("attn.1")], monitor)
    expected = hs.sweep(model, TEXTS, hs.Resample(2), ablate="attn.1").isel(prompt=[0])
    np.testing.assert_allclose(found["total"], expected["total"], atol=1e-6)
    assert np.abs(found["total"] - before["total"]).max() > 1e-3
