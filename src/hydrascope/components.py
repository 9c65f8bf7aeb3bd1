"""What can be ablated: the parts of a transformer that add to its residual stream."""

from dataclasses import dataclass
from typing import Literal

from hydrascope.errors import HydrascopeError

Kind = Literal["attn", "mlp"]


@dataclass(frozen=True, order=True)
class Component:
    """One attention layer or one MLP layer; `str()` is its label in results: `attn.3`, `mlp.0`.

    Ordered by layer, attention before MLP: the order in which results list components.
    """

    layer: int
    kind: Kind

    def __str__(self) -> str:
        return f"{self.kind}.{self.layer}"

    @classmethod
    def parse(cls, label: str) -> "Component":
        """The component that `label` names.

        Raises:
            HydrascopeError: the label isn't `attn.N` or `mlp.N`.
        """
        kind, _, layer = label.partition(".")
        if kind not in ("attn", "mlp") or not layer.isdecimal():
            raise HydrascopeError(f"{label!r} is no component: write attn.N or mlp.N, counting layers from 0")
        return cls(int(layer), kind)  # type: ignore[arg-type]
