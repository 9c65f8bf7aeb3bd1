"""A prompt alone in a model of its own, by transformers' plain forward passes: the answer that no batch can change."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hydrascope.components.component import Component
from hydrascope.models.language_model import LanguageModel


class Single:
    """One prompt, run by a fresh copy of a model for each pass, so that no pass meets what another left behind."""

    def __init__(self, model: LanguageModel, tokens: Sequence[int]) -> None:
        """Run the prompt clean."""
        self.model, self.tokens = model, list(tokens)
        self.logits, self.written = self.run()
        self.target = int(self.logits.argmax())

    @torch.no_grad()
    def run(self, label: str = "", value: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the last logits, before any soft-cap, and what each sublayer writes at the last position.

        Args:
            label: of the sublayer that writes `value` there instead.
        """
        hf: Any = copy.deepcopy(self.model.hf).eval()
        if self.model.hf.dtype == torch.float64 and hf._can_set_experts_implementation():
            hf.set_experts_implementation("eager")
        for name, module in list(hf.named_modules()):
            if hasattr(module, "rope_type"):
                hf.set_submodule(name, type(module)(module.config))
        found = LanguageModel(hf, anatomy=self.model.anatomy)
        written: dict[str, Tensor] = {}
        logits: list[Tensor] = []

        def on_layer(component: Component) -> Any:
            def hook(module: nn.Module, inputs: Any, output: Any) -> Any:
                hidden = (output[0] if isinstance(output, tuple) else output).clone()
                last = hidden.reshape(-1, hidden.shape[-1])[-1]
                if str(component) == label:
                    last.copy_(value if value is not None else torch.zeros_like(last))
                    hidden.view(-1, hidden.shape[-1])[-1] = last
                written[str(component)] = last.clone()
                return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

            return hook

        for component in found.sublayers:
            found.output(component).register_forward_hook(on_layer(component))
        hf.get_output_embeddings().register_forward_hook(lambda module, inputs, output: logits.append(output[0, -1]))
        hf(input_ids=torch.tensor([self.tokens]), use_cache=False)
        return logits[0] * self.model.logit_scale, written

    def read(self, logits: Tensor) -> float:
        """The centred logit of the target."""
        return float(logits[self.target] - logits.mean())

    def total(self, label: str, value: Tensor | None = None) -> float:
        """The total effect of a sublayer that writes `value`, or zeros, at the last position."""
        return self.read(self.run(label, value)[0]) - self.read(self.logits)
