"""The size of a network that an experiment is about."""

from dataclasses import dataclass

import xarray as xr

from hydrascope.components.component import SUBLAYER_KINDS, Component, stage
from hydrascope.utils.errors import HydrascopeError


@dataclass(frozen=True)
class Network:
    """The parts of a model that a result is of: its layers and heads, in their order; without the model itself."""

    name: str
    depth: int
    heads: int
    parallel: bool

    @classmethod
    def of(cls, results: xr.Dataset) -> "Network":
        """The network that a result is of, from its attributes."""
        told = results.attrs
        return cls(told["model"], told["depth"], told["heads"], bool(told["parallel"]))

    @property
    def sublayers(self) -> tuple[Component, ...]:
        """Its layers."""
        return tuple(Component(block, kind) for block in range(self.depth) for kind in SUBLAYER_KINDS)

    def units(self, sublayer: Component) -> tuple[Component, ...]:
        """The heads of an attention layer.

        Raises:
            HydrascopeError: it is an MLP, whose neurons a result doesn't count.
        """
        if sublayer.kind != "attn":
            raise HydrascopeError(f"a result doesn't say how many neurons {sublayer} has")
        return tuple(Component(sublayer.block, "head", head) for head in range(self.heads))

    def stage(self, component: Component) -> int:
        """As `LanguageModel.stage`."""
        return stage(component, parallel=self.parallel)
