"""Measure the study: what comes back along directions on the stream after pushes along them."""

from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

import hydrascope as hs
from hydrascope.components.component import Component, Override
from hydrascope.engines import Request, choose_engine
from hydrascope.engines.clean.prefix import SharedPrefix, compute_prefix
from hydrascope.engines.kernels.patching import fastest_routines
from hydrascope.engines.readouts import Readouts
from hydrascope.models.language_model import LanguageModel
from hydrascope.prompts.prepare import prepare
from studies.batches import is_whole, store_batches, write_about
from studies.damping.halves import HALVES, Half, take
from studies.damping.weight_noise import with_noise
from studies.features.directions import Directions, choose

#: Prompts that are run together, and stored in one file.
_BATCH = 5
#: The share of a part that is removed where pushes are small.
SMALL = 0.1


class Run(NamedTuple):
    """A folder of stored results.

    Attributes:
        model, prompts, half: the model, the set of prompts and its half.
        kind: `main`, `turned` (the push with the other sign), `small` (a small push), or `noise.0` and so on.
    """

    model: str
    prompts: str
    half: Half
    kind: str = "main"

    def at(self, stores: Path) -> Path:
        """Return the folder of the results."""
        return stores / "-".join(self).replace("/", "--")


def directions_at(stores: Path, model: str) -> Path:
    """Return the file of a model's directions."""
    return stores / f"{model.replace('/', '--')}-directions.npz"


def blocks_read(settings: Mapping[str, Any], model: LanguageModel, name: str) -> list[int]:
    """Return the blocks whose streams are read; those of other models by their share of the depth."""
    return list(settings["read"].get(name, [round(share * len(model.blocks)) for share in settings["read"]["shares"]]))


def measure(settings: Mapping[str, Any], prompts: Mapping[str, hs.prompts.PromptSet], stores: Path) -> dict[Run, Path]:
    """Measure, or resume, all runs of the study; return the folders of their results.

    Args:
        settings: the study's settings.
        prompts: the sets of prompts by the names in the settings.
        stores: the folder of the results.
    """
    halves, noise, turned = settings["halves"], settings["weight_noise"], settings["turned"]
    chosen = {
        (label, half): take(each, half, halves[label], halves["explored_before"])
        for label, each in prompts.items()
        for half in HALVES
    }
    paths: dict[Run, Path] = {}

    def run(of: Run, model: LanguageModel, some: Sequence[Any], **how: Any) -> None:
        _measure(settings, model, of, some, stores, **how)
        paths[of] = of.at(stores)

    for name in settings["models"]:
        model = hs.load_model(name, dtype=settings["dtype"])
        _choose(settings, model, name, [each for label in prompts for each in chosen[label, "exploration"]], stores)
        for label in prompts:
            run(Run(name, label, "exploration"), model, chosen[label, "exploration"][: settings["explored"][label]])
        for label in prompts:
            run(Run(name, label, "confirmation"), model, chosen[label, "confirmation"])
        some = chosen[turned["set"], "confirmation"][: turned["prompts"]]
        most = [max(settings["between"])]
        run(Run(name, turned["set"], "confirmation", "turned"), model, some, between=most, dose=-1.0)
        for label in prompts:
            of = Run(name, label, "confirmation", "small")
            run(of, model, chosen[label, "confirmation"], between=most, dose=SMALL)
        for seed in noise["seeds"]:
            of = Run(name, noise["set"], "confirmation", f"noise.{seed}")
            some = chosen[noise["set"], "confirmation"][: noise["prompts"]]
            noised = model if is_whole(of.at(stores), len(some)) else with_noise(model, seed)
            run(of, noised, some, between=most)
    return paths


def _choose(settings: Mapping[str, Any], model: LanguageModel, name: str, prompts: Sequence[Any], stores: Path) -> None:
    path = directions_at(stores, name)
    if not path.exists():
        tokens = prepare(model, hs.prompts.PromptSet.of(list(prompts), "exploration")).tokens
        blocks = blocks_read(settings, model, name)
        choose(settings, first_blocks(model, max(blocks) + 1), blocks, tokens).save(path)


def _measure(
    settings: Mapping[str, Any],
    model: LanguageModel,
    run: Run,
    prompts: Sequence[Any],
    stores: Path,
    *,
    between: Sequence[int] = (),
    dose: float = 1.0,
) -> None:
    """Write the results of one run, a file for each batch of prompts.

    Args:
        settings: the study's settings.
        model: the model.
        run: the run.
        prompts: its prompts.
        stores: the folder of all results.
        between: the numbers of blocks in between; by default, those of the settings.
        dose: the share of k's part that is removed.
    """
    folder, between = run.at(stores), list(between or settings["between"])
    if is_whole(folder, len(prompts)):
        return
    folder.mkdir(parents=True, exist_ok=True)
    directions = Directions.load(directions_at(stores, run.model))
    prepared = prepare(model, hs.prompts.PromptSet.of(list(prompts), run.prompts))

    def pushed(indices: list[int]) -> dict[str, np.ndarray]:
        found = push(model, directions, between, [prepared.tokens[index] for index in indices], dose)
        return {**found, "index": np.array(indices)}

    store_batches(folder, prepared.tokens, _BATCH, pushed)
    write_about(folder, model, prepared.prompts, {"between": between})


