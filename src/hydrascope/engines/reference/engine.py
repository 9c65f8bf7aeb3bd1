"""The reference engine: plain forward passes of whole prompts, with hooks.

It is slow and simple, and works for every model. The wavefront engine is tested against it, and models that the
wavefront engine doesn't support are measured with it. Each prompt runs alone, without padding. Logits are the model's
own, over the whole vocabulary, instead of dot products with a readout's direction. The output of each head and neuron
is computed in full.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial, reduce
from operator import add

import torch
import torch.nn.functional as F
from torch import Tensor

from hydrascope.components.component import Component, Override
from hydrascope.engines.attention import attention_implementation
from hydrascope.engines.clean.clean_pass import compute_clean_pass_at
from hydrascope.engines.feature_sums import FeatureSums
from hydrascope.engines.interface import Readings, Request
from hydrascope.engines.metrics import answer_log_prob, evaluate
from hydrascope.engines.override_change import override_change, sites_of_change, units_site
from hydrascope.engines.readouts import FINAL, Linear, final_scale, is_below
from hydrascope.engines.reference.frozen_inputs import freeze_head_inputs
from hydrascope.engines.whole_answers import add_whole_answers
from hydrascope.models.attached_dictionary import AttachedDictionary
from hydrascope.models.hooks import Handle, by_prompt, hooked, on_dictionary, on_input, on_output, on_site
from hydrascope.models.language_model import LanguageModel, wider
from hydrascope.utils.errors import HydrascopeError

#: The number of rows in one forward pass.
ROWS = 16

#: One row: an override, and the number of the patch of its ablated components.
Row = tuple[Override, int]


@torch.no_grad()
def measure(model: LanguageModel, request: Request) -> Readings:
    """Measure all overrides and patches of `request` by plain forward passes.

    Second passes follow if a metric reads answers of several tokens.
    """
    with model.measuring():
        per_prompt = [_Prompt.of(model, request, prompt).readings() for prompt in range(len(request.tokens))]
    # The prompt dimension follows that of the readout or metric, which `scale` doesn't have.
    prompt_dims = {"scale": 0}
    stacked = {
        field.name: torch.stack([readings[field.name] for readings in per_prompt], prompt_dims.get(field.name, 1))
        for field in fields(Readings)
        if field.name not in ("clean_error", "sums")
    }
    error = torch.stack([readings["clean_error"] for readings in per_prompt]).max()
    readings = Readings(**stacked, clean_error=error, sums=_sums(model, request))
    return add_whole_answers(model, request, readings, _answer_log_probs)


def _sums(model: LanguageModel, request: Request) -> dict[Component, FeatureSums]:
    """Return the sums over prompts of all features of the dictionaries that the request names."""
    found = {}
    with model.measuring():
        for site in request.summed:
            prompts = [_Prompt.of(model, request, prompt, [site]) for prompt in range(len(request.tokens))]
            each = [prompt.feature_sums(site) for prompt in prompts]
            found[site] = reduce(add, each)
    return found


def _answer_log_probs(model: LanguageModel, request: Request) -> tuple[Tensor, Tensor]:
    """Measure log p of whole answers; see `whole_answers.Measure`."""
    clean, ablated = [], []
    with model.measuring():
        for index, answer in enumerate(request.answers):
            prompt = _Prompt.of(model, request, index)
            passes = [[(Override(()), 0)], *_cut(prompt.rows)]
            found = [answer_log_prob(model, prompt.run_rows(rows, len(answer)).ends, answer) for rows in passes]
            clean.append(found[0][0])
            ablated.append(torch.cat(found[1:]).view(len(request.overrides), request.patches))
    return torch.stack(clean), torch.stack(ablated)


def _cut(rows: Sequence[Row]) -> list[Sequence[Row]]:
    """Cut rows into those of each forward pass."""
    return [rows[start : start + ROWS] for start in range(0, len(rows), ROWS)]


@torch.no_grad()
def activations_before_override(
    model: LanguageModel, request: Request, sites: Sequence[Component]
) -> dict[Component, Tensor]:
    """Return the activations at `sites` under each override, before they are overwritten.

    Returns:
        `[prompt, ablated, patch, slot, columns]` for each site.
    """
    activations: dict[Component, list[Tensor]] = {site: [] for site in sites}
    with model.measuring():
        for index in range(len(request.tokens)):
            prompt = _Prompt.of(model, request, index, sites)
            passes = [prompt.run_rows(rows) for rows in _cut(prompt.rows)]
            for site, per_prompt in activations.items():
                before = torch.cat([pass_.before[site] for pass_ in passes])
                per_prompt.append(torch.unflatten(before, 0, (-1, request.patches)))
    return {site: torch.stack(per_prompt) for site, per_prompt in activations.items()}


@torch.no_grad()
def final_streams(model: LanguageModel, request: Request) -> tuple[Tensor, Tensor]:
    """Return the final residual streams; see `Engine.final_streams`."""
    clean, ablated = [], []
    with model.measuring():
        for index in range(len(request.tokens)):
            prompt = _Prompt.of(model, request, index)
            found = [prompt.run_rows(rows).ends[:, -1] for rows in [[(Override(()), 0)], *_cut(prompt.rows)]]
            clean.append(found[0][0])
            ablated.append(torch.cat(found[1:]).unflatten(0, (-1, request.patches)))
    return torch.stack(clean), torch.stack(ablated)


@torch.no_grad()
def ablated_activations(
    model: LanguageModel, request: Request, index: int, sites: Sequence[Component], at: Sequence[int]
) -> dict[Component, Tensor]:
    """Return the activations of one prompt at `sites` and positions `at` in each ablated row.

    Returns:
        `[ablated, patch, position, columns]` for each site, with what overrides write.
    """
    with model.measuring():
        prompt = _Prompt.of(model, request, index, sites)
        passes = [prompt.run_rows(rows, at=at) for rows in _cut(prompt.rows)]
    shape = (len(request.overrides), request.patches)
    return {site: torch.cat([pass_.at[site] for pass_ in passes]).unflatten(0, shape) for site in sites}


@torch.no_grad()
def attention_weights(model: LanguageModel, request: Request, heads: Sequence[Component]) -> tuple[Tensor, Tensor]:
    """Return attention weights; see `Engine.attention_weights`."""
    clean, ablated = [], []
    longest = max(map(len, request.tokens))
    with model.measuring():
        for index, tokens in enumerate(request.tokens):
            prompt = _Prompt.of(model, request, index)
            passes = [prompt.weights(rows) for rows in [[(Override(()), 0)], *_cut(prompt.rows)]]
            chosen = [torch.stack([weights[head.block][:, head.unit] for head in heads], 1) for weights in passes]
            whole = [F.pad(each, (0, longest - len(tokens))) for each in chosen]
            clean.append(whole[0][0])
            ablated.append(torch.cat(whole[1:]).unflatten(0, (-1, request.patches)))
    return torch.stack(clean), torch.stack(ablated)


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
class _Pass:
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
class _Prompt:
    """One prompt of a request, with its clean activations at every position and its patches."""

    model: LanguageModel
    request: Request
    index: int
    sites: tuple[Component, ...]
    clean: dict[Component, Tensor]
    embed: Tensor
    patches: dict[Component, Tensor]

    @classmethod
    def of(cls, model: LanguageModel, request: Request, index: int, watch: Sequence[Component] = ()) -> "_Prompt":
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

    @property
    def readouts(self) -> list[Linear]:
        return list(self.request.readouts.rows)

    def readings(self) -> dict[str, Tensor]:
        """Return the fields of the prompt's `Readings`, without the prompt dimension."""
        model, request = self.model, self.request
        clean = self.run_rows([(Override(()), 0)])
        ablated = [self.run_rows(rows) for rows in _cut(self.rows)]
        final, z = clean.streams[FINAL], torch.cat([pass_.streams[FINAL] for pass_ in ablated])
        sigma, own_sigma = final_scale(model, final), final_scale(model, z)
        delta = torch.stack([self.delta(row) for row in self.rows], 1)
        own = {home: torch.cat([pass_.own[home] for pass_ in ablated]) for home in clean.own}
        shape = (len(request.overrides), request.patches)
        target = int(request.targets[self.index])
        answer = request.answers[self.index] if request.answers else ()
        metrics = [evaluate(model, request.metrics, s, final[0], target, answer) for s in (final, z) if request.metrics]

        def per_readout(read: Callable[[int, Linear], Tensor]) -> Tensor:
            return torch.stack([read(number, readout) for number, readout in enumerate(self.readouts)])

        def written(readout: Linear, values: Tensor) -> Tensor:
            below = torch.tensor([readout.before == FINAL or is_below(c, readout.before) for c in self.components])
            return self.dot(readout, values) * below / (sigma if readout.before == FINAL else 1)

        def logit(readout: Linear, passes: Sequence[_Pass]) -> Tensor:
            if readout.tokens is None:
                return self.read_logit(readout, torch.cat([pass_.streams[readout.before] for pass_ in passes]))
            plus, minus = (None if tokens is None else int(tokens[self.index]) for tokens in readout.tokens)
            logits = torch.cat([pass_.logits for pass_ in passes])
            return logits[:, plus] - (logits[:, minus] if minus is not None else logits.mean(-1))

        def shifted(readout: Linear, passes: Sequence[_Pass], sign: int) -> Tensor:
            here = [readout.before == FINAL or is_below(home, readout.before) for home in self.homes]
            below = delta[here].sum(0)
            streams = torch.cat([pass_.streams[readout.before] for pass_ in passes])
            read = self.read_logit(readout, streams.to(below.dtype) + sign * below)
            # Without a change, the difference would be rounding alone.
            return torch.where((below == 0).all(-1), logit(readout, passes), read).view(shape)

        def rewritten(readout: Linear) -> Tensor:
            there = [each for home, each in own.items() if readout.before == FINAL or is_below(home, readout.before)]
            if not there:
                return sigma.new_zeros(shape)
            read = self.dot(readout, torch.stack(there).sum(0))
            return (read / (sigma if readout.before == FINAL else 1)).view(shape)

        written_clean, written_ablated = self.written(clean), torch.cat([self.written(pass_) for pass_ in ablated])
        unembed = per_readout(lambda _, readout: written(readout, written_clean)[0])
        logits = per_readout(lambda _, readout: logit(readout, [clean])[0])
        read = per_readout(lambda _, readout: self.read_logit(readout, clean.streams[readout.before])[0])
        return {
            "unembed": unembed,
            "embed": per_readout(
                lambda _, readout: self.dot(readout, self.embed) / (sigma[0] if readout.before == FINAL else 1)
            ),
            "logit": logits,
            "unembed_ablated": per_readout(lambda _, readout: written(readout, written_ablated).view(*shape, -1)),
            "logit_ablated": per_readout(lambda _, readout: logit(readout, ablated).view(shape)),
            "logit_direct": per_readout(lambda _, readout: shifted(readout, [clean], 1)),
            "logit_indirect": per_readout(lambda _, readout: shifted(readout, ablated, -1)),
            "own": per_readout(lambda _, readout: rewritten(readout)),
            "scale": (sigma / own_sigma).view(shape),
            "metrics": metrics[0][:, 0] if metrics else sigma.new_zeros(0),
            "metrics_ablated": metrics[1].view(-1, *shape) if metrics else sigma.new_zeros(0, *shape),
            "clean_error": (read - logits).abs().max(),
        }

    def feature_sums(self, site: Component) -> FeatureSums:
        """Return the contributions of all features of a dictionary, and their responses."""
        attached, projection = self.model.dictionaries[site.sublayer], self.model.dictionaries[site.sublayer].projection
        shape = (len(self.request.overrides), self.request.patches)
        passes = [self.run_rows([(Override(()), 0)]), *(self.run_rows(rows) for rows in _cut(self.rows))]
        sigma = final_scale(self.model, passes[0].streams[FINAL])
        code = torch.cat([pass_.values[site] for pass_ in passes])
        if projection is not None and projection.norm is not None:
            scale = projection.scale(torch.cat([pass_.projected[site.sublayer] for pass_ in passes]).to(code.dtype))
            code = code / scale[:, None]
        found = []
        for readout in self.readouts:
            direction = readout.direction[self.index, :, None]
            factor = 1.0 if site.sublayer.kind == "stream" else self.model.residual_scale
            read = (attached.dictionary.decoder @ attached.read_vectors(direction).to(code.dtype))[:, 0] * factor
            through = readout.before == FINAL
            read = read / sigma if through else read * is_below(site, readout.before)
            found.append(code * read)
        clean, ablated = torch.stack(found)[:, 0], torch.stack(found)[:, 1:].unflatten(1, shape)
        response = ablated.mean(2) - clean[:, None]
        return FeatureSums(clean, response, response.abs(), response.square())

    @property
    def components(self) -> tuple[Component, ...]:
        return self.model.sublayers + self.request.units

    @property
    def homes(self) -> tuple[Component, ...]:
        """The sublayers, and the residual streams that have dictionaries."""
        return (*self.model.sublayers, *(home for home in self.model.dictionaries if home.kind == "stream"))

    def dot(self, readout: Linear, vectors: Tensor) -> Tensor:
        return vectors.to(readout.direction.dtype) @ readout.direction[self.index]

    def read_logit(self, readout: Linear, stream: Tensor) -> Tensor:
        """Return the readout of whole residual streams, `[row]`."""
        read = self.dot(readout, stream)
        return (
            read if readout.before != FINAL else read / final_scale(self.model, stream) + readout.constant[self.index]
        )

    def written(self, pass_: _Pass) -> Tensor:
        """Return each component's addition to the residual stream, `[row, component, width]`."""
        wide = wider(self.model.dtype)
        outputs = []
        for component in self.components:
            values = pass_.values[component.site]
            projected = pass_.projected.get(component.sublayer)
            if component.is_unit:
                projection = self.model.projection(component.sublayer)
                values = projection.projected(values[:, projection.columns(component.unit)], component.unit)
                values = values if projected is None else projection.scaled(values, projected)
            elif component.is_term:
                attached = self.model.dictionaries[component.sublayer]
                share = attached.write(component, values[:, self.model.columns(component)])
                values = attached.output(share, projected)
            in_stream = component.sublayer.kind == "stream"
            outputs.append(values.to(wide) * (1 if in_stream else self.model.residual_scale))
        return torch.stack(outputs, 1)

    def delta(self, row: Row) -> Tensor:
        """Return the change of each sublayer's output by a row's override, `[home, width]`.

        It is the change at the final position with everything else clean.
        """
        override, patch = row
        model, wide = self.model, wider(self.model.dtype)
        change = torch.zeros(len(self.homes), model.width, dtype=wide, device=model.device)
        at_last = (self.request.positions[self.index] == len(self.request.tokens[self.index]) - 1).nonzero()
        if not len(at_last):
            return change
        slot = int(at_last[0])
        clean = {site: values[None, -1] for site, values in self.clean.items()}
        for number, home in enumerate(self.homes):
            values = {
                component: self.patches[component][None, patch : patch + 1, slot]
                for component in override.ablated
                if component.sublayer == home
            }
            if not values:
                continue
            for component in override.frozen:
                if component.sublayer == home and not component.is_input:
                    values[component] = clean[component.site][:, None, model.columns(component)]
            scale = 1 if home.kind == "stream" else model.residual_scale
            change[number] = override_change(model, values, clean)[0, 0] * scale
        return change

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
    ) -> _Pass:
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
        return _Pass(values, projected, own, before, kept, last, streams[FINAL], logits)
