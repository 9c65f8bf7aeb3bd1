"""The matrix products that the protocol needs: how many operations, and how fast this machine does them alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from benchmarks.machine import LIBRARIES
from benchmarks.shapes import Shape, parts
from benchmarks.task import PATCHES, Work
from hydrascope.engines.kernels.hardware import sustained
from hydrascope.engines.kernels.matmul import ROUTINES, Routine


@dataclass(frozen=True)
class Rows:
    """How many rows of a prompt need one layer's products: the clean one, and all that differ from it there."""

    qkv: int
    out: int
    mlp: int


def rows_at(block: int, work: Work, heads: int, patches: int = PATCHES) -> Rows:
    """The rows of a prompt at `layer`.

    Those that ablate something of a layer below need all of it. A head's rows join at attention's output projection, a
    whole attention layer's after it, an MLP's at the next layer.
    """
    if work.ablate == "heads":
        below, joining = heads * patches * block, heads * patches
        return Rows(1 + below, 1 + below + joining, 1 + below + joining)
    below = 2 * patches * block
    return Rows(1 + below, 1 + below, 1 + below + patches)


def needed_operations(shape: Shape, work: Work, tokens: int, patches: int = PATCHES) -> float:
    """FLOP a prompt of `tokens` tokens needs in products with weights, a multiply-add being two.

    Every row once through the products that it needs, each a token, or as many as the prompt has where all positions
    are ablated; and every token of the prompt once through all layers, for the clean run. Not counted, though they are
    done: products inside attention (queries with keys), the unembedding, readouts.
    """
    rows = [rows_at(block, work, shape.heads, patches) for block in range(shape.layers)]
    weights = sum(shape.qkv_weights * at.qkv + shape.out_weights * at.out + shape.mlp_weights * at.mlp for at in rows)
    suffix = tokens if work.at == "all" else 1
    return 2 * (suffix * weights + tokens * shape.layers * shape.weights)


def linears(module: nn.Module) -> list[nn.Module]:
    """The modules inside `module` that multiply with a weight matrix."""
    return [child for child in module.modules() if isinstance(child, nn.Linear | Conv1D)]


def occurring_rates(
    model: PreTrainedModel, shape: Shape, prompts: int, blocks: Sequence[int], seconds: float = 1.0
) -> dict[str, dict[str, float]]:
    """FLOP/s of the products of some layers and nothing else, `prompts` prompts at a time, by either library.

    By name `layer l, attention|MLP`: what a sweep that did nothing but multiply would reach there.
    """
    rates = {}
    where = parts(model, shape)
    for block in blocks:
        needed = rows_at(block, Work(), shape.heads)
        for name, module, rows in (
            ("attention", where.attn[block], prompts * needed.qkv),
            ("MLP", where.mlp[block], prompts * needed.mlp),
        ):
            weights = [_weight(linear) for linear in linears(module)]
            inputs = [torch.randn(rows, weight.shape[1]) for weight in weights]
            operations = sum(2 * rows * weight.numel() for weight in weights)
            rates[f"layer {block}, {name}, {rows:,} rows"] = {
                library: operations * sustained(partial(_multiply_all, ROUTINES[routine], inputs, weights), seconds)
                for library, routine in LIBRARIES.items()
            }
    return rates


def _multiply_all(routine: Routine, inputs: list[Tensor], weights: list[Tensor]) -> None:
    for rows, weight in zip(inputs, weights, strict=True):
        routine(rows, weight, None, "")


def _weight(linear: Any) -> Tensor:
    """The weight of a linear module, `[out, in]`."""
    return linear.weight.T if isinstance(linear, Conv1D) else linear.weight
