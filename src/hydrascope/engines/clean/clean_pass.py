"""Run prompts without an ablation, and take activations at sites and positions."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hydrascope.components.component import Component
from hydrascope.models.attached_dictionary import AttachedDictionary
from hydrascope.models.batching import batchable, padded
from hydrascope.models.hooks import Handle, by_prompt, hooked, on_dictionary, on_input, on_output, on_site
from hydrascope.models.language_model import LanguageModel
from hydrascope.utils.errors import HydrascopeError


@dataclass(frozen=True)
class CleanPass:
    """Activations of a clean pass, at one position of each prompt or at several.

    Attributes:
        values: per site `[position, columns]` the activations there.
        embed: `[position, width]` e, the residual stream before the first block.
        final: `[position, width]` z, the residual stream before the final norm.
        normed: `[position, width]` the output of the final norm.
    """

    values: dict[Component, Float[Tensor, "position columns"]]
    embed: Float[Tensor, "position width"]
    final: Float[Tensor, "position width"]
    normed: Float[Tensor, "position width"]

    def __getitem__(self, positions: slice) -> "CleanPass":
        """Copy the activations at some of the positions into memory of their own."""
        return self._map(lambda each: each[positions].clone())

    def in_order(self, order: Int[Tensor, "position"]) -> "CleanPass":
        """Return the same activations with the positions in another order."""
        return self._map(lambda each: each[order.to(each.device)])

    def _map(self, change: Callable[[Tensor], Tensor]) -> "CleanPass":
        values = {site: change(each) for site, each in self.values.items()}
        return CleanPass(values, change(self.embed), change(self.final), change(self.normed))

    @classmethod
    def concatenate(cls, passes: Sequence["CleanPass"]) -> "CleanPass":
        """Concatenate passes that have activations at the same sites."""
        values = {site: torch.cat([each.values[site] for each in passes]) for site in passes[0].values}
        return cls(values, *(torch.cat([getattr(each, name) for each in passes]) for name in _STREAMS))

    def written(self, model: LanguageModel) -> Float[Tensor, "position sublayer width"]:
        """Return y_c, which each sublayer adds to the residual stream."""
        return torch.stack([self.values[sublayer] for sublayer in model.sublayers], 1) * model.residual_scale

    def logits(self, model: LanguageModel) -> Float[Tensor, "position vocabulary"]:
        """Return the model's logits, before any final soft-cap."""
        return model.unembedded(self.normed)


#: The fields of a clean pass that are residual streams.
_STREAMS = ("embed", "final", "normed")


def compute_clean_pass(
    model: LanguageModel, tokens: Sequence[Sequence[int]], sites: Collection[Component] | None = None
) -> CleanPass:
    """Run prompts of any lengths, and take activations at each one's final position.

    Args:
        sites: all sublayers by default.

    Raises:
        HydrascopeError: a sublayer's output doesn't fit the residual stream, so the anatomy is wrong; or the model
            doesn't call its modules.
    """
    last = torch.tensor([len(prompt) - 1 for prompt in tokens])
    return compute_clean_pass_at(
        model, tokens, torch.arange(len(tokens)), last, model.sublayers if sites is None else sites
    )


def compute_clean_pass_at(
    model: LanguageModel,
    tokens: Sequence[Sequence[int]],
    prompts: Int[Tensor, "position"],
    positions: Int[Tensor, "position"],
    sites: Collection[Component],
) -> CleanPass:
    """Run prompts of any lengths as if alone, and take activations at `positions` of `prompts`.

    Raises:
        HydrascopeError: a sublayer's output doesn't fit the residual stream, so the anatomy is wrong.
    """
    groups = batchable(model, tokens)
    if len(groups) == 1:
        return compute_one_batch_at(model, tokens, prompts, positions, sites)
    passes, order = [], []
    for group in groups:
        batch = [tokens[index] for index in group]
        number = {index: place for place, index in enumerate(group)}
        here = torch.tensor(
            [place for place, index in enumerate(prompts.tolist()) if index in number], dtype=torch.long
        )
        numbers = torch.tensor([number[index] for index in prompts[here].tolist()], dtype=torch.long)
        passes.append(compute_one_batch_at(model, batch, numbers, positions[here], sites))
        order.append(here)
    return CleanPass.concatenate(passes).in_order(torch.cat(order).argsort())


def compute_one_batch_at(
    model: LanguageModel,
    tokens: Sequence[Sequence[int]],
    prompts: Int[Tensor, "position"],
    positions: Int[Tensor, "position"],
    sites: Collection[Component],
    before: int = 0,
) -> CleanPass:
    """Do the same with prompts that may share a batch, padded on the right.

    Args:
        model: the model.
        tokens: the token ids of each prompt.
        prompts: the prompts of which activations are taken.
        positions: the positions, counted from the first in `tokens`.
        sites: the sites.
        before: the number of positions before, which the model's attention must see already (`causal_attention`).

    Raises:
        HydrascopeError: besides, the prompts may not share a batch.
    """
    ids, _ = padded(model, tokens)
    kept: dict[Component | str, Tensor] = {}

    def keep(name: Component | str, hidden: Tensor) -> None:
        chosen = prompts.to(hidden.device), positions.to(hidden.device)
        # A copy: some blocks go on to write into the tensors they have read.
        kept[name] = by_prompt(hidden, len(tokens))[chosen].clone().to(model.device)

    def keep_terms(attached: AttachedDictionary, x: Tensor, standing: Tensor) -> None:
        chosen = prompts.to(standing.device), positions.to(standing.device)
        terms = attached.terms(x[chosen].to(model.device), standing[chosen].to(model.device))
        for site in attached.term_sites:
            kept[site] = terms[site.kind].clone()  # type: ignore[index]

    def hooks() -> Iterator[Handle]:
        yield on_input(model.blocks[0], partial(keep, "embed"))
        yield on_input(model.final_norm, partial(keep, "final"))
        yield on_output(model.final_norm, partial(keep, "normed"))
        for site in sites:
            if not site.is_term:
                yield on_site(model, site, partial(keep, site))
        for home in dict.fromkeys(site.sublayer for site in sites if site.is_term):
            attached = model.dictionaries[home]
            yield from on_dictionary(model, attached, len(tokens), partial(keep_terms, attached))

    inputs = {"input_ids": ids, "attention_mask": ids.new_ones(len(ids), before + ids.shape[1]), "use_cache": False}
    if before:
        inputs["position_ids"] = torch.arange(before, before + ids.shape[1], device=ids.device).expand_as(ids)
    with model.measuring(), hooked(hooks()):
        model.hf.base_model(**inputs)
    for site in sites:
        if site not in kept:
            raise HydrascopeError(
                f"{model.name} never calls the module that {site} is read from, but uses its weights in another way "
                "(as Bloom does with slow_but_exact=True): it can't be measured so"
            )
        if site.sublayer == site and kept[site].shape != kept["embed"].shape:
            raise HydrascopeError(
                f"{site} of {model.name} writes {kept[site].shape[-1]} numbers a position and the residual "
                f"stream has {model.width}: its anatomy ({model.config.model_type}) names another module's output"
            )
    return CleanPass({site: kept[site] for site in sites}, kept["embed"], kept["final"], kept["normed"])
