"""Answer the explorer's own page, and refuse strangers and what is no question."""

import asyncio
import json

import pytest
from local_server import ASKED, HOST, ORIGIN, PORT, TOKEN, post, told
from starlette.requests import Request
from starlette.testclient import TestClient

import hydrascope as hs
from hydrascope.explorer import app as served
from hydrascope.explorer.app import application
from hydrascope.explorer.job_monitor import JobMonitor
from hydrascope.explorer.job_queue import Jobs
from hydrascope.explorer.question import Question
from hydrascope.utils.errors import HydrascopeError


@pytest.fixture(scope="module")
def client(session, folder):
    jobs = Jobs()
    app = application(session, jobs, port=PORT, token=TOKEN, folder=folder)
    with TestClient(app, base_url=ORIGIN, headers={"Host": HOST, "Origin": ORIGIN}) as client:
        yield client
    jobs.close()


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
