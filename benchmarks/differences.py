"""`python -m benchmarks.differences`: products of differences on SmolLM2, how exact and how fast they are.

All sublayers are ablated by 3 patches on 24 prompts. Errors are against float64 throughout, with the same draws of
patches; times are of whole runs in memory, by turns. With one thread, processor time says more than time on a machine
that does other work as well.
"""

import argparse
import os
import statistics
import time
import warnings

import numpy as np
import torch
import xarray as xr

import hydrascope as hs
from benchmarks.report import table
from hydrascope.ablations.ablation import Ablation
from hydrascope.engines.kernels.hardware import processor, slower_than_float32
from hydrascope.models.float64 import Float64Mode, float64_copy
from hydrascope.models.language_model import LanguageModel
from hydrascope.prompts.prompt import PromptSet

#: Effects below this many logits are small.
SMALL = 0.05
FLOAT32, BFLOAT16, DIFFERENCES = "float32", "bfloat16", "bfloat16-differences"


def measure(model: LanguageModel, prompts: PromptSet, ablation: Ablation, name: str) -> xr.Dataset:
    """All sublayers ablated, effects only."""
    products = DIFFERENCES if name == DIFFERENCES else FLOAT32
    return hs.sweep(model, prompts, ablation, keep="effects", target="answer", products=products)


def in_dtypes(name: str) -> dict[str, LanguageModel]:
    """The model for each row of the table, and in float64."""
    single = hs.load_model(name)
    wide = float64_copy(single)
    assert wide is not None
    return {"float64": wide, FLOAT32: single, BFLOAT16: hs.load_model(name, dtype="bfloat16"), DIFFERENCES: single}


def errors(found: np.ndarray, expected: np.ndarray) -> tuple[float, float]:
    """The root mean square of the errors, and the median of the relative ones of small effects."""
    off = np.abs(found.astype(np.float64) - expected)
    small = (np.abs(expected) < SMALL) & (expected != 0)
    return float(np.sqrt((off**2).mean())), float(np.median(off[small] / np.abs(expected[small])))


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.differences", description=__doc__)
    parser.add_argument("--prompts", type=int, default=24)
    parser.add_argument("--patches", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5, help="timed runs of each kind")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    models, ablation = in_dtypes("smollm2"), hs.Resample(options.patches)
    prompts = hs.load_prompts("common-facts").limit(options.prompts)
    with Float64Mode():
        expected = measure(models["float64"], prompts, ablation, FLOAT32)["total"].values
    names = (FLOAT32, BFLOAT16, DIFFERENCES)
    found = {name: errors(measure(models[name], prompts, ablation, name)["total"].values, expected) for name in names}
    clock = time.process_time if options.threads == 1 else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(options.rounds):
        for name in names:
            start = clock()
            measure(models[name], prompts, ablation, name)
            seconds[name].append(clock() - start)
        turn = ", ".join(f"{name} {each[-1]:.1f} s" for name, each in seconds.items())
        print(f"round {number + 1}, load {os.getloadavg()[0]:.1f}: {turn}", flush=True)
    rows = []
    for name in names:
        ratios = [one / other for one, other in zip(seconds[FLOAT32], seconds[name], strict=True)]
        speed = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
        rows.append([name, f"{found[name][0]:.1e}", f"{found[name][1]:.1e}", speed])
    slower = slower_than_float32(torch.bfloat16)
    print(f"\n{processor()}; products in bfloat16 are {'slower' if slower else 'faster'} here than in float32")
    size, share = np.sqrt((expected**2).mean()), (np.abs(expected) < SMALL).mean()
    print(f"totals: root mean square {size:.2f} logits, {share:.0%} below {SMALL}\n")
    print(table(["products", "error, logits", f"relative error below {SMALL}", "times as fast as float32"], rows))


if __name__ == "__main__":
    main()
