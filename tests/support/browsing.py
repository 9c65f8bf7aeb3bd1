"""A real browser for tests of pages; a fixture of every test (`conftest.py`)."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@contextmanager
def opening(browser: Any, *mine: str, **context: Any) -> Iterator[Any]:
    """What opens an address, and keeps what the browser's console `told`.

    In the end nothing may have been asked but of files and addresses that begin as `mine`, nor told.
    """
    made = browser.new_context(viewport={"width": 1280, "height": 900}, **context)
    asked: list[str] = []
    told: list[str] = []

    def open_page(address: str, **media: Any) -> Any:
        page = made.new_page()
        page.emulate_media(**media)
        page.on("request", lambda each: asked.append(each.url))
        page.on("console", lambda each: told.append(each.text))
        page.on("pageerror", lambda each: told.append(str(each)))
        page.goto(address)
        return page

    open_page.told = told  # type: ignore[attr-defined]
    yield open_page
    assert [url for url in asked if not url.startswith((*mine, "file:", "blob:", "data:image/"))] == []
    assert told == []
    made.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, driven by playwright."""
    if CHROMIUM is None:
        pytest.skip("pages are tested in Chromium, which isn't installed")
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="pages are tested by playwright, which isn't installed"
    )
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()
