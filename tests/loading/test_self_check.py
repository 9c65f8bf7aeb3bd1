"""The self-check passes right anatomies and refuses wrong ones, naming what fails."""

from dataclasses import replace

import pytest
import torch
from rest_slow import rest_slow
from tiny import CONFIGS, tiny
from transformers import AutoConfig, AutoModelForCausalLM

from hydrascope.components.component import Component
from hydrascope.loading import self_check
from hydrascope.models.architectures import Anatomy, anatomy_of, declare
from hydrascope.models.language_model import LanguageModel
from hydrascope.utils.errors import HydrascopeError


@pytest.mark.parametrize("case", rest_slow(CONFIGS))
@pytest.mark.parametrize("dtype", [torch.float64, pytest.param(torch.float32, marks=pytest.mark.slow)])
def test_every_architecture_passes(case, dtype):
    found = self_check.check(tiny(case, dtype))
    for identity in found:
        assert identity.passed, identity
    assert len({identity.name for identity in found}) == len(found) >= 9


@pytest.mark.parametrize("case", ["gpt2", "llama", "gemma2", "gpt_neox"])
def test_bfloat16_passes(case):
    self_check.require_valid(tiny(case, torch.bfloat16))


def test_the_reference_engine_s_models_are_checked_without_the_wavefront():
    names = {identity.name for identity in self_check.check(tiny("bloom"))}
    assert not any("wavefront" in name for name in names)
    assert any("wavefront" in identity.name for identity in self_check.check(tiny("gpt2")))


UNITS = "heads and neurons sum to their sublayers"


@pytest.mark.parametrize(
    ("case", "mistake", "refused_for"),
    [
        ("llama", {"mlp_out": "mlp.up_proj"}, r"the output of mlp\.0 of llama, Linear, neither holds 'mlp\.down_proj'"),
        ("mixtral", {"mlp_out": "mlp.gate"}, r"mlp\.0 of mixtral writes 4 numbers"),
        ("gemma", {"norm_offset": 0.0}, "reading the residual stream"),
        ("gpt2", {"norm_kind": "rms"}, "reading the residual stream"),
        ("llama", {"norm_kind": "layer"}, "reading the residual stream"),
        ("gpt_neox", {"parallel": lambda config: False}, "MLP reads the output"),
        ("gpt2", {"parallel": lambda config: True}, "not downstream never change"),
        ("granite", {"residual_scale": lambda config: 1.0}, "components sum"),
        ("granite", {"logit_scale": lambda config: 1.0}, "model's own logits"),
        ("gemma2", {"attention_out": "self_attn"}, "components sum"),
        ("olmo2", {"mlp_out": "mlp"}, "components sum"),
        ("bloom", {"attention_out": "self_attention"}, "components sum"),
        # Heads and neurons: other projections, of the same shape and of others.
        ("llama", {"heads_out": "self_attn.q_proj"}, UNITS),
        ("llama", {"heads_out": "self_attn.k_proj"}, r"'self_attn\.k_proj' of llama is no projection to 32 numbers"),
        ("llama", {"heads_out": "mlp.down_proj"}, r"attn\.0 of llama, LlamaAttention, neither holds 'mlp\.down_proj'"),
        ("llama", {"heads_out": "self_attn"}, r"'self_attn' of llama is no projection"),
        ("llama", {"heads_out": "input_layernorm"}, r"'input_layernorm' of llama is no projection"),
        ("llama", {"heads_out": "self_attn.dense"}, r"no module 'self_attn\.dense'"),
        ("llama", {"neurons_out": "mlp.gate_proj"}, r"'mlp\.gate_proj' of .* is no projection to 32 numbers"),
        ("llama", {"neurons_out": "self_attn.o_proj"}, r"mlp\.0 of llama, LlamaMLP, neither holds 'self_attn\.o_proj'"),
        ("gpt2", {"heads_out": "attn.c_attn"}, r"'attn\.c_attn' of .* is no projection to 32 numbers"),
        ("gpt2", {"neurons_out": "mlp.c_fc"}, r"'mlp\.c_fc' of .* is no projection to 32 numbers"),
        ("gemma2", {"heads_out": "self_attn.q_proj"}, UNITS),
        ("gemma2", {"heads_out": "mlp.down_proj"}, UNITS),
        ("olmo2", {"neurons_out": "self_attn.o_proj"}, UNITS),
        ("opt", {"heads_out": "self_attn.v_proj"}, UNITS),
    ],
)
def test_wrong_anatomies_are_refused(case, mistake, refused_for):
    right = tiny(case)
    with pytest.raises(HydrascopeError, match=refused_for) as error:
        self_check.require_valid(LanguageModel(right.hf, anatomy=replace(right.anatomy, **mistake), name=case))
    assert "\n" not in str(error.value)


