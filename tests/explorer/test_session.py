"""Compare live numbers with sweeps over the same prompts; stop in time, run the pool once."""

from dataclasses import replace

import numpy as np
import pytest
from exploring import POOL, TYPED
from live_questions import CLOSE, swept
from plain import loaded

import hydrascope as hs
from hydrascope.explorer.job_monitor import JobMonitor, StoppedError
from hydrascope.explorer.question import Question
from hydrascope.explorer.session import Session
from hydrascope.loading import self_check
from hydrascope.utils.errors import HydrascopeError

QUESTIONS = {
    "resample": Question(TYPED, patches=3),
    "another seed": Question(TYPED, patches=3, seed=5),
    "from other targets": Question(TYPED, patches=2, different_target=True),
    "another target": Question(TYPED, patches=2, target=9),
    "zero": Question(TYPED, ablation="zero"),
    "mean": Question(TYPED, ablation="mean"),
    "mean everywhere": Question(TYPED, ablation="mean", at="all"),
    "noise": Question(TYPED, ablation="noise", patches=2, noise_scale=1),
    "earlier": Question(TYPED, patches=2, at="-2"),
    "two places": Question(TYPED, patches=2, at="-3,-1"),
    "one of the pool": Question("xyz.", patches=3),
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_live_number_is_the_sweeps(session, name):
    question = QUESTIONS[name]
    prompts = [text for text in POOL if len(text) >= -min(question.positions(), default=-1)]
    prompts = prompts if question.text in prompts else [*prompts, question.text]
    runs = ["layers", "head.1.2,attn.0+mlp.1,attn.0|mlp.2"]
    found = session.measured(question, runs, JobMonitor())
    expected = swept(session, question, runs, prompts=prompts, index=prompts.index(question.text))
    assert set(found.variables) == set(expected.variables)
    for variable in expected.variables:
        if expected[variable].dtype.kind == "f" and variable != "imbalance":
            np.testing.assert_allclose(found[variable], expected[variable], **CLOSE, err_msg=str(variable))
        elif variable != "imbalance":
            assert found[variable].equals(expected[variable]), variable
    assert float(abs(found["total"]).min()) >= 0
    assert float(abs(found["total"]).max()) > 1e-3


def test_every_position_is_patched_from_prompts_that_have_it():
    pool = ("abcd", "xyz.", "Hell", "cats", "no a")
    session, question = Session(loaded(), pool), Question("dogs", patches=3, at="all")
    found = session.measured(question, "layers,head.1.2", JobMonitor())
    expected = swept(session, question, "layers,head.1.2", prompts=[*pool, "dogs"])
    for name in ("total", "direct", "unembed_ablated", "patch_prompt"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-6)
    mixed = Session(session.model, ("longer than that", *pool)).measured(question, "layers,head.1.2", JobMonitor())
    assert mixed["patch_prompt"].values.max() <= len(pool)


def test_a_twin_patches_its_prompt_alone(session):
    question = Question(TYPED, ablation="counterfactual", counterfactual="dogs and", at="all")
    found = session.measured(question, "layers", JobMonitor())
    prompts = [hs.Prompt(TYPED, counterfactual="dogs and")]
    expected = swept(session, question, "layers", prompts=prompts)
    np.testing.assert_allclose(found["total"], expected["total"], **CLOSE)
    at_subject = replace(question, at="subject", subject="cats")
    prompts = [hs.Prompt(TYPED, subject="cats", counterfactual="dogs and")]
    expected = swept(session, at_subject, "layers", prompts=prompts)
    np.testing.assert_allclose(
        session.measured(at_subject, "layers", JobMonitor())["total"], expected["total"], **CLOSE
    )
    with pytest.raises(HydrascopeError, match="has no counterfactual"):
        session.measured(replace(question, counterfactual=""), "layers", JobMonitor())


@pytest.mark.parametrize(
    ("question", "said"),
    [
        (Question(TYPED, "attn.9"), "has no attn.9: its blocks are 0 to 2"),
        (Question(TYPED, "attn"), "are 3 runs: write one"),
        (Question(TYPED, "mlp.2|attn.0"), "which isn't downstream of what is ablated"),
        (Question(TYPED, "attn.0", patches=15), "15 resample patches need 15 other prompts"),
        (Question("a" * 100, "attn.0"), "tokens long, the context of gpt2 holds 64"),
        (Question("no", "attn.0", at="-3"), "has no position -3: it is 2 tokens long"),
        (Question(TYPED, "attn.0", ablation="noise", noise_scale=-1), "-1 is no scale of noise"),
        (Question(TYPED, "attn.0", target=99), "has no token 99"),
    ],
)
def test_what_cannot_be_answered_is_said_in_a_line(session, question, said):
    with pytest.raises(HydrascopeError, match=said):
        session.ablate(question, JobMonitor())


def test_a_stopped_computation_leaves_the_model_as_it_was(session):
    hooks = [len(module._forward_pre_hooks) for module in session.model.hf.modules()]
    question = Question(TYPED, "attn.0", patches=2)
    before = session.ablate(question, JobMonitor())
    calls = []

    def third(*_):
        calls.append(1)
        if len(calls) == 3:
            monitor.stop()

    monitor = JobMonitor()
    handle = session.model.hf.get_input_embeddings().register_forward_hook(third)
    # A model with another hook is proven first.
    self_check.revalidate_if_changed(session.model)
    calls.clear()
    monitor = JobMonitor()
    stopped = Session(session.model, POOL)
    with pytest.raises(StoppedError):
        stopped.ablate(question, monitor)
    handle.remove()
    assert len(calls) == 3
    assert [len(module._forward_pre_hooks) for module in session.model.hf.modules()] == hooks
    assert stopped.ablate(question, JobMonitor()) == before


def test_time_is_bounded(session):
    monitor = JobMonitor(seconds=-1)
    monitor.start()
    with pytest.raises(StoppedError, match="took more than"):
        session.sweep(Question(TYPED, patches=2), monitor)


def test_the_pool_is_run_once(session):
    fresh, passes = Session(session.model, POOL), []
    handle = session.model.hf.get_input_embeddings().register_forward_hook(lambda *found: passes.append(found[1][0]))
    for run in ("attn.0", "attn.1", "head.2.1"):
        fresh.ablate(Question(TYPED, run, patches=2), JobMonitor())
    handle.remove()
    assert sum(len(ids) == len(POOL) for (ids, *_) in (p if isinstance(p, tuple) else (p,) for p in passes)) == 1
