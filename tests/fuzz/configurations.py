"""List the generators of configurations, which draw every option that changes a number."""

from collections.abc import Callable

from fuzz import newer, older
from fuzz.common import Settings
from fuzz.drawing import Draw

#: From the architecture's name in transformers to its generator.
CONFIGURATIONS: dict[str, Callable[[Draw], Settings]] = {
    "bloom": older.bloom,
    "cohere": newer.cohere,
    "deepseek_v3": newer.deepseek_v3,
    "falcon": older.falcon,
    "gemma": newer.gemma,
    "gemma2": newer.gemma2,
    "gemma3_text": newer.gemma3,
    "gpt2": older.gpt2,
    "gpt_neo": older.gpt_neo,
    "gpt_neox": older.gpt_neox,
    "gpt_oss": newer.gpt_oss,
    "gptj": older.gptj,
    "granite": newer.granite,
    "llama": newer.llama,
    "mistral": newer.mistral,
    "mixtral": newer.mixtral,
    "mpt": older.mpt,
    "nemotron": newer.nemotron,
    "olmo2": newer.olmo2,
    "olmo3": newer.olmo3,
    "opt": older.opt,
    "phi": newer.phi,
    "phi3": newer.phi3,
    "qwen2": newer.qwen2,
    "qwen3": newer.qwen3,
    "qwen3_moe": newer.qwen3_moe,
    "smollm3": newer.smollm3,
    "stablelm": newer.stablelm,
    "starcoder2": newer.starcoder2,
}

_LOSS = "it plays a part in the loss alone"
_HEAD = "it is of a head that classifies texts"
_INITIAL = "it decides initial weights, which are overwritten"

#: Fields of configuration classes that aren't drawn, and why none of them can change a number.
UNDRAWN = {
    "architectures": "a note",
    "chunk_size_feed_forward": "no decoder reads it",
    "classifier_dropout": _HEAD,
    "dtype": "of the weights; float64 or float32 is drawn with the model",
    "embedding_fraction": "a factor of gradients",
    "id2label": _HEAD,
    "init_device": "a device to make weights on",
    "init_std": _INITIAL,
    "initializer_range": _INITIAL,
    "is_encoder_decoder": "none of these models has an encoder",
    "label2id": _HEAD,
    "norm_type": "MPT has one norm, whatever it is called",
    "num_mtp_layers": "transformers leaves out DeepSeek's layers that predict further tokens",
    "problem_type": _HEAD,
    "return_dict": "with False, models of transformers themselves fail",
    "router_aux_loss_coef": _LOSS,
    "summary_activation": _HEAD,
    "summary_first_dropout": _HEAD,
    "summary_proj_to_labels": _HEAD,
    "summary_type": _HEAD,
    "summary_use_proj": _HEAD,
    "transformers_version": "a note",
}
