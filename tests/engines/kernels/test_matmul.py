"""Which library multiplies: chosen, forced, kept for a resumed run, and refused on another machine."""

import json
import re

import numpy as np
import pytest
import torch
from asked import assert_same, request
from stored import run_to_disk
from tiny import CONFIGS, tiny
from torch.nn.functional import gelu, linear
from transformers import AutoConfig, AutoModelForCausalLM

from hydrascope import open_results
from hydrascope.engines import reference, wavefront
from hydrascope.engines.kernels import hardware, matmul
from hydrascope.engines.kernels.matmul import ROUTINES, Product
from hydrascope.engines.kernels.patching import fastest_routines, products
from hydrascope.models.language_model import LanguageModel
from hydrascope.storage.writer import Writer
from hydrascope.utils.errors import HydrascopeError

ONEDNN = torch.backends.mkldnn.is_available()


@pytest.mark.parametrize("name", ROUTINES)
@pytest.mark.parametrize("form", ["", "none", "tanh"])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.skipif(not ONEDNN, reason="PyTorch has no oneDNN here")
def test_every_routine_computes_the_product(name, form, transposed):
    drawn = torch.Generator().manual_seed(0)
    rows, bias = torch.randn(3, 7, generator=drawn), torch.randn(5, generator=drawn)
    weight = torch.randn(7, 5, generator=drawn).T if transposed else torch.randn(5, 7, generator=drawn)
    expected = linear(rows.double(), weight.double(), bias.double())
    expected = gelu(expected, approximate=form) if form else expected
    torch.testing.assert_close(ROUTINES[name](rows, weight, bias, form).double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not ONEDNN, reason="PyTorch has no oneDNN here")
def test_the_fastest_is_taken_once_a_process(monkeypatch):
    monkeypatch.delenv(matmul.FORCE)
    matmul.time_routines.cache_clear()
    found = {Product(8, 16, False, ""): {"matmul": 1.0, "onednn": 2.0}, Product(8, 8, True, ""): {"matmul": 3.0}}
    asked = []

    def timed(product, dtype, threads):
        asked.append((product, dtype, threads))
        return found[product]

    monkeypatch.setattr(matmul, "time_routines", timed)
    chosen = matmul.choose_routines(found, torch.float32)
    assert chosen == {"8 to 16": "onednn", "8 to 8, transposed": "matmul"}
    assert {threads for _, _, threads in asked} == {torch.get_num_threads()}


@pytest.mark.skipif(not ONEDNN, reason="PyTorch has no oneDNN here")
def test_what_is_timed_is_every_routine_that_could_be_taken():
    plain = matmul.time_routines(Product(8, 16, False, ""), torch.float32, torch.get_num_threads())
    with_gelu = matmul.time_routines(Product(8, 16, True, "tanh"), torch.float32, torch.get_num_threads())
    assert set(plain) == {"matmul", "onednn"}
    assert set(with_gelu) == set(ROUTINES)
    assert all(rate > 0 for rate in (*plain.values(), *with_gelu.values()))
    # Once in a process: the same numbers again.
    assert matmul.time_routines(Product(8, 16, False, ""), torch.float32, torch.get_num_threads()) is plain


def test_a_routine_that_is_not_there(monkeypatch):
    monkeypatch.setenv(matmul.FORCE, "cublas")
    with pytest.raises(HydrascopeError, match="HYDRASCOPE_KERNELS=cublas is no routine: set it to matmul, onednn"):
        wavefront.measure(tiny("gpt2", torch.float32), request(tiny("gpt2", torch.float32), ["mlp.0"], (4,)))


def test_float64_has_no_choice():
    assert not products(tiny("gpt2"))
    assert fastest_routines(tiny("gpt2")) == {}


