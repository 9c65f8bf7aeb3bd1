"""The engines: `reference` (plain forward passes) and `wavefront` (one sweep over the layers), one answer.

Both take a `Request` and give `Readings`; `choose` picks one for a model and says why.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from hydrascope.components.component import Component
from hydrascope.engines import reference, wavefront
from hydrascope.engines.interface import Readings, Request
from hydrascope.models.language_model import LanguageModel
from hydrascope.utils.errors import HydrascopeError

__all__ = ["ENGINES", "Engine", "Readings", "Request", "choose_engine"]


@dataclass(frozen=True)
class Engine:
    """A way to measure, and why it was chosen."""

    name: str
    measure: Callable[[LanguageModel, Request], Readings]
    reason: str

    def activations_before_override(
        self, model: LanguageModel, request: Request, sites: Sequence[Component]
    ) -> dict[Component, Float[Tensor, "prompt run patch slot columns"]]:
        """What stands at `sites` in each run of `request`, at its positions, before it is overwritten there.

        Sites are downstream of what every run ablates first.
        """
        return _BEFORE_OVERRIDE[self.name](model, request, sites)


ENGINES = {"wavefront": wavefront.measure, "reference": reference.measure}
_BEFORE_OVERRIDE = {
    "wavefront": wavefront.activations_before_override,
    "reference": reference.activations_before_override,
}


def choose_engine(model: LanguageModel, name: str = "auto") -> Engine:
    """The engine called `name`, or with "auto" the fastest that can carry `model`.

    Raises:
        HydrascopeError: there is no such engine, or the wavefront engine is asked for and can't carry the model.
    """
    if name not in ("auto", *ENGINES):
        raise HydrascopeError(f"unknown engine {name!r}: choose auto, {' or '.join(ENGINES)}")
    fast = model.anatomy.supports_wavefront
    why_not = f"{model.config.model_type} does not attend through transformers' AttentionInterface"
    if name == "wavefront" and not fast:
        raise HydrascopeError(f"the wavefront engine cannot carry this model: {why_not}; use the reference engine")
    if name == "auto":
        chosen = "wavefront" if fast else "reference"
        reason = "the fastest that carries this model" if fast else f"the only one that can: {why_not}"
        return Engine(chosen, ENGINES[chosen], reason)
    return Engine(name, ENGINES[name], "asked for")
