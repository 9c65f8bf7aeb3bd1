"""The clean runs of a whole prompt set, made once: what ablations draw their patches from.

Kept are the values at the sites that are ablated, at the places of each prompt that correspond to any ablated position
of any prompt; not what components write, which for heads and neurons would be many times as much.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hydrascope.components.component import Component
from hydrascope.engines.clean.clean_pass import CleanPass, compute_clean_pass_at
from hydrascope.engines.clean.prefix_store import Back
from hydrascope.engines.clean.spill_store import Allocator, Shard, in_memory
from hydrascope.models.language_model import LanguageModel, wider
from hydrascope.prompts.positions import AblationPositions
from hydrascope.prompts.prompt import Prompt, counterfactual_tokens, prompt_label, require_same_length
from hydrascope.utils.errors import HydrascopeError


@dataclass(frozen=True)
class CleanActivations:
    """What the clean runs of a prompt set leave.

    Attributes:
        model: the model.
        prompts: the set.
        tokens: each prompt's token ids.
        positions: where each is ablated.
        sites: where the values of the ablated components stand.
        targets: each prompt's target token.
        values: per site `[row, columns]`, on the CPU, or on disk and mapped into memory as it is read.
        row_index: `[prompt, offset]` the row of the values at `offset` + 1 tokens from a prompt's end; −1 where the
            prompt is too short.
        argmax: each prompt's most likely next token.
        prefixes: by the prompts of a batch, what its measurement needs of its clean run, as far as it was kept.
    """

    model: LanguageModel
    prompts: Sequence[Prompt]
    tokens: Sequence[Sequence[int]]
    positions: Sequence[AblationPositions]
    sites: Sequence[Component]
    targets: Sequence[int]
    values: dict[Component, Float[Tensor, "row columns"]]
    row_index: Int[np.ndarray, "prompt offset"]
    argmax: Sequence[int]
    prefixes: dict[tuple[int, ...], Back] = field(default_factory=dict, repr=False)
    _means: dict[Component, Tensor] = field(default_factory=dict, repr=False)

    def activations_of(
        self, component: Component, sources: Int[np.ndarray, "prompt patch"], prompts: Sequence[int]
    ) -> Float[Tensor, "prompt patch slot columns"]:
        """What `component` writes in the clean runs of `sources`, at the places that correspond to those of `prompts`.

        >>> clean.take(Component.parse("attn.3"), np.array([[4, 7]]), [0])       # doctest: +SKIP

        Raises:
            HydrascopeError: a source has no such place; `corresponding` says which have.
        """
        rows = self.row_index[np.asarray(sources)[:, :, None], self.padded_offsets(prompts)[:, None] - 1]
        if len(short := np.argwhere(rows < 0)):
            place, patch, _ = short[0]
            patched, source = prompts[place], int(sources[place, patch])
            raise HydrascopeError(
                f"{prompt_label(source + 1, self.prompts[source])} is too short to patch "
                f"{prompt_label(patched + 1, self.prompts[patched])}: draw from prompts that correspond to it"
            )
        return self.values[component.site][:, self.model.columns(component)][torch.from_numpy(rows)]

    def own_activations(self, component: Component, prompts: Sequence[int]) -> Float[Tensor, "prompt 1 slot columns"]:
        """What `component` writes in the clean runs of `prompts` themselves."""
        return self.activations_of(component, np.asarray(prompts)[:, None], prompts)

    def mean_activations(self, component: Component, prompts: Sequence[int]) -> Float[Tensor, "prompt 1 slot columns"]:
        """The mean of what `component` writes over all prompts that have a corresponding place."""
        if component.site not in self._means:
            values = self.values[component.site]
            self._means[component.site] = torch.stack(
                # A distance that no prompt is ablated at is kept for none, and never asked for.
                [_mean(values[torch.from_numpy(rows[rows >= 0])]) for rows in self.row_index.T]
            )
        mean = self._means[component.site][self.padded_offsets(prompts) - 1]
        return mean[:, None, :, self.model.columns(component)]

    def donors(self, index: int) -> Bool[np.ndarray, "prompt"]:
        """Which prompts have a place that corresponds to each ablated position of the prompt at `index`."""
        return np.asarray((self.row_index[:, np.array(self.positions[index].offsets) - 1] >= 0).all(1))

    def padded_offsets(self, prompts: Sequence[int]) -> Int[np.ndarray, "prompt slot"]:
        """How far each ablated position is from its prompt's end; the last one repeated where a prompt has fewer."""
        return _pad([self.positions[index].offsets for index in prompts])

    def padded_positions(self, prompts: Sequence[int]) -> Int[np.ndarray, "prompt slot"]:
        """Each ablated position, counted from the prompt's start; as `slots`."""
        return padded_positions(self.positions, prompts)

    @cached_property
    def twins(self) -> list[list[int]]:
        """The token ids of each prompt's counterfactual.

        Raises:
            HydrascopeError: a prompt has none, or one of another length though another position than the last is
                ablated.
        """
        twins = counterfactual_tokens(self.model, self.prompts)
        if any(
            positions.positions != (len(ids) - 1,) for positions, ids in zip(self.positions, self.tokens, strict=True)
        ):
            require_same_length(self.prompts, self.tokens, twins)
        return twins

    def activations_of_texts(
        self, prompts: Sequence[int], others: Sequence[Sequence[int]]
    ) -> Callable[[Component], Float[Tensor, "prompt 1 slot columns"]]:
        """What components write in runs of `others`, as far from their ends as `prompts` are ablated from theirs.

        The runs are made when the first component is asked for.
        """
        back = [len(self.tokens[index]) for index in prompts]
        positions = self.padded_positions(prompts) - np.array(back)[:, None] + np.array([[len(ids)] for ids in others])
        kept: dict[Component, Tensor] = {}

        def values(component: Component) -> Tensor:
            if not kept:
                kept.update(activations_at(self.model, others, positions, self.sites))
            return kept[component.site][:, None, :, self.model.columns(component)]

        return values


