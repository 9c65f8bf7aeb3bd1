"""GIM: each rule against its formula, in models that have its gradient by nature, and turned off."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import CONFIGS, shared, tiny
from torch import nn
from toward import PROMPTS

import hydrascope as hs
from hydrascope.analyses.attribution import Rules, atp, gim
from hydrascope.analyses.attribution.backward_rules import (
    frozen_norm,
    half_gradient,
    require_supported,
    ruled_attention,
    tempered_softmax,
)
from hydrascope.engines.attention import AttentionInputs
from hydrascope.models.language_model import LanguageModel
from hydrascope.utils.errors import HydrascopeError

PARTS = "layers,heads,neuron.1.3"
NEUTRAL = Rules(1.0, False, False)
EXPERTS = {"mixtral", "qwen3_moe", "deepseek_v3", "gpt_oss"}
PLAIN = {"gpt2", "gpt_neox", "gpt_neox-sequential", "opt", "opt-plain", "phi", "starcoder2", "nemotron"}


def estimate(method, case_or_model, **options) -> np.ndarray:
    model = shared(case_or_model) if isinstance(case_or_model, str) else case_or_model
    return method(model, PROMPTS, hs.Zero(), ablate=PARTS, at=[-1, -2], **options)["estimate"].values


def fast() -> list[str]:
    return [case for case in CONFIGS if shared(case).anatomy.supports_wavefront and case not in EXPERTS]


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 999), size=st.integers(1, 6), temperature=st.floats(0.5, 4))
def test_tempered_softmax_has_the_jacobian_of_a_flatter_one(seed, size, temperature):
    generator = torch.Generator().manual_seed(seed)
    scores = (3 * torch.randn(1, 1, 1, size, generator=generator, dtype=torch.float64)).requires_grad_()
    above = torch.randn(size, generator=generator, dtype=torch.float64)
    found = tempered_softmax(scores, temperature)
    torch.testing.assert_close(found, scores.softmax(-1))
    (slope,) = torch.autograd.grad(found, scores, above.view_as(scores))
    p = torch.exp(scores.detach().flatten() / temperature)
    p = p / p.sum()
    jacobian = torch.diag(p) - torch.outer(p, p)
    torch.testing.assert_close(slope.flatten(), jacobian @ above)


def test_a_factor_gets_half_of_its_gradient():
    a, b = torch.tensor([3.0, -5.0], requires_grad=True)
    product = half_gradient(a) * half_gradient(b)
    assert product == -15
    assert torch.autograd.grad(product, [a, b]) == (-2.5, 1.5)


@pytest.mark.parametrize("centred", [False, True])
def test_a_frozen_norm_is_linear(centred):
    x = torch.randn(4, 8, dtype=torch.float64, requires_grad=True)
    gain = torch.randn(8, dtype=torch.float64)
    own = (
        nn.functional.layer_norm(x, (8,), gain, None, 1e-3) if centred else nn.functional.rms_norm(x, (8,), gain, 1e-3)
    )
    found = frozen_norm(x, gain, 1e-3, centred=centred)
    torch.testing.assert_close(found, own)
    above = torch.randn(4, 8, dtype=torch.float64)
    (slope,) = torch.autograd.grad(found, x, above)
    y = x.detach() - x.detach().mean(-1, keepdim=True) if centred else x.detach()
    expected = above * gain / (y.square().mean(-1, keepdim=True) + 1e-3).sqrt()
    torch.testing.assert_close(slope, expected - expected.mean(-1, keepdim=True) if centred else expected)


@pytest.mark.parametrize("groups", [1, 2])
def test_attention_by_its_formula(groups):
    """Written out for every head and query: g the gradient of what it gives, p its weights, p' the flatter ones."""
    generator = torch.Generator().manual_seed(0)
    heads, length, width, scaling = 4, 5, 3, 0.7
    shapes = [(1, heads, length, width), (1, heads // groups, length, width), (1, heads // groups, length, width)]
    q, k, v = (torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True) for shape in shapes)
    above = torch.randn(shapes[0], generator=generator, dtype=torch.float64)
    mask = torch.ones(length, length, dtype=torch.bool).tril()[None, None]
    found = ruled_attention(Rules(2.0, True, True))(AttentionInputs(0, q, k, v, mask, scaling))
    slopes = torch.autograd.grad(found, [q, k, v], above)
    expected = [torch.zeros_like(each) for each in (q, k, v)]
    for head in range(heads):
        shared_head = head // groups
        for place in range(length):
            keys, values = k[0, shared_head, : place + 1].detach(), v[0, shared_head, : place + 1].detach()
            query, g = q[0, head, place].detach(), above[0, head, place]
            scores = keys @ query * scaling
            p, flatter = scores.softmax(0), (scores / 2).softmax(0)
            torch.testing.assert_close(found[0, head, place], p @ values)
            of_weights = values @ g
            of_scores = flatter * (of_weights - flatter @ of_weights)
            expected[0][0, head, place] += scaling * of_scores @ keys / 4
            expected[1][0, shared_head, : place + 1] += scaling * torch.outer(of_scores, query) / 4
            expected[2][0, shared_head, : place + 1] += torch.outer(p, g) / 2
    for slope, wanted in zip(slopes, expected, strict=True):
        torch.testing.assert_close(slope, wanted)


@pytest.mark.parametrize("case", fast())
def test_with_every_rule_off_it_is_atp(case):
    expected = estimate(atp, case)
    # Float32 inside some architectures, rounded otherwise by another attention.
    np.testing.assert_allclose(estimate(gim, case, rules=NEUTRAL), expected, atol=1e-5 * abs(expected).max())
    assert abs(estimate(gim, case) - expected).max() > 1e-2 * abs(expected).max()


@pytest.mark.parametrize("case", ["gpt2", "llama", "gpt_neox", "gemma2"])
def test_freezing_norms_is_atp_in_a_model_whose_norms_have_constant_scales(case):
    """What stands in the norms' place is linear: x over a number that it has in the clean run."""
    tokens = [PROMPTS[2]]
    model, readout = tiny(case), hs.Direction(np.arange(32) - 9.0, before=2)
    for norm in [each for each in model.hf.modules() if "Norm" in type(each).__name__]:
        if norm is not model.final_norm:
            norm.forward = linear(norm, offset=model.anatomy.norm_offset)
    inner = {"ablate": PARTS, "readouts": readout}
    found = atp(LanguageModel(model.hf), tokens, hs.Zero(), **inner)["estimate"].values
    expected = gim(shared(case), tokens, hs.Zero(), rules=Rules(1.0, True, False), **inner)["estimate"].values
    np.testing.assert_allclose(found, expected, atol=1e-6 * abs(expected).max())
    assert abs(found - atp(shared(case), tokens, hs.Zero(), **inner)["estimate"].values).max() > 1e-2


def linear(norm: nn.Module, offset: float):
    """The forward of `norm`, its scale what it is when it is called first."""
    kept = []

    def forward(x):
        x = x - x.mean(-1, keepdim=True) if isinstance(norm, nn.LayerNorm) else x
        eps = getattr(norm, "variance_epsilon", None) or norm.eps
        if not kept or kept[0].shape[:-1] != x.shape[:-1]:
            kept[:] = [(x.square().mean(-1, keepdim=True) + eps).sqrt().detach()]
        bias = getattr(norm, "bias", None)
        return x / kept[0] * (norm.weight + offset) + (0 if bias is None else bias)

    return forward


def test_the_final_norm_is_frozen_too():
    """The last MLP then acts as its direct effect at the clean scale says."""
    exact = hs.sweep(shared("gpt2"), PROMPTS, hs.Zero(), ablate="mlp.2")
    expected = exact["unembed_ablated"] - exact["unembed"]
    expected = expected.sel(component="mlp.2").values
    found = gim(shared("gpt2"), PROMPTS, hs.Zero(), ablate="mlp.2")["estimate"].values
    np.testing.assert_allclose(found, expected, atol=1e-9)
    free = gim(shared("gpt2"), PROMPTS, hs.Zero(), ablate="mlp.2", rules=Rules(2.0, False, True))["estimate"].values
    np.testing.assert_allclose(free, atp(shared("gpt2"), PROMPTS, hs.Zero(), ablate="mlp.2")["estimate"].values)


@pytest.mark.parametrize("case", fast())
def test_which_mlps_are_gated(case):
    expected = case not in PLAIN
    assert bool(require_supported(shared(case))) == expected
    # Attention of the last block acts directly and through the MLP above: half of the latter is left where it's gated.
    if shared(case).parallel:
        return
    model, options = shared(case), {"ablate": "attn.1,mlp.1", "readouts": hs.Direction(np.arange(32) - 9.0, before=2)}
    whole, divided = (
        gim(model, PROMPTS, hs.Zero(), rules=Rules(1.0, False, divide), **options)["estimate"]
        for divide in (False, True)
    )
    if not expected:
        np.testing.assert_allclose(divided, whole, rtol=1e-6)
        return
    frozen = hs.sweep(model, PROMPTS, hs.Zero(), **options)["direct"].mean("patch").sel(ablated="attn.1")
    whole, divided = (each.sel(ablated="attn.1") for each in (whole, divided))
    np.testing.assert_allclose(divided - frozen, (whole - frozen) / 2, atol=1e-5 * float(abs(whole).max()))


def test_what_the_rules_say_nothing_of():
    with pytest.raises(HydrascopeError, match="gim doesn't support gptj"):
        gim(shared("gptj"), PROMPTS)
    with pytest.raises(HydrascopeError, match=r"no rule for mlp\.0 of mixtral, a mixture of experts"):
        gim(shared("mixtral"), PROMPTS)
    with pytest.raises(HydrascopeError, match="invalid temperature 0"):
        Rules(0.0)
    model = tiny("gpt2")

    class OtherNorm(nn.LayerNorm):
        def forward(self, x):
            return super().forward(x).tanh()

    model.blocks[1].ln_2.__class__ = OtherNorm
    with pytest.raises(HydrascopeError, match="no rule for the norm OtherNorm"):
        gim(model, PROMPTS, hs.Zero())
