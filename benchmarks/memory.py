"""Peak memory of a whole run into a result on disk, in a process that does nothing else, and the result's size."""

import multiprocessing
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.shapes import Shape
from benchmarks.task import PATCHES, Work
from benchmarks.worker import THREADS


@dataclass(frozen=True)
class Memory:
    """In bytes, but for `prompts`, how many were measured.

    Attributes:
        weights: the model's, tied ones once.
        imports: resident before the model is built: Python and its libraries.
        peak: the most that was ever resident.
        bank: the clean values that all patches are drawn from.
        disk: the result.
    """

    prompts: int
    weights: int
    imports: int
    peak: int
    bank: int
    disk: int

    @property
    def beside_weights(self) -> int:
        """All that is not weights, libraries included."""
        return self.peak - self.weights


def of_run(shape: Shape, lengths: tuple[int, ...], work: Work) -> Memory:
    """The memory of `hydrascope.sweep` on prompts of these lengths, with what is ablated read too."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_measure, (shape, lengths, work))


def _measure(shape: Shape, lengths: tuple[int, ...], work: Work) -> Memory:
    import hydrascope as hs

    torch.set_num_threads(THREADS)
    imports = peak_resident()
    model = shape.build()
    generator = torch.Generator().manual_seed(0)
    prompts = [torch.randint(shape.config.vocab_size, (length,), generator=generator).tolist() for length in lengths]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.zarr"
        hs.sweep(
            hs.models.LanguageModel(model),
            prompts,
            hs.Resample(PATCHES),
            out=out,
            ablate=work.ablate,
            read=work.ablate,
            at=work.at,
        )
        disk = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    kept = sum(lengths) if work.at == "all" else len(lengths)
    sites = len({component.site for component in work.ablated(shape)})
    bank = kept * sites * shape.width * model.dtype.itemsize
    return Memory(len(lengths), weights, imports, peak_resident(), bank, disk)


def peak_resident() -> int:
    """The most memory this process has ever had resident, in bytes, as Linux counts it.

    Not `resource.getrusage`: its maximum includes that of the process that started this one.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("this system does not tell the peak of resident memory")
