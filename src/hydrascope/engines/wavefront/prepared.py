"""The parts of a sweep that are there before it starts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from hydrascope.components.component import Component
from hydrascope.engines.clean.prefix import SharedPrefix, compute_prefix
from hydrascope.engines.interface import Request
from hydrascope.engines.kernels.matmul import Routines
from hydrascope.engines.kernels.patching import fastest_routines
from hydrascope.engines.wavefront.schedule import Schedule, schedule
from hydrascope.models.language_model import LanguageModel


@dataclass(frozen=True)
class Prepared:
    """The parts of a sweep that are there before it starts.

    Attributes:
        plan: the places where rows join.
        values: `[prompt, patch, slot, columns]` the patches of each ablated component.
        routines: the routine for each product.
        common: the tensors that all rows share.
    """

    plan: Schedule
    values: Mapping[Component, Tensor]
    routines: Routines
    common: SharedPrefix

    @classmethod
    def of(cls, model: LanguageModel, request: Request, sites: Sequence[Component]) -> "Prepared":
        """Draw all patches; compute the prefix, with activations at `sites`, if there is none."""
        # All at once, before any hook is on: drawing a patch may run the model.
        ablated = dict.fromkeys(component for override in request.overrides for component in override.ablated)
        values = {component: request.values(component).to(model.device) for component in ablated}
        routines = fastest_routines(model) if request.routines is None else request.routines
        common = request.prefix or compute_prefix(model, request.tokens, request.positions, sites, routines)
        read = (*request.units, *request.summed)
        return cls(schedule(model, request.overrides, read), values, routines, common)
