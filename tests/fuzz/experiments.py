"""Draw random experiments: ablations, frozen components, readouts, metrics and batches."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import hydrascope as hs
from fuzz.drawing import Draw
from fuzz.head_inputs import head_input
from hydrascope.components.component import Component
from hydrascope.models.language_model import LanguageModel

#: The lengths of prompts, in tokens; an answer of up to three comes on top.
SHORTEST, LONGEST = 2, 24
#: Only the last needs answers.
METRICS = ("log_prob", "prob", "rank", "kl", "fisher", "top", "answer_log_prob")


@dataclass(frozen=True)
class OwnValue:
    """An ablation that writes each component's own clean activation: nothing may change."""

    patches: int = 1

    def draw(self, clean: Any, prompts: Sequence[int]) -> hs.ablations.Patches:
        sources = np.array(prompts)[:, None]
        return hs.ablations.Patches(sources, lambda component: clean.activations_of(component, sources, prompts))


@dataclass(frozen=True)
class Experiment:
    """The arguments of a sweep, but for the engine.

    Attributes:
        directions: by label, the vector of a direction and the block before which it is read, or None for the end.
        checked: whether a run's own checks of rounding and of batches are made as well.
    """

    prompts: list[hs.Prompt]
    ablation: Any
    ablate: list[str]
    read: list[str]
    at: str | int | list[int]
    directions: dict[str, tuple[torch.Tensor, int | None]]
    logits: list[int | str]
    metrics: list[str]
    target: str | int
    batch_size: int | str
    checked: bool

    @property
    def readouts(self) -> list[Any]:
        found: list[Any] = [hs.Logit(token) for token in self.logits if token != "difference"]
        found += [hs.LogitDifference()] if "difference" in self.logits else []
        return found + [hs.Direction(vector, before, label) for label, (vector, before) in self.directions.items()]

    def options(self) -> dict[str, Any]:
        """Return the optional arguments of `hs.sweep`."""
        return {
            "ablate": self.ablate,
            "read": self.read or "layers",
            "at": self.at,
            "readouts": self.readouts,
            "metrics": self.metrics,
            "target": self.target,
            "keep": "patches",
            "batch_size": self.batch_size,
        }

    def __str__(self) -> str:
        lengths = ",".join(str(len(prompt.tokens or ())) for prompt in self.prompts)
        what = f"{type(self.ablation).__name__} at {self.at} of {', '.join(self.ablate)}"
        return f"{what}; prompts of {lengths} tokens, batch {self.batch_size}"


def draw_experiment(draw: Draw, model: LanguageModel) -> Experiment:
    """Draw an experiment that fits a model."""
    vocabulary = model.known_tokens
    answered = draw.chance(0.4)
    at = draw.choice(("last", "last", "last", "all", "all", -2, 0, [0, -1]))
    from_the_start = at in ("all", 0, [0, -1])
    ablations: list[Any] = [hs.Zero(), hs.Mean(), hs.Counterfactual(), OwnValue()]
    alike = from_the_start and draw.chance(0.5)
    count = draw.choice((2, 2, 3, 4))
    if alike or not from_the_start:
        # It counts from the end: positions from the start need prompts of one length. As likely as all others together.
        ablations += [hs.Resample(draw.randint(1, min(2, count - 1)), draw.randint(0, 9))] * 4
    lengths = _lengths(draw, count, alike)
    ablation = draw.choice(ablations)
    prompts: list[hs.Prompt] = []
    seen: set[tuple[int, ...]] = set()
    for length in lengths:
        tokens = _tokens(draw, vocabulary, length)
        while tokens in seen:
            tokens = _tokens(draw, vocabulary, length)
        seen.add(tokens)
        twin = length if at != "last" else draw.randint(SHORTEST, LONGEST)
        answer = _tokens(draw, vocabulary, draw.randint(1, 3))
        foil = (answer[0] + draw.randint(1, vocabulary - 1)) % vocabulary
        prompts.append(
            hs.Prompt(
                tokens=tokens,
                answer=answer if answered else None,
                foil=foil if answered else None,
                counterfactual=_tokens(draw, vocabulary, twin) if isinstance(ablation, hs.Counterfactual) else None,
            )
        )
    pool = _pool(draw, model)
    logits: list[int | str] = ["target", draw.randrange(vocabulary)]
    logits += draw.sample(["answer", "foil", "difference"], draw.randint(0, 3)) if answered else []
    metrics = draw.sample(METRICS[: len(METRICS) if answered else -1], draw.randint(0, 3))
    return Experiment(
        prompts=prompts,
        ablation=ablation,
        ablate=list(dict.fromkeys(_override(draw, model, pool) for _ in range(draw.randint(1, 3)))),
        read=[str(each) for each in pool if each.is_unit and draw.chance(0.4)],
        at=at,
        directions=_directions(draw, model),
        logits=list(dict.fromkeys(logits)),
        metrics=metrics,
        target=draw.choice(["argmax", "argmax", draw.randrange(vocabulary), *(["answer"] if answered else [])]),
        batch_size=draw.choice((1, 2, 3, 8, "auto")),
        checked=draw.chance(0.1),
    )


