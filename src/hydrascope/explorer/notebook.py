"""The page in a notebook: a report, or the explorer where anywidget is installed."""

import json
import threading
import warnings
from collections.abc import Mapping
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import xarray as xr

from hydrascope.explorer.handlers import make_handlers
from hydrascope.explorer.job_monitor import JobMonitor
from hydrascope.explorer.job_queue import Jobs
from hydrascope.explorer.page_state import empty_page, live_config, pool_of, require_same_model
from hydrascope.explorer.session import Session
from hydrascope.loading.any_model import as_loaded
from hydrascope.measures import Bootstrap
from hydrascope.models.language_model import LanguageModel
from hydrascope.prompts.prompt import AnyPrompts, PromptSet
from hydrascope.reports.html import render
from hydrascope.reports.pages import page_html, page_parts
from hydrascope.utils.errors import HydrascopeError, HydrascopeWarning

#: The page runs its script in a frame of its own, which reaches nothing of the notebook.
_SANDBOX = "allow-scripts allow-forms allow-downloads"

#: The number of characters of a report in a notebook, less a part for what must be escaped there.
MOST = 420_000

#: What the page says once the kernel that it was made in has ended or was restarted.
_GONE = "the notebook’s kernel has ended: what was found stays here; run the cell again to ask more"

#: What a notebook that isn't trusted shows instead of the frame, which it takes out.
_UNTRUSTED = "The report isn’t shown because this notebook isn’t trusted: trust it, or run the cell again."

#: What stands around the frame in a notebook: it hands messages on, in both directions.
_AROUND = """
function render({ model, el }) {
  const frame = document.createElement("iframe");
  frame.setAttribute("sandbox", "SANDBOX");
  frame.title = "hydrascope";
  Object.assign(frame.style, { width: "100%", height: `${model.get("height")}px`, border: 0 });
  frame.srcdoc = model.get("document");
  const told = (message) => frame.contentWindow?.postMessage(message, "*");
  const asked = ({ source, data }) => {
    if (source !== frame.contentWindow) return;
    try {
      model.send(data);
    } catch {
      told({ id: data.id, error: "GONE" });
    }
  };
  window.addEventListener("message", asked);
  model.on("msg:custom", told);
  el.append(frame);
  return () => {
    window.removeEventListener("message", asked);
    model.off("msg:custom", told);
  };
}
export default { render };
""".replace("SANDBOX", _SANDBOX).replace("GONE", _GONE)


class StaticReport:
    """A page without a model, for a notebook.

    Attributes:
        document: its HTML.
        height: in pixels.
    """

    def __init__(self, document: str, height: int) -> None:
        """Set the attributes."""
        self.document, self.height = document, height

    def _repr_html_(self) -> str:
        return (
            f'<iframe title="hydrascope" sandbox="{_SANDBOX}" srcdoc="{escape(self.document)}" '
            f'style="width: 100%; height: {self.height}px; border: 0">{_UNTRUSTED}</iframe>'
        )


def view(
    results: xr.Dataset | None = None,
    model: LanguageModel | None = None,
    *,
    prompts: AnyPrompts | None = None,
    folder: str | Path = ".",
    height: int = 900,
    full: bool = False,
) -> Any:
    """Show the report of results in a notebook; with a model, the explorer.

        >>> page = hs.view(results)
        >>> hs.view(results, model)  # doctest: +SKIP

    Args:
        results: of `sweep`; without any the page begins with a typed prompt.
        model: the model that answers questions. It needs anywidget (`pip install 'hydrascope[notebook]'`): without it,
            the report of `results` is shown.
        prompts: what patches come from; by default the prompts of `results`, or 64 that are shipped.
        folder: where the page saves results and reports.
        height: of the page, in pixels.
        full: show everything, however large the notebook's file becomes. Without it single prompts, then readouts but
            the first, are left out of a report above 500 kB. The explorer shows them always.

    Returns:
        what a notebook shows as the value of a cell.

    Raises:
        HydrascopeError: there is nothing to show, the results are none that a page can show, or are of another model.
    """
    model = as_loaded(model)
    if model is not None and not isinstance(model, LanguageModel):
        raise HydrascopeError(f"a {type(model).__name__} is no model to ask: give that of load_model")
    if model is not None and find_spec("anywidget") is None:
        install = "asking a model in a notebook needs anywidget: pip install 'hydrascope[notebook]'"
        if results is None:
            raise HydrascopeError(install)
        warnings.warn(install, HydrascopeWarning, stacklevel=2)
        model = None
    if model is None:
        if results is None:
            raise HydrascopeError("there is nothing to view: give results, or a model")
        return StaticReport(page_html(results, most=None if full else MOST), height)
    if results is not None:
        require_same_model(model, results, "this result")
    pool = pool_of(model.name, None, None, results) if prompts is None else PromptSet.of(prompts)
    session, place = Session(model, pool), Path(folder).resolve()
    page, chunks, first = page_parts(results, Bootstrap()) if results is not None else (empty_page(session), {}, "")
    document = render.one_file({**page, "live": live_config(session, place, results, notebook=True)}, chunks, first)
    return _widget(document, height, Answers(session, place))


class Answers:
    """Answers to the messages of pages that share one session."""

    def __init__(self, session: Session, folder: Path) -> None:
        """Start the queue; nothing is computed yet."""
        self._works, self._jobs = make_handlers(session, folder), Jobs()
        self._asked: dict[float, JobMonitor] = {}
        self._lock = threading.Lock()

    def handle(self, message: Any, send: Any) -> None:
        """Answer one message, or stop the task of an earlier one.

        Args:
            message: `id`, and `kind` and `asked`, or `stop`.
            send: takes every answer, with the same `id`.
        """
        if not isinstance(message, Mapping) or not isinstance(message.get("id"), float | int):
            return
        name = message["id"]
        if message.get("stop"):
            if monitor := self._asked.get(name):
                monitor.stop()
            return

        def tell(update: dict[str, Any]) -> None:
            send({"id": name, **json.loads(render.as_json(update))})
            if "answer" in update or "error" in update:
                with self._lock:
                    self._asked.pop(name, None)

        try:
            prepare, asked = self._works.get(message.get("kind", "")), message.get("asked")
            if prepare is None or not isinstance(asked, Mapping):
                raise HydrascopeError("this is no question: ask to read, ablate, sweep or save")
            work = prepare(asked)
            with self._lock:  # it may be answered before it is noted
                self._asked[name] = self._jobs.put(work, tell)
        except HydrascopeError as error:
            tell({"error": str(error)})


def _widget(document: str, height: int, answers: Answers) -> Any:
    """Return the widget of a page; anywidget must be installed."""
    import anywidget
    import traitlets

    class Page(anywidget.AnyWidget):
        """The page, in a frame."""

        _esm = _AROUND
        document = traitlets.Unicode().tag(sync=True)
        height = traitlets.Int().tag(sync=True)

        def __repr__(self) -> str:
            return "hydrascope: the page with a model behind it, to be seen in a notebook: run its cell"

    page = Page(document=document, height=height)
    page.on_msg(lambda _, message, buffers: answers.handle(message, page.send))
    return page
