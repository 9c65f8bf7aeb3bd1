"""The matrix products that the protocol needs: how many operations, and how fast this machine does them alone."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from benchmarks.machine import LIBRARIES, sustained
from benchmarks.shapes import Shape, parts
from benchmarks.task import PATCHES


def rows_in_attention(layer: int, patches: int = PATCHES) -> int:
    """Rows of a prompt whose attention must be computed at `layer`: the clean one, and all ablated further down."""
    return 1 + 2 * patches * layer


def rows_in_mlp(layer: int, patches: int = PATCHES) -> int:
    """The same for the MLP: those that ablate this layer's attention have joined."""
    return rows_in_attention(layer, patches) + patches


def needed_operations(shape: Shape, tokens: float, patches: int = PATCHES) -> float:
    """FLOP a prompt of `tokens` tokens needs in products with weights, a multiply-add being two.

    Every row once through the attention and the MLP that it needs, and every token of the prompt once through all
    layers, for the clean run. Not counted, though they are done: products inside attention (queries with keys),
    the unembedding, readouts.
    """
    rows = sum(
        shape.attn_weights * rows_in_attention(layer, patches) + shape.mlp_weights * rows_in_mlp(layer, patches)
        for layer in range(shape.layers)
    )
    clean = tokens * shape.layers * (shape.attn_weights + shape.mlp_weights)
    return 2 * (rows + clean)


def linears(module: nn.Module) -> list[nn.Module]:
    """The modules inside `module` that multiply with a weight matrix."""
    return [child for child in module.modules() if isinstance(child, nn.Linear | Conv1D)]


def occurring_rates(
    model: PreTrainedModel, shape: Shape, prompts: int, layers: Sequence[int], seconds: float = 1.0
) -> dict[str, dict[str, float]]:
    """FLOP/s of the products of some layers and nothing else, `prompts` prompts at a time, by either library.

    By name `layer l, attention|MLP`: what a sweep that did nothing but multiply would reach there.
    """
    rates = {}
    where = parts(model, shape)
    for layer in layers:
        for name, module, rows in (
            ("attention", where.attn[layer], prompts * rows_in_attention(layer)),
            ("MLP", where.mlp[layer], prompts * rows_in_mlp(layer)),
        ):
            weights = [_weight(linear) for linear in linears(module)]
            inputs = [torch.randn(rows, weight.shape[1]) for weight in weights]
            operations = sum(2 * rows * weight.numel() for weight in weights)
            rates[f"layer {layer}, {name}, {rows:,} rows"] = {
                library: operations * sustained(partial(_multiply_all, multiply, inputs, weights), seconds)
                for library, multiply in LIBRARIES.items()
            }
    return rates


def _multiply_all(multiply: Callable[[Tensor, Tensor], Tensor], inputs: list[Tensor], weights: list[Tensor]) -> None:
    for rows, weight in zip(inputs, weights, strict=True):
        multiply(rows, weight)


def _weight(linear: Any) -> Tensor:
    """The weight of a linear module, `[out, in]`."""
    return linear.weight.T if isinstance(linear, Conv1D) else linear.weight
