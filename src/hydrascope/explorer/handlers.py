"""Handlers of a page's requests: from the JSON that it sends to a task."""

import re
from base64 import b64encode
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hydrascope.explorer.job_monitor import JobMonitor
from hydrascope.explorer.job_queue import Task
from hydrascope.explorer.question import Question
from hydrascope.explorer.session import Session
from hydrascope.reports.html.report_data import single_prompt_page_data
from hydrascope.utils.errors import HydrascopeError

#: What something may be saved as: a name that is no path, hidden file or option anywhere.
_NAME = re.compile(r"[\w][\w .+-]{0,79}")

#: The work that answers what a page asked.
Handler = Callable[[Mapping[str, Any]], Task]


def make_handlers(session: Session, folder: Path) -> dict[str, Handler]:
    """Return the handlers by name: `read`, `ablate`, `map`, `sweep`, and `save` into `folder`.

    A handler checks a request before it returns a task.
    """

    def about(answer: Callable[[Question, JobMonitor], Any]) -> Handler:
        def prepare(asked: Mapping[str, Any]) -> Task:
            question = Question.of(asked.get("question"))
            return lambda monitor: answer(question, monitor)

        return prepare

    def sweep(question: Question, monitor: JobMonitor) -> dict[str, Any]:
        told, arrays = single_prompt_page_data(session.sweep(question, monitor))
        return {"page": told, "arrays": {name: b64encode(chunk).decode() for name, chunk in arrays.items()}}

    def save(asked: Mapping[str, Any]) -> Task:
        question, place = Question.of(asked.get("question")), folder / _file_name(asked.get("name"))
        keep = session.save_all if asked.get("everyone") is True else session.save
        return lambda monitor: keep(question, place, monitor)

    answers = {"read": session.read, "ablate": session.ablate, "map": session.map, "sweep": sweep}
    return {**{name: about(answer) for name, answer in answers.items()}, "save": save}


def _file_name(name: Any) -> str:
    """Return `name` if it is a valid file name on any system.

    Raises:
        HydrascopeError: it isn't.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name != name.strip(" ."):
        raise HydrascopeError("give a name of letters, digits, spaces and .+-_ to save by, at most 80 of them")
    return name
