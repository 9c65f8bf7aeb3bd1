"""The clean run: what stands at every site when nothing is ablated."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hydrascope.components.component import Component
from hydrascope.models.batching import batchable, padded
from hydrascope.models.hooks import Handle, by_prompt, hooked, on_input, on_output, on_site
from hydrascope.models.language_model import LanguageModel
from hydrascope.utils.errors import HydrascopeError


@dataclass(frozen=True)
class CleanPass:
    """What a clean run leaves at one position of each prompt, or at several.

    Attributes:
        values: per site `[place, columns]`, what stands there.
        embed: `[place, width]` e, the residual stream before the first layer.
        final: `[place, width]` z, the residual stream before the final norm.
        normed: `[place, width]` what the final norm makes of it.
    """

    values: dict[Component, Float[Tensor, "place columns"]]
    embed: Float[Tensor, "place width"]
    final: Float[Tensor, "place width"]
    normed: Float[Tensor, "place width"]

    def __getitem__(self, places: slice) -> "CleanPass":
        """The same at some of the places: in memory of its own."""
        values = {site: each[places].clone() for site, each in self.values.items()}
        return CleanPass(values, *(each[places].clone() for each in (self.embed, self.final, self.normed)))

    def written(self, model: LanguageModel) -> Float[Tensor, "place layer width"]:
        """y_c, what each layer adds to the residual stream."""
        return torch.stack([self.values[sublayer] for sublayer in model.sublayers], 1) * model.residual_scale

    def logits(self, model: LanguageModel) -> Float[Tensor, "place vocabulary"]:
        """The model's logits, before any final soft-cap."""
        return model.unembedded(self.normed)


def compute_clean_pass(
    model: LanguageModel, tokens: Sequence[Sequence[int]], sites: Collection[Component] | None = None
) -> CleanPass:
    """Run prompts of any lengths, and keep what stands at each one's final position; all layers' by default.

    Raises:
        HydrascopeError: a layer's output doesn't fit the residual stream, so the anatomy is wrong.
    """
    last = torch.tensor([len(prompt) - 1 for prompt in tokens])
    return compute_clean_pass_at(
        model, tokens, torch.arange(len(tokens)), last, model.sublayers if sites is None else sites
    )


def compute_clean_pass_at(
    model: LanguageModel,
    tokens: Sequence[Sequence[int]],
    prompts: Int[Tensor, "place"],
    positions: Int[Tensor, "place"],
    sites: Collection[Component],
) -> CleanPass:
    """Run prompts of any lengths, each as if alone, and keep the values at each of the places asked for.

    Raises:
        HydrascopeError: a layer's output doesn't fit the residual stream, so the anatomy is wrong.
    """
    groups = batchable(model, tokens)
    if len(groups) == 1:
        return compute_one_batch_at(model, tokens, prompts, positions, sites)
    group_of = torch.tensor([number for index in range(len(tokens)) for number, g in enumerate(groups) if index in g])
    chosen = [(group_of[prompts] == number).nonzero()[:, 0] for number in range(len(groups))]
    found = [
        compute_one_batch_at(
            model,
            [tokens[index] for index in group],
            torch.tensor([group.index(int(prompt)) for prompt in prompts[places]], dtype=torch.long),
            positions[places],
            sites,
        )
        for group, places in zip(groups, chosen, strict=True)
    ]
    order = torch.cat(chosen).argsort()

    def joined(each: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(each))[order.to(each[0].device)]

    return CleanPass(
        {site: joined([run.values[site] for run in found]) for site in sites},
        *(joined([getattr(run, name) for run in found]) for name in ("embed", "final", "normed")),
    )


def compute_one_batch_at(
    model: LanguageModel,
    tokens: Sequence[Sequence[int]],
    prompts: Int[Tensor, "place"],
    positions: Int[Tensor, "place"],
    sites: Collection[Component],
) -> CleanPass:
    """Run prompts that may share a batch, padded on the right, as `compute_clean_pass_at`.

    Raises:
        HydrascopeError: besides, the prompts may not share a batch.
    """
    ids, _ = padded(model, tokens)
    kept: dict[Component | str, Tensor] = {}

    def keep(name: Component | str, hidden: Tensor) -> None:
        places = prompts.to(hidden.device), positions.to(hidden.device)
        # A copy: some blocks go on to write into the tensors they have read.
        kept[name] = by_prompt(hidden, len(tokens))[places].clone().to(model.device)

    def hooks() -> Iterator[Handle]:
        yield on_input(model.blocks[0], partial(keep, "embed"))
        yield on_input(model.final_norm, partial(keep, "final"))
        yield on_output(model.final_norm, partial(keep, "normed"))
        for site in sites:
            yield on_site(model, site, partial(keep, site))

    with model.measuring(), hooked(hooks()):
        model.hf.base_model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    for site in sites:
        if site.sublayer == site and kept[site].shape != kept["embed"].shape:
            raise HydrascopeError(
                f"{site} of {model.name} writes {kept[site].shape[-1]} numbers a position and the residual "
                f"stream has {model.width}: its anatomy ({model.config.model_type}) names another module's output"
            )
    return CleanPass({site: kept[site] for site in sites}, kept["embed"], kept["final"], kept["normed"])
