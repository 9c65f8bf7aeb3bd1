"""Clean runs of a prompt set, in batches of any size, and in parts."""

from collections.abc import Sequence

from hydrascope.components.component import Component
from hydrascope.engines.clean.activations import (
    CleanActivations,
    collect_clean_activations,
    collect_shard,
    join_shards,
    plain_pass,
)
from hydrascope.models.language_model import LanguageModel
from hydrascope.prompts.positions import At, resolve_positions
from hydrascope.prompts.prompt import Prompt
from hydrascope.prompts.token_ids import tokenize


def banked(
    model: LanguageModel,
    prompts: Sequence[Prompt],
    at: At,
    sites: Sequence[Component],
    size: int,
    targets: Sequence[int] | None = None,
    *,
    in_parts: bool = False,
) -> CleanActivations:
    """The clean runs of `prompts`, `size` at a time, with what stands at `sites` where they are ablated.

    Args:
        in_parts: run each batch as a part by itself, the last one first.
    """
    tokens = tokenize(model, prompts)
    batches = [range(start, min(start + size, len(prompts))) for start in range(0, len(prompts), size)]
    where, run = resolve_positions(model, prompts, tokens, at), plain_pass(model, tokens, sites)
    if not in_parts:
        return collect_clean_activations(model, prompts, tokens, where, sites, batches, run, targets)
    parts = [(batch, collect_shard(model, tokens, where, sites, batch, [batch], run)) for batch in reversed(batches)]
    return join_shards(model, prompts, tokens, where, sites, parts, targets)
