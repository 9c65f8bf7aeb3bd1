"""Test that settings of PyTorch in the user's process change no number, and are restored."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from plain import LONGER
from rest_slow import rest_slow
from tiny import save_tiny, tiny_tokenizer
from transformers import AutoModelForCausalLM

import hydrascope as hs
from hydrascope.analyses import attribution
from hydrascope.measures import Bootstrap
from hydrascope.reports.kinds import report, summarise
from hydrascope.reports.summary import as_json

FEW = Bootstrap(resamples=20)


@contextmanager
def default_device() -> Iterator[None]:
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def default_dtype() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def coarse_products() -> Iterator[None]:
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("highest")


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextmanager
def lower_precision(products: Any, precision: str) -> Iterator[None]:
    """Set the precision of one library's products, as PyTorch's newer settings do."""
    before = products.fp32_precision
    products.fp32_precision = precision
    try:
        yield
    finally:
        products.fp32_precision = before


STATES: dict[str, Callable[[], Any]] = {
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "a default device": default_device,
    "a default dtype": default_dtype,
    "coarse products": coarse_products,
    "TF32": lambda: lower_precision(torch.backends.cuda.matmul, "tf32"),
    "bfloat16 products": lambda: lower_precision(torch.backends.mkldnn.matmul, "bf16"),
    "deterministic algorithms": deterministic,
    "another attention kernel": lambda: torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
}


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
    "name", rest_slow(STATES, ("autocast", "inference mode", "a default device", "bfloat16 products"))
)
def test_no_number_depends_on_it(name: str, expected: tuple[str, dict[str, np.ndarray]]) -> None:
    path, alone = expected
    with STATES[name]():
        before = settings()
        found = measured(path)
        assert settings() == before
    for key, values in alone.items():
        if name == "another attention kernel":  # it rounds otherwise
            if key != "summary":
                np.testing.assert_allclose(found[key], values, atol=1e-5, err_msg=key)
        else:
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
