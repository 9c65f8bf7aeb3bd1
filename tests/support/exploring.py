"""A server of the explorer, and what a reader does on its page."""

import os
import re
import threading
from contextlib import contextmanager

import numpy as np
import uvicorn

import hydrascope as hs
from hydrascope.explorer.app import application
from hydrascope.explorer.job_queue import Jobs
from hydrascope.explorer.server import configured, listen

#: Two of them are too short for the third position from the end.
POOL = ("abc", "the cat", "a", "Hello, world", "xyz.", "no", "QRS tuv")
TYPED = "cats and"
PATCHES = 3
#: Tests that run at the same time take each other no port.
PORT = 20_000 + 100 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))


@contextmanager
def serving(session, folder, *, port=PORT, token="secret", results=None):
    """A server, the address of its page, and an end."""
    listening, jobs = listen(port), Jobs()
    port = listening.getsockname()[1]
    app = application(session, jobs, port=port, token=token, folder=folder, results=results)
    server = uvicorn.Server(configured(app))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}/{token}/"
    finally:
        jobs.close()
        server.should_exit = server.force_exit = True
        thread.join()
        listening.close()


def answered(page, act):
    """Do something, and wait until all of it is answered."""
    before = page.evaluate("document.body.dataset.answered")
    act()
    page.wait_for_function("before => document.body.dataset.answered !== before", arg=before)


def ask(page, text=TYPED):
    page.locator("#text").fill(text)
    answered(page, lambda: page.locator("#text").press("Enter"))


def pick(page, part, how="ablated"):
    page.locator(f"input[value={how}]").check()
    answered(page, lambda: page.locator(f"button[data-component='{part}']").click())


def settle(page, name, value):
    control = page.locator(f"#{name}")
    answered(page, lambda: control.select_option(value) if name in ("ablation", "where") else typed(control, value))


def typed(control, value):
    control.fill(str(value))
    control.press("Tab")


def started(opened, address, **media):
    """A page on which `TYPED` is asked about, with a few patches."""
    page = opened(f"{address}#patches={PATCHES}", **media)
    ask(page)
    return page


def numbers(text):
    return [float(each.replace("−", "-")) for each in re.findall(r"−?\d+(?:\.\d+)?", text)]


def shown_effects(page, run):
    """Removed, lost and restored of a run, as the page says them: each the mean, the least and the largest."""
    row = page.locator("#found-run tr", has=page.get_by_role("rowheader", name=run, exact=True)).first
    return [numbers(cell) for cell in row.locator("td").all_text_contents()[:3]]


def expected_effects(found, run):
    of = found.isel(readout=0, prompt=-1).sel(ablated=run)
    removed, lost = -of["direct"].values, -of["total"].values
    return [[each.mean(), each.min(), each.max()] for each in (removed, lost, removed - lost)]


def swept(session, ablation=None, **options):
    return hs.sweep(session.model, [*POOL, TYPED], ablation or hs.Resample(PATCHES), **options)


def close(found, expected):
    """As far as three digits of the largest say."""
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other[: len(one)], atol=0.006 * max(np.abs(expected).max(), 1))


def shown_weights(page):
    """Return the tokens of the boxes, and the attention weights in them of each state, as shares."""
    boxes = page.locator("#attention li").all()
    rows = [[cell.text_content() for cell in box.locator("span").all()] for box in boxes]
    (_, *states), *tokens = rows
    shares = [[numbers(text)[0] / 100 for text in column] for column in zip(*(row[1:] for row in tokens), strict=True)]
    return [row[0] for row in tokens], dict(zip(states, shares, strict=True))
