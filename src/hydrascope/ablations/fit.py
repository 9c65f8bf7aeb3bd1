"""Fit the constant that a component writes in optimal ablation."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hydrascope.components.component import Component
from hydrascope.engines.clean.activations import CleanActivations
from hydrascope.engines.metrics import soft_capped
from hydrascope.engines.suffix_passes import SuffixPasses
from hydrascope.models.batching import batchable
from hydrascope.models.language_model import LanguageModel, wider
from hydrascope.utils.errors import HydrascopeError

Loss = Literal["kl", "squared"]

LOSSES: tuple[Loss, ...] = get_args(Loss)

#: The vectors that are compared.
WRITTEN = ("optimal", "zero", "mean")

#: The number of prompts in one pass.
PROMPTS_AT_ONCE = 32
#: Of a half, one prompt in so many chooses the step, and the others move the vector.
CHOOSES = 5
#: The fit ends after so many steps without a better value for the prompts that choose.
PATIENCE = 5


@dataclass(frozen=True)
class Fit:
    """The vectors of one component, fitted on either half of the prompts.

    Attributes:
        vectors: `[half, columns]` the vectors.
        inside: `[half, written]` the mean loss over the half that the vector was fitted on, in nats or squared logits;
            `written` counts `WRITTEN`.
        outside: `[prompt, written]` each prompt's loss by the vector that was fitted on the other half; the mean is
            that half's, too.
    """

    vectors: Float[Tensor, "half columns"]
    inside: Float[np.ndarray, "half written"]
    outside: Float[np.ndarray, "prompt written"]


@dataclass(frozen=True)
class PromptBatch:
    """Prompts that share a pass.

    Attributes:
        prompts: their indices in the set.
        passes: the passes.
        targets: `[prompt]` the target tokens.
    """

    prompts: list[int]
    passes: SuffixPasses
    targets: Int[Tensor, "prompt"]

    def losses(self, loss: Loss, component: Component, vector: Float[Tensor, "columns"]) -> Float[Tensor, "prompt"]:
        """Return each prompt's loss where `component` writes `vector`, differentiably."""
        clean, ablated = self.passes.logits().to(vector), self.passes.logits_with(component, vector).to(vector)
        return kl(self.passes.model, clean, ablated) if loss == "kl" else squared(clean, ablated, self.targets)


@dataclass(frozen=True)
class Half:
    """One half of the prompts.

    Attributes:
        prompts: `[prompt]` their indices in the set.
        moving: the batches of the prompts that move the vector: four of five.
        choosing: those of the prompts that choose the step.
    """

    prompts: Int[np.ndarray, "prompt"]
    moving: list[PromptBatch]
    choosing: list[PromptBatch]

    @classmethod
    def of(cls, clean: CleanActivations, prompts: Int[np.ndarray, "prompt"]) -> "Half":
        """Run some prompts clean."""
        chooses = np.arange(len(prompts)) % CHOOSES == 0
        return cls(prompts, *(list(_batches(clean, prompts[some])) for some in (~chooses, chooses)))

    def losses(self, loss: Loss, component: Component, vector: Float[Tensor, "columns"]) -> Float[np.ndarray, "prompt"]:
        """Return the loss of each of `prompts`."""
        found: dict[int, float] = {}
        for batch in (*self.moving, *self.choosing):
            values = batch.losses(loss, component, vector).double().tolist()
            found.update(zip(batch.prompts, values, strict=True))
        return np.array([found[int(index)] for index in self.prompts])


def run_halves(clean: CleanActivations, second: Bool[np.ndarray, "prompt"]) -> tuple[Half, Half]:
    """Run both halves of the prompts clean.

    Args:
        clean: the clean activations.
        second: `[prompt]` whether a prompt is in the second half.
    """
    return Half.of(clean, np.flatnonzero(~second)), Half.of(clean, np.flatnonzero(second))


