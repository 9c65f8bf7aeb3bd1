"""Run rows of one prompt in plain forward passes, with hooks that overwrite components."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

import torch
from torch import Tensor

from hydrascope.components.component import Component, Override
from hydrascope.engines.attention import attention_implementation
from hydrascope.engines.clean.clean_pass import compute_clean_pass_at
from hydrascope.engines.interface import Request
from hydrascope.engines.override_change import sites_of_change, units_site
from hydrascope.engines.readouts import FINAL
from hydrascope.engines.reference.frozen_inputs import freeze_head_inputs
from hydrascope.models.attached_dictionary import AttachedDictionary
from hydrascope.models.hooks import Handle, by_prompt, hooked, on_dictionary, on_input, on_output, on_site
from hydrascope.models.language_model import LanguageModel, wider
from hydrascope.utils.errors import HydrascopeError

#: One row: an override, and the number of the patch of its ablated components.
Row = tuple[Override, int]


def _own_weights(model: LanguageModel, ids: Tensor) -> dict[int, Tensor]:
    """Run a model for the attention weights that it hands on.

    It is one that doesn't attend through transformers' interface.

    Returns:
        each block's weights at the last position, `[row, head, position]`.

    Raises:
        HydrascopeError: the model computes something else when it is asked for weights.
    """
    own = model.hf.base_model(input_ids=ids, use_cache=False).last_hidden_state
    # Falcon's sdpa attention hands on no weights; asked for them, it leaves out the mask.
    with attention_implementation(model, "eager"):
        found = model.hf.base_model(input_ids=ids, use_cache=False, output_attentions=True)
    # Under sdpa Falcon leaves out ALiBi where there is no padding, and eager attention doesn't.
    if (found.last_hidden_state - own).abs().max() > torch.finfo(own.dtype).eps ** 0.5 * own.abs().max():
        raise HydrascopeError(
            f"the attention weights of this {model.config.model_type} can't be read, since its eager attention gives "
            'other outputs than its own: load it with attn_implementation="eager"'
        )
    return {block: weights[:, :, -1].to(wider(weights.dtype)) for block, weights in enumerate(found.attentions)}


@dataclass(frozen=True)
class Pass:
    """The values of one prompt's rows in a forward pass, at the final position.

    Attributes:
        values: `[row, columns]` the activations at each site.
        projected: `[row, width]` the input of the norm after each sublayer that has one.
        own: `[row, width]` the change of the residual stream by its own terms, by `stream.L`.
        before: `[row, slot, columns]` the activations before the override, at the ablated positions.
        at: `[row, position, columns]` the activations at positions that were asked for.
        streams: `[row, width]` the residual stream before each block with a readout, and the final one.
        ends: `[row, position, width]` the final residual stream at the last positions, one or several.
        logits: `[row, vocabulary]` the logits, before any soft-cap.
    """

    values: dict[Component, Tensor]
    projected: dict[Component, Tensor]
    own: dict[Component, Tensor]
    before: dict[Component, Tensor]
    at: dict[Component, Tensor]
    streams: dict[int, Tensor]
    ends: Tensor
    logits: Tensor


@dataclass(frozen=True)
class PromptRows:
    """One prompt of a request, with its clean activations at every position and its patches."""

    model: LanguageModel
    request: Request
    index: int
    sites: tuple[Component, ...]
    clean: dict[Component, Tensor]
    embed: Tensor
    patches: dict[Component, Tensor]

    @classmethod
    def of(cls, model: LanguageModel, request: Request, index: int, watch: Sequence[Component] = ()) -> Self:
        ablated = dict.fromkeys(component for override in request.overrides for component in override.ablated)
        frozen = [
            component for override in request.overrides for component in override.frozen if not component.is_input
        ]
        units = sites_of_change(model, (*request.units, *request.summed, *ablated, *frozen))
        sites = tuple(dict.fromkeys((*model.sublayers, *units, *watch)))
        length = len(request.tokens[index])
        everywhere = torch.arange(length)
        clean = compute_clean_pass_at(model, [request.tokens[index]], torch.zeros_like(everywhere), everywhere, sites)
        patches = {component: request.values(component)[index].to(model.device) for component in ablated}
        return cls(model, request, index, sites, clean.values, clean.embed[-1], patches)

    @property
    def rows(self) -> list[Row]:
        return [(override, patch) for override in self.request.overrides for patch in range(self.request.patches)]

    def weights(self, rows: Sequence[Row]) -> dict[int, Tensor]:
        """Return each block's attention weights at the last position, `[row, head, position]`."""
        kept: dict[int, Tensor] = {}
        self.run_rows(rows, weights=kept)
        return {block: weights.to(self.model.device) for block, weights in kept.items()}

    def run_rows(
        self,
        rows: Sequence[Row],
        ends: int = 1,
        at: Sequence[int] = (-1,),
        weights: dict[int, Tensor] | None = None,
    ) -> Pass:
        """Run copies of the prompt in one forward pass, each with the override of a row.

        Args:
            ends: the number of last positions at which final residual streams are kept.
            at: the positions at which activations of all sites are kept.
            weights: if given, gets each block's attention weights at the last position.
        """
        model, request = self.model, self.request
        values: dict[Component, Tensor] = {}
        before: dict[Component, Tensor] = {}
        kept: dict[Component, Tensor] = {}
        projected: dict[Component, Tensor] = {}
        own: dict[Component, Tensor] = {}
        streams: dict[int, Tensor] = {}
        normed = []

        def visit(site: Component, hidden: Tensor) -> Tensor:
            changed = hidden.clone()
            by_row = by_prompt(changed, len(rows))
            positions = request.positions[self.index].to(by_row.device)
            before[site] = by_row[:, positions].to(model.device)
            for number, (override, patch) in enumerate(rows):
                if site in override.frozen:
                    by_row[number] = self.clean[site]
                    continue
                for component in override.overridden:
                    if component.site != site:
                        continue
                    columns = model.columns(component)
                    if component in override.frozen:
                        by_row[number, :, columns] = self.clean[site][:, columns]
                    else:
                        by_row[number, positions, columns] = self.patches[component][patch].to(by_row.device)
            kept[site] = by_row[:, list(at)].clone().to(model.device)
            values[site] = by_row[:, -1].clone().to(model.device)
            for number, (override, _) in enumerate(rows):
                if site.sublayer in override.frozen:  # a frozen sublayer freezes its units too
                    values[site][number] = self.clean[site][-1]
                    kept[site][number] = self.clean[site][list(at)]
            return changed

        def visit_dictionary(attached: AttachedDictionary, x: Tensor, standing: Tensor) -> Tensor | None:
            positions = request.positions[self.index].to(standing.device)
            terms = attached.terms(x, standing)
            after = terms.clone()
            for site in attached.term_sites:
                before[site] = terms[site.kind][:, positions].to(model.device)  # type: ignore[index]
            for number, (override, patch) in enumerate(rows):
                for component in override.overridden:
                    if component.site not in attached.term_sites:
                        continue
                    there, columns = after[component.kind][number], model.columns(component)  # type: ignore[index]
                    if component in override.frozen:
                        there[:, columns] = self.clean[component.site][:, columns]
                    else:
                        there[positions, columns] = self.patches[component][patch].to(there)
            change = after.change_from(terms, attached.dictionary) / attached.factor
            if attached.home.kind == "stream":
                own[attached.home] = change[:, -1].clone().to(model.device)
            for site in attached.term_sites:
                values[site] = after[site.kind][:, -1].clone().to(model.device)  # type: ignore[index]
                kept[site] = after[site.kind][:, list(at)].clone().to(model.device)  # type: ignore[index]
                for number, (override, _) in enumerate(rows):
                    if attached.home in override.frozen and site in self.clean:
                        values[site][number] = self.clean[site][-1]
                        kept[site][number] = self.clean[site][list(at)]
            # What was kept there stood before its terms were overwritten.
            changed = units_site(attached.home) if attached.declared.place == "heads" else attached.home
            if attached.declared.place.partition(".")[0] != "raw" and changed in values:
                values[changed] += change[:, -1].to(values[changed])
                kept[changed] += change[:, list(at)].to(kept[changed])
            return change

        def keep_projected(sublayer: Component, hidden: Tensor) -> None:
            projected[sublayer] = by_prompt(hidden, len(rows))[:, -1].clone().to(model.device)
            for number, (override, _) in enumerate(rows):
                if sublayer in override.frozen:  # its units write at the clean scale
                    clean = self.clean[units_site(sublayer)][-1]
                    projected[sublayer][number] = model.projection(sublayer).apply(clean)

        def keep(block: int, hidden: Tensor) -> None:
            streams[block] = by_prompt(hidden, len(rows))[:, -ends:].clone().to(model.device)

        def on_terms(attached: AttachedDictionary) -> Iterator[Handle]:
            if any(site in self.sites for site in attached.term_sites):
                yield from on_dictionary(model, attached, len(rows), partial(visit_dictionary, attached))

        def hooks() -> Iterator[Handle]:
            # Readouts before a block see the residual stream with its terms overwritten.
            for home, attached in model.dictionaries.items():
                if home.kind == "stream":
                    yield from on_terms(attached)
            for block in request.readouts.blocks:
                yield on_input(model.blocks[block], partial(keep, block))
            yield on_input(model.final_norm, partial(keep, FINAL))
            yield on_output(model.final_norm, lambda hidden: normed.append(by_prompt(hidden, len(rows))[:, -1]))
            for site in self.sites:
                if not site.is_term:
                    yield on_site(model, site, partial(visit, site))
            # What stands at a dictionary's site is taken apart once units and sublayers are overridden.
            for home, attached in model.dictionaries.items():
                if home.kind != "stream":
                    yield from on_terms(attached)
            for sublayer in model.sublayers:
                if units_site(sublayer) in self.sites and (norm := model.projection(sublayer).norm) is not None:
                    yield on_input(norm, partial(keep_projected, sublayer))

        ids = torch.tensor([list(request.tokens[self.index])] * len(rows), device=model.device)
        inputs = [[component for component in override.frozen if component.is_input] for override, _ in rows]
        with freeze_head_inputs(model, request.tokens[self.index], inputs, weights), hooked(hooks()):
            if weights is None or model.anatomy.supports_wavefront:
                model.hf.base_model(input_ids=ids, use_cache=False)
            else:
                weights.update(_own_weights(model, ids))
        logits = model.unembedded(normed[0]).to(model.device, wider(model.dtype))
        last = {block: stream[:, -1] for block, stream in streams.items()}
        return Pass(values, projected, own, before, kept, last, streams[FINAL], logits)
