"""Where each architecture keeps its parts: declared here, proven by `hydrascope.loading.self_check`.

An architecture of transformers that is missing here can be declared from Python in a few lines:

    import hydrascope as hs

    hs.declare("my_model_type", hs.models.Anatomy(layers="model.layers", attention="self_attn", mlp_out="mlp",
                                           heads_out="self_attn.o_proj", neurons_out="mlp.down_proj",
                                           norm="model.norm", norm_kind="rms"))
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from hydrascope.utils.errors import HydrascopeError


def _never(config: Any) -> bool:
    return False


def _one(config: Any) -> float:
    return 1.0


@dataclass(frozen=True)
class Anatomy:
    """Where a decoder-only transformer keeps its parts. Paths are dotted module names.

    Attributes:
        blocks: the list of blocks, in the model.
        attention: the module, in a block, that reads other positions.
        attention_out: the module, in a block, whose output attention adds to the residual stream: attention
            itself (None), or the norm after it.
        mlp_out: the same for the MLP.
        heads_out: the projection, in a block, whose input holds the heads' outputs side by side.
        neurons_out: the projection, in a block, whose input holds the neurons of a dense MLP; blocks without it, such
            as mixtures of experts, have no neurons.
        norm: the final norm, in the model.
        norm_kind: whether the final norm centres ("layer") or not ("rms").
        norm_offset: what norms add to their stored weight to get the gain.
        parallel: whether a block's MLP reads the same residual stream as its attention, so that `mlp.l` is not
            downstream of `attn.l`.
        residual_scale: what a block multiplies its outputs by when it adds them.
        logit_scale: what the model multiplies its logits by.
        supports_wavefront: whether attention goes through transformers' AttentionInterface, as that engine needs.
    """

    blocks: str = "model.layers"
    attention: str = "self_attn"
    attention_out: str | None = None
    mlp_out: str = "mlp"
    heads_out: str = "self_attn.o_proj"
    neurons_out: str = "mlp.down_proj"
    norm: str = "model.norm"
    norm_kind: Literal["rms", "layer"] = "rms"
    norm_offset: float = 0.0
    parallel: Callable[[Any], bool] = _never
    residual_scale: Callable[[Any], float] = _one
    logit_scale: Callable[[Any], float] = _one
    supports_wavefront: bool = True


_LLAMA = Anatomy()
_POST_NORM = Anatomy(attention_out="post_attention_layernorm", mlp_out="post_feedforward_layernorm")
_GEMMA2 = Anatomy(attention_out="post_attention_layernorm", mlp_out="post_feedforward_layernorm", norm_offset=1.0)


def _always(config: Any) -> bool:
    return True


def _use_parallel_residual(config: Any) -> bool:
    return bool(config.use_parallel_residual)


_ANATOMIES: dict[str, Anatomy] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "mixtral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "qwen3_moe": _LLAMA,
    "phi3": _LLAMA,
    "smollm3": _LLAMA,
    "deepseek_v3": _LLAMA,
    "gpt_oss": _LLAMA,
    "gemma": Anatomy(norm_offset=1.0),
    "gemma2": _GEMMA2,
    "gemma3_text": _GEMMA2,
    "olmo2": _POST_NORM,
    "olmo3": _POST_NORM,
    "granite": Anatomy(
        residual_scale=lambda config: float(config.residual_multiplier),
        logit_scale=lambda config: 1.0 / config.logits_scaling,
    ),
    "cohere": Anatomy(norm_kind="layer", parallel=_always, logit_scale=lambda config: float(config.logit_scale)),
    "starcoder2": Anatomy(neurons_out="mlp.c_proj", norm_kind="layer"),
    "nemotron": Anatomy(norm_kind="layer", norm_offset=1.0),
    "stablelm": Anatomy(norm_kind="layer", parallel=_use_parallel_residual),
    "phi": Anatomy(
        heads_out="self_attn.dense",
        neurons_out="mlp.fc2",
        norm="model.final_layernorm",
        norm_kind="layer",
        parallel=_always,
    ),
    "opt": Anatomy(
        blocks="model.decoder.layers",
        mlp_out="fc2",
        heads_out="self_attn.out_proj",
        neurons_out="fc2",
        norm="model.decoder.final_layer_norm",
        norm_kind="layer",
    ),
    "gpt2": Anatomy(
        blocks="transformer.h",
        attention="attn",
        heads_out="attn.c_proj",
        neurons_out="mlp.c_proj",
        norm="transformer.ln_f",
        norm_kind="layer",
    ),
    "gpt_neox": Anatomy(
        blocks="gpt_neox.layers",
        attention="attention",
        heads_out="attention.dense",
        neurons_out="mlp.dense_4h_to_h",
        norm="gpt_neox.final_layer_norm",
        norm_kind="layer",
        parallel=_use_parallel_residual,
    ),
    "gptj": Anatomy(
        blocks="transformer.h",
        attention="attn",
        heads_out="attn.out_proj",
        neurons_out="mlp.fc_out",
        norm="transformer.ln_f",
        norm_kind="layer",
        parallel=_always,
        supports_wavefront=False,
    ),
    "gpt_neo": Anatomy(
        blocks="transformer.h",
        attention="attn",
        heads_out="attn.attention.out_proj",
        neurons_out="mlp.c_proj",
        norm="transformer.ln_f",
        norm_kind="layer",
        supports_wavefront=False,
    ),
    "falcon": Anatomy(
        blocks="transformer.h",
        attention="self_attention",
        heads_out="self_attention.dense",
        neurons_out="mlp.dense_4h_to_h",
        norm="transformer.ln_f",
        norm_kind="layer",
        parallel=lambda config: bool(config.new_decoder_architecture or config.parallel_attn),
        supports_wavefront=False,
    ),
    # Bloom and MPT add the residual stream inside attention and MLP, so their last projections are what is added.
    "bloom": Anatomy(
        blocks="transformer.h",
        attention="self_attention",
        attention_out="self_attention.dense",
        mlp_out="mlp.dense_4h_to_h",
        heads_out="self_attention.dense",
        neurons_out="mlp.dense_4h_to_h",
        norm="transformer.ln_f",
        norm_kind="layer",
        supports_wavefront=False,
    ),
    "mpt": Anatomy(
        blocks="transformer.blocks",
        attention="attn",
        mlp_out="ffn.down_proj",
        heads_out="attn.out_proj",
        neurons_out="ffn.down_proj",
        norm="transformer.norm_f",
        norm_kind="layer",
        supports_wavefront=False,
    ),
}


def declare(model_type: str, anatomy: Anatomy) -> None:
    """Say where the architecture `model_type` (its config's name in transformers) keeps its parts.

    The declaration is proven when a model of that type is loaded.
    """
    _ANATOMIES[model_type] = anatomy


def declared() -> list[str]:
    """The architectures that have been declared."""
    return sorted(_ANATOMIES)


def anatomy_of(model_type: str) -> Anatomy:
    """The anatomy declared for `model_type`.

    Raises:
        HydrascopeError: none is; the message shows how to declare one.
    """
    try:
        return _ANATOMIES[model_type]
    except KeyError:
        raise HydrascopeError(
            f"the architecture {model_type!r} is not known (known: {', '.join(declared())}); declare it from Python: "
            f"hydrascope.declare({model_type!r}, hydrascope.models.Anatomy(layers='model.layers', "
            "attention='self_attn', mlp_out='mlp', heads_out='self_attn.o_proj', "
            "neurons_out='mlp.down_proj', norm='model.norm', norm_kind='rms')), "
            "with its own module names; the self-check proves it at load"
        ) from None
