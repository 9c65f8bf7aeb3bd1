"""nnsight: one trace for every ablated component."""

from typing import Any

import torch
from nnsight import NNsight
from torch import Tensor
from transformers import PreTrainedModel

from benchmarks.peers import Peer, Run, Session
from benchmarks.shapes import Shape, parts


def nnsight_traces(model: PreTrainedModel, shape: Shape) -> Peer:
    """`model` is wrapped in place."""
    wrapped = NNsight(model)
    where = parts(wrapped, shape)
    count = shape.components

    def peer(tokens: Tensor, **forward: Any) -> Session:
        def run(ablated: int | None, patches: Tensor | None) -> Run:
            copies = tokens.expand(1 if patches is None else len(patches), -1)
            with wrapped.trace(input_ids=copies, **forward):
                written: list[Any] = []
                for index in range(count):
                    layer, kind = divmod(index, 2)
                    output = where.mlp[layer].output if kind else where.attn[layer].output[0]
                    if index == ablated:
                        output[:, -1] = patches
                    written.append(output[:, -1])
                residual = where.norm.input[:, -1].save()
                logits = wrapped.output.logits[:, -1].save()
                stacked: Any = torch.stack(written, 1)
                stacked = stacked.save()
            return Run(stacked, residual, logits)

        return run

    return peer
