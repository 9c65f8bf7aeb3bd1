"""What can be ablated and read: the parts of a transformer that add to its residual stream, and runs that ablate them.

Selections are written alike in Python and on the command line: `layers`, `attn`, `mlp`, `heads`, `heads.9`,
`neurons.5`, `head.9.6`, `neuron.5.1203`, and lists of them with commas. Ablated may also be several parts at once:
`attn.3+mlp.5` (both ablated), `attn.3|mlp.5` (the second frozen at its clean value).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, Protocol, cast, get_args

from hydrascope.errors import HydrascopeError

#: The kinds of layers, in their order within a block.
LayerKind = Literal["attn", "mlp"]
#: The parts of a layer: an attention layer's heads, an MLP's neurons.
UnitKind = Literal["head", "neuron"]
Kind = Literal["attn", "mlp", "head", "neuron"]

LAYER_KINDS: tuple[LayerKind, ...] = get_args(LayerKind)
#: Which kind of layer a unit is part of, and the other way round.
LAYER_OF: dict[UnitKind, LayerKind] = {"head": "attn", "neuron": "mlp"}
UNIT_OF: dict[LayerKind, UnitKind] = {layer: unit for unit, layer in LAYER_OF.items()}

_SYNTAX = "attn.L, mlp.L, head.L.H or neuron.L.N, counting from 0"


@dataclass(frozen=True)
class Component:
    """One part: an attention layer, an MLP, a query head or a neuron; `str()` is its label in results.

        >>> str(Component(9, "head", 6)), Component.parse("mlp.3")
        ('head.9.6', Component(layer=3, kind='mlp', unit=-1))

    Attributes:
        layer: counted from 0.
        kind: of part.
        unit: which head or neuron of the layer, counted from 0; −1 for a whole layer.
    """

    layer: int
    kind: Kind
    unit: int = -1

    def __str__(self) -> str:
        return f"{self.kind}.{self.layer}" + ("" if self.unit < 0 else f".{self.unit}")

    @property
    def is_unit(self) -> bool:
        """Whether it is a part of a layer, not a whole one."""
        return self.unit >= 0

    @property
    def whole(self) -> "Component":
        """The layer that it is, or is a part of."""
        kind = LAYER_OF.get(cast(UnitKind, self.kind))
        return self if kind is None else Component(self.layer, kind)

    @property
    def site(self) -> "Component":
        """Where its value stands: itself for a layer; for a unit, all units of its layer side by side (`head.9`)."""
        return Component(self.layer, self.kind)

    @classmethod
    def parse(cls, label: str) -> "Component":
        """The component that `label` names.

        Raises:
            HydrascopeError: the label is none of `attn.L`, `mlp.L`, `head.L.H`, `neuron.L.N`.
        """
        kind, *numbers = label.split(".")
        wanted = {"attn": 1, "mlp": 1, "head": 2, "neuron": 2}.get(kind)
        if wanted != len(numbers) or not all(map(is_number, numbers)):
            raise HydrascopeError(f"{label!r} is no part of a model: write {_SYNTAX}")
        return cls(int(numbers[0]), cast(Kind, kind), int(numbers[1]) if wanted == 2 else -1)


@dataclass(frozen=True)
class Run:
    """One way to run a model: some components ablated together, others frozen at their clean values.

    `str()` is its label in results, and `Run.parse` reads it:

        >>> str(Run((Component(3, "attn"),), (Component(5, "mlp"),)))
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
    def parse(cls, label: str) -> "Run":
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


class Parts(Protocol):
    """What of a model selections need to know."""

    name: str

    @property
    def components(self) -> tuple[Component, ...]: ...

    def units(self, layer: Component) -> tuple[Component, ...]: ...

    def stage(self, component: Component) -> int: ...


#: One selection or several: labels, components, runs.
Selection = str | Component | Run | Iterable[str | Component | Run]


def selected(model: Parts, selection: Selection) -> tuple[Component, ...]:
    """The single components that `selection` names, each once, in the order given.

        >>> selected(model, "heads.9,mlp")                                   # doctest: +SKIP

    Raises:
        HydrascopeError: something in it is unknown, not in the model, or joins several components.
    """
    found: list[Component] = []
    for run in selected_runs(model, selection):
        if len(run.overridden) > 1:
            raise HydrascopeError(f"{run} is a run of several parts: name the parts one by one")
        found += run.ablated
    return tuple(found)


