"""The engines: `reference`, plain forward passes, and `wavefront`, one pass over the blocks.

Both take a `Request` and return the same `Readings`; `choose_engine` picks one for a model.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from hydrascope.components.component import Component
from hydrascope.engines import reference, wavefront
from hydrascope.engines.interface import Readings, Request, VisitStreams
from hydrascope.models.language_model import LanguageModel
from hydrascope.utils.errors import HydrascopeError

__all__ = ["ENGINES", "Engine", "Readings", "Request", "choose_engine"]


@dataclass(frozen=True)
class Engine:
    """An engine, with the reason for its choice.

    Attributes:
        name: `wavefront` or `reference`.
        measure: the function that answers a request.
        reason: the reason in words.
    """

    name: str
    measure: Callable[[LanguageModel, Request], Readings]
    reason: str

    def activations_before_override(
        self, model: LanguageModel, request: Request, sites: Sequence[Component]
    ) -> dict[Component, Float[Tensor, "prompt ablated patch slot columns"]]:
        """Return the activations at `sites` under each override, before they are overwritten.

        They are taken at the request's positions. All sites must be downstream of every override's first ablated
        component.

        Returns:
            `[prompt, ablated, patch, slot, columns]` for each site.
        """
        return _BEFORE_OVERRIDE[self.name](model, request, sites)

    def final_streams(
        self, model: LanguageModel, request: Request
    ) -> tuple[Float[Tensor, "prompt width"], Float[Tensor, "prompt ablated patch width"]]:
        """Return the residual streams before the final norm at each prompt's last position.

        They are those of the clean pass, and those of each patch of each override.
        """
        return _FINAL_STREAMS[self.name](model, request)

    def visit_streams(self, model: LanguageModel, request: Request, visit: VisitStreams) -> None:
        """Call `visit` with the residual streams at each prompt's last position, block by block.

        Block l, from 1 on, stands for the stream that enters it; the number of blocks for the final stream.
        """
        _VISIT_STREAMS[self.name](model, request, visit)

    def attention_weights(
        self, model: LanguageModel, request: Request, heads: Sequence[Component]
    ) -> tuple[Float[Tensor, "prompt head position"], Float[Tensor, "prompt ablated patch head position"]]:
        """Return the attention weights of heads at each prompt's last position.

        They are those of the clean pass, and those of each patch of each override, in float32 or wider. A head has
        weights even where its output, or that of its block's attention, is overwritten. Positions after a prompt's
        last have weight 0.
        """
        return _ATTENTION_WEIGHTS[self.name](model, request, heads)


ENGINES = {"wavefront": wavefront.measure, "reference": reference.measure}
_BEFORE_OVERRIDE = {
    "wavefront": wavefront.activations_before_override,
    "reference": reference.activations_before_override,
}
_ATTENTION_WEIGHTS = {"wavefront": wavefront.attention_weights, "reference": reference.attention_weights}
_VISIT_STREAMS = {"wavefront": wavefront.visit_streams, "reference": reference.visit_streams}
_FINAL_STREAMS = {"wavefront": wavefront.final_streams, "reference": reference.final_streams}


def choose_engine(model: LanguageModel, name: str = "auto") -> Engine:
    """Return the engine called `name`; for "auto", the fastest that supports `model`.

    Raises:
        HydrascopeError: there is no such engine, or the wavefront engine doesn't support the model.
    """
    if name not in ("auto", *ENGINES):
        raise HydrascopeError(f"unknown engine {name!r}: choose auto, {' or '.join(ENGINES)}")
    fast = model.anatomy.supports_wavefront
    why_not = f"{model.config.model_type} does not attend through transformers' AttentionInterface"
    if name == "wavefront" and not fast:
        raise HydrascopeError(f"the wavefront engine does not support this model: {why_not}; use the reference engine")
    if name == "auto":
        best = "wavefront" if fast else "reference"
        reason = "the fastest for this model" if fast else f"the only one for this model: {why_not}"
        return Engine(best, ENGINES[best], reason)
    return Engine(name, ENGINES[name], "asked for")
