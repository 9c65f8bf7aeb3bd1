"""Draw settings of Llama's line: gated MLPs or experts, rotary embeddings, windows."""

from fuzz.common import (
    Settings,
    core,
    dropouts,
    experts,
    fixed_width,
    grouped,
    layer_types,
    llama_like,
    partly_turning,
    width,
    window,
)
from fuzz.drawing import Draw
from fuzz.rotary import rope, rope_by_layer


def llama(draw: Draw) -> Settings:
    found = llama_like(draw)
    found |= {"attention_bias": draw.chance(0.4), "mlp_bias": draw.chance(0.4), "pretraining_tp": draw.choice((1, 2))}
    return found | rope(draw, width(found))


def mistral(draw: Draw) -> Settings:
    found = llama_like(draw) | {"sliding_window": draw.choice((None, window(draw)))}
    return found | rope(draw, width(found))


def mixtral(draw: Draw) -> Settings:
    return mistral(draw) | experts(draw, "num_local_experts") | {"router_jitter_noise": draw.choice((0.0, 0.1))}


def qwen2(draw: Draw) -> Settings:
    found = llama_like(draw)
    found |= {"use_sliding_window": draw.chance(0.6), "sliding_window": window(draw)}
    found |= {"max_window_layers": draw.randint(0, found["num_hidden_layers"])}
    if found["use_sliding_window"]:
        found |= layer_types(draw, found)
    return found | rope(draw, width(found))


def qwen3(draw: Draw) -> Settings:
    found = qwen2(draw)
    found |= {"attention_bias": draw.chance(0.4), "head_dim": draw.choice((4, 6, 8))}
    return found | rope(draw, found["head_dim"])


def qwen3_moe(draw: Draw) -> Settings:
    found = llama_like(draw) | experts(draw, "num_experts")
    blocks = found["num_hidden_layers"]
    found |= {
        "attention_bias": draw.chance(0.4),
        "use_sliding_window": draw.chance(0.5),
        "sliding_window": window(draw),
        "decoder_sparse_step": draw.choice((1, 1, 2)),
        "moe_intermediate_size": draw.randint(4, 24),
        "norm_topk_prob": draw.chance(0.5),
        "mlp_only_layers": draw.choice((None, draw.sample(range(blocks), draw.randint(0, blocks)))),
    }
    return found | rope(draw, width(found))


def bidirectional(draw: Draw) -> bool | None:
    """Draw a flag that is rarely true: such a model predicts nothing, and is refused."""
    return True if draw.chance(0.05) else draw.choice((None, False))


def gemma(draw: Draw) -> Settings:
    found = llama_like(draw, needs_head_dim=True)
    found |= {"attention_bias": draw.chance(0.4), "use_bidirectional_attention": bidirectional(draw)}
    return found | rope(draw, width(found))


def gemma2(draw: Draw) -> Settings:
    found = llama_like(draw, needs_head_dim=True, act="hidden_activation")
    found |= {
        "attention_bias": draw.chance(0.4),
        "use_bidirectional_attention": bidirectional(draw),
        "query_pre_attn_scalar": draw.choice((1, 4, 16, 100)),
        "sliding_window": window(draw),
        "attn_logit_softcapping": draw.choice((None, draw.uniform(0.5, 5))),
        "final_logit_softcapping": draw.choice((None, draw.uniform(2, 10))),
        **layer_types(draw, found),
    }
    return found | rope(draw, width(found))


def gemma3(draw: Draw) -> Settings:
    found = gemma2(draw) | {"use_bidirectional_attention": draw.chance(0.05)}
    if "layer_types" not in found:
        found["sliding_window_pattern"] = draw.randint(1, 3)
    return found | rope_by_layer(draw, width(found), found.get("layer_types", ()))


def olmo2(draw: Draw) -> Settings:
    found = llama_like(draw) | {"attention_bias": draw.chance(0.4)}
    return found | rope(draw, width(found))


def olmo3(draw: Draw) -> Settings:
    found = olmo2(draw) | {"sliding_window": window(draw)}
    found |= layer_types(draw, found)
    return found | rope_by_layer(draw, width(found), found.get("layer_types", ()))


def granite(draw: Draw) -> Settings:
    found = llama_like(draw)
    found |= {
        "attention_bias": draw.chance(0.4),
        "mlp_bias": draw.chance(0.4),
        "embedding_multiplier": draw.near(2.0),
        "logits_scaling": draw.near(4.0),
        "residual_multiplier": draw.near(0.5),
        "attention_multiplier": draw.near(0.5),
    }
    return found | rope(draw, width(found))


