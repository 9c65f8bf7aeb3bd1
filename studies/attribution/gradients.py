"""Estimates from gradients, term by term: AtP, AtP* and GIM.

An estimate is linear in the readout, and the readout is the sum of its terms at the clean run's σ. So the gradient of
what all attention sublayers write on the readout predicts their responses, and so on.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

import hydrascope as hs
from hydrascope.analyses.attribution import Rules
from hydrascope.analyses.attribution.atp_star import Drop
from hydrascope.analyses.attribution.backward_rules import apply_rules
from hydrascope.analyses.attribution.estimator import PromptBatch, run_estimator
from hydrascope.analyses.attribution.gradients import Scale, differentiable_scale, record_graph
from hydrascope.components.component import Component
from hydrascope.engines.readouts import final_scale
from hydrascope.models.hooks import hooked
from hydrascope.models.language_model import LanguageModel
from hydrascope.models.memory import Batch
from studies.attribution.estimator import TERMS

#: Prompts in a pass.
_BATCH = 8
Terms = Float[Tensor, "term prompt ablated"]
#: The gradient of each of three sums over prompts: attention's writes, MLPs' writes, the readout itself.
Gradients = list[dict[Component, Float[Tensor, "prompt slot columns"]]]


def predicted(
    settings: Mapping[str, Any], model: LanguageModel, prompts: hs.prompts.PromptSet, method: str, readout: Any
) -> Float[np.ndarray, "term prompt ablated"]:
    """Return what an estimate predicts of each term when a sublayer is set to zero.

    Args:
        settings: the study's settings.
        model: the model.
        prompts: the prompts.
        method: `atp`, `atp_star` or `gim`.
        readout: the readout.
    """
    found: dict[int, np.ndarray] = {}

    def estimate(batch: PromptBatch) -> dict[str, Tensor]:
        terms = _METHODS[method](batch)
        found.update(zip(batch.indices, terms.unbind(1), strict=True))
        return {"estimate": terms.sum(0)[None]}

    run_estimator(
        method,
        estimate,
        lambda rows: Batch(rows, 1),
        model,
        prompts,
        hs.Zero(),
        {},
        ablate="layers",
        at=settings["at"],
        readouts=[readout],
        target=settings["target"],
        batch_size=_BATCH,
    )
    return np.stack([found[index] for index in range(len(found))], 1)


def _atp(batch: PromptBatch) -> Terms:
    gradients, own = _gradients(batch)
    return _terms(batch, gradients(), own)


def _gim(batch: PromptBatch) -> Terms:
    def constant(model: LanguageModel, residual: Tensor) -> Tensor:
        return final_scale(model, residual.detach())

    with apply_rules(batch.model, Rules()):
        gradients, own = _gradients(batch, constant)
    return _terms(batch, gradients(), own)


def _atp_star(batch: PromptBatch) -> Terms:
    drop = Drop(batch.model)
    with hooked(drop.hooks()):
        gradients, own = _gradients(batch)
    terms = []
    for block in range(len(batch.model.blocks)):
        drop.block = block
        dropped = torch.tensor([component.block == block for component in batch.components])
        terms.append(_terms(batch, gradients(), own).masked_fill(dropped, 0))
    return torch.stack(terms).sum(0) / (len(terms) - 1)


_METHODS: Mapping[str, Callable[[PromptBatch], Terms]] = {"atp": _atp, "atp_star": _atp_star, "gim": _gim}


def _gradients(
    batch: PromptBatch, scale: Scale = differentiable_scale
) -> tuple[Callable[[], Gradients], Float[Tensor, "prompt width"]]:
    """Return a function that takes the gradients, and the direction that reads a write at the clean run's σ."""
    model, streams = batch.model, []

    def keep(model: LanguageModel, stream: Tensor) -> Tensor:
        streams.append(stream.detach())
        return scale(model, stream)

    graph = record_graph(model, batch.tokens, batch.readouts(batch.indices), batch.plan.sites, scale=keep)
    reader = graph.readouts.rows[0].direction / final_scale(model, streams[0])[:, None] * model.residual_scale
    rows, last = torch.arange(len(batch.indices)), torch.tensor([len(ids) - 1 for ids in batch.tokens])
    sites = list(graph.values)
    written = {
        kind: sum(
            (graph.values[site][rows, last].to(reader.dtype) * reader).sum() for site in sites if site.kind == kind
        )
        for kind in ("attn", "mlp")
    }

    def take(read: Tensor) -> dict[Component, Tensor]:
        # The last MLP has no attention after it: what attention writes doesn't depend on it.
        found = torch.autograd.grad(read, list(graph.values.values()), retain_graph=True, materialize_grads=True)
        return {site: each[rows[:, None], batch.positions] for site, each in zip(sites, found, strict=True)}

    def gradients() -> Gradients:
        return [take(read) for read in (written["attn"], written["mlp"], graph.read.sum())]

    return gradients, reader


def _terms(batch: PromptBatch, gradients: Gradients, reader: Float[Tensor, "prompt width"]) -> Terms:
    """Return the estimate of each term, from gradients that hold the own write as well."""
    attention, mlp, total = (batch.products(each)[:, 0] for each in gradients)
    own = batch.products(dict.fromkeys(batch.plan.sites, reader[:, None]))[:, 0]
    is_attention = torch.tensor([component.kind == "attn" for component in batch.components])
    terms = {
        "attention": attention - own * is_attention,
        "mlp": mlp - own * ~is_attention,
        "norm": total - attention - mlp,
        "own": own,
    }
    return torch.stack([terms[name].double() for name in TERMS])
