"""`answer_log_prob` against plain passes of the model, and identities that hold for any model."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from asked import PLACES, TENSORS, assert_same, heads, neurons, random_runs, request, several_readouts
from hypothesis import given, settings
from hypothesis import strategies as st
from ropes import LIMIT, roped
from tiny import CONFIGS, shared, tolerance
from torch import Tensor

from hydrascope.components.component import Component, Override
from hydrascope.engines import ENGINES, Request, choose_engine, reference, wavefront
from hydrascope.engines.clean.clean_pass import compute_clean_pass_at
from hydrascope.engines.metrics import resolve_metrics
from hydrascope.models.hooks import hooked, on_output
from hydrascope.models.language_model import LanguageModel

FAST = [case for case in CONFIGS if shared(case).anatomy.supports_wavefront]
#: Every architecture at one place, GPT-2 at each.
SOMEWHERE = [(case, PLACES[number % len(PLACES)]) for number, case in enumerate(FAST)]
SOMEWHERE += [("gpt2", at) for at in PLACES if ("gpt2", at) not in SOMEWHERE]
QUICK = ("gpt2", "gemma2", "gpt_neox")
#: Prompts of several lengths, with answers of one to four tokens; two of three tokens, which share a pass.
LENGTHS, ANSWERS = (6, 3, 5, 4, 1), (1, 2, 3, 4, 3)
METRIC = ["answer_log_prob"]


def ask(model: LanguageModel, runs: Sequence, at: str = "last", **options) -> Request:
    return request(model, runs, LENGTHS, at, answers=ANSWERS, metrics=options.pop("metrics", METRIC), **options)


@torch.no_grad()
def plainly(
    model: LanguageModel, tokens: list[int], answer: list[int], writes: dict[Component, tuple[Tensor, Tensor]]
) -> float:
    """Σ log p of an answer's tokens, one forward pass for each, some sublayers' outputs replaced at some positions."""

    def write(positions: Tensor, values: Tensor):
        def change(hidden: Tensor) -> None:
            hidden.view(1, -1, hidden.shape[-1])[0, positions] = values

        return change

    total = 0.0
    for number, token in enumerate(answer):
        handles = [on_output(model.output(sublayer), write(*what)) for sublayer, what in writes.items()]
        with model.measuring(), hooked(handles):
            logits = model.hf(torch.tensor([[*tokens, *answer[:number]]]), use_cache=False).logits[0, -1]
        total += float(logits.log_softmax(-1)[token])
    return total


@pytest.mark.parametrize(
    ("case", "at"),
    [
        ("gpt2", "span"),
        *zip(["llama", "gemma2", "cohere", "gpt_neox"], PLACES, strict=True),
        *(pytest.param(case, "all", marks=pytest.mark.slow) for case in ("gpt2", "mixtral", "bloom", "gptj", "opt")),
    ],
)
def test_it_is_the_sum_of_what_plain_passes_give_token_by_token(case: str, at: str) -> None:
    model = shared(case)
    asked = ask(model, ["attn.0", "mlp.1", "attn.0+mlp.2"], at)
    found = [ENGINES[name](model, asked) for name in ENGINES if name == "reference" or model.anatomy.supports_wavefront]
    for prompt, (tokens, answer) in enumerate(zip(asked.tokens, asked.answers, strict=True)):
        atol = max(tolerance(case), 1e-11) * 20 * len(answer)
        expected = plainly(model, tokens, answer, {})
        assert [float(each.metrics[0, prompt]) for each in found] == pytest.approx([expected] * len(found), abs=atol)
        for number, override in enumerate(asked.overrides):
            for patch in range(asked.patches):
                writes = {
                    sublayer: (asked.positions[prompt], asked.values(sublayer)[prompt, patch])
                    for sublayer in override.ablated
                }
                expected = plainly(model, tokens, answer, writes)
                measured = [float(each.metrics_ablated[0, prompt, number, patch]) for each in found]
                assert measured == pytest.approx([expected] * len(found), abs=atol)


def every_kind_of_run(model: LanguageModel) -> list[Override]:
    """Sublayers, heads and neurons; several together; sublayers, heads and inputs frozen; one sublayer that reacts."""
    some = [*model.sublayers[::2], *heads(model)[1::5], *neurons(model)[::25]]
    labels = ["attn.0+mlp.1", "head.0.1+head.2.3", "head.0.1+head.0.2", "attn.0|mlp.1", "head.0.1|head.1.1|mlp.2"]
    labels += ["attn.0|query.1.1", "mlp.0|key.1.1|value.2.0", "attn.0|attn.1|key.2.0|value.2.2"]
    return [*(Override((component,)) for component in some), *map(Override.parse, labels), *one_may_react(model)]


def one_may_react(model: LanguageModel) -> list[Override]:
    """All after attn.0 frozen; and all but one sublayer, or but one head of it."""
    first = model.sublayers[0]
    below = [sublayer for sublayer in model.sublayers if model.stage(sublayer) > model.stage(first)]
    others = [tuple(sublayer for sublayer in below if sublayer != reacts) for reacts in below]
    partly = (*others[-2], *model.units(below[-2])[1:]) if below[-2].kind == "attn" else others[-2]
    return [Override((first,), frozen) for frozen in (tuple(below), *others, partly)]


@pytest.mark.parametrize(
    ("case", "at"),
    [pytest.param(*each, marks=() if each[0] in QUICK else pytest.mark.slow) for each in SOMEWHERE],
)
def test_both_engines_give_the_same(case: str, at: str) -> None:
    model = shared(case)
    asked = ask(model, every_kind_of_run(model), at, units=heads(model)[:2], metrics=["kl", *METRIC, "top"])
    assert_same(wavefront.measure(model, asked), reference.measure(model, asked), tolerance(case))


@pytest.mark.slow
@pytest.mark.parametrize("case", ["gpt2", "gemma3_text", "gpt_neox", "gpt_oss"])
@settings(max_examples=4, deadline=None)
@given(data=st.data(), at=st.sampled_from(PLACES), patches=st.integers(1, 3), seed=st.integers(0, 100))
def test_both_engines_give_the_same_for_any_plan(case: str, data, at: str, patches: int, seed: int) -> None:
    model = shared(case)
    asked = ask(model, data.draw(random_runs(model)), at, patches=patches, seed=seed)
    assert_same(wavefront.measure(model, asked), reference.measure(model, asked), tolerance(case))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("at", ["last", "span"])
def test_answers_of_one_token_have_their_log_prob_to_the_bit(engine: str, at: str) -> None:
    model = shared("gpt2")
    asked = request(model, every_kind_of_run(model), (5, 3), at, answers=(1, 1), metrics=METRIC)
    (first,), (second,) = asked.answers
    alike = replace(asked, targets=torch.tensor([first, second]), metrics=resolve_metrics(["log_prob"]))
    found, expected = (ENGINES[engine](model, each) for each in (asked, alike))
    assert torch.equal(found.metrics, expected.metrics)
    assert torch.equal(found.metrics_ablated, expected.metrics_ablated)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("at", ["last", "span"])
def test_all_other_readings_stay_to_the_bit(engine: str, at: str) -> None:
    model = shared("llama")
    ask_for = {"units": heads(model), "readouts": several_readouts(model, len(LENGTHS))}
    runs = ["attn.0", "head.1.2", "neuron.1.3", "attn.0|mlp.1", "attn.0|query.1.1", *one_may_react(model)]
    found = ENGINES[engine](model, ask(model, runs, at, metrics=["log_prob", *METRIC], **ask_for))
    expected = ENGINES[engine](model, ask(model, runs, at, metrics=["log_prob"], **ask_for))
    for name in TENSORS:
        one, other = getattr(found, name), getattr(expected, name)
        assert torch.equal(one[:1] if name.startswith("metrics") else one, other), name


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("at", ["last", "span"])
def test_a_component_that_writes_what_it_wrote_changes_nothing(engine: str, at: str) -> None:
    """The patch stands where it came from: at the prompt's positions, and no later."""
    model = shared("gpt2")
    asked = ask(model, ["attn.0", "mlp.1", "head.1.2"], at)
    numbers = torch.arange(len(LENGTHS)).repeat_interleave(asked.positions.shape[1])
    sites = (*model.sublayers, Component(1, "head"))
    clean = compute_clean_pass_at(model, asked.tokens, numbers, asked.positions.flatten(), sites)

    def own(component: Component) -> Tensor:
        values = clean.values[component.site].unflatten(0, asked.positions.shape)[:, None]
        return values[..., model.columns(component)].expand(-1, asked.patches, -1, -1)

    readings = ENGINES[engine](model, replace(asked, values=own))
    torch.testing.assert_close(
        readings.metrics_ablated, readings.metrics[..., None, None].expand_as(readings.metrics_ablated)
    )


