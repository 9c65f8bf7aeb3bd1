"""Measure `answer_log_prob` by a second pass, over prompts continued by their answers.

log p(answer | prompt) = Σ log p(token | prompt, tokens before) over the answer's n tokens, teacher-forced: the prompt
and the first n − 1 tokens are run as one text, and the n tokens are predicted at its last n positions. The ablation is
that of the first pass: patches are written at the same positions, all of them the prompt's, and the answer's positions
react freely. Frozen components have their activation in the clean pass of the continued prompt, at every position.

The pass is a second one, so that nothing else that is measured depends on this metric. If only the last position is
ablated, it computes n positions of each row, and the first pass one. An answer of one token needs no second pass: its
metric is read in the first.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from hydrascope.components.component import Component
from hydrascope.engines.interface import Readings, Request
from hydrascope.engines.readouts import Readouts
from hydrascope.models.batching import batchable
from hydrascope.models.language_model import LanguageModel

#: From a request of continued prompts to log p(answer): `[prompt]` clean, and `[prompt, ablated, patch]`.
Measure = Callable[[LanguageModel, Request], tuple[Float[Tensor, "prompt"], Float[Tensor, "prompt ablated patch"]]]


def continued(tokens: Sequence[int], answer: Sequence[int]) -> list[int]:
    """Return the token ids of a prompt and its answer, without the answer's last token.

    >>> continued([2, 14, 4], [5, 6, 7])
    [2, 14, 4, 5, 6]
    """
    return [*tokens, *answer[:-1]]


def add_whole_answers(model: LanguageModel, request: Request, readings: Readings, measure: Measure) -> Readings:
    """Put log p of answers of several tokens in the place of that of their first tokens.

    Args:
        model: the language model.
        request: the request, of prompts that aren't continued.
        readings: its readings, in which metrics of whole answers are those of first tokens.
        measure: the engine's second pass, which takes a request of continued prompts.
    """
    number = next((number for number, metric in enumerate(request.metrics) if metric.of_answer), None)
    several = [index for index, answer in enumerate(request.answers) if len(answer) > 1]
    if number is None or not several:
        return readings
    clean, ablated = readings.metrics.clone(), readings.metrics_ablated.clone()
    for prompts in _groups(model, request, several):
        second = _second_pass(request, prompts)
        values, values_ablated = measure(model, second)
        there = prompts.to(clean.device)
        clean[number, there], ablated[number, there] = values.to(clean), values_ablated.to(ablated)
    return replace(readings, metrics=clean, metrics_ablated=ablated)


def _groups(model: LanguageModel, request: Request, several: Sequence[int]) -> Iterator[Tensor]:
    """Group prompts by the lengths of their answers.

    So no row computes the positions of another prompt's longer answer.
    """
    for length in sorted({len(request.answers[index]) for index in several}):
        alike = [index for index in several if len(request.answers[index]) == length]
        # Which prompts may share a batch depends on their lengths, and those differ from the first pass.
        for group in batchable(model, [continued(request.tokens[i], request.answers[i]) for i in alike]):
            yield torch.tensor([alike[place] for place in group])


def _second_pass(request: Request, prompts: Tensor) -> Request:
    """Return the request of some prompts, continued by their answers, that reads nothing."""
    answers = [request.answers[index] for index in prompts.tolist()]

    def values(component: Component) -> Tensor:
        drawn = request.values(component)
        return drawn[prompts.to(drawn.device)]

    return replace(
        request,
        tokens=[continued(request.tokens[i], answer) for i, answer in zip(prompts.tolist(), answers, strict=True)],
        positions=request.positions[prompts],
        values=values,
        units=(),
        readouts=Readouts(()),
        metrics=(),
        targets=request.targets[prompts],
        prefix=None,
        answers=answers,
    )
