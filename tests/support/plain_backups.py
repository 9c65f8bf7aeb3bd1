"""Energies, truths and estimates of backups by their definition, in plain forward passes of transformers.

Nothing here is hydrascope's but the names of components: each prompt is run alone, with the model's own logits.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from plain_edges import BLOCKS, HEADS, NAMES
from plain_terms import after, before, plain_model
from torch import Tensor

from hydrascope.components.component import Component

#: From a component to positions and what it writes there, `[slot, columns]`.
Writes = Mapping[Component, tuple[Sequence[int], Tensor]]


@dataclass
class Run:
    """One forward pass.

    Attributes:
        values: by component, `[position, columns]` what it hands on, after overrides.
        logits: `[vocabulary]` the model's own at the last position, after any soft-cap.
        uncapped: the same before it.
    """

    values: dict[Component, Tensor] = field(default_factory=dict)
    logits: Tensor = field(default_factory=lambda: torch.zeros(()))
    uncapped: Tensor = field(default_factory=lambda: torch.zeros(()))

    def read(self, target: int) -> float:
        """The centred logit of a token."""
        return float((self.uncapped[target] - self.uncapped.mean()).detach())

    def slopes(self, target: int) -> dict[Component, Tensor]:
        """Its slopes with respect to the activations at each component's site, `[position, columns]`."""
        values, read = list(self.values.values()), self.uncapped[target] - self.uncapped.mean()
        found = torch.autograd.grad(read, values, allow_unused=True) if read.requires_grad else [None] * len(values)
        return {
            component: torch.zeros_like(value) if slope is None else slope
            for (component, value), slope in zip(self.values.items(), found, strict=True)
        }


class PlainBackups:
    """A tiny model whose components are overridden by hooks."""

    def __init__(self, case: str, components: Sequence[Component]) -> None:
        self.model, self.names, self.components = plain_model(case), NAMES[case], components
        self.hf: Any = self.model.hf
        self.blocks: Any = self.hf.get_submodule(self.names.blocks)

    def run(self, tokens: Sequence[int], writes: Writes | None = None, cut: int = -1, *, graph: bool = False) -> Run:
        """Run a prompt; the block `cut` passes no gradient through what it writes."""
        found, uncapped = Run(), list[Tensor]()

        def change(component: Component, columns: slice, values: Tensor) -> Tensor:
            made = values.clone()
            if writes and component in writes:
                positions, value = writes[component]
                made[list(positions), columns] = value
            return made

        def on_heads(block: int, values: Tensor) -> Tensor:
            size = values.shape[-1] // HEADS
            for component in self.components:
                if component.kind == "head" and component.block == block:
                    columns = slice(component.unit * size, (component.unit + 1) * size)
                    values = change(component, columns, values)
            for component in self.components:
                if component.kind == "head" and component.block == block:
                    found.values[component] = values
            return values

        def on_output(sublayer: Component, values: Tensor) -> Tensor:
            found.values[sublayer] = change(sublayer, slice(None), values)
            return found.values[sublayer].detach() if sublayer.block == cut else found.values[sublayer]

        with torch.set_grad_enabled(graph), ExitStack() as stack:
            for number in range(BLOCKS):
                block = self.blocks[number]
                before(
                    stack, block.get_submodule(self.names.heads), lambda values, number=number: on_heads(number, values)
                )
                for second, kind in enumerate(("attn", "mlp")):
                    sublayer = Component(number, kind)  # type: ignore[arg-type]
                    module = block.get_submodule(self.names.after[second] or self.names.sublayers[second])
                    after(stack, module, lambda values, sublayer=sublayer: on_output(sublayer, values))
            after(stack, self.hf.lm_head, lambda values: uncapped.append(values))
            found.logits = self.hf(torch.tensor([list(tokens)]), use_cache=False).logits[0, -1].detach()
        found.uncapped = uncapped[0][-1]
        return found

    def columns(self, component: Component, values: Tensor) -> slice:
        """The columns of a component in the activations at its site."""
        size = values.shape[-1] // HEADS if component.kind == "head" else values.shape[-1]
        first = component.unit if component.kind == "head" else 0
        return slice(first * size, (first + 1) * size)

    def value(self, run: Run, component: Component) -> Tensor:
        """Return the values that a component hands on, `[position, columns]`."""
        values = run.values[component]
        return values[:, self.columns(component, values)].detach()

    def products(
        self, tokens: Sequence[int], target: int, state: Writes, writes: Writes, cut: int = -1
    ) -> dict[Component, float]:
        """⟨patch − value, slope⟩ of each component in a state, with the gradient through one block cut."""
        run = self.run(tokens, state, cut, graph=True)
        slopes, found = run.slopes(target), {}
        for component, (where, patch) in writes.items():
            slope = slopes[component][list(where)]
            change = patch - self.value(run, component)[list(where)]
            found[component] = float((change * slope[:, self.columns(component, slope)]).sum())
        return found

    def magnitudes(self, tokens: Sequence[int], target: int, state: Writes, writes: Writes) -> dict[Component, float]:
        """Σ over blocks of |the product with the block cut| / (L − 1), of each component in a state."""
        each = [self.products(tokens, target, state, writes, block) for block in range(BLOCKS)]
        return {component: sum(abs(one[component]) for one in each) / (BLOCKS - 1) for component in writes}


def energy(change: Tensor, weight: Tensor) -> float:
    """The variance of a change of logits under the probabilities `weight`, from its two moments."""
    return float((weight * change**2).sum() - (weight * change).sum() ** 2)
