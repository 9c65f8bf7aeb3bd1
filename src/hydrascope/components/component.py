"""Components of a transformer, which add to its residual stream, and overrides of them.

Selections are written alike in Python and on the command line: `layers` (all sublayers), `attn`, `mlp`, `heads`,
`heads.9`, `heads.8-11`, `neurons.5`, `head.9.6`, `neuron.5.1203`, and lists of them with commas. An override may name
several components: `attn.3+mlp.5` (both ablated), `attn.3|mlp.5` (the second frozen at its clean activation);
`block.3` is `attn.3+mlp.3`, all that the block adds, and `blocks` selects every block.

The inputs of a head can be frozen, but not ablated or read: `query.9.6`, `key.9.6`, `value.9.6`. Where the model has a
dictionary at a site such as `mlp.5`, its terms are components: `feature.mlp.5.1203`, all features together
`feature.mlp.5`, the error `error.mlp.5`, and the bias `bias.mlp.5`. Names of TransformerLens, nnsight and nnterp are
read, too (`other_names.py`).
"""

from dataclasses import dataclass
from typing import Literal, cast, get_args

from hydrascope.components.dictionary_site import SUBLAYER_AT, DictionarySite, parse_site
from hydrascope.components.other_names import parse_other_name, transformer_lens_name
from hydrascope.components.part import Part, cut_part
from hydrascope.utils.errors import HydrascopeError

#: The kinds of sublayers, in their order within a block.
SublayerKind = Literal["attn", "mlp"]
#: The units of a sublayer: the heads of attention, the neurons of an MLP.
UnitKind = Literal["head", "neuron"]
#: The inputs of a head. A frozen input is frozen from the first ablated position on.
InputKind = Literal["query", "key", "value"]
#: The terms that a dictionary takes a vector apart into: features, the error, and the bias, which no feature writes.
TermKind = Literal["feature", "error", "bias"]
#: `stream` is the residual stream that enters a block: no component, but the home of the terms of its dictionary.
Kind = Literal["attn", "mlp", "head", "neuron", "query", "key", "value", "feature", "error", "bias", "stream"]

SUBLAYER_KINDS: tuple[SublayerKind, ...] = get_args(SublayerKind)
#: The kind of sublayer that holds a kind of unit, and the other way round.
SUBLAYER_OF: dict[UnitKind, SublayerKind] = {"head": "attn", "neuron": "mlp"}
INPUT_KINDS: tuple[InputKind, ...] = get_args(InputKind)
TERM_KINDS: tuple[TermKind, ...] = get_args(TermKind)
UNIT_OF: dict[SublayerKind, UnitKind] = {sublayer: unit for unit, sublayer in SUBLAYER_OF.items()}

#: The receiver of a causal path that goes straight to the logits, and is no component.
LOGITS = "logits"

_SYNTAX = "attn.L, mlp.L, head.L.H or neuron.L.N, counting from 0"


@dataclass(frozen=True, repr=False)
class Component:
    """A sublayer, a head, a neuron, an input of a head, or a term of a dictionary.

    `str()` returns its label.

        >>> str(hs.Component(9, "head", 6)), hs.Component.parse("mlp.3")
        ('head.9.6', Component(block=3, kind='mlp', unit=-1))

    Attributes:
        block: the index of its block, counted from 0.
        kind: `attn`, `mlp`, `head`, `neuron`, `query`, `key`, `value`, `feature`, `error` or `bias`.
        unit: the index of the head or neuron in the sublayer, or of the feature in its dictionary, counted from 0; −1
            for a sublayer, for all features of a dictionary together, for an error and a bias.
        place: the kind of the dictionary's site, such as `mlp`; "" for what belongs to no dictionary.
    """

    block: int
    kind: Kind
    unit: int = -1
    place: DictionarySite | Literal[""] = ""

    def __repr__(self) -> str:
        place = f", place={self.place!r}" if self.place else ""
        return f"Component(block={self.block}, kind={self.kind!r}, unit={self.unit}{place})"

    def __str__(self) -> str:
        place = f".{self.place}" if self.place else ""
        return f"{self.kind}{place}.{self.block}" + ("" if self.unit < 0 else f".{self.unit}")

    @property
    def is_unit(self) -> bool:
        """Whether it is a head or a neuron."""
        return self.kind in SUBLAYER_OF

    @property
    def is_term(self) -> bool:
        """Whether it is a term of a dictionary: a feature or all of them, the error, or the bias."""
        return self.kind in TERM_KINDS

    @property
    def is_input(self) -> bool:
        """Whether it is an input of a head: its query, key or value."""
        return self.kind in INPUT_KINDS

    @property
    def head(self) -> "Component":
        """The head that the input belongs to."""
        return Component(self.block, "head", self.unit)

    @property
    def sublayer(self) -> "Component":
        """The sublayer that it is or belongs to; `stream.L` for terms of the residual stream."""
        kind: Kind | None = "attn" if self.is_input else SUBLAYER_OF.get(cast(UnitKind, self.kind))
        if self.place:
            kind = SUBLAYER_AT.get(self.place, "stream")
        return self if kind is None else Component(self.block, kind)

    @property
    def site(self) -> "Component":
        """Return the site of its activation: a sublayer, all units of one (`head.9`), or a term.

        Inputs of heads have no site, since attention itself holds them. All features of a dictionary have one.
        """
        return Component(self.block, self.kind, place=self.place)

    @property
    def entry(self) -> Literal["block", "units", "output"]:
        """Return where in its block its override enters: before it, at units, or at the output."""
        if self.is_input or self.place == "stream":
            return "block"
        return "units" if self.is_unit or self.place in ("heads", "raw.attn", "raw.mlp") else "output"

    def as_transformer_lens(self) -> str:
        """Return its name in TransformerLens, with the head or neuron as an index.

            >>> hs.Component(9, "head", 6).as_transformer_lens()
            'blocks.9.attn.hook_z[6]'

        Raises:
            HydrascopeError: it is a key or a value, which TransformerLens counts by the heads that share one; or a
                term of a dictionary.
        """
        if self.is_term:
            raise HydrascopeError(f"{self} has no name in TransformerLens: it is a term of a dictionary")
        return transformer_lens_name(self.block, self.kind, self.unit)

    @classmethod
    def parse(cls, label: str) -> "Component":
        """Return the component with a label.

            >>> hs.Component.parse("head.9.6").sublayer
            Component(block=9, kind='attn', unit=-1)
            >>> str(hs.Component.parse("blocks.5.mlp.hook_post[1203]"))
            'neuron.5.1203'

        Args:
            label: `attn.L`, `mlp.L`, `head.L.H`, `neuron.L.N`, `query.L.H`, `key.L.H` or `value.L.H`; L is the block.
                Or `feature.SITE.F`, `feature.SITE`, `error.SITE` or `bias.SITE`, with a dictionary's site, such as
                `mlp.L`. Or the component's name in TransformerLens, nnsight, nnterp or the model's own modules
                (`hydrascope.components.other_names`).

        Raises:
            HydrascopeError: the label has another form, or is another tool's name of no single component.
        """
        if other := parse_other_name(label):
            block, name, unit = other
            return cls(block, cast(Kind, name), unit)
        kind, *numbers = label.split(".")
        if kind in TERM_KINDS:
            return _parse_term(label)
        count = 1 if kind in SUBLAYER_KINDS else 2 if kind in (*SUBLAYER_OF, *INPUT_KINDS) else None
        if count != len(numbers) or not all(map(is_number, numbers)):
            raise HydrascopeError(f"{label!r} is no component of a model: write {_SYNTAX}")
        return cls(int(numbers[0]), cast(Kind, kind), int(numbers[1]) if count == 2 else -1)


