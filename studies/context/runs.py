"""Measure the study: the split in every cell, then distance and weight noise in the cells of the primary claim."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import hydrascope as hs
from hydrascope.components.component import Override
from hydrascope.components.model_shape import ModelShape
from hydrascope.engines.clean.clean_pass import compute_clean_pass
from hydrascope.models.language_model import LanguageModel
from studies.context.cells import Cell, Text, prompts_of, read_texts
from studies.damping.ablations import Pushes
from studies.damping.chosen import candidates
from studies.damping.halves import Half
from studies.damping.weight_noise import with_noise
from studies.measuring import is_whole, sweep_to

#: The readout that the primary claim is read on.
PRIMARY = "difference"
READOUTS: dict[str, Any] = {PRIMARY: hs.LogitDifference(), "logit": hs.Logit()}


class Run(NamedTuple):
    """A stored result.

    Attributes:
        model, half, cell: the model, the half of the sentences, and the cell.
        kind: `main`, `log_p`, `noise.0`, …, or `distance`.
    """

    model: str
    half: Half
    cell: str
    kind: str = "main"

    def at(self, stores: Path) -> Path:
        """Return the place of the result."""
        ending = "json" if self.kind in ("log_p", "distance") else "zarr"
        return stores / f"{'-'.join(self).replace('/', '--')}.{ending}"


@dataclass(frozen=True)
class Parts(hs.Split):
    """The split of ablations without boost; all readouts have a readout part, the first alone has a content."""

    doses: tuple[float, ...] = ()

    def overrides(self, model: ModelShape, readouts: Sequence[str]) -> tuple[Override, ...]:
        """Return the ablations, then each with every part."""
        return tuple(
            override
            for override in super().overrides(model, readouts)
            if not (override.part and override.part.kind == "content" and override.part.readout != readouts[0])
        )


def measure(settings: Mapping[str, Any], prompts: Mapping[str, Any], stores: Path) -> dict[Run, Path]:
    """Measure, or resume, all runs of the study; return the paths of their results.

    Args:
        settings: the study's settings.
        prompts: no sets: the texts are the study's own.
        stores: the folder of the results.
    """
    stores.mkdir(parents=True, exist_ok=True)
    cells, confirmed = settings["cells"], settings["texts"]["confirmation"]
    others = dict.fromkeys(cells["others"], cells["sentences"]["others"])
    explored = {cell: cells["sentences"].get(cell, settings["texts"]["exploration"]) for cell in cells["primary"]}
    plans: list[tuple[Half, dict[str, int], list[str]]] = [
        ("exploration", explored, list(READOUTS)),
        ("confirmation", dict.fromkeys(cells["primary"], confirmed), list(READOUTS)),
        ("confirmation", others, [PRIMARY]),
    ]
    runs = [
        run
        for half, sentences, readouts in plans
        for name in settings["models"]
        for run in _measure_cells(settings, name, half, sentences, readouts, stores)
    ]
    runs += [run for name in settings["models"] for run in _measure_controls(settings, name, stores)]
    return {run: run.at(stores) for run in runs}


def sources_of(settings: Mapping[str, Any], half: Half) -> list[str]:
    """Return the source of each sentence of a half."""
    return [text.source for text in texts_of(settings, half)]


def texts_of(settings: Mapping[str, Any], half: Half) -> list[Text]:
    """Return the texts of a half."""
    sizes, every = settings["texts"], read_texts()
    first = sizes["exploration"]
    return every[:first] if half == "exploration" else every[first : first + sizes["confirmation"]]


def sublayers_of(model: LanguageModel) -> list[str]:
    """Return the sublayers that are pooled: from one third of the depth on, without the last MLP."""
    return candidates(list(map(str, model.sublayers)), len(model.blocks))


def prompts_with_answers(
    settings: Mapping[str, Any], model: LanguageModel, half: Half, cell: str
) -> hs.prompts.PromptSet:
    """Return the prompts of a cell, with the answers and foils that all cells share."""
    texts = texts_of(settings, half)
    pairs = answers_of(model, prompts_of(model, texts, Cell("newline", 1)))
    tokens = prompts_of(model, texts, Cell.parse(cell))
    return hs.prompts.PromptSet.of(
        [hs.Prompt(tokens=ids, answer=answer, foil=foil) for ids, (answer, foil) in zip(tokens, pairs, strict=True)],
        f"{cell}, {half}",
    )


@torch.no_grad()
def answers_of(model: LanguageModel, tokens: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """Return the two most likely next tokens of each prompt."""
    logits = compute_clean_pass(model, tokens, ()).logits(model)[:, : model.vocabulary]
    return [(answer, foil) for answer, foil in logits.topk(2).indices.tolist()]


def _measure_cells(
    settings: Mapping[str, Any],
    name: str,
    half: Half,
    sentences: Mapping[str, int],
    readouts: Sequence[str],
    stores: Path,
) -> Iterator[Run]:
    model = hs.load_model(name, dtype=settings["dtype"])
    for cell, count in sentences.items():
        run = Run(name, half, cell)
        some = prompts_with_answers(settings, model, half, cell).limit(count)
        _sweep(settings, run.at(stores), model, some, readouts)
        yield run
        run = run._replace(kind="log_p")
        _measure_log_p(model, some, run.at(stores))
        yield run


def _sweep(
    settings: Mapping[str, Any], path: Path, model: LanguageModel, some: hs.prompts.PromptSet, readouts: Sequence[str]
) -> None:
    if not is_whole(path, len(some)):
        parts, chosen = Parts(sublayers_of(model)), [READOUTS[each] for each in readouts]
        sweep_to(path, settings, model, some, hs.Zero(), parts, chosen)


@torch.no_grad()
def _measure_log_p(model: LanguageModel, prompts: hs.prompts.PromptSet, path: Path) -> None:
    """Write the log p of each prompt's answer in the clean pass: as a metric of the sweep it would take much longer."""
    if path.exists():
        return
    found = []
    for prompt in prompts:
        logits = compute_clean_pass(model, [prompt.tokens or ()], ()).logits(model)[0, : model.vocabulary]
        found.append(float(logits.double().log_softmax(-1)[prompt.answer]))
    path.write_text(json.dumps(found), "utf-8")


