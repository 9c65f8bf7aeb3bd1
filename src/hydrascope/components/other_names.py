"""Read names of components as TransformerLens, nnsight and nnterp write them.

| component | TransformerLens | nnsight, nnterp, module paths |
|---|---|---|
| `attn.9` | `blocks.9.hook_attn_out`, `blocks.9.attn.hook_out` | `model.layers[9].self_attn`, `attentions_output[9]` |
| `mlp.9` | `blocks.9.hook_mlp_out`, `blocks.9.mlp.hook_out` | `transformer.h.9.mlp`, `mlps_output[9]` |
| `head.9.6` | `blocks.9.attn.hook_z[6]`, `blocks.9.attn.hook_result[6]` | |
| `neuron.5.1203` | `blocks.5.mlp.hook_post[1203]`, `blocks.5.mlp.out.hook_in[1203]` | |
| `query.9.6` | `blocks.9.attn.hook_q[6]` | |

A name stands for the component. Its activation is taken as hydrascope takes it: after the norm that some models have
after a sublayer, and with weights as they are. TransformerLens may have folded and centred them.
"""

import re

from hydrascope.utils.errors import HydrascopeError

#: What stands behind the block in a name, by the kind of component. A name of units needs an index.
_SUBLAYERS = {
    "attn": ("hook_attn_out", "attn.hook_out", "attn", "self_attn", "attention", "self_attention"),
    "mlp": ("hook_mlp_out", "mlp.hook_out", "mlp", "ffn", "fc2"),
}
_UNITS = {
    "head": ("attn.hook_z", "attn.hook_result"),
    "neuron": ("mlp.hook_post", "mlp.out.hook_in"),
    "query": ("attn.hook_q",),
}
_KIND_OF = {end: kind for kinds in (_SUBLAYERS, _UNITS) for kind, ends in kinds.items() for end in ends}

#: Why an end of a name stands for no component, and what to write instead; `{}` is the block.
_STREAM = "the residual stream, which is no component: write attn.{0}, mlp.{0}, or both as attn.{0}+mlp.{0}"
_SHARED = "a key or value that several heads may share: write key.{0}.H or value.{0}.H with the number of a query head"
_OTHER = {
    **dict.fromkeys(("hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_in", "hook_out", ""), _STREAM),
    **dict.fromkeys(("attn.hook_k", "attn.hook_v"), _SHARED),
    "attn.o.hook_in": "a head or a column, depending on the model: write blocks.{0}.attn.hook_z[H], or head.{0}.H",
    "mlp.hook_pre": "neurons before their activation function: write blocks.{0}.mlp.hook_post[N], or neuron.{0}.N",
}
_UNKNOWN = "nothing that is known in a block: write attn.{0}, mlp.{0}, head.{0}.H or neuron.{0}.N"

_NUMBER = r"(?:\.(\d{1,18})|\[(\d{1,18})\])"
#: As `blocks.9.attn.hook_z[6]`, `model.layers[9].self_attn.output[0]`, `transformer.h.9.attn`: block, end, index.
_IN_A_BLOCK = re.compile(rf"(?:[a-z_]+\.)*(?:blocks|layers|h){_NUMBER}(?:\.([a-z][a-z0-9_.]*?))?(?:\[(.*)\])?")
#: `attentions_output[9]`, `mlps_output[9]`, `layers_output[9]` of nnterp: name, block.
_BY_LIST = re.compile(rf"(?:model\.)?(attentions|mlps|layers)_output{_NUMBER}")
_OF_LIST = {"attentions": "self_attn", "mlps": "mlp", "layers": ""}


def parse_other_name(name: str) -> tuple[int, str, int] | None:
    """Return the block, kind and unit of a component named as another tool names it.

        >>> parse_other_name("blocks.9.attn.hook_z[6]"), parse_other_name("transformer.h[9].attn")
        ((9, 'head', 6), (9, 'attn', -1))

    Returns:
        The block, the kind and the unit, −1 for a sublayer; None if it is no name of another tool.

    Raises:
        HydrascopeError: the name stands for no single component.
    """
    if found := _BY_LIST.fullmatch(name):
        listed, *numbers = found.groups()
        return _component(name, int(numbers[0] or numbers[1]), _OF_LIST[listed], None)
    if (found := _IN_A_BLOCK.fullmatch(name)) and (found[2] or found[3]):
        dotted, bracketed, end, index = found.groups()
        return _component(name, int(dotted or bracketed), end or "", index)
    return None


def _component(name: str, block: int, end: str, index: str | None) -> tuple[int, str, int]:
    """Return the block, kind and unit for the end of a name, and the index after it.

    Raises:
        HydrascopeError: the end stands for no component, or the index is missing or another than of one unit.
    """
    # A module's output, as nnsight writes it, may be a tuple whose first item it is.
    is_output, module = end == "output" or end.endswith(".output"), end.removesuffix("output").removesuffix(".")
    end = module if is_output else end
    kind = _KIND_OF.get(end)
    if kind in _SUBLAYERS and (index is None or (is_output and index == "0")):
        return block, str(kind), -1
    if kind in _UNITS and index is not None and index.isdecimal() and len(index) < 19:
        return block, str(kind), int(index)
    raise HydrascopeError(f"{name!r} names {_reason(block, end, kind)}")


def _reason(block: int, end: str, kind: str | None) -> str:
    """Return why a name stands for no single component, and what to write instead."""
    if kind in _UNITS:
        return f"no single {kind}: give its number alone, as {end.rpartition('.')[2]}[6], or write {kind}.{block}.6"
    if kind is not None:
        unit = "head" if kind == "attn" else "neuron"
        return f"no component by its index: write {kind}.{block}, or {unit}.{block}.N for one {unit}"
    return _OTHER.get(end, _UNKNOWN).format(block)


def transformer_lens_name(block: int, kind: str, unit: int) -> str:
    """Return the name of a component in TransformerLens, with its head or neuron as an index.

        >>> transformer_lens_name(9, "head", 6)
        'blocks.9.attn.hook_z[6]'

    Raises:
        HydrascopeError: it is a key or a value, which TransformerLens counts by the heads that share it.
    """
    if kind in _SUBLAYERS:
        return f"blocks.{block}.{_SUBLAYERS[kind][0]}"
    if kind not in _UNITS:
        raise HydrascopeError(
            f"{kind}.{block}.{unit} has no name in TransformerLens, where several heads may share a {kind}: name the "
            "head or its query"
        )
    return f"blocks.{block}.{_UNITS[kind][0]}[{unit}]"
