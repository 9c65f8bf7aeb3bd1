"""What holds for any model, ablation and readout, whatever the numbers: on every architecture."""

from dataclasses import replace

import pytest
import torch
from asked import PLACES, heads, is_dense, neurons, random_runs, request, several_readouts, sizes
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import CONFIGS, shared, tolerance
from torch import Tensor

import hydrascope as hs
from hydrascope.components.component import Component, Override
from hydrascope.components.order import downstream
from hydrascope.engines import ENGINES, Readings, Request, balance, choose_engine, wavefront
from hydrascope.engines.clean.clean_pass import compute_clean_pass, compute_clean_pass_at
from hydrascope.engines.directions import Direction
from hydrascope.engines.readouts import Logit, LogitDifference, final_scale
from hydrascope.models.language_model import LanguageModel

#: Sequential and parallel, LayerNorm and RMSNorm, with post-norms, biases, windows, sinks and experts.
VARIED = ["gpt2", "gpt_neox", "gemma2", "olmo2-bias", "opt", "granite", "gpt_oss", "bloom"]

RUNS = ["attn.0", "mlp.0", "attn.1", "mlp.1", "mlp.2", "head.0.1", "head.1.3", "head.0.1+head.0.2", "attn.0+mlp.1"]
RUNS += ["head.0.1|attn.1", "attn.0|head.1.0", "mlp.0|mlp.1"]


def measured(model: LanguageModel, asked: Request) -> Readings:
    return choose_engine(model).measure(model, asked)


def assert_zero(values: Tensor, size: Tensor | float, tolerance: float) -> None:
    assert bool((values.abs() <= tolerance * size).all()), f"off by {float(values.abs().max()):.1e}"


