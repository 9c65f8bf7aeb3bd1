"""Collect the clean activations of a prompt set once, for ablations to draw patches from.

Kept are the activations at the sites of the ablated components, at the positions of each prompt that correspond to an
ablated position of any prompt. What components write is not kept: for heads and neurons it would be many times as much.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hydrascope.components.component import Component
from hydrascope.engines.clean.clean_pass import CleanPass, compute_clean_pass_at
from hydrascope.engines.clean.prefix_store import PrefixStore
from hydrascope.engines.clean.spill_store import Allocator, Shard, in_memory
from hydrascope.models.language_model import LanguageModel, wider
from hydrascope.prompts.positions import AblationPositions
from hydrascope.prompts.prompt import Prompt, prompt_label
from hydrascope.prompts.twins import counterfactual_tokens, require_same_length
from hydrascope.utils.errors import HydrascopeError

#: A statistic over prompts: a function from `[row, columns]`, at least one row, to `[columns]`.
Statistic = Callable[[Tensor], Tensor]
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class CleanActivations:
    """The clean activations of a prompt set.

    Attributes:
        model: the model.
        prompts: the prompt set.
        tokens: each prompt's token ids.
        positions: each prompt's ablated positions.
        sites: the sites of the ablated components.
        targets: each prompt's target token.
        values: per site `[row, columns]`, on the CPU, or on disk and mapped into memory as it is read.
        row_index: `[prompt, offset]` the row of the activations at `offset` + 1 tokens from a prompt's end; −1 where
            the prompt is too short.
        likeliest: each prompt's two most likely next tokens.
        prefixes: the prefixes of the batches that were run, as far as they were kept.
    """

    model: LanguageModel
    prompts: Sequence[Prompt]
    tokens: Sequence[Sequence[int]]
    positions: Sequence[AblationPositions]
    sites: Sequence[Component]
    targets: Sequence[int]
    values: dict[Component, Float[Tensor, "row columns"]]
    row_index: Int[np.ndarray, "prompt offset"]
    likeliest: Sequence[Sequence[int]]
    prefixes: PrefixStore = field(default_factory=PrefixStore, repr=False)
    #: Values that were computed from these activations, by key; a copy with other fields begins without.
    _computed: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False)

    def remember(self, key: Hashable, compute: Callable[[], _Value]) -> _Value:
        """Return a value that is computed from these activations, once for each key."""
        if key not in self._computed:
            self._computed[key] = compute()
        found: _Value = self._computed[key]
        return found

    def activations_of(
        self, component: Component, sources: Int[np.ndarray, "prompt patch"], prompts: Sequence[int]
    ) -> Float[Tensor, "prompt patch slot columns"]:
        """Return activations of `sources` at the positions that correspond to those of `prompts`.

        >>> clean.activations_of(Component.parse("attn.3"), np.array([[4, 7]]), [0])       # doctest: +SKIP

        Raises:
            HydrascopeError: a source has no such position; `donors` lists the prompts that have.
        """
        rows = self.row_index[np.asarray(sources)[:, :, None], self.padded_offsets(prompts)[:, None] - 1]
        if len(short := np.argwhere(rows < 0)):
            row, patch, _ = short[0]
            patched, source = prompts[row], int(sources[row, patch])
            raise HydrascopeError(
                f"{prompt_label(source + 1, self.prompts[source])} is too short to patch "
                f"{prompt_label(patched + 1, self.prompts[patched])}: draw from prompts that correspond to it"
            )
        return self.values[component.site][:, self.model.columns(component)][torch.from_numpy(rows)]

    def own_activations(self, component: Component, prompts: Sequence[int]) -> Float[Tensor, "prompt 1 slot columns"]:
        """Return activations of `prompts` themselves at their ablated positions."""
        return self.activations_of(component, np.asarray(prompts)[:, None], prompts)

    def reduce_activations(
        self, component: Component, prompts: Sequence[int], statistic: Statistic
    ) -> Float[Tensor, "prompt 1 slot columns"]:
        """Return a statistic over all prompts that have the position that is ablated.

        Positions correspond by their distance from the end (the subject's, if subjects are ablated).

        >>> clean.reduce_activations(Component.parse("attn.3"), [0], median)               # doctest: +SKIP

        Args:
            statistic: a function of a module, not one made anew for each call: results are kept for each function.
        """

        def compute() -> Float[Tensor, "offset columns"]:
            values = self.values[component.site]
            return torch.stack(
                [_reduce(values[torch.from_numpy(rows[rows >= 0])], statistic) for rows in self.row_index.T]
            )

        reduced = self.remember((statistic, component.site), compute)[self.padded_offsets(prompts) - 1]
        return reduced[:, None, :, self.model.columns(component)]

    @property
    def argmax(self) -> list[int]:
        """Each prompt's most likely next token."""
        return [first for first, _ in self.likeliest]

    @property
    def rivals(self) -> list[int]:
        """Each prompt's most likely next token but for its target: the runner-up of the clean pass."""
        return [
            first if first != target else second
            for (first, second), target in zip(self.likeliest, self.targets, strict=True)
        ]

    def donors(self, index: int) -> Bool[np.ndarray, "prompt"]:
        """Mark the prompts that have a position for each ablated position of the prompt at `index`."""
        return np.asarray((self.row_index[:, np.array(self.positions[index].offsets) - 1] >= 0).all(1))

    def padded_offsets(self, prompts: Sequence[int]) -> Int[np.ndarray, "prompt slot"]:
        """Return ablated positions from the end, 1 the last; a prompt with fewer repeats its last."""
        return _pad([self.positions[index].offsets for index in prompts])

    def padded_positions(self, prompts: Sequence[int]) -> Int[np.ndarray, "prompt slot"]:
        """Return ablated positions from the start; a prompt with fewer repeats its last."""
        return padded_positions(self.positions, prompts)

    @cached_property
    def twins(self) -> list[list[int]]:
        """Tokenise each prompt's counterfactual.

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
        """Return activations on other texts, as far from the end as in `prompts`.

        The texts are run when the first component is asked for.
        """
        ends = [len(self.tokens[index]) for index in prompts]
        positions = self.padded_positions(prompts) - np.array(ends)[:, None] + np.array([[len(ids)] for ids in others])
        kept: dict[Component, Tensor] = {}

        def values(component: Component) -> Tensor:
            if not kept:
                kept.update(activations_at(self.model, others, positions, self.sites))
            return kept[component.site][:, None, :, self.model.columns(component)]

        return values

    def select(self, indices: Sequence[int], sites: Sequence[Component]) -> "CleanActivations":
        """Return the activations of some prompts at some sites, without prefixes."""
        some = {name: [getattr(self, name)[index] for index in indices] for name in _OF_PROMPTS}
        values = {site: self.values[site] for site in sites}
        return self._with_prompts(some, sites=sites, values=values, row_index=self.row_index[list(indices)])

    def realign(self, positions: Sequence[AblationPositions]) -> "CleanActivations":
        """Count offsets from the end of `positions`, perhaps a subject's, and not of the prompt."""
        row = np.full((len(positions), max(each.end - each.start for each in positions)), -1)
        for own, each, tokens, rows in zip(row, positions, self.tokens, self.row_index, strict=True):
            spanned = rows[len(tokens) - each.end : len(tokens) - each.start]
            own[: len(spanned)] = spanned
        return replace(self, positions=positions, row_index=row)

    @classmethod
    def concatenate(cls, parts: Sequence["CleanActivations"]) -> "CleanActivations":
        """Concatenate parts with activations at the same sites, without prefixes."""
        offsets = max(part.row_index.shape[1] for part in parts)
        rows, before = [], 0
        for part in parts:
            row = np.full((len(part.row_index), offsets), -1)
            row[:, : part.row_index.shape[1]] = np.where(part.row_index < 0, -1, part.row_index + before)
            rows.append(row)
            before += len(next(iter(part.values.values())))
        prompts = {name: [each for part in parts for each in getattr(part, name)] for name in _OF_PROMPTS}
        values = {site: torch.cat([part.values[site] for part in parts]) for site in parts[0].values}
        return parts[0]._with_prompts(prompts, values=values, row_index=np.concatenate(rows))

    def _with_prompts(self, prompts: dict[str, Any], **changed: Any) -> "CleanActivations":
        # Prefixes are kept by the indices of prompts, which are others now.
        return replace(self, **prompts, **changed, prefixes=PrefixStore())


#: The fields that have an item a prompt.
_OF_PROMPTS = ("prompts", "tokens", "positions", "targets", "likeliest")


def without_activations(
    model: LanguageModel,
    prompts: Sequence[Prompt],
    tokens: Sequence[Sequence[int]],
    positions: Sequence[AblationPositions],
) -> CleanActivations:
    """Return what needs no pass, such as donors; there are no activations and no true targets."""
    return CleanActivations(
        model, prompts, tokens, positions, (), [0] * len(tokens), {}, _row_index(positions), [(0, 1)] * len(tokens)
    )


def activations_at(
    model: LanguageModel,
    tokens: Sequence[Sequence[int]],
    positions: Int[np.ndarray, "prompt slot"],
    sites: Sequence[Component],
) -> dict[Component, Float[Tensor, "prompt slot columns"]]:
    """Run token ids plainly, and take activations at `sites` and `positions`, onto the CPU."""
    numbers = torch.arange(len(tokens)).repeat_interleave(positions.shape[1])
    found = compute_clean_pass_at(model, tokens, numbers, torch.from_numpy(positions).flatten(), sites)
    return {site: values.cpu().unflatten(0, positions.shape) for site, values in found.values.items()}


#: Runs a batch of prompts, given by their indices, and takes activations `[position]`: of which of them, and where.
CleanPassFunction = Callable[[Sequence[int], Int[Tensor, "position"], Int[Tensor, "position"]], CleanPass]


def plain_pass(model: LanguageModel, tokens: Sequence[Sequence[int]], sites: Sequence[Component]) -> CleanPassFunction:
    """Return a function that runs batches of `tokens` as the model itself does."""
    return lambda batch, numbers, at: compute_clean_pass_at(
        model, [tokens[index] for index in batch], numbers, at, sites
    )


def collect_clean_activations(
    model: LanguageModel,
    prompts: Sequence[Prompt],
    tokens: Sequence[Sequence[int]],
    positions: Sequence[AblationPositions],
    sites: Sequence[Component],
    batches: Iterable[Sequence[int]],
    run: CleanPassFunction,
    targets: Sequence[int] | None = None,
    allocate: Allocator = in_memory,
) -> CleanActivations:
    """Run all prompts once, and collect their activations at `sites`.

    Args:
        batches: the prompts that are run together; best of similar lengths, so that little is padded.
        run: runs a batch, and takes activations at `sites`.
        targets: each prompt's target token; the most likely one by default.
        allocate: makes room for the activations.

    Raises:
        HydrascopeError: the disk refuses.
    """
    shard = collect_shard(model, tokens, positions, sites, range(len(prompts)), batches, run, allocate)
    values = {site: shard[str(site)] for site in sites}
    likeliest = shard[_LIKELIEST].tolist()
    return CleanActivations(
        model,
        prompts,
        tokens,
        positions,
        sites,
        [first for first, _ in likeliest] if targets is None else targets,
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
    allocate: Allocator = in_memory,
) -> Shard:
    """Run one chunk of prompts, and collect its activations for `join_shards`.

    Args:
        batches: the chunk's, as for `collect_clean_activations`.

    Returns:
        `[row, columns]` by the label of each site, and `[prompt, 2]` the two most likely next tokens.
    """
    row = _row_index(positions)
    rows = _rows_of_chunk(row, chunk)
    values = {site: allocate(len(rows), model.site_width(site), model.site_dtype(site)) for site in sites}
    likeliest = torch.zeros(len(chunk), 2, dtype=torch.long)
    for batch in batches:
        here = [
            (number, offset, index) for number, index in enumerate(batch) for offset in np.flatnonzero(row[index] >= 0)
        ]
        numbers = torch.tensor([*range(len(batch)), *(number for number, _, _ in here)])
        ends = [len(tokens[index]) - 1 for index in batch]
        at = torch.tensor([*ends, *(positions[index].end - 1 - int(offset) for _, offset, index in here)])
        found = run(batch, numbers, at)
        to = torch.tensor([row[index, offset] - rows.start for _, offset, index in here])
        for site in sites:
            values[site][to] = found.values[site][len(batch) :].cpu()
        with torch.no_grad():
            logits = model.unembedded(found.normed[: len(batch)])
        likeliest[torch.tensor(batch) - chunk.start] = _two_likeliest(logits).cpu()
    return {_LIKELIEST: likeliest, **{str(site): values[site] for site in sites}}


def join_shards(
    model: LanguageModel,
    prompts: Sequence[Prompt],
    tokens: Sequence[Sequence[int]],
    positions: Sequence[AblationPositions],
    sites: Sequence[Component],
    shards: Iterable[tuple[range, Shard]],
    targets: Sequence[int] | None = None,
    allocate: Allocator = in_memory,
) -> CleanActivations:
    """Join the shards of all chunks to the same result as `collect_clean_activations`."""
    row, likeliest = _row_index(positions), [[0, 1]] * len(prompts)
    values = {site: allocate(int(row.max()) + 1, model.site_width(site), model.site_dtype(site)) for site in sites}
    for chunk, shard in shards:
        rows = _rows_of_chunk(row, chunk)
        for site in sites:
            values[site][rows.start : rows.stop] = shard[str(site)]
        likeliest[chunk.start : chunk.stop] = shard[_LIKELIEST].tolist()
    targets = [first for first, _ in likeliest] if targets is None else targets
    return CleanActivations(model, prompts, tokens, positions, sites, targets, values, row, likeliest)


def _two_likeliest(logits: Float[Tensor, "prompt vocabulary"]) -> Int[Tensor, "prompt 2"]:
    """Return the two most likely tokens; of equal ones the first, as argmax does."""
    first = logits.argmax(-1, keepdim=True)
    return torch.cat([first, logits.scatter(-1, first, -torch.inf).argmax(-1, keepdim=True)], -1)


#: The name of the most likely next tokens in a shard.
_LIKELIEST = "likeliest"


def _row_index(positions: Sequence[AblationPositions]) -> Int[np.ndarray, "prompt offset"]:
    """Number the positions of each prompt that correspond to an ablated one of any prompt."""
    offsets = sorted({offset for each in positions for offset in each.offsets})
    row = np.full((len(positions), offsets[-1]), -1)
    kept = [(index, offset) for index, each in enumerate(positions) for offset in offsets if each.has([offset])]
    for number, (index, offset) in enumerate(kept):
        row[index, offset - 1] = number
    return row


def _rows_of_chunk(row: np.ndarray, chunk: range) -> range:
    """Return the rows of a chunk's prompts, which are consecutive."""
    rows = row[chunk]
    return range(int(rows[rows >= 0].min()), int(rows.max()) + 1)


def padded_positions(positions: Sequence[AblationPositions], prompts: Sequence[int]) -> Int[np.ndarray, "prompt slot"]:
    """Return ablated positions from the start; a prompt with fewer repeats its last."""
    return _pad([positions[index].positions for index in prompts])


def _pad(each: Sequence[Sequence[int]]) -> Int[np.ndarray, "prompt slot"]:
    longest = max(map(len, each))
    return np.array([[*values, *[values[-1]] * (longest - len(values))] for values in each])


def _reduce(values: Float[Tensor, "row columns"], statistic: Statistic) -> Float[Tensor, "columns"]:
    """Return a statistic over rows, computed in float32 or wider.

    Where no position is ablated, there are no rows: the result is NaN, and never read.
    """
    if not len(values):
        return values.new_full(values.shape[1:], torch.nan)
    return statistic(values.to(wider(values.dtype))).to(values.dtype)
