"""Freeze queries, keys and values of heads in the reference engine's forward passes.

Attention is written out once more here, with soft-cap and sinks, so that the two engines check each other.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from hydrascope.components.component import Component
from hydrascope.engines.attention import Attend, AttentionInputs, attending
from hydrascope.models.language_model import LanguageModel, wider
from hydrascope.utils.errors import HydrascopeError


@contextmanager
def freeze_head_inputs(
    model: LanguageModel,
    tokens: Sequence[int],
    frozen: Sequence[Sequence[Component]],
    kept: dict[int, Tensor] | None = None,
) -> Iterator[None]:
    """Freeze inputs of heads at their clean activations in forward passes inside this context.

    Args:
        model: the language model.
        tokens: the prompt's token ids; the passes run a batch of its copies.
        frozen: the queries, keys and values to freeze in each row of the batch.
        kept: if given, gets the attention weights of each block at the last position, `[row, head, position]`, if the
            model attends through transformers' interface.

    Raises:
        HydrascopeError: an input is to be frozen, but the model doesn't attend through transformers' interface.
    """
    through_interface = model.anatomy.supports_wavefront
    if not any(frozen) and (kept is None or not through_interface):
        yield
        return
    if not through_interface:
        raise HydrascopeError(
            f"{model.config.model_type} does not attend through transformers' AttentionInterface: inputs of its heads "
            "cannot be frozen; freeze heads"
        )
    clean: dict[int, dict[str, Tensor]] = {}
    with attending(model, _attend_frozen(clean, [], {})):
        model.hf.base_model(input_ids=torch.tensor([list(tokens)], device=model.device), use_cache=False)
    with attending(model, _attend_frozen(clean, frozen, {} if kept is None else kept)):
        yield


def _attend_frozen(
    clean: dict[int, dict[str, Tensor]], frozen: Sequence[Sequence[Component]], kept: dict[int, Tensor]
) -> Attend:
    """Return attention written out, which takes the frozen inputs of heads from the clean pass.

    The first pass is the clean one: it fills `clean` with the queries, keys and values of each block. Every pass fills
    `kept` with the weights of the last position's query, `[row, head, position]`.
    """

    def attend(inputs: AttentionInputs) -> Tensor:
        block, heads = inputs.block, inputs.query.shape[1]
        own = {
            name: values.repeat_interleave(heads // values.shape[1], 1)
            for name, values in (("query", inputs.query), ("key", inputs.key), ("value", inputs.value))
        }
        if block not in clean:
            clean[block] = own
        for row, components in enumerate(frozen):
            for component in components:
                if component.block == block:
                    own[component.kind][row, component.unit] = clean[block][component.kind][0, component.unit]
        scores = own["query"] @ own["key"].mT * inputs.scaling
        if inputs.softcap is not None:
            scores = (scores / inputs.softcap).tanh() * inputs.softcap
        scores = scores.masked_fill(~inputs.mask, -torch.inf).to(wider(scores.dtype))
        if inputs.sinks is not None:
            sink = inputs.sinks.to(scores.dtype)[None, :, None, None].expand(len(scores), -1, scores.shape[2], 1)
            scores = torch.cat([scores, sink], -1)
        weights = scores.softmax(-1)[..., : inputs.mask.shape[-1]]
        kept[block] = weights[:, :, -1].clone()
        return weights.to(inputs.value.dtype) @ own["value"]

    return attend
