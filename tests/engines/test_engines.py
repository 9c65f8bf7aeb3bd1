"""The two engines give one answer, on every architecture, to every kind of run."""

from dataclasses import replace

import pytest
import torch
from asked import PLACES, TENSORS, assert_same, heads, lengths, neurons, random_runs, request, several_readouts
from hypothesis import given, settings
from hypothesis import strategies as st
from rest_slow import rest_slow
from tiny import CONFIGS, shared, tiny, tolerance

from hydrascope.components.component import INPUT_KINDS, Component, Override
from hydrascope.engines import choose_engine, reference, wavefront
from hydrascope.engines.wavefront.schedule import schedule
from hydrascope.models.language_model import LanguageModel
from hydrascope.utils.errors import HydrascopeError

FAST = [case for case in CONFIGS if shared(case).anatomy.supports_wavefront]
#: Every architecture at one choice of positions, one at all choices: they matter little to architectures.
SOMEWHERE = [(case, PLACES[number % len(PLACES)]) for number, case in enumerate(FAST)]
SOMEWHERE += [("gpt2", at) for at in PLACES if ("gpt2", at) not in SOMEWHERE]


def every_kind_of_run(model: LanguageModel) -> list[Override]:
    """Sublayers, heads and neurons ablated alone, two together, and with something frozen."""
    some = [*model.sublayers, *heads(model)[1::3], *neurons(model)[::3]]
    overrides = [Override((component,)) for component in some]
    joint = ["attn.0+mlp.1", "attn.1+mlp.1", "head.0.1+head.0.2", "head.0.1+head.2.3", "head.1.0+mlp.1", "mlp.0+attn.2"]
    frozen = ["attn.0|mlp.1", "attn.0|attn.1|mlp.2", "head.0.1|head.1.1", "head.0.1|attn.2", "attn.0+attn.1|mlp.2"]
    overrides += [Override.parse(label) for label in (*joint, *frozen)]
    if dense := neurons(model):
        first, last = dense[0], dense[-1]
        overrides += [
            Override((first, last)),
            Override((Component(first.block, "attn"), first)),
            Override((Component(0, "attn"),), (last,)),
        ]
    return overrides


@pytest.mark.parametrize(("case", "at"), SOMEWHERE)
def test_wavefront_gives_what_plain_forward_passes_give(case, at):
    model = shared(case)
    asked = request(
        model,
        every_kind_of_run(model),
        (8, 3),
        at,
        units=heads(model) + neurons(model),
        readouts=several_readouts(model),
        metrics=["log_prob", "prob", "rank", "kl", "top"],
    )
    assert_same(wavefront.measure(model, asked), reference.measure(model, asked), tolerance(case))


@pytest.mark.parametrize("case", ["gpt2", "cohere", "gemma2"])
def test_units_are_read_in_any_order(case):
    """All heads of a block, and all neurons: the last first."""
    model = shared(case)
    units = model.units(Component(1, "attn"))[::-1] + model.units(Component(1, "mlp"))[::-1]
    asked = request(model, ["attn.0", "head.1.1"], units=units)
    assert_same(wavefront.measure(model, asked), reference.measure(model, asked), tolerance(case))


@st.composite
def runs_with_inputs(draw, model: LanguageModel) -> Override:
    """An ablated sublayer, and inputs of heads after it frozen, with a sublayer or without."""
    ablated = draw(st.sampled_from(model.sublayers[:-2]))
    later = [head for head in heads(model) if model.stage(head) > model.stage(ablated)]
    some = draw(st.lists(st.sampled_from(later), min_size=1, max_size=4, unique=True))
    inputs = tuple(Component(head.block, draw(st.sampled_from(INPUT_KINDS)), head.unit) for head in some)
    sublayers = [sublayer for sublayer in model.sublayers if model.stage(sublayer) > model.stage(ablated)]
    frozen = draw(st.lists(st.sampled_from(sublayers), max_size=1))
    return Override((ablated,), (*(component for component in inputs if component.sublayer not in frozen), *frozen))


