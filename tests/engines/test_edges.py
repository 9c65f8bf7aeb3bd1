"""Edges: both engines agree, the books balance, and what holds whatever the numbers, on every architecture."""

from collections.abc import Sequence
from dataclasses import fields, replace
from functools import cache

import pytest
import torch
from asked import request, several_readouts
from rest_slow import rest_slow
from tiny import CONFIGS, shared, tolerance
from torch import Tensor

from hydrascope.components.component import Component, Override
from hydrascope.components.edge import EMBED, EVERYTHING, Edge, Reader, exists, parse_reader
from hydrascope.engines import ENGINES
from hydrascope.engines.clean.clean_pass import compute_clean_pass_at
from hydrascope.engines.edges import EdgeReadings, EdgeRequest
from hydrascope.engines.metrics import resolve_metrics
from hydrascope.engines.readouts import Readouts
from hydrascope.engines.reference.edges import measure_edges as reference
from hydrascope.engines.wavefront.edges import measure_edges as wavefront
from hydrascope.models.float64 import Float64Mode
from hydrascope.models.language_model import LanguageModel

LENGTHS = (6, 3, 1)
PATCHES = 2
PLACES = ("last", "span", "all")

#: Inputs of single heads, and of all heads that share a key or a value; with 4 heads and 2 groups.
INPUTS = ("query.0.3", "query.1.0", "key.1.3", "value.2.1", "value.2.0")
GROUPS = ("group.1.1.key", "group.2.0.value", "group.2.0.key")

#: Cases of which two heads share a key and a value.
WITH_GROUPS = ("llama", "qwen3", "gemma2", "gemma3_text", "granite", "phi3", "starcoder2", "olmo2", "gpt_oss")

each_place = pytest.mark.parametrize(
    ("case", "at"),
    [
        pytest.param(*each.values, at, marks=each.marks if at == PLACES[number % 3] else pytest.mark.slow)
        for number, each in enumerate(rest_slow(CONFIGS, ("llama", "gpt2", "gemma2", "cohere", "mixtral", "gptj")))
        for at in PLACES
    ],
)


def readers_of(model: LanguageModel) -> list[Reader]:
    """Every sublayer and the logits, all of them at once, and inputs of heads where the model has any to see."""
    labels = [*map(str, model.sublayers), "logits"]
    if model.anatomy.supports_wavefront:
        labels += [*INPUTS, *(GROUPS if getattr(model.config, "num_key_value_heads", 0) == 2 else ())]
    return [*(parse_reader(model, label, 2) for label in labels), Reader(EVERYTHING)]


def edges_of(model: LanguageModel) -> list[Edge]:
    sources = [EMBED, *model.sublayers, Component(0, "head", 1), Component(1, "head", 3)]
    every = (Edge(source, reader) for source in sources for reader in readers_of(model))
    return [edge for edge in every if exists(model, edge)]


def asked_of(case: str, at: str, share: float = 1.0, edges: Sequence[Edge] = ()) -> EdgeRequest:
    """Random changes of every source, `share` times as large; all edges where none are given."""
    model = shared(case)
    base = request(model, ["attn.0"], LENGTHS, at, readouts=several_readouts(model, len(LENGTHS)))
    edges = edges or edges_of(model)
    slots = torch.tensor([len(set(each.tolist())) for each in base.positions])
    own = torch.arange(base.positions.shape[1]) < slots[:, None]
    generator = torch.Generator().manual_seed(1)
    shape = (len(LENGTHS), PATCHES, base.positions.shape[1], model.width)
    changes = {
        source: share * torch.randn(shape, generator=generator, dtype=torch.float64) * own[:, None, :, None]
        for source in dict.fromkeys(edge.source for edge in edges)
    }
    metrics = resolve_metrics(["kl", "log_prob"])
    return EdgeRequest(base.tokens, base.positions, edges, PATCHES, changes, base.readouts, metrics, base.targets)


def measure(case: str, asked: EdgeRequest) -> dict[str, EdgeReadings]:
    model = shared(case)
    engines = {"reference": reference} | ({"wavefront": wavefront} if model.anatomy.supports_wavefront else {})
    return {name: engine(model, asked) for name, engine in engines.items()}


@cache
def measured(case: str, at: str) -> tuple[EdgeRequest, dict[str, EdgeReadings]]:
    asked = asked_of(case, at)
    return asked, measure(case, asked)


