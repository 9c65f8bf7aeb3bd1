"""The page in a notebook: the same page in a frame, its questions handed on by the page around it."""

import html as entities
import queue
import re
import threading
import time

import numpy as np
import pytest
import synthetic
from opened import FEW, HOSTILE, example, with_prompts
from plain import loaded

import hydrascope as hs
from hydrascope.explorer import notebook
from hydrascope.explorer.notebook import _AROUND, Answers
from hydrascope.explorer.session import Session
from hydrascope.utils.errors import HydrascopeError, HydrascopeWarning

POOL = ("abc", "the cat", "a", "Hello, world", "xyz.", "no", "QRS tuv")
TYPED = "cats and"

#: What stands around the frame, with a model as anywidget has it.
HOST = """
<!doctype html><title>notebook</title><main id="cell"></main>
<script type="module">
  const listeners = [];
  const model = {
    get: (name) => window.given[name],
    send: (message) => window.toPython(message),
    on: (name, listener) => listeners.push(listener),
    off: (name, listener) => listeners.splice(listeners.indexOf(listener), 1),
  };
  window.tell = (message) => listeners.forEach((listener) => listener(message));
  window.start = async () => {
    const around = await import(URL.createObjectURL(new Blob([window.given.esm], { type: "text/javascript" })));
    window.end = around.default.render({ model, el: document.getElementById("cell") });
  };
</script>
"""


@pytest.fixture(scope="module")
def model():
    return loaded("gpt2")


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch):
    """Intervals are looked at elsewhere."""
    monkeypatch.setattr(notebook, "Bootstrap", lambda: FEW)


@pytest.fixture
def widget(monkeypatch):
    """What `view` hands to the widget, which takes packages of its own."""
    monkeypatch.setattr(notebook, "find_spec", lambda name: True)
    monkeypatch.setattr(notebook, "_widget", lambda *given: given)


@pytest.mark.slow
def test_a_result_is_shown_as_it_is(browser):
    shown = hs.view(with_prompts(example(), HOSTILE), height=500)._repr_html_()
    assert re.fullmatch(
        r'<iframe title="hydrascope" sandbox="allow-scripts allow-forms allow-downloads" srcdoc="[^"]*" style="[^"]*">'
        "The report isn’t shown because this notebook isn’t trusted[^<>]*</iframe>",
        shown,
    )
    assert "height: 500px" in shown
    page = browser.new_page()
    page.set_content(f"<!doctype html><title>notebook</title>{shown}".encode("utf-8", "replace").decode())
    frame = page.frame_locator("iframe")
    frame.locator("body[data-drawn]").wait_for()
    assert "No model is behind this page" in frame.locator("#command").text_content()
    assert page.evaluate("window.hacked") is None
    page.close()
    assert "Who covers for whom?" in hs.view(synthetic.pairs(["attn.0", "mlp.0", "mlp.1"], 3)).document


def test_a_model_answers_in_a_notebook(browser, model, widget):
    document, height, answers = hs.view(None, model, prompts=POOL, height=700)
    heard: queue.Queue = queue.Queue()
    page = browser.new_page()
    told = []
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("console", lambda message: told.append(message.text))
    page.expose_function("toPython", lambda message: answers.handle(message, heard.put))
    page.set_content(HOST)
    page.evaluate("given => (window.given = given)", {"document": document, "height": height, "esm": _AROUND})
    page.evaluate("() => window.start()")
    frame = page.frame_locator("iframe")
    frame.locator("body[data-answered='0']").wait_for()

    def answered(count, act):
        act()
        end = time.monotonic() + 10
        while frame.locator("body").get_attribute("data-answered") != str(count) and time.monotonic() < end:
            try:
                page.evaluate("message => window.tell(message)", heard.get(timeout=0.02))
            except queue.Empty:
                page.wait_for_timeout(5)
        assert frame.locator("body").get_attribute("data-answered") == str(count)

    frame.locator("#patches").evaluate("box => (box.value = 3, box.dispatchEvent(new Event('change')))")
    frame.locator("#text").fill(TYPED)
    answered(1, lambda: frame.locator("#text").press("Enter"))
    answered(2, lambda: frame.locator("[data-component='attn.0']").click())
    total = hs.sweep(model, [*POOL, TYPED], hs.Resample(3), ablate="attn.0")["total"].isel(prompt=-1).mean().item()
    row = frame.locator("#found-run tbody tr").nth(1).locator("td").nth(1).text_content()
    np.testing.assert_allclose(float(row.split()[0].replace("−", "-")), -total, atol=0.006)
    assert told == []
    page.close()


