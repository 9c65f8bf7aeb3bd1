"""The facts of a model that selections and orders of components need."""

from collections.abc import Mapping
from typing import Protocol

from hydrascope.components.component import Component


class CausalOrder(Protocol):
    """The causal order of a model's components."""

    def stage(self, component: Component) -> int: ...


class ModelShape(CausalOrder, Protocol):
    """The facts of a model that selections need."""

    @property
    def name(self) -> str: ...

    @property
    def sublayers(self) -> tuple[Component, ...]: ...

    def units(self, sublayer: Component) -> tuple[Component, ...]: ...

    @property
    def feature_counts(self) -> Mapping[str, int]: ...
