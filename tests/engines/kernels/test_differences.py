"""Products of differences: nearly as exact as float32, and nothing where nothing changes."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from asked import heads, request, several_readouts
from difference_faults import FAULTS, Plant
from rest_slow import rest_slow
from tiny import CONFIGS, shared, tiny
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from hydrascope.components.component import Component, Override
from hydrascope.engines import Readings, Request, wavefront
from hydrascope.engines.balance import TOLERANCE, balance_size, imbalance, may_change
from hydrascope.engines.equal_rows import equal_to_first
from hydrascope.engines.kernels import differences
from hydrascope.engines.kernels.differences import Products, copied_bytes, has_experts, weights_are_exact
from hydrascope.models.language_model import LanguageModel

FAST = [case for case in CONFIGS if shared(case).anatomy.supports_wavefront]
AT = ("last", "span", "all")
CASES = rest_slow([(case, at) for case in FAST for at in AT])

#: The usual rounding of an effect is 2⁻⁹ to 2⁻⁸ of it. In tiny random models a few cancel to less than their parts.
RMS = 2**-7
#: How far apart patches are from the clean activations, as a share of these.
SHARE = 0.1


def in_three_dtypes(case: str) -> tuple[LanguageModel, LanguageModel, LanguageModel]:
    """One model in float64, float32 and bfloat16: its weights are numbers of bfloat16."""
    wide, single, narrow = (tiny(case, torch.bfloat16).hf for _ in range(3))
    return (
        LanguageModel(wide.double(), name=case),
        LanguageModel(single.float(), name=case),
        LanguageModel(narrow, name=case),
    )


def small_changes(model: LanguageModel, asked: Request) -> dict[Component, Tensor]:
    """Patches of sublayers near their clean activations."""
    own = own_activations(model, asked)
    return {
        sublayer: own[sublayer] + SHARE * own[sublayer].square().mean().sqrt() * asked.values(sublayer)
        for sublayer in model.sublayers
    }


def own_activations(model: LanguageModel, asked: Request) -> dict[Component, Tensor]:
    """The clean activations of sublayers and heads' sites, `[prompt, patch, slot, columns]`."""
    sites = [*model.sublayers, *(Component(block, "head") for block in range(len(model.blocks)))]
    # Nothing that is watched follows the last sublayer.
    alone = replace(asked, overrides=(Override((model.sublayers[-1],)),))
    found = wavefront.activations_before_override(model, alone, sites)
    return {site: values[:, 0] for site, values in found.items()}


def totals(readings: Readings) -> Tensor:
    return (readings.logit_ablated - readings.logit[..., None, None]).double()


@pytest.mark.parametrize(("case", "at"), CASES)
def test_effects_round_by_a_share_of_themselves(case: str, at: str) -> None:
    wide, single, narrow = in_three_dtypes(case)

    def ask(model: LanguageModel) -> Request:
        return request(model, [*map(str, model.sublayers)], (8, 5), at, patches=5, readouts=several_readouts(model))

    patches = small_changes(wide, ask(wide))

    def measured(model: LanguageModel, products: Products = "float32") -> Tensor:
        asked = replace(ask(model), values=lambda component: patches[component].to(model.dtype), products=products)
        return totals(wavefront.measure(model, asked))

    expected = measured(wide)
    size = expected.square().mean((1, 2, 3)).sqrt()

    def error(found: Tensor) -> Tensor:
        errors = (found - expected).square().mean((1, 2, 3)).sqrt()
        # Some readouts come before everything that is ablated.
        return (errors / size)[size > 1e-9].square().mean().sqrt()

    of_differences = error(measured(single, "bfloat16-differences"))
    assert of_differences <= RMS
    assert of_differences <= error(measured(narrow)) / 4


def test_weights_that_bfloat16_does_not_hold_are_rounded() -> None:
    rounded, exact = tiny("llama", torch.float32), in_three_dtypes("llama")[1]
    assert (weights_are_exact(rounded), weights_are_exact(exact)) == (False, True)
    assert (has_experts(exact), has_experts(tiny("mixtral", torch.float32))) == (False, True)
    with torch.no_grad():
        exact.blocks[1].mlp.up_proj.weight[3, 4] += 1e-3
    assert not weights_are_exact(exact)


def test_copies_are_made_once_and_leave_the_model_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("gpt2", torch.float32)
    before = {name: value.clone() for name, value in model.hf.state_dict().items()}
    asked = replace(request(model, ["attn.0"]), products="bfloat16-differences")
    first = wavefront.measure(model, asked)
    every = [module for block in model.blocks for module in block.modules()]
    weights = [module.weight for module in every if isinstance(module, nn.Linear | Conv1D)]
    assert copied_bytes(model) == sum(2 * weight.numel() for weight in weights)
    monkeypatch.setattr(differences, "_Copy", None)
    assert torch.equal(wavefront.measure(model, asked).logit_ablated, first.logit_ablated)
    assert all(torch.equal(value, before[name]) for name, value in model.hf.state_dict().items())
    assert not any("forward" in vars(module) for module in model.hf.modules())


def test_a_changed_weight_is_copied_again() -> None:
    model = tiny("llama", torch.float32)
    asked = replace(request(model, ["attn.0"]), products="bfloat16-differences")
    first = wavefront.measure(model, asked)
    with torch.no_grad():
        for block in model.blocks:
            block.mlp.down_proj.weight.neg_()
    expected = totals(wavefront.measure(model, replace(asked, products="float32")))
    assert not torch.allclose(totals(first), expected, rtol=0.1)
    torch.testing.assert_close(totals(wavefront.measure(model, asked)), expected, rtol=0.05, atol=0.05)


