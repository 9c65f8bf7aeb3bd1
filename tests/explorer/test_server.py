"""Start the local server at a free port, serve until Ctrl-C, and drop clients that stall."""

import re
import socket
import threading
import time
from contextlib import suppress

import numpy as np
import pytest
import uvicorn
from local_server import TOKEN

from hydrascope.explorer import connection, require_server, server
from hydrascope.explorer.app import application
from hydrascope.explorer.job_monitor import JobMonitor
from hydrascope.explorer.job_queue import Jobs
from hydrascope.explorer.question import Question
from hydrascope.explorer.server import listen
from hydrascope.utils.errors import HydrascopeError


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
