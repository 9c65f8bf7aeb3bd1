"""Measure the study: what late MLPs write for many tokens, after pushes along several directions."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

import hydrascope as hs
from hydrascope.components.component import Component, Override
from hydrascope.engines import Request, choose_engine
from hydrascope.engines.clean.clean_pass import compute_clean_pass
from hydrascope.engines.readouts import Readouts, final_scale
from hydrascope.models.language_model import LanguageModel
from hydrascope.prompts.prepare import prepare
from studies.batches import is_whole, store_batches, write_about
from studies.damping.ablations import Pushes
from studies.damping.halves import HALVES, Half, take
from studies.damping.weight_noise import with_noise
from studies.erasure.geometry import Geometry, choose_tokens, directions, log_frequencies

#: Prompts that are run together, and stored in one file.
_BATCH = 10
#: The place of the fifth most likely token.
FIFTH = 4


class Run(NamedTuple):
    """A folder of stored results.

    Attributes:
        model, prompts, half: the model, the set of prompts and its half.
        kind: `main`, or `noise.0` and so on.
    """

    model: str
    prompts: str
    half: Half
    kind: str = "main"

    def at(self, stores: Path) -> Path:
        """Return the folder of the results."""
        return stores / "-".join(self).replace("/", "--")


@dataclass(frozen=True)
class Places:
    """The sublayers of one model that are pushed and read.

    Attributes:
        pushed: the sublayers that are pushed.
        late: the late MLPs.
    """

    pushed: tuple[Component, ...]
    late: tuple[Component, ...]

    @classmethod
    def of(cls, settings: Mapping[str, Any], model: LanguageModel, name: str) -> "Places":
        """Return the places that the settings name; those of other models by the same rule."""
        blocks = len(model.blocks)
        first = settings["late"].get(name, blocks - -(-blocks // 4))
        before = [f"{kind}.{block}" for block in (first - 2, first - 1) for kind in ("attn", "mlp")]
        pushed = settings["pushed"].get(name, before)
        return cls(
            tuple(map(Component.parse, pushed)), tuple(Component(block, "mlp") for block in range(first, blocks))
        )


def measure(settings: Mapping[str, Any], prompts: Mapping[str, hs.prompts.PromptSet], stores: Path) -> dict[Run, Path]:
    """Measure, or resume, all runs of the study; return the folders of their results.

    Args:
        settings: the study's settings.
        prompts: the sets of prompts by the names in the settings.
        stores: the folder of the results.
    """
    paths: dict[Run, Path] = {}
    halves, noise = settings["halves"], settings["weight_noise"]
    first = {
        (label, half): take(each, half, halves[label], halves["explored_before"])
        for label, each in prompts.items()
        for half in HALVES
    }
    frequent = {
        half: take(prompts["passages"], half, dict.fromkeys(HALVES, settings["frequency"]["passages"]),
                   halves["explored_before"])
        for half in HALVES
    }  # fmt: skip
    for name in settings["models"]:
        model = hs.load_model(name, dtype=settings["dtype"])
        # The half of passages that frequencies come from is not the one that is measured.
        frequencies = {
            half: _frequencies(model, other, stores / f"{name.replace('/', '--')}-frequencies-{half}.npy")
            for half, other in zip(HALVES, (frequent["confirmation"], frequent["exploration"]), strict=True)
        }
        for half in reversed(HALVES):
            for label in prompts:
                run = Run(name, label, half)
                _measure(settings, model, run, first[label, half], frequencies[half], stores)
                paths[run] = run.at(stores)
        chosen = first[noise["set"], "confirmation"]
        for seed in noise["seeds"]:
            run = Run(name, noise["set"], "confirmation", f"noise.{seed}")
            some = chosen[: noise["prompts"]]
            if not is_whole(run.at(stores), len(some)):
                _measure(settings, with_noise(model, seed), run, some, frequencies["confirmation"], stores)
            paths[run] = run.at(stores)
        run = Run(name, settings["distance"]["set"], "confirmation")
        _measure_kick(settings, model, run, first[run.prompts, run.half], stores)
    return paths


def _frequencies(model: LanguageModel, passages: Sequence[Any], path: Path) -> Float[np.ndarray, "token"]:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, log_frequencies(model, passages))
    return np.asarray(np.load(path))


def _measure(
    settings: Mapping[str, Any],
    model: LanguageModel,
    run: Run,
    prompts: Sequence[Any],
    log_frequency: Float[np.ndarray, "token"],
    stores: Path,
) -> None:
    """Write the results of one run, a file for each batch of prompts and one of the vocabulary's sums."""
    folder = run.at(stores)
    folder.mkdir(parents=True, exist_ok=True)
    prepared = prepare(model, hs.prompts.PromptSet.of(list(prompts), run.prompts))
    if not (folder / "vocabulary.npz").exists():
        np.savez(folder / "vocabulary.npz", **asdict(Geometry.of(model, log_frequency)))
    common = np.load(folder / "vocabulary.npz")["common"]
    places = Places.of(settings, model, run.model)

    def pushed(indices: list[int]) -> dict[str, np.ndarray]:
        tokens = [prepared.tokens[index] for index in indices]
        return push(settings, model, places, indices, tokens, log_frequency, common)

    store_batches(folder, prepared.tokens, _BATCH, pushed)
    told = {"pushed": list(map(str, places.pushed)), "late": list(map(str, places.late))}
    write_about(folder, model, prepared.prompts, told)


