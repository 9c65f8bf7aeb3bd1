"""Small classes that look like those of other tools: their names, and the attributes that hydrascope reads.

The real tools are tried by `make interop`.
"""

import copy
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn


class Envoy:
    """nnsight's wrapper of a module."""

    __module__ = "nnsight.intervention.envoy"

    def __init__(self, module: Any, tokenizer: Any = None) -> None:
        self._module = module
        self.tokenizer = tokenizer

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_module"], name)


class StandardizedTransformer(Envoy):
    """nnterp's."""

    __module__ = "nnterp.standardized_transformer"


class HookedTransformer(nn.Module):
    """TransformerLens' own code of a model."""

    __module__ = "transformer_lens.HookedTransformer"


class ComponentBridge(nn.Module):
    """A component that TransformerLens puts in place of a module."""

    __module__ = "transformer_lens.model_bridge.generalized_components.base"

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        self.add_module("_original_component", original)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "_original_component":
                raise
            return getattr(self._modules["_original_component"], name)

    def forward(self, *arguments: Any, **keywords: Any) -> Any:
        return self._modules["_original_component"](*arguments, **keywords)


class SplitAttention(ComponentBridge):
    """Attention of GPT-2 whose query, key and value are used in place of `c_attn`."""

    __module__ = "transformer_lens.model_bridge.generalized_components.joint_qkv_attention"

    def __init__(self, original: Any) -> None:
        super().__init__(original)
        joint = original.c_attn
        width = joint.nx
        for number, name in enumerate("qkv"):
            part = nn.Linear(width, width, dtype=joint.weight.dtype)
            columns = slice(number * width, (number + 1) * width)
            part.weight = nn.Parameter(joint.weight.detach()[:, columns].T.clone())
            part.bias = nn.Parameter(joint.bias.detach()[columns].clone())
            self.add_module(name, ComponentBridge(part))
        self.add_module("qkv", ComponentBridge(joint))
        original.c_attn = Split(self)


class Split(ComponentBridge):
    """Stand in for the joint projection that attention calls."""

    __module__ = "transformer_lens.model_bridge.generalized_components.linear"

    def __init__(self, attention: nn.Module) -> None:
        super().__init__(attention._modules["qkv"])
        self.parts = [attention._modules[name] for name in "qkv"]

    def forward(self, states: Tensor) -> Tensor:
        return torch.cat([part(states) for part in self.parts], -1)


class TransformerBridge(nn.Module):
    """TransformerLens' wrapper, which takes the model apart in place."""

    __module__ = "transformer_lens.model_bridge.transformer_bridge"

    def __init__(self, model: Any, tokenizer: Any = None) -> None:
        super().__init__()
        self.__dict__["original_model"] = model
        self.tokenizer = tokenizer
        self._weights_processed = False
        gpt2 = model.config.model_type == "gpt2"
        base = model.transformer if gpt2 else model.model
        blocks = base.h if gpt2 else base.layers
        for number, block in enumerate(blocks):
            block.mlp = ComponentBridge(block.mlp)
            if gpt2:
                block.attn = SplitAttention(block.attn)
            blocks[number] = ComponentBridge(block)
        model.lm_head = ComponentBridge(model.lm_head)


class BaseTunerLayer:
    """Stand in for the base class of PEFT's layers."""

    __module__ = "peft.tuners.tuners_utils"


class LoraLinear(nn.Module, BaseTunerLayer):
    """PEFT's linear layer with one adapter; `base` is `[out, in]`."""

    __module__ = "peft.tuners.lora.layer"

    def __init__(self, base: nn.Linear, rank: int = 2, scale: float = 1.5) -> None:
        super().__init__()
        self.base_layer = base
        like = {"dtype": base.weight.dtype}
        self.lora_A = nn.Parameter(torch.randn(rank, base.in_features, **like))
        self.lora_B = nn.Parameter(torch.randn(base.out_features, rank, **like))
        self.scale, self.merged, self.disable_adapters = scale, False, False

    @property
    def weight(self) -> Tensor:
        return self.base_layer.weight

    def delta(self) -> Tensor:
        return self.scale * self.lora_B @ self.lora_A

    def merge(self) -> None:
        self.base_layer.weight.data += self.delta()
        self.merged = True

    def unmerge(self) -> None:
        self.base_layer.weight.data -= self.delta()
        self.merged = False

    def get_base_layer(self) -> nn.Module:
        return self.base_layer

    def forward(self, states: Tensor) -> Tensor:
        added = states @ self.delta().T
        wanted, there = int(not self.disable_adapters), int(self.merged)
        return self.base_layer(states) + (wanted - there) * added


class ModulesToSaveWrapper(nn.Module):
    """PEFT's module that was trained as a whole, beside the original."""

    __module__ = "peft.utils.other"

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        self.original_module = original
        self.trained = copy.deepcopy(original)
        self.disable_adapters = False

    def unload_and_optionally_merge_module(self, merge: bool, safe_merge: bool, adapter_names: Any) -> nn.Module:
        return self.trained

    def forward(self, *arguments: Any, **keywords: Any) -> Any:
        return (self.original_module if self.disable_adapters else self.trained)(*arguments, **keywords)


class PeftModel(nn.Module):
    """PEFT's model; `shift` stands for what some of its kinds do besides."""

    __module__ = "peft.peft_model"

    def __init__(self, model: Any, *, prompt: bool = False, shift: float = 0.0) -> None:
        super().__init__()
        self.base_model = model
        self.shift = shift
        self.active_peft_config = SimpleNamespace(is_prompt_learning=prompt, peft_type="PROMPT_TUNING")

    def get_base_model(self) -> Any:
        return self.base_model

    def forward(self, **keywords: Any) -> Any:
        output = self.base_model(**keywords)
        output.logits = output.logits + self.shift * torch.arange(output.logits.shape[-1])
        return output


def with_adapters(model: Any, names: tuple[str, ...] = ("q_proj", "o_proj", "down_proj")) -> Any:
    """Put random adapters into a llama, in place."""
    torch.manual_seed(3)
    for block in model.model.layers:
        for parent in (block.self_attn, block.mlp):
            for name in names:
                if hasattr(parent, name):
                    setattr(parent, name, LoraLinear(getattr(parent, name)))
    return model
