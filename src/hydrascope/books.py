"""From what an engine measured to the quantities of the paper, and the proof that their books balance.

For every prompt, ablated component k and patch, whatever the model and the ablation, up to rounding:

    total = (unembed_ablated − unembed)[k] + CE(k) + norm

where CE(k) is the compensatory effect (Eq. 33, 34): the change of everything causally downstream of k.
"""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hydrascope.engines import Effects

#: At which σ the ablated run is read: the clean run's, or its own.
Norm = Literal["clean", "run"]

#: How far the books may be off, as a share of the size of their terms. In float32 it is 64 roundings, of which a
#: model of 12 layers shows up to 6; some models compute in float32 even where they are asked for float64. Narrower
#: models are read in float32, so that only the rounding of their residual stream counts: 4, where models show 1.
TOLERANCE = {
    torch.float64: 64 * torch.finfo(torch.float32).eps,
    torch.float32: 64 * torch.finfo(torch.float32).eps,
    torch.float16: 4 * torch.finfo(torch.float16).eps,
    torch.bfloat16: 4 * torch.finfo(torch.bfloat16).eps,
}


def quantities(
    effects: Effects, downstream: Bool[Tensor, "ablated component"], norm: Norm
) -> dict[str, Float[Tensor, "prompt ..."]]:
    """The quantities of a plan that ablates every component by every patch, patches innermost; in logits.

    Args:
        effects: as an engine measured them.
        downstream: whether the component is causally downstream of the ablated one.
        norm: at which σ `unembed_ablated` is read. At the clean run's, `norm` is what the change of the final
            norm's scale adds to the logit; at the ablated run's own, it is the rescaling of the embedding and
            of the components that are neither ablated nor downstream.

    Returns:
        `unembed` (Eq. 10) `[prompt, component]`, `unembed_ablated` (Eq. 13) `[prompt, ablated, patch, component]`,
        `total` (Eq. 12), `direct` (Def. 3.3), `indirect` (Def. 3.4) and `norm` `[prompt, ablated, patch]`,
        `logit` `[prompt]`.
    """
    prompts, components = effects.unembed.shape
    shape = (prompts, components, -1)
    clean = effects.logit[:, None, None]
    logit = effects.row_logit.reshape(shape)
    unembed_ablated = effects.row_unembed.reshape(*shape, components)
    if norm == "clean":
        rescaling = logit - effects.row_frozen.reshape(shape)
    else:
        scale = effects.row_scale.reshape(shape)
        unembed_ablated = unembed_ablated * scale[..., None]
        still = ~(downstream | torch.eye(components, dtype=torch.bool))
        unmoved = effects.embed[:, None] + effects.unembed @ still.T.to(effects.unembed.dtype)
        rescaling = (scale - 1) * unmoved[..., None]
    return {
        "unembed": effects.unembed,
        "unembed_ablated": unembed_ablated,
        "total": logit - clean,
        "direct": effects.row_direct.reshape(shape) - clean,
        "indirect": effects.row_indirect.reshape(shape) - clean,
        "norm": rescaling,
        "logit": effects.logit,
    }


def imbalance(
    measured: dict[str, Float[np.ndarray, "prompt ..."]], downstream: Bool[np.ndarray, "ablated component"]
) -> Float[np.ndarray, "prompt"]:
    """`[prompt]` how far the books are off at worst, in logits, computed in float64 from the numbers given."""
    unembed = measured["unembed"].astype(np.float64)
    change = measured["unembed_ablated"] - unembed[:, None, None, :]
    own_and_downstream = downstream | np.eye(len(downstream), dtype=bool)
    explained = np.einsum("pkic,kc->pki", change, own_and_downstream.astype(np.float64))
    with np.errstate(invalid="ignore"):  # infinities give NaN, and are found by it
        difference = measured["total"].astype(np.float64) - measured["norm"] - explained
    return np.abs(difference).max(axis=(1, 2))


def rescaling_error(effects: Effects) -> Float[np.ndarray, "prompt"]:
    """`[prompt]` how far π̂^k is at worst from the residual stream read at the clean σ and then rescaled, in logits.

    `norm` is the difference of π̂^k and that reading, so the books alone would not show an error in π̂^k.
    """
    constant = (effects.logit - effects.embed - effects.unembed.sum(-1))[:, None]
    rescaled = constant + effects.row_scale * (effects.row_frozen - constant)
    return np.asarray((effects.row_logit - rescaled).abs().amax(1).double())


def size(effects: Effects) -> Float[np.ndarray, "prompt"]:
    """`[prompt]` the sum of the terms of the books, without their signs: what rounding errors are a share of."""
    terms = effects.row_unembed.abs().sum(-1).amax(1) + effects.embed.abs() + effects.logit.abs()
    return np.asarray(terms.double().clamp_min(torch.finfo(torch.float32).tiny))
