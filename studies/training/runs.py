"""Train the models of the study, and measure what ablations do to each."""

from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

import hydrascope as hs
from hydrascope.ablations.ablation import Ablation
from hydrascope.components.experiments import SPLIT
from hydrascope.measures import effects_only
from hydrascope.measures.labels import single_ablations
from hydrascope.measures.split import select_part
from hydrascope.models.language_model import LanguageModel
from studies.damping.halves import HALVES, take
from studies.training.corpus import Corpus, make_corpus
from studies.training.estimator import SWAPS, ZEROS
from studies.training.trainer import CONTROL, Branch, branches, train
from training import evaluate

#: The tests: the ablation, and the positions.
TESTS = ("zero", "mean", "resample", "zero, all positions")
#: The tests that the control is also put to on its way, and all arms on the exploration half.
FEW_TESTS = ("zero", "resample")
#: Passages on which the kick of a failure is measured.
_KICKED = 60


class Run(NamedTuple):
    """A stored result of one model.

    Attributes:
        seed, arm: the seed and the arm.
        test: one of `TESTS`, the same with `, exploration`, `split`, `loss`, or `kick, zero` and `kick, resample`.
        step: of the branch, if the model isn't its last.
    """

    seed: int
    arm: str
    test: str
    step: int | None = None

    def at(self, stores: Path) -> Path:
        """Return the place of the result."""
        parts = [str(self.seed), self.arm, self.test, *([] if self.step is None else [f"step {self.step}"])]
        return stores / "measured" / f"{'-'.join(parts).replace(', ', '-').replace(' ', '-')}.npz"


def measure(settings: Mapping[str, Any], prompts: Mapping[str, hs.prompts.PromptSet], stores: Path) -> dict[Run, Path]:
    """Train and measure, or resume, all models of the study; return the paths of the results.

    Args:
        settings: the study's settings.
        prompts: the passages.
        stores: the folder of the models and the results.
    """
    corpus = make_corpus(settings, stores / "corpus")
    for branch in branches(settings):
        train(settings, corpus, branch, stores)
    return measure_trained(settings, corpus, prompts, stores)


def measure_trained(
    settings: Mapping[str, Any], corpus: Corpus, prompts: Mapping[str, hs.prompts.PromptSet], stores: Path
) -> dict[Run, Path]:
    """Measure, or resume, the arms that all seeds have, and return the paths of the results."""
    (stores / "measured").mkdir(parents=True, exist_ok=True)
    halves = settings["halves"]
    explored, some = (
        hs.prompts.PromptSet.of(
            take(prompts["passages"], half, halves["passages"], halves["explored_before"]), f"passages, {half}"
        )
        for half in HALVES
    )
    runs = [*_runs(settings, stores)]
    for (seed, arm, step), group in groupby(runs, lambda run: (run.seed, run.arm, run.step)):
        folder = Branch(seed, arm).model(stores, step)
        model: LanguageModel | None = None
        for run in group:
            used, path = explored if run.test.endswith("exploration") else some, run.at(stores)
            if path.exists():
                continue
            if run.test == "loss":
                _write(path, _loss(corpus, folder, used))
                continue
            model = model or hs.load_model(str(folder), dtype=settings["dtype"])
            if run.test.startswith("kick"):
                _write(path, _kick(settings, model, used, run.test.removeprefix("kick, ")))
            else:
                _write(
                    path,
                    _split(settings, model, used) if run.test == "split" else _effects(settings, model, used, run.test),
                )
        print(f"measured {seed}, {arm}{'' if step is None else f', step {step}'}", flush=True)
    return {run: run.at(stores) for run in runs}


def whole_arms(settings: Mapping[str, Any], stores: Path) -> list[str]:
    """Return the arms that have been trained to their end with all seeds."""
    return [
        arm
        for arm in settings["arms"]
        if all((Branch(seed, arm).model(stores) / "config.json").exists() for seed in settings["seeds"])
    ]


