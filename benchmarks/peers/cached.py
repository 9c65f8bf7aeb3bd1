"""The loop an expert would write: the prompt's keys and values kept, only the last token run again."""

from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from benchmarks.peers import Peer, Run, Session
from benchmarks.peers.hooks import hooked_run
from benchmarks.shapes import Shape
from benchmarks.task import PATCHES


def cached_prefix(model: PreTrainedModel, shape: Shape) -> Peer:
    """The clean run fills the cache; every ablated run is the last token's, its patches as one batch."""

    def peer(tokens: Tensor) -> Session:
        cache = DynamicCache(config=model.config)

        def forward(ids: Tensor) -> Tensor:
            return model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits

        clean = hooked_run(model, shape, None, None, lambda: forward(tokens[None]))
        cache.crop(-1)
        cache.batch_repeat_interleave(PATCHES)
        last = tokens[-1:].expand(PATCHES, 1)

        def run(ablated: int | None, patches: Tensor | None) -> Run:
            if ablated is None:
                return clean
            ablated_run = hooked_run(model, shape, ablated, patches, lambda: forward(last))
            cache.crop(-1)
            return ablated_run

        return run

    return peer
