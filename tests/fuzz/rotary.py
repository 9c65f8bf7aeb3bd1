"""Draw the parameters of rotary embeddings."""

from collections.abc import Sequence
from typing import Any

from fuzz.drawing import Draw

#: All rope types that transformers has.
TYPES = ("default", "linear", "dynamic", "yarn", "longrope", "llama3", "proportional")
#: The longest text that a model is given, the answer among it.
LONGEST = 28


def limits(draw: Draw) -> tuple[int, int]:
    """Draw the limit beyond which longrope and dynamic NTK change tables, and the longest text."""
    return draw.randint(8, 12), draw.randint(LONGEST, 64)


def parameters(draw: Draw, kind: str, dim: int, limit: int, partial: float | None = None) -> dict[str, Any]:
    """Draw the parameters of one rope type.

    Args:
        dim: the number of columns of each head that turn.
        limit: the length of text beyond which its table may change.
        partial: `dim` as a share of the width of a head, for a class that has such a field.
    """
    found: dict[str, Any] = {"rope_type": kind, "rope_theta": draw.choice((10.0, 100.0, 1e4, 1e6))}
    if partial is not None:
        found["partial_rotary_factor"] = partial
    if kind == "linear":
        found["factor"] = draw.uniform(1, 8)
    elif kind == "dynamic":
        found["factor"] = max(LONGEST / limit, draw.uniform(1, 8))
    elif kind == "yarn":
        found |= {"factor": draw.uniform(1, 16), "original_max_position_embeddings": limit}
        found |= _maybe(draw, attention_factor=draw.uniform(0.5, 2), truncate=draw.chance(0.5))
        found |= _maybe(draw, beta_fast=draw.uniform(4, 32), beta_slow=draw.uniform(0.5, 2))
        if draw.chance(0.3):
            found |= {"mscale": draw.uniform(0.5, 1.5), "mscale_all_dim": draw.uniform(0.5, 1.5)}
    elif kind == "longrope":
        found["original_max_position_embeddings"] = limit
        found["short_factor"] = [draw.uniform(1, 2) for _ in range(dim // 2)]
        found["long_factor"] = [draw.uniform(1, 8) for _ in range(dim // 2)]
        found |= _maybe(draw, factor=draw.uniform(1, 8), attention_factor=draw.uniform(0.5, 2))
    elif kind == "llama3":
        low = draw.uniform(0.5, 2)
        found |= {"factor": draw.uniform(1, 8), "low_freq_factor": low, "high_freq_factor": low + draw.uniform(1, 4)}
        found["original_max_position_embeddings"] = draw.choice((limit, 32))
    elif kind == "proportional":
        found |= _maybe(draw, factor=draw.uniform(1, 4), partial_rotary_factor=draw.choice((0.5, 1.0)))
    return found


def rope(draw: Draw, dim: int, *, partial: bool = False, types: tuple[str, ...] = TYPES) -> dict[str, Any]:
    """Draw the rotary fields of a model with one table.

    Args:
        dim: the width of a head.
        partial: whether only a part of it may turn.
        types: the rope types to choose from.
    """
    limit, longest = limits(draw)
    kind, share = draw.choice(types), None
    if partial:
        turning = draw.choice(list(range(4, dim + 1, 2)) or [dim])
        # `proportional` has tables of the whole head.
        share, dim = (1.0, dim) if kind == "proportional" else (turning / dim, turning)
    found = parameters(draw, kind, dim, limit, share)
    if kind == "proportional" and partial:
        found["partial_rotary_factor"] = 1.0
    return {"rope_parameters": found, "max_position_embeddings": limit if kind == "dynamic" else longest}


def rope_by_layer(draw: Draw, dim: int, layer_types: Sequence[str]) -> dict[str, Any]:
    """Draw the rotary fields of a model with a table for each type of layer.

    Args:
        layer_types: the types of its layers, if they are given.
    """
    limit, longest = limits(draw)
    # `dynamic` lets texts exceed the limit, but only if a layer reads its table.
    static = tuple(kind for kind in TYPES if kind != "dynamic")
    kinds = {
        each: draw.choice(TYPES if each in layer_types else static) for each in ("full_attention", "sliding_attention")
    }
    found = {each: parameters(draw, kind, dim, limit) for each, kind in kinds.items()}
    return {
        "rope_parameters": found,
        "max_position_embeddings": limit if "dynamic" in kinds.values() else longest,
    }


def _maybe(draw: Draw, **values: Any) -> dict[str, Any]:
    """Keep some of the values, at random."""
    return {name: value for name, value in values.items() if draw.chance(0.4)}
