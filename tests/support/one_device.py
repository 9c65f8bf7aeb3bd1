"""PyTorch's meta device as a stand-in for an accelerator: what tests of devices share."""

import copy
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from asked import heads, neurons
from tiny import CONFIGS, shared
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from hydrascope.components.component import Component
from hydrascope.models.language_model import LanguageModel

FAST = [case for case in CONFIGS if shared(case).anatomy.supports_wavefront]
#: Every architecture at several positions, and some at one: it is shared that an architecture has nothing to do with.
PLACED = [(case, "span") for case in FAST]
PLACED += [(case, "last") for case in ("gpt2", "llama", "gpt_neox", "gemma2", "mixtral", "deepseek_v3", "gpt_oss")]
RUNS = ["attn.0", "mlp.1", "head.1.2", "attn.0|mlp.1", "head.0.1|query.1.2", "attn.0+mlp.2"]
#: In which one sublayer alone may react, all of it or some of its heads.
ASIDES = [
    "attn.0|mlp.0|attn.1|mlp.1|attn.2",
    "attn.0|mlp.0|attn.1|mlp.1|mlp.2",
    "attn.0|mlp.0|attn.1|mlp.1|mlp.2|head.2.1",
]
METRICS = ["log_prob", "prob", "rank", "kl", "fisher", "top", "answer_log_prob"]
#: The lengths of the answers of two prompts.
ANSWERS = (1, 3)
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
    """A head and a neuron of every sublayer that has them."""
    return (*heads(model)[1::4], *neurons(model)[::2])
