"""Plain PyTorch hooks on a transformers model: a forward pass of the whole prompt for every ablated component."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from benchmarks.peers import Peer, Run, Session
from benchmarks.shapes import Shape, parts


def plain_hooks(model: PreTrainedModel, shape: Shape) -> Peer:
    """Hooks that are put on for every forward pass, and taken off again."""

    def peer(tokens: Tensor, **forward: Any) -> Session:
        def run(ablated: int | None, patches: Tensor | None) -> Run:
            copies = tokens.expand(1 if patches is None else len(patches), -1)
            return hooked_run(model, shape, ablated, patches, lambda: model(copies, **forward).logits)

        return run

    return peer


def hooked_run(
    model: PreTrainedModel,
    shape: Shape,
    ablated: int | None,
    patches: Tensor | None,
    call: Callable[[], Tensor],
) -> Run:
    """Runs `call` with hooks that overwrite one component and read all of them, at the final position."""
    where = parts(model, shape)
    written: list[Tensor] = []
    residual: list[Tensor] = []

    def overwrite(module: nn.Module, inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
        assert patches is not None
        (output[0] if isinstance(output, tuple) else output)[:, -1] = patches

    def read(module: nn.Module, inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
        written.append((output[0] if isinstance(output, tuple) else output)[:, -1])

    def read_residual(module: nn.Module, inputs: tuple[Tensor]) -> None:
        residual.append(inputs[0][:, -1])

    with ExitStack() as hooks:
        if ablated is not None:
            hooks.enter_context(where.components[ablated].register_forward_hook(overwrite))
        for component in where.components:
            hooks.enter_context(component.register_forward_hook(read))
        hooks.enter_context(where.norm.register_forward_pre_hook(read_residual))
        logits = call()
    return Run(torch.stack(written, 1), residual[0], logits[:, -1])
