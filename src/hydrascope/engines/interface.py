"""What an engine is asked, and what it answers: runs of a batch of prompts in, readings of each run and patch out.

What the readings mean is said elsewhere (`hydrascope.engines.balance`, `hydrascope.measures`).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from hydrascope.components.component import Component, Override
from hydrascope.engines.clean.prefix import SharedPrefix
from hydrascope.engines.kernels.matmul import Routines
from hydrascope.engines.metrics import Metric
from hydrascope.engines.readouts import Readouts
from hydrascope.models.language_model import LanguageModel

#: `[prompt, patch, slot, columns]` what a component writes instead, at the positions of the request.
Values = Callable[[Component], Float[Tensor, "prompt patch slot columns"]]


@dataclass(frozen=True)
class Request:
    """A batch of prompts and the runs to make of each, every one with each of its patches.

    Attributes:
        tokens: each prompt's token ids, of any lengths.
        positions: `[prompt, slot]` where ablated components write their patches, counted from the prompt's start;
            a prompt with fewer positions than another has its last one repeated.
        overrides: the same for every prompt.
        patches: how many.
        values: what they are; asked for before the runs start.
        units: heads and neurons that are read, besides all layers.
        readouts: what is read, of the same prompts.
        metrics: what is computed from the logits.
        targets: `[prompt]` the token that metrics are about.
        routines: how the wavefront engine multiplies; by default what is fastest here.
        prefix: what it has computed of these prompts already, at these positions and with the clean values of
            `sites_read`.
    """

    tokens: Sequence[Sequence[int]]
    positions: Int[Tensor, "prompt slot"]
    overrides: tuple[Override, ...]
    patches: int
    values: Values
    units: tuple[Component, ...]
    readouts: Readouts
    metrics: tuple[Metric, ...]
    targets: Int[Tensor, "prompt"]
    routines: Routines | None = None
    prefix: SharedPrefix | None = None


def sites_read(model: LanguageModel, units: Iterable[Component]) -> tuple[Component, ...]:
    """Where the values stand of all that is read: of all layers, and of some heads and neurons."""
    return tuple(dict.fromkeys((*model.sublayers, *(unit.site for unit in units))))


@dataclass(frozen=True)
class Readings:
    """What an engine read, in the readouts' units unless said otherwise, float32 or wider, where the model is.

    `component` counts the model's layers, then the request's units. π̂ is a readout of a whole run: with its own scale
    of the final norm, constants included. Inside the network, where no norm stands, σ is 1.

    Attributes:
        unembed: `[readout, prompt, component]` ⟨y_c, a⟩/σ of the clean run (Eq. 10).
        embed: `[readout, prompt]` ⟨e, a⟩/σ, what the embedding adds.
        logit: `[readout, prompt]` π̂ of the clean run.
        unembed_ablated: `[readout, prompt, run, patch, component]` ⟨y_c^k, a⟩/σ at the clean run's σ (Eq. 13).
        logit_ablated: `[readout, prompt, run, patch]` π̂^k (Eq. 12).
        logit_direct: `[readout, prompt, run, patch]` π̂(z + δ), δ being what the overrides change (Def. 3.3).
        logit_indirect: `[readout, prompt, run, patch]` π̂(z^k − δ) (Def. 3.4).
        scale: `[prompt, run, patch]` σ/σ^k of the final norm, without unit (Eq. 8).
        metrics: `[metric, prompt]` of the clean run.
        metrics_ablated: `[metric, prompt, run, patch]`.
        clean_error: the largest difference between the engine's two ways to the clean run's readouts.
    """

    unembed: Float[Tensor, "readout prompt component"]
    embed: Float[Tensor, "readout prompt"]
    logit: Float[Tensor, "readout prompt"]
    unembed_ablated: Float[Tensor, "readout prompt run patch component"]
    logit_ablated: Float[Tensor, "readout prompt run patch"]
    logit_direct: Float[Tensor, "readout prompt run patch"]
    logit_indirect: Float[Tensor, "readout prompt run patch"]
    scale: Float[Tensor, "prompt run patch"]
    metrics: Float[Tensor, "metric prompt"]
    metrics_ablated: Float[Tensor, "metric prompt run patch"]
    clean_error: Float[Tensor, ""]