def without_activations(
    model: LanguageModel,
    prompts: Sequence[Prompt],
    tokens: Sequence[Sequence[int]],
    positions: Sequence[AblationPositions],
) -> CleanActivations:
    """What is known of clean runs before they are made: which places correspond, and twins; no values or targets."""
    return CleanActivations(
        model, prompts, tokens, positions, (), [0] * len(tokens), {}, _row_index(positions), [0] * len(tokens)
    )


def activations_at(
    model: LanguageModel,
    tokens: Sequence[Sequence[int]],
    positions: Int[np.ndarray, "run slot"],
    sites: Sequence[Component],
) -> dict[Component, Float[Tensor, "run slot columns"]]:
    """What stands at `sites` in plain runs of `tokens`, at some positions of each; on the CPU."""
    runs = torch.arange(len(tokens)).repeat_interleave(positions.shape[1])
    found = compute_clean_pass_at(model, tokens, runs, torch.from_numpy(positions).flatten(), sites)
    return {site: values.cpu().unflatten(0, positions.shape) for site, values in found.values.items()}


#: Runs some prompts clean, given by their numbers, and keeps what stands at some places `[place]`: of which, and where.
CleanPassFunction = Callable[[Sequence[int], Int[Tensor, "place"], Int[Tensor, "place"]], CleanPass]


def plain_pass(model: LanguageModel, tokens: Sequence[Sequence[int]], sites: Sequence[Component]) -> CleanPassFunction:
    """Clean runs of `tokens` as the model itself makes them."""
    return lambda batch, runs, at: compute_clean_pass_at(model, [tokens[index] for index in batch], runs, at, sites)


def collect_clean_activations(
    model: LanguageModel,
    prompts: Sequence[Prompt],
    tokens: Sequence[Sequence[int]],
    positions: Sequence[AblationPositions],
    sites: Sequence[Component],
    batches: Iterable[Sequence[int]],
    run: CleanPassFunction,
    targets: Sequence[int] | None = None,
    keep: Allocator = in_memory,
) -> CleanActivations:
    """Run all prompts once.

    Args:
        batches: which prompts are run together; best of similar lengths, so that little is padded.
        run: what runs them, and keeps what stands at `sites`.
        targets: each prompt's target token; the most likely one by default.
        keep: where the values are kept.

    Raises:
        HydrascopeError: the disk refuses.
    """
    whole = range(len(prompts))
    part = collect_shard(model, tokens, positions, sites, whole, batches, run, keep)
    values = {site: part[str(site)] for site in sites}
    likeliest = part[_LIKELIEST].tolist()
    return CleanActivations(
        model,
        prompts,
        tokens,
        positions,
        sites,
        likeliest if targets is None else targets,
        values,
        _row_index(positions),
        likeliest,
    )