def test_an_answer_s_positions_react_to_the_ablation() -> None:
    """They attend to the ablated position: log p of later tokens changes, too."""
    model = shared("llama")
    asked = ask(model, ["attn.0", "mlp.1"])
    firsts = replace(asked, answers=[answer[:1] for answer in asked.answers])
    whole, first = (wavefront.measure(model, each) for each in (asked, firsts))
    later, clean = whole.metrics_ablated - first.metrics_ablated, whole.metrics - first.metrics
    change = (later - clean[..., None, None]).abs()
    assert bool((change[0, 1:] > 1e-6).all())
    assert not bool(change[0, 0].any())


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("rope", ["longrope", "dynamic"])
def test_prompts_whose_answers_cross_the_limit_of_a_table(rope: str, engine: str) -> None:
    """Each is run with the table of its own length, continued: as transformers runs it alone."""
    model = roped("llama", rope)
    asked = request(model, ["attn.0", "mlp.1"], (LIMIT - 1, LIMIT - 2, 3), "last", answers=(3, 3, 4), metrics=METRIC)
    readings = ENGINES[engine](model, asked)
    for prompt, (tokens, answer) in enumerate(zip(asked.tokens, asked.answers, strict=True)):
        together = torch.tensor([[*tokens, *answer[:-1]]])
        for number, override in enumerate(asked.overrides):
            (sublayer,) = override.ablated

            value = asked.values(sublayer)[prompt, 0, 0]

            def write(hidden: Tensor, at: int = len(tokens) - 1, value: Tensor = value) -> None:
                hidden[0, at] = value

            with model.measuring(), hooked([on_output(model.output(sublayer), write)]):
                log_p = model.hf(together, use_cache=False).logits[0, -len(answer) :].log_softmax(-1)
            expected = float(log_p[torch.arange(len(answer)), answer].sum())
            assert float(readings.metrics_ablated[0, prompt, number, 0]) == pytest.approx(expected, abs=1e-4)


def test_a_batch_gives_what_each_prompt_gives_alone() -> None:
    model = shared("gemma3_text")
    asked = ask(model, ["attn.0", "head.1.2", "attn.0|mlp.1"], "span")
    found = choose_engine(model).measure(model, asked)
    for prompt in range(len(LENGTHS)):
        one = slice(prompt, prompt + 1)
        (linear,) = asked.readouts.rows
        linear = replace(
            linear, direction=linear.direction[one], constant=linear.constant[one], tokens=(linear.tokens[0][one], None)
        )
        alone = replace(
            asked,
            tokens=asked.tokens[one],
            positions=asked.positions[one],
            targets=asked.targets[one],
            answers=asked.answers[one],
            values=lambda component, one=one: asked.values(component)[one],
            readouts=replace(asked.readouts, rows=(linear,)),
        )
        single = choose_engine(model).measure(model, alone)
        for name in ("metrics", "metrics_ablated"):
            torch.testing.assert_close(getattr(found, name)[:, one], getattr(single, name), rtol=1e-6, atol=1e-6)
