"""GradDrop, against models of which one block is cut out of the backward pass, and by identities."""

import numpy as np
import pytest
import torch
from tiny import shared, tiny
from toward import PROMPTS

import hydrascope as hs
from hydrascope.analyses.attribution import atp, atp_star
from hydrascope.analyses.attribution.atp_star import Drop
from hydrascope.analyses.attribution.gradients import record_graph
from hydrascope.engines.readouts import Readouts, Tokens
from hydrascope.models.hooks import hooked
from hydrascope.utils.errors import HydrascopeError

PARTS = "layers,heads,neuron.0.5"


def without(model: hs.models.LanguageModel, block: int) -> list:
    """Hooks by which what a block writes is what it is, and its gradient 0."""

    def cut(module, args, output):
        hidden = output[0] if isinstance(output, tuple) else output
        cut = hidden.detach() + 0 * hidden
        return (cut, *output[1:]) if isinstance(output, tuple) else cut

    return [
        model.output(component).register_forward_hook(cut) for component in model.sublayers if component.block == block
    ]


@pytest.mark.parametrize("case", ["gpt2", "gpt_neox", "gemma2"])
def test_by_definition_from_passes_without_each_block(case):
    model, others = tiny(case), 2
    options = {"ablate": PARTS, "at": [-1, -2], "readouts": [hs.Logit(), hs.Direction(np.arange(32) - 9.0, before=2)]}
    passes = []
    for block in range(3):
        handles = without(model, block)
        # A patch at a time: absolute values are taken of each. Zero is one patch alone.
        one = atp(hs.models.LanguageModel(model.hf), PROMPTS, hs.Zero(), **options)["estimate"]
        # The block's own writes don't change, whichever of its sublayers is ablated.
        passes.append(one.where(one["ablated_block"] != block, 0).values)
        for handle in handles:
            handle.remove()
    found = atp_star(model, PROMPTS, hs.Zero(), **options)
    np.testing.assert_allclose(found["estimate"], sum(passes) / others, atol=1e-9)
    np.testing.assert_allclose(found["magnitude"], sum(map(abs, passes)) / others, atol=1e-9)
    signed, size = found["estimate"].sel(readout="logit"), found["magnitude"].sel(readout="logit")
    assert float((size - abs(signed)).max()) > 0.1


def test_absolute_values_are_of_each_patch():
    found = atp_star(shared("gpt2"), PROMPTS, hs.Resample(3), ablate=PARTS)
    last = atp(shared("gpt2"), PROMPTS, hs.Resample(3), ablate="mlp.2")["estimate"]
    assert float((found["magnitude"].sel(ablated="mlp.2") - abs(last.sel(ablated="mlp.2"))).max()) > 1e-3


@pytest.mark.parametrize("case", ["gpt2", "llama", "gpt_neox"])
def test_what_acts_directly_alone_keeps_the_estimate_of_atp(case):
    """Every backward pass but that without its own block finds the same."""
    parts = {"ablate": "layers,heads", "readouts": [hs.Logit(), hs.Direction(np.arange(32) - 9.0, before=2)]}
    plain, star = (method(shared(case), PROMPTS, hs.Zero(), **parts) for method in (atp, atp_star))
    for readout, own in (("logit", 2), ("direction", 1)):
        one, other = (each.sel(readout=readout) for each in (plain, star))
        one, other = (each.sel(ablated=each["ablated_block"] == own) for each in (one, other))
        np.testing.assert_allclose(other["estimate"], one["estimate"], atol=1e-9)
        np.testing.assert_allclose(other["magnitude"], abs(one["estimate"]), atol=1e-9)
    earlier = plain["ablated_block"] == 0
    assert float(abs(plain["estimate"] - star["estimate"]).sel(ablated=earlier).max()) > 0.01


def test_with_no_block_dropped_the_slopes_are_those_of_atp():
    model, drop = shared("gpt2"), Drop(shared("gpt2"))
    readouts = Readouts.of(model, [hs.Logit()], Tokens([7] * len(PROMPTS)), range(len(PROMPTS)))
    expected = record_graph(model, PROMPTS, readouts, model.sublayers).slopes(0)
    with hooked(drop.hooks()):
        graph = record_graph(model, PROMPTS, readouts, model.sublayers)
    for block in (-1, 1):
        drop.block = block
        found = graph.slopes(0)
        same = [torch.equal(found[site], slope) for site, slope in expected.items()]
        # Above what is dropped nothing changes; attention of block 1 loses its way through the MLP.
        assert same == [block == -1 or model.stage(site) >= 3 for site in expected]


def test_one_block_is_too_few():
    model = tiny("gpt2")
    del model.blocks[1:]
    with pytest.raises(HydrascopeError, match="one block"):
        atp_star(model, PROMPTS)


def test_components_of_the_state_have_nothing_left_to_change():
    """Its values are compared with their definition in test_backups."""
    model, options = shared("gpt2"), {"ablate": "heads", "at": [-1, -2]}
    plain = atp_star(model, PROMPTS, hs.Zero(), **options)
    found = atp_star(model, PROMPTS, hs.Zero(), state="head.0.1+mlp.1", **options)
    assert found["ablated"].values.tolist() == plain["ablated"].values.tolist()
    assert found.attrs["state"] == "head.0.1+mlp.1"
    assert not found["magnitude"].sel(ablated="head.0.1").any()
    differs = abs(found["magnitude"] - plain["magnitude"]).max(("readout", "prompt")) > 1e-6
    assert differs.sum() > 6


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("head.0.1,head.0.2", "names 2 states: join the components of one by +"),
        ("attn.0|mlp.1", "attn.0|mlp.1 freezes mlp.1: name only what is ablated"),
        ("head.0.9", "gpt2 has no head.0.9"),
    ],
)
def test_a_state_that_is_none(state, said):
    with pytest.raises(HydrascopeError) as error:
        atp_star(shared("gpt2"), PROMPTS, hs.Zero(), state=state)
    assert said in str(error.value)