@pytest.mark.parametrize(
    ("case", "changed", "fused"),
    [
        ("gpt2", {}, True),
        # Its second projection is the one that widens.
        ("gpt2", {"n_inner": 20, "activation_function": "gelu"}, True),
        ("gpt2", {"n_inner": 32}, False),
        # One projection widens to gate and input alike, and the activation takes the gate.
        ("phi3", {"hidden_act": "gelu"}, False),
    ],
)
@pytest.mark.skipif(not ONEDNN, reason="PyTorch has no oneDNN here")
def test_a_gelu_is_fused_with_the_product_that_it_takes_whole(case, changed, fused):
    model_type, settings = CONFIGS[case]
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **{**settings, **changed})
    model = LanguageModel(AutoModelForCausalLM.from_config(config))
    inner = changed.get("n_inner", 128)
    assert {str(each).partition(",")[0] for each in products(model) if each.gelu} == (
        {f"32 to {inner}"} if fused else set()
    )
    asked = request(model, ["attn.0", "mlp.1"])
    assert_same(wavefront.measure(model, asked), reference.measure(model, asked), 1e-5)


PROMPTS = [[5, 6, 7 + number] for number in range(24)]


def interrupted(path, model, monkeypatch):
    """A run with one of its three blocks measured."""
    write, times = Writer.write, []

    def fail_at_the_second(*args):
        times.append(args)
        if len(times) == 2:
            raise KeyboardInterrupt
        return write(*args)

    with monkeypatch.context() as patched:
        patched.setattr(Writer, "write", fail_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            run_to_disk(model, PROMPTS, out=path, batch_size=2)


@pytest.mark.slow
@pytest.mark.skipif(not ONEDNN, reason="PyTorch has no oneDNN here")
def test_a_resumed_run_multiplies_as_it_did(tmp_path, monkeypatch):
    model = tiny("gpt2", torch.float32)
    monkeypatch.setenv(matmul.FORCE, "matmul")
    whole = open_results(run_to_disk(model, PROMPTS, out=tmp_path / "whole.zarr", batch_size=2)).load()
    assert set(json.loads(whole.attrs["routines"]).values()) == {"matmul"}
    assert json.loads(whole.attrs["machines"]) == [hardware.kind(torch.device("cpu"))]
    interrupted(tmp_path / "cut.zarr", model, monkeypatch)
    monkeypatch.setenv(matmul.FORCE, "onednn+gelu")
    resumed = open_results(run_to_disk(model, PROMPTS, out=tmp_path / "cut.zarr", resume=True)).load()
    assert set(json.loads(resumed.attrs["routines"]).values()) == {"matmul"}
    for name in whole.data_vars:
        np.testing.assert_array_equal(whole[name].values, resumed[name].values)


def test_another_machine_is_refused_unless_asked_for(tmp_path, monkeypatch):
    model, path = tiny("gpt2", torch.float32), tmp_path / "cut.zarr"
    interrupted(path, model, monkeypatch)
    here = hardware.kind(torch.device("cpu"))
    monkeypatch.setattr(hardware, "kind", lambda device: "another, 64 threads")
    with pytest.raises(HydrascopeError, match=re.escape(here) + ".*and this is another, 64 threads.*--elsewhere"):
        run_to_disk(model, PROMPTS, out=path, resume=True)
    run_to_disk(model, PROMPTS, out=path, resume=True, elsewhere=True)
    attributes = json.loads((path / "zarr.json").read_text())["attributes"]
    assert attributes["measured"] == len(PROMPTS)
    assert attributes["machines"] == [here, "another, 64 threads"]


def test_the_page_of_the_machine(monkeypatch):
    monkeypatch.setattr(hardware, "LARGE", 64)
    monkeypatch.setenv(matmul.FORCE, "matmul")
    model = tiny("gpt2", torch.float32)
    text = "\n".join(hardware.describe(model, seconds=0.01))
    assert hardware.processor() in text
    assert re.search(r"float32, matmul: [0-9,]+ GFLOP/s", text)
    assert "HYDRASCOPE_KERNELS=matmul forces" in text
    for product in products(model):
        assert re.search(rf"{product}: .*matmul [0-9,]+\*", text)


@pytest.mark.parametrize(("rates", "told"), [((100.0, 5.0), True), ((100.0, 250.0), False)])
def test_a_dtype_that_is_slower_here_is_said_to_be(monkeypatch, tmp_path, rates, told):
    monkeypatch.setattr(hardware, "rate", lambda name, size, dtype, seconds: rates[dtype == torch.bfloat16])
    said = []
    run_to_disk(tiny("gpt2", torch.bfloat16), PROMPTS, out=tmp_path / "r.zarr", ablate="mlp.0", say=said.append)
    assert any("products in bfloat16 take 20.0 times as long here as in float32" in line for line in said) is told
