"""Plain PyTorch hooks on a transformers model: a forward pass of the whole prompt for every ablated component."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from benchmarks.peers import Override, Peer, Run, Session
from benchmarks.shapes import Shape, parts, visit
from benchmarks.task import Work


def plain_hooks(model: PreTrainedModel, shape: Shape, work: Work) -> Peer:
    """Hooks that are put on for every forward pass, and taken off again."""

    def peer(tokens: Tensor, **forward: Any) -> Session:
        def run(override: Override | None) -> Run:
            copies = tokens.expand(1 if override is None else len(override.patches), -1)
            return hooked_run(model, shape, work, override, lambda: model(copies, **forward).logits)

        return run

    return peer


def hooked_run(
    model: PreTrainedModel, shape: Shape, work: Work, override: Override | None, call: Callable[[], Tensor]
) -> Run:
    """Runs `call` with hooks that overwrite one component, and read at the final position."""
    where = parts(model, shape)
    values: list[Tensor] = []
    residual: list[Tensor] = []

    def read(hidden: Tensor) -> None:
        values.append(hidden[:, -1])

    def read_residual(module: nn.Module, inputs: tuple[Tensor]) -> None:
        residual.append(inputs[0][:, -1])

    with ExitStack() as hooks:
        if override is not None:
            hooks.enter_context(visit(where, override.site, override))
        for site in work.sites(shape):
            hooks.enter_context(visit(where, site, read))
        hooks.enter_context(where.norm.register_forward_pre_hook(read_residual))
        logits = call()
    return Run(values, residual[0], logits[:, -1])