@pytest.mark.parametrize("case", FAST)
@settings(max_examples=2, deadline=None)
@given(
    data=st.data(),
    lengths=lengths,
    patches=st.integers(1, 3),
    seed=st.integers(0, 1000),
    at=st.sampled_from(PLACES),
)
def test_wavefront_gives_the_same_for_any_plan(case, data, lengths, patches, seed, at):
    model = shared(case, seed % 2)
    runs = [*data.draw(random_runs(model)), *data.draw(st.lists(runs_with_inputs(model), max_size=3))]
    units = data.draw(st.lists(st.sampled_from(heads(model) + neurons(model)), max_size=4, unique=True))
    readouts = several_readouts(model, len(lengths))
    asked = request(model, runs, lengths, at, patches=patches, seed=seed, units=units, readouts=readouts)
    assert_same(wavefront.measure(model, asked), reference.measure(model, asked), tolerance(case))


@pytest.mark.parametrize(("case", "at"), rest_slow(SOMEWHERE))
def test_heads_that_attend_by_what_they_have_in_the_clean_run(case, at):
    """Their queries, keys and values frozen, one by one and together, in rows that branch off any other."""
    model = shared(case)
    labels = ["attn.0", "attn.0|query.1.1", "attn.0|key.1.1", "attn.0|value.1.3", "mlp.0|query.1.0|query.2.0"]
    labels += ["head.0.1|query.1.1|key.1.1|value.1.1", "attn.0|mlp.1|query.2.1", "attn.0|attn.1|key.2.0|value.2.2"]
    labels += ["attn.0|query.1.1|head.1.0", "attn.0+mlp.1|query.2.3", "attn.0|query.1.1|mlp.1"]
    asked = request(
        model, labels, (8, 3), at, units=heads(model), readouts=several_readouts(model), metrics=["log_prob"]
    )
    expected = reference.measure(model, asked)
    assert_same(wavefront.measure(model, asked), expected, tolerance(case))
    # It does something: the ablation reaches the queries.
    assert not torch.allclose(expected.logit_ablated[:, :, 0], expected.logit_ablated[:, :, 1])


def one_may_react(model: LanguageModel, label: str) -> list[Override]:
    """Everything after what `label` ablates is frozen; and all but one sublayer, or but one head of it."""
    override = Override.parse(label)
    first = min(map(model.stage, override.ablated))
    below = [
        sublayer for sublayer in model.sublayers if model.stage(sublayer) > first and sublayer not in override.ablated
    ]
    overrides = [Override(override.ablated, tuple(below))]
    for reacts in below:
        others = tuple(sublayer for sublayer in below if sublayer != reacts)
        overrides.append(Override(override.ablated, others))
        if reacts.kind == "attn":
            overrides.append(Override(override.ablated, others + model.units(reacts)[1:]))
    return overrides


@pytest.mark.parametrize(("case", "at"), rest_slow(SOMEWHERE))
def test_where_one_component_alone_may_react(case, at):
    """Such runs are read aside, without rows of their own."""
    model = shared(case)
    labels = ["attn.0", "mlp.0", "head.1.2", "attn.0+mlp.1"]
    overrides = [Override.parse("attn.0"), *(override for label in labels for override in one_may_react(model, label))]
    assert len(schedule(model, overrides).branches) >= 8
    asked = request(model, overrides, (8, 3), at, units=heads(model), readouts=several_readouts(model), metrics=["kl"])
    assert_same(wavefront.measure(model, asked), reference.measure(model, asked), tolerance(case))


@pytest.mark.parametrize("at", PLACES)
@pytest.mark.parametrize("case", ["gpt2", "llama", "gemma2", "gpt_neox", "gpt_oss"])
def test_what_would_be_written(case, at):
    """Before it is overwritten: in runs that freeze it, that start there, or that are on their way."""
    model = shared(case)
    runs = ["attn.0", "attn.0|mlp.1", "attn.0|mlp.0|attn.1|mlp.1|attn.2|mlp.2", "head.0.2|query.2.1", "mlp.1+attn.0"]
    runs += ["attn.0|attn.1|key.1.0|attn.2"]
    sites = [Component(1, "head"), Component(2, "head"), *model.sublayers[2:]]
    asked = request(model, runs, (8, 3), at)
    found, expected = (engine.activations_before_override(model, asked, sites) for engine in (wavefront, reference))
    assert set(found) == set(sites)
    for site in sites:
        size = expected[site].abs().max()
        assert float((found[site] - expected[site]).abs().max()) <= tolerance(case) * float(size), site