@dataclass(frozen=True)
class Override:
    """The components that are ablated together in one row, and those that are frozen in it.

    `str()` returns its label in results, and `Override.parse` reads it:

        >>> str(hs.Override((hs.Component(3, "attn"),), (hs.Component(5, "mlp"),)))
        'attn.3|mlp.5'

    Attributes:
        ablated: the components that write a patch. All patches in one row come from the same source.
        frozen: the components that write their clean activation at every position.
        part: the part of the change that is written instead of the whole (`hydrascope.Split`).
    """

    ablated: tuple[Component, ...]
    frozen: tuple[Component, ...] = ()
    part: Part | None = None

    def __str__(self) -> str:
        frozen = "".join(f"|{component}" for component in self.frozen)
        return "+".join(map(str, self.ablated)) + frozen + (f":{self.part}" if self.part else "")

    @property
    def overridden(self) -> tuple[Component, ...]:
        """All ablated and frozen components."""
        return self.ablated + self.frozen

    @property
    def at_sublayers(self) -> "Override":
        """The override with each unit replaced by its sublayer, and without a part."""
        return Override(tuple(dict.fromkeys(component.sublayer for component in self.ablated)), self.frozen)

    @classmethod
    def parse(cls, label: str) -> "Override":
        """Return the override with a label.

            >>> hs.Override.parse("attn.3+mlp.5|head.9.6").frozen
            (Component(block=9, kind='head', unit=6),)

        Args:
            label: labels of ablated components joined by `+`, then those of frozen ones, each after `|`, then the part
                after `:`. `block.L` stands for `attn.L+mlp.L`.

        Raises:
            HydrascopeError: the label names something that is no component.
        """
        label, part = cut_part(label)
        ablated, *frozen = label.split("|")
        return cls(_parse_joined(ablated), tuple(each for group in frozen for each in _parse_joined(group)), part)


def _parse_joined(labels: str) -> tuple[Component, ...]:
    """Return the components with labels joined by `+`; `block.L` names both of its sublayers."""
    found: list[Component] = []
    for label in labels.split("+"):
        kind, _, block = label.partition(".")
        if kind == "block" and is_number(block):
            found += [Component(int(block), sublayer) for sublayer in SUBLAYER_KINDS]
        else:
            found.append(Component.parse(label))
    return tuple(found)


def is_number(text: str) -> bool:
    """Whether `text` is a whole number of at most 18 digits."""
    return text.isdecimal() and len(text) < 19


def _parse_term(label: str) -> Component:
    """Return the term of a dictionary with a label."""
    kind, _, rest = label.partition(".")
    head, _, last = rest.rpartition(".")
    single = kind == "feature" and is_number(last) and is_number(head.rpartition(".")[2])
    try:
        place, block = parse_site(head if single else rest)
    except HydrascopeError:
        raise HydrascopeError(
            f"{label!r} is no term of a dictionary: write feature.SITE.F, feature.SITE, error.SITE or bias.SITE, with "
            "a site such as mlp.5"
        ) from None
    return Component(block, cast(Kind, kind), int(last) if single else -1, place)
