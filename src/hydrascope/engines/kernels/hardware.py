"""Describe the computing machine and measure its speed of matrix products."""

import os
import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from hydrascope.engines.kernels.matmul import FORCE, ROUTINES, time_routines
from hydrascope.engines.kernels.patching import fastest_routines, is_choice, products
from hydrascope.models.language_model import LanguageModel
from hydrascope.utils.text import counted

#: The sizes of a large product, and of one that is quick in any dtype.
LARGE, _SMALL = 2048, 256

#: The instructions that decide the speed of products, by Linux's names.
_VECTORS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve", "bf16", "i8mm")


def kind(device: torch.device) -> str:
    """Return the hardware that decides the rounding: processor and threads, or the GPU.

    >>> kind(torch.device("cpu"))
    '... threads'
    """
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{processor()}, {torch.get_num_threads()} threads"


def processor() -> str:
    """Return the processor's model, family and vector instructions, as far as they are known."""
    facts = _facts()
    flags = facts.get("flags", facts.get("Features", "")).split()
    details = [f"{word} {facts[key]}" for word, key in (("family", "cpu family"), ("model", "model")) if key in facts]
    vectors = [name for name in _VECTORS if name in flags]
    suffix = "; ".join(words for words in (", ".join(details), ", ".join(vectors)) if words)
    name = facts.get("model name") or platform.processor() or platform.machine()
    return f"{name} ({suffix})" if suffix else name


def _facts() -> dict[str, str]:
    """Return Linux's facts on the first core; empty on other systems."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return {}
    lines = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in lines}


def memory() -> float:
    """Return the machine's memory in GiB."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def sustained(work: Callable[[], object], seconds: float) -> float:
    """Return how often `work` runs in a second, measured over at least `seconds`."""
    work()
    done, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds or not done:
        work()
        done += 1
    return done / elapsed


def describe(model: LanguageModel | None = None, seconds: float = 0.5) -> list[str]:
    """Return lines on the machine, on its rates of matrix products, and on the model's routines.

    >>> lines = describe(seconds=0.001)

    Args:
        model: the model to list the routines of; without it they are left out.
        seconds: the time to measure each rate for.
    """
    threads = torch.get_num_threads()
    many = f"{counted(os.cpu_count() or 1, 'core', 'cores')}, {counted(threads, 'thread', 'threads')}"
    lines = [f"{processor()}: {many}, {memory():.0f} GiB", ""]
    if torch.cuda.is_available():
        lines[:1] += [torch.cuda.get_device_name()]
    for dtype in (torch.float32, torch.bfloat16):
        # Without instructions for bfloat16, a large product in it may take minutes.
        size = LARGE if dtype == torch.float32 or is_choice(dtype) else LARGE // 8
        for name in ("matmul", "onednn") if is_choice(dtype) else ("matmul",):
            flops = rate(name, size, dtype, seconds)
            lines.append(f"{_dtype(dtype)}, {name}: {flops / 1e9:,.0f} GFLOP/s, {size:,} × {size:,} × {size:,}")
    if model is None:
        return lines
    lines += ["", f"{model.name} in {_dtype(model.dtype)}: products are computed by the fastest routine, marked *"]
    routines = fastest_routines(model)
    for product in sorted(products(model), key=str):
        found = time_routines(product, model.dtype, threads)
        rates = (f"{name} {flops / 1e9:,.0f}{'*' * (name == routines[str(product)])}" for name, flops in found.items())
        lines.append(f"  {product}: {', '.join(rates)} GFLOP/s")
    if not routines:
        lines.append("  PyTorch has only one library for these products")
    if forced := os.environ.get(FORCE):
        lines.append(f"  {FORCE}={forced} forces one routine")
    return lines


def slower_than_float32(dtype: torch.dtype, seconds: float = 0.02) -> float | None:
    """Return how many times slower products in `dtype` are than in float32, if they are.

    A processor without instructions for a dtype converts number by number. The result is None if the dtype isn't
    narrower than float32, or not slower.
    """
    if dtype not in (torch.bfloat16, torch.float16):
        return None
    name = "onednn" if is_choice(dtype) else "matmul"
    ratio = rate("matmul", _SMALL, torch.float32, seconds) / rate(name, _SMALL, dtype, seconds)
    return ratio if ratio > 1 else None


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def rate(routine: str, size: int, dtype: torch.dtype, seconds: float) -> float:
    """Measure a routine's FLOP/s for products of two `size` × `size` matrices.

    A multiply-add counts as two.
    """
    left, right = (torch.randn(size, size).to(dtype) for _ in range(2))
    multiply: Callable[[], Tensor] = partial(ROUTINES[routine], left, right.T, None, "")
    return 2 * size**3 * sustained(multiply, seconds)