@pytest.mark.parametrize("at", ["last", "span"])
@pytest.mark.parametrize("case", ["gpt2", "llama", "gemma2", "gpt_oss"])
def test_wavefront_in_float32(case, at):
    model = tiny(case, torch.float32)
    asked = request(model, every_kind_of_run(model), (8, 3), at, units=heads(model))
    # 1e-4: float32 rounding through three blocks, relative to the largest effect.
    assert_same(wavefront.measure(model, asked), reference.measure(model, asked), 1e-4)


@pytest.mark.parametrize("at", ["last", "span"])
def test_padding_and_company_change_nothing(at):
    """A prompt's readings do not depend on what it is batched with."""
    model = shared("gemma3_text")
    runs = ["attn.0", "head.1.2", "neuron.0.5", "attn.0|mlp.1"]
    together = request(model, runs, (9, 2, 6), at, units=heads(model))
    found = wavefront.measure(model, together)
    for prompt in range(3):
        one = slice(prompt, prompt + 1)
        linear = together.readouts.rows[0]
        token = (linear.tokens[0][one], None)
        alone = replace(
            together,
            tokens=together.tokens[one],
            positions=together.positions[one],
            targets=together.targets[one],
            values=lambda component, one=one: together.values(component)[one],
            readouts=replace(
                together.readouts,
                rows=(replace(linear, direction=linear.direction[one], constant=linear.constant[one], tokens=token),),
            ),
        )
        single = wavefront.measure(model, alone)
        for name in (name for name in TENSORS if name not in ("clean_error", "metrics")):
            where = 0 if name == "scale" else 1
            here = getattr(found, name)
            if here.numel():
                torch.testing.assert_close(
                    here.select(where, prompt), getattr(single, name).select(where, 0), rtol=1e-6, atol=1e-6, msg=name
                )


@pytest.mark.parametrize("case", ["gpt2", "gemma2", "gpt_neox"])
@settings(max_examples=4, deadline=None)
@given(data=st.data(), at=st.sampled_from(PLACES))
def test_a_run_is_what_it_is_alone(case, data, at):
    """Whatever else is in the plan, and whatever it branches off there."""
    model = shared(case)
    overrides = [Override.parse(label) for label in ("attn.0", "attn.0|mlp.1", "attn.0|mlp.1|attn.2", "head.0.1+mlp.1")]
    overrides += data.draw(random_runs(model))
    ask = {"lengths": (6, 3), "at": at, "units": heads(model), "metrics": ["kl"]}
    together = wavefront.measure(model, request(model, overrides, **ask))
    for number, run in enumerate(overrides):
        alone = wavefront.measure(model, request(model, [run], **ask))
        one = slice(number, number + 1)
        picked = replace(
            together,
            unembed_ablated=together.unembed_ablated[:, :, one],
            logit_ablated=together.logit_ablated[:, :, one],
            logit_direct=together.logit_direct[:, :, one],
            logit_indirect=together.logit_indirect[:, :, one],
            own=together.own[:, :, one],
            scale=together.scale[:, one],
            metrics_ablated=together.metrics_ablated[:, :, one],
        )
        assert_same(picked, alone, tolerance(case))


def test_choose():
    assert choose_engine(shared("llama")).name == "wavefront"
    assert choose_engine(shared("mpt")).name == "reference"
    assert "AttentionInterface" in choose_engine(shared("mpt")).reason
    assert choose_engine(shared("llama"), "reference").measure is reference.measure
    with pytest.raises(HydrascopeError, match="does not support this model"):
        choose_engine(shared("mpt"), "wavefront")
    with pytest.raises(HydrascopeError, match="unknown engine 'warp': choose auto, wavefront or reference"):
        choose_engine(shared("llama"), "warp")