def cohere(draw: Draw) -> Settings:
    found = llama_like(draw, eps="layer_norm_eps")
    found |= {"logit_scale": draw.near(0.5), "attention_bias": draw.chance(0.4), "use_qk_norm": draw.chance(0.5)}
    return found | rope(draw, width(found))


def starcoder2(draw: Draw) -> Settings:
    found = llama_like(draw, eps="norm_epsilon")
    found |= {"use_bias": draw.chance(0.7), "sliding_window": draw.choice((None, window(draw)))}
    found |= {"residual_dropout": draw.dropout(), "embedding_dropout": draw.dropout()}
    return found | rope(draw, width(found))


def nemotron(draw: Draw) -> Settings:
    found = llama_like(draw, eps="norm_eps")
    found |= {"attention_bias": draw.chance(0.4), "mlp_bias": draw.chance(0.4)}
    return found | rope(draw, width(found), partial=True)


def stablelm(draw: Draw) -> Settings:
    found = fixed_width(draw, eps="layer_norm_eps")
    found |= {
        "use_qkv_bias": draw.chance(0.5),
        "qk_layernorm": draw.chance(0.5),
        "use_parallel_residual": draw.chance(0.5),
        "hidden_dropout": draw.dropout(),
        "attention_dropout": draw.dropout(),
    }
    return found | partly_turning(draw, found)


def phi(draw: Draw) -> Settings:
    found = fixed_width(draw, eps="layer_norm_eps")
    found |= {"qk_layernorm": draw.chance(0.5), **dropouts(draw)}
    return found | partly_turning(draw, found)


def phi3(draw: Draw) -> Settings:
    found = fixed_width(draw, eps="rms_norm_eps")
    found |= {"sliding_window": draw.choice((None, window(draw))), **dropouts(draw)}
    found |= rope(draw, width(found), partial=True, types=("default", "longrope", "longrope"))
    limit = found["rope_parameters"].get("original_max_position_embeddings", 16)
    return found | {"original_max_position_embeddings": limit}


def smollm3(draw: Draw) -> Settings:
    found = llama_like(draw)
    blocks = found["num_hidden_layers"]
    found |= {
        "attention_bias": draw.chance(0.4),
        "mlp_bias": draw.chance(0.4),
        "no_rope_layers": draw.choice((None, [draw.randint(0, 1) for _ in range(blocks)])),
        "no_rope_layer_interval": draw.randint(1, 4),
        "use_sliding_window": draw.chance(0.6),
        "sliding_window": draw.choice((None, window(draw))),
    }
    if found["use_sliding_window"] and found["sliding_window"]:
        found |= layer_types(draw, found)
    return found | rope(draw, width(found))


def deepseek_v3(draw: Draw) -> Settings:
    found = core(draw)
    groups = draw.choice((1, 2))
    each = draw.randint(2, 3)
    kept = draw.randint(1, groups)
    turning = draw.choice((4, 6))
    found |= {
        "num_key_value_heads": found["num_attention_heads"],
        "hidden_act": draw.activation(),
        "rms_norm_eps": draw.epsilon(),
        "moe_intermediate_size": draw.randint(4, 24),
        "n_shared_experts": draw.randint(1, 2),
        "n_routed_experts": groups * each,
        "n_group": groups,
        "topk_group": kept,
        "num_experts_per_tok": draw.randint(1, kept * each),
        "norm_topk_prob": draw.chance(0.5),
        "routed_scaling_factor": draw.near(2.0),
        "first_k_dense_replace": draw.randint(0, found["num_hidden_layers"]),
        "q_lora_rank": draw.choice((None, draw.randint(4, 12))),
        "kv_lora_rank": draw.randint(4, 12),
        "qk_nope_head_dim": draw.choice((4, 6, 8)),
        "qk_rope_head_dim": turning,
        "v_head_dim": draw.choice((4, 6, 8)),
        "rope_interleave": draw.chance(0.5),
        "attention_bias": draw.chance(0.4),
        "attention_dropout": draw.dropout(),
        "output_router_logits": draw.chance(0.1),
        "pretraining_tp": 1,
    }
    return found | rope(draw, turning)


def gpt_oss(draw: Draw) -> Settings:
    found = core(draw)
    found |= {
        "num_key_value_heads": grouped(draw, found["num_attention_heads"]),
        "head_dim": draw.choice((4, 6, 8)),
        "hidden_act": "silu",
        "rms_norm_eps": draw.epsilon(),
        "attention_bias": draw.chance(0.7),
        "attention_dropout": draw.dropout(),
        "sliding_window": window(draw),
        "swiglu_alpha": draw.near(1.7),
        "swiglu_limit": draw.near(1.0),
        **experts(draw, "num_local_experts"),
        **layer_types(draw, found),
    }
    return found | rope(draw, found["head_dim"])
