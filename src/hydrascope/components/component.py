"""What can be ablated and read: the parts of a transformer that add to its residual stream, and runs that ablate them.

Selections are written alike in Python and on the command line: `layers`, `attn`, `mlp`, `heads`, `heads.9`,
`heads.8-11`, `neurons.5`, `head.9.6`, `neuron.5.1203`, and lists of them with commas. Ablated may also be several parts
at once: `attn.3+mlp.5` (both ablated), `attn.3|mlp.5` (the second frozen at its clean value). Frozen, but not ablated
or read, can also be what a head attends by: `query.9.6`, `key.9.6`, `value.9.6`.
"""

from dataclasses import dataclass
from typing import Literal, cast, get_args

from hydrascope.utils.errors import HydrascopeError

#: The kinds of layers, in their order within a block.
SublayerKind = Literal["attn", "mlp"]
#: The parts of a layer: an attention layer's heads, an MLP's neurons.
UnitKind = Literal["head", "neuron"]
#: What a head attends by, at the positions from which on a run differs from the clean one.
InputKind = Literal["query", "key", "value"]
Kind = Literal["attn", "mlp", "head", "neuron", "query", "key", "value"]

SUBLAYER_KINDS: tuple[SublayerKind, ...] = get_args(SublayerKind)
#: Which kind of layer a unit is part of, and the other way round.
SUBLAYER_OF: dict[UnitKind, SublayerKind] = {"head": "attn", "neuron": "mlp"}
INPUT_KINDS: tuple[InputKind, ...] = get_args(InputKind)
UNIT_OF: dict[SublayerKind, UnitKind] = {layer: unit for unit, layer in SUBLAYER_OF.items()}

#: The receiver of a path that isn't a part: what goes to it goes to no other.
LOGITS = "logits"

_SYNTAX = "attn.L, mlp.L, head.L.H or neuron.L.N, counting from 0"


@dataclass(frozen=True)
class Component:
    """One part: an attention layer, an MLP, a query head, a neuron, or an input of a head; `str()` is its label.

        >>> str(Component(9, "head", 6)), Component.parse("mlp.3")
        ('head.9.6', Component(block=3, kind='mlp', unit=-1))

    Attributes:
        block: counted from 0.
        kind: of part.
        unit: which head (or whose input), or which neuron of the layer, counted from 0; −1 for a whole layer.
    """

    block: int
    kind: Kind
    unit: int = -1

    def __str__(self) -> str:
        return f"{self.kind}.{self.block}" + ("" if self.unit < 0 else f".{self.unit}")

    @property
    def is_unit(self) -> bool:
        """Whether it is a head or a neuron: a part of a layer that writes on its own."""
        return self.kind in SUBLAYER_OF

    @property
    def is_input(self) -> bool:
        """Whether it is what a head attends by."""
        return self.kind in INPUT_KINDS

    @property
    def head(self) -> "Component":
        """The head whose input it is."""
        return Component(self.block, "head", self.unit)

    @property
    def sublayer(self) -> "Component":
        """The layer that it is, or is a part of."""
        kind = "attn" if self.is_input else SUBLAYER_OF.get(cast(UnitKind, self.kind))
        return self if kind is None else Component(self.block, kind)

    @property
    def site(self) -> "Component":
        """Where its value stands: itself for a layer; for a unit, all units of its layer side by side (`head.9`).

        An input stands nowhere: attention itself holds it.
        """
        return Component(self.block, self.kind)

    @classmethod
    def parse(cls, label: str) -> "Component":
        """The component that `label` names.

        Raises:
            HydrascopeError: the label is none of `attn.L`, `mlp.L`, `head.L.H`, `neuron.L.N`, `query.L.H`, ….
        """
        kind, *numbers = label.split(".")
        wanted = 1 if kind in SUBLAYER_KINDS else 2 if kind in (*SUBLAYER_OF, *INPUT_KINDS) else None
        if wanted != len(numbers) or not all(map(is_number, numbers)):
            raise HydrascopeError(f"{label!r} is no part of a model: write {_SYNTAX}")
        return cls(int(numbers[0]), cast(Kind, kind), int(numbers[1]) if wanted == 2 else -1)


@dataclass(frozen=True)
class Override:
    """One way to run a model: some components ablated together, others frozen at their clean values.

    `str()` is its label in results, and `Run.parse` reads it:

        >>> str(Override((Component(3, "attn"),), (Component(5, "mlp"),)))
        'attn.3|mlp.5'

    Attributes:
        ablated: what writes a patch, the same patch of all in one run.
        frozen: what writes what it does in the clean run, at every position.
    """

    ablated: tuple[Component, ...]
    frozen: tuple[Component, ...] = ()

    def __str__(self) -> str:
        return "+".join(map(str, self.ablated)) + "".join(f"|{component}" for component in self.frozen)

    @property
    def overridden(self) -> tuple[Component, ...]:
        """Everything that doesn't write what it would."""
        return self.ablated + self.frozen

    @classmethod
    def parse(cls, label: str) -> "Override":
        """The run that `label` names.

        Raises:
            HydrascopeError: it names something that is no component.
        """
        ablated, *frozen = label.split("|")
        kept = [part for each in frozen for part in each.split("+")]
        return cls(tuple(map(Component.parse, ablated.split("+"))), tuple(map(Component.parse, kept)))


def is_number(text: str) -> bool:
    """Whether `text` is a whole number that something may have as many of."""
    return text.isdecimal() and len(text) < 19


def stage(component: Component, *, parallel: bool) -> int:
    """When `component` computes: one is downstream of another if its stage is later (Eq. 33).

    2·layer, and one more for the MLP where it reads what attention of its block wrote; `layer` in parallel blocks.
    """
    return (
        component.block
        if parallel
        else 2 * component.block + SUBLAYER_KINDS.index(cast(SublayerKind, component.sublayer.kind))
    )
