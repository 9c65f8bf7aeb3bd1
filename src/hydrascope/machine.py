"""The machine that computes: what it is, and how fast it multiplies matrices."""

import os
import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from hydrascope.engines.routines import ROUTINES

#: Instructions that decide how fast products are, as Linux names them.
_VECTORS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve", "bf16", "i8mm")


def kind(device: torch.device) -> str:
    """What decides the last digits of numbers besides the software: the processor and its threads, or the GPU.

    >>> hs.machine.kind(torch.device("cpu"))        # doctest: +SKIP
    'AMD EPYC (family 25, model 17; avx2, avx512f), 2 threads'
    """
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{processor()}, {torch.get_num_threads()} threads"


def processor() -> str:
    """The processor's model, family and vector instructions, as far as the system tells them."""
    facts = _facts()
    flags = facts.get("flags", facts.get("Features", "")).split()
    details = [f"{word} {facts[key]}" for word, key in (("family", "cpu family"), ("model", "model")) if key in facts]
    vectors = [name for name in _VECTORS if name in flags]
    known = "; ".join(part for part in (", ".join(details), ", ".join(vectors)) if part)
    name = facts.get("model name") or platform.processor() or platform.machine()
    return f"{name} ({known})" if known else name


def _facts() -> dict[str, str]:
    """What Linux says of the first core; nothing on other systems."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return {}
    lines = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in lines}


def memory() -> float:
    """The machine's memory, in GiB."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def sustained(work: Callable[[], object], seconds: float) -> float:
    """How often `work` is done in a second, over at least `seconds` of doing nothing else."""
    work()
    done, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds or not done:
        work()
        done += 1
    return done / elapsed


def rate(routine: str, size: int, dtype: torch.dtype, seconds: float) -> float:
    """The FLOP/s of products of two `size` × `size` matrices by one of `ROUTINES`, a multiply-add being two."""
    left, right = (torch.randn(size, size).to(dtype) for _ in range(2))
    multiply: Callable[[], Tensor] = partial(ROUTINES[routine], left, right.T, None, "")
    return 2 * size**3 * sustained(multiply, seconds)