def assert_close(found: Tensor, expected: Tensor, case: str, said: str, size: float = 0.0) -> None:
    assert found.shape == expected.shape, said
    off = float((found - expected).abs().max()) / (size or max(1.0, float(expected.abs().max())))
    # Not `>` of it, so that a NaN fails.
    assert off <= 3 * tolerance(case), f"{said}: off by {off:.1e}"


@each_place
def test_both_engines_agree(case: str, at: str) -> None:
    _, found = measured(case, at)
    for field in fields(EdgeReadings) if "wavefront" in found else ():
        one, other = (getattr(found[name], field.name) for name in ("wavefront", "reference"))
        assert_close(one, other, case, field.name)


@each_place
def test_the_books_balance(case: str, at: str) -> None:
    asked, found = measured(case, at)
    for readings in found.values():
        share = readings.imbalance(asked.readouts) / readings.size(asked.readouts)
        assert bool((share <= tolerance(case)).all()), f"off by {float(share.max()):.1e}"
        # The balance isn't of nothing.
        moved = (readings.logit_edge - readings.logit[..., None, None]).abs().amax((1, 2, 3))
        assert bool((moved > 0).all())


@each_place
def test_everything_is_a_total_effect_and_logits_a_direct_one(case: str, at: str) -> None:
    """Of the same change, made by the engine of sweeps."""
    model, (asked, found) = shared(case), measured(case, at)
    prompts, slots = asked.positions.shape
    numbers = torch.arange(prompts).repeat_interleave(slots)
    clean = compute_clean_pass_at(model, asked.tokens, numbers, asked.positions.flatten(), model.sublayers)
    own = torch.tensor([len(set(each.tolist())) for each in asked.positions])
    place = torch.arange(slots).minimum(own[:, None] - 1)[:, None, :, None]

    def values(sublayer: Component) -> Tensor:
        whole = clean.values[sublayer].unflatten(0, (prompts, slots))[:, None]
        return (whole + asked.changes[sublayer] / model.residual_scale).take_along_dim(place, 2)

    base = request(model, [Override((each,)) for each in model.sublayers], LENGTHS, at, patches=PATCHES)
    swept = ENGINES["reference"](model, replace(base, values=values, readouts=asked.readouts))
    for readings in found.values():
        size = float(readings.size(asked.readouts).max())
        for row, source in enumerate(model.sublayers):
            for label, expected in ((EVERYTHING, swept.logit_ablated), ("logits", swept.logit_direct)):
                column = numbered(asked, source, label)
                assert_close(readings.logit_edge[:, :, column], expected[:, :, row], case, f"{source} {label}", size)


@each_place
def test_only_the_change_and_its_reader_matter(case: str, at: str) -> None:
    """The same change reaches a reader in the same way from any source, as nothing between them sees it."""
    asked = asked_of(case, at)
    same = replace(asked, changes=dict.fromkeys(asked.changes, asked.changes[EMBED]))
    for readings in measure(case, same).values():
        for column, edge in enumerate(same.edges):
            if edge.reader.label in (EVERYTHING, "logits"):
                continue  # a readout inside the network reads the change if the source is below it
            of_embed = numbered(same, EMBED, edge.reader.label)
            for name in ("logit_edge", "changes", "metrics_edge"):
                one, other = (getattr(readings, name)[:, :, each] for each in (column, of_embed))
                assert_close(one, other, case, f"{name} of {edge.source} → {edge.reader}")


@each_place
def test_readouts_below_a_reader_stay(case: str, at: str) -> None:
    asked, found = measured(case, at)
    for name, readings in found.items():
        for column, edge in enumerate(asked.edges):
            for number, readout in enumerate(asked.readouts.rows):
                sublayer = edge.reader.sublayer
                if sublayer is None or readout.before < 0 or sublayer.block < readout.before:
                    continue
                effect = readings.logit_edge[number, :, column] - readings.logit[number][:, None]
                if name == "wavefront":
                    assert not effect.any()
                assert_close(effect, torch.zeros_like(effect), case, f"{edge.source} → {edge.reader}")


@pytest.mark.parametrize("case", rest_slow(CONFIGS, ("llama", "gemma2", "cohere")))
def test_no_change_has_no_effect(case: str) -> None:
    """Up to rounding, by which rows of one product may differ."""
    for readings in measure(case, asked_of(case, "span", 0.0)).values():
        effect = readings.logit_edge - readings.logit[..., None, None]
        assert_close(effect, torch.zeros_like(effect), case, "an edge")
        assert_close(readings.changes, torch.zeros_like(effect), case, "its terms")
        assert_close(readings.scale, torch.ones_like(readings.scale), case, "the scale")


