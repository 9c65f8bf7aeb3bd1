"""The paper's prompts are fetched once, verified, and asked of the user where they can't be had."""

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hydrascope.prompts import counterfact
from hydrascope.prompts.load import load_prompts
from hydrascope.prompts.prompt import Prompt, PromptSet
from hydrascope.utils.errors import HydrascopeError

FACTS = json.dumps([{"prompt": "The tower is in", "attribute": "Paris"}]).encode()


class Site(http.server.BaseHTTPRequestHandler):
    """The authors' site: serves `content`, or status 404 where there is none, and counts."""

    content: bytes | None = FACTS
    asked = 0

    def do_GET(self) -> None:
        type(self).asked += 1
        if self.content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(FACTS)))
        self.end_headers()
        self.wfile.write(self.content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[type[Site]]:
    """The authors' site on this machine, and an empty cache folder."""
    monkeypatch.setattr(Site, "asked", 0)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setattr(counterfact, "URL", f"http://127.0.0.1:{server.server_port}/known_1000.json")
    monkeypatch.setattr(counterfact, "SHA256", hashlib.sha256(FACTS).hexdigest())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield Site
    server.shutdown()
    server.server_close()


CACHED = Path("cache") / "hydrascope" / "known_1000.json"


def test_counterfact_is_downloaded_once(site: type[Site], tmp_path: Path) -> None:
    for _ in range(2):
        loaded = load_prompts("counterfact")
        assert loaded == PromptSet("counterfact", (Prompt("The tower is in", "Paris"),))
    assert site.asked == 1
    assert [file.name for file in (tmp_path / CACHED).parent.iterdir()] == ["known_1000.json"]


def test_a_damaged_copy_in_the_cache_is_replaced(site: type[Site], tmp_path: Path) -> None:
    (tmp_path / CACHED).parent.mkdir(parents=True)
    (tmp_path / CACHED).write_bytes(FACTS[:-1])
    assert len(load_prompts("counterfact").prompts) == 1
    assert (tmp_path / CACHED).read_bytes() == FACTS


def test_a_cache_that_cannot_be_written_is_done_without(site: type[Site], tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert len(load_prompts("counterfact").prompts) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "404"), (FACTS[:-1], "cannot download"), (b"x" * len(FACTS), "its SHA-256 is another")],
)
def test_a_failed_download_says_which_file_to_pass(
    site: type[Site], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None, message: str
) -> None:
    monkeypatch.setattr(Site, "content", content)
    with pytest.raises(HydrascopeError, match=message + r".*--prompts known_1000\.json"):
        load_prompts("counterfact")
    assert not (tmp_path / CACHED).exists()


def test_offline_says_which_file_to_pass(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(counterfact, "URL", "http://127.0.0.1:9/known_1000.json")
    with pytest.raises(HydrascopeError, match=r"cannot download.*refused.*--prompts known_1000\.json"):
        load_prompts("counterfact")
