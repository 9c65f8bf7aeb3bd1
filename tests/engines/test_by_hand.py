"""Heads and neurons of a GPT-2 written out in plain matrix products: it shares with the engines nothing but weights."""

from dataclasses import dataclass

import pytest
import torch
from asked import heads, request
from tiny import shared
from torch import Tensor

from hydrascope.components.component import Component
from hydrascope.engines import ENGINES, Request
from hydrascope.models.language_model import LanguageModel

HEADS, WIDTH = 4, 8

#: Per block and position, which columns of the input of which projection are set to what.
Overrides = dict[tuple[str, int], tuple[int, slice, Tensor]]


@dataclass
class Seen:
    """What a run shows at the last position.

    Attributes:
        written: by label, what sublayers, heads and neurons add to the residual stream.
        values: by `head.L` and `neuron.L`, what stands before the projections, at every position.
        final: the residual stream before the final norm.
        logits: the centred logits.
    """

    written: dict[str, Tensor]
    values: dict[str, Tensor]
    final: Tensor
    logits: Tensor


@torch.no_grad()
def gpt2(model: LanguageModel, tokens: list[int], overrides: Overrides | None = None) -> Seen:
    """A forward pass of one prompt; `overrides` replace values before `head.L`'s and `neuron.L`'s projections."""
    weights, overrides = model.hf.state_dict(), overrides or {}
    written, values = {}, {}

    def linear(hidden: Tensor, name: str) -> Tensor:
        return hidden @ weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def norm(hidden: Tensor, name: str) -> Tensor:
        centred = hidden - hidden.mean(-1, keepdim=True)
        scale = (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return centred / scale * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def projected(value: Tensor, site: str, block: int, name: str, width: int) -> Tensor:
        if (site, block) in overrides:
            position, columns, new = overrides[site, block]
            value = value.clone()
            value[position, columns] = new
        values[f"{site}.{block}"] = value
        weight = weights[f"{name}.weight"]
        for unit in range(value.shape[1] // width):
            columns = slice(unit * width, (unit + 1) * width)
            written[f"{site}.{block}.{unit}"] = value[-1, columns] @ weight[columns]
        return linear(value, name)

    def attention(hidden: Tensor, layer: int) -> Tensor:
        query, key, value = linear(hidden, f"transformer.h.{layer}.attn.c_attn").chunk(3, -1)
        each = []
        for head in range(HEADS):
            q, k, v = (part[:, head * WIDTH : (head + 1) * WIDTH] for part in (query, key, value))
            scores = q @ k.T / WIDTH**0.5
            scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -torch.inf)
            each.append(scores.softmax(-1) @ v)
        return projected(torch.cat(each, -1), "head", layer, f"transformer.h.{layer}.attn.c_proj", WIDTH)

    def mlp(hidden: Tensor, layer: int) -> Tensor:
        wide = linear(hidden, f"transformer.h.{layer}.mlp.c_fc")
        gelu = 0.5 * wide * (1 + ((2 / torch.pi) ** 0.5 * (wide + 0.044715 * wide**3)).tanh())
        return projected(gelu, "neuron", layer, f"transformer.h.{layer}.mlp.c_proj", 1)

    stream = weights["transformer.wte.weight"][tokens] + weights["transformer.wpe.weight"][: len(tokens)]
    for layer in range(3):
        for kind, part, before in (("attn", attention, "ln_1"), ("mlp", mlp, "ln_2")):
            added = part(norm(stream, f"transformer.h.{layer}.{before}"), layer)
            written[f"{kind}.{layer}"] = added[-1]
            stream = stream + added
    logits = norm(stream[-1], "transformer.ln_f") @ weights["transformer.wte.weight"].T
    return Seen(written, values, stream[-1], logits - logits.mean())


def sigma(stream: Tensor) -> Tensor:
    return ((stream - stream.mean()).square().mean() + 1e-5).sqrt()


def check(model: LanguageModel, asked: Request, engine: str) -> None:
    """Every reading of every run, prompt and patch of `asked`, whose runs ablate one head or neuron at one position."""
    readings = ENGINES[engine](model, asked)
    weights = model.hf.state_dict()
    labels = [str(component) for component in (*model.sublayers, *asked.units)]

    def same(found: Tensor, expected: Tensor) -> None:
        torch.testing.assert_close(found, torch.as_tensor(expected), rtol=1e-10, atol=1e-10)

    for prompt, tokens in enumerate(asked.tokens):
        target, position = int(asked.targets[prompt]), int(asked.positions[prompt, 0])
        unembedding = weights["transformer.wte.weight"]
        direction = weights["transformer.ln_f.weight"] * (unembedding[target] - unembedding.mean(0))
        constant = weights["transformer.ln_f.bias"] @ (unembedding[target] - unembedding.mean(0))

        def read(vector: Tensor, scale: Tensor, direction: Tensor = direction) -> Tensor:
            return (vector - vector.mean()) @ direction / scale

        clean = gpt2(model, tokens)
        scale = sigma(clean.final)
        same(readings.logit[0, prompt], clean.logits[target])
        for place, label in enumerate(labels):
            same(readings.unembed[0, prompt, place], read(clean.written[label], scale))
        for number, override in enumerate(asked.overrides):
            (component,) = override.ablated
            columns = slice(component.unit * WIDTH, (component.unit + 1) * WIDTH)
            if component.kind == "neuron":
                columns = slice(component.unit, component.unit + 1)
            for patch in range(asked.patches):
                value = asked.values(component)[prompt, patch, 0]
                key = (component.kind, component.block)
                after = gpt2(model, tokens, {key: (position, columns, value)})
                here = (0, prompt, number, patch)
                same(readings.logit_ablated[here], after.logits[target])
                same(readings.scale[here[1:]], scale / sigma(after.final))
                for place, label in enumerate(labels):
                    same(readings.unembed_ablated[here][place], read(after.written[label], scale))
                delta = torch.zeros(32, dtype=torch.float64)
                if position == len(tokens) - 1:
                    delta = after.written[str(component)] - clean.written[str(component)]
                for found, stream in (
                    (readings.logit_direct, clean.final + delta),
                    (readings.logit_indirect, after.final - delta),
                ):
                    same(found[here], read(stream, sigma(stream)) + constant)


@pytest.mark.parametrize("engine", ENGINES)
def test_heads_at_an_earlier_position(engine):
    model = shared("gpt2")
    assert (len(heads(model)), model.width) == (12, 32)
    check(model, request(model, ["head.0.2", "head.1.0", "head.2.3"], (7, 2, 5), "middle", units=heads(model)), engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_neurons_at_the_last(engine):
    model = shared("gpt2")
    siblings = model.units(Component(1, "mlp"))
    check(model, request(model, ["neuron.0.7", "neuron.1.40", "neuron.2.127"], (6, 1), units=siblings), engine)


def test_the_model_written_out_is_the_model():
    model = shared("gpt2")
    with model.measuring():
        logits = model.hf(torch.tensor([[5, 6, 7, 60]])).logits[0, -1]
    torch.testing.assert_close(gpt2(model, [5, 6, 7, 60]).logits, logits - logits.mean(), rtol=1e-12, atol=1e-12)