def collect_shard(
    model: LanguageModel,
    tokens: Sequence[Sequence[int]],
    positions: Sequence[AblationPositions],
    sites: Sequence[Component],
    chunk: range,
    batches: Iterable[Sequence[int]],
    run: CleanPassFunction,
    keep: Allocator = in_memory,
) -> Shard:
    """What the clean runs of a block of prompts leave, by themselves: `join_shards` joins them.

    Args:
        batches: of that block, as for `collect_clean_activations`.

    Returns:
        `[row, columns]` by the label of each site, and `[prompt]` the most likely next tokens.
    """
    row = _row_index(positions)
    rows = _rows_of_chunk(row, chunk)
    values = {site: keep(len(rows), model.site_width(site), model.dtype) for site in sites}
    likeliest = torch.zeros(len(chunk), dtype=torch.long)
    for batch in batches:
        here = [
            (number, offset, index) for number, index in enumerate(batch) for offset in np.flatnonzero(row[index] >= 0)
        ]
        runs = torch.tensor([*range(len(batch)), *(number for number, _, _ in here)])
        ends = [len(tokens[index]) - 1 for index in batch]
        at = torch.tensor([*ends, *(positions[index].end - 1 - int(offset) for _, offset, index in here)])
        found = run(batch, runs, at)
        to = torch.tensor([row[index, offset] - rows.start for _, offset, index in here])
        for site in sites:
            values[site][to] = found.values[site][len(batch) :].cpu()
        with torch.no_grad():
            logits = model.unembedded(found.normed[: len(batch)])
        likeliest[torch.tensor(batch) - chunk.start] = logits.argmax(-1).cpu()
    return {_LIKELIEST: likeliest, **{str(site): values[site] for site in sites}}


def join_shards(
    model: LanguageModel,
    prompts: Sequence[Prompt],
    tokens: Sequence[Sequence[int]],
    positions: Sequence[AblationPositions],
    sites: Sequence[Component],
    parts: Iterable[tuple[range, Shard]],
    targets: Sequence[int] | None = None,
    keep: Allocator = in_memory,
) -> CleanActivations:
    """What `collect_clean_activations` gives, of the parts that all blocks of prompts have left."""
    row, likeliest = _row_index(positions), [0] * len(prompts)
    values = {site: keep(int(row.max()) + 1, model.site_width(site), model.dtype) for site in sites}
    for chunk, part in parts:
        rows = _rows_of_chunk(row, chunk)
        for site in sites:
            values[site][rows.start : rows.stop] = part[str(site)]
        likeliest[chunk.start : chunk.stop] = part[_LIKELIEST].tolist()
    return CleanActivations(
        model, prompts, tokens, positions, sites, likeliest if targets is None else targets, values, row, likeliest
    )


#: What the most likely next tokens are called in a part.
_LIKELIEST = "likeliest"


def _row_index(positions: Sequence[AblationPositions]) -> Int[np.ndarray, "prompt offset"]:
    """`CleanActivations.row`: of each prompt all places that correspond to an ablated position of any prompt."""
    offsets = sorted({offset for place in positions for offset in place.offsets})
    row = np.full((len(positions), offsets[-1]), -1)
    kept = [(index, offset) for index, place in enumerate(positions) for offset in offsets if place.has([offset])]
    for number, (index, offset) in enumerate(kept):
        row[index, offset - 1] = number
    return row


def _rows_of_chunk(row: np.ndarray, chunk: range) -> range:
    """The rows of the prompts of a block: they stand together."""
    rows = row[chunk]
    return range(int(rows[rows >= 0].min()), int(rows.max()) + 1)


def padded_positions(positions: Sequence[AblationPositions], prompts: Sequence[int]) -> Int[np.ndarray, "prompt slot"]:
    """Each position at which some of the prompts are ablated; the last one repeated where a prompt has fewer."""
    return _pad([positions[index].positions for index in prompts])


def _pad(each: Sequence[Sequence[int]]) -> Int[np.ndarray, "prompt slot"]:
    longest = max(map(len, each))
    return np.array([[*values, *[values[-1]] * (longest - len(values))] for values in each])


def _mean(values: Tensor) -> Tensor:
    return values.mean(0, dtype=wider(values.dtype)).to(values.dtype)