@torch.no_grad()
def push(
    settings: Mapping[str, Any],
    model: LanguageModel,
    places: Places,
    indices: Sequence[int],
    tokens: Sequence[Sequence[int]],
    log_frequency: Float[np.ndarray, "token"],
    common: Float[np.ndarray, "width"],
) -> dict[str, np.ndarray]:
    """Push some prompts, and return what late MLPs write for their tokens.

    Args:
        settings: the study's settings.
        model: the language model.
        places: the sublayers that are pushed and read.
        indices: the prompts' places in their set, for draws.
        tokens: the ids of each prompt.
        log_frequency: the log frequency of each token.
        common: the common mode.

    Returns:
        a *way* is a direction: that of the target, of the fifth most likely token, of other tokens, random ones.

        - `response` [prompt, way, pushed, mlp, token]: half the difference of what pushing up and down makes a late MLP
          write for each token, at the clean σ, in logits.
        - `written` [prompt, mlp, token]: what it writes for each token in the clean pass.
        - `joint` [prompt, way, pushed, width]: the response of all late MLPs together as a vector, over σ.
        - `even` [prompt, way, pushed, width]: the mean of what pushing up and down changes, in the same way.
        - `size` [prompt, pushed]: the length of the pushes, with the sign of what the component writes, over σ.
        - `unit` [prompt, way, width]: the directions, of length 1.
        - `profile` [prompt, way, token]: each direction along the tokens' readout directions.
        - `common`, `logit`, `log_frequency` [prompt, token]: of the tokens that are read.
        - `token` [prompt, token], `way_token` [prompt, way]: ids; −1 for a random direction.
        - `index` [prompt]: the prompts' places.
    """
    clean = compute_clean_pass(model, tokens, (*places.pushed, *places.late))
    logits = clean.logits(model)[:, : model.vocabulary].numpy()
    controls, counts = settings["controls"], settings["tokens"]
    named = np.stack([_named(each, index, controls) for each, index in zip(logits, indices, strict=True)])
    read = np.stack(
        [
            choose_tokens(
                each,
                log_frequency,
                pushed,
                [counts[name] for name in ("likely", "matched", "drawn")],
                np.random.default_rng([counts["seed"], index, 1]),
            )
            for each, pushed, index in zip(logits, named.tolist(), indices, strict=True)
        ]
    )
    units = _units(model, named, controls)
    # Each way gets as long a push as zero ablation takes away along the target.
    sizes = torch.stack([(clean.values[place] * units[:, 0]).sum(-1) for place in places.pushed], 1)
    odd, even = _responses(model, places, tokens, clean.values, units, sizes)
    written = torch.stack([clean.values[place] for place in places.late], 1) * model.residual_scale
    sigma, readers = final_scale(model, clean.final), directions(model, read)
    at = readers / sigma[:, None, None]
    found = {
        "response": torch.einsum("pwkmd,pvd->pwkmv", odd, at),
        "written": torch.einsum("pmd,pvd->pmv", written, at),
        "joint": odd.sum(3) / sigma[:, None, None, None],
        "even": even.sum(3) / sigma[:, None, None, None],
        "size": sizes * model.residual_scale / sigma[:, None],
        "unit": units,
        "profile": torch.einsum("pwd,pvd->pwv", units, readers),
        "common": readers @ torch.from_numpy(common).to(readers),
    }
    return {name: each.numpy() for name, each in found.items()} | {
        "logit": np.take_along_axis(logits, read, 1),
        "log_frequency": log_frequency[read],
        "token": read,
        "way_token": np.concatenate([named, np.full((len(named), controls["directions"]), -1)], 1),
        "index": np.array(indices),
    }


