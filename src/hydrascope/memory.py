"""How many prompts a batch may hold: estimated from the memory there is, and what counts as running out of it."""

import gc
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from hydrascope.errors import HydrascopeError
from hydrascope.model import LanguageModel

Measured = TypeVar("Measured")

#: On a CPU a run takes at most this much memory beside the weights.
CPU_BYTES = 2 * 2**30

#: More prompts at a time make no batch faster: the products are large enough to fill the machine.
LARGEST_BATCH = {"cpu": 16, "cuda": 256}


def automatic_batch_size(model: LanguageModel, tokens: Sequence[Sequence[int]], patches: int) -> int:
    """How many prompts of `tokens` fit into memory at a time, each with all components ablated by `patches`."""
    bank = len(tokens) * len(model.components) * model.width * model.dtype.itemsize
    if model.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(model.device)
        budget = 0.8 * free
    else:
        # Where the bank of clean activations alone is larger, batches of some size are still worth having.
        budget = max(CPU_BYTES - bank, CPU_BYTES / 8)
    fits = int(budget // prompt_bytes(model, max(map(len, tokens)), patches))
    return max(1, min(fits, LARGEST_BATCH.get(model.device.type, 16)))


def prompt_bytes(model: LanguageModel, length: int, patches: int) -> int:
    """An estimate from above of the memory that one prompt of a batch needs at the top layer.

    Twice what the tensors of one layer take: the allocator keeps freed pieces that don't fit the next.
    """
    rows = len(model.components) * patches + 1
    size, wide = model.dtype.itemsize, max(model.dtype.itemsize, 4)
    matrices = [parameter for parameter in model.layers[0].parameters() if parameter.ndim > 1]
    inner = max(max(matrix.shape[-2:]) for matrix in matrices) * getattr(model.config, "num_experts_per_tok", 1)
    heads = model.config.num_attention_heads
    row = size * (12 * model.width + 6 * inner) + wide * (8 * model.width + 6 * len(model.components))
    row += wide * 3 * heads * length
    prefix = size * length * (6 * model.width + 3 * inner + 2 * model.width * len(model.layers))
    return rows * row + prefix + wide * 2 * heads * length**2


def within_memory(measure: Callable[[int], Measured], size: int) -> tuple[Measured, int]:
    """`measure(size)`, with half the size whenever memory runs out; and the size that worked.

    Raises:
        HydrascopeError: not even one prompt at a time fits.
    """
    while True:
        try:
            return measure(size), size
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if size == 1:
                raise HydrascopeError(
                    "memory runs out with one prompt at a time: take a narrower --dtype or fewer --patches"
                ) from error
        # Only here, where the error and with it the tensors of its frames are gone.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        size //= 2


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory ran out, in any of the ways in which PyTorch says so."""
    signs = ("can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)
    )
