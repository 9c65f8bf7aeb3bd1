"""A loaded language model: the weights, the tokenizer and the anatomy, as the engines need them."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from hydrascope.anatomy import Anatomy, anatomy_of
from hydrascope.components import Component, Kind
from hydrascope.errors import HydrascopeError


class LanguageModel:
    """A causal language model of transformers, with its parts found.

    Attributes:
        hf: the model of transformers, in evaluation mode.
        tokenizer: its tokenizer; None where prompts are given as token ids.
        anatomy: where its parts are.
        name: what it was loaded as.
        revision: the hub's commit, or `sha256:…` of a local folder's weights.
        components: everything that can be ablated, by layer, attention before MLP.
        layers, final_norm, unembedding: the modules.
    """

    def __init__(
        self,
        hf: PreTrainedModel,
        tokenizer: Any = None,
        *,
        anatomy: Anatomy | None = None,
        name: str = "",
        revision: str = "",
    ) -> None:
        """Find the parts of `hf`; `hydrascope.load_model` is the way to one from a name.

        Raises:
            HydrascopeError: the architecture is unknown, or a part isn't where its anatomy says.
        """
        # Nothing here is ever trained: no graph of derivatives is kept for the weights.
        self.hf = hf.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        if hf.dtype == torch.float64 and hf._can_set_experts_implementation():
            # Grouped products of experts are for narrower numbers only.
            hf.set_experts_implementation("eager")
        self.config = hf.config.get_text_config()
        self.anatomy = anatomy or anatomy_of(self.config.model_type)
        self.name = name or self.config.model_type
        self.revision = revision
        self.layers = list(self._part(hf, self.anatomy.layers).children())
        self.final_norm: Any = self._part(hf, self.anatomy.norm)
        self.unembedding: Any = hf.get_output_embeddings()
        self.components = tuple(Component(layer, kind) for layer in range(len(self.layers)) for kind in get_args(Kind))
        self.parallel = self.anatomy.parallel(self.config)
        self.residual_scale = self.anatomy.residual_scale(self.config)
        self.logit_scale = self.anatomy.logit_scale(self.config)
        self.norm_eps = self._norm_eps()
        self._sites = {component: self._site(component) for component in self.components}

    @staticmethod
    def _part(parent: nn.Module, path: str) -> nn.Module:
        try:
            return parent.get_submodule(path)
        except AttributeError as error:
            raise HydrascopeError(
                f"{type(parent).__name__} has no part {path!r}: its anatomy does not fit this model ({error})"
            ) from None

    def _site(self, component: Component) -> nn.Module:
        layer = self.layers[component.layer]
        if component.kind == "mlp":
            return self._part(layer, self.anatomy.mlp_out)
        return self._part(layer, self.anatomy.attention_out or self.anatomy.attention)

    def _norm_eps(self) -> float:
        for name in ("variance_epsilon", "eps", "epsilon"):
            if hasattr(self.final_norm, name):
                return float(getattr(self.final_norm, name))
        raise HydrascopeError(f"the final norm {type(self.final_norm).__name__} of {self.name} has no epsilon")

    def site(self, component: Component) -> nn.Module:
        """The module whose output, times `residual_scale`, `component` adds to the residual stream."""
        return self._sites[component]

    def attention(self, layer: int) -> nn.Module:
        """The module of block `layer` that reads other positions."""
        return self._part(self.layers[layer], self.anatomy.attention)

    def downstream(self, component: Component) -> tuple[Component, ...]:
        """The components causally downstream of `component`, as the anatomy has it (Eq. 33).

        `mlp.l` is downstream of `attn.l` in sequential blocks, not in parallel ones.
        """

        def follows(other: Component) -> bool:
            same_block = other.layer == component.layer and not self.parallel
            return other.layer > component.layer or (same_block and other > component)

        return tuple(other for other in self.components if follows(other))

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that the model computes in."""
        return self.hf.dtype

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.hf.device

    @property
    def width(self) -> int:
        """The width of the residual stream."""
        return int(self.unembedding.weight.shape[-1])

    @cached_property
    def mean_unembedding(self) -> Float[Tensor, "width"]:
        """mean_j W_U[:, j], which centres the logits (Eq. 9), in float32 or wider."""
        return self.unembedding.weight.mean(0, dtype=wider(self.dtype))

    @property
    def context_length(self) -> int | None:
        """The longest prompt that the model takes, in tokens; None where it sets no limit."""
        for name in ("max_position_embeddings", "n_positions", "max_seq_len"):
            if getattr(self.config, name, None) is not None:
                return int(getattr(self.config, name))
        return None

    def encode(self, text: str) -> list[int]:
        """The token ids of `text`, as the tokenizer makes them by default, special tokens included."""
        return list(self._tokenizer(text)["input_ids"])

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """The token ids of `text`, as `encode` makes them, and which characters each stands for: first, and end.

            model.encode_with_offsets("The capital")  # ([0, 306, 490], [(0, 0), (0, 3), (3, 11)])

        A special token stands for none. Some tokenizers count the space before a word, as here, others don't.

        Raises:
            HydrascopeError: the tokenizer doesn't keep them.
        """
        if not getattr(self._tokenizer, "is_fast", False):
            raise HydrascopeError(
                f"the tokenizer of {self.name} does not say where its tokens stand: give positions by number, or take "
                "a model with a fast tokenizer (tokenizer.json)"
            )
        encoded = self._tokenizer(text, return_offsets_mapping=True)
        return list(encoded["input_ids"]), [(start, end) for start, end in encoded["offset_mapping"]]

    def decode(self, token: int) -> str:
        """The text of one token."""
        return str(self._tokenizer.decode([token]))

    @property
    def _tokenizer(self) -> Any:
        if self.tokenizer is None:
            raise HydrascopeError(f"the model {self.name} was made without a tokenizer: give token ids")
        return self.tokenizer


def wider(dtype: torch.dtype) -> torch.dtype:
    """The dtype that numbers of `dtype` are read in: never less than float32."""
    return torch.promote_types(dtype, torch.float32)


def padded(tokens: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Prompts of any lengths as `[prompt, position]` token ids, padded on the right, and each one's last position.

    Attention is causal, so no position of a prompt ever reads what is on its right: the padding needs no mask.
    """
    longest = max(map(len, tokens))
    ids = torch.zeros(len(tokens), longest, dtype=torch.long)
    for row, prompt in zip(ids, tokens, strict=True):
        row[: len(prompt)] = torch.as_tensor(prompt)
    last = torch.tensor([len(prompt) - 1 for prompt in tokens])
    return ids.to(device), last.to(device)
