"""The interface of the engines: a request for a batch of prompts, and the readings returned.

`hydrascope.engines.balance` turns readings into the quantities of the paper.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from jaxtyping import Float, Int
from torch import Tensor

from hydrascope.components.component import Component, Override
from hydrascope.engines.clean.prefix import SharedPrefix
from hydrascope.engines.feature_sums import FeatureSums
from hydrascope.engines.kernels.differences import Products
from hydrascope.engines.kernels.matmul import Routines
from hydrascope.engines.metrics import Metric
from hydrascope.engines.override_change import sites_of_change
from hydrascope.engines.readouts import Readouts
from hydrascope.models.language_model import LanguageModel

#: Takes the number of a block, the clean residual streams after it at the last positions, `[prompt, width]`, and those
#: of all rows, `[prompt, ablated, patch, width]`.
VisitStreams = Callable[[int, Float[Tensor, "prompt width"], Float[Tensor, "prompt ablated patch width"]], None]

#: The patches of an ablated component at the request's positions, `[prompt, patch, slot, columns]`.
Values = Callable[[Component], Float[Tensor, "prompt patch slot columns"]]


@dataclass(frozen=True)
class Request:
    """A batch of prompts, with the overrides and patches to measure on each prompt.

    Attributes:
        tokens: the token ids of each prompt; lengths may differ.
        positions: `[prompt, slot]` the token positions that patches are written at, counted from the prompt's start;
            a prompt with fewer positions than another repeats its last one.
        overrides: the overrides, the same for every prompt.
        patches: the number of patches.
        values: the patches of each component; called before the passes start.
        units: the heads, neurons and terms of dictionaries to read, besides all sublayers.
        readouts: the readouts of the same prompts.
        metrics: the metrics to compute from the logits.
        targets: `[prompt]` the target token of the metrics.
        routines: the wavefront engine's routine for each product; by default the fastest ones.
        prefix: the prefix that the wavefront engine has computed earlier, for these prompts, these positions and the
            activations at `sites_read`.
        answers: the token ids of each prompt's whole answer; needed by metrics of whole answers only.
        summed: the dictionaries whose features are all read and summed over prompts, each by all of its features, as
            `feature.mlp.5`.
        products: how the wavefront engine multiplies rows by weights.
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
    answers: Sequence[Sequence[int]] = ()
    summed: tuple[Component, ...] = ()
    products: Products = "float32"


def sites_read(
    model: LanguageModel, units: Sequence[Component], overrides: Iterable[Override]
) -> tuple[Component, ...]:
    """Return the sites whose clean activations an engine needs.

    They are all sublayers, the sites of `units`, and those of sublayers in which terms of dictionaries are overridden.
    """
    of_terms = [
        component
        for override in overrides
        for home in {component.sublayer for component in override.overridden if component.is_term}
        for component in override.overridden
        if component.sublayer == home
    ]
    return tuple(dict.fromkeys((*model.sublayers, *sites_of_change(model, (*units, *of_terms)))))


@dataclass(frozen=True)
class Readings:
    """The readings of an engine, in the readouts' units.

    They are in float32 or wider, on the model's device. `component` counts the model's sublayers, then the request's
    units. π̂ is the value of a readout, with the scale of the pass itself and with its constant. For a readout inside
    the network, σ is 1.

    Attributes:
        unembed: `[readout, prompt, component]` ⟨y_c, a⟩/σ in the clean pass (Eq. 10).
        embed: `[readout, prompt]` ⟨e, a⟩/σ, the embedding's contribution.
        logit: `[readout, prompt]` π̂ in the clean pass.
        unembed_ablated: `[readout, prompt, ablated, patch, component]` ⟨y_c^k, a⟩/σ at the clean σ (Eq. 13).
        logit_ablated: `[readout, prompt, ablated, patch]` π̂^k (Eq. 12).
        logit_direct: `[readout, prompt, ablated, patch]` π̂(z + δ), with δ the change by the override alone (Def. 3.3).
        logit_indirect: `[readout, prompt, ablated, patch]` π̂(z^k − δ) (Def. 3.4).
        own: `[readout, prompt, ablated, patch]` ⟨x′ − x, a⟩/σ, where terms of a residual stream x are overridden.
        scale: `[prompt, ablated, patch]` σ/σ^k of the final norm, without unit (Eq. 8).
        metrics: `[metric, prompt]` the metrics of the clean pass.
        metrics_ablated: `[metric, prompt, ablated, patch]` the metrics of the ablated rows.
        clean_error: the largest difference between the engine's two computations of the clean readouts.
        sums: the sums of all features of the dictionaries that the request names.
    """

    unembed: Float[Tensor, "readout prompt component"]
    embed: Float[Tensor, "readout prompt"]
    logit: Float[Tensor, "readout prompt"]
    unembed_ablated: Float[Tensor, "readout prompt ablated patch component"]
    logit_ablated: Float[Tensor, "readout prompt ablated patch"]
    logit_direct: Float[Tensor, "readout prompt ablated patch"]
    logit_indirect: Float[Tensor, "readout prompt ablated patch"]
    own: Float[Tensor, "readout prompt ablated patch"]
    scale: Float[Tensor, "prompt ablated patch"]
    metrics: Float[Tensor, "metric prompt"]
    metrics_ablated: Float[Tensor, "metric prompt ablated patch"]
    clean_error: Float[Tensor, ""]
    sums: Mapping[Component, FeatureSums] = field(default_factory=dict)
