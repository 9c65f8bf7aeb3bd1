"""nnsight: one trace for every ablated component."""

from typing import Any

import nnsight
from torch import Tensor
from transformers import PreTrainedModel

from benchmarks.peers import Override, Peer, Run, Session
from benchmarks.shapes import Shape, parts
from benchmarks.task import Work


def nnsight_traces(model: PreTrainedModel, shape: Shape, work: Work) -> Peer:
    """`model` is wrapped in place."""
    wrapped = nnsight.NNsight(model)
    where = parts(wrapped, shape)
    sites = work.sites(shape)

    def peer(tokens: Tensor, **forward: Any) -> Session:
        def run(override: Override | None) -> Run:
            copies = tokens.expand(1 if override is None else len(override.patches), -1)
            with wrapped.trace(input_ids=copies, **forward):
                values: Any = nnsight.save([])
                for site in sites:
                    if site.kind == "head":
                        hidden = where.projection[site.block].input
                    elif site.kind == "attn":
                        hidden = where.attn[site.block].output[0]
                    else:
                        hidden = where.mlp[site.block].output
                    if override is not None and site == override.site:
                        override(hidden)
                    values.append(hidden[:, -1])
                residual = where.norm.input[:, -1].save()
                logits = wrapped.output.logits[:, -1].save()
            return Run(values, residual, logits)

        return run

    return peer
