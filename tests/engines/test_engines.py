"""The two engines give one answer, on every architecture, and it satisfies what holds for any model."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import CONFIGS, VOCABULARY, tiny, tolerance

from hydrascope.components import Component
from hydrascope.engines import CLEAN, Effects, Request, Row, choose, reference, sweep_plan, wavefront
from hydrascope.errors import HydrascopeError
from hydrascope.model import LanguageModel

FAST = [case for case in CONFIGS if tiny(case).anatomy.fast]
TENSORS = [name for name in Effects.__dataclass_fields__ if name != "clean_error"]

lengths = st.lists(st.integers(1, 11), min_size=1, max_size=4)


def some_request(model: LanguageModel, lengths: list[int], patches: int, seed: int, rows=()) -> Request:
    """The paper's plan with random patches, and `rows` after it."""
    generator = torch.Generator().manual_seed(seed)
    tokens = [torch.randint(VOCABULARY, (length,), generator=generator).tolist() for length in lengths]
    targets = torch.randint(VOCABULARY, (len(lengths),), generator=generator)
    values = {
        component: torch.randn(len(lengths), patches, model.width, generator=generator, dtype=torch.float64).to(
            model.dtype
        )
        for component in model.components
    }
    return Request(tokens, targets, (*sweep_plan(model.components, patches), *rows), values)


def some_joint_rows(draw, components: tuple[Component, ...], patches: int) -> list[Row]:
    """Rows with any overrides at once: joint ablations, frozen mediators, the clean run."""
    value = st.one_of(st.integers(0, patches - 1), st.just(CLEAN))
    overrides = st.dictionaries(st.sampled_from(components), value, max_size=4)
    return [Row(tuple(draw(overrides).items())) for _ in range(draw(st.integers(0, 4)))]


def assert_same(found: Effects, expected: Effects, tolerance: float) -> None:
    size = max(float(getattr(expected, name).abs().max()) for name in TENSORS)
    for name in TENSORS:
        error = (getattr(found, name) - getattr(expected, name)).abs().max()
        assert float(error) <= tolerance * size, name


@pytest.mark.parametrize("case", FAST)
@settings(max_examples=6, deadline=None)
@given(data=st.data(), lengths=lengths, patches=st.integers(1, 3), seed=st.integers(0, 1000))
def test_wavefront_gives_what_plain_forward_passes_give(case, data, lengths, patches, seed):
    model = tiny(case, seed=seed % 3)
    rows = some_joint_rows(data.draw, model.components, patches)
    request = some_request(model, lengths, patches, seed, rows)
    assert_same(wavefront.measure(model, request), reference.measure(model, request), tolerance(case))


@pytest.mark.parametrize("case", ["gpt2", "llama", "gemma2", "gpt_oss"])
def test_wavefront_in_float32(case):
    model = tiny(case, torch.float32)
    request = some_request(model, [9, 3, 6], 2, seed=0)
    # 1e-4: float32 rounding through three layers, relative to the largest effect.
    assert_same(wavefront.measure(model, request), reference.measure(model, request), 1e-4)


@pytest.mark.parametrize("case", list(CONFIGS))
def test_the_books_balance(case):
    """total = the change of every component downstream, the ablated one and the norm's, for every row."""
    model = tiny(case)
    request = some_request(model, [8, 2], 2, seed=1)
    effects = choose(model).measure(model, request)
    total = effects.row_logit - effects.logit[:, None]
    norm = effects.row_logit - effects.row_frozen
    for number, row in enumerate(request.rows):
        moved = [row.start, *model.downstream(row.start)]
        places = [model.components.index(component) for component in moved]
        change = (effects.row_unembed[:, number] - effects.unembed)[:, places].sum(-1)
        size = effects.row_unembed.abs().max()
        torch.testing.assert_close(total[:, number], change + norm[:, number], rtol=0, atol=tolerance(case) * size)


@pytest.mark.parametrize("case", list(CONFIGS))
def test_upstream_never_changes_and_own_value_changes_nothing(case):
    model = tiny(case)
    rows = [Row(((component, CLEAN),)) for component in model.components]
    request = some_request(model, [7, 4], 1, seed=2, rows=rows)
    effects = choose(model).measure(model, request)
    size = float(effects.row_unembed.abs().max()) * 1e-12
    for number, row in enumerate(request.rows):
        change = (effects.row_unembed[:, number] - effects.unembed).abs().amax(0)
        below = {row.start, *model.downstream(row.start)}
        for place, component in enumerate(model.components):
            if component not in below or row.overrides[0][1] is CLEAN:
                assert float(change[place]) <= size, (row, component)
    torch.testing.assert_close(effects.row_logit[:, -len(rows) :], effects.logit[:, None].expand(-1, len(rows)))


@pytest.mark.parametrize("case", ["gpt2", "llama", "gpt_neox"])
def test_direct_and_indirect_effect_by_definition(case):
    """Def. 3.3 and 3.4 with frozen mediators: rows in which everything downstream keeps its clean value."""
    model = tiny(case)
    frozen = [
        Row(((component, 0), *((below, CLEAN) for below in model.downstream(component))))
        for component in model.components
    ]
    request = some_request(model, [6, 9], 1, seed=3, rows=frozen)
    effects = choose(model).measure(model, request)
    ablated = slice(0, len(model.components))
    frozen_logit = effects.row_logit[:, len(model.components) :]
    torch.testing.assert_close(effects.row_direct[:, ablated], frozen_logit, rtol=0, atol=1e-7)


