"""Keep the caller's settings of PyTorch, autocast and others, out of measurements."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules import module as modules

from hydrascope.utils.working_directory import require_working_directory

#: The kinds of devices on which autocast may be on.
_AUTOCAST = ("cpu", "cuda", "mps", "xpu")

#: The products whose precision in float32 a user may lower.
_BACKENDS: Any = torch.backends
_PRODUCTS = (_BACKENDS.cuda.matmul, _BACKENDS.mkldnn.matmul)

#: The kernels of attention that a user may turn off, and whether they are on.
_KERNELS = {
    SDPBackend.FLASH_ATTENTION: _BACKENDS.cuda.flash_sdp_enabled,
    SDPBackend.EFFICIENT_ATTENTION: _BACKENDS.cuda.mem_efficient_sdp_enabled,
    SDPBackend.MATH: _BACKENDS.cuda.math_sdp_enabled,
    SDPBackend.CUDNN_ATTENTION: _BACKENDS.cuda.cudnn_sdp_enabled,
}

#: The hooks that run in all modules of the process, of `register_module_forward_hook` and its like.
_GLOBAL_HOOKS: list[dict[Any, Any]] = [
    hooks for name, hooks in vars(modules).items() if name.startswith("_global_") and isinstance(hooks, dict)
]


@contextmanager
def plain_torch() -> Iterator[None]:
    """Let PyTorch compute as in a fresh process, then restore the caller's settings.

    A measurement under autocast would be one of another model, and so would one with coarser matrix products, or with
    hooks that run in all modules. It is a decorator, too.

    >>> with torch.autocast("cpu", dtype=torch.bfloat16), plain_torch():
    ...     (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
    torch.float32

    Raises:
        HydrascopeError: the working directory has been deleted.
    """
    require_working_directory()
    with ExitStack() as stack:
        stack.callback(torch.set_default_dtype, torch.get_default_dtype())
        torch.set_default_dtype(torch.float32)
        # `torch.set_float32_matmul_precision` sets these, too, and can't be asked once one of them was set alone.
        for products in _PRODUCTS:
            stack.callback(setattr, products, "fp32_precision", products.fp32_precision)
            products.fp32_precision = "ieee"
        for hooks in filter(None, _GLOBAL_HOOKS):
            stack.callback(hooks.update, hooks.copy())
            hooks.clear()
        # Contexts that nothing needs are left out: some slow down every call of PyTorch.
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        if not torch.is_grad_enabled():
            stack.enter_context(torch.enable_grad())
        for kind in filter(torch.is_autocast_enabled, _AUTOCAST):
            stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        if not all(is_on() for is_on in _KERNELS.values()):
            stack.enter_context(sdpa_kernel([*_KERNELS, SDPBackend.OVERRIDEABLE]))
        yield
