"""Clean runs of a prompt set, in batches of any size, and in parts."""

from collections.abc import Sequence

from hydrascope.bank import CleanRuns, clean_part, clean_runs, clean_runs_of_parts, plainly
from hydrascope.components import Component
from hydrascope.model import LanguageModel
from hydrascope.positions import At, places
from hydrascope.prompts import Prompt, tokenize


def banked(
    model: LanguageModel,
    prompts: Sequence[Prompt],
    at: At,
    sites: Sequence[Component],
    size: int,
    targets: Sequence[int] | None = None,
) -> CleanRuns:
    """The clean runs of `prompts`, `size` at a time, with what stands at `sites` where they are ablated."""
    tokens = tokenize(model, prompts)
    batches = [range(start, min(start + size, len(prompts))) for start in range(0, len(prompts), size)]
    where = places(model, prompts, tokens, at)
    return clean_runs(model, prompts, tokens, where, sites, batches, plainly(model, tokens, sites), targets)


def banked_in_parts(
    model: LanguageModel,
    prompts: Sequence[Prompt],
    at: At,
    sites: Sequence[Component],
    size: int,
    targets: Sequence[int] | None = None,
) -> CleanRuns:
    """The same, each batch as a part by itself."""
    tokens = tokenize(model, prompts)
    where = places(model, prompts, tokens, at)
    run = plainly(model, tokens, sites)
    blocks = [range(start, min(start + size, len(prompts))) for start in range(0, len(prompts), size)]
    parts = [(block, clean_part(model, tokens, where, sites, block, [block], run)) for block in reversed(blocks)]
    return clean_runs_of_parts(model, prompts, tokens, where, sites, parts, targets)
