"""Save the result and report of a live question, of one prompt and of all."""

from functools import partial

import numpy as np
import pytest
from exploring import POOL, TYPED
from live_questions import CLOSE, NAMED, swept
from opened import FEW
from plain import loaded

import hydrascope as hs
from hydrascope.explorer.job_monitor import JobMonitor, StoppedError
from hydrascope.explorer.question import Question
from hydrascope.explorer.session import Session
from hydrascope.utils.errors import HydrascopeError


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch):
    """Intervals are looked at elsewhere."""
    monkeypatch.setattr("hydrascope.explorer.session.report", partial(hs.report, bootstrap=FEW))


def test_what_was_found_at_the_subject_is_kept(tmp_path):
    session = Session(loaded("gpt2"), NAMED)
    question = Question("cats and", "attn.0", at="subject-last", subject="cats", patches=2)
    one, everyone = (
        hs.open_results(keep(question, tmp_path / name, JobMonitor())["result"])
        for name, keep in (("one", session.save), ("all", session.save_all))
    )
    prompts = [*NAMED[:5], hs.Prompt("cats and", subject="cats")]
    expected = hs.sweep(session.model, prompts, hs.Resample(2), ablate="attn.0", at="subject-last")
    np.testing.assert_allclose(everyone["total"], expected["total"], **CLOSE)
    np.testing.assert_allclose(one["total"], expected["total"].isel(prompt=[-1]), **CLOSE)
    assert list(everyone["subject"].values) == [prompt.subject for prompt in prompts]
    assert np.flatnonzero(one["token_ablated"]).tolist() == [3]


def test_what_was_found_is_kept(session, tmp_path):
    question = Question(TYPED, "attn.0|mlp.1", patches=2)
    told = session.save(question, tmp_path / "a", JobMonitor())
    results = hs.open_results(told["result"])
    expected = swept(session, question, "attn.0|mlp.1,attn.0")
    assert set(results.variables) == set(expected.variables)
    np.testing.assert_allclose(results["total"], expected["total"], **CLOSE)
    assert list(results["text"].values) == [TYPED]
    assert results.attrs["measured"] == results.attrs["prompt_count"] == 1
    assert TYPED in (tmp_path / "a.html").read_text()


def test_the_same_is_asked_of_all_prompts_and_kept(session, tmp_path):
    question = Question(TYPED, "attn.0|mlp.1", patches=2)
    told = session.save_all(question, tmp_path / "a", JobMonitor())
    results = hs.open_results(told["result"])
    results = hs.open_results(told["result"])
    assert list(results["text"].values) == [*POOL, TYPED]
    assert results.attrs["measured"] == len(POOL) + 1
    expected = hs.sweep(session.model, [*POOL, TYPED], hs.Resample(2), ablate="attn.0|mlp.1,attn.0")
    np.testing.assert_allclose(results["total"], expected["total"], **CLOSE)
    page = (tmp_path / "a.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "attn.0|mlp.1" in page
    with pytest.raises(HydrascopeError, match=r"a.zarr exists: choose another name"):
        session.save_all(question, tmp_path / "a", JobMonitor())
    with pytest.raises(HydrascopeError, match=r"a.zarr exists: choose another name"):
        session.save(question, tmp_path / "a", JobMonitor())


def test_a_save_that_is_stopped_leaves_nothing(session, tmp_path):
    monitor = JobMonitor(lambda update: monitor.stop())
    with pytest.raises(StoppedError, match="cancelled"):
        session.save_all(Question(TYPED, patches=2), tmp_path / "a", monitor)
    assert list(tmp_path.iterdir()) == []
