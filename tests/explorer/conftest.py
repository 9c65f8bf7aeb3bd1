"""A model behind a page, and the page in a browser."""

import pytest
from browsing import opening
from exploring import POOL, serving
from plain import loaded

from hydrascope.explorer.session import Session


@pytest.fixture(scope="module")
def session():
    return Session(loaded("gpt2"), POOL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("explored")


@pytest.fixture(scope="module")
def address(session, folder):
    with serving(session, folder) as address:
        yield address


@pytest.fixture
def opened(browser):
    """Opens an address of a server on this machine."""
    with opening(browser, "http://127.0.0.1:") as open_page:
        yield open_page
