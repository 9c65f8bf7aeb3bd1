"""Map a live question over tokens and components, as the library and as clicks do."""

from dataclasses import replace

import numpy as np
import pytest
from exploring import POOL, TYPED
from live_questions import CLOSE

import hydrascope as hs
from hydrascope.explorer.job_monitor import JobMonitor, StoppedError
from hydrascope.explorer.question import Question
from hydrascope.explorer.session import Session


@pytest.mark.parametrize(
    "question",
    [
        Question(TYPED, ablation="zero", at="-3", run="attn.1"),
        Question(TYPED, ablation="zero", target=9),
        Question(TYPED, ablation="counterfactual", counterfactual="dogs and"),
        Question(TYPED, ablation="mean"),
    ],
)
def test_a_map_is_the_librarys(session, question):
    """Whatever the question says of components and positions."""
    pool = (*POOL, "dogs and no cats")
    found = Session(session.model, pool).map(question, JobMonitor())
    target = "argmax" if question.target is None else question.target
    ablation = question.make_ablation()
    expected = hs.analyses.position_map(session.model, question.prompt(), ablation, others=pool, target=target)
    assert found["tokens"] == list(TYPED)
    assert [each["name"] for each in found["components"]] == list(expected["component"].values)
    np.testing.assert_allclose(found["cost"], expected["cost"], **CLOSE)
    assert (found["target"], found["ablation"]) == (str(expected["target_text"].values), question.ablation)
    assert found["probability"] == pytest.approx(float(expected["probability"]))
    assert found["scale"]["most"] >= abs(expected["cost"]).max()


@pytest.mark.parametrize("question", [Question("cats and", patches=2), Question("cats and", "", "noise", 2)])
def test_a_row_of_a_map_is_what_a_click_gives(session, question):
    """Take prompts of one length, so that the same patches are drawn at one position as at all."""
    fresh = Session(session.model, ("the cats", "and dogs", "or a cow", "no a pig"))
    found = fresh.map(question, JobMonitor())
    for place in (-1, -3, -8):
        swept = fresh.measured(replace(question, at=str(place)), "layers", JobMonitor())
        lost = -swept["total"].isel(readout=0, prompt=0).mean("patch")
        np.testing.assert_allclose(found["cost"][place], lost, **CLOSE)


def test_a_map_can_be_stopped(session):
    monitor, told = JobMonitor(), []
    monitor.send_progress = lambda update: (told.append(update["doing"]), monitor.stop())
    with pytest.raises(StoppedError):
        session.map(Question(TYPED, ablation="zero"), monitor)
    assert told == ["mapping tokens"]
