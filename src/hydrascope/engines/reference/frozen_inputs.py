"""Heads that attend by what they have in the clean run, in plain forward passes: for the reference engine."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from hydrascope.components.component import Component
from hydrascope.engines.attention import Attend, attending
from hydrascope.models.language_model import LanguageModel, wider
from hydrascope.utils.errors import HydrascopeError


@contextmanager
def freeze_head_inputs(
    model: LanguageModel, tokens: Sequence[int], held: Sequence[Sequence[Component]]
) -> Iterator[None]:
    """Let the forward passes in here freeze, in each row of a batch of copies of a prompt, these inputs of heads.

    Raises:
        HydrascopeError: something is to be frozen, and the model doesn't attend through transformers' interface.
    """
    if not any(held):
        yield
        return
    if not model.anatomy.supports_wavefront:
        raise HydrascopeError(
            f"{model.config.model_type} does not attend through transformers' AttentionInterface: inputs of its heads "
            "cannot be frozen; freeze heads"
        )
    clean: dict[int, dict[str, Tensor]] = {}
    with attending(model, _attend_frozen(clean, [])):
        model.hf.base_model(input_ids=torch.tensor([list(tokens)], device=model.device), use_cache=False)
    with attending(model, _attend_frozen(clean, held)):
        yield


def _attend_frozen(clean: dict[int, dict[str, Tensor]], held: Sequence[Sequence[Component]]) -> Attend:
    """Attention written out: in the clean run, which it keeps, or in rows that take inputs of heads from it."""

    def attend(
        block: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor,
        scaling: float,
        softcap: float | None,
        sinks: Tensor | None,
    ) -> Tensor:
        heads = query.shape[1]
        own = {
            name: each.repeat_interleave(heads // each.shape[1], 1)
            for name, each in (("query", query), ("key", key), ("value", value))
        }
        if block not in clean:
            clean[block] = own
        for row, components in enumerate(held):
            for component in components:
                if component.block == block:
                    own[component.kind][row, component.unit] = clean[block][component.kind][0, component.unit]
        scores = own["query"] @ own["key"].mT * scaling
        if softcap is not None:
            scores = (scores / softcap).tanh() * softcap
        scores = scores.masked_fill(~mask, -torch.inf).to(wider(scores.dtype))
        if sinks is not None:
            sink = sinks.to(scores.dtype)[None, :, None, None].expand(len(scores), -1, scores.shape[2], 1)
            scores = torch.cat([scores, sink], -1)
        weights = scores.softmax(-1)[..., : mask.shape[-1]]
        return weights.to(value.dtype) @ own["value"]

    return attend
