"""Choose the directions that are read: gate rows of neurons, random directions, principal components."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from hydrascope.models.hooks import Handle, hooked, on_input, on_output
from hydrascope.models.language_model import LanguageModel
from hydrascope.utils.errors import HydrascopeError

#: The kinds of directions, in the order in which they are stored.
KINDS = ("neurons", "matched", "components", "isotropic")
#: The norm before an MLP: of architectures with a norm after attention, and of others.
_NORMS = ("pre_feedforward_layernorm", "post_attention_layernorm")
_GATE = "mlp.gate_proj"


@dataclass(frozen=True)
class Directions:
    """The directions on the streams that enter some blocks, each of length 1.

    Attributes:
        blocks: `[depth]` the blocks.
        units: `[depth, direction, width]` the directions, those of one kind after another.
        kind: `[direction]` the kind of each.
        neurons: `[depth, neuron]` the neurons whose gate rows they are, with their `matched` ones in the same order.
        variance: `[depth, direction]` the variance of the stream along each, over positions.
        last_variance: `[depth, direction]` the same over the last positions of prompts.
        active: `[depth, neuron]` the share of prompts in which the neuron's gate is open at the last position.
        alike: `[depth, neuron]` the cosine of a gate row with its matched direction.
    """

    blocks: Int[np.ndarray, "depth"]
    units: Float[np.ndarray, "depth direction width"]
    kind: np.ndarray
    neurons: Int[np.ndarray, "depth neuron"]
    variance: Float[np.ndarray, "depth direction"]
    last_variance: Float[np.ndarray, "depth direction"]
    active: Float[np.ndarray, "depth neuron"]
    alike: Float[np.ndarray, "depth neuron"]

    def save(self, path: Path) -> None:
        """Write the directions to a file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **asdict(self))

    @classmethod
    def load(cls, path: Path) -> "Directions":
        """Read directions that were saved."""
        return cls(**np.load(path))


def choose(
    settings: Mapping[str, Any], model: LanguageModel, blocks: Sequence[int], tokens: Sequence[Sequence[int]]
) -> Directions:
    """Choose directions from the streams and gates of some prompts.

    Args:
        settings: the study's settings.
        model: the model.
        blocks: the blocks whose streams are read.
        tokens: the ids of each prompt.
    """
    counts, found = settings["directions"], []
    streams, last, gates = observe(model, blocks, tokens)
    for depth, block in enumerate(blocks):
        random = np.random.default_rng([counts["seed"], depth])
        open_gates = (gates[depth] > 0).mean(0)
        able = np.flatnonzero(open_gates >= counts["active"])
        neurons = np.sort(random.choice(able, min(counts["neurons"], len(able)), replace=False))
        covariance = np.cov(streams[depth].T)
        rows = gate_rows(model, block)[neurons]
        beside = matched(rows, covariance, random)
        drawn = random.standard_normal((counts["isotropic"], model.width))
        kinds = {
            "neurons": rows,
            "matched": beside,
            "components": np.linalg.eigh(covariance)[1][:, ::-1].T[: counts["components"]],
            "isotropic": drawn / np.linalg.norm(drawn, axis=1, keepdims=True),
        }
        units = np.concatenate([kinds[kind] for kind in KINDS])
        variances = [np.einsum("dw,wv,dv->d", units, each, units) for each in (covariance, np.cov(last[depth].T))]
        alike = (rows * beside).sum(1)
        found.append((units, neurons, *variances, open_gates[neurons], alike))
    units, neurons, variance, last_variance, active, alike = map(np.stack, zip(*found, strict=True))
    kind = np.concatenate([[name] * len(kinds[name]) for name in KINDS])
    return Directions(np.array(blocks), units, kind, neurons, variance, last_variance, active, alike)


def matched(
    rows: Float[np.ndarray, "direction width"],
    covariance: Float[np.ndarray, "width width"],
    random: np.random.Generator,
) -> Float[np.ndarray, "direction width"]:
    """Return random directions with the same variance: the rows with random signs along principal components.

    They have the same length, and the same share of their length along each principal component.

    Args:
        rows: the directions.
        covariance: the covariance of the stream.
        random: the source of the signs.
    """
    components = np.linalg.eigh(covariance)[1]
    along = rows @ components
    return (along * random.choice([-1.0, 1.0], along.shape)) @ components.T


def gate_rows(model: LanguageModel, block: int) -> Float[np.ndarray, "neuron width"]:
    """Return the directions that the gates of an MLP's neurons read, through the gain of the norm before it.

    Raises:
        HydrascopeError: the MLP has no gate.
    """
    norm = _norm(model, block)
    gain = norm.weight.detach().double() + model.anatomy.norm_offset
    rows = _gate(model, block).weight.detach().double() * gain
    return (rows / torch.linalg.vector_norm(rows, dim=-1, keepdim=True)).numpy()


def _norm(model: LanguageModel, block: int) -> Any:
    names = [name for name in _NORMS if hasattr(model.blocks[block], name)]
    return model.module_of(block, names[0])


def _gate(model: LanguageModel, block: int) -> Any:
    try:
        return model.module_of(block, _GATE)
    except HydrascopeError as error:
        raise HydrascopeError(f"the MLPs of {model.name} have no gate, whose rows the study reads") from error


@torch.no_grad()
def observe(
    model: LanguageModel, blocks: Sequence[int], tokens: Sequence[Sequence[int]]
) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """Return streams and gates of clean passes, each by depth.

    Args:
        model: the model.
        blocks: the blocks whose streams are read.
        tokens: the ids of each prompt.

    Returns:
        the streams `[position, width]` at all positions but the first of each prompt, those at the last positions
        `[prompt, width]`, and the gates before their activation `[prompt, neuron]` there.
    """
    streams: dict[nn.Module, list[Tensor]] = {model.blocks[block]: [] for block in blocks}
    gates: dict[nn.Module, list[Tensor]] = {_gate(model, block): [] for block in blocks}

    def hooks() -> Iterator[Handle]:
        for block, kept in streams.items():
            yield on_input(block, lambda hidden, kept=kept: kept.append(hidden[0].double()))
        for gate, kept in gates.items():
            yield on_output(gate, lambda hidden, kept=kept: kept.append(hidden[0, -1].double()))

    with model.measuring(), hooked(hooks()):
        for ids in tokens:
            model.hf.base_model(input_ids=torch.tensor([list(ids)]), use_cache=False)
    return (
        [torch.cat([each[1:] for each in kept]).numpy() for kept in streams.values()],
        [torch.stack([each[-1] for each in kept]).numpy() for kept in streams.values()],
        [torch.stack(kept).numpy() for kept in gates.values()],
    )
