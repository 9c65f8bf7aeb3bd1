"""The loop an expert would write: the prompt's keys and values kept, only the last token run again.

It can only ablate the last position.
"""

from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from benchmarks.peers import Override, Peer, Run, Session
from benchmarks.peers.hooks import hooked_run
from benchmarks.shapes import Shape
from benchmarks.task import PATCHES, Work


def cached_prefix(model: PreTrainedModel, shape: Shape, work: Work) -> Peer:
    """The clean run fills the cache; every ablated run is the last token's, its patches as one batch."""

    def peer(tokens: Tensor) -> Session:
        cache = DynamicCache(config=model.config)

        def forward(ids: Tensor) -> Tensor:
            return model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits

        clean = hooked_run(model, shape, work, None, lambda: forward(tokens[None]))
        cache.crop(-1)
        cache.batch_repeat_interleave(PATCHES)
        last = tokens[-1:].expand(PATCHES, 1)

        def run(override: Override | None) -> Run:
            if override is None:
                return clean
            ablated_run = hooked_run(model, shape, work, override, lambda: forward(last))
            cache.crop(-1)
            return ablated_run

        return run

    return peer