#: Overrides that write the clean activation, and others beside them, which change everything after them.
STILL = ["attn.0", "mlp.1", "attn.1+mlp.1", "head.1.2", "attn.0|query.1.1|key.1.1", "mlp.2", "attn.0|mlp.0|attn.1"]
ALL_BUT_ONE = ["attn.0|mlp.0|attn.1|mlp.1|attn.2", "attn.0|mlp.0|attn.1|mlp.1|attn.2|mlp.2"]
CHANGING = ["attn.2", "mlp.0", "head.0.3"]


def effects_of_nothing(model: LanguageModel, at: str, patches: int, runs: Sequence[str]) -> tuple[Tensor, Tensor]:
    """The totals, and the changes of metrics, of the runs in `STILL` and `ALL_BUT_ONE`."""
    asked = request(
        model, runs, (8, 5, 7), at, patches=patches, readouts=several_readouts(model, 3), metrics=["kl", "log_prob"]
    )
    asked = replace(asked, products="bfloat16-differences")
    own = own_activations(model, asked)

    def values(component: Component) -> Tensor:
        if str(component) in CHANGING:
            return asked.values(component)
        return own[component.site][..., model.columns(component)]

    readings = wavefront.measure(model, replace(asked, values=values))
    still = [number for number, run in enumerate(runs) if run not in CHANGING]
    moving = [number for number in range(len(runs)) if number not in still]
    assert totals(readings)[:3, :, moving].abs().amax() > 0
    changes = readings.metrics_ablated - readings.metrics[..., None, None]
    return totals(readings)[:, :, still], changes[:, :, still]


@pytest.mark.parametrize(("case", "at"), rest_slow([(case, at) for case in FAST for at in ("last", "middle", "all")]))
def test_where_nothing_changes_the_effect_is_exactly_0(case: str, at: str) -> None:
    model = tiny(case, torch.float32)
    orders = ([*CHANGING, *STILL], [*STILL, *ALL_BUT_ONE, *CHANGING], [*STILL[::-1], CHANGING[1], *ALL_BUT_ONE])
    for patches, runs in zip((1, 3, 4), orders, strict=True):
        for found in effects_of_nothing(model, at, patches, runs):
            assert torch.equal(found, torch.zeros_like(found)), runs


@pytest.mark.parametrize("case", rest_slow(FAST))
def test_frozen_alone_and_zeros_for_zeros_have_no_effect(case: str) -> None:
    model = tiny(case, torch.float32)
    projection = model.projection(Component(1, "attn"))
    # The values of one head of block 1 are 0 whatever it reads: its columns of W and the values of its sublayer.
    frozen = Override((), (model.sublayers[0],))
    asked = replace(request(model, [frozen, "attn.0"], (6, 4), patches=3), products="bfloat16-differences")
    found = totals(wavefront.measure(model, asked))
    assert torch.equal(found[:, :, 0], torch.zeros_like(found[:, :, 0]))
    assert found[:, :, 1].abs().min() > 0
    with torch.no_grad():
        for name, parameter in model.attention(1).named_parameters():
            if parameter is not projection.module.weight and not _is_norm(model, name):
                parameter.zero_()
    if any(len(parameter.shape) == 1 and "sinks" in name for name, parameter in model.attention(1).named_parameters()):
        return
    asked = request(model, ["head.1.1", "attn.0", "head.1.0+head.1.3"], (6, 4), patches=2)
    zeros = replace(
        asked,
        values=lambda c: torch.zeros_like(asked.values(c)) if c.is_unit else asked.values(c),
        products="bfloat16-differences",
    )
    found = totals(wavefront.measure(model, zeros))
    assert torch.equal(found[:, :, ::2], torch.zeros_like(found[:, :, ::2]))


def _is_norm(model: LanguageModel, name: str) -> bool:
    return "norm" in name


@pytest.mark.parametrize(("case", "at"), rest_slow([(case, AT[number % 3]) for number, case in enumerate(FAST)]))
def test_effects_balance_to_the_rounding_of_float32(case: str, at: str) -> None:
    """Keep the tolerance of float32: components are read from the same streams."""
    model = tiny(case, torch.float32)
    runs = [*map(str, [*model.sublayers, *heads(model)[::3]]), "attn.0+mlp.1", "attn.0|attn.1", "mlp.0|query.1.1"]
    asked = request(model, runs, (8, 3), at, units=heads(model), readouts=several_readouts(model))
    readings = wavefront.measure(model, replace(asked, products="bfloat16-differences"))
    final = asked.readouts.final
    changing = may_change(model, asked.overrides)
    off = imbalance(readings, changing, final) / balance_size(readings, changing.shape[1], final)
    assert off.max() <= TOLERANCE[torch.float32]
    float32 = wavefront.measure(model, asked)
    assert not torch.equal(float32.logit_ablated, readings.logit_ablated)
    assert torch.equal(float32.logit[final], readings.logit[final])


@pytest.mark.parametrize(("plant", "case", "at"), FAULTS, ids=[fault[0].__name__ for fault in FAULTS])
def test_planted_faults_are_caught(plant: Plant, case: str, at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        test_effects_round_by_a_share_of_themselves(case, at)


def test_rows_are_equal_to_the_bit_or_not() -> None:
    rows = torch.randn(2, 1, 3, 40).expand(2, 5, 3, 40).clone()
    rows[0, 2, 1, 3] += 1e-6
    rows[1, 4, 2, 39] += 1e-6
    expected = torch.ones(2, 5, 3, dtype=torch.bool)
    expected[0, 2, 1] = expected[1, 4, 2] = False
    assert torch.equal(equal_to_first(rows), expected)
