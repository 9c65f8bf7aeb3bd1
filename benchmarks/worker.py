"""A process for each tool, so that none works under what another has changed, and idle while another is timed."""

import multiprocessing
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

import torch

from benchmarks.shapes import Shape
from benchmarks.task import Answer, Prompt, Work, draw_task
from benchmarks.tools import ENGINE, WHOLE, prepare

#: One a core.
THREADS = 2


class Worker:
    """A tool that is ready to run, in a process of its own; a context manager that ends it.

    Raises:
        RuntimeError: the tool raised an error; its process prints the traceback.
    """

    def __init__(self, tool: str, shape: Shape, lengths: tuple[int, ...], work: Work) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self.tool = tool
        self._process = context.Process(target=_serve, args=(theirs, tool, shape, lengths, work), daemon=True)
        self._process.start()
        theirs.close()
        self._receive()  # ready

    def _receive(self) -> Any:
        try:
            return self._connection.recv()
        except EOFError:
            raise RuntimeError(f"{self.tool} failed; its error is printed above") from None

    def run(self, indices: Sequence[int], ablated: Sequence[int], **forward: int) -> tuple[float, list[Answer]]:
        """The protocol on these prompts of the task: seconds a prompt, and the answers.

        Args:
            ablated: the components that are ablated, by their numbers.
            forward: goes to every call of the model.
        """
        self._connection.send((list(indices), list(ablated), forward))
        seconds, answers = self._receive()
        return seconds, [Answer(*map(torch.from_numpy, answer)) for answer in answers]

    def __enter__(self) -> "Worker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
        self._process.join(10)
        if self._process.is_alive():
            self._process.terminate()


def _serve(connection: Connection, tool_name: str, shape: Shape, lengths: tuple[int, ...], work: Work) -> None:
    torch.set_num_threads(THREADS)
    model: Any = shape.build()
    # The same task in every process.
    task = draw_task(model, shape, lengths, work)
    tool = prepare(tool_name, model, shape, work)
    # The first call of anything is slower. `hydrascope.sweep`, which needs many prompts, is warmed up by its engine.
    warm = prepare(ENGINE, model, shape, work) if tool_name == WHOLE else tool
    warm([_shortened(task[0])], ablated=range(2))
    connection.send("ready")
    while True:
        try:
            indices, ablated, forward = connection.recv()
        except EOFError:
            return
        chosen = [task[index] for index in indices]
        start = time.perf_counter()
        answers = tool(chosen, ablated=ablated, **forward)
        seconds = time.perf_counter() - start
        fields = [(a.unembed, a.row_unembed, a.row_logit) for a in answers]
        connection.send((seconds / len(chosen), [[f.float().numpy() for f in answer] for answer in fields]))


def _shortened(prompt: Prompt) -> Prompt:
    """The same with its first 3 tokens alone: to warm up."""
    return Prompt(prompt.tokens[:3], prompt.target, prompt.patches[:, :, -3:])
