"""The local server: whom it refuses, what it says where it can't answer, and that it ends what nobody waits for."""

import asyncio
import json
import re
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from plain import loaded
from starlette.requests import Request
from starlette.testclient import TestClient

import hydrascope as hs
from hydrascope.explorer import app as served
from hydrascope.explorer import connection, require_server, server
from hydrascope.explorer.app import application
from hydrascope.explorer.job_monitor import JobMonitor
from hydrascope.explorer.job_queue import BusyError, Jobs
from hydrascope.explorer.page_state import live_config, pool_of, require_same_model
from hydrascope.explorer.question import Question
from hydrascope.explorer.server import listen
from hydrascope.explorer.session import Session
from hydrascope.utils.errors import HydrascopeError

POOL = ("abc", "the cat", "a", "Hello, world", "xyz.", "no", "QRS tuv")
PORT, TOKEN = 8765, "secret-token"
HOST, ORIGIN = f"127.0.0.1:{PORT}", f"http://127.0.0.1:{PORT}"
ASKED = {"question": {"text": "cats and", "run": "attn.0", "patches": 2}}


@pytest.fixture(scope="module")
def session():
    return Session(loaded("gpt2"), POOL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("saved")


@pytest.fixture(scope="module")
def client(session, folder):
    jobs = Jobs()
    app = application(session, jobs, port=PORT, token=TOKEN, folder=folder)
    with TestClient(app, base_url=ORIGIN, headers={"Host": HOST, "Origin": ORIGIN}) as client:
        yield client
    jobs.close()


def told(response):
    return [json.loads(line) for line in response.text.splitlines()]


def post(client, kind, asked, **options):
    return client.post(f"/{TOKEN}/{kind}", json=asked, **options)


def test_the_page_comes_with_a_policy_that_lets_only_its_own_script_run(client):
    page = client.get(f"/{TOKEN}/")
    policy = page.headers["content-security-policy"]
    assert page.status_code == 200
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "connect-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    headers = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer", "cache-control": "no-store"}
    assert headers.items() <= dict(page.headers).items()
    assert TOKEN not in page.text


