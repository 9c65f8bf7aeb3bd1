"""Answer one question after another, and end what is cancelled, fails or takes too long."""

import threading
import time

import pytest
from local_server import ASKED, HOST, ORIGIN, PORT, TOKEN, post
from starlette.testclient import TestClient

from hydrascope.explorer.app import application
from hydrascope.explorer.job_queue import BusyError, Jobs


@pytest.fixture
def jobs():
    jobs = Jobs(most=1)
    yield jobs
    jobs.close()


class Slow:
    """Work that goes on until it is told to stop."""

    def __init__(self):
        self.started = threading.Event()

    def __call__(self, watch):
        self.started.set()
        while True:
            watch.check()
            time.sleep(0.005)


def wait_for(updates, key):
    end = time.monotonic() + 10
    while time.monotonic() < end:
        if any(key in update for update in updates):
            return next(update[key] for update in updates if key in update)
        time.sleep(0.005)
    raise AssertionError(f"no {key} among {updates}")


def test_one_question_after_another(jobs):
    slow, first, second = Slow(), [], []
    watch = jobs.put(slow, first.append)
    assert slow.started.wait(10)
    jobs.put(lambda watch: "done", second.append)
    assert second == [{"doing": "waiting for another question", "done": 0, "total": 0}]
    watch.progress("measuring", 2, 5)
    assert first == [{"doing": "measuring", "done": 2, "total": 5}]
    assert second[1] == {"doing": "waiting, while the model is measuring", "done": 2, "total": 5}
    with pytest.raises(BusyError, match="1 questions wait already: ask again in a moment"):
        jobs.put(lambda watch: "done", lambda update: None)
    watch.stop()
    assert wait_for(first, "error") == "cancelled"
    assert wait_for(second, "answer") == "done"


def test_what_was_cancelled_while_it_waited_is_never_begun(jobs):
    slow, told, done = Slow(), [], []
    watch = jobs.put(slow, lambda update: None)
    assert slow.started.wait(10)
    jobs.put(lambda watch: done.append(1), told.append).stop()
    watch.stop()
    assert wait_for(told, "error") == "cancelled"
    assert done == []


def test_a_failure_is_said_and_the_next_question_answered(jobs, capsys):
    told = []
    jobs.put(lambda watch: 1 / 0, told.append)
    assert "hydrascope failed at this" in wait_for(told, "error")
    assert "ZeroDivisionError" in capsys.readouterr().err
    jobs.put(lambda watch: 3, told.append)
    assert wait_for(told, "answer") == 3


def test_too_long_a_computation_ends():
    jobs, told = Jobs(seconds=0.02), []
    jobs.put(Slow(), told.append)
    assert "took more than 0 seconds" in wait_for(told, "error")
    jobs.close()


def test_busy_is_said(session, folder):
    jobs, slow = Jobs(most=1), Slow()
    app = application(session, jobs, port=PORT, token=TOKEN, folder=folder)
    client = TestClient(app, base_url=ORIGIN, headers={"Host": HOST, "Origin": ORIGIN})
    jobs.put(slow, lambda update: None)
    assert slow.started.wait(10)
    jobs.put(lambda monitor: None, lambda update: None)
    response = post(client, "ablate", ASKED)
    assert response.status_code == 503
    assert "questions wait already" in response.json()["error"]
    jobs.close()
