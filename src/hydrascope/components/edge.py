"""Edges of a transformer, from a component that writes to one that reads."""

import re
from dataclasses import dataclass
from typing import cast

from hydrascope.components.component import LOGITS, Component, InputKind
from hydrascope.components.model_shape import ModelShape
from hydrascope.utils.errors import HydrascopeError

#: The residual stream before the first block, as a source: the token embeddings, with positions where these are added.
EMBED = Component(0, "stream")

#: The reader of all edges out of a source at once, whose effect is the total effect of the source.
EVERYTHING = "everything"

_GROUP = re.compile(r"group\.(\d{1,9})\.(\d{1,9})\.(key|value)")
_HEAD = re.compile(r"head\.(\d{1,9})\.(\d{1,9})\.(query|key|value)")


@dataclass(frozen=True)
class Reader:
    """A component that reads the residual stream: a sublayer, an input of heads, or the logits.

    `str()` returns its label.

    Attributes:
        label: `attn.L`, `mlp.L`, `query.L.H`, `key.L.H`, `value.L.H`, `group.L.G.key`, `group.L.G.value`, `logits`, or
            `everything` that is downstream of the source.
        sublayer: the sublayer; None for the logits and for everything.
        inputs: the inputs of heads that read the source; empty if the whole sublayer does.
    """

    label: str
    sublayer: Component | None = None
    inputs: tuple[Component, ...] = ()

    def __str__(self) -> str:
        return self.label


@dataclass(frozen=True)
class Edge:
    """An edge of a transformer.

    Attributes:
        source: the component that writes: a sublayer, a head, or `EMBED`.
        reader: the component that reads.
    """

    source: Component
    reader: Reader


def source_label(source: Component) -> str:
    """Return the label of a source: `embed`, or the component's.

    >>> source_label(EMBED), source_label(Component(3, "attn"))
    ('embed', 'attn.3')
    """
    return "embed" if source == EMBED else str(source)


def gap_before(model: ModelShape, sublayer: Component) -> int:
    """Return the place in the residual stream that a sublayer reads.

    Block l reads at 2l. In sequential blocks the MLP reads at 2l + 1, after attention; the final norm reads at twice
    the number of blocks.
    """
    after_attention = sublayer.kind == "mlp" and model.stage(sublayer) != model.stage(Component(sublayer.block, "attn"))
    return 2 * sublayer.block + after_attention


def gap_after(model: ModelShape, source: Component) -> int:
    """Return the first place in the residual stream that holds what a source writes."""
    if source == EMBED:
        return 0
    sublayer = source.sublayer
    mlp = Component(sublayer.block, "mlp")
    sequential = model.stage(mlp) != model.stage(Component(sublayer.block, "attn"))
    return 2 * sublayer.block + (1 if sequential and sublayer.kind == "attn" else 2)


def exists(model: ModelShape, edge: Edge) -> bool:
    """Return whether the reader is downstream of the source."""
    sublayer = edge.reader.sublayer
    return sublayer is None or gap_before(model, sublayer) >= gap_after(model, edge.source)


def parse_reader(model: ModelShape, label: str, groups: int) -> Reader:
    """Return the reader with a label.

    >>> parse_reader(model, "query.1.0", 4).sublayer
    Component(block=1, kind='attn', unit=-1)

    Args:
        model: the model.
        label: as in `Reader`, or another name of the component; `head.L.H.query` is `query.L.H`.
        groups: the number of groups of heads in a block that share a key and a value.

    Raises:
        HydrascopeError: there is no such reader.
    """
    if label == LOGITS:
        return Reader(label)
    if found := _GROUP.fullmatch(label):
        block, group, kind = int(found[1]), int(found[2]), cast(InputKind, found[3])
        label = f"group.{block}.{group}.{kind}"
        attention = _require(model, Component(block, "attn"), label)
        if group >= groups:
            raise HydrascopeError(f"{model.name} has no {label}: attn.{block} has groups 0 to {groups - 1}")
        heads = model.units(attention)
        size = len(heads) // groups
        inside = heads[group * size : (group + 1) * size]
        return Reader(label, attention, tuple(Component(block, kind, head.unit) for head in inside))
    if found := _HEAD.fullmatch(label):
        label = f"{found[3]}.{found[1]}.{found[2]}"
    component = Component.parse(label)
    if component.is_input:
        attention = _require(model, component.sublayer, label)
        if component.head not in (heads := model.units(attention)):
            raise HydrascopeError(f"{model.name} has no {label}: its heads there are {heads[0]} to {heads[-1]}")
        return Reader(str(component), attention, (component,))
    if component.sublayer != component or component.is_term:
        raise HydrascopeError(
            f"{label} reads no residual stream: name sublayers, query.L.H, key.L.H, value.L.H, group.L.G.key, "
            "group.L.G.value, or logits"
        )
    return Reader(str(component), _require(model, component, label))


def _require(model: ModelShape, sublayer: Component, label: str) -> Component:
    if sublayer not in model.sublayers:
        raise HydrascopeError(f"{model.name} has no {label}: its blocks are 0 to {model.sublayers[-1].block}")
    return sublayer
