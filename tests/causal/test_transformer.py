"""The definitions of section 3, evaluated on a causal model, give what both engines measure (section 2)."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from asked import request, sizes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rest_slow import rest_slow
from tiny import CONFIGS, VOCABULARY, shared, tiny, tiny_tokenizer, tolerance

from hydrascope.causal import (
    compensatory_effect,
    contribution,
    direct_effect,
    expected_effect,
    frozen_effect,
    indirect_effect,
    noise,
    resample,
    total_effect,
    value_in,
)
from hydrascope.causal.transformer import every_position_scm, final_position_scm, token_embeddings, with_scale
from hydrascope.components.component import Component, Override
from hydrascope.components.order import downstream
from hydrascope.engines import ENGINES, Readings, Request
from hydrascope.engines.clean.clean_pass import compute_clean_pass
from hydrascope.engines.readouts import Logit, Readouts, Tokens
from hydrascope.models.hooks import by_prompt, hooked, on_output
from hydrascope.models.language_model import LanguageModel
from hydrascope.utils.errors import HydrascopeError

#: Sequential and parallel, LayerNorm and RMSNorm, with post-norms and without.
VARIED = ["gpt2", "gpt_neox", "llama", "gemma2", "bloom", "opt"]


def tokens(seed: int, length: int) -> list[int]:
    return torch.randint(VOCABULARY, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def patched(model: LanguageModel, prompt: list[int], other: list[int], overrides: list[Override]) -> Request:
    """Runs of `prompt` in which ablated sublayers write what they write in `other`; its likeliest token is read."""
    clean = compute_clean_pass(model, [other]).values
    target = compute_clean_pass(model, [prompt]).logits(model).argmax(-1)
    readouts = Readouts.of(model, [Logit()], Tokens(target.tolist()), [0])
    asked = request(model, overrides, (len(prompt),), patches=1)
    return replace(
        asked, tokens=[prompt], targets=target, readouts=readouts, values=lambda layer: clean[layer][:, None, None]
    )


def measured(model: LanguageModel, asked: Request) -> list[Readings]:
    engines = [name for name in ENGINES if model.anatomy.supports_wavefront or name == "reference"]
    return [ENGINES[name](model, asked) for name in engines]


def close(found, expected, case: str, size: float) -> None:
    # `tolerance` is 1e-9 where the whole model computes in float64, and 1e-5 where transformers computes its norms
    # (all RMSNorms, Cohere's LayerNorm) in float32 whatever the model's dtype.
    torch.testing.assert_close(torch.as_tensor(found), torch.as_tensor(expected), rtol=0, atol=tolerance(case) * size)


@pytest.mark.parametrize("case", list(CONFIGS))
def test_values_are_the_model_s_own(case):
    model, prompt = shared(case), tokens(0, 6)
    scm, clean = final_position_scm(model), compute_clean_pass(model, [prompt])
    values = scm.evaluate({"prompt": prompt})
    size = float(clean.written(model).abs().max())
    for component, written in zip(model.sublayers, clean.written(model)[0], strict=True):
        close(values[str(component)], written, case, size)
    close(values["embed"], clean.embed[0], case, size)
    close(values["residual"], clean.final[0], case, size)
    logits = clean.logits(model)[0].detach()
    close(values["logits"], logits - logits.mean(), case, float(logits.abs().max()))


@pytest.mark.usefixtures("passes_once")
@pytest.mark.parametrize("case", rest_slow(CONFIGS))
def test_effects_by_definition_are_what_the_engines_measure(case):
    model, prompt, other = shared(case), tokens(1, 7), tokens(2, 4)
    scm, u = final_position_scm(model), {"prompt": prompt}
    ablated = [Component(0, "attn"), Component(1, "mlp"), Component(2, "attn")]
    asked = patched(model, prompt, other, [Override((component,)) for component in ablated])
    target = int(asked.targets)
    found = [
        [effect(scm, {str(c): value_in({"prompt": other})}, "logits", u)[target] for c in ablated]
        for effect in (total_effect, direct_effect, indirect_effect)
    ]
    for readings in measured(model, asked):
        for effect, after in zip(
            found, (readings.logit_ablated, readings.logit_direct, readings.logit_indirect), strict=True
        ):
            close(torch.stack(effect), (after - readings.logit[..., None, None]).flatten(), case, sizes(readings)[0])


@pytest.mark.usefixtures("passes_once")
@pytest.mark.parametrize("case", VARIED)
@settings(max_examples=2, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 100), length=st.integers(1, 8), other=st.integers(1, 8), data=st.data())
def test_everything_the_engines_measure_has_its_definition(case, seed, length, other, data):
    model, prompt, source = shared(case, seed % 3), tokens(seed, length), tokens(seed + 1, other)
    u = {"prompt": prompt}
    ablated = data.draw(st.sampled_from(model.sublayers))
    change = {str(ablated): value_in({"prompt": source})}
    scm = final_position_scm(model)
    frozen = with_scale(model, scm).do(scale=value_in(u, with_scale(model, scm)))
    asked = patched(model, prompt, source, [Override((ablated,))])
    target = int(asked.targets)

    def unembeddings(causal_model) -> torch.Tensor:
        return torch.stack([contribution(causal_model, str(c), "logits", u)[target] for c in model.sublayers])

    after = {name: with_scale(model, scm).do(change).value(name, u) for name in ("scale", "logits")}
    definitions = {
        "logit": scm.value("logits", u)[target],
        "embed": contribution(frozen, "embed", "logits", u)[target],
        "unembed": unembeddings(with_scale(model, scm)),
        "unembed_ablated": unembeddings(frozen.do(change)),
        "logit_ablated": after["logits"][target],
        "scale": frozen.value("scale", u) / after["scale"],
    }
    at_clean_scale = frozen.do(change).value("logits", u)[target]
    below = downstream(model, Override((ablated,)), model.sublayers)
    compensation = compensatory_effect(frozen, change, "logits", u, map(str, model.sublayers))
    for readings in measured(model, asked):
        size = float(sizes(readings)[0])
        for name, value in definitions.items():
            close(value, getattr(readings, name).squeeze(), case, size)
        # At the clean run's scale the logit is linear: what is missing to the run's own is the norm's share.
        everything = readings.embed.sum() + readings.unembed_ablated.sum()
        norm = (readings.scale.squeeze() - 1) * everything
        close(after["logits"][target] - at_clean_scale, norm, case, size)
        change_below = (readings.unembed_ablated[0, 0, 0, 0] - readings.unembed[0, 0])[torch.tensor(below)].sum()
        close(compensation[target] if any(below) else compensation, change_below if any(below) else 0, case, size)


@pytest.mark.parametrize("case", ["gpt2", "gpt_neox", "llama"])
def test_effects_around_frozen_mediators_are_runs_that_freeze_them(case):
    model, prompt, other = shared(case), tokens(3, 5), tokens(4, 5)
    scm, u = final_position_scm(model), {"prompt": prompt}
    first, held = Component(0, "attn"), (Component(1, "mlp"), Component(2, "attn"))
    asked = patched(model, prompt, other, [Override((first,), held), Override((first, held[1]))])
    target = int(asked.targets)
    patch = value_in({"prompt": other})
    alone = frozen_effect(scm, {str(first): patch}, "logits", u, map(str, held))[target]
    joint = total_effect(scm, {str(first): patch, str(held[1]): patch}, "logits", u)[target]
    for readings in measured(model, asked):
        change = (readings.logit_ablated - readings.logit[..., None, None]).flatten()
        close(torch.stack([alone, joint]), change, case, sizes(readings)[0])


@pytest.mark.parametrize("case", list(CONFIGS))
def test_the_graph_is_the_anatomy(case):
    model = shared(case)
    scm = final_position_scm(model)
    names = set(map(str, model.sublayers))
    for component in model.sublayers:
        below = downstream(model, Override((component,)), model.sublayers)
        expected = {str(other) for other, follows in zip(model.sublayers, below, strict=True) if follows}
        assert scm.descendants(str(component)) & names == expected
        assert scm.descendants(str(component)) == expected | {"residual", "logits"}
        assert ("prompt" in scm.endogenous[str(component)].parents) == (component.kind == "attn")


@pytest.mark.usefixtures("passes_once")
@pytest.mark.parametrize("case", VARIED)
def test_every_position_joins_up_with_the_final_one(case):
    model, prompt, other = shared(case), tokens(5, 4), tokens(6, 4)
    every, final, u = every_position_scm(model, 4), final_position_scm(model), {"prompt": prompt}
    values, expected = every.evaluate(u), final.evaluate(u)
    size = float(expected["logits"].abs().max())
    for name, value in expected.items():
        close(values[name if name in values else f"{name}@3"], value, case, size)
    for effect in (total_effect, direct_effect, indirect_effect):
        found = effect(every, {"attn.1@3": value_in({"prompt": other})}, "logits", u)
        close(found, effect(final, {"attn.1": value_in({"prompt": other})}, "logits", u), case, size)


@pytest.mark.parametrize("case", VARIED)
def test_interventions_at_earlier_positions_are_a_hooked_run(case):
    model, prompt = tiny(case), tokens(7, 4)
    scm, u = every_position_scm(model, 4), {"prompt": prompt}
    patch = torch.randn(model.width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    cap = getattr(model.config, "final_logit_softcapping", None)
    model.hf.config.final_logit_softcapping = None

    def override(hidden: torch.Tensor) -> None:
        by_prompt(hidden, 1)[0, 1] = patch / model.residual_scale

    with model.measuring(), hooked([on_output(model.output(Component(0, "mlp")), override)]):
        logits = model.hf(torch.tensor([prompt])).logits[0, -1]
    model.hf.config.final_logit_softcapping = cap
    found = scm.do({"mlp.0@1": patch}).value("logits", u)
    close(found, logits - logits.mean(), case, float(logits.abs().max()))
    # What is not at the final position acts on the logits through attention alone.
    assert total_effect(scm, {"mlp.0@1": patch}, "logits", u).abs().max() > 1e-3
    assert direct_effect(scm, {"mlp.0@1": patch}, "logits", u).abs().max() == 0
    attention = [f"attn.{block}@{i}" for block in range(3) for i in range(4)]
    assert frozen_effect(scm, {"mlp.0@1": patch}, "logits", u, attention).abs().max() == 0


def test_the_past_is_not_downstream_of_the_future():
    scm = every_position_scm(tiny("gpt2"), 3)
    later = scm.descendants("attn.0@1")
    assert not any(name.endswith("@0") for name in later)
    assert {"attn.1@1", "attn.1@2", "mlp.0@1", "logits"} <= later
    assert "attn.0@2" not in later
    assert "mlp.0@2" not in later


def test_a_prompt_is_a_text_its_tokens_or_their_embeddings():
    model = tiny("llama")
    model.tokenizer = tiny_tokenizer()
    scm, ids = final_position_scm(model), model.encode("hello")
    logits = scm.value("logits", {"prompt": ids})
    for prompt in ("hello", torch.tensor(ids), tuple(ids), token_embeddings(model, "hello")):
        torch.testing.assert_close(scm.value("logits", {"prompt": prompt}), logits)


def test_noise_goes_to_the_token_embeddings():
    model = tiny("gpt2")
    scm, u = final_position_scm(model), {"prompt": token_embeddings(model, tokens(0, 5))}
    effect = partial(expected_effect, total_effect, scm, outcome="logits", context=u, draws=2)
    assert effect(change={"attn.1": noise(0.0)}).abs().max() < 1e-12
    assert effect(change={"attn.1": noise(0.3)}).abs().max() > 1e-3


def test_resampling_draws_from_the_given_prompts():
    model = tiny("gpt2")
    prompts = [tokens(seed, 4) for seed in range(2)]
    scm, u = final_position_scm(model, prompts), {"prompt": tokens(9, 6)}
    ablated = scm.do({"attn.1": resample()})
    patches = {float(ablated.value("attn.1", ablated.sample(u, draw=draw))[0]) for draw in range(12)}
    assert patches == {float(scm.value("attn.1", {"prompt": prompt})[0]) for prompt in prompts}


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([], "no tokens"),
        ([1] * 65, "65 tokens: the model takes at most 64"),
        ([0.5, 1.0], "a prompt is a text"),
        (torch.zeros(2, 3, 4), "a prompt is a text"),
        ("hello", "without a tokenizer"),
    ],
)
def test_prompts_that_are_none(prompt, message):
    with pytest.raises(HydrascopeError, match=message):
        final_position_scm(tiny("llama")).value("logits", {"prompt": prompt})


def test_errors_name_the_thing():
    model = tiny("llama")
    with pytest.raises(HydrascopeError, match="has 3 tokens: this causal model takes 2"):
        every_position_scm(model, 2).value("logits", {"prompt": [1, 2, 3]})
    with pytest.raises(HydrascopeError, match="at least one token"):
        every_position_scm(model, 0)
    with pytest.raises(HydrascopeError, match="no distribution"):
        final_position_scm(model).sample()
    with pytest.raises(HydrascopeError, match="without a variable 'scale' yet"):
        with_scale(model, with_scale(model, final_position_scm(model)))
