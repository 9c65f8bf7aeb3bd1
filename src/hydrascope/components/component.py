"""What can be ablated and read: the parts of a transformer that add to its residual stream, and runs that ablate them.

Selections are written alike in Python and on the command line: `layers`, `attn`, `mlp`, `heads`, `heads.9`,
`heads.8-11`, `neurons.5`, `head.9.6`, `neuron.5.1203`, and lists of them with commas. Ablated may also be several parts
at once: `attn.3+mlp.5` (both ablated), `attn.3|mlp.5` (the second frozen at its clean value). Frozen, but not ablated
or read, can also be what a head attends by: `query.9.6`, `key.9.6`, `value.9.6`.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, Protocol, cast, get_args

from hydrascope.utils.errors import HydrascopeError

#: The kinds of layers, in their order within a block.
LayerKind = Literal["attn", "mlp"]
#: The parts of a layer: an attention layer's heads, an MLP's neurons.
UnitKind = Literal["head", "neuron"]
#: What a head attends by, at the positions from which on a run differs from the clean one.
InputKind = Literal["query", "key", "value"]
Kind = Literal["attn", "mlp", "head", "neuron", "query", "key", "value"]

LAYER_KINDS: tuple[LayerKind, ...] = get_args(LayerKind)
#: Which kind of layer a unit is part of, and the other way round.
LAYER_OF: dict[UnitKind, LayerKind] = {"head": "attn", "neuron": "mlp"}
INPUT_KINDS: tuple[InputKind, ...] = get_args(InputKind)
UNIT_OF: dict[LayerKind, UnitKind] = {layer: unit for unit, layer in LAYER_OF.items()}

#: The receiver of a path that isn't a part: what goes to it goes to no other.
LOGITS = "logits"

_SYNTAX = "attn.L, mlp.L, head.L.H or neuron.L.N, counting from 0"


@dataclass(frozen=True)
class Component:
    """One part: an attention layer, an MLP, a query head, a neuron, or an input of a head; `str()` is its label.

        >>> str(Component(9, "head", 6)), Component.parse("mlp.3")
        ('head.9.6', Component(layer=3, kind='mlp', unit=-1))

    Attributes:
        layer: counted from 0.
        kind: of part.
        unit: which head (or whose input), or which neuron of the layer, counted from 0; −1 for a whole layer.
    """

    layer: int
    kind: Kind
    unit: int = -1

    def __str__(self) -> str:
        return f"{self.kind}.{self.layer}" + ("" if self.unit < 0 else f".{self.unit}")

    @property
    def is_unit(self) -> bool:
        """Whether it is a head or a neuron: a part of a layer that writes on its own."""
        return self.kind in LAYER_OF

    @property
    def is_input(self) -> bool:
        """Whether it is what a head attends by."""
        return self.kind in INPUT_KINDS

    @property
    def head(self) -> "Component":
        """The head whose input it is."""
        return Component(self.layer, "head", self.unit)

    @property
    def whole(self) -> "Component":
        """The layer that it is, or is a part of."""
        kind = "attn" if self.is_input else LAYER_OF.get(cast(UnitKind, self.kind))
        return self if kind is None else Component(self.layer, kind)

    @property
    def site(self) -> "Component":
        """Where its value stands: itself for a layer; for a unit, all units of its layer side by side (`head.9`).

        An input stands nowhere: attention itself holds it.
        """
        return Component(self.layer, self.kind)

    @classmethod
    def parse(cls, label: str) -> "Component":
        """The component that `label` names.

        Raises:
            HydrascopeError: the label is none of `attn.L`, `mlp.L`, `head.L.H`, `neuron.L.N`, `query.L.H`, ….
        """
        kind, *numbers = label.split(".")
        wanted = 1 if kind in LAYER_KINDS else 2 if kind in (*LAYER_OF, *INPUT_KINDS) else None
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


def stage(component: Component, *, parallel: bool) -> int:
    """When `component` computes: one is downstream of another if its stage is later (Eq. 33).

    2·layer, and one more for the MLP where it reads what attention of its block wrote; `layer` in parallel blocks.
    """
    return (
        component.layer if parallel else 2 * component.layer + LAYER_KINDS.index(cast(LayerKind, component.whole.kind))
    )


class Parts(Protocol):
    """What of a model selections need to know."""

    @property
    def name(self) -> str: ...

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
    return tuple(part for run in selected_runs(model, selection) for part in _single(run).ablated)


def selected_mediators(model: Parts, selection: Selection) -> tuple[Component, ...]:
    """The layers, heads and inputs of heads that `selection` names: what can be frozen to see what it brings.

        >>> selected_mediators(model, "layers,head.9.6,query.9.6,values.9")  # doctest: +SKIP

    Raises:
        HydrascopeError: as `selected`; or it names neurons.
    """
    parts = tuple(part for run in _all_runs(model, selection) for part in _single(run).ablated)
    for part in parts:
        if part.kind == "neuron":
            raise HydrascopeError(f"{part} can't be a mediator: give layers, heads, or inputs of heads")
    return parts


def _single(run: Run) -> Run:
    if len(run.overridden) > 1:
        raise HydrascopeError(f"{run} is a run of several parts: name the parts one by one")
    return run


def selected_runs(model: Parts, selection: Selection) -> tuple[Run, ...]:
    """The runs that `selection` names: each component ablated alone, and joint runs as written; each once.

        >>> selected_runs(model, ["heads", "attn.5+mlp.7", "head.9.6|mlp.10"])   # doctest: +SKIP

    Raises:
        HydrascopeError: something in it is unknown, not in the model, overridden twice, or frozen where nothing that
            is ablated reaches it; or it is an input of a head, which can only be frozen.
    """
    runs = _all_runs(model, selection)
    for run in runs:
        for part in run.ablated:
            if part.is_input:
                raise HydrascopeError(f"{part} can only be frozen, as in attn.0|{part}: name a head to ablate or read")
    return runs


def _all_runs(model: Parts, selection: Selection) -> tuple[Run, ...]:
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
    start, dash, stop = number.partition("-")
    if dash and is_number(start) and is_number(stop) and int(start) <= int(stop):
        # The last first: a range that goes too far is refused before it is made.
        _word(model, f"{plural}.{int(stop)}")
        return [run for layer in range(int(start), int(stop) + 1) for run in _word(model, f"{plural}.{layer}")]
    if plural in ("heads", "neurons") and (is_number(number) or not dot):
        kind = LAYER_OF[cast(UnitKind, plural.removesuffix("s"))]
        if not dot:
            layers = [layer for layer in model.components if layer.kind == kind]
        else:
            layers = [Component(int(number), kind)]
            _require_part(model, layers[0])
        return [Run((unit,)) for layer in layers for unit in model.units(layer)]
    inputs = {"queries": "query", "keys": "key", "values": "value"}
    if plural in inputs:
        heads = _word(model, f"heads{dot}{number}")
        return [Run((Component(c.layer, cast(Kind, inputs[plural]), c.unit),)) for run in heads for c in run.ablated]
    if plural in (*LAYER_KINDS, *LAYER_OF, *INPUT_KINDS):
        return [_required(model, Run.parse(word))]
    raise HydrascopeError(f"{word!r} is no part of a model: write layers, attn, mlp, heads, neurons.L, or {_SYNTAX}")


def _required(model: Parts, run: Run) -> Run:
    """`run`, if the model can be run so."""
    if not run.ablated:
        raise HydrascopeError("a run ablates nothing: name at least one part that it ablates")
    times = Counter(run.overridden)
    for component in run.overridden:
        _require_part(model, component)
        if times[component] > 1:
            raise HydrascopeError(f"{run} overrides {component} twice: name it once")
        if component.whole != component and component.whole in times:
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
    part = component.head if component.is_input else component
    if part.whole != part and part not in (units := model.units(part.whole)):
        raise HydrascopeError(f"{model.name} has no {component}: {component.whole} has {units[0]} to {units[-1]}")


def answering(model: Parts, run: Run, components: Sequence[Component]) -> tuple[Component, ...]:
    """Those of `components` that are `downstream` of what `run` ablates, and can respond to it."""
    return tuple(part for part, yes in zip(components, downstream(model, run, components), strict=True) if yes)


def downstream(model: Parts, run: Run, components: Sequence[Component]) -> list[bool]:
    """Which of `components` are causally downstream of what `run` ablates, and can respond to it (Eq. 33).

    What the run itself overrides doesn't respond, nor does a layer count of which it ablates a part.
    """
    first = min(map(model.stage, run.ablated))
    changed, held = {component.whole for component in run.ablated}, set(run.overridden)

    def responds(component: Component) -> bool:
        own = {component, component.whole, component.head if component.is_input else component}
        overridden = not held.isdisjoint(own)
        return model.stage(component) > first and not overridden and component not in changed

    return [responds(component) for component in components]
