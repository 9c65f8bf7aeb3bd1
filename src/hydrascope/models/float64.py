"""A model in float64, to measure how exact its own dtype is."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hydrascope.models.language_model import LanguageModel

#: The largest copy that is made, in bytes.
COPY_BYTES = 4 * 2**30


def float64_copy(model: LanguageModel) -> LanguageModel | None:
    """Return a copy of the model in float64, hooks included.

    None if the model is in float64 already, is spread over devices, or there isn't enough memory.
    """
    parameters = list(model.hf.parameters())
    needed = 8 * sum(map(Tensor.numel, parameters))
    room = torch.cuda.mem_get_info(model.device)[0] // 2 if model.device.type == "cuda" else COPY_BYTES
    plain = all(parameter.is_floating_point() and parameter.device == model.device for parameter in parameters)
    if model.dtype == torch.float64 or not plain or needed > min(room, COPY_BYTES):
        return None
    # The copies of parameters and buffers are given beforehand, so that deepcopy copies none in the old dtype.
    wide = {id(parameter): nn.Parameter(parameter.double(), requires_grad=False) for parameter in parameters}
    wide |= {id(buffer): buffer.double() for buffer in model.hf.buffers() if buffer.is_floating_point()}
    hf = copy.deepcopy(model.hf, wide)
    for module in hf.modules():
        if getattr(module, "reorder_and_upcast_attn", False):
            # GPT-2 computes its scores so to keep them in float16's range; in float64 transformers refuses to.
            module.reorder_and_upcast_attn = False
    wider = LanguageModel(hf, model.tokenizer, anatomy=model.anatomy, name=model.name, revision=model.revision)
    return wider.with_dictionaries(*(attached.declared for attached in model.dictionaries.values()))


class Float64Mode(TorchFunctionMode):
    """A context in which conversions to float32, as in most norms and softmax, become float64.

    >>> with Float64Mode():
    ...     torch.ones(2).float().dtype
    torch.float64
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call `func` with float64 in place of float32."""

        def wide(value: Any) -> Any:
            return torch.float64 if value is torch.float32 else value

        if func is Tensor.view:
            return func(*args, **(kwargs or {}))  # reads bytes as numbers, for example weights from a file
        function = Tensor.double if func is Tensor.float else func
        return function(*map(wide, args), **{name: wide(value) for name, value in (kwargs or {}).items()})
