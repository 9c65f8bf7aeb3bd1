"""Reading features and measuring edges, against a plain sweep of the same model in the same process.

    python -m benchmarks.terms [MODEL] [PROMPTS]

Every sublayer gets a random dictionary of 4,096 ReLU features, all of which are read in all rows and summed. Edges are
all those between the embeddings, the sublayers and the logits, with one patch. Both are divided by the default sweep:
all sublayers, 15 patches. Rounds alternate; the ratio is that of medians.
"""

import statistics
import sys
import time
from collections.abc import Callable

import torch

import hydrascope as hs
from hydrascope.analyses.edges import edges
from hydrascope.components.component import Component
from hydrascope.models.language_model import LanguageModel
from hydrascope.runs.batches import compute_clean_activations, measure_batch, prepare_batch
from hydrascope.runs.config import SweepConfig
from hydrascope.runs.plan import make_plan

FEATURES, ROUNDS = 4096, 3


def with_features(model: LanguageModel) -> LanguageModel:
    """Return the model with a random dictionary at every sublayer."""
    generator = torch.Generator().manual_seed(0)
    size = FEATURES, model.width
    weights = [torch.randn(size, generator=generator) / model.width**0.5 for _ in range(2)]
    return model.with_dictionaries(*(hs.Dictionary(str(each), *weights) for each in model.sublayers))


def main(name: str = "smollm2", prompts: int = 8) -> None:
    """Print the ratios."""
    plain = hs.load_model(name)
    model = with_features(plain)
    texts = hs.load_prompts("common-facts").limit(prompts + 16)
    plan = make_plan(model, texts, hs.Resample(15), SweepConfig())
    batch = plan.batch(prompts)
    indices = list(range(prompts))
    clean = compute_clean_activations(plan, batch, [range(len(plan.tokens))])
    every = slice(0, len(plan.overrides))
    sites = tuple(Component(each.block, "feature", place=each.kind) for each in model.sublayers)  # type: ignore[arg-type]
    prepared = {summed: prepare_batch(plan, clean, indices, summed) for summed in ((), sites)}
    few = hs.prompts.PromptSet.of(list(texts)[:prompts])
    tasks: dict[str, Callable[[], object]] = {
        "sweep": lambda: measure_batch(plan, clean, prepared[()], every),
        "features": lambda: measure_batch(plan, clean, prepared[sites], every, sites),
        "edges": lambda: edges(plain, few, hs.Resample(1), slopes=False, batch_size=prompts),
        "edges and slopes": lambda: edges(plain, few, hs.Resample(1), batch_size=prompts),
    }
    times: dict[str, list[float]] = {task: [] for task in tasks}
    for _ in range(ROUNDS):
        for task, run in tasks.items():
            start = time.perf_counter()
            run()
            times[task].append(time.perf_counter() - start)
    base = statistics.median(times["sweep"])
    for task, taken in times.items():
        ratios = ", ".join(f"{each / base:.2f}" for each in taken)
        print(f"{task:18} {statistics.median(taken) / base:5.2f} times the sweep ({ratios}); {base:.1f} s", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(int, sys.argv[2:3]))
