"""Ask about a prompt's subject: numbers are the sweep's, and what can't be asked is said."""

from dataclasses import replace

import numpy as np
import pytest
from exploring import TYPED
from live_questions import CLOSE, NAMED, SUBJECTS, swept
from plain import loaded

import hydrascope as hs
from hydrascope.explorer.job_monitor import JobMonitor
from hydrascope.explorer.question import Question
from hydrascope.explorer.session import Session
from hydrascope.utils.errors import HydrascopeError

AT_SUBJECT = {
    "resample": Question("cats and", patches=2, subject="cats"),
    "another seed": Question("cats and", patches=3, seed=5, subject="at"),
    "from other targets": Question("cats and", patches=2, different_target=True, subject="c"),
    "zero": Question("cats and", ablation="zero", subject="and"),
    "mean": Question("cats and", ablation="mean", subject="cat"),
    "noise": Question("cats and", ablation="noise", patches=2, subject="ts a"),
    "one of the pool": Question("dogs, no", patches=2, subject="gs"),
    "one of the pool, of which the subject is known": Question("a cow", patches=2),
    "one that has no subject there": Question("abc", patches=2, subject="bc"),
}


@pytest.mark.parametrize("at", ["subject", "subject-last"])
@pytest.mark.parametrize("name", AT_SUBJECT)
def test_a_number_at_the_subject_is_the_sweeps(at, name):
    session, question = Session(loaded("gpt2"), NAMED), replace(AT_SUBJECT[name], at=at)
    known = dict(SUBJECTS)
    subject = question.subject or known[question.text]
    fitting = [prompt for prompt in NAMED if prompt.subject and prompt.subject in prompt.text]
    texts = [prompt.text for prompt in fitting]
    index = texts.index(question.text) if question.text in texts else len(texts)
    fitting[index:] = [hs.Prompt(question.text, subject=subject), *fitting[index + 1 :]]
    runs = ["layers", "head.1.2,attn.0+mlp.1,attn.0|mlp.2"]
    found = session.measured(question, runs, JobMonitor())
    expected = swept(session, question, runs, prompts=fitting, index=index)
    assert set(found.variables) == set(expected.variables)
    for variable in expected.variables:
        if expected[variable].dtype.kind == "f" and variable != "imbalance":
            np.testing.assert_allclose(found[variable], expected[variable], **CLOSE, err_msg=str(variable))
        elif variable != "imbalance":
            assert found[variable].equals(expected[variable]), variable
    assert float(abs(found["total"]).max()) > 1e-3


def test_numbers_at_one_position_do_not_depend_on_what_was_asked_before():
    """Serve every position from the pool that is kept."""
    session, question = Session(loaded("gpt2"), NAMED), AT_SUBJECT["resample"]
    first = session.measured(replace(question, at="subject"), "layers", JobMonitor())
    for at in ("last", "-3", "all", "subject-last"):
        session.measured(replace(question, ablation="mean", at=at), "layers", JobMonitor())
    again = session.measured(replace(question, at="subject"), "layers", JobMonitor())
    np.testing.assert_array_equal(first["total"], again["total"])


def test_the_subject_is_read_where_it_stands():
    session = Session(loaded("gpt2"), NAMED)
    assert session.read(Question("cats and", subject="ts"), JobMonitor())["subject"] == (2, 4)
    assert session.read(Question("the cat is"), JobMonitor())["subject"] == (2, 7)
    assert session.read(Question("cats and"), JobMonitor())["subject"] is None
    assert session.read(Question("cats and", subject="dog"), JobMonitor())["subject"] is None


@pytest.mark.parametrize(
    ("question", "said"),
    [
        (Question("cats and"), "the prompt's subject isn't known: type it as it is written in the prompt"),
        (Question("cats and", subject=" "), "the prompt's subject isn't known"),
        (Question("cats and", subject="dogs"), 'does not contain its subject "dogs": write it as in the prompt'),
        (
            Question("cats and", subject="cats", patches=9),
            "9 patches at the subject need as many other prompts with a subject, and of the 7 that patches come from 5",
        ),
        (
            Question("cats and", subject="cats an", patches=2),
            "subjects of 5 have fewer tokens than its 7.: ablate at subject-last",
        ),
    ],
)
def test_what_cannot_be_asked_of_a_subject_is_said_in_a_line(question, said):
    session = Session(loaded("gpt2"), NAMED)
    with pytest.raises(HydrascopeError, match=said) as caught:
        session.ablate(replace(question, run="attn.0", at="subject"), JobMonitor())
    assert "\n" not in str(caught.value)


def test_without_others_with_a_subject_a_mean_is_refused_and_zero_is_not(session):
    question = Question(TYPED, "attn.0", at="subject", subject="cats", ablation="mean")
    with pytest.raises(HydrascopeError, match="of the 7 that patches come from 0 have one"):
        session.ablate(question, JobMonitor())
    assert session.ablate(replace(question, ablation="zero"), JobMonitor())["runs"]
