"""Results on disk made of random numbers, for tests that need no model."""

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from hydrascope.runs.sweep import sweep
from hydrascope.storage import checksums
from hydrascope.storage import writer as writing
from hydrascope.storage.schema import FORMAT, MEASURED_VARIABLES, add_units
from hydrascope.storage.writer import Writer

TEXT = object
LABELS = ["attn.0", "mlp.0", "attn.1", "mlp.1"]
DIMS = {name: variable.dims for name, variable in MEASURED_VARIABLES.items()}


def sizes(prompts: int, patches: int) -> dict[str, int]:
    return {"readout": 2, "metric": 1, "prompt": prompts, "ablated": 4, "patch": patches, "component": 4}


def known(prompts: int) -> xr.Dataset:
    """Every variable and coordinate that is known before anything is measured."""
    kinds, layers = np.array(["attn", "mlp"] * 2, TEXT), np.array([0, 0, 1, 1])
    return xr.Dataset(
        {
            "target": ("prompt", np.arange(prompts)),
            "downstream": (("ablated", "component"), np.triu(np.ones((4, 4), bool), 1)),
        },
        {
            "ablated": np.array(LABELS, TEXT),
            "component": np.array(LABELS, TEXT),
            **{f"{dim}_kind": (dim, kinds) for dim in ("ablated", "component")},
            **{f"{dim}_block": (dim, layers) for dim in ("ablated", "component")},
            **{f"{dim}_unit": (dim, np.full(4, -1)) for dim in ("ablated", "component")},
            "readout": np.array(["logit", "naïve"], TEXT),
            "readout_before": ("readout", np.array([-1, 1])),
            "metric": np.array(["kl"], TEXT),
            "metric_units": ("metric", np.array(["nats"], TEXT)),
            "text": ("prompt", np.array([f"naïve\0 {i}" for i in range(prompts)], TEXT)),
            "target_text": ("prompt", np.array([" x\0"] * prompts, TEXT)),
            "runner_up": ("prompt", np.arange(prompts)),
            "runner_up_text": ("prompt", np.array([" y"] * prompts, TEXT)),
            "token_id": (("prompt", "token"), np.array([[4, 7, -1]] * prompts)),
            "token_text": (("prompt", "token"), np.array([["naï", "ve\0", ""]] * prompts, TEXT)),
            "token_ablated": (("prompt", "token"), np.array([[False, True, False]] * prompts)),
            "subject": ("prompt", np.array(["", "naïve\0"] * (prompts // 2) + [""] * (prompts % 2), TEXT)),
            "subject_first": ("prompt", np.arange(prompts) % 2 - 1),
            "subject_end": ("prompt", np.arange(prompts) % 2 * 2 - 1),
        },
        {"model": "toy", "seed": 0, "units": "logits", "prompt_count": prompts},
    )


def measured(prompts: int, patches: int, dtype: str, seed: int = 0) -> xr.Dataset:
    random, size = np.random.default_rng(seed), sizes(prompts, patches)
    variables = {
        name: (dims, random.normal(size=[size[dim] for dim in dims]).astype(dtype)) for name, dims in DIMS.items()
    }
    return xr.Dataset(variables | {"patch_prompt": (("prompt", "patch"), np.full((prompts, patches), -1))})


def create(
    path: Path, prompts: int = 7, patches: int = 2, dtype: str = "float32", block: int = 3, **options: Any
) -> Writer:
    return create_for(path, measured(prompts, patches, dtype), known(prompts), block, **options)


def create_for(path: Path, everything: xr.Dataset, known: xr.Dataset, block: int = 3, **options: Any) -> Writer:
    """A result in which `everything` is to be measured."""
    empty = {str(name): (variable.dims, str(variable.dtype)) for name, variable in everything.items()}
    return writing.create(path, known, empty, everything.sizes, block, **options)


def write(writer: Writer, everything: xr.Dataset, *starts: int) -> None:
    """Write the blocks that begin at `starts`; all that are left where none are given."""
    size = writer.attributes["chunk_size"]
    for start in starts or (chunk.start for chunk in writer.chunks()):
        block = everything.isel(prompt=slice(start, start + size))
        writer.write(start, block, {"worst_imbalance": 0.5})


def stored(path: Path, prompts: int = 7, patches: int = 2, dtype: str = "float32", block: int = 3) -> xr.Dataset:
    """A whole result at `path`, and what must be read from it."""
    everything = measured(prompts, patches, dtype)
    with create(path, prompts, patches, dtype, block) as writer:
        write(writer, everything)
    return expected(everything, block)


def expected(everything: xr.Dataset, block: int = 3) -> xr.Dataset:
    """What is read from a whole result."""
    prompts = everything.sizes["prompt"]
    whole = add_units(known(prompts).merge(everything), "logits")
    return whole.assign_attrs(
        known(prompts).attrs, format=FORMAT, measured=prompts, chunk_size=block, worst_imbalance=0.5
    )


def change_attributes(path: Path, **changed: Any) -> None:
    """As if the result at `path` had been written with other attributes."""
    root = checksums.parse_root((path / "zarr.json").read_bytes())
    root["attributes"] |= changed
    (path / "zarr.json").write_bytes(checksums.add_checksum(root))


def run_to_disk(*arguments: Any, out: str | Path, **options: Any) -> Path:
    """Sweep into the folder `out`, and return it."""
    sweep(*arguments, out=out, **options)
    return Path(out)