def selected_runs(model: Parts, selection: Selection) -> tuple[Run, ...]:
    """The runs that `selection` names: each component ablated alone, and joint runs as written; each once.

        >>> selected_runs(model, ["heads", "attn.5+mlp.7", "head.9.6|mlp.10"])   # doctest: +SKIP

    Raises:
        HydrascopeError: something in it is unknown, not in the model, overridden twice, or frozen where nothing that
            is ablated reaches it.
    """
    given = list(selection) if isinstance(selection, Iterable) and not isinstance(selection, str) else [selection]
    runs = dict.fromkeys(chain.from_iterable(_runs(model, each) for each in given))
    if not runs:
        raise HydrascopeError("nothing is selected: name at least one part, as layers, heads or attn.3")
    return tuple(runs)


def _runs(model: Parts, selection: Any) -> list[Run]:
    if not isinstance(selection, str | Component | Run):
        raise HydrascopeError(
            f"{selection!r} is no part of a model: give labels such as 'heads' or 'attn.3', hs.Component or hs.Run"
        )
    if isinstance(selection, Run):
        return [_required(model, selection)]
    if isinstance(selection, Component):
        return [_required(model, Run((selection,)))]
    return [run for word in selection.split(",") for run in _word(model, word.strip())]


def _word(model: Parts, word: str) -> list[Run]:
    """The runs that one word of a selection names."""
    groups = {"layers": LAYER_KINDS, "attn": ("attn",), "mlp": ("mlp",)}
    if word in groups:
        return [Run((layer,)) for layer in model.components if layer.kind in groups[word]]
    plural, dot, number = word.partition(".")
    if plural in ("heads", "neurons") and (is_number(number) or not dot):
        kind = LAYER_OF[cast(UnitKind, plural.removesuffix("s"))]
        if not dot:
            layers = [layer for layer in model.components if layer.kind == kind]
        else:
            layers = [Component(int(number), kind)]
            _require_part(model, layers[0])
        return [Run((unit,)) for layer in layers for unit in model.units(layer)]
    if plural in (*LAYER_KINDS, "head", "neuron"):
        return [_required(model, Run.parse(word))]
    raise HydrascopeError(f"{word!r} is no part of a model: write layers, attn, mlp, heads, neurons.L, or {_SYNTAX}")


def _required(model: Parts, run: Run) -> Run:
    """`run`, if the model can be run so."""
    if not run.ablated:
        raise HydrascopeError("a run ablates nothing: name at least one part that it ablates")
    for component in run.overridden:
        _require_part(model, component)
        if run.overridden.count(component) > 1:
            raise HydrascopeError(f"{run} overrides {component} twice: name it once")
        if component.is_unit and component.whole in run.overridden:
            raise HydrascopeError(f"{run} overrides {component} and the whole of {component.whole}: choose one of them")
    first = min(map(model.stage, run.ablated))
    for component in run.frozen:
        if model.stage(component) <= first:
            raise HydrascopeError(f"{run} freezes {component}, which nothing that it ablates reaches: leave it out")
    return run


def _require_part(model: Parts, component: Component) -> None:
    """Refuse what the model doesn't have."""
    if component.whole not in model.components:
        last = model.components[-1].layer
        raise HydrascopeError(f"{model.name} has no {component}: its layers are 0 to {last}")
    if component.whole != component and component not in (units := model.units(component.whole)):
        raise HydrascopeError(f"{model.name} has no {component}: {component.whole} has {units[0]} to {units[-1]}")


def downstream(model: Parts, run: Run, components: Sequence[Component]) -> list[bool]:
    """Which of `components` are causally downstream of what `run` ablates, and can respond to it (Eq. 33).

    What the run itself overrides doesn't respond, nor does a layer count of which it ablates a part.
    """
    first = min(map(model.stage, run.ablated))
    changed = {component.whole for component in run.ablated}

    def responds(component: Component) -> bool:
        overridden = component in run.overridden or component.whole in run.overridden
        return model.stage(component) > first and not overridden and component not in changed

    return [responds(component) for component in components]
