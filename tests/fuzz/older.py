"""Draw settings of architectures with a plain MLP of two projections."""

from fuzz.common import Settings, core, dropouts, grouped, width, window
from fuzz.drawing import Draw
from fuzz.rotary import LONGEST, rope


def opt(draw: Draw) -> Settings:
    found = core(draw)
    hidden = found["hidden_size"]
    del found["intermediate_size"]
    return found | {
        "ffn_dim": draw.randint(5, 48),
        "max_position_embeddings": draw.randint(LONGEST, 64),
        "do_layer_norm_before": not draw.chance(0.1),
        "_remove_final_layer_norm": draw.chance(0.05),
        "word_embed_proj_dim": 8 if draw.chance(0.05) else draw.choice((None, hidden)),
        "enable_bias": draw.chance(0.7),
        "layer_norm_elementwise_affine": draw.chance(0.7),
        "activation_function": draw.activation(),
        "dropout": draw.dropout(),
        "attention_dropout": draw.dropout(),
        "layerdrop": draw.choice((0.0, 0.5)),
    }


def gpt(draw: Draw) -> Settings:
    """Draw the fields that GPT-2 and GPT-J share, by the names of their classes."""
    found = core(draw)
    inner = found.pop("intermediate_size")
    found = _renamed(found, hidden_size="n_embd", num_hidden_layers="n_layer", num_attention_heads="n_head")
    return found | {
        "n_positions": draw.randint(LONGEST, 64),
        "n_inner": draw.choice((None, inner)),
        "activation_function": draw.activation(),
        "layer_norm_epsilon": draw.epsilon(),
        **dropouts(draw, "attn_pdrop"),
    }


def gpt2(draw: Draw) -> Settings:
    return gpt(draw) | {
        "scale_attn_weights": draw.chance(0.7),
        "scale_attn_by_inverse_layer_idx": draw.chance(0.4),
        "reorder_and_upcast_attn": draw.chance(0.3),
        "add_cross_attention": draw.chance(0.1),
    }


def gptj(draw: Draw) -> Settings:
    found = gpt(draw)
    size = found["n_embd"] // found["n_head"]
    return found | {"rotary_dim": draw.choice(range(2, size + 1, 2))}


def gpt_neo(draw: Draw) -> Settings:
    found = _renamed(gpt(draw), n_embd="hidden_size", n_layer="num_layers", n_head="num_heads")
    found = _renamed(found, n_positions="max_position_embeddings", n_inner="intermediate_size")
    found = _renamed(found, resid_pdrop="resid_dropout", embd_pdrop="embed_dropout", attn_pdrop="attention_dropout")
    kinds = [draw.choice(("global", "local")) for _ in range(found["num_layers"])]
    return found | {"attention_types": [[kinds, 1]], "window_size": window(draw)}


def gpt_neox(draw: Draw) -> Settings:
    found = core(draw)
    found |= {
        "hidden_act": draw.activation(),
        "layer_norm_eps": draw.epsilon(),
        "use_parallel_residual": draw.chance(0.6),
        "attention_bias": draw.chance(0.7),
        "attention_dropout": draw.dropout(),
        "hidden_dropout": draw.dropout(),
        "is_decoder": draw.chance(0.5),
    }
    return found | rope(draw, width(found), partial=True)


def falcon(draw: Draw) -> Settings:
    found = core(draw)
    heads, inner = found["num_attention_heads"], found.pop("intermediate_size")
    new, parallel = draw.chance(0.4), draw.chance(0.6)
    norms = draw.choice((None, 1, 2)) if new else draw.choice((None, 1))
    if new and not draw.chance(0.1):
        # Otherwise Falcon lacks a norm, or adds attention twice.
        parallel = True
    found |= {
        "num_ln_in_parallel_attn": norms,
        "layer_norm_epsilon": draw.epsilon(),
        "hidden_dropout": draw.dropout(),
        "attention_dropout": draw.dropout(),
        "num_kv_heads": grouped(draw, heads) if new else None,
        "alibi": draw.chance(0.3),
        "new_decoder_architecture": new,
        "multi_query": draw.chance(0.5),
        "parallel_attn": parallel,
        "bias": draw.chance(0.5),
        "ffn_hidden_size": draw.choice((None, inner)),
        "activation": draw.activation(),
    }
    return found | rope(draw, width(found))


def bloom(draw: Draw) -> Settings:
    found = _renamed(core(draw), num_hidden_layers="n_layer", num_attention_heads="n_head")
    del found["intermediate_size"]
    return found | {
        "layer_norm_epsilon": draw.epsilon(),
        "apply_residual_connection_post_layernorm": draw.chance(0.1),
        "hidden_dropout": draw.dropout(),
        "attention_dropout": draw.dropout(),
        "pretraining_tp": draw.choice((1, 2)),
        "slow_but_exact": draw.chance(0.1),
    }


def mpt(draw: Draw) -> Settings:
    found = _renamed(core(draw), hidden_size="d_model", num_hidden_layers="n_layers", num_attention_heads="n_heads")
    del found["intermediate_size"]
    attention = {
        "attn_type": draw.choice(("multihead_attention", "multihead_attention", "multiquery_attention")),
        "attn_impl": draw.choice(("torch", "flash")),
        "clip_qkv": draw.choice((None, draw.uniform(0.5, 2))),
        "softmax_scale": draw.choice((None, draw.uniform(0.1, 2))),
        "prefix_lm": draw.chance(0.1),
        "qk_ln": draw.chance(0.2),
        "attn_uses_sequence_id": draw.chance(0.2),
        "alibi": draw.chance(0.8),
        "alibi_bias_max": draw.choice((8, 4)),
    }
    return found | {
        "expansion_ratio": draw.choice((4, 2)),
        "max_seq_len": draw.randint(LONGEST, 64),
        "layer_norm_epsilon": draw.epsilon(),
        "resid_pdrop": draw.dropout(),
        "emb_pdrop": draw.dropout(),
        "learned_pos_emb": draw.chance(0.5),
        "logit_scale": draw.choice((None, draw.near(0.5))),
        "no_bias": draw.chance(0.7),
        "attn_config": attention,
    }


def _renamed(settings: Settings, **names: str) -> Settings:
    """Return settings with new names, given by the old ones."""
    return {names.get(name, name): value for name, value in settings.items()}