def fit_component(
    clean: CleanActivations, halves: tuple[Half, Half], component: Component, loss: Loss, steps: int
) -> Fit:
    """Fit the vector of a component on either half of the prompts.

    Args:
        clean: the clean activations.
        halves: both halves, from `run_halves`.
        component: a sublayer, head or neuron.
        loss: what is minimised.
        steps: the largest number of steps.

    Raises:
        HydrascopeError: it is a term of a dictionary; or the loss is `squared`, and a half has fewer than 2 prompts for
            each number of the vector, so that it would fit perfectly and mean nothing.
    """
    if component.is_term:
        raise HydrascopeError(f"no optimal value is fitted for {component}: ablate sublayers, heads or neurons by it")
    width, fewest = clean.own_activations(component, [0]).shape[-1], min(len(half.prompts) for half in halves)
    if loss == "squared" and fewest < 2 * width:
        raise HydrascopeError(
            f"{component} writes {width:,} numbers, which {fewest:,} prompts of a half can't settle by squared changes "
            f"of one logit: give at least {4 * width:,} prompts, or fit by kl"
        )
    means = [_mean(clean, component, half) for half in halves]
    vectors = [minimise(half, component, mean, loss, steps) for half, mean in zip(halves, means, strict=True)]
    inside, outside = np.zeros((2, len(WRITTEN))), np.zeros((len(clean.tokens), len(WRITTEN)))
    for own, other in ((0, 1), (1, 0)):
        for number, vector in enumerate((vectors[own], torch.zeros_like(means[own]), means[own])):
            inside[own, number] = halves[own].losses(loss, component, vector).mean()
            outside[halves[other].prompts, number] = halves[other].losses(loss, component, vector)
    return Fit(torch.stack(vectors), inside, outside)


def minimise(
    half: Half, component: Component, mean: Float[Tensor, "columns"], loss: Loss, steps: int
) -> Float[Tensor, "columns"]:
    """Return the best vector seen: zero, the mean, or a step of L-BFGS from the better of them.

    Four fifths of the prompts move the vector, and one fifth says which is best. So the best is never worse there than
    zero and the mean.
    """

    def value(batches: list[PromptBatch], vector: Tensor) -> float:
        found = float(torch.cat([batch.losses(loss, component, vector) for batch in batches]).mean())
        return found if np.isfinite(found) else float("inf")

    starts = (torch.zeros_like(mean), mean)
    least, best = min(((value(half.choosing, each), each) for each in starts), key=lambda pair: pair[0])
    vector = min(starts, key=lambda each: value(half.moving, each)).clone().requires_grad_()
    optimizer = torch.optim.LBFGS([vector], max_iter=1, max_eval=8, history_size=20, line_search_fn="strong_wolfe")
    count = sum(len(batch.prompts) for batch in half.moving)

    def closure() -> Tensor:
        optimizer.zero_grad()
        total = torch.zeros((), dtype=vector.dtype, device=vector.device)
        for batch in half.moving:
            with torch.enable_grad():
                share = batch.losses(loss, component, vector).sum() / count
                share.backward()
            total += share.detach()
        return total

    waited = 0
    for _ in range(steps):
        before = vector.detach().clone()
        optimizer.step(closure)
        here = vector.detach()
        if not torch.isfinite(here).all() or torch.equal(here, before):
            break
        waited += 1
        if (found := value(half.choosing, here)) < least:
            least, best, waited = found, here.clone(), 0
        if waited == PATIENCE:
            break
    return best


def _mean(clean: CleanActivations, component: Component, half: Half) -> Float[Tensor, "columns"]:
    """Return the mean activation over all ablated positions of a half, in float32 or wider."""
    each = torch.cat([clean.own_activations(component, [int(index)])[0, 0] for index in half.prompts])
    return each.to(wider(each.dtype)).mean(0).to(clean.model.device)


def _batches(clean: CleanActivations, prompts: Int[np.ndarray, "prompt"]) -> Iterator[PromptBatch]:
    """Yield batches of prompts that may share a pass, of similar lengths."""
    tokens = [clean.tokens[int(index)] for index in prompts]
    for group in batchable(clean.model, tokens):
        ordered = [int(prompts[place]) for place in sorted(group, key=lambda place: len(tokens[place]))]
        for start in range(0, len(ordered), PROMPTS_AT_ONCE):
            some = ordered[start : start + PROMPTS_AT_ONCE]
            positions = torch.from_numpy(clean.padded_positions(some))
            targets = torch.tensor([clean.targets[index] for index in some], device=clean.model.device)
            yield PromptBatch(
                some, SuffixPasses.of(clean.model, [clean.tokens[index] for index in some], positions), targets
            )


def kl(
    model: LanguageModel, clean: Float[Tensor, "prompt vocabulary"], ablated: Float[Tensor, "prompt vocabulary"]
) -> Float[Tensor, "prompt"]:
    """Return Σ p_clean log(p_clean / p_ablated) over the vocabulary, in nats."""
    log_clean, log_ablated = (soft_capped(model, each).log_softmax(-1) for each in (clean, ablated))
    found: Tensor = (log_clean.exp() * (log_clean - log_ablated)).sum(-1)
    return found


def squared(
    clean: Float[Tensor, "prompt vocabulary"],
    ablated: Float[Tensor, "prompt vocabulary"],
    targets: Int[Tensor, "prompt"],
) -> Float[Tensor, "prompt"]:
    """Return the squared change of the target's logit above the vocabulary's mean."""
    change = ablated - clean
    return (change.gather(-1, targets[:, None])[:, 0] - change.mean(-1)).square()