@pytest.mark.parametrize("at", ["last", pytest.param("span", marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", list(CONFIGS))
def test_units_and_bias_are_their_sublayer_in_every_run(case, at):
    """Also where a later sublayer is overridden; where a norm follows, it scales both, in every run its own way."""
    model = shared(case)
    dense = [sublayer for sublayer in model.sublayers if sublayer.kind == "attn" or is_dense(model, sublayer)]
    units = [unit for sublayer in dense for unit in model.units(sublayer)]
    runs = [*RUNS, *(Override((neuron,)) for neuron in neurons(model)[1:2])]
    asked = request(model, runs, (6, 3), at, units=units)
    readings = measured(model, asked)
    clean = compute_clean_pass(model, asked.tokens)
    sigma, direction = final_scale(model, clean.final), asked.readouts.directions[..., 0]
    order = (*model.sublayers, *units)
    for sublayer in dense:
        projection = model.projection(sublayer)
        bias = getattr(projection.module, "bias", None)
        places = [number for number, unit in enumerate(order) if unit.is_unit and unit.sublayer == sublayer]
        free = [number for number, override in enumerate(asked.overrides) if sublayer not in override.overridden]
        after = readings.unembed_ablated[0][:, free]
        rest = after[..., order.index(sublayer)] - after[..., places].sum(-1)
        clean_rest = readings.unembed[0, :, order.index(sublayer)] - readings.unembed[0][:, places].sum(-1)
        if bias is None:
            expected = torch.zeros_like(clean_rest)
        elif projection.norm is None:
            expected = direction @ bias * model.residual_scale / sigma
        else:
            continue  # the next test's
        assert_zero(clean_rest - expected, sizes(readings), tolerance(case))
        assert_zero(rest - expected[:, None, None], sizes(readings), tolerance(case))


def test_a_bias_before_a_norm_is_scaled_by_that_norm_in_every_run():
    """What is left of an OLMo's sublayer besides its heads is b G/σ', with σ' of that run's own projection output."""
    model = shared("olmo2-bias")
    asked = request(model, ["head.1.0", "mlp.0"], (5,), units=heads(model), patches=1)
    readings = measured(model, asked)
    block = model.hf.model.layers[1]
    module, norm = block.self_attn.o_proj, block.post_attention_layernorm
    sigma = final_scale(model, compute_clean_pass(model, asked.tokens).final)
    places = [
        number for number, unit in enumerate((*model.sublayers, *heads(model))) if unit.sublayer == Component(1, "attn")
    ]
    seen = []
    for number, component in enumerate((Component(1, "head", 0), Component(0, "mlp"))):
        site = model.projection(component.sublayer).module if component.is_unit else model.output(component)
        patch = asked.values(component)[0, 0, 0]

        def write(module, args, output=None, part=component, patch=patch):
            (args[0] if part.is_unit else output)[0, -1, model.columns(part)] = patch

        handles = [
            site.register_forward_pre_hook(write) if component.is_unit else site.register_forward_hook(write),
            module.register_forward_hook(lambda module, args, output: seen.append(output[0, -1])),
        ]
        with model.measuring():
            model.hf(torch.tensor(asked.tokens))
        for handle in handles:
            handle.remove()
        scale = (seen[-1].square().mean() + norm.variance_epsilon).sqrt()
        left = (module.bias * norm.weight).detach() / scale @ asked.readouts.directions[0, :, 0] / sigma[0]
        read = readings.unembed_ablated[0, 0, number, 0]
        assert float(left.abs()) > 1e-3
        torch.testing.assert_close(read[2] - read[places[1:]].sum(), left, rtol=1e-5, atol=1e-5)
    assert float((seen[0] - seen[1]).abs().max()) > 1e-3


@pytest.mark.parametrize("at", PLACES)
@pytest.mark.parametrize("case", VARIED)
def test_a_component_s_own_clean_value_changes_nothing(case, at):
    model = shared(case)
    components = (*model.sublayers, *heads(model)[::2], *neurons(model)[::2])
    asked = request(
        model, [*(Override((component,)) for component in components), "head.0.1+mlp.2"], (6, 3), at, units=heads(model)
    )
    where = torch.arange(2).repeat_interleave(asked.positions.shape[1]), asked.positions.flatten()
    clean = compute_clean_pass_at(
        model, asked.tokens, *where, [component.site for component in (*components, Component(0, "head", 1))]
    )

    def own(component: Component) -> Tensor:
        return clean.values[component.site][:, model.columns(component)].unflatten(0, (2, 1, -1)).expand(-1, 2, -1, -1)

    readings = measured(model, replace(asked, values=own))
    size = sizes(readings)[0]
    assert_zero(readings.unembed_ablated - readings.unembed[:, :, None, None], size, tolerance(case))
    for after in (readings.logit_ablated, readings.logit_direct, readings.logit_indirect):
        assert_zero(after - readings.logit[..., None, None], size, tolerance(case))
    assert_zero(readings.scale - 1, 1, tolerance(case))


@pytest.mark.parametrize("case", list(CONFIGS))
def test_what_is_not_downstream_never_changes(case):
    model = shared(case)
    units = heads(model) + neurons(model)
    components = (*model.sublayers, *heads(model)[::3], *neurons(model)[::3])
    asked = request(model, [Override((component,)) for component in components], (6, 3), "span", units=units)
    readings = measured(model, asked)
    size = float(sizes(readings)[0])
    change = (readings.unembed_ablated - readings.unembed[:, :, None, None]).abs().amax((0, 1, 3))
    order = (*model.sublayers, *units)
    for number, component in enumerate(components):
        for place, other in enumerate(order):
            own = other.sublayer == component.sublayer and (
                other == component or not other.is_unit or not component.is_unit
            )
            # A norm that follows scales what siblings write.
            sibling = (
                other.sublayer == component.sublayer and model.projection(component.sublayer).norm is not None
                if component.is_unit
                else False
            )
            if model.stage(other) <= model.stage(component) and not own and not sibling:
                assert float(change[number, place]) <= 1e-12 * size, (component, other)


@pytest.mark.parametrize("at", ["last", "middle"])
@pytest.mark.parametrize("case", [case for case in VARIED if case != "bloom"])
def test_freezing_what_is_not_downstream_changes_nothing(case, at):
    """Exactly: the two runs are one."""
    model = shared(case)
    ablated = [Component(1, "attn"), Component(1, "head", 2)]
    upstream = [Component(0, "attn"), Component(0, "mlp"), Component(0, "head", 1), Component(1, "head", 0)]
    # In parallel blocks, the MLP beside the ablated attention as well.
    upstream += [Component(1, "mlp")] if model.parallel else []
    runs = []
    for component in ablated:
        runs += [
            Override((component,)),
            *(
                Override((component,), (still,))
                for still in upstream
                if component.is_unit or still.sublayer != component
            ),
        ]
    readings = wavefront.measure(model, request(model, runs, (6, 4), at, units=heads(model), metrics=["kl"]))
    for number, run in enumerate(runs):
        alone = runs.index(Override(run.ablated))
        assert torch.equal(readings.logit_ablated[:, :, number], readings.logit_ablated[:, :, alone])
        assert torch.equal(readings.unembed_ablated[:, :, number], readings.unembed_ablated[:, :, alone])
        assert torch.equal(readings.metrics_ablated[:, :, number], readings.metrics_ablated[:, :, alone])
    assert float((readings.logit_ablated - readings.logit[..., None, None]).abs().max()) > 1e-3 * float(
        sizes(readings)[0]
    )


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", VARIED)
def test_what_no_attention_reads_changes_nothing(case, engine):
    """The top sublayers' writes at earlier positions: nothing above looks back at them."""
    model = shared(case)
    if engine == "wavefront" and not model.anatomy.supports_wavefront:
        pytest.skip("not fast")
    runs = ["mlp.2", "attn.2", "head.2.1", "attn.2+mlp.2", "mlp.1"]
    readings = ENGINES[engine](model, request(model, runs, (6, 4), "middle", units=heads(model), metrics=["kl"]))
    size = sizes(readings)[0]
    # The clean run of the reference engine is a batch of its own: norms in float32 round it differently.
    rounding = 1e-12 if engine == "wavefront" else tolerance(case)
    for after in (readings.logit_ablated, readings.logit_direct, readings.logit_indirect):
        assert_zero((after - readings.logit[..., None, None])[:, :, :4], size, rounding)
    assert_zero((readings.unembed_ablated - readings.unembed[:, :, None, None])[:, :, :4], size, rounding)
    assert_zero(readings.metrics_ablated[:, :, :4], 1, rounding)
    # What the top attention does read, changes it; what is not at the last position has no direct effect.
    assert float((readings.logit_ablated - readings.logit[..., None, None])[:, :, 4].abs().min()) > 1e-6
    assert_zero((readings.logit_direct - readings.logit[..., None, None])[:, :, 4], size, rounding)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", ["mistral", "starcoder2", "phi3"])
def test_what_is_outside_of_a_window_changes_nothing(case, engine):
    """A window of 3: the top attention at the last position sees it and the two before."""
    model, length = shared(case), 8
    seen = {}
    for back in (2, 3):
        asked = request(model, ["mlp.1", "head.1.0"], (length,))
        asked = replace(asked, positions=torch.tensor([[length - 1 - back]]))
        readings = ENGINES[engine](model, asked)
        seen[back] = float((readings.logit_ablated - readings.logit[..., None, None]).abs().max())
    assert seen[3] <= 1e-12
    assert seen[2] > 1e-6


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", ["qwen2", "gemma2", "gemma3_text", "olmo3", "gpt_oss"])
def test_only_blocks_without_a_window_see_that_far(case, engine):
    """A window of 3 in the middle block alone: what is further back comes through the top attention, or not at all."""
    model = shared(case)
    asked = request(model, ["mlp.0", "mlp.0|attn.2", "mlp.0|attn.1"], (8,))
    asked = replace(asked, positions=torch.tensor([[2]]))
    readings = ENGINES[engine](model, asked)
    change = (readings.logit_ablated - readings.logit[..., None, None]).abs().amax((0, 1, 3))
    assert float(change[1]) <= tolerance(case)
    assert float(change[[0, 2]].min()) > 1e-3


@pytest.mark.parametrize("case", ["gpt2", "gpt_neox", "gemma2", "gptj"])
def test_a_difference_is_the_answer_minus_the_foil(case):
    model = shared(case)
    readouts = [LogitDifference(), Logit("answer"), Logit("foil")]
    readings = measured(model, request(model, RUNS, (6, 3), "span", units=heads(model), readouts=readouts))
    for name in ("unembed", "embed", "logit", "unembed_ablated", "logit_ablated", "logit_direct", "logit_indirect"):
        difference, answer, foil = getattr(readings, name)
        assert_zero(difference - (answer - foil), sizes(readings).max(), tolerance(case))
        assert float((difference - answer).abs().max()) > 1e-3


@pytest.mark.parametrize("case", ["gpt2", "phi", "llama", "gemma2", "granite", "cohere", "bloom"])
def test_a_logit_is_a_direction(case):
    """The centred unembedding of the target, as a user would give it; only constants are no direction's."""
    model = shared(case)
    asked = request(model, RUNS, (6, 3), units=heads(model))
    weight = model.unembedding.weight.detach()
    vectors = (weight[asked.targets] - weight.mean(0)) * model.logit_scale
    both = request(model, RUNS, (6, 3), units=heads(model), readouts=[Logit(), Direction(vectors)])
    readings = measured(model, both)
    for name in ("unembed", "embed", "unembed_ablated"):
        logit, direction = getattr(readings, name)
        assert_zero(logit - direction, sizes(readings)[0], tolerance(case))
    bias = getattr(model.unembedding, "bias", None)
    constant = 0.0 if bias is None else (bias[asked.targets] - bias.mean())[:, None, None] * model.logit_scale
    for name in ("logit_ablated", "logit_direct", "logit_indirect"):
        logit, direction = getattr(readings, name)
        assert_zero(logit - direction - constant, sizes(readings)[0], tolerance(case))


@pytest.mark.parametrize("at", ["last", "span"])
@pytest.mark.parametrize("case", VARIED)
def test_inner_readouts_are_of_what_is_below_them(case, at):
    model = shared(case)
    units = heads(model) + neurons(model)
    readouts = several_readouts(model)
    asked = request(model, RUNS, (6, 3), at, units=units, readouts=readouts)
    readings = measured(model, asked)
    order, layers = (*model.sublayers, *units), len(model.sublayers)
    # What block 0 writes at earlier positions, attention of block 1 is the first to read.
    first = 0 if at == "last" else 1
    for number, readout in enumerate(readouts):
        block = getattr(readout, "before", None)
        if block is None:
            continue
        size = sizes(readings)[number]
        above = [place for place, component in enumerate(order) if component.block >= block]
        assert not readings.unembed[number, :, above].any()
        assert not readings.unembed_ablated[number][..., above].any()
        # e and what the sublayers below write is the stream that enters the block, in every run; no norm, no constant.
        stream = readings.embed[number] + readings.unembed[number, :, :layers].sum(-1)
        assert_zero(stream - readings.logit[number], size, 1e-12)
        after = readings.embed[number][:, None, None] + readings.unembed_ablated[number][..., :layers].sum(-1)
        assert_zero(after - readings.logit_ablated[number], size, 1e-12)
        # There all is linear: a run is its direct and its indirect effect.
        total, direct, indirect = (
            getattr(readings, name)[number] - readings.logit[number][:, None, None]
            for name in ("logit_ablated", "logit_direct", "logit_indirect")
        )
        assert_zero(total - direct - indirect, size, 1e-12)
        assert (float(total.abs().max()) > 1e-3 * float(size)) == (block > first)


@pytest.mark.parametrize("case", VARIED)
def test_kl_is_never_negative_and_nothing_for_the_clean_run(case):
    model = shared(case)
    readings = measured(model, request(model, RUNS, (6, 3), metrics=["kl"]))
    assert float(readings.metrics.abs().max()) <= 1e-12
    assert float(readings.metrics_ablated.min()) >= 0
    assert float(readings.metrics_ablated.max()) > 1e-4


@pytest.mark.parametrize("case", list(CONFIGS))
@settings(max_examples=3, deadline=None)
@given(data=st.data(), at=st.sampled_from(PLACES), seed=st.integers(0, 1000))
def test_total_effects_balance_with_their_terms(case, data, at, seed):
    """Eq. 33 and 34 for every run, patch and readout; once by `balance`, once from the definition."""
    model = shared(case)
    runs = data.draw(random_runs(model))
    asked = request(model, runs, (5, 2), at, seed=seed, readouts=several_readouts(model), patches=2)
    readings = measured(model, asked)
    final = asked.readouts.final
    off = balance.imbalance(readings, balance.may_change(model, asked.overrides), final)
    assert off.max() <= tolerance(case) * float(sizes(readings).max())
    for number, run in enumerate(runs):
        below = downstream(model, run, model.sublayers)
        own = {part.sublayer for part in run.overridden}
        moved = [place for place, sublayer in enumerate(model.sublayers) if below[place] or sublayer in own]
        for place, readout in enumerate(asked.readouts.rows):
            before = readings.unembed[place][:, None, moved]
            after = readings.unembed_ablated[place, :, number][..., moved]
            total = readings.logit_ablated[place, :, number] - readings.logit[place][:, None]
            norm = torch.zeros_like(total)
            if readout.before == -1:
                everything = readings.embed[place][:, None] + readings.unembed_ablated[place, :, number, :, :6].sum(-1)
                norm = (readings.scale[:, number] - 1) * everything
            assert_zero(total - (after - before).sum(-1) - norm, sizes(readings)[place], tolerance(case))


@pytest.mark.parametrize("case", ["gpt2", "llama", "gpt_neox", "gemma2"])
@pytest.mark.parametrize("engine", ENGINES)
def test_direct_and_indirect_effect_by_definition(case, engine):
    """Def. 3.3: everything downstream frozen. Then, by Def. 3.4, nothing is left without the override itself."""
    model = shared(case)
    components = [*model.sublayers, Component(0, "head", 1), Component(2, "head", 2), *neurons(model)[:1]]
    below = [
        tuple(
            sublayer
            for sublayer, follows in zip(
                model.sublayers, downstream(model, Override((component,)), model.sublayers), strict=True
            )
            if follows
        )
        for component in components
    ]
    overrides = [Override((component,)) for component in components] + [
        Override((component,), held) for component, held in zip(components, below, strict=True)
    ]
    asked = request(model, overrides, (6, 9))
    readings = ENGINES[engine](model, asked)
    direct = readings.logit_direct[:, :, : len(components)]
    assert_zero(direct - readings.logit_ablated[:, :, len(components) :], sizes(readings)[0], tolerance(case))
    assert_zero(direct - readings.logit_direct[:, :, len(components) :], sizes(readings)[0], tolerance(case))
    left = readings.logit_indirect[:, :, len(components) :] - readings.logit[..., None, None]
    assert_zero(left, sizes(readings)[0], tolerance(case))


@pytest.mark.parametrize("case", ["gpt2", "llama", "gpt_neox", "gemma2"])
@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_ablated_before_the_last_position_has_no_direct_effect_at_all(case, engine):
    """To the bit, however many prompts and runs are measured together: any share of rounding would be nonsense."""
    model = shared(case)
    for lengths in ((7,), (5, 9, 8)):
        asked = request(model, RUNS[:6], lengths, "middle", patches=3, readouts=several_readouts(model, len(lengths)))
        readings = ENGINES[engine](model, asked)
        assert readings.logit_direct.equal(readings.logit[..., None, None].expand_as(readings.logit_direct))
        assert readings.logit_indirect.equal(readings.logit_ablated)


def test_nor_has_it_one_in_a_model_of_usual_width_whose_products_round_by_their_shape():
    prompts = ["The currency of Angola is the", "The capital of France is"]
    found = hs.sweep(hs.load_model("built-in"), prompts, hs.Zero(), ablate="attn", at=-2, batch_size=1)
    assert not found["direct"].any()
    assert found["indirect"].equals(found["total"].assign_attrs(found["indirect"].attrs))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_without_overrides_is_the_clean_run(engine):
    readings = ENGINES[engine](shared("gpt2"), request(shared("gpt2"), [Override(()), "attn.0"], (4,)))
    assert_zero(readings.logit_ablated[:, :, 0] - readings.logit[..., None], 1, 1e-12)
    assert_zero(readings.unembed_ablated[:, :, 0] - readings.unembed[:, :, None], 1, 1e-12)
