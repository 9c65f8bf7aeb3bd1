"""Module names of architectures; `hydrascope.loading.self_check` proves them.

An architecture of transformers that is missing here can be declared from Python:

    >>> anatomy = hs.models.Anatomy(blocks="model.layers", attention="self_attn", mlp_out="mlp",
    ...                             heads_out="self_attn.o_proj", neurons_out="mlp.down_proj",
    ...                             norm="model.norm", norm_kind="rms")
    >>> hs.declare("my_model_type", anatomy)
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from hydrascope.utils.errors import HydrascopeError


def _never(config: Any) -> bool:
    return False


def _one(config: Any) -> float:
    return 1.0


@dataclass(frozen=True)
class Anatomy:
    """The module names of a decoder-only transformer, as dotted paths.

        >>> anatomy = hs.models.Anatomy(norm_kind="layer", neurons_out="mlp.c_proj")

    Attributes:
        blocks: the list of blocks, in the model.
        attention: the module of a block that reads other positions.
        attention_out: the module of a block that writes attention's output to the residual stream: attention itself
            (None), or the norm after it.
        mlp_out: the module of a block that writes the MLP's output to the residual stream.
        heads_out: the projection of a block that reads the outputs of all heads side by side.
        mlp_in: the module of a block that receives the MLP's input; by default the one that holds `neurons_out`.
        neurons_out: the projection of a block that reads the neurons of a dense MLP. Blocks without it, such as
            mixtures of experts, have no neurons.
        norm: the final norm, in the model.
        norm_kind: "layer" if the final norm centres, "rms" if not.
        norm_offset: the number that norms add to their stored weight to get the gain.
        parallel: a function from the configuration to whether the MLP of a block reads the same residual stream as its
            attention, so that `mlp.L` is not downstream of `attn.L`.
        residual_scale: a function from the configuration to the factor of all outputs added to the residual stream.
        logit_scale: a function from the configuration to the factor of all logits.
        supports_wavefront: whether attention goes through transformers' AttentionInterface, which the wavefront engine
            needs.
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
    mlp_in: str | None = None


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
        mlp_in="fc1",
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
    # Bloom and MPT add the residual stream inside attention and MLP, so the outputs are those of the last projections.
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
    """Declare the anatomy of an architecture; it is proven when a model of that type is loaded.

        >>> hs.declare("my_model_type", hs.models.Anatomy(norm_kind="layer"))

    Args:
        model_type: the `model_type` of the configuration in transformers.
        anatomy: the module names.
    """
    _ANATOMIES[model_type] = anatomy


def declared() -> list[str]:
    """Return the names of all declared architectures."""
    return sorted(_ANATOMIES)


#: The names of architectures that have blocks of another kind than attention and MLPs, whatever their `layer_types`.
_RECURRENT = re.compile(
    "mamba|rwkv|jamba|bamba|zamba|xlstm|hyena|retnet|recurrent|hybrid|nemotron_h|lfm[0-9]|falcon_h1|qwen3_next|qwen3_5|"
    "qwen4_exp|kimi_linear|minimax$|griffin|inkling|zaya"
)


def _attends(layer_type: str) -> bool:
    """Whether blocks of a type in `layer_types` hold softmax attention.

    >>> _attends("sliding_attention"), _attends("linear_attention"), _attends("conv")
    (True, False, False)
    """
    return layer_type.endswith("attention") and "linear" not in layer_type


def anatomy_of(model_type: str, layer_types: Iterable[str] = ()) -> Anatomy:
    """Return the anatomy that is declared for `model_type`.

    Args:
        model_type: the `model_type` of the configuration in transformers.
        layer_types: the kinds of its blocks, as the configuration names them.

    Raises:
        HydrascopeError: there is none; the message shows how to declare it, unless no anatomy would fit.
    """
    if model_type not in _ANATOMIES and (_RECURRENT.search(model_type) or not all(map(_attends, layer_types))):
        raise HydrascopeError(
            f"the architecture {model_type!r} isn't supported: it has state-space, recurrent or convolutional layers, "
            "and hydrascope measures models whose blocks are attention and an MLP"
        )
    try:
        return _ANATOMIES[model_type]
    except KeyError:
        raise HydrascopeError(
            f"the architecture {model_type!r} is not known (known: {', '.join(declared())}); declare it from Python: "
            f"hydrascope.declare({model_type!r}, hydrascope.models.Anatomy(blocks='model.layers', "
            "attention='self_attn', mlp_out='mlp', heads_out='self_attn.o_proj', "
            "neurons_out='mlp.down_proj', norm='model.norm', norm_kind='rms')), "
            "with its own module names; the self-check proves it at load"
        ) from None
