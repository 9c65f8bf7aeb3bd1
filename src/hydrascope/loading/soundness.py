"""Refuse models with quantised weights, shared sublayers, or no unembedding."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from hydrascope.components.component import Component
from hydrascope.models.language_model import LanguageModel
from hydrascope.utils.errors import HydrascopeError


def require_numbers(name: str, hf: Any) -> None:
    """Refuse an object with quantised weights, which are no numbers to read.

    Raises:
        HydrascopeError: a weight is no tensor, or has no floating point.
    """
    if found := quantised_weight(hf):
        raise HydrascopeError(f"the weights of {name} are quantised ({found}): load the model without quantisation")


def quantised_weight(hf: Any) -> str:
    """Return the first weight that is quantised, with its dtype; "" if there is none.

    >>> quantised_weight(model.hf)
    ''
    """
    for key, value in hf.state_dict().items():
        if not isinstance(value, torch.Tensor) or value.is_quantized:
            return str(key)
    for key, value in hf.named_parameters():
        if not value.is_floating_point() or value.element_size() == 1:
            return f"{key} is {str(value.dtype).removeprefix('torch.')}"
    return ""


def require_distinct_blocks(model: LanguageModel) -> None:
    """Refuse a model in which one block or sublayer stands in two places.

    An ablation would change both.

    Raises:
        HydrascopeError: one does.
    """
    places: dict[nn.Module, int] = {}
    sublayers: dict[nn.Module, Component] = {}
    for place, block in enumerate(model.hf.get_submodule(model.anatomy.blocks)):
        if block in places:
            raise HydrascopeError(
                f"blocks {places[block]} and {place} are one module, so that neither can be ablated alone: copy it "
                "(copy.deepcopy)"
            )
        places[block] = place
    for sublayer in model.sublayers:
        own = [model.output(sublayer)]
        if sublayer.kind == "attn":
            own.append(model.attention(sublayer.block))
        if model.is_dense(sublayer):
            own.append(model.projection(sublayer).module)
        for module in dict.fromkeys(own):
            if module in sublayers:
                raise HydrascopeError(
                    f"{sublayers[module]} and {sublayer} share one module ({type(module).__name__}), so that neither "
                    "can be ablated alone: copy it (copy.deepcopy)"
                )
            sublayers[module] = sublayer


def require_head(name: str, config: Any, missing: Iterable[str], hf: Any) -> None:
    """Refuse a folder of a model that was saved without its unembedding.

    Args:
        name: the model's name, for messages.
        config: its configuration.
        missing: the names of the weights that the folder lacks.
        hf: the causal language model that was built.

    Raises:
        HydrascopeError: nothing but the unembedding is missing, and the folder holds a model of another class.
    """
    unembedding = hf.get_output_embeddings()
    head = {path for path, module in hf.named_modules() if module is unembedding}
    saved_as = (getattr(config, "architectures", None) or [""])[0]
    if set(missing) and {key.rpartition(".")[0] for key in missing} <= head and saved_as != type(hf).__name__:
        raise HydrascopeError(
            f"{name} was saved as a {saved_as or 'model'}, which has no unembedding ({sorted(missing)[0]}): load the "
            "original with AutoModelForCausalLM and save that"
        )