def plain_gpt2(model: LanguageModel, tokens: list[int], ablated: Component, patch: torch.Tensor) -> torch.Tensor:
    """GPT-2 written out block by block, without hooks: its logits at the last position of an ablated run."""
    gpt = model.hf.transformer
    hidden = gpt.wte(torch.tensor([tokens])) + gpt.wpe(torch.arange(len(tokens)))
    for number, block in enumerate(gpt.h):
        added = attention_by_hand(block.attn, block.ln_1(hidden))
        if ablated == Component(number, "attn"):
            added[:, -1] = patch
        hidden = hidden + added
        added = block.mlp(block.ln_2(hidden))
        if ablated == Component(number, "mlp"):
            added[:, -1] = patch
        hidden = hidden + added
    return (gpt.ln_f(hidden) @ gpt.wte.weight.T)[0, -1]


def attention_by_hand(attn, hidden: torch.Tensor) -> torch.Tensor:
    query, key, value = (hidden @ attn.c_attn.weight + attn.c_attn.bias).chunk(3, dim=-1)
    heads = []
    for q, k, v in zip(query.chunk(4, -1), key.chunk(4, -1), value.chunk(4, -1), strict=True):
        scores = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5
        future = torch.ones_like(scores).triu(1).bool()
        heads.append(scores.masked_fill(future, -torch.inf).softmax(-1) @ v)
    return torch.cat(heads, -1) @ attn.c_proj.weight + attn.c_proj.bias


def test_total_effect_against_a_model_written_out():
    """Eq. 12 with every logit of a GPT-2 that shares nothing with the engines but its weights."""
    model = tiny("gpt2")
    request = some_request(model, [6, 1, 11], 2, seed=4)
    for engine in (reference, wavefront):
        effects = engine.measure(model, request)
        for prompt, tokens in enumerate(request.tokens):
            for number, row in enumerate(request.rows):
                component, patch = row.overrides[0]
                logits = plain_gpt2(model, tokens, component, request.patches[component][prompt, patch])
                expected = logits[request.targets[prompt]] - logits.mean()
                torch.testing.assert_close(effects.row_logit[prompt, number], expected, rtol=1e-10, atol=1e-10)


def test_unembed_by_the_logit_lens():
    """Eq. 7–10: each component through the final norm at the clean scale and the whole unembedding, centred."""
    model = tiny("gpt2")
    request = some_request(model, [5], 1, seed=5)
    tokens = request.tokens[0]
    hidden = model.hf(torch.tensor([tokens]), output_hidden_states=True).hidden_states
    block, gpt = 1, model.hf.transformer
    attention = attention_by_hand(gpt.h[block].attn, gpt.h[block].ln_1(hidden[block]))[0, -1]
    final = hidden[block + 1]
    for later in gpt.h[block + 1 :]:
        final = later(final)
    final = final[0, -1]
    scale = ((final - final.mean()).square().mean() + model.norm_eps).sqrt()
    lens = ((attention - attention.mean()) / scale * gpt.ln_f.weight) @ gpt.wte.weight.T
    expected = lens[request.targets[0]] - lens.mean()
    for engine in (reference, wavefront):
        place = model.components.index(Component(block, "attn"))
        found = engine.measure(model, request).unembed[0, place]
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_padding_and_company_change_nothing():
    """A prompt's effects do not depend on what it is batched with."""
    model = tiny("gemma3_text")
    together = some_request(model, [11, 2, 6], 2, seed=6)
    effects = wavefront.measure(model, together)
    for prompt in range(3):
        alone = Request(
            together.tokens[prompt : prompt + 1],
            together.targets[prompt : prompt + 1],
            together.rows,
            {component: values[prompt : prompt + 1] for component, values in together.patches.items()},
        )
        single = wavefront.measure(model, alone)
        for name in TENSORS:
            torch.testing.assert_close(
                getattr(effects, name)[prompt], getattr(single, name)[0], rtol=1e-6, atol=1e-6, msg=name
            )


def test_choose():
    assert choose(tiny("llama")).name == "wavefront"
    assert choose(tiny("mpt")).name == "reference"
    assert "AttentionInterface" in choose(tiny("mpt")).reason
    with pytest.raises(HydrascopeError, match="cannot carry"):
        choose(tiny("mpt"), "wavefront")
    with pytest.raises(HydrascopeError, match="unknown engine 'warp'"):
        choose(tiny("llama"), "warp")


def test_the_model_is_left_as_it_was():
    """Hooks, attention and activations are the model's own again, also after an error."""
    model = tiny("gpt2")
    tokens = torch.tensor([[5, 6, 7]])
    before = model.hf(tokens).logits
    request = some_request(model, [3], 1, seed=7)
    wavefront.measure(model, request)
    broken = Request(request.tokens, request.targets, request.rows, {})
    with pytest.raises(KeyError):
        wavefront.measure(model, broken)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.hf.modules())
    assert not any("forward" in vars(module) for module in model.hf.modules())
    assert torch.equal(model.hf(tokens).logits, before)