@pytest.mark.parametrize(
    ("path", "headers", "said"),
    [
        ("/", {}, "the server's"),
        ("/other-token/", {}, "open the one that it printed"),
        (f"/{TOKEN}x/", {}, "the server's"),
        (f"/{TOKEN[:-1]}/", {}, "the server's"),
        (f"/{TOKEN}/", {"Host": "evil.example"}, "its own address"),
        (f"/{TOKEN}/", {"Host": f"evil.example:{PORT}"}, "its own address"),
        (f"/{TOKEN}/", {"Host": "127.0.0.1:1"}, "its own address"),
    ],
)
def test_a_stranger_is_refused(client, path, headers, said):
    response = client.get(path, headers=headers)
    assert response.status_code == 403
    assert said in response.text
    assert response.headers["x-frame-options"] == "DENY"


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", f"https://{HOST}", f"http://127.0.0.1:{PORT + 1}", ""]
)
def test_another_pages_questions_are_refused(client, origin):
    assert post(client, "ablate", ASKED, headers={"Origin": origin}).status_code == 403
    assert post(client, "ablate", ASKED, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403


def test_a_question_without_an_origin_is_refused(session, folder):
    app = application(session, Jobs(), port=PORT, token=TOKEN, folder=folder)
    assert TestClient(app, base_url=ORIGIN).post(f"/{TOKEN}/ablate", json=ASKED).status_code == 403


def test_nothing_is_computed_or_changed_by_a_get(client):
    for kind in ("read", "ablate", "map", "sweep", "save"):
        assert client.get(f"/{TOKEN}/{kind}").status_code == 405


def test_an_answer_is_the_sessions(client, session):
    response = post(client, "ablate", ASKED)
    assert response.headers["content-type"].startswith("application/x-ndjson")
    expected = session.ablate(Question("cats and", "attn.0", patches=2), JobMonitor())
    assert told(response)[-1]["answer"] == json.loads(json.dumps(expected))


def test_a_map_is_the_sessions(client, session):
    asked = {"question": {"text": "<b>cats", "ablation": "zero"}}
    answer = told(post(client, "map", asked))[-1]["answer"]
    assert answer == json.loads(json.dumps(session.map(Question("<b>cats", ablation="zero"), JobMonitor())))
    refused = told(post(client, "map", {"question": {"text": "many more cats", "ablation": "mean"}}))[-1]["error"]
    assert "none of the others has as many tokens as the prompt (14)" in refused


@pytest.mark.parametrize(
    ("content", "type_", "said"),
    [
        (b"{", "application/json", "no JSON"),
        (b"[" * 100_000, "application/json", "no JSON"),
        (b"[]", "application/json", "no question"),
        (b"{}", "application/json", "no question"),
        (b"x=1", "application/x-www-form-urlencoded", "send application/json"),
        (b"{}", "text/plain", "send application/json"),
        (b" " * 300_000, "application/json", "larger than 200,000 bytes"),
        (b'{"question": {"text": ""}}', "application/json", "the prompt is empty: write one"),
        (b'{"question": {"text": "\\ud800"}}', "application/json", "half a surrogate pair"),
    ],
)
def test_what_is_no_question_is_refused_in_a_line(client, content, type_, said):
    response = client.post(f"/{TOKEN}/read", content=content, headers={"Content-Type": type_})
    assert response.status_code == 400
    assert said in response.json()["error"]


def test_what_cannot_be_answered_is_said(client):
    question = {"question": {"text": "a" * 100}}
    assert "the context of gpt2 holds 64" in told(post(client, "read", question))[-1]["error"]


def test_a_question_that_does_not_come_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(served, "SECONDS", 0.01)

    async def never():
        await asyncio.sleep(10)

    scope = {"type": "http", "method": "POST", "headers": [(b"content-type", b"application/json")]}
    with pytest.raises(HydrascopeError, match="didn't come within 0 seconds: ask again"):
        asyncio.run(served._read(Request(scope, never)))


@pytest.mark.parametrize("name", ["", "../a", "a/b", ".a", "-a", "a\0", "C:\\a", "a" * 81, "a.", None, 3])
def test_nothing_is_saved_under_a_name_that_is_a_path(client, folder, name):
    response = post(client, "save", {**ASKED, "name": name})
    assert "give a name of letters" in response.json()["error"]
    assert list(folder.iterdir()) == []


def test_what_is_saved_is_told(client, folder):
    saved = told(post(client, "save", {**ASKED, "name": "first try"}))[-1]["answer"]
    assert saved["prompts"] == 1
    assert hs.open_results(folder / "first try.zarr").sizes["prompt"] == 1
    again = told(post(client, "save", {**ASKED, "name": "first try"}))[-1]["error"]
    assert again == "first try.zarr exists: choose another name"
    for path in folder.iterdir():
        path.rename(folder.parent / path.name)


def test_a_sweep_is_told_as_a_page(client, session):
    answer = told(post(client, "sweep", {"question": {"text": "<script>", "patches": 2}}))[-1]["answer"]
    assert [each["text"] for each in answer["page"]["prompts"]] == ["<script>"]
    names = [each["name"] for each in answer["page"]["ablated"]]
    assert names == [f"{k}.{i}" for i in range(3) for k in ("attn", "mlp")]
    assert set(answer["arrays"]) == set(answer["page"]["arrays"])


# ---- The queue ----


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


# ---- Where it starts ----


def test_a_port_in_use_is_passed_over():
    first = listen(18_765)
    second = listen(first.getsockname()[1])
    assert second.getsockname()[0] == "127.0.0.1"
    assert second.getsockname()[1] > first.getsockname()[1]
    first.close()
    second.close()


def test_no_free_port_is_said(monkeypatch):
    def refuse(self, address):
        raise OSError(98, "Address already in use")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(HydrascopeError, match="no port from 8765 to 8784 is free"):
        listen(8765)


def test_patches_come_from_what_was_measured(session):
    results = hs.sweep(session.model, POOL, hs.Zero(), ablate="attn.0")
    assert [prompt.text for prompt in pool_of("gpt2", None, None, results).prompts] == list(POOL)
    assert len(pool_of("gpt2", None, 3, results).prompts) == 3
    subjects = [hs.Prompt("abc", subject="bc"), hs.Prompt("the cat", subject="the")]
    results = hs.sweep(session.model, subjects, hs.Zero(), ablate="attn.0", at="subject-last")
    assert list(pool_of("gpt2", None, None, results).prompts) == subjects
    assert live_config(session, Path("."), results)["defaults"]["at"] == "subject-last"
    without = results.drop_vars("subject")
    assert [prompt.subject for prompt in pool_of("gpt2", None, None, without).prompts] == [None, None]
    assert pool_of("phantom", None, None, None).name == "phantom"
    assert len(pool_of("gpt2", None, None, None).prompts) == 64
    require_same_model(session.model, results, "r.zarr")
    with pytest.raises(HydrascopeError, match=r"r.zarr is of gpt2 .*: give the model that was measured"):
        require_same_model(loaded("gpt2", seed=1), results, "r.zarr")


def test_without_the_extra_one_line_says_what_to_install(monkeypatch, hydrascope):
    monkeypatch.setattr("hydrascope.explorer.find_spec", lambda name: None)
    with pytest.raises(HydrascopeError, match=r"pip install 'hydrascope\[explore\]'"):
        require_server()
    code, _, error = hydrascope("explore", "built-in")
    assert (code, error) == (2, "hydrascope: exploring needs a local server: pip install 'hydrascope[explore]'\n")


def test_mistakes_on_the_command_line_are_said_at_once(hydrascope, folder):
    for arguments, said in (
        (["--out", folder / "none"], "there is no folder"),
        (["--prompts", "none"], "no prompt set is called 'none'"),
        (["--results", folder / "none"], "none"),
        (["--port", "70000"], "less than or equal to 65535"),
    ):
        code, _, error = hydrascope("explore", "built-in", "--no-browser", *arguments)
        assert code == 2
        assert error.count("\n") == 1
        assert said in error


@pytest.mark.parametrize("browser", [True, False])
def test_it_serves_until_ctrl_c(session, folder, monkeypatch, browser):
    served_at, said, opened, before = [], [], [], threading.active_count()

    def until_ctrl_c(self, sockets):
        served_at.extend(each.getsockname() for each in sockets)
        raise KeyboardInterrupt

    monkeypatch.setattr(server.uvicorn.Server, "run", until_ctrl_c)
    monkeypatch.setattr(server.webbrowser, "open", opened.append)
    for _ in range(2):
        server.serve(session, port=21_000, folder=folder, browser=browser, say=said.append)
    (host, port), _ = served_at
    assert host == "127.0.0.1"
    tokens = [re.fullmatch(rf"http://127.0.0.1:{port}/([\w-]+)/", address)[1] for address in said]
    assert len(set(tokens)) == 2
    assert all(len(token) >= 32 for token in tokens)
    assert opened == (said if browser else [])
    assert threading.active_count() == before


def test_the_command(hydrascope, folder, monkeypatch):
    given = {}
    monkeypatch.setattr(server, "serve", lambda session, **options: given.update(options, session=session))
    hydrascope("explore", "phantom", "--limit", 20, "--port", 1234, "--out", folder, "--no-browser")
    assert given["session"].model.name == "phantom"
    assert len(given["session"].pool.prompts.prompts) == 20
    assert (given["port"], given["folder"], given["browser"], given["results"]) == (1234, folder, False, None)
    # What the phantom is known for: attn.3 is restored, and by mlp.3 for a fifth of what is removed.
    text = given["session"].pool.prompts.prompts[0].text
    found = given["session"].ablate(Question(text, "attn.3|mlp.3", ablation="zero"), JobMonitor())
    removed, worth = found["runs"][1]["removed"][0], found["frozen"][0]["worth"]
    np.testing.assert_allclose(worth / removed, 0.2, atol=0.01)


def test_clients_that_do_not_finish_a_request_are_dropped(session, folder, monkeypatch):
    """Fill all connections with half-sent requests; a whole request is answered soon after."""
    monkeypatch.setattr(connection, "REQUEST_SECONDS", 0.3)
    listening, jobs = listen(9100), Jobs()
    port = listening.getsockname()[1]
    app = application(session, jobs, port=port, token=TOKEN, folder=folder)
    running = uvicorn.Server(server.configured(app))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        half = [socket.create_connection(("127.0.0.1", port)) for _ in range(64)]
        for number, each in enumerate(half):
            # Of headers, or of a body.
            each.sendall(
                b"GET / HTTP/1.1\r\nHost:"
                if number % 2
                else b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{"
            )
        deadline = time.monotonic() + 20
        while _status(port) != 200:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        for each in half:
            each.settimeout(5)
            with suppress(ConnectionResetError):
                while each.recv(1000):
                    pass
            each.close()
    finally:
        running.should_exit = True
        thread.join(10)
        jobs.close()
        listening.close()


def _status(port):
    """The status of a whole request; 0 if it isn't answered."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as asking:
            asking.sendall(f"GET /{TOKEN}/ HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
            return int(asking.recv(100).split()[1])
    except (OSError, IndexError):
        return 0