def _runs(settings: Mapping[str, Any], stores: Path) -> Iterator[Run]:
    for arm in whole_arms(settings, stores):
        for seed in settings["seeds"]:
            for test in (*TESTS, *(f"{test}, exploration" for test in FEW_TESTS), "split", "loss"):
                yield Run(seed, arm, test)
            # Runs of one model stand together.
            if arm in (CONTROL, ZEROS, SWAPS):
                yield from (Run(seed, arm, f"kick, {test}") for test in FEW_TESTS)
    for seed in settings["seeds"]:
        for step in settings["kept"]:
            yield from (Run(seed, CONTROL, test, step) for test in (*FEW_TESTS, "loss"))


def _ablation(settings: Mapping[str, Any], test: str) -> Ablation:
    named = {"zero": hs.Zero(), "mean": hs.Mean(), "resample": hs.Resample(settings["patches"], settings["seed"])}
    return named[test.split(",")[0]]


def _measure(
    settings: Mapping[str, Any], model: LanguageModel, prompts: hs.prompts.PromptSet, test: str
) -> dict[str, Any]:
    if test == "split":
        return _split(settings, model, prompts)
    if test.startswith("kick"):
        return _kick(settings, model, prompts, test.removeprefix("kick, "))
    return _effects(settings, model, prompts, test)


def _effects(
    settings: Mapping[str, Any], model: LanguageModel, prompts: hs.prompts.PromptSet, test: str
) -> dict[str, Any]:
    """Return what a test of one model changes.

    `kl`, and `total` and `direct` on the target's logit, are each [prompt, sublayer], means over patches; the rest says
    what was measured.
    """
    at = "all" if "all positions" in test else settings["at"]
    results = hs.sweep(
        model,
        prompts,
        _ablation(settings, test),
        at=at,
        target=settings["target"],
        metrics="kl",
        keep="effects",
    )
    kl = results["metric_ablated"].sel(metric="kl").mean("patch", dtype=np.float64).transpose("prompt", "ablated")
    about = {name: results.attrs[name] for name in ("hydrascope", "prompts_hash")}
    return {"sublayer": results["ablated"].values.astype(str), "kl": kl.values, **_logits(results), **about}


def _split(settings: Mapping[str, Any], model: LanguageModel, prompts: hs.prompts.PromptSet) -> dict[str, Any]:
    """Return the effects of zero ablation, of its readout part and of its content, each [prompt, sublayer]."""
    results = hs.sweep(
        model, prompts, hs.Zero(), ablate=hs.Split(), at=settings["at"], target=settings["target"], keep="effects"
    )
    parts = {
        "whole": single_ablations(results),
        **{kind: select_part(results, hs.measures.Part(kind, "logit")) for kind in SPLIT},
    }
    return {f"{kind} {name}": each for kind, of in parts.items() for name, each in _logits(of).items()}


def _logits(results: xr.Dataset) -> dict[str, np.ndarray]:
    data = effects_only(results, "logit").data
    return {name: data[name].transpose("prompt", "ablated").values for name in ("total", "direct")}


def _loss(corpus: Corpus, folder: Path, prompts: hs.prompts.PromptSet) -> dict[str, Any]:
    """Return the loss on held-out prose and the mean entropy after the passages, in nats, and the parameters."""
    model, tokenizer = evaluate.load(folder)
    logs = evaluate.last_logits(model, tokenizer, [prompt.text for prompt in prompts.prompts]).log_softmax(-1)
    return {
        "loss": evaluate.loss(model, tokenizer, corpus.held_out)["nats_per_token"],
        "entropy": float(-(logs.exp() * logs).sum(-1).mean()),
        "parameters": model.num_parameters(),
    }


def _kick(
    settings: Mapping[str, Any], model: LanguageModel, prompts: hs.prompts.PromptSet, test: str
) -> dict[str, Any]:
    """Return the median kick of an ablation at the block after it, over passages and all sublayers but the last."""
    measured = hs.analyses.distance(model, prompts.limit(_KICKED), _ablation(settings, test))
    blocks = measured["first_block"].values - measured["block"].values[0]
    kicks = [measured["kick"].values[:, place, block] for place, block in enumerate(blocks)][:-1]
    return {"kick": np.median(kicks)}


def _write(path: Path, found: Mapping[str, Any]) -> None:
    """Write arrays to a file, all or nothing."""
    part = path.with_suffix(".part.npz")
    np.savez(part, **found)
    part.rename(path)
