"""Find the transformers model inside the object of another tool.

The tools are recognised by the names of their classes: hydrascope doesn't import them.

| tool | taken | changed on the way |
|---|---|---|
| `torch.compile` | the module inside, blocks too | nothing; it runs without being compiled |
| `DataParallel`, `DistributedDataParallel` | the module inside | nothing |
| nnsight, nnterp | the module inside | nothing |
| TransformerLens' `TransformerBridge` | the original modules, with the bridge's weights | nothing |
| PEFT | the base model | the active adapters are merged, in a copy |

Other weights than those that change are shared with the object, which stays as it was.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hydrascope.loading.plain_copy import has_adapters, is_plain, plain_copy
from hydrascope.loading.self_check import TOLERANCE
from hydrascope.utils.class_names import is_of
from hydrascope.utils.errors import HydrascopeError, cause

#: Changes of weights, as results tell them.
MERGED = "adapter merged"
_PROCESSED = "weights processed by TransformerLens"

#: The packages and classes of wrappers. A HookedTransformer is refused with a line of its own.
_WRAPPERS = (
    ("torch", "OptimizedModule"),
    ("torch", "DataParallel"),
    ("torch", "DistributedDataParallel"),
    ("nnsight", "Envoy"),
    ("transformer_lens", "TransformerBridge"),
    ("transformer_lens", "HookedTransformer"),
    ("peft", "PeftModel"),
)


@dataclass(frozen=True)
class Unwrapped:
    """Hold the model and tokenizer found in a user's object.

    Attributes:
        hf: the transformers model to measure.
        tokenizer: the tokenizer that the object holds; None if it holds none.
        change: how the weights differ from those of the model that `hf` is named after; "" if they don't.
    """

    hf: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None = None
    change: str = ""


def is_wrapper(thing: Any) -> bool:
    """Whether it is an object of another tool that may hold a transformers model."""
    return any(is_of(thing, *kind) for kind in _WRAPPERS)


def unwrap(model: Any) -> Unwrapped:
    """Return the transformers model inside a user's object, and its tokenizer.

    A model without wrapper is returned itself.

    Raises:
        HydrascopeError: there is no transformers model inside, or it computes something else than the object does.
    """
    tokenizer, changes, adapted = None, [], None
    inner = model
    while not isinstance(inner, PreTrainedModel):
        held = getattr(inner, "tokenizer", None)
        tokenizer = held if tokenizer is None and isinstance(held, PreTrainedTokenizerBase) else tokenizer
        if is_of(inner, "transformer_lens", "TransformerBridge") and getattr(inner, "_weights_processed", False):
            changes.append(_PROCESSED)
        if is_of(inner, "peft", "PeftModel"):
            adapted = inner
        inner = _inside(inner, type(model).__name__)
    if has_adapters(inner):
        changes.append(MERGED)
    hf = inner if is_plain(inner) else plain_copy(inner, processed=_PROCESSED in changes)
    # What PEFT's model computes may be more than what its base model does.
    given = inner if adapted is None else adapted
    if given is not hf:
        require_same_logits(type(model).__name__, given, hf)
    return Unwrapped(hf, tokenizer, "; ".join(changes))


def _inside(wrapper: Any, outermost: str) -> Any:
    """Return the model inside a wrapper.

    Raises:
        HydrascopeError: it is no wrapper of a transformers model.
    """
    if is_of(wrapper, "torch", "OptimizedModule"):
        return wrapper._orig_mod
    if is_of(wrapper, "torch", "DataParallel") or is_of(wrapper, "torch", "DistributedDataParallel"):
        return wrapper.module
    if is_of(wrapper, "nnsight", "Envoy"):
        return wrapper._module
    if is_of(wrapper, "transformer_lens", "TransformerBridge"):
        try:
            return wrapper.original_model
        except AttributeError as error:
            raise HydrascopeError(f"this TransformerBridge holds no weights here: {cause(error)}") from None
    if is_of(wrapper, "transformer_lens", "HookedTransformer"):
        raise HydrascopeError(
            "a HookedTransformer is TransformerLens' own code, not a transformers model: load the original by its name "
            "on the hub, or boot it as a TransformerBridge"
        )
    if is_of(wrapper, "peft", "PeftModel"):
        adapter = wrapper.active_peft_config
        if adapter.is_prompt_learning:
            kind = getattr(adapter.peft_type, "value", adapter.peft_type)
            raise HydrascopeError(
                f"the adapter ({kind}) adds tokens to the prompt, so it can't be merged into the weights: give its "
                "base model, or a LoRA adapter"
            )
        return wrapper.get_base_model()
    raise HydrascopeError(
        f"a {outermost} is no transformers model: give a name, a folder, a PreTrainedModel, or a wrapper of one "
        "(TransformerBridge, nnsight, nnterp, PEFT, torch.compile, DataParallel)"
    )


@torch.no_grad()
def require_same_logits(name: str, given: Any, hf: Any) -> None:
    """Refuse a plain copy that computes other logits than the model that it was made of.

    Raises:
        HydrascopeError: the logits differ by more than rounding may (`TOLERANCE` of the largest: 0.1% in float32, 10%
            in bfloat16), or the model can't be run.
    """
    embedding = hf.get_input_embeddings().weight
    ids = torch.tensor([[number * 7919 % len(embedding) for number in range(1, 9)]], device=embedding.device)
    try:
        with _still(given), _still(hf), torch.compiler.set_stance("force_eager"):
            expected, found = (each(input_ids=ids, use_cache=False).logits for each in (given, hf))
    except Exception as failure:  # each tool raises its own
        raise HydrascopeError(
            f"the transformers model inside this {name} can't be run: {cause(failure)}; give the original model"
        ) from failure
    error = float((found - expected).abs().max() / expected.abs().max())
    if not error <= TOLERANCE[hf.dtype]:
        raise HydrascopeError(
            f"this {name} computes other logits than the transformers model inside it (off by {error:.1e}): it has "
            "hooks or weights that can't be taken over; remove them, or give the original model"
        )


@contextmanager
def _still(model: nn.Module) -> Iterator[None]:
    """Turn off dropout for the length of the context."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