def test_a_kernel_that_has_ended_is_told(browser, model, widget):
    document, height, _ = hs.view(None, model, prompts=POOL)
    page = browser.new_page()
    page.expose_function("toPython", lambda message: None)
    page.set_content(HOST)
    page.evaluate("given => (window.given = given)", {"document": document, "height": height, "esm": _AROUND})
    page.evaluate("() => window.start()")
    frame = page.frame_locator("iframe")
    frame.locator("body[data-answered='0']").wait_for()
    frame.locator("#text").fill(TYPED)
    frame.locator("#text").press("Enter")
    frame.get_by_text("waiting for the kernel").wait_for()  # which is there, and silent
    frame.locator("#stop").click()
    frame.get_by_text("Cancelled.").wait_for()
    page.evaluate("() => (window.toPython = () => { throw new Error('Cannot send'); })")
    frame.locator("#text").press("Enter")
    frame.locator("#refused").get_by_text("kernel has ended").wait_for()
    assert not frame.locator("#stop").is_visible()
    page.close()


def test_what_is_no_question_is_refused(model, tmp_path):
    answers, told = Answers(Session(model, POOL), tmp_path), []
    for message in (None, "x", {}, {"id": "1"}, {"id": None, "kind": "read"}, {"id": 9, "stop": True}):
        answers.handle(message, told.append)
    assert told == []
    for message in (
        {"id": 1, "kind": "delete", "asked": {}},
        {"id": 1, "kind": "read"},
        {"id": 1, "kind": "read", "asked": []},
        {"id": 1, "kind": "read", "asked": {"question": {"text": ""}}},
        {"id": 1, "kind": "save", "asked": {"question": {"text": "a"}, "name": "../a"}},
    ):
        answers.handle(message, told.append)
        assert told[-1].keys() == {"id", "error"}
    assert len(told) == 5


def test_what_is_stopped_ends(model, tmp_path, monkeypatch):
    begun, told = threading.Event(), queue.Queue()

    def slowly(self, question, watch):
        begun.set()
        while True:
            watch.check()
            time.sleep(0.005)

    monkeypatch.setattr(Session, "read", slowly)
    answers = Answers(Session(model, POOL), tmp_path)
    answers.handle({"id": 0.5, "kind": "read", "asked": {"question": {"text": "a"}}}, told.put)
    assert begun.wait(10)
    answers.handle({"id": 0.5, "stop": True}, told.put)
    assert told.get(timeout=10) == {"id": 0.5, "error": "cancelled"}


def test_what_cannot_be_viewed_is_said(model, widget):
    with pytest.raises(HydrascopeError, match="there is nothing to view"):
        hs.view()
    with pytest.raises(HydrascopeError, match="a LanguageModel is no hydrascope result: give the result of a run"):
        hs.view(model)
    results = hs.sweep(model, POOL, hs.Zero(), ablate="attn.0")
    with pytest.raises(HydrascopeError, match="a str is no model to ask: give that of load_model"):
        hs.view(results, "gpt2")
    with pytest.raises(HydrascopeError, match="this result is of gpt2"):
        hs.view(results, loaded("gpt2", seed=1))
    document, _, _ = hs.view(results, model)
    assert '"notebook":true' in document
    assert "connect-src" not in document.split("</head>")[0].split("<style>")[0]


def test_without_anywidget_the_result_is_shown_as_it_is(model, monkeypatch):
    monkeypatch.setattr(notebook, "find_spec", lambda name: None)
    results = hs.sweep(model, POOL, hs.Zero(), ablate="layers")
    with pytest.warns(HydrascopeWarning, match=r"pip install 'hydrascope\[notebook\]'"):
        shown = hs.view(results, model)
    assert '"live":' not in entities.unescape(shown._repr_html_()).split('<script type="module">')[0]
    with pytest.raises(HydrascopeError, match=r"pip install 'hydrascope\[notebook\]'"):
        hs.view(model=model)


def test_a_widget_hands_messages_on(model):
    shown, told = hs.view(None, model, prompts=POOL), queue.Queue()
    shown.send = told.put
    shown._handle_custom_msg({"id": 2, "kind": "read", "asked": {"question": {"text": TYPED}}}, [])
    while "answer" not in (message := told.get(timeout=10)):
        pass
    assert "".join(message["answer"]["tokens"]) == TYPED
    assert shown.height == 900
    assert shown._esm == _AROUND
    assert shown.document.startswith("<!doctype html>")
