"""The reference engine: plain forward passes of whole prompts, with hooks.

It is slow and simple, and works for every model. The wavefront engine is tested against it, and models that the
wavefront engine doesn't support are measured with it. Each prompt runs alone, without padding. Logits are the model's
own, over the whole vocabulary, instead of dot products with a readout's direction. The output of each head and neuron
is computed in full.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import reduce
from operator import add

import torch
import torch.nn.functional as F
from torch import Tensor

from hydrascope.components.component import Component, Override
from hydrascope.engines.feature_sums import FeatureSums
from hydrascope.engines.interface import Readings, Request, VisitStreams
from hydrascope.engines.metrics import answer_log_prob, evaluate
from hydrascope.engines.override_change import override_change
from hydrascope.engines.readouts import FINAL, Linear, Readouts, final_scale, is_below
from hydrascope.engines.reference.passes import Pass, PromptRows, Row
from hydrascope.engines.whole_answers import add_whole_answers
from hydrascope.models.language_model import LanguageModel, wider

#: The number of rows in one forward pass.
ROWS = 16


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
def visit_streams(model: LanguageModel, request: Request, visit: VisitStreams) -> None:
    """Call `visit` for each block; see `Engine.visit_streams`."""
    nothing = torch.zeros(len(request.tokens), model.width, dtype=wider(model.dtype), device=model.device)
    before = [Linear(nothing, nothing[:, 0], block) for block in range(1, len(model.blocks))]
    asked = replace(request, readouts=Readouts(tuple(before)))  # a pass keeps the streams that readouts read
    clean, ablated = [], []
    with model.measuring():
        for index in range(len(request.tokens)):
            prompt = _Prompt.of(model, asked, index)
            passes = [prompt.run_rows(rows).streams for rows in [[(Override(()), 0)], *_cut(prompt.rows)]]
            clean.append(passes[0])
            ablated.append({block: torch.cat([each[block] for each in passes[1:]]) for block in passes[0]})
    for block in (*range(1, len(model.blocks)), FINAL):
        rows = torch.stack([each[block].unflatten(0, (-1, request.patches)) for each in ablated])
        number = len(model.blocks) if block == FINAL else block
        visit(number, torch.stack([each[block][0] for each in clean]), rows)


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


@dataclass(frozen=True)
class _Prompt(PromptRows):
    """The readings of one prompt of a request."""

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

        def logit(readout: Linear, passes: Sequence[Pass]) -> Tensor:
            if readout.tokens is None:
                return self.read_logit(readout, torch.cat([pass_.streams[readout.before] for pass_ in passes]))
            plus, minus = (None if tokens is None else int(tokens[self.index]) for tokens in readout.tokens)
            logits = torch.cat([pass_.logits for pass_ in passes])
            return logits[:, plus] - (logits[:, minus] if minus is not None else logits.mean(-1))

        def shifted(readout: Linear, passes: Sequence[Pass], sign: int) -> Tensor:
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

    def written(self, pass_: Pass) -> Tensor:
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
