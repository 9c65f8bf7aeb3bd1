"""A sweep stays on its device: no tensor is made elsewhere, and nothing is read back before its end.

Here without any device: on PyTorch's meta device tensors have no values, so that whoever asks for one fails, and the
operations of a sweep are looked at one by one.
"""

import copy
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from asked import heads, neurons, request, several_readouts
from tiny import CONFIGS, shared, tiny
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from hydrascope.components.component import Component
from hydrascope.engines import wavefront
from hydrascope.engines.readouts import Readouts, Tokens
from hydrascope.models.language_model import LanguageModel

FAST = [case for case in CONFIGS if shared(case).anatomy.fast]
#: Every architecture at several positions, and some at one: it is shared that an architecture has nothing to do with.
PLACED = [(case, "span") for case in FAST]
PLACED += [(case, "last") for case in ("gpt2", "llama", "gpt_neox", "gemma2", "mixtral", "deepseek_v3", "gpt_oss")]
RUNS = ["attn.0", "mlp.1", "head.1.2", "attn.0|mlp.1", "head.0.1|query.1.2", "attn.0+mlp.2"]
#: In which one layer alone may react, all of it or some of its heads.
ASIDES = [
    "attn.0|mlp.0|attn.1|mlp.1|attn.2",
    "attn.0|mlp.0|attn.1|mlp.1|mlp.2",
    "attn.0|mlp.0|attn.1|mlp.1|mlp.2|head.2.1",
]
METRICS = ["log_prob", "prob", "rank", "kl", "fisher", "top"]
COPIES = (torch.ops.aten.copy_.default, torch.ops.aten._to_copy.default)


class OneDevice(TorchDispatchMode):
    """Within it, no operation but a copy takes tensors of two devices; wrapped numbers may stand anywhere."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        devices = {each.device.type for each in tensors((*args, *kwargs.values())) if each.ndim}
        assert len(devices) < 2 or func in COPIES, f"{func} takes tensors of {devices}"
        return func(*args, **kwargs)


def tensors(given: Iterable[Any]) -> Iterator[Tensor]:
    """Those among what an operation is given, which may be lists of them."""
    for each in given:
        if isinstance(each, Tensor):
            yield each
        elif isinstance(each, list | tuple):
            yield from tensors(each)


def on_meta(hf: Any) -> Any:
    """The same model without values, each tensor stored as it was."""
    hf = copy.deepcopy(hf)
    for module in hf.modules():
        for name, each in module.named_parameters(recurse=False):
            module._parameters[name] = nn.Parameter(torch.empty_like(each, device="meta"), requires_grad=False)
        for name, each in module.named_buffers(recurse=False):
            module._buffers[name] = torch.empty_like(each, device="meta")
    return hf


def some_units(model: LanguageModel) -> tuple[Component, ...]:
    """A head and a neuron of every layer that has them."""
    return (*heads(model)[1::4], *neurons(model)[::2])


@pytest.mark.parametrize(("case", "at"), PLACED)
def test_a_sweep_stays_on_its_device(case: str, at: str) -> None:
    # transformers multiplies experts in groups on the meta device, which takes bfloat16 there.
    real = tiny(case, torch.bfloat16)
    model = LanguageModel(on_meta(real.hf), name=case)
    runs = RUNS if real.parallel else RUNS + ASIDES
    asked = request(real, runs, (5, 7), at, units=some_units(real), metrics=METRICS)
    spoken = Tokens([1, 2], [3, 4], [5, 6])
    asked = replace(asked, readouts=Readouts.of(model, several_readouts(model), spoken, range(2)), routines={})
    with OneDevice():
        found = wavefront.measure(model, asked)
    assert found.run_logit.device.type == "meta"
    assert found.run_unembed.shape[1:4] == (2, len(runs), asked.patches)


def test_what_is_made_elsewhere_or_read_back_is_found() -> None:
    model = LanguageModel(on_meta(tiny("gpt2", torch.bfloat16).hf))
    asked = replace(request(tiny("gpt2", torch.bfloat16), RUNS), routines={})
    asked = replace(
        asked, readouts=Readouts.of(model, several_readouts(model), Tokens([1, 2], [3, 4], [5, 6]), range(2))
    )

    def measured(change: Any) -> None:
        handle = model.layers[1].register_forward_hook(lambda module, args, output: change(output))
        try:
            with OneDevice():
                wavefront.measure(model, asked)
        finally:
            handle.remove()

    measured(lambda output: None)
    with pytest.raises(AssertionError, match="takes tensors of"):
        measured(lambda output: output[torch.arange(len(output))])
    with pytest.raises(RuntimeError, match="item"):
        measured(lambda output: output * float(output.max()))
