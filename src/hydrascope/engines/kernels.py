"""The same functions, computed with fewer passes over memory: what a sweep's many rows make worth while."""

import ctypes
import functools
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers.activations import FastGELUActivation, NewGELUActivation

from hydrascope.model import LanguageModel

#: Activations that transformers writes as several tensor operations and PyTorch has in one.
_TANH_GELU = (NewGELUActivation, FastGELUActivation)


@contextmanager
def fast_kernels(model: LanguageModel) -> Iterator[None]:
    """Let `model` compute the tanh form of GELU in one operation instead of eight, up to rounding."""
    _keep_freed_memory()
    activations = [module for module in model.hf.modules() if isinstance(module, _TANH_GELU)]
    for module in activations:
        # In place: the input is the output of the projection before, which nothing else reads.
        module.forward = functools.partial(torch.ops.aten.gelu_, approximate="tanh")  # type: ignore[method-assign]
    try:
        yield
    finally:
        for module in activations:
            del module.forward


@functools.cache
def _keep_freed_memory() -> None:
    """Ask glibc to reuse the memory of freed tensors instead of returning it to the system.

    Every layer allocates tensors of tens of megabytes. By default glibc maps each one afresh and unmaps it when it
    is freed, and the system then clears every page of the next: a third of a sweep's time on a CPU.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    trim_threshold, mmap_max = -1, -4  # malloc.h: M_TRIM_THRESHOLD, M_MMAP_MAX
    libc.mallopt(mmap_max, 0)
    libc.mallopt(trim_threshold, 2**31 - 1)