def test_the_number_of_heads_is_the_configuration_s_word():
    """Sums can't tell it: however columns are cut into heads, the heads and the bias add up to the sublayer."""
    right = tiny("llama")
    right.hf.config.num_attention_heads = 2
    wrong = LanguageModel(right.hf, name="two heads")
    assert len(wrong.units(wrong.sublayers[0])) == 2
    self_check.require_valid(wrong)


FOLLOWS = "an MLP reads the output of its block's attention"


def deep(case, pruned, kind="attn", layers=5, parallel=False):
    """A model of several blocks, in some of which attention or MLPs write nothing."""
    model_type, settings = CONFIGS[case]
    torch.manual_seed(0)
    options = {**settings, "num_hidden_layers": layers, "use_parallel_residual": parallel}
    hf = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **options))
    model = LanguageModel(hf, name=case)
    with torch.no_grad():
        for parameter in hf.parameters():
            parameter.copy_(0.2 * torch.randn_like(parameter))
        for layer in pruned:
            for parameter in model.projection(Component(layer, kind)).module.parameters():
                parameter.zero_()
    return model


def found(model):
    return {identity.name: identity.passed for identity in self_check.check(model)}


@pytest.mark.parametrize("kind", ["attn", "mlp"])
@pytest.mark.parametrize("pruned", [[0], [0, 2, 4], range(5)])
def test_sublayers_that_write_nothing_are_no_mistake(kind, pruned):
    """Ablating what writes nothing moves no MLP, and an MLP that writes nothing isn't moved: where there is no other
    block, nothing can be told of who follows whom."""
    identities = found(deep("gpt_neox-sequential", pruned, kind))
    assert all(identities.values())
    assert (FOLLOWS in identities) == (len(pruned) < 5)


def test_a_bias_alone_is_no_mistake_either():
    model = deep("gpt_neox-sequential", range(5))
    with torch.no_grad():
        for block in range(5):
            model.projection(Component(block, "attn")).module.bias.fill_(1)
    assert all(found(model).values())


def test_a_mistake_is_found_in_the_blocks_that_are_not_pruned():
    """Of many blocks three are checked; where these are pruned, one more that isn't."""
    right = deep("gpt_neox", [0, 2, 4], parallel=True)
    wrong = LanguageModel(right.hf, anatomy=replace(right.anatomy, parallel=lambda config: False), name="wrong")
    self_check.require_valid(right)
    with pytest.raises(HydrascopeError, match=FOLLOWS):
        self_check.require_valid(wrong)


def test_a_broken_model_is_refused():
    model = tiny("llama")
    with torch.no_grad():
        model.blocks[1].mlp.down_proj.weight[0, 0] = torch.nan
    with pytest.raises(HydrascopeError, match=r"llama fails the self-check: .* does not hold \(off by nan"):
        self_check.require_valid(model)


def test_a_nan_passes_no_identity():
    assert not self_check.Identity("x", float("nan"), 1.0).passed
    assert self_check.Identity("x", 1.0, 1.0).passed


def test_unknown_architecture_says_how_to_declare_it():
    with pytest.raises(HydrascopeError, match=r"hydrascope\.declare\('deepcraft'.*Anatomy"):
        anatomy_of("deepcraft")


def test_a_declared_architecture_is_known():
    declare("my_llama", Anatomy())
    assert anatomy_of("my_llama") == Anatomy()


def test_a_missing_module_is_named():
    with pytest.raises(HydrascopeError, match=r"no module 'mlp\.down'"):
        LanguageModel(tiny("llama").hf, anatomy=Anatomy(mlp_out="mlp.down"))
