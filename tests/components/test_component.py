"""Labels, selections and runs: what they mean, their order, and one clear line for everything that they can't be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import shared

from hydrascope.components.component import Component, Override
from hydrascope.components.order import downstream
from hydrascope.components.selection import select_components, select_overrides
from hydrascope.utils.errors import HydrascopeError

layers = st.builds(Component, st.integers(0, 99), st.sampled_from(["attn", "mlp"]))
units = st.builds(Component, st.integers(0, 99), st.sampled_from(["head", "neuron"]), st.integers(0, 9999))
components = st.one_of(layers, units)
runs = st.builds(
    Override, st.lists(components, min_size=1, max_size=4).map(tuple), st.lists(components, max_size=3).map(tuple)
)


@given(components)
def test_a_component_is_its_label(component):
    assert Component.parse(str(component)) == component
    assert component.is_unit == (component.kind in ("head", "neuron"))
    assert not component.sublayer.is_unit
    assert component.sublayer.block == component.site.block == component.block
    assert component.sublayer.kind == {"head": "attn", "neuron": "mlp"}.get(component.kind, component.kind)
    assert str(component.site) == f"{component.kind}.{component.block}"


@given(runs)
def test_a_run_is_its_label(run):
    assert Override.parse(str(run)) == run
    assert run.overridden == run.ablated + run.frozen


def test_labels_as_they_are_written():
    assert str(Component(9, "head", 6)) == "head.9.6"
    assert str(Override((Component(3, "attn"), Component(5, "mlp")))) == "attn.3+mlp.5"
    assert str(Override((Component(3, "attn"),), (Component(5, "mlp"), Component(6, "attn")))) == "attn.3|mlp.5|attn.6"
    # Several frozen may be joined by either sign.
    assert Override.parse("attn.3|mlp.5+attn.6") == Override.parse("attn.3|mlp.5|attn.6")


@pytest.mark.parametrize(
    "label",
    [
        *("", "attn", "attn.", "attn.x", "attn.-1", "attn.1.2", "attn.1.5e0", "mlp.1.0", "ATTN.1", "attn 1", "attn.1 "),
        *("head.1", "head.1.", "head.1.2.3", "head.1.-2", "neuron.1", "neuron.1.1.1", "layer.1", "head.9,6"),
    ],
)
def test_what_is_no_component(label):
    with pytest.raises(
        HydrascopeError, match=r"is no component of a model: write attn\.L, mlp\.L, head\.L\.H or neuron"
    ):
        Component.parse(label)


@pytest.mark.parametrize("label", ["", "attn.1+", "+attn.1", "attn.1|", "|attn.1", "attn.1||mlp.1", "attn.1|+mlp.1"])
def test_what_is_no_run(label):
    with pytest.raises(HydrascopeError, match="'' is no component of a model"):
        Override.parse(label)


def labels(selection, case: str = "llama") -> list[str]:
    return [str(override) for override in select_overrides(shared(case), selection)]


def test_selections_in_words():
    order = ["attn.0", "mlp.0", "attn.1", "mlp.1", "attn.2", "mlp.2"]
    assert labels("layers") == order
    assert labels("attn") == order[::2]
    assert labels("mlp") == order[1::2]
    assert labels("heads") == [f"head.{block}.{head}" for block in range(3) for head in range(4)]
    assert labels("heads.1") == [f"head.1.{head}" for head in range(4)]
    assert labels("neurons.2") == [f"neuron.2.{neuron}" for neuron in range(48)]
    assert labels("neurons") == [f"neuron.{block}.{neuron}" for block in range(3) for neuron in range(48)]
    assert labels("head.2.3") == ["head.2.3"]
    assert labels(" mlp.1 , attn.0+mlp.1, head.0.1|mlp.2 ") == ["mlp.1", "attn.0+mlp.1", "head.0.1|mlp.2"]


def test_the_order_is_the_one_given_and_each_comes_once():
    assert labels("mlp.2,attn.0,mlp.2") == ["mlp.2", "attn.0"]
    assert labels(["heads.1", "head.1.0", "attn"]) == [*labels("heads.1"), *labels("attn")]
    assert labels(("attn.0+mlp.1", "mlp.1+attn.0")) == ["attn.0+mlp.1", "mlp.1+attn.0"]


def test_selections_in_python_are_those_in_words():
    head, mlp = Component(1, "head", 2), Component(2, "mlp")
    assert labels(head) == ["head.1.2"]
    assert labels(Override((head,), (mlp,))) == ["head.1.2|mlp.2"]
    assert labels([head, "attn.0", Override((head, mlp))]) == ["head.1.2", "attn.0", "head.1.2+mlp.2"]
    assert labels(component for component in (head, mlp)) == ["head.1.2", "mlp.2"]
    assert select_components(shared("llama"), ["heads.1", mlp]) == (*shared("llama").units(Component(1, "attn")), mlp)


def test_what_is_read_are_single_components():
    with pytest.raises(HydrascopeError, match=r"attn\.0\+mlp\.1 overrides several components: name them one by one"):
        select_components(shared("llama"), "attn.0+mlp.1")
    with pytest.raises(HydrascopeError, match=r"attn\.0\|mlp\.1 overrides several components"):
        select_components(shared("llama"), "attn.0|mlp.1")


@pytest.mark.parametrize(
    ("case", "selection", "message"),
    [
        ("llama", "", "'' is no component of a model: write layers, attn, mlp, heads, neurons.L, or attn.L"),
        ("llama", [], "nothing is selected: name at least one component"),
        ("llama", "attn.0,,mlp.1", "'' is no component"),
        ("llama", "everything", "'everything' is no component of a model: write layers"),
        ("llama", "layers.1", "'layers.1' is no component"),
        ("llama", "attns", "'attns' is no component"),
        ("llama", "heads.x", "'heads.x' is no component"),
        ("llama", "heads.", "'heads.' is no component"),
        ("llama", "heads.1.2", "'heads.1.2' is no component"),
        ("llama", "head.1", "'head.1' is no component"),
        ("llama", "attn.0 mlp.1", "'attn.0 mlp.1' is no component"),
        ("llama", "attn.3", "llama has no attn.3: its blocks are 0 to 2"),
        ("llama", Component(-1, "mlp"), "llama has no mlp.-1: its blocks are 0 to 2"),
        ("llama", "head.99.0", "llama has no head.99.0: its blocks are 0 to 2"),
        ("llama", "heads.99", "llama has no attn.99: its blocks are 0 to 2"),
        ("llama", "neurons.3", "llama has no mlp.3: its blocks are 0 to 2"),
        ("llama", "head.0.99", "llama has no head.0.99: attn.0 has head.0.0 to head.0.3"),
        ("llama", "neuron.0.48", "llama has no neuron.0.48: mlp.0 has neuron.0.0 to neuron.0.47"),
        ("llama", Component(0, "attn", 1), "llama has no attn.0.1"),
        ("llama", Component(0, "head"), "llama has no head.0: attn.0 has head.0.0 to head.0.3"),
        ("mixtral", "neuron.1.0", "mlp.1 of mixtral is no dense MLP: its neurons cannot be taken apart"),
        ("mixtral", "neurons", "mlp.0 of mixtral is no dense MLP"),
        ("qwen3_moe", "neurons.0", "mlp.0 of qwen3_moe is no dense MLP"),
        ("llama", "attn.0+attn.0", "attn.0+attn.0 overrides attn.0 twice: name it once"),
        ("llama", "attn.0+mlp.1|mlp.1", "overrides mlp.1 twice"),
        ("llama", "head.0.1+attn.0", "overrides head.0.1 and all of attn.0: choose one of them"),
        ("llama", "attn.0+mlp.1|neuron.1.3", "overrides neuron.1.3 and all of mlp.1"),
        (
            "llama",
            "attn.1|mlp.0",
            "attn.1|mlp.0 freezes mlp.0, which isn't downstream of what is ablated: leave it out",
        ),
        ("llama", "head.1.0|head.1.1", "freezes head.1.1, which isn't downstream of what is ablated"),
        ("gpt_neox", "attn.1|mlp.1", "freezes mlp.1, which isn't downstream of what is ablated"),
        ("llama", "attn.0|", "'' is no component"),
        ("llama", Override(()), "an override ablates nothing: name at least one component"),
        ("llama", Override((), (Component(1, "mlp"),)), "an override ablates nothing: name at least one component"),
    ],
)
def test_every_mistake_gets_one_line(case, selection, message):
    with pytest.raises(HydrascopeError) as error:
        select_overrides(shared(case), selection)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_mixtures_of_experts_have_heads_and_their_dense_mlps_neurons():
    assert len(labels("heads", "mixtral")) == 12
    assert labels("neurons.1", "qwen3_moe")[-1] == "neuron.1.47"


def follow(case: str, run: str, components: str) -> list[str]:
    model = shared(case)
    parts = select_components(model, components)
    below = downstream(model, Override.parse(run), parts)
    return [str(component) for component, follows in zip(parts, below, strict=True) if follows]


def test_downstream_is_what_comes_later_and_may_respond():
    assert follow("llama", "attn.1", "layers") == ["mlp.1", "attn.2", "mlp.2"]
    assert follow("gpt_neox", "attn.1", "layers") == ["attn.2", "mlp.2"]
    assert follow("llama", "mlp.2", "layers,heads") == []
    assert follow("llama", "head.1.0", "heads.1,attn.1,heads.2,attn.2,neuron.1.3") == [
        *("head.2.0", "head.2.1", "head.2.2", "head.2.3", "attn.2", "neuron.1.3")
    ]
    assert follow("gpt_neox", "head.1.0", "mlp.1,neuron.1.3,mlp.2") == ["mlp.2"]


def test_what_a_run_overrides_does_not_respond():
    assert follow("llama", "attn.0+mlp.1", "layers,neuron.1.0") == ["mlp.0", "attn.1", "attn.2", "mlp.2"]
    assert follow("llama", "attn.0|mlp.1", "mlp.1,neuron.1.0,mlp.2") == ["mlp.2"]
    # Of a sublayer one of whose heads is frozen the others respond, and so the sublayer does; where one is ablated, its
    # change is partly the ablation's own.
    assert follow("llama", "attn.0|head.1.0", "head.1.0,head.1.1,attn.1") == ["head.1.1", "attn.1"]
    assert follow("llama", "attn.0+head.1.0", "head.1.0,head.1.1,attn.1") == ["head.1.1"]


def test_a_block_is_both_of_its_sublayers() -> None:
    model = shared("llama")
    assert str(Override.parse("block.1")) == "attn.1+mlp.1"
    assert str(Override.parse("block.0|mlp.1")) == "attn.0+mlp.0|mlp.1"
    assert [str(each) for each in select_overrides(model, "blocks")] == ["attn.0+mlp.0", "attn.1+mlp.1", "attn.2+mlp.2"]
    assert select_overrides(model, "block.2,block.0-1")[0] == Override.parse("attn.2+mlp.2")
    with pytest.raises(HydrascopeError, match=r"has no attn\.7"):
        select_overrides(model, "block.7")