def places(block: int, between: Sequence[int]) -> list[Component]:
    """Return the ablated sublayers for a block that is read: attention, then MLP, for each number in between.

    >>> [str(place) for place in places(12, [0, 6])]
    ['attn.11', 'mlp.11', 'attn.5', 'mlp.5']

    Args:
        block: the block that is read.
        between: the numbers of blocks in between.
    """
    return [Component(block - 1 - number, kind) for number in between for kind in ("attn", "mlp")]


def first_blocks(model: LanguageModel, number: int) -> LanguageModel:
    """Return a model of the first blocks alone, with the same weights.

    Its final residual stream is the stream that enters the next block of the whole model.

    Args:
        model: the model.
        number: the number of blocks.
    """
    hf = copy(model.hf)
    *above, last = model.anatomy.blocks.split(".")
    parent = hf
    parent._modules = dict(parent._modules)
    for name in above:
        parent._modules[name] = copy(parent._modules[name])
        parent = parent._modules[name]
        parent._modules = dict(parent._modules)
    parent._modules[last] = nn.ModuleList(model.blocks[:number])
    return LanguageModel(hf, model.tokenizer, anatomy=model.anatomy, name=model.name)


@torch.no_grad()
def push(
    model: LanguageModel,
    directions: Directions,
    between: Sequence[int],
    tokens: Sequence[Sequence[int]],
    dose: float = 1.0,
) -> dict[str, np.ndarray]:
    """Remove parts of sublayers along directions, and return what is missing where the directions are read.

    Args:
        model: the language model.
        directions: the directions, at each depth.
        between: the numbers of blocks in between.
        tokens: the ids of each prompt.
        dose: the share of a part that is removed.

    Returns:
        a *place* is an ablated sublayer, attention then MLP for each number in `between`.

        - `direct` [prompt, depth, place, direction]: what a sublayer's part along a direction takes away there.
        - `total` [prompt, depth, place, direction]: the change along that direction at the block that is read.
        - `whole` [prompt, depth, place, direction]: the same when all that the sublayer writes is removed.
    """
    deepest = first_blocks(model, int(max(directions.blocks)))
    last = torch.tensor([[len(ids) - 1] for ids in tokens])
    routines = fastest_routines(deepest)
    common = compute_prefix(deepest, tokens, last, deepest.sublayers, routines)
    found: dict[str, list[Tensor]] = {"direct": [], "total": [], "whole": []}
    for depth, block in enumerate(directions.blocks.tolist()):
        units = torch.from_numpy(directions.units[depth])
        sublayers, part = places(block, between), first_blocks(model, block)
        parts = {place: (common.clean.values[place].double() @ units.T)[..., None] * units for place in sublayers}
        pushed = _streams(part, tokens, common, sublayers, {place: -dose * each for place, each in parts.items()})
        removed = {place: -common.clean.values[place].double()[:, None] for place in sublayers}
        whole = _streams(part, tokens, common, sublayers, removed)
        direct = torch.stack([common.clean.values[place].double() @ units.T for place in sublayers], 1)
        found["direct"].append(-dose * direct * model.residual_scale)
        found["total"].append((pushed * units).sum(-1))
        found["whole"].append(whole[:, :, 0] @ units.T)
    return {name: torch.stack(each, 1).numpy() for name, each in found.items()}


def _streams(
    model: LanguageModel,
    tokens: Sequence[Sequence[int]],
    common: SharedPrefix,
    sublayers: Sequence[Component],
    changes: Mapping[Component, Float[Tensor, "prompt patch width"]],
) -> Float[Tensor, "prompt place patch width"]:
    """Return the change of the final stream by each change of what a sublayer writes at the last position."""

    def values(place: Component) -> Float[Tensor, "prompt patch slot width"]:
        # The row without a change is the clean pass with the rounding of the others.
        still = torch.zeros_like(changes[place][:, :1])
        written = common.clean.values[place][:, None].double() + torch.cat([changes[place], still], 1)
        return written.to(model.dtype)[:, :, None]

    request = Request(
        tokens,
        torch.tensor([[len(ids) - 1] for ids in tokens]),
        tuple(Override((place,)) for place in sublayers),
        changes[sublayers[0]].shape[1] + 1,
        values,
        (),
        Readouts(()),
        (),
        torch.zeros(len(tokens), dtype=torch.long),
        prefix=common,
    )
    _, rows = choose_engine(model).final_streams(model, request)
    return rows[:, :, :-1].double() - rows[:, :, -1:].double()
