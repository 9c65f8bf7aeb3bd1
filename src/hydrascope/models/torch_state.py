"""Keep the caller's settings of PyTorch, autocast and others, out of measurements."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

#: The kinds of devices on which autocast may be on.
_AUTOCAST = ("cpu", "cuda", "mps", "xpu")

#: The products whose precision in float32 a user may lower.
_BACKENDS: Any = torch.backends
_PRODUCTS = (_BACKENDS.cuda.matmul, _BACKENDS.mkldnn.matmul)


@contextmanager
def plain_torch() -> Iterator[None]:
    """Let PyTorch compute as in a fresh process, then restore the caller's settings.

    A measurement under autocast would be one of another model, and so would one with coarser matrix products. It is a
    decorator, too.

    >>> with torch.autocast("cpu", dtype=torch.bfloat16), plain_torch():
    ...     (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
    torch.float32
    """
    with ExitStack() as stack:
        stack.callback(torch.set_default_dtype, torch.get_default_dtype())
        torch.set_default_dtype(torch.float32)
        # `torch.set_float32_matmul_precision` sets these, too, and can't be asked once one of them was set alone.
        for products in _PRODUCTS:
            stack.callback(setattr, products, "fp32_precision", products.fp32_precision)
            products.fp32_precision = "ieee"
        # Contexts that nothing needs are left out: some slow down every call of PyTorch.
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        if not torch.is_grad_enabled():
            stack.enter_context(torch.enable_grad())
        for kind in filter(torch.is_autocast_enabled, _AUTOCAST):
            stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        yield