@pytest.mark.parametrize("case", rest_slow(CONFIGS, ("gpt2", "gemma2", "cohere")))
def test_edges_are_measured_alone_and_in_any_order_alike(case: str) -> None:
    """No row reads another's; prompts, too."""
    asked, found = measured(case, "all")
    several = asked.edges[::-5]
    columns = [asked.edges.index(edge) for edge in several]
    one = replace(
        asked,
        tokens=asked.tokens[1:2],
        positions=asked.positions[1:2, : len(asked.tokens[1])],
        edges=several,
        changes={source: each[1:2, :, : len(asked.tokens[1])] for source, each in asked.changes.items()},
        readouts=of_prompt(asked.readouts, 1),
        targets=asked.targets[1:2],
    )
    for name, readings in measure(case, one).items():
        for field in ("logit_edge", "changes", "metrics_edge"):
            expected = getattr(found[name], field)[:, 1:2, columns]
            assert_close(getattr(readings, field), expected, case, f"{field} of {name}")


def of_prompt(readouts: Readouts, prompt: int) -> Readouts:
    """The readouts of one prompt."""
    here = slice(prompt, prompt + 1)
    rows = [
        replace(row, direction=row.direction[here], constant=row.constant[here], tokens=None) for row in readouts.rows
    ]
    return Readouts(rows)


@pytest.mark.parametrize("case", rest_slow(CONFIGS, ("gemma2", "cohere")))
def test_small_edges_add_up(case: str) -> None:
    """To first order: over all readers to everything, and over single heads to their group and all inputs to attn."""
    model, step = shared(case), 1e-6
    there, back = (asked_of(case, "span", way * step) for way in (1, -1))
    with Float64Mode():
        forward, backward = measure(case, there), measure(case, back)
    for name, readings in forward.items():
        slopes = (readings.logit_edge - backward[name].logit_edge) / (2 * step)
        for source in dict.fromkeys(edge.source for edge in there.edges):
            whole = slopes[:, :, numbered(there, source, EVERYTHING)]
            below = [each for each in map(str, model.sublayers) if numbered(there, source, each) >= 0]
            parts = sum(slopes[:, :, numbered(there, source, label)] for label in [*below, "logits"])
            size = float(slopes.abs().max())
            off = float((parts - whole).abs().max()) / size
            assert off <= 1e-6, f"{name}, {source}: off by {off:.1e}"


@pytest.mark.parametrize("case", rest_slow(WITH_GROUPS, ("llama", "qwen3", "gemma2")))
def test_slopes_of_heads_add_up_to_those_of_their_group(case: str) -> None:
    """And those of all inputs to that of attention; effects of changes that aren't small do not."""
    model, block, step = shared(case), 1, 1e-4
    heads = {kind: [f"{kind}.{block}.{head}" for head in range(4)] for kind in ("query", "key", "value")}
    groups = {f"group.{block}.{g}.{kind}": heads[kind][2 * g : 2 * g + 2] for g in (0, 1) for kind in ("key", "value")}
    sums = {**groups, f"attn.{block}": [label for each in heads.values() for label in each]}
    labels = dict.fromkeys([*sums, *sums[f"attn.{block}"]])
    edges = [Edge(source, parse_reader(model, label, 2)) for source in (EMBED, Component(0, "mlp")) for label in labels]
    with Float64Mode():
        there, back = (measure(case, asked_of(case, "span", way * step, edges)) for way in (1, -1))
        whole = measure(case, asked_of(case, "span", 1.0, edges))
    asked = asked_of(case, "span", 1.0, edges)
    for name in there:
        slopes = (there[name].logit_edge - back[name].logit_edge) / (2 * step)
        effects = whole[name].logit_edge - whole[name].logit[..., None, None]
        for source in (EMBED, Component(0, "mlp")):
            for label, parts in sums.items():
                one, several = numbered(asked, source, label), [numbered(asked, source, part) for part in parts]
                difference = {
                    n: (each[:, :, several].sum(2) - each[:, :, one]) for n, each in enumerate((slopes, effects))
                }
                size = float(slopes[:, :, one].abs().max())
                assert size > 1e-3
                assert float(difference[0].abs().max()) <= 1e-6 * size, f"{name}, {source} → {label}"
                assert float(difference[1].abs().max()) > 1e-5 * size, f"{name}, {source} → {label}"


def numbered(asked: EdgeRequest, source: Component, label: str) -> int:
    """The number of the edge with this source and reader; −1 if there is none."""
    found = [n for n, edge in enumerate(asked.edges) if (edge.source, edge.reader.label) == (source, label)]
    return found[0] if found else -1
