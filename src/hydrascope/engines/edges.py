"""The interface of the engines for edges: a request, and the readings returned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hydrascope.components.component import Component
from hydrascope.components.edge import Edge
from hydrascope.engines.clean.prefix import SharedPrefix
from hydrascope.engines.kernels.matmul import Routines
from hydrascope.engines.metrics import Metric, evaluate
from hydrascope.engines.readouts import Readouts, final_scale
from hydrascope.models.language_model import LanguageModel


@dataclass(frozen=True)
class EdgeRequest:
    """A batch of prompts, with the edges to measure on each prompt.

    Attributes:
        tokens: the token ids of each prompt.
        positions: `[prompt, slot]` the positions at which sources change; a prompt with fewer repeats its last one.
        edges: the edges, the same for every prompt; every reader is downstream of its source.
        patches: the number of patches.
        changes: `[prompt, patch, slot, width]` by source the change of what it adds to the residual stream; 0 in
            repeated slots.
        readouts: the readouts of the same prompts.
        metrics: the metrics to compute from the logits.
        targets: `[prompt]` the target token of the metrics.
        routines: the wavefront engine's routine for each product.
        prefix: the keys and values before each prompt's suffix, and the clean pass.
    """

    tokens: Sequence[Sequence[int]]
    positions: Int[Tensor, "prompt slot"]
    edges: Sequence[Edge]
    patches: int
    changes: Mapping[Component, Float[Tensor, "prompt patch slot width"]]
    readouts: Readouts
    metrics: tuple[Metric, ...]
    targets: Int[Tensor, "prompt"]
    routines: Routines | None = None
    prefix: SharedPrefix | None = None


@dataclass(frozen=True)
class EdgeReadings:
    """The readings of an engine for edges, in the readouts' units.

    Attributes:
        logit: `[readout, prompt]` π̂ in the clean pass.
        logit_edge: `[readout, prompt, edge, patch]` π̂ where the reader alone reads the source's change.
        changes: `[readout, prompt, edge, patch]` Σ_c (u_c − u_c clean) over the reader and all downstream sublayers, at
            the clean σ; for the logits ⟨δ, a⟩/σ, for everything both.
        scale: `[prompt, edge, patch]` σ of the clean pass divided by that of the row.
        written: `[readout, prompt]` e + Σ_c u_c in the clean pass, at its σ.
        metrics: `[metric, prompt]` the metrics of the clean pass.
        metrics_edge: `[metric, prompt, edge, patch]` the metrics of the rows.
    """

    logit: Float[Tensor, "readout prompt"]
    logit_edge: Float[Tensor, "readout prompt edge patch"]
    changes: Float[Tensor, "readout prompt edge patch"]
    scale: Float[Tensor, "prompt edge patch"]
    written: Float[Tensor, "readout prompt"]
    metrics: Float[Tensor, "metric prompt"]
    metrics_edge: Float[Tensor, "metric prompt edge patch"]

    def imbalance(self, readouts: Readouts) -> Float[Tensor, "readout prompt edge patch"]:
        """Return |total − changes − norm|, with norm = (s − 1)(e + Σ u_c + changes)."""
        scales = torch.where(readouts.final[:, None, None, None], self.scale, 1.0)
        norm = (scales - 1) * (self.written[..., None, None] + self.changes)
        return (self.logit_edge - self.logit[..., None, None] - self.changes - norm).abs()

    def size(self, readouts: Readouts) -> Float[Tensor, "readout prompt edge patch"]:
        """Return the sum of the balance's absolute terms, to scale the rounding tolerance."""
        scales = torch.where(readouts.final[:, None, None, None], self.scale, 1.0).clamp_min(1)
        terms = (self.written[..., None, None].abs() + self.changes.abs()) * scales
        return terms + self.logit[..., None, None].abs() + self.logit_edge.abs()


def read_rows(
    model: LanguageModel,
    request: EdgeRequest,
    final: Float[Tensor, "prompt row width"],
    inner: Float[Tensor, "prompt row readout"],
    changes: Float[Tensor, "prompt row readout"],
) -> EdgeReadings:
    """Return the readings of rows, of which the first is the clean one, then those of each edge.

    Args:
        model: the model.
        request: the request.
        final: the final residual streams.
        inner: the readings before blocks, for readouts inside the network.
        changes: ⟨Σ_c (y_c − y_c clean), a⟩ of each row.
    """
    readouts = request.readouts
    wide = final.to(inner.dtype)
    scale = final_scale(model, wide)
    through = readouts.read(wide) / scale[..., None] + readouts.constants[:, None]
    logits = torch.where(readouts.final, through, inner)
    written = torch.where(readouts.final, readouts.read(wide[:, :1])[:, 0] / scale[:, :1], inner[:, 0])
    shape = (len(request.edges), request.patches)

    def by_edge(values: Tensor) -> Tensor:
        found: Tensor = values[:, 1:].movedim(-1, 0).unflatten(2, shape)
        return found

    metrics = final.new_zeros(0, *wide.shape[:2])
    if request.metrics:
        each = zip(wide, request.targets, strict=True)
        metrics = torch.stack([evaluate(model, request.metrics, rows, rows[0], int(token)) for rows, token in each], 1)
    return EdgeReadings(
        logit=logits[:, 0].T,
        logit_edge=by_edge(logits),
        changes=by_edge(readouts.rescale(changes, scale[:, :1].expand(-1, changes.shape[1]))),
        scale=(scale[:, :1] / scale)[:, 1:].unflatten(1, shape),
        written=written.T,
        metrics=metrics[:, :, 0],
        metrics_edge=metrics[:, :, 1:].unflatten(2, shape),
    )
