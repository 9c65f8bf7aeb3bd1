"""A model whose weights are larger than the memory that a process may have: `python -m benchmarks.offload`.

A random Llama of 7B's shape in bfloat16 is measured on the same prompts, with the same patches, by a process without a
limit, whose weights are in memory, and by one that may take less than the weights are and fetches them from disk, from
where it must read them each time: what the system keeps of the files is dropped all the while.
"""

import argparse
import json
import math
import multiprocessing
import os
import resource
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

import hydrascope as hs
from benchmarks.memory import peak_resident
from benchmarks.report import table
from benchmarks.worker import THREADS
from hydrascope.engines.kernels.hardware import memory, processor
from hydrascope.loading.device_placement import Offload
from hydrascope.loading.load import read_model
from hydrascope.runs.batches import compute_clean_activations, measure_chunks
from hydrascope.runs.config import SweepConfig
from hydrascope.runs.plan import make_plan

#: What the limited process may take, in bytes: of private memory, in use or not, and weights that are mapped into it.
LIMIT = 8 * 2**30
#: Prompts at a time.
BATCHES = (1, 8, 32)
ROUNDS = 3
#: Of each prompt, in tokens.
LENGTH = 8

SHAPE = LlamaConfig(
    vocab_size=32000,
    hidden_size=4096,
    intermediate_size=11008,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=32,
    bos_token_id=None,
    eos_token_id=None,
    dtype="bfloat16",
)


def write(folder: Path, config: LlamaConfig = SHAPE) -> None:
    """A random model on disk, a file a block, with never more than a block in memory."""
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in LlamaForCausalLM(config).state_dict().items()}
    files: dict[str, dict[str, torch.Size]] = {}
    for name, shape in shapes.items():
        block = name.split(".")[2] if name.startswith("model.layers.") else "rest"
        files.setdefault(f"model-{block}.safetensors", {})[name] = shape
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    for file, own in files.items():
        weights = {name: _drawn(name, shape, generator) for name, shape in own.items()}
        save_file(weights, folder / file, metadata={"format": "pt"})
    places = {name: file for file, own in files.items() for name in own}
    index = {"metadata": {"total_size": 2 * sum(map(math.prod, shapes.values()))}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    config.save_pretrained(folder)
    hs.load_model("built-in").tokenizer.save_pretrained(folder)  # any: the numbers mean nothing


def _drawn(name: str, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    if len(shape) == 1:
        return torch.ones(shape, dtype=torch.bfloat16)
    # So that a layer writes about as much as it reads, whatever its width.
    return (torch.randn(shape, generator=generator) / shape[-1] ** 0.5).bfloat16()


def measure(folder: Path, offload: Offload | None) -> tuple[dict[str, Any], dict[int, np.ndarray]]:
    """Seconds of loading and, a round, of each batch, all layers set to zero; memory in bytes; and the effects."""
    torch.set_num_threads(THREADS)
    start = time.perf_counter()
    # Without the self-check: what is compared is what a run takes.
    model = read_model(folder, dtype="bfloat16", offload=offload)
    record: dict[str, Any] = {"load": time.perf_counter() - start, "seconds": {size: [] for size in BATCHES}}
    generator = torch.Generator().manual_seed(0)
    prompts = torch.randint(4, model.vocabulary, (max(BATCHES), LENGTH), generator=generator).tolist()
    effects = {}
    with limited(folder) if offload else nullcontext():
        for size in BATCHES * ROUNDS:
            plan = make_plan(model, prompts[:size], hs.Zero(), SweepConfig(keep="effects"))
            every = [range(size)]
            start = time.perf_counter()
            clean = compute_clean_activations(plan, plan.batch(size), every, every)
            (chunk,) = measure_chunks(plan, clean, every, plan.batch(size))
            record["seconds"][size].append(time.perf_counter() - start)
            effects[size] = np.stack([chunk.measured[name] for name in ("total", "direct", "indirect")])
    return {**record, "peak": peak_resident()}, effects


@contextmanager
def limited(folder: Path) -> Iterator[None]:
    """Let this process take no more than `LIMIT`, and the system keep nothing of the files in `folder`.

    Not while a model is loaded: then all of its files are mapped at once, and counted, though little of them is read.
    """
    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT))
    done = threading.Event()

    def drop() -> None:
        while not done.wait(0.5):
            for path in folder.glob("*.safetensors"):
                file = os.open(path, os.O_RDONLY)
                # But what is mapped, as weights are while their module runs.
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(file)

    thread = threading.Thread(target=drop)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def say(message: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {message}", flush=True)


def main() -> None:
    """Measure both, compare them, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.offload", description=__doc__)
    parser.add_argument("--model", type=Path, help="where the model of 13.5 GB is, or is to be written and stay")
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks"), help="folder of the record")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.model or Path(temporary) / "model"
        if not folder.exists():
            say(f"writing the model to {folder}")
            write(folder)
        weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        found: dict[str, Any] = {}
        for name, offload in (("in memory", None), ("from disk", "disk")):
            say(name)
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                found[name] = pool.apply(measure, (folder, offload))
    (plain, expected), (streamed, effects) = found.values()
    apart = max(float(np.abs(effects[size] - expected[size]).max()) for size in BATCHES)
    largest = max(float(np.abs(each).max()) for each in expected.values())
    record = {
        "processor": processor(),
        "memory": memory(),
        "versions": {package: version(package) for package in ("torch", "transformers", "accelerate")},
        "limit": LIMIT,
        "weights": weights,
        "in memory": plain,
        "from disk": streamed,
        "apart": apart,
        "largest": largest,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "offload.json").write_text(json.dumps(record, indent=1))
    print(page(record))


def page(record: dict[str, Any]) -> str:
    """The figures as Markdown."""
    plain, streamed = record["in memory"], record["from disk"]
    rows = []
    for size in BATCHES:
        each = [one["seconds"][size] for one in (plain, streamed)]
        # Of the least: whatever else runs on the machine only adds.
        share = min(each[0]) / min(each[1])
        rows.append([f"{size}", f"{2 * SHAPE.num_hidden_layers * size:,}", *map(_seconds, each), f"{share:.0%}"])
    head = ["prompts at a time", "rows", "s, in memory", "s, from disk", "share of the speed"]
    return "\n\n".join(
        [
            f"{record['weights'] / 2**30:.1f} GiB of weights; limit {record['limit'] / 2**30:.0f} GiB; most resident "
            f"{streamed['peak'] / 2**30:.1f} GiB from disk, {plain['peak'] / 2**30:.1f} GiB in memory; loading took "
            f"{streamed['load']:.0f} s and {plain['load']:.0f} s. Effects are apart by at most {record['apart']:.1e} "
            f"logits, the largest {record['largest']:.2f}.",
            table(head, rows),
        ]
    )


def _seconds(rounds: list[float]) -> str:
    return f"{min(rounds):.1f} (to {max(rounds):.1f})"


if __name__ == "__main__":
    main()
