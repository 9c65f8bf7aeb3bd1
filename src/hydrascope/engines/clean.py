"""The clean run: what every component writes at the final position when nothing is ablated."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from hydrascope.components import Component
from hydrascope.engines.hooks import by_prompt, hooked, on_input, on_output
from hydrascope.errors import HydrascopeError
from hydrascope.model import LanguageModel, padded


@dataclass(frozen=True)
class CleanRun:
    """What a clean run leaves at the final position of each prompt.

    Attributes:
        written: `[prompt, component, width]` y_c, what each component adds to the residual stream.
        embed: `[prompt, width]` e, the residual stream before the first layer.
        final: `[prompt, width]` z, the residual stream before the final norm.
        normed: `[prompt, width]` what the final norm makes of it.
    """

    written: Float[Tensor, "prompt component width"]
    embed: Float[Tensor, "prompt width"]
    final: Float[Tensor, "prompt width"]
    normed: Float[Tensor, "prompt width"]

    def logits(self, model: LanguageModel) -> Float[Tensor, "prompt vocabulary"]:
        """The model's logits at the final position, before any final soft-cap."""
        return model.unembedding(self.normed) * model.logit_scale


@torch.no_grad()
def clean_run(model: LanguageModel, tokens: Sequence[Sequence[int]]) -> CleanRun:
    """Run prompts of any lengths, padded on the right, and keep what stands at each one's final position.

    Raises:
        HydrascopeError: a component's output doesn't fit the residual stream, so the anatomy is wrong.
    """
    ids, last = padded(tokens, model.device)
    prompts = torch.arange(len(tokens), device=model.device)
    kept: dict[Component | str, Tensor] = {}

    def keep(name: Component | str, hidden: Tensor) -> None:
        # A copy: some blocks go on to write into the tensors they have read.
        kept[name] = by_prompt(hidden, len(tokens))[prompts, last].clone()

    handles = [
        on_input(model.layers[0], partial(keep, "embed")),
        on_input(model.final_norm, partial(keep, "final")),
        on_output(model.final_norm, partial(keep, "normed")),
        *(on_output(model.site(component), partial(keep, component)) for component in model.components),
    ]
    with hooked(handles):
        model.hf.base_model(input_ids=ids, use_cache=False)
    for component in model.components:
        if kept[component].shape != kept["embed"].shape:
            raise HydrascopeError(
                f"{component} of {model.name} writes {kept[component].shape[-1]} numbers a position and the residual "
                f"stream has {model.width}: its anatomy ({model.config.model_type}) names another module's output"
            )
    written = torch.stack([kept[component] for component in model.components], dim=1)
    return CleanRun(written * model.residual_scale, kept["embed"], kept["final"], kept["normed"])
