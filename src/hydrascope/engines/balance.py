"""Turn an engine's readings into the quantities of the paper, and check that they balance.

For every prompt, override k, patch and readout, for every model and ablation, and up to rounding:

    total = Σ_c (unembed_ablated − unembed) + norm,    norm = (s − 1)(e + Σ_c unembed_ablated)

The sum runs over the sublayers that k overrides and those downstream (Eq. 33, 34). s = σ/σ^k; for a readout inside the
network, without a norm, s = 1. Terms of a residual stream x rewrite what others wrote: where k overrides them, own =
⟨x′ − x, a⟩/σ stands beside the sum in both lines.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hydrascope.components.component import Override
from hydrascope.components.order import downstream_of_each
from hydrascope.engines.clean.clean_pass import compute_clean_pass
from hydrascope.engines.interface import Readings
from hydrascope.engines.readouts import Readouts, final_scale
from hydrascope.models.language_model import LanguageModel

#: The largest imbalance, relative to the size of the balance's terms, by the model's dtype. In float32 it is 64
#: roundings, where a model of 12 blocks shows up to 6; float64 has the same, since some models compute in float32 even
#: then. Narrower models are read in float32, so only their residual stream counts: 4 roundings, where models show 1.
TOLERANCE = {
    torch.float64: 64 * torch.finfo(torch.float32).eps,
    torch.float32: 64 * torch.finfo(torch.float32).eps,
    torch.float16: 4 * torch.finfo(torch.float16).eps,
    torch.bfloat16: 4 * torch.finfo(torch.bfloat16).eps,
}
#: The tolerance for terms inside sublayers, of which there are many more, relative to `TOLERANCE`: 4 roundings.
ROUNDINGS = 1 / 16


def quantities(readings: Readings, final: Bool[Tensor, "readout"]) -> dict[str, Tensor]:
    """Return the variables of a result by name.

    Args:
        readings: the readings of an engine.
        final: `[readout]` whether each readout is read through the final norm.

    Returns:
        `unembed` (Eq. 10) `[readout, prompt, component]`; `unembed_ablated` (Eq. 13) and `unembed_ablated_own`, the
        means over patches of u^k and of s·u^k `[readout, prompt, ablated, component]`; `unembed_ablated_by_patch`, u^k
        before the mean `[readout, prompt, ablated, patch, component]`; `total` (Eq. 12), `direct` (Def. 3.3) and
        `indirect` (Def. 3.4) `[readout, prompt, ablated, patch]`; `own`, of overrides of a residual stream, likewise;
        `scale` `[prompt, ablated, patch]`; `logit` and
        `embed` `[readout, prompt]`; `metric_clean` `[metric, prompt]` and `metric_ablated` `[metric, prompt, ablated,
        patch]`.
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
        "own": readings.own,
        "scale": readings.scale,
        "logit": readings.logit,
        "embed": readings.embed,
        "metric_clean": readings.metrics,
        "metric_ablated": readings.metrics_ablated,
    }


def _scales(readings: Readings, final: Tensor) -> Float[Tensor, "readout prompt ablated patch"]:
    return torch.where(final[:, None, None, None], readings.scale, 1.0)


def may_change(model: LanguageModel, overrides: Sequence[Override]) -> Bool[Tensor, "ablated sublayer"]:
    """Return whether each override may change each sublayer, `[ablated, sublayer]`.

    It may change the sublayers that it overrides, even in part, and those downstream.
    """
    changing = downstream_of_each(model, overrides, model.sublayers)
    place = {sublayer: number for number, sublayer in enumerate(model.sublayers)}
    for row, override in zip(changing, overrides, strict=True):
        row[[place[each.sublayer] for each in override.overridden if each.sublayer in place]] = True
    return torch.from_numpy(changing)


def imbalance(
    readings: Readings, changing: Bool[Tensor, "ablated sublayer"], final: Bool[Tensor, "readout"]
) -> Float[Tensor, "readout prompt ablated patch"]:
    """Return the absolute imbalance, in the readout's unit.

    Args:
        readings: the readings of an engine.
        changing: `[ablated, sublayer]` whether a sublayer may change; see `may_change`.
        final: `[readout]` whether each readout is read through the final norm.
    """
    sublayers = changing.shape[1]
    after, before = readings.unembed_ablated[..., :sublayers], readings.unembed[:, :, None, None, :sublayers]
    changes = ((after - before) * changing[:, None].to(after)).sum(-1)
    norm = (_scales(readings, final) - 1) * (readings.embed[..., None, None] + after.sum(-1) + readings.own)
    total = readings.logit_ablated - readings.logit[..., None, None]
    return (total - changes - readings.own - norm).abs()


def balance_size(
    readings: Readings, sublayers: int, final: Bool[Tensor, "readout"]
) -> Float[Tensor, "readout prompt ablated patch"]:
    """Return the sum of the balance's absolute terms, to scale the rounding tolerance.

    A component counts with the larger of its clean and ablated contributions, at the larger of the two scales. A
    removed contribution leaves its rounding error in the residual stream, and can be many times the size of the rest.

    Args:
        readings: the readings of an engine.
        sublayers: the number of the model's sublayers.
        final: `[readout]` whether each readout is read through the final norm.
    """
    after = readings.unembed_ablated[..., :sublayers].abs()
    before = readings.unembed[:, :, None, None, :sublayers].abs()
    contributions = torch.maximum(after, before).sum(-1) + readings.embed[..., None, None].abs() + readings.own.abs()
    terms = contributions * _scales(readings, final).clamp_min(1) + readings.logit[..., None, None].abs()
    return terms.clamp_min(torch.finfo(torch.float32).tiny)


@torch.no_grad()
def product_size(
    model: LanguageModel, tokens: Sequence[Sequence[int]], readouts: Readouts
) -> Float[Tensor, "readout prompt 1 1"]:
    """Return the summed absolute terms of each sublayer's last product in the clean pass.

    If the terms cancel, the sublayer's output has rounding errors far above its own size, and they differ between
    batches of different shapes. Two passes may then differ although nothing was changed.
    """
    sublayers = [sublayer for sublayer in model.sublayers if model.is_dense(sublayer)]
    sites = {sublayer: model.units(sublayer)[0].site for sublayer in sublayers}
    clean = compute_clean_pass(model, tokens, sites.values())
    terms = torch.zeros((), device=model.device)
    for sublayer, site in sites.items():
        projection, values = model.projection(sublayer), clean.values[site]
        products = values.abs() @ projection.weight(values).abs().T
        terms = terms + projection.scaled(products, projection.apply(values)).abs()
    sizes = readouts.directions.abs() * terms.to(readouts.directions.dtype)[..., None]
    read = readouts.rescale(sizes.sum(1) * abs(model.residual_scale), final_scale(model, clean.final))
    return read.T[..., None, None]
