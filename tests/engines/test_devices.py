"""Blocks on several devices: every operation of a sweep has its tensors on one of them, and numbers are those of one.

Here without a second device: one is PyTorch's meta device, whose tensors have no numbers, and what comes back from
there are zeros. So devices are tested, and numbers only where there is a GPU.
"""

from dataclasses import replace
from typing import Any

import pytest
import torch
from accelerate import dispatch_model
from asked import assert_same, request, several_readouts
from one_device import ANSWERS, ASIDES, FAST, METRICS, PLACED, RUNS, OneDevice, some_units
from rest_slow import rest_slow
from tiny import CONFIGS, tiny, tolerance

from hydrascope.analyses.attribution.gradients import require_gradients
from hydrascope.components.component import Component
from hydrascope.engines import ENGINES, Request, reference, wavefront
from hydrascope.engines.readouts import Readouts, Tokens
from hydrascope.models.language_model import LanguageModel
from hydrascope.utils.errors import HydrascopeError


class SeveralDevices(OneDevice):
    """Within it, what is copied from the meta device has the number 0, since it has none of its own."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        back = torch.device(kwargs.get("device") or "meta").type != "meta"
        if func is torch.ops.aten._to_copy.default and args[0].device.type == "meta" and back:
            return torch.zeros(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        if func is torch.ops.aten.copy_.default and args[0].device.type != args[1].device.type:
            return args[0].zero_()
        return super().__torch_dispatch__(func, types, args, kwargs)


def spread(case: str, second: str, dtype: torch.dtype = torch.bfloat16) -> LanguageModel:
    """A model whose middle block is on a second device, and everything else on the CPU."""
    model = tiny(case, dtype)
    path = model.anatomy.blocks
    # Everything beside the blocks, and beside what holds them.
    beside = [
        name
        for name, _ in model.hf.named_modules()
        if name and not f"{path}.".startswith(f"{name}.") and f"{path}.".startswith(name.rpartition(".")[0])
    ]
    blocks = {f"{path}.{number}": second if number == 1 else "cpu" for number in range(len(model.blocks))}
    places = {name: "cpu" for name in beside if not name.startswith(f"{path}.")} | blocks
    return LanguageModel(dispatch_model(model.hf, places, "cpu"), name=case)


def asked(model: LanguageModel, runs: list[str], at: str, lengths: tuple[int, ...] = (5, 7)) -> Request:
    count = len(lengths)
    found = request(model, runs, lengths, at, units=some_units(model), metrics=METRICS, answers=ANSWERS[-count:])
    spoken = Tokens([1, 2][:count], [3, 4][:count], [5, 6][:count])
    readouts = Readouts.of(model, several_readouts(model, count), spoken, range(count))
    return replace(found, readouts=readouts)


@pytest.mark.parametrize(("case", "at"), rest_slow(PLACED, ("llama", "gemma2", "gpt_neox")))
def test_every_operation_is_on_one_device(case: str, at: str) -> None:
    model = spread(case, "meta")
    assert {device.type for device in model.devices} == {"cpu", "meta"}
    runs = RUNS if model.parallel else RUNS + ASIDES
    with SeveralDevices():
        found = wavefront.measure(model, asked(model, runs, at))
    assert found.logit_ablated.device.type == "cpu"
    assert found.unembed_ablated.shape[1:4] == (2, len(runs), 2)


@pytest.mark.parametrize("case", rest_slow(case for case in CONFIGS if case not in ("mixtral", "qwen3_moe", "gpt_oss")))
def test_by_plain_forward_passes_too(case: str) -> None:
    model = spread(case, "meta")
    runs = [run for run in RUNS if model.anatomy.supports_wavefront or "query" not in run]
    with SeveralDevices():
        # Each prompt is run alone: one is all.
        found = reference.measure(model, asked(model, runs, "span", (7,)))
    assert found.logit_ablated.device.type == "cpu"


def test_sites_that_are_watched() -> None:
    model = spread("llama", "meta")
    sites = [Component.parse("mlp.1"), Component.parse("attn.2")]
    with SeveralDevices():
        found = wavefront.activations_before_override(model, asked(model, ["attn.0"], "span"), sites)
    assert {each.device.type for each in found.values()} == {"cpu"}


def test_gradients_need_one_device() -> None:
    with pytest.raises(HydrascopeError, match="the blocks of llama are on cpu and meta: attribution needs one device"):
        require_gradients(spread("llama", "meta"), [5, 6])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no second device")
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", FAST)
def test_numbers_are_those_of_one_device(case: str, engine: str) -> None:
    model, other = tiny(case), spread(case, "cuda:0", torch.float64)
    runs = RUNS if model.parallel else RUNS + ASIDES
    found, expected = (ENGINES[engine](each, asked(each, runs, "span")) for each in (other, model))
    assert_same(found, expected, tolerance(case))