def _measure_controls(settings: Mapping[str, Any], name: str, stores: Path) -> Iterator[Run]:
    model, allowed = hs.load_model(name, dtype=settings["dtype"]), settings["if_time_allows"]
    for cell in settings["cells"]["primary"]:
        run = Run(name, "confirmation", cell, "distance")
        some = prompts_with_answers(settings, model, run.half, cell).limit(allowed["distance"]["sentences"])
        _measure_kick(settings, model, some, run.at(stores))
        yield run
    noise = allowed["weight_noise"]
    for seed in noise["seeds"]:
        noised: LanguageModel | None = None
        for cell in settings["cells"]["primary"]:
            run = Run(name, "confirmation", cell, f"noise.{seed}")
            some = prompts_with_answers(settings, model, run.half, cell).limit(noise["sentences"])
            if not is_whole(run.at(stores), len(some)):
                noised = noised or with_noise(model, seed)
                _sweep(settings, run.at(stores), noised, some, [PRIMARY])
            yield run


def _measure_kick(settings: Mapping[str, Any], model: LanguageModel, prompts: hs.prompts.PromptSet, path: Path) -> None:
    """Write the median kick of zero ablation and of the readout part for the target, at the block after each."""
    if path.exists():
        return
    found = {}
    for name, ablation in (("whole", hs.Zero()), ("readout", Pushes(0, 0))):
        measured = hs.analyses.distance(model, prompts, ablation, ablate=sublayers_of(model), target=settings["target"])
        blocks = measured["first_block"].values - measured["block"].values[0]
        found[name] = float(np.median([measured["kick"].values[:, place, at] for place, at in enumerate(blocks)]))
    path.write_text(json.dumps(found), "utf-8")
