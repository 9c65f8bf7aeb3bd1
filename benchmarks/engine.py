"""The wavefront engine alone: given patches that are drawn already, without clean activations, checks or a dataset."""

from collections.abc import Sequence
from dataclasses import fields, replace

import torch
from torch import Tensor

import hydrascope as hs
from benchmarks.shapes import Shape
from benchmarks.task import Prompt, Work
from hydrascope.components.component import Component, Override
from hydrascope.components.selection import select_components, select_overrides
from hydrascope.engines import Readings, Request, wavefront
from hydrascope.engines.metrics import resolve_metrics
from hydrascope.engines.readouts import Logit, Readouts, Tokens
from hydrascope.models.memory import Load, MemoryBudget


class Engine:
    """What the engine does with prompts of the task, in batches as `hydrascope.sweep` cuts them.

    Attributes:
        components: everything that is read, in the order of the readings.
        runs: what is ablated; by default each component of the task alone.
    """

    def __init__(
        self,
        model: hs.models.LanguageModel,
        shape: Shape,
        work: Work,
        overrides: Sequence[Override] = (),
        metrics: Sequence[str] = (),
    ) -> None:
        self.model = model
        self.runs = tuple(overrides) or select_overrides(model, work.ablate)
        self.metrics = resolve_metrics(metrics)
        self.units = tuple(component for component in select_components(model, work.ablate) if component.is_unit)
        self.components = model.sublayers + self.units
        self._at = work.at
        self._number = {component: number for number, component in enumerate(work.ablated(shape))}

    def measure(self, prompts: Sequence[Prompt]) -> list[Readings]:
        """The readings of each prompt, its dimension kept, in the order of `prompts`."""
        longest, patches = max(len(prompt.tokens) for prompt in prompts), prompts[0].patches.shape[1]
        suffix = longest if self._at == "all" else 1
        load = Load(longest, suffix, len(self.runs), patches, len(self.components))
        batch = MemoryBudget(self.model, load).batch()
        assert batch.overrides == len(self.runs), "one prompt's runs do not fit into memory at a time"
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index].tokens))
        found: dict[int, Readings] = {}
        for start in range(0, len(order), batch.prompts):
            indices = order[start : start + batch.prompts]
            readings = wavefront.measure(self.model, self._request([prompts[index] for index in indices]))
            found |= {index: one_prompt(readings, place) for place, index in enumerate(indices)}
        return [found[index] for index in range(len(prompts))]

    def _request(self, prompts: Sequence[Prompt]) -> Request:
        tokens = [prompt.tokens.tolist() for prompt in prompts]
        targets = [prompt.target for prompt in prompts]
        slots = max(prompt.patches.shape[2] for prompt in prompts)

        def values(component: Component) -> Tensor:
            """`[prompt, patch, slot, columns]`, the last slot repeated where a prompt has fewer."""
            number = self._number[component]
            each = [prompt.patches[number] for prompt in prompts]
            return torch.stack([patches[:, _even(patches.shape[1], slots)] for patches in each])

        first = [len(prompt.tokens) - prompt.patches.shape[2] for prompt in prompts]
        positions = [
            [start + slot for slot in _even(prompt.patches.shape[2], slots)]
            for start, prompt in zip(first, prompts, strict=True)
        ]
        return Request(
            tokens,
            torch.tensor(positions),
            self.runs,
            prompts[0].patches.shape[1],
            values,
            self.units,
            Readouts.of(self.model, [Logit()], Tokens(targets), range(len(prompts))),
            self.metrics,
            torch.tensor(targets),
        )


def _even(count: int, slots: int) -> list[int]:
    return [min(slot, count - 1) for slot in range(slots)]


def one_prompt(readings: Readings, place: int) -> Readings:
    """The readings of the prompt at `place` of a batch, its dimension kept."""
    kept = ("clean_error", "sums")
    tensors = {field.name: getattr(readings, field.name) for field in fields(Readings) if field.name not in kept}
    return replace(
        readings,
        **{name: value.narrow(0 if name == "scale" else 1, place, 1) for name, value in tensors.items()},
    )
