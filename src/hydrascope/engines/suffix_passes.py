"""Differentiable passes over the last tokens of prompts, with one component overwritten.

All rows share the keys and values before the first ablated position, and the outputs of all blocks below the
component: what they compute doesn't change. So they are computed once, in a clean pass.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hydrascope.components.component import Component
from hydrascope.engines.attention import Attend, Prefix, attending, causal_attention, row_attention
from hydrascope.models.batching import padded
from hydrascope.models.gradients import with_gradients
from hydrascope.models.hooks import as_given, by_prompt, hooked, on_output, on_site
from hydrascope.models.language_model import LanguageModel


@dataclass(frozen=True)
class SuffixPasses:
    """The last tokens of prompts that share a batch, from the first ablated position on.

    Attributes:
        model: the model.
        suffixes: `[prompt, slot]` the token ids, padded on the right.
        prefix: the keys and values before them.
        positions: `[prompt, slot]` the ablated positions, counted from the suffix's start.
        last: `[prompt]` the last position, counted likewise.
        outputs: the output of each block in the clean pass.
        normed: `[prompt, width]` the output of the final norm in the clean pass, at the last position.
    """

    model: LanguageModel
    suffixes: Int[Tensor, "prompt suffix"]
    prefix: Prefix
    positions: Int[Tensor, "prompt slot"]
    last: Int[Tensor, "prompt"]
    outputs: list[Any]
    normed: Float[Tensor, "prompt width"]

    @classmethod
    def of(
        cls, model: LanguageModel, tokens: Sequence[Sequence[int]], positions: Int[Tensor, "prompt slot"]
    ) -> "SuffixPasses":
        """Run the prompts clean.

            >>> SuffixPasses.of(model, [[2, 14, 4]], torch.tensor([[2]]))                      # doctest: +SKIP

        Args:
            model: the model.
            tokens: the token ids of prompts that may share a batch.
            positions: `[prompt, slot]` the ablated positions, counted from the prompt's start.
        """
        ids, last = padded(model, tokens)
        if model.anatomy.supports_wavefront:
            prefix = Prefix.of(last.cpu(), positions, model.device)
            with model.measuring(), attending(model, causal_attention(prefix)):
                model.hf.base_model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
        else:
            prefix = Prefix(torch.zeros_like(last), ids.shape[1], 0)
        positions, last = positions.to(last.device) - prefix.start[:, None], last - prefix.start
        empty = cls(model, ids.gather(1, prefix.suffix), prefix, positions, last, [], torch.empty(len(tokens), 0))
        outputs: list[Any] = []
        with model.measuring(), hooked(block.register_forward_hook(_keep(outputs)) for block in model.blocks):
            normed = empty._run()
        return cls(model, empty.suffixes, prefix, positions, last, outputs, normed)

    def logits(self) -> Float[Tensor, "prompt vocabulary"]:
        """Return the logits of the clean pass, before any soft-cap."""
        with self.model.measuring():
            return self.model.unembedded(self.normed)

    def logits_with(self, component: Component, value: Float[Tensor, "columns"]) -> Float[Tensor, "prompt vocabulary"]:
        """Return the logits where `component` writes `value`, before any soft-cap.

        It is written at all ablated positions. The result is differentiable with respect to `value` if that needs a
        gradient.
        """
        rows = torch.arange(len(self.last), device=self.last.device)[:, None]

        def write(hidden: Tensor) -> Tensor:
            changed = by_prompt(hidden, len(self.last)).clone()
            changed[rows, self.positions, self.model.columns(component)] = value.to(changed)
            return as_given(changed, hidden)

        # Gradients are off in `measuring`, and on again where the value needs one.
        mode = with_gradients(self.model) if value.requires_grad else self.model.measuring()
        with mode, hooked([on_site(self.model, component.site, write)]), self._replayed(component.block):
            return self.model.unembedded(self._run())

    def _run(self) -> Float[Tensor, "prompt width"]:
        """Run the suffixes; return the output of the final norm at each prompt's last position."""
        model = self.model
        found: list[Tensor] = []
        inputs = {"input_ids": self.suffixes, "attention_mask": torch.ones_like(self.suffixes), "use_cache": False}
        with ExitStack() as stack:
            if model.anatomy.supports_wavefront:
                inputs["position_ids"] = self.prefix.suffix
                stack.enter_context(attending(model, self._attend()))
            stack.enter_context(hooked([on_output(model.final_norm, found.append)]))
            model.hf.base_model(**inputs)
        normed = by_prompt(found[0], len(self.last))
        return normed[torch.arange(len(self.last), device=normed.device), self.last.to(normed.device)]

    def _attend(self) -> Attend:
        return row_attention(self.prefix, lambda block, weights: None)

    @contextmanager
    def _replayed(self, count: int) -> Iterator[None]:
        """Let the first `count` blocks return their outputs of the clean pass."""
        blocks = list(self.model.blocks)[:count]
        own = [block.__dict__.get("forward") for block in blocks]
        try:
            for block, output in zip(blocks, self.outputs, strict=False):
                block.forward = partial(_replay, output)
            yield
        finally:
            for block, before in zip(blocks, own, strict=True):
                block.__dict__.pop("forward", None)
                if before is not None:
                    block.forward = before


def _keep(outputs: list[Any]) -> Callable[..., None]:
    return lambda module, args, output: outputs.append(_copy(output))


def _replay(output: Any, *args: Any, **kwargs: Any) -> Any:
    return _copy(output)


def _copy(output: Any) -> Any:
    """Copy a block's output: some blocks write into their input."""
    if isinstance(output, tuple):
        return tuple(map(_copy, output))
    return output.clone() if isinstance(output, Tensor) else output
