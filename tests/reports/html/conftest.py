"""Results, and their pages in a browser."""

import pytest
import synthetic
from browsing import opening
from opened import FEW, example

import hydrascope as hs


@pytest.fixture(scope="session")
def results():
    return example()


@pytest.fixture(scope="session")
def file(tmp_path_factory, results):
    return hs.report(results, tmp_path_factory.mktemp("page") / "a.html", bootstrap=FEW).as_uri()


@pytest.fixture(scope="session")
def pairs(tmp_path_factory):
    """Interactions of some sublayers, and their page."""
    results = synthetic.pairs(["attn.0", "attn.1", "mlp.1", "head.2.1"], 30)
    return results, hs.report(results, tmp_path_factory.mktemp("pairs") / "a.html", bootstrap=FEW).as_uri()


@pytest.fixture
def opened(browser):
    """Opens an address without a network, and waits until the page is drawn."""
    with opening(browser, offline=True) as open_page:

        def open_and_wait(address, **media):
            page = open_page(address, **media)
            page.wait_for_selector("body[data-drawn]")
            return page

        yield open_and_wait
