"""The tools people use today, each running the paper's protocol the way its users write it.

A peer opens a *session* on a prompt; a session runs the prompt with nothing or one component ablated, all its
patches in one batch, and hands back what the protocol reads at the final position. `sweep` turns runs into the
protocol's answer, alike for all.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from benchmarks.shapes import Parts
from benchmarks.task import Answer, Prompt


@dataclass(frozen=True)
class Run:
    """What a forward pass shows at the final position.

    Attributes:
        written: `[batch, component, width]` y_c, what each component adds to the residual stream.
        residual: `[batch, width]` z, the final norm's input.
        logits: `[batch, vocabulary]`.
    """

    written: Float[Tensor, "batch component width"]
    residual: Float[Tensor, "batch width"]
    logits: Float[Tensor, "batch vocabulary"]


#: Runs a prompt with the component of that index writing the patches, one a copy; `None, None`: one clean run.
Session = Callable[[int | None, Float[Tensor, "patch width"] | None], Run]
#: Opens a session on a prompt; keywords go to every call of the model: `logits_to_keep=1` unembeds the last
#: position alone.
Peer = Callable[..., Session]


@torch.inference_mode()
def sweep(peer: Peer, prompt: Prompt, readout: "Readout", **forward: Any) -> Answer:
    """The paper's protocol on one prompt: every component ablated with every patch."""
    run = peer(prompt.tokens, **forward)
    clean = run(None, None)
    direction = readout.direction(clean.residual[0], prompt.target)
    row_unembed, row_logit = [], []
    for ablated, patches in enumerate(prompt.patches):
        row = run(ablated, patches)
        row_unembed.append(row.written @ direction)
        row_logit.append(row.logits[:, prompt.target] - row.logits.mean(1))
    return Answer(clean.written[0] @ direction, torch.stack(row_unembed), torch.stack(row_logit))


class Readout:
    """The direction r(σ) against which a component's output is its centred logit of a token (Eq. 7-10)."""

    def __init__(self, parts: Parts) -> None:
        self._norm: Any = parts.norm
        self._unembedding: Tensor = parts.head.weight  # [vocabulary, width]
        self._mean = self._unembedding.mean(0)

    def direction(self, residual: Float[Tensor, "width"], target: int) -> Float[Tensor, "width"]:
        """r(σ), with σ the final norm's scale at `residual`."""
        gained = self._norm.weight * (self._unembedding[target] - self._mean)
        if isinstance(self._norm, nn.LayerNorm):
            sigma = (residual.var(unbiased=False) + self._norm.eps).sqrt()
            return (gained - gained.mean()) / sigma
        return gained / (residual.pow(2).mean() + self._norm.variance_epsilon).sqrt()
