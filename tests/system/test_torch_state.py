"""Test that settings of PyTorch in the user's process change no number, and are restored."""

import locale
from typing import Any

import numpy as np
import pytest
import torch
from plain import LONGER
from rest_slow import rest_slow
from tiny import save_tiny, tiny_tokenizer
from torch.nn.modules import module as modules
from torch_states import STATES, louder
from transformers import AutoModelForCausalLM

import hydrascope as hs
from hydrascope.analyses import attribution
from hydrascope.measures import Bootstrap
from hydrascope.reports.kinds import summarise
from hydrascope.reports.pages import report
from hydrascope.reports.summary import as_json

FEW = Bootstrap(resamples=20)


def settings() -> tuple[Any, ...]:
    """Return what a measurement might leave changed."""
    return (
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.backends.cuda.matmul.fp32_precision,
        torch.backends.mkldnn.matmul.fp32_precision,
        torch.is_inference_mode_enabled(),
        torch.is_grad_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.cuda.flash_sdp_enabled(),
        torch.backends.cuda.mem_efficient_sdp_enabled(),
        torch.backends.cuda.math_sdp_enabled(),
        torch.backends.cuda.cudnn_sdp_enabled(),
        *(
            list(hooks)
            for name, hooks in vars(modules).items()
            if name.startswith("_global_") and isinstance(hooks, dict)
        ),
        locale.setlocale(locale.LC_ALL),
    )


def measured(path: str) -> dict[str, np.ndarray]:
    """Load a model and measure it in several ways."""
    model = hs.load_model(path)
    results = hs.sweep(model, LONGER, hs.Resample(2))
    return {
        "total": results["total"].values,
        "unembed_ablated": results["unembed_ablated"].values,
        "map": hs.analyses.position_map(model, LONGER[1])["cost"].values,
        "atp": attribution.atp(model, LONGER, hs.Zero(), ablate="attn")["estimate"].values,
        "summary": np.array(as_json(summarise(results, FEW))),
    }


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, np.ndarray]]:
    path = str(save_tiny(tmp_path_factory.mktemp("model")))
    return path, measured(path)


@pytest.mark.parametrize(
    "name",
    rest_slow(
        STATES,
        (*("autocast", "inference mode", "a default device", "a hook before all gradients"),),
    ),
)
def test_no_number_depends_on_it(name: str, expected: tuple[str, dict[str, np.ndarray]]) -> None:
    path, alone = expected
    with STATES[name]():
        before = settings()
        found = measured(path)
        assert settings() == before
    for key, values in alone.items():
        np.testing.assert_array_equal(found[key], values, err_msg=key)


@pytest.mark.parametrize("name", rest_slow(STATES, ("autocast",)))
def test_a_report_is_the_same(name: str, expected: tuple[str, dict[str, np.ndarray]], tmp_path: Any) -> None:
    results = hs.sweep(hs.load_model(expected[0]), LONGER, hs.Zero())
    with STATES[name]():
        inside = report(results, tmp_path / "a.html", bootstrap=FEW).read_bytes()
    assert inside == report(results, tmp_path / "b.html", bootstrap=FEW).read_bytes()


def test_a_model_made_in_inference_mode_is_measured_or_named(expected: tuple[str, dict[str, np.ndarray]]) -> None:
    model = AutoModelForCausalLM.from_pretrained(expected[0]).eval()
    with torch.inference_mode():
        model.load_state_dict({name: value.clone() for name, value in model.state_dict().items()}, assign=True)
    loaded = hs.load_model(model, tiny_tokenizer())
    found = hs.sweep(loaded, LONGER, hs.Resample(2))
    np.testing.assert_array_equal(found["total"].values, expected[1]["total"])
    with pytest.raises(hs.HydrascopeError, match=r"made under torch\.inference_mode"):
        attribution.atp(loaded, LONGER, hs.Zero())


def test_a_hook_in_all_modules_changes_no_model_that_is_loaded(expected: tuple[str, dict[str, np.ndarray]]) -> None:
    """It was proven before the hook came, and isn't again: the hook is none of the model's."""
    loaded = hs.load_model(expected[0])
    handle = modules.register_module_forward_hook(louder)
    try:
        found = attribution.atp(loaded, LONGER, hs.Zero(), ablate="attn")["estimate"].values
    finally:
        handle.remove()
    np.testing.assert_array_equal(found, expected[1]["atp"])


def test_hooks_on_gradients_are_not_the_model_s(expected: tuple[str, dict[str, np.ndarray]]) -> None:
    model, calls = AutoModelForCausalLM.from_pretrained(expected[0]).eval(), []

    def tripled(module: Any, *gradients: Any) -> Any:
        calls.append(module)
        return tuple(3 * each for each in gradients[0])

    mlp = model.model.layers[1].mlp
    mlp.register_full_backward_hook(tripled)
    mlp.register_full_backward_pre_hook(tripled)
    found = attribution.atp(hs.load_model(model, tiny_tokenizer()), LONGER, hs.Zero(), ablate="attn")["estimate"]
    np.testing.assert_array_equal(found.values, expected[1]["atp"])
    assert not calls
    embedding = model.get_input_embeddings()(torch.tensor([[1, 2]]))
    model(inputs_embeds=embedding.detach().requires_grad_()).logits.sum().backward()
    assert len(calls) == 2  # they are back
