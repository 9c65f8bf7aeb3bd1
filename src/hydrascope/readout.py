"""Reading a residual stream as a logit: the final norm, the unembedding, and the direction that joins them.

For a target token i, ŵ = W_U[:, i] − mean_j W_U[:, j] is its centred unembedding (Eq. 9). With the final norm's
gain G, bias β and scale σ (Eq. 8), and the unembedding's own bias b, the centred logit of a residual stream z is

    π̂(z) = ⟨z, a⟩ / σ(z) + c,   a = s·G ŵ (for LayerNorm with its mean removed),   c = s·(⟨β, ŵ⟩ + b_i − mean b)

where s is the model's logit multiplier. ⟨v, a⟩ / σ is what a vector v contributes when the scale is frozen at σ
(Eq. 7, 8, 10): one dot product a component, no product with the whole unembedding.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hydrascope.model import LanguageModel, wider


@dataclass(frozen=True)
class Readout:
    """How the centred logit of one target per prompt is read, in float32 or wider.

    Attributes:
        direction: `[prompt, width]` a, above.
        constant: `[prompt]` c, above, in logits.
        norm_kind: whether σ is the root of the mean square ("rms") or of the variance ("layer").
        eps: what the final norm adds to the square of σ.
    """

    direction: Float[Tensor, "prompt width"]
    constant: Float[Tensor, "prompt"]
    norm_kind: Literal["rms", "layer"]
    eps: float

    @classmethod
    def of(cls, model: LanguageModel, targets: Int[Tensor, "prompt"]) -> "Readout":
        """The readout of `targets` (Eq. 9, 10)."""
        wide = wider(model.dtype)
        targets = targets.to(model.device)
        centred = model.unembedding.weight[targets].to(wide) - model.mean_unembedding
        norm = model.final_norm
        direction = centred * (norm.weight.to(wide) + model.anatomy.norm_offset)
        if model.anatomy.norm_kind == "layer":
            direction = direction - direction.mean(-1, keepdim=True)
        constant = torch.zeros(len(targets), dtype=wide, device=model.device)
        if getattr(norm, "bias", None) is not None:
            constant = constant + centred @ norm.bias.to(wide)
        if getattr(model.unembedding, "bias", None) is not None:
            bias = model.unembedding.bias.to(wide)
            constant = constant + bias[targets] - bias.mean()
        scale = model.logit_scale
        return cls(direction * scale, constant * scale, model.anatomy.norm_kind, model.norm_eps)

    def scale(self, residual: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows"]:
        """σ of each residual stream (Eq. 8)."""
        residual = residual.to(self.direction.dtype)
        if self.norm_kind == "layer":
            # The statistics of LayerNorm itself: one fused pass, where `var` takes several times as long.
            return torch.native_layer_norm(residual, residual.shape[-1:], None, None, self.eps)[2][..., 0].reciprocal()
        # The norm of a vector is one fused pass where squares and their mean would be three.
        square = torch.linalg.vector_norm(residual, dim=-1).square() / residual.shape[-1]
        return (square + self.eps).sqrt()

    def unscaled(self, vectors: Float[Tensor, "prompt *rows width"]) -> Float[Tensor, "prompt *rows"]:
        """⟨v, a⟩ of each vector: its contribution to the logit times σ."""
        rows = vectors.to(self.direction.dtype).flatten(1, -2) if vectors.ndim > 2 else vectors[:, None]
        product = torch.matmul(rows.to(self.direction.dtype), self.direction[:, :, None])[..., 0]
        return product.view(vectors.shape[:-1])

    def logit(self, residual: Float[Tensor, "prompt *rows width"]) -> Float[Tensor, "prompt *rows"]:
        """π̂ of each residual stream, its own scale and the constants included, in logits."""
        constant = self.constant.view(-1, *(1,) * (residual.ndim - 2))
        return self.unscaled(residual) / self.scale(residual) + constant
