"""Draw the settings that many configuration classes share."""

from typing import Any

from fuzz.drawing import Draw
from fuzz.rotary import rope

Settings = dict[str, Any]


#: Heads and the width of each.
SHAPES = [(heads, size) for heads in (1, 2, 3, 4) for size in (4, 6, 8, 10, 16) if 8 <= heads * size <= 32]


def core(draw: Draw) -> Settings:
    """Draw the fields that nearly every class has."""
    heads, size = draw.choice(SHAPES)
    return {
        "vocab_size": draw.randint(23, 61),
        "hidden_size": heads * size,
        "intermediate_size": draw.randint(5, 48),
        "num_hidden_layers": draw.choice((1, 2, 2, 3, 3, 4)),
        "num_attention_heads": heads,
        "tie_word_embeddings": draw.chance(0.3),
        **outputs(draw),
    }


def outputs(draw: Draw) -> Settings:
    """Draw the outputs besides logits, which should change nothing, and ids of special tokens."""
    return {
        "use_cache": draw.chance(0.7),
        "output_hidden_states": draw.chance(0.1),
        "pad_token_id": draw.choice((None, 0)),
        "bos_token_id": 1,
        "eos_token_id": 2,
    }


def grouped(draw: Draw, heads: int) -> int:
    """Draw the number of heads of keys and values."""
    return draw.choice([each for each in range(1, heads + 1) if heads % each == 0])


def llama_like(
    draw: Draw, *, needs_head_dim: bool = False, act: str = "hidden_act", eps: str = "rms_norm_eps"
) -> Settings:
    """Draw the fields that most classes share, apart from rotary embeddings.

    Args:
        needs_head_dim: the class doesn't derive the width of a head from `hidden_size`.
        act: the field of the activation function.
        eps: the field of the norms' epsilon.
    """
    found = core(draw)
    found["num_key_value_heads"] = grouped(draw, found["num_attention_heads"])
    if needs_head_dim or draw.chance(0.4):
        found["head_dim"] = draw.choice((4, 6, 8))
    return {**found, act: draw.activation(), eps: draw.epsilon(), "attention_dropout": draw.dropout()}


def fixed_width(draw: Draw, *, eps: str) -> Settings:
    """Draw the fields of a class that derives the width of a head, with norms' epsilon in `eps`."""
    found = core(draw)
    return found | {
        "num_key_value_heads": grouped(draw, found["num_attention_heads"]),
        "hidden_act": draw.activation(),
        eps: draw.epsilon(),
    }


def dropouts(draw: Draw, attention: str = "attention_dropout") -> Settings:
    """Draw the dropouts of a class that names them as GPT-2 does, but for that of attention."""
    return {"resid_pdrop": draw.dropout(), "embd_pdrop": draw.dropout(), attention: draw.dropout()}


def width(settings: Settings) -> int:
    """Return the width of a head."""
    return int(settings.get("head_dim") or settings["hidden_size"] // settings["num_attention_heads"])


def window(draw: Draw) -> int:
    """Draw the length of a window, shorter than many prompts."""
    return draw.randint(1, 12)


def layer_types(draw: Draw, settings: Settings) -> Settings:
    """Draw which layers have a window, or leave it to the class."""
    if draw.chance(0.25):
        return {}
    return {
        "layer_types": [
            draw.choice(("full_attention", "sliding_attention")) for _ in range(settings["num_hidden_layers"])
        ]
    }


def experts(draw: Draw, name: str) -> Settings:
    """Draw the number of experts, in the field `name`, and how many each token takes."""
    count = draw.randint(2, 5)
    return {name: count, "num_experts_per_tok": draw.randint(1, count), "output_router_logits": draw.chance(0.1)}


def partly_turning(draw: Draw, found: Settings) -> Settings:
    """Draw the rotary fields of a class that has a field `partial_rotary_factor` of its own."""
    given = rope(draw, width(found), partial=True)
    return {**given, "partial_rotary_factor": given["rope_parameters"]["partial_rotary_factor"]}
