"""Muon for the matrices inside the layers, AdamW for everything else.

Muon (Jordan et al. 2024) makes each matrix's momentum orthogonal before it is applied, so that rare directions
learn as fast as frequent ones: facts are rare directions. The step's size is that of Liu et al. (2025), which makes
its root mean square 0.2 times the rate, as AdamW's is.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


class MuonAdamW(torch.optim.AdamW):
    """One optimizer with two kinds of groups, so that schedules, clipping and checkpoints work as with any other."""

    def __init__(self, model: nn.Module, rate: float, matrix_rate: float, weight_decay: float) -> None:
        inside = {name for name, weight in model.named_parameters() if weight.ndim == 2 and ".layers." in name}
        named = dict(model.named_parameters())
        groups: list[dict[str, Any]] = [
            {"params": [weight for name, weight in named.items() if name not in inside]},
            {"params": [weight for name, weight in named.items() if name in inside], "lr": matrix_rate, "muon": True},
        ]
        super().__init__(groups, lr=rate, betas=(0.9, 0.95), weight_decay=weight_decay)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        whole = self.param_groups
        for group in whole:
            if group.get("muon"):
                self._muon(group)
        self.param_groups = [group for group in whole if not group.get("muon")]
        try:
            return super().step(closure)
        finally:
            self.param_groups = whole

    def _muon(self, group: dict[str, Any], momentum: float = 0.95) -> None:
        by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
        for weight in group["params"]:
            by_shape[weight.shape].append(weight)
        for shape, weights in by_shape.items():
            directions = []
            for weight in weights:
                state = self.state[weight]
                assert weight.grad is not None, "every matrix of a layer is used in every step"
                if not state:
                    # AdamW asks every state for its step when a checkpoint is loaded.
                    state["step"] = torch.zeros(())
                    state["momentum"] = torch.zeros_like(weight)
                state["momentum"].lerp_(weight.grad, 1 - momentum)
                directions.append(weight.grad.lerp(state["momentum"], momentum))
            size = 0.2 * max(shape) ** 0.5
            for weight, update in zip(weights, orthogonal(torch.stack(directions)), strict=True):
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(update.to(weight.dtype), alpha=-group["lr"] * size)


def orthogonal(matrices: Float[Tensor, "matrix row column"], steps: int = 5) -> Float[Tensor, "matrix row column"]:
    """Each matrix with its singular values brought near 1, by Newton and Schulz's iteration in bfloat16."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = (x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)).bfloat16()
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x
