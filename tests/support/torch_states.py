"""Hold states of PyTorch and of Python in the user's process: none may change a number."""

import locale
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules import module as modules

#: The kernels of attention that PyTorch can be held to, or kept from.
_KERNELS = (
    *(SDPBackend.MATH, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION),
    SDPBackend.CUDNN_ATTENTION,
)


@contextmanager
def setting(change: Callable[[Any], None], value: Any, usual: Any) -> Iterator[None]:
    """Hold a setting at a value, then change it back to the usual one."""
    change(value)
    try:
        yield
    finally:
        change(usual)


def lower_precision(products: Any, precision: str) -> AbstractContextManager[None]:
    """Hold the precision of one library's products, by PyTorch's newer settings."""
    return setting(partial(setattr, products, "fp32_precision"), precision, products.fp32_precision)


@contextmanager
def global_hook(register: Callable[[Any], Any], hook: Callable[..., Any]) -> Iterator[None]:
    """Hold a hook in all modules of the process."""
    handle = register(hook)
    try:
        yield
    finally:
        handle.remove()


def louder(module: nn.Module, inputs: Any, output: Any) -> Any:
    """Return the output of a linear module times 1.5, as a forward hook."""
    return output * 1.5 if isinstance(module, nn.Linear) else None


def louder_input(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> Any:
    """Return the input of a linear module times 1.5, as a forward pre-hook."""
    return (inputs[0] * 1.5,) if isinstance(module, nn.Linear) else None


def louder_gradients(module: nn.Module, gradients: Any, output_gradients: Any = None) -> Any:
    """Return the gradients of a linear module times 3, as a backward hook or pre-hook."""
    return tuple(None if each is None else each * 3 for each in gradients) if isinstance(module, nn.Linear) else None


def comma_folder(folder: str) -> bool:
    """Make the locale de_DE.UTF-8 in a folder, for LOCPATH; return whether it could be made."""
    if shutil.which("localedef") is None:
        return False
    made = subprocess.run(
        ["localedef", "-i", "de_DE", "-f", "UTF-8", f"{folder}/de_DE.UTF-8"], capture_output=True, check=False
    )
    return made.returncode == 0


@contextmanager
def decimal_comma() -> Iterator[None]:
    """Write 1,5 for 1.5 wherever the locale decides, if the machine can make such a locale."""
    before = locale.setlocale(locale.LC_ALL)
    with tempfile.TemporaryDirectory() as folder:
        found = comma_folder(folder)
        os.environ["LOCPATH"] = folder
        try:
            if found:
                locale.setlocale(locale.LC_ALL, "de_DE.UTF-8")
                assert locale.str(1.5) == "1,5"
            yield
        finally:
            del os.environ["LOCPATH"]
            locale.setlocale(locale.LC_ALL, before)


#: By name, the state as a context to enter.
STATES: dict[str, Callable[[], Any]] = {
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "a default device": partial(setting, torch.set_default_device, "meta", None),
    "a default dtype": partial(setting, torch.set_default_dtype, torch.float64, torch.float32),
    "coarse products": partial(setting, torch.set_float32_matmul_precision, "medium", "highest"),
    "TF32": lambda: lower_precision(torch.backends.cuda.matmul, "tf32"),
    "bfloat16 products": lambda: lower_precision(torch.backends.mkldnn.matmul, "bf16"),
    "deterministic algorithms": partial(setting, torch.use_deterministic_algorithms, True, False),
    **{f"attention by {each.name} alone": partial(sdpa_kernel, each) for each in _KERNELS},
    **{f"no attention by {each.name}": partial(sdpa_kernel, [*({*_KERNELS} - {each})]) for each in _KERNELS},
    "compiling alone": lambda: torch.compiler.set_stance("fail_on_recompile"),
    "no compiling": lambda: torch.compiler.set_stance("force_eager"),
    "a hook in all modules": lambda: global_hook(modules.register_module_forward_hook, louder),
    "a hook before all modules": lambda: global_hook(modules.register_module_forward_pre_hook, louder_input),
    "a hook on all gradients": lambda: global_hook(modules.register_module_full_backward_hook, louder_gradients),
    "a hook before all gradients": lambda: global_hook(
        modules.register_module_full_backward_pre_hook, louder_gradients
    ),
    "a decimal comma": decimal_comma,
}
