"""How much is run at a time: estimated from the memory there is, and what counts as running out of it."""

import gc
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

from hydrascope.models.language_model import LanguageModel
from hydrascope.utils.errors import HydrascopeError

Measured = TypeVar("Measured")

#: On a CPU a run takes at most this much memory beside the weights.
CPU_BYTES = 2 * 2**30

#: On a CPU at most so much of it is filled with what needn't be there: writing it to a file takes 3% of a run.
CPU_SPARE_BYTES = CPU_BYTES / 4

#: More prompts at a time make no batch faster: the products are large enough to fill the machine.
LARGEST_BATCH = {"cpu": 16, "cuda": 256}


@dataclass(frozen=True)
class Load:
    """What the runs of one prompt need memory for.

    Attributes:
        length: of the prompt, in tokens.
        suffix: how many of its last positions every run goes through.
        overrides: how many, each with every patch.
        patches: of each run.
        reads: how many numbers are read off each run: components × readouts.
    """

    length: int
    suffix: int
    overrides: int
    patches: int
    reads: int


@dataclass(frozen=True)
class Batch:
    """How many prompts go through the layers together, and how many runs of each, with all their patches."""

    prompts: int
    overrides: int

    def halved(self) -> "Batch | None":
        """Half as much at a time; None where there is no less."""
        if self.prompts > 1:
            return Batch(self.prompts // 2, self.overrides)
        return Batch(1, self.overrides // 2) if self.overrides > 1 else None


def automatic_batch(model: LanguageModel, load: Load, bank: int) -> Batch:
    """How much fits into memory at a time.

    Args:
        load: of the longest prompt.
        bank: bytes of clean values that are kept besides.
    """
    budget = _budget(model, bank)
    prefix, row = prefix_bytes(model, load.length), row_bytes(model, load)
    fits = int(budget // (prefix + (load.overrides * load.patches + 1) * row))
    if fits >= 1:
        return Batch(min(fits, LARGEST_BATCH.get(model.device.type, 16)), load.overrides)
    runs = int((budget - prefix) // row) // load.patches
    return Batch(1, max(1, min(runs, load.overrides)))


def spare_bytes(model: LanguageModel, load: Load, bank: int, batch: Batch) -> float:
    """How much there is for what needn't be kept, where `batch` is measured at a time; none where that is large."""
    needed = prefix_bytes(model, load.length) + (batch.overrides * load.patches + 1) * row_bytes(model, load)
    spare = max(_budget(model, bank) - batch.prompts * needed, 0)
    return spare if model.device.type == "cuda" else min(spare, CPU_SPARE_BYTES)


def is_on_disk(bank: int) -> bool:
    """Whether a bank of so many bytes is kept on disk: one that takes more than half of the memory of a run."""
    return bank > CPU_BYTES / 2


def require_possible(model: LanguageModel, load: Load) -> None:
    """Refuse runs of which one alone, with its patches, is larger than all memory that the device has.

    Raises:
        HydrascopeError: it is.
    """
    if model.device.type == "cuda":
        _, whole = torch.cuda.mem_get_info(model.device)
    else:
        whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    row = row_bytes(model, load)
    if load.patches * row > whole:
        raise HydrascopeError(
            f"{load.patches:,} patches of one run need about {load.patches * row / 2**30:,.0f} GiB, and there are "
            f"{whole / 2**30:,.0f}: ask for at most {max(int(whole // row), 1):,}"
        )


def graph_rows(model: LanguageModel, length: int, bank: int) -> int:
    """How many rows of `length` tokens can be run at a time where autograd remembers what every layer computes.

    Args:
        bank: bytes of clean values that are kept besides.
    """
    row = len(model.blocks) * row_bytes(model, Load(length, length, 1, 1, 0))
    return max(1, min(int(_budget(model, bank) // row), LARGEST_BATCH.get(model.device.type, 16)))


def _budget(model: LanguageModel, bank: int) -> float:
    """How many bytes may be used at a time."""
    if model.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(model.device)
        return 0.8 * free
    return CPU_BYTES - (0 if is_on_disk(bank) else bank)


def row_bytes(model: LanguageModel, load: Load) -> int:
    """An estimate from above of the memory that one run with one patch needs at the top layer.

    Twice what the tensors of one layer take: the allocator keeps freed pieces that don't fit the next.
    """
    size, wide = model.dtype.itemsize, max(model.dtype.itemsize, 4)
    matrices = [parameter for parameter in model.blocks[0].parameters() if parameter.ndim > 1]
    inner = max(max(matrix.shape[-2:]) for matrix in matrices) * getattr(model.config, "num_experts_per_tok", 1)
    token = size * (12 * model.width + 6 * inner) + wide * 3 * model.config.num_attention_heads * load.length
    return load.suffix * token + wide * (8 * model.width + 6 * load.reads)


def prefix_bytes(model: LanguageModel, length: int) -> int:
    """An estimate from above of the memory that a prompt's clean run needs, and what all its runs share of it."""
    size, wide = model.dtype.itemsize, max(model.dtype.itemsize, 4)
    matrices = [parameter for parameter in model.blocks[0].parameters() if parameter.ndim > 1]
    inner = max(max(matrix.shape[-2:]) for matrix in matrices) * getattr(model.config, "num_experts_per_tok", 1)
    kept = size * length * (6 * model.width + 3 * inner + 2 * model.width * len(model.blocks))
    return kept + wide * 2 * model.config.num_attention_heads * length**2


def within_memory(measure: Callable[[Batch], Measured], batch: Batch) -> tuple[Measured, Batch]:
    """`measure(batch)`, with half as much at a time whenever memory runs out; and the batch that worked.

    Raises:
        HydrascopeError: not even one run of one prompt at a time fits.
    """
    while True:
        try:
            return measure(batch), batch
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            smaller = batch.halved()
            if smaller is None:
                raise HydrascopeError(
                    "memory runs out with one run of one prompt at a time: take a narrower dtype or fewer patches"
                ) from error
        # Only here, where the error and with it the tensors of its frames are gone.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        batch = smaller


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory ran out, in any of the ways in which PyTorch says so."""
    signs = ("can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)
    )
