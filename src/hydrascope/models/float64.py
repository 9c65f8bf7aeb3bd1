"""A model in numbers of twice the width: what its own are held against."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hydrascope.models.language_model import LanguageModel

#: A copy that takes more is not made.
COPY_BYTES = 4 * 2**30


def float64_copy(model: LanguageModel) -> LanguageModel | None:
    """A copy of the model in float64, hooks included, if it is in another dtype and there is room for it."""
    parameters = list(model.hf.parameters())
    needed = 8 * sum(map(Tensor.numel, parameters))
    room = torch.cuda.mem_get_info(model.device)[0] // 2 if model.device.type == "cuda" else COPY_BYTES
    plain = all(each.is_floating_point() and each.device == model.device for each in parameters)
    if model.dtype == torch.float64 or not plain or needed > min(room, COPY_BYTES):
        return None
    # What is copied for each parameter and buffer is given beforehand, so that none is copied as it is, too.
    wide = {id(each): nn.Parameter(each.double(), requires_grad=False) for each in parameters}
    wide |= {id(each): each.double() for each in model.hf.buffers() if each.is_floating_point()}
    hf = copy.deepcopy(model.hf, wide)
    return LanguageModel(hf, model.tokenizer, anatomy=model.anatomy, name=model.name, revision=model.revision)


class Float64Mode(TorchFunctionMode):
    """Within it, what would be turned into float32, as by most norms and softmax, is turned into float64.

    >>> with Float64Mode():                                                   # doctest: +SKIP
    ...     model.hf(ids)
    """

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Call `func` with float64 in place of float32."""

        def wide(value: Any) -> Any:
            return torch.float64 if value is torch.float32 else value

        if func is Tensor.view:
            return func(*args, **(kwargs or {}))  # bytes that are read as numbers, as of weights from a file
        function = Tensor.double if func is Tensor.float else func
        return function(*map(wide, args), **{name: wide(value) for name, value in (kwargs or {}).items()})