def _lengths(draw: Draw, count: int, alike: bool) -> list[int]:
    if alike:
        return [draw.randint(SHORTEST + 2, LONGEST)] * count
    return [draw.choice((draw.randint(SHORTEST, 8), draw.randint(9, LONGEST))) for _ in range(count)]


def _tokens(draw: Draw, vocabulary: int, length: int) -> tuple[int, ...]:
    return tuple(draw.randrange(vocabulary) for _ in range(length))


def _pool(draw: Draw, model: LanguageModel) -> list[Component]:
    """Return all sublayers, all heads, and some random neurons."""
    found = list(model.sublayers)
    for sublayer in model.sublayers:
        if sublayer.kind == "attn":
            found += model.units(sublayer)
        elif model.is_dense(sublayer):
            found += draw.sample(model.units(sublayer), min(3, len(model.units(sublayer))))
    return found


def _override(draw: Draw, model: LanguageModel, pool: Sequence[Component]) -> str:
    """Draw one component, several, or one with others or inputs frozen."""
    kind = draw.choice(("one", "one", "one", "several", "frozen", "inputs"))
    ablated = _apart(draw.sample(pool, draw.randint(2, min(4, len(pool))) if kind == "several" else 1))
    if kind == "frozen":
        later = [each for each in pool if each.block > ablated[0].block]
        if later:
            return "|".join(map(str, [ablated[0], *_apart(draw.sample(later, min(2, len(later))))]))
    if kind == "inputs" and model.anatomy.supports_wavefront:
        inputs = _inputs(draw, model, ablated[0])
        if inputs:
            return "|".join(map(str, [ablated[0], *inputs]))
    return "+".join(map(str, ablated))


def _apart(parts: Sequence[Component]) -> list[Component]:
    """Leave out the units whose sublayer is among the components."""
    return [part for part in parts if not (part.is_unit and part.sublayer in parts)]


def _inputs(draw: Draw, model: LanguageModel, ablated: Component) -> list[Component]:
    """Draw some inputs of one head of a later block."""
    heads = [
        unit
        for sublayer in model.sublayers
        if sublayer.kind == "attn" and sublayer.block > ablated.block
        for unit in model.units(sublayer)
    ]
    if not heads:
        return []
    head = draw.choice(heads)
    inputs = [Component(head.block, kind, head.unit) for kind in ("query", "key", "value")]
    block: Any = model.blocks[head.block]
    inputs = [each for each in inputs if head_input(block, model.config, each) is not None]
    return draw.sample(inputs, draw.randint(1, min(2, len(inputs))))


def _directions(draw: Draw, model: LanguageModel) -> dict[str, tuple[torch.Tensor, int | None]]:
    found: dict[str, tuple[torch.Tensor, int | None]] = {}
    generator = torch.Generator().manual_seed(draw.getrandbits(32))
    for number in range(draw.randint(0, 2)):
        before = draw.choice((None, draw.randrange(len(model.blocks))))
        found[f"direction {number}"] = (
            torch.randn(model.width, generator=generator, dtype=torch.float64),
            before,
        )
    return found
