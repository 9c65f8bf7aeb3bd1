"""From what an engine read to the quantities of the paper, and the proof that they balance.

For every prompt, run k, patch and readout, whatever the model and the ablation, up to rounding:

    total = Σ_c (unembed_ablated − unembed) + norm,    norm = (s − 1)(e + Σ_c unembed_ablated)

over the layers that k overrides and those downstream (Eq. 33, 34), with s = σ/σ^k; 1 where a readout is read inside the
network, without a norm.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hydrascope.components.component import Override
from hydrascope.components.selection import downstream
from hydrascope.engines.clean.clean_pass import compute_clean_pass
from hydrascope.engines.interface import Readings
from hydrascope.engines.readouts import Readouts, final_scale
from hydrascope.models.language_model import LanguageModel

#: How far the balance may be off, as a share of the size of its terms. In float32 it is 64 roundings, of which a
#: model of 12 layers shows up to 6; some models compute in float32 even where they are asked for float64. Narrower
#: models are read in float32, so that only the rounding of their residual stream counts: 4, where models show 1.
TOLERANCE = {
    torch.float64: 64 * torch.finfo(torch.float32).eps,
    torch.float32: 64 * torch.finfo(torch.float32).eps,
    torch.float16: 4 * torch.finfo(torch.float16).eps,
    torch.bfloat16: 4 * torch.finfo(torch.bfloat16).eps,
}
#: The same as a share of the terms inside layers, of which there are many more: 4 roundings in float32.
ROUNDINGS = 1 / 16


def quantities(readings: Readings, final: Bool[Tensor, "readout"]) -> dict[str, Tensor]:
    """The variables of a result, by the names and with the dimensions of the specification.

    Args:
        readings: as an engine gave them; their runs become `ablated`.
        final: which readouts are read through the final norm.

    Returns:
        `unembed` (Eq. 10) `[readout, prompt, component]`; `unembed_ablated` (Eq. 13) and `unembed_ablated_own`, the
        means over patches of u^k and of s·u^k `[readout, prompt, ablated, component]`; `unembed_ablated_by_patch`,
        before the mean; `total` (Eq. 12), `direct` (Def. 3.3) and `indirect` (Def. 3.4) `[readout, prompt, ablated,
        patch]`; `scale` `[prompt, ablated, patch]`; `logit` and `embed` `[readout, prompt]`; `metric_clean` and
        `metric_ablated`.
    """
    clean = readings.logit[..., None, None]
    return {
        "unembed": readings.unembed,
        "unembed_ablated": readings.unembed_ablated.mean(3),
        "unembed_ablated_own": (readings.unembed_ablated * _scales(readings, final)[..., None]).mean(3),
        "unembed_ablated_by_patch": readings.unembed_ablated,
        "total": readings.logit_ablated - clean,
        "direct": readings.logit_direct - clean,
        "indirect": readings.logit_indirect - clean,
        "scale": readings.scale,
        "logit": readings.logit,
        "embed": readings.embed,
        "metric_clean": readings.metrics,
        "metric_ablated": readings.metrics_ablated,
    }


def _scales(readings: Readings, final: Tensor) -> Float[Tensor, "readout prompt run patch"]:
    return torch.where(final[:, None, None, None], readings.scale, 1.0)


def may_change(model: LanguageModel, overrides: Sequence[Override]) -> Bool[Tensor, "run layer"]:
    """Which layers each run overrides, in whole or in part, or has downstream: those that may change."""
    below = [downstream(model, override, model.sublayers) for override in overrides]
    own = [{component.sublayer for component in override.overridden} for override in overrides]
    sublayers = model.sublayers
    return torch.tensor(
        [
            [follows or sublayer in overridden for follows, sublayer in zip(row, sublayers, strict=True)]
            for row, overridden in zip(below, own, strict=True)
        ]
    )


def imbalance(
    readings: Readings, changing: Bool[Tensor, "run layer"], final: Bool[Tensor, "readout"]
) -> Float[Tensor, "readout prompt run patch"]:
    """How far the balance is off, in the unit of the readout."""
    layers = changing.shape[1]
    after, before = readings.unembed_ablated[..., :layers], readings.unembed[:, :, None, None, :layers]
    changes = ((after - before) * changing[:, None].to(after)).sum(-1)
    norm = (_scales(readings, final) - 1) * (readings.embed[..., None, None] + after.sum(-1))
    total = readings.logit_ablated - readings.logit[..., None, None]
    return (total - changes - norm).abs()


def balance_size(
    readings: Readings, layers: int, final: Bool[Tensor, "readout"]
) -> Float[Tensor, "readout prompt run patch"]:
    """The sum of what the balance adds up, without signs: what rounding errors are a share of.

    What a run takes out of the residual stream was in it, and left its rounding there: so a part counts with the larger
    of what it writes in the two runs, and at the larger of their scales. Where an ablation removes what the final
    norm's scale came from, that is many times what is left.
    """
    after, before = readings.unembed_ablated[..., :layers].abs(), readings.unembed[:, :, None, None, :layers].abs()
    parts = torch.maximum(after, before).sum(-1) + readings.embed[..., None, None].abs()
    terms = parts * _scales(readings, final).clamp_min(1) + readings.logit[..., None, None].abs()
    return terms.clamp_min(torch.finfo(torch.float32).tiny)


@torch.no_grad()
def product_size(
    model: LanguageModel, tokens: Sequence[Sequence[int]], readouts: Readouts
) -> Float[Tensor, "readout prompt 1 1"]:
    """The sum of the terms of the products that each layer of the clean run ends with, without signs.

    Where they cancel, a layer's output is rounded by much more than its own size says, and not alike in batches of
    different shapes: so two runs differ there where nothing was changed.
    """
    sublayers = [sublayer for sublayer in model.sublayers if model.is_dense(sublayer)]
    sites = {sublayer: model.units(sublayer)[0].site for sublayer in sublayers}
    clean = compute_clean_pass(model, tokens, sites.values())
    terms = torch.zeros((), device=model.device)
    for sublayer, site in sites.items():
        projection, values = model.projection(sublayer), clean.values[site]
        added = values.abs() @ projection.weight(values).abs().T
        terms = terms + projection.scaled(added, projection.apply(values)).abs()
    sizes = readouts.directions.abs() * terms.to(readouts.directions.dtype)[..., None]
    read = readouts.rescale(sizes.sum(1) * abs(model.residual_scale), final_scale(model, clean.final))
    return read.T[..., None, None]
