"""Choose batches by the free memory, and retry with smaller ones when memory runs out."""

import gc
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

from hydrascope.models.language_model import LanguageModel
from hydrascope.utils.errors import HydrascopeError

Measured = TypeVar("Measured")

#: The memory that a run takes on a CPU beside the weights, in bytes.
CPU_BYTES = 2 * 2**30

#: The memory for optional caches on a CPU, in bytes. Writing them to a file instead takes 3% of a run's time.
CPU_SPARE_BYTES = CPU_BYTES / 4

#: The most prompts in a batch: larger batches aren't faster, since the products already fill the machine.
LARGEST_BATCH = {"cpu": 16, "cuda": 256}

#: The most rows of a prompt in a pass on a CPU, where they don't fit into one. Larger passes only take more memory. Of
#: much smaller ones there are so many shapes that oneDNN, which keeps 1,024 compiled products, compiles them each time.
ROWS = 6144


@dataclass(frozen=True)
class Load:
    """The sizes that decide how much memory one prompt needs.

    Attributes:
        length: the length of the prompt, in tokens.
        suffix: the number of last positions that each row computes.
        overrides: the number of overrides.
        patches: the number of patches of each override.
        reads: the number of readings of each row: components × readouts.
    """

    length: int
    suffix: int
    overrides: int
    patches: int
    reads: int


@dataclass(frozen=True)
class Batch:
    """The size of a batch.

    Attributes:
        prompts: the number of prompts in one pass.
        overrides: the number of overrides in one pass, each with all its patches.
    """

    prompts: int
    overrides: int

    def halved(self) -> "Batch | None":
        """Return a batch of half the size; None if there is no smaller one."""
        if self.prompts > 1:
            return Batch(self.prompts // 2, self.overrides)
        return Batch(1, self.overrides // 2) if self.overrides > 1 else None


@dataclass(frozen=True)
class MemoryBudget:
    """The memory that a run may take, and how it is shared out.

    Attributes:
        model: the model, whose weights are in memory already.
        load: the sizes of the longest prompt.
        activation_bytes: the size of the clean activations that patches are drawn from.
        copied_bytes: the size of copies of the weights in another dtype, which stand beside the weights.
    """

    model: LanguageModel
    load: Load
    activation_bytes: int = 0
    copied_bytes: int = 0

    @property
    def activations_on_disk(self) -> bool:
        """Whether the clean activations are kept on disk, since they are too many for memory."""
        return self.activation_bytes > CPU_BYTES / 2

    def batch(self) -> Batch:
        """Return the largest batch that fits."""
        prefix, row = prefix_bytes(self.model, self.load.length), row_bytes(self.model, self.load)
        fits = int(self._bytes() // (prefix + (self.load.overrides * self.load.patches + 1) * row))
        if fits >= 1:
            return Batch(min(fits, self._largest()), self.load.overrides)
        rows = int((self._bytes() - prefix) // row)
        overrides = (min(rows, ROWS) if self.model.device.type == "cpu" else rows) // self.load.patches
        return Batch(1, max(1, min(overrides, self.load.overrides)))

    def graph_rows(self, length: int) -> int:
        """Return the number of rows of `length` tokens that fit with their autograd graph."""
        row = len(self.model.blocks) * row_bytes(self.model, Load(length, length, 1, 1, 0))
        return max(1, min(int(self._bytes() // row), self._largest()))

    def batch_bytes(self, batch: Batch) -> int:
        """Return an upper estimate of the bytes that `batch` takes."""
        rows = batch.overrides * self.load.patches + 1
        return batch.prompts * (prefix_bytes(self.model, self.load.length) + rows * row_bytes(self.model, self.load))

    def spare_bytes(self, batch: Batch) -> float:
        """Return the bytes left for optional caches while `batch` is measured."""
        spare = max(self._bytes() - self.batch_bytes(batch), 0)
        return spare if self.model.device.type == "cuda" else min(spare, CPU_SPARE_BYTES)

    def require_possible(self) -> None:
        """Make sure that one override with all its patches fits into the device's total memory.

        Raises:
            HydrascopeError: it doesn't fit; the message names the largest number of patches.
        """
        if self.model.device.type == "cuda":
            _, whole = torch.cuda.mem_get_info(self.model.device)
        else:
            whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        whole -= self.copied_bytes
        row, patches = row_bytes(self.model, self.load), self.load.patches
        if patches * row > whole:
            raise HydrascopeError(
                f"{patches:,} patches of one override need about {patches * row / 2**30:,.0f} GiB of memory, and "
                f"there are {whole / 2**30:,.0f}: ask for at most {max(int(whole // row), 1):,} patches"
            )

    def _bytes(self) -> float:
        """Return the bytes that a batch may take now."""
        if self.model.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.model.device)
            return 0.8 * free
        return CPU_BYTES - (0 if self.activations_on_disk else self.activation_bytes)

    def _largest(self) -> int:
        return LARGEST_BATCH.get(self.model.device.type, 16)


def row_bytes(model: LanguageModel, load: Load) -> int:
    """Return an upper estimate of the bytes that one row needs in the last block.

    It is twice the size of one block's tensors, since the allocator keeps freed pieces that don't fit the next tensor.
    """
    size, wide = model.dtype.itemsize, max(model.dtype.itemsize, 4)
    matrices = [parameter for parameter in model.blocks[0].parameters() if parameter.ndim > 1]
    inner = max(max(matrix.shape[-2:]) for matrix in matrices) * getattr(model.config, "num_experts_per_tok", 1)
    token = size * (12 * model.width + 6 * inner) + wide * 3 * model.config.num_attention_heads * load.length
    return int(load.suffix * token + wide * (8 * model.width + 6 * load.reads))


def prefix_bytes(model: LanguageModel, length: int) -> int:
    """Return an upper estimate of the bytes of a prompt's clean pass and its kept prefix."""
    size, wide = model.dtype.itemsize, max(model.dtype.itemsize, 4)
    matrices = [parameter for parameter in model.blocks[0].parameters() if parameter.ndim > 1]
    inner = max(max(matrix.shape[-2:]) for matrix in matrices) * getattr(model.config, "num_experts_per_tok", 1)
    kept = size * length * (6 * model.width + 3 * inner + 2 * model.width * len(model.blocks))
    return int(kept + wide * 2 * model.config.num_attention_heads * length**2)


def within_memory(measure: Callable[[Batch], Measured], batch: Batch) -> tuple[Measured, Batch]:
    """Measure a batch; halve it whenever memory runs out.

    Returns:
        The result of `measure`, and the batch that fitted.

    Raises:
        HydrascopeError: one override of one prompt doesn't fit.
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
                    "memory runs out with one override of one prompt: choose a narrower dtype or fewer patches"
                ) from error
        # Outside of the handler, so that the error and the tensors of its frames are gone.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        batch = smaller


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of PyTorch or Python means that memory ran out."""
    signs = ("can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)
    )
