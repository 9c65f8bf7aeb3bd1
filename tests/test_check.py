"""The self-check passes right anatomies and refuses wrong ones, naming what fails."""

from dataclasses import replace

import pytest
import torch
from tiny import CONFIGS, tiny

from hydrascope import check
from hydrascope.anatomy import Anatomy, anatomy_of, declare
from hydrascope.errors import HydrascopeError
from hydrascope.model import LanguageModel


@pytest.mark.parametrize("case", list(CONFIGS))
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_every_architecture_passes(case, dtype):
    for identity in check.check(tiny(case, dtype)):
        assert identity.passed, identity


@pytest.mark.parametrize("case", ["gpt2", "llama", "gemma2", "gpt_neox"])
def test_bfloat16_passes(case):
    check.require(tiny(case, torch.bfloat16))


@pytest.mark.parametrize(
    ("case", "mistake", "refused_for"),
    [
        ("llama", {"mlp_out": "mlp.up_proj"}, "writes 48 numbers"),
        ("gemma", {"norm_offset": 0.0}, "reading the residual stream"),
        ("gpt2", {"norm_kind": "rms"}, "reading the residual stream"),
        ("llama", {"norm_kind": "layer"}, "reading the residual stream"),
        ("gpt_neox", {"parallel": lambda config: False}, "MLP reads what attention"),
        ("gpt2", {"parallel": lambda config: True}, "not downstream never changes"),
        ("granite", {"residual_scale": lambda config: 1.0}, "parts sum"),
        ("granite", {"logit_scale": lambda config: 1.0}, "model's own logits"),
        ("gemma2", {"attention_out": "self_attn"}, "parts sum"),
        ("olmo2", {"mlp_out": "mlp"}, "parts sum"),
        ("bloom", {"attention_out": "self_attention"}, "parts sum"),
    ],
)
def test_wrong_anatomies_are_refused(case, mistake, refused_for):
    right = tiny(case)
    wrong = LanguageModel(right.hf, anatomy=replace(right.anatomy, **mistake), name=case)
    with pytest.raises(HydrascopeError, match=refused_for):
        check.require(wrong)


def test_a_nan_passes_no_identity():
    assert not check.Identity("x", float("nan"), 1.0).passed


def test_unknown_architecture_says_how_to_declare_it():
    with pytest.raises(HydrascopeError, match=r"hydrascope\.declare\('mamba'.*Anatomy"):
        anatomy_of("mamba")


def test_a_declared_architecture_is_known():
    declare("my_llama", Anatomy())
    assert anatomy_of("my_llama") == Anatomy()


def test_a_missing_part_is_named():
    with pytest.raises(HydrascopeError, match=r"no part 'mlp\.down'"):
        LanguageModel(tiny("llama").hf, anatomy=Anatomy(mlp_out="mlp.down"))