def _named(logits: Float[np.ndarray, "token"], index: int, controls: Mapping[str, int]) -> Int[np.ndarray, "named"]:
    """Return the tokens that a prompt is pushed along: the likeliest, the fifth likeliest, and others."""
    likely = np.argsort(-logits, kind="stable")[[0, FIFTH]]
    generator = np.random.default_rng([controls["seed"], index, 0])
    others = np.setdiff1d(np.arange(len(logits)), likely)
    return np.concatenate([likely, generator.choice(others, controls["others"], replace=False)])


def _units(
    model: LanguageModel, named: Int[np.ndarray, "prompt named"], controls: Mapping[str, int]
) -> Float[Tensor, "prompt way width"]:
    """Return the directions of all pushes, of length 1: of tokens, then random ones, the same for all prompts."""
    along = directions(model, named)
    drawn = np.random.default_rng(controls["seed"]).standard_normal((controls["directions"], model.width))
    random = torch.from_numpy(drawn).to(along).expand(len(named), -1, -1)
    every = torch.cat([along, random], 1)
    return every / torch.linalg.vector_norm(every, dim=-1, keepdim=True)


def _responses(
    model: LanguageModel,
    places: Places,
    tokens: Sequence[Sequence[int]],
    clean: Mapping[Component, Tensor],
    units: Float[Tensor, "prompt way width"],
    sizes: Float[Tensor, "prompt pushed"],
) -> tuple[Float[Tensor, "prompt way pushed mlp width"], Float[Tensor, "prompt way pushed mlp width"]]:
    """Return the odd and the even part of what late MLPs write more when sublayers are pushed.

    Args:
        model: the language model.
        places: the sublayers that are pushed and read.
        tokens: the ids of each prompt.
        clean: the clean write of each sublayer, `[prompt, width]`.
        units: the directions.
        sizes: the length of the pushes at each sublayer.
    """
    ways = units.shape[1]
    # Rows with no push are the clean pass with the rounding of the others.
    signs = torch.tensor([1.0] * ways + [-1.0] * ways + [0.0])
    rows = torch.cat([units, units, units[:, :1]], 1) * signs[None, :, None]

    def values(place: Component) -> Float[Tensor, "prompt patch slot columns"]:
        pushed = clean[place][:, None] + rows * sizes[:, places.pushed.index(place), None, None]
        return pushed[:, :, None]

    request = Request(
        tokens,
        torch.tensor([[len(ids) - 1] for ids in tokens]),
        tuple(Override((place,)) for place in places.pushed),
        rows.shape[1],
        values,
        (),
        Readouts(()),
        (),
        torch.zeros(len(tokens), dtype=torch.long),
    )
    found = choose_engine(model).activations_before_override(model, request, places.late)
    every = torch.stack([found[place][:, :, :, 0] for place in places.late], 3) * model.residual_scale
    up, down, still = every[:, :, :ways], every[:, :, ways : 2 * ways], every[:, :, 2 * ways :]
    odd, even = (up - down) / 2, (up + down) / 2 - still
    return odd.transpose(1, 2), even.transpose(1, 2)


def _measure_kick(
    settings: Mapping[str, Any], model: LanguageModel, run: Run, prompts: Sequence[Any], stores: Path
) -> None:
    """Write the median kick of the target's push at each pushed sublayer, at the block after it."""
    path = run.at(stores) / "kick.json"
    if path.exists():
        return
    pushed = [str(place) for place in Places.of(settings, model, run.model).pushed]
    some = hs.prompts.PromptSet.of(list(prompts[: settings["distance"]["prompts"]]), run.prompts)
    measured = hs.analyses.distance(model, some, Pushes(0, 0), ablate=pushed)
    blocks = measured["first_block"].values - measured["block"].values[0]
    kicks = [measured["kick"].values[:, place, block] for place, block in enumerate(blocks)]
    path.write_text(json.dumps({"kick": float(np.median(kicks)), "prompts": len(some)}), "utf-8")
