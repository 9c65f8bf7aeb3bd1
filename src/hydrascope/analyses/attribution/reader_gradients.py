"""Slopes of readouts with respect to the residual stream that one sublayer alone reads."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hydrascope.analyses.attribution.gradients import read_streams
from hydrascope.components.component import Component
from hydrascope.engines.readouts import FINAL, Readouts
from hydrascope.models.attached_dictionary import mlp_receiver, norm_before
from hydrascope.models.batching import padded
from hydrascope.models.gradients import start_graph, with_gradients
from hydrascope.models.hooks import Handle, as_given, by_prompt, hooked, on_input, on_output
from hydrascope.models.language_model import LanguageModel, wider

#: By reader, a sublayer or the logits, ∂π̂/∂(what it reads).
Slopes = dict[Component | Literal["logits"], Float[Tensor, "prompt position width"]]


def reader_slopes(
    model: LanguageModel,
    tokens: Sequence[Sequence[int]],
    readouts: Readouts,
    sublayers: Sequence[Component],
    embeddings: Float[Tensor, "prompt position width"] | None = None,
) -> list[Slopes]:
    """Return the slopes of each readout with respect to what each sublayer reads.

    Args:
        model: the model.
        tokens: the token ids of each prompt.
        readouts: the readouts of the same prompts.
        sublayers: the sublayers whose input is varied.
        embeddings: what enters the first block instead of the tokens' embeddings.

    Returns:
        by readout, the slopes of each sublayer, and of the final stream as `logits`: 0 where the readout is below.
    """
    ids, last = padded(model, tokens)
    rows = torch.arange(len(tokens), device=model.device)
    streams: dict[int, Tensor] = {}
    leaves: dict[Component | Literal["logits"], Tensor] = {}
    #: Of parallel blocks: the norm in front of each sublayer, and the stream that enters each block.
    norms = {each: norm_before(model, _receiver(model, each), each.block) for each in sublayers if model.parallel}
    entering: dict[int, Tensor] = {}

    def leaf(name: Component | Literal["logits"], like: Tensor) -> Tensor:
        leaves[name] = start_graph(torch.zeros_like(like))
        return leaves[name]

    def keep(block: int, hidden: Tensor) -> None:
        streams[block] = by_prompt(hidden, len(tokens))[rows, last]

    def enter(block: int, hidden: Tensor) -> Tensor:
        stream = by_prompt(hidden, len(tokens))
        if block == 0:
            stream = start_graph(stream if embeddings is None else embeddings.to(stream))
        entering[block] = stream.detach()
        attn = Component(block, "attn")
        return stream + leaf(attn, stream) if attn in sublayers and not model.parallel else stream.clone()

    def after_attention(block: int, hidden: Tensor) -> Tensor:
        output = by_prompt(hidden, len(tokens))
        for sublayer, sign in ((Component(block, "attn"), -1), (Component(block, "mlp"), 1)):
            if sublayer in sublayers:
                added = leaves[sublayer] if sign < 0 else leaf(sublayer, output)
                output = output + sign * added / model.residual_scale
        return as_given(output, hidden)

    def after_mlp(block: int, hidden: Tensor) -> Tensor:
        output = by_prompt(hidden, len(tokens))
        return as_given(output - leaves[Component(block, "mlp")] / model.residual_scale, hidden)

    def into(sublayer: Component, hidden: Tensor) -> Tensor:
        return hidden + leaf(sublayer, hidden)

    def final(hidden: Tensor) -> Tensor:
        changed = hidden + leaf("logits", hidden)
        keep(FINAL, changed)
        return changed

    def hooks() -> Iterator[Handle]:
        for block, module in enumerate(model.blocks):
            if block in readouts.blocks:
                yield on_input(module, partial(keep, block))
            yield on_input(module, partial(enter, block))
            attn, mlp = Component(block, "attn"), Component(block, "mlp")
            if model.parallel:
                for sublayer in (attn, mlp):
                    if sublayer in sublayers:
                        yield on_input(_receiver(model, sublayer), partial(into, sublayer))
                continue
            if attn in sublayers or mlp in sublayers:
                yield on_output(model.output(attn), partial(after_attention, block))
            if mlp in sublayers:
                yield on_output(model.output(mlp), partial(after_mlp, block))
        yield on_input(model.final_norm, final)

    with with_gradients(model), hooked(hooks()):
        model.hf.base_model(input_ids=ids, use_cache=False)
        read = read_streams(model, readouts, streams)
    return [_slopes_of(model, read, number, leaves, norms, entering) for number in range(len(readouts.rows))]


def _receiver(model: LanguageModel, sublayer: Component) -> nn.Module:
    """Return the module that receives a sublayer's input, after its norm."""
    return model.attention(sublayer.block) if sublayer.kind == "attn" else mlp_receiver(model, sublayer.block)


def _slopes_of(
    model: LanguageModel,
    read: Float[Tensor, "prompt readout"],
    number: int,
    leaves: dict[Any, Tensor],
    norms: dict[Component, Any],
    entering: dict[int, Tensor],
) -> Slopes:
    """Return the slopes of one readout."""
    above = torch.zeros_like(read)
    above[:, number] = 1
    found = torch.autograd.grad(read, list(leaves.values()), above, retain_graph=True, allow_unused=True)
    slopes: Slopes = {}
    for (name, leaf), slope in zip(leaves.items(), found, strict=True):
        slope = torch.zeros_like(leaf) if slope is None else slope
        if name in norms:
            slope = _through_norm(norms[name], entering[name.block], slope)
        slopes[name] = by_prompt(slope, len(read)).detach().to(wider(model.dtype))
    return slopes


def _through_norm(norm: Any, stream: Tensor, slope: Tensor) -> Tensor:
    """Return a slope with respect to a stream from that with respect to its norm's output."""
    with torch.enable_grad():
        start = start_graph(stream)
        output = norm.forward(start)
        return torch.autograd.grad(output, start, slope.view_as(output))[0]
