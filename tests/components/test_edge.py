"""Edges, their labels and their order, on models of which nothing but the shape is there."""

import pytest
from tiny import shared

from hydrascope.components.component import Component
from hydrascope.components.edge import EMBED, EVERYTHING, Edge, Reader, exists, gap_after, parse_reader, source_label
from hydrascope.utils.errors import HydrascopeError

#: A sequential model, and a parallel one; of 3 blocks with 4 heads each.
CASES = ("llama", "gpt_neox")


@pytest.mark.parametrize(
    ("label", "expected", "sublayer", "inputs"),
    [
        ("attn.1", "attn.1", "attn.1", []),
        ("mlp.0", "mlp.0", "mlp.0", []),
        ("query.1.2", "query.1.2", "attn.1", ["query.1.2"]),
        ("head.1.2.query", "query.1.2", "attn.1", ["query.1.2"]),
        ("head.0.3.key", "key.0.3", "attn.0", ["key.0.3"]),
        ("head.2.0.value", "value.2.0", "attn.2", ["value.2.0"]),
        ("group.1.0.key", "group.1.0.key", "attn.1", ["key.1.0", "key.1.1"]),
        ("group.2.1.value", "group.2.1.value", "attn.2", ["value.2.2", "value.2.3"]),
        ("group.02.1.value", "group.2.1.value", "attn.2", ["value.2.2", "value.2.3"]),
        ("blocks.1.attn.hook_q[2]", "query.1.2", "attn.1", ["query.1.2"]),
        ("blocks.1.hook_mlp_out", "mlp.1", "mlp.1", []),
    ],
)
def test_readers(label: str, expected: str, sublayer: str, inputs: list[str]) -> None:
    reader = parse_reader(shared("llama"), label, 2)
    assert (str(reader), str(reader.sublayer), list(map(str, reader.inputs))) == (expected, sublayer, inputs)


def test_the_logits_are_read_by_no_sublayer() -> None:
    assert parse_reader(shared("llama"), "logits", 2) == Reader("logits")


def test_groups_of_one_and_of_all() -> None:
    assert parse_reader(shared("llama"), "group.1.3.key", 4).inputs == (Component(1, "key", 3),)
    assert len(parse_reader(shared("llama"), "group.1.0.value", 1).inputs) == 4


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ("attn.3", "llama has no attn.3: its blocks are 0 to 2"),
        ("query.3.0", "llama has no query.3.0: its blocks are 0 to 2"),
        ("head.1.4.key", "llama has no key.1.4: its heads there are head.1.0 to head.1.3"),
        ("group.1.2.key", "llama has no group.1.2.key: attn.1 has groups 0 to 1"),
        ("group.3.0.key", "llama has no group.3.0.key: its blocks are 0 to 2"),
        ("group.1.0.query", "'group.1.0.query' is no component of a model"),
        ("head.1.0", "head.1.0 reads no residual stream: name sublayers, query.L.H"),
        ("neuron.1.0", "neuron.1.0 reads no residual stream"),
        ("feature.mlp.1.0", "feature.mlp.1.0 reads no residual stream"),
        ("everything", "'everything' is no component of a model"),
        ("embed", "'embed' is no component of a model"),
        ("query.1", "query.1"),
        ("", "'' is no component of a model"),
    ],
)
def test_what_reads_nothing_is_refused(label: str, said: str) -> None:
    with pytest.raises(HydrascopeError) as caught:
        parse_reader(shared("llama"), label, 2)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("case", CASES)
def test_a_reader_is_downstream_by_its_place_in_the_block(case: str) -> None:
    """Attention, then the MLP; side by side where blocks are parallel."""
    model = shared(case)
    place = {sublayer: 2 * sublayer.block + (sublayer.kind == "mlp") for sublayer in model.sublayers}
    if case == "gpt_neox":
        place = {sublayer: sublayer.block for sublayer in model.sublayers}
    for source in model.sublayers:
        for unit in (source, Component(source.block, "head", 1)) if source.kind == "attn" else (source,):
            for sublayer in model.sublayers:
                edge = Edge(unit, parse_reader(model, str(sublayer), 2))
                assert exists(model, edge) == (place[sublayer] > place[source]), edge
                if sublayer.kind == "attn":
                    inputs = parse_reader(model, f"key.{sublayer.block}.0", 2)
                    assert exists(model, Edge(unit, inputs)) == exists(model, edge)
            assert exists(model, Edge(unit, Reader("logits")))
            assert exists(model, Edge(unit, Reader(EVERYTHING)))
    for sublayer in model.sublayers:
        assert exists(model, Edge(EMBED, parse_reader(model, str(sublayer), 2)))


def test_the_stream_holds_what_a_source_writes_from_its_place_on() -> None:
    sources = [EMBED, Component(0, "attn"), Component(0, "head", 2), Component(0, "mlp"), Component(2, "mlp")]
    assert [gap_after(shared("llama"), each) for each in sources] == [0, 1, 1, 2, 6]
    assert [gap_after(shared("gpt_neox"), each) for each in sources] == [0, 2, 2, 2, 6]


def test_labels_of_sources() -> None:
    assert [source_label(each) for each in (EMBED, Component(3, "attn"), Component(2, "head", 1))] == [
        "embed",
        "attn.3",
        "head.2.1",
    ]
