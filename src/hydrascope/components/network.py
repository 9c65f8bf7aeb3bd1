"""The sublayers and heads of a measured model, read from a result."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import xarray as xr

from hydrascope.components.component import SUBLAYER_KINDS, Component
from hydrascope.components.order import stage
from hydrascope.utils.errors import HydrascopeError


@dataclass(frozen=True)
class Network:
    """The sublayers and heads of the model that a result was measured on.

    Attributes:
        name: the name of the model.
        depth: the number of blocks.
        heads: the number of heads in a block.
        parallel: whether the attention and the MLP of a block read the same residual stream.
        feature_counts: the number of features of the dictionary at each site.
    """

    name: str
    depth: int
    heads: int
    parallel: bool
    feature_counts: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, results: xr.Dataset) -> "Network":
        """Return the network of a result, from its attributes."""
        attrs = results.attrs
        counts = attrs.get("dictionaries", {})
        counts = json.loads(counts) if isinstance(counts, str) else counts
        return cls(attrs["model"], attrs["depth"], attrs["heads"], bool(attrs["parallel"]), counts)

    @property
    def sublayers(self) -> tuple[Component, ...]:
        """All sublayers, in their order."""
        return tuple(Component(block, kind) for block in range(self.depth) for kind in SUBLAYER_KINDS)

    def units(self, sublayer: Component) -> tuple[Component, ...]:
        """Return the heads of an attention sublayer.

        Raises:
            HydrascopeError: the sublayer is an MLP; a result doesn't count its neurons.
        """
        if sublayer.kind != "attn":
            raise HydrascopeError(f"a result doesn't say how many neurons {sublayer} has: name sublayers or heads")
        return tuple(Component(sublayer.block, "head", head) for head in range(self.heads))

    def stage(self, component: Component) -> int:
        """Return the stage of a component, as `LanguageModel.stage` does."""
        return stage(component, parallel=self.parallel)
