"""Compute the numbers of a sweep from plain passes, as docs/quantities.md defines them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

import hydrascope as hs
from fuzz.experiments import Experiment, OwnValue
from fuzz.head_inputs import head_input
from fuzz.oracle import Norm, Oracle, Pass, Writes, site_of
from hydrascope.components.component import Component, Override


@dataclass(frozen=True)
class Readout:
    """One readout of one prompt, by its definition.

    Attributes:
        vector: `[width]` the factor of the final norm's output, or of the stream before block `before`.
        tokens: for a logit, the token whose logit it is, and the one whose logit is subtracted; without a second, the
            mean of all logits is.
    """

    label: str
    vector: Tensor
    before: int | None = None
    tokens: tuple[int, ...] = ()


class Expected:
    """The numbers of an experiment.

    Attributes:
        clean: the pass of each prompt.
        sources: `[prompt, patch]` the prompt that each patch comes from.
        targets: each prompt's target token.
    """

    def __init__(self, oracle: Oracle, experiment: Experiment, sources: np.ndarray) -> None:
        self.oracle, self.experiment, self.sources = oracle, experiment, sources
        self.tokens = [list(prompt.tokens or ()) for prompt in experiment.prompts]
        self.positions = [_positions(experiment.at, len(tokens)) for tokens in self.tokens]
        self.clean = [oracle.run(tokens) for tokens in self.tokens]
        self.twins: dict[int, Pass] = {}
        self.norm = Norm(oracle.names.final_norm, oracle.names.width)
        labels = [*map(str, oracle.names.sublayers), *experiment.read]
        self.components = [Component.parse(label) for label in labels]
        self._units: dict[str, list[Component]] = {}
        for unit in self.components:
            if unit.is_unit:
                self._units.setdefault(site_of(unit), []).append(unit)
        self._norms_after = {site: oracle.norm_after(site) for site in self._units}

    @cached_property
    def targets(self) -> list[int]:
        wanted = self.experiment.target
        if isinstance(wanted, int):
            return [wanted] * len(self.tokens)
        if wanted == "answer":
            return [_answer(prompt)[0] for prompt in self.experiment.prompts]
        return [int(clean.logits[-1].argmax()) for clean in self.clean]

    def readouts(self, prompt: int) -> list[Readout]:
        """Return the readouts of a prompt, in the order of the result."""
        given = self.experiment.prompts[prompt]
        known = {"target": self.targets[prompt]}
        if given.answer is not None:
            assert isinstance(given.foil, int)
            known |= {"answer": _answer(given)[0], "foil": given.foil}
        tokens = {
            ("logit" if token == "target" else f"logit.{token}"): (known.get(str(token), token),)
            for token in self.experiment.logits
            if token != "difference"
        }
        if "difference" in self.experiment.logits:
            tokens["difference"] = (known["answer"], known["foil"])
        found = [Readout(label, self._vector(each), None, each) for label, each in tokens.items()]
        return found + [Readout(name, vector, block) for name, (vector, block) in self.experiment.directions.items()]

    def _vector(self, tokens: tuple[int, ...]) -> Tensor:
        """Return the direction `[width]` of a token's logit, less that of the second or of the mean."""
        weight = self.oracle.names.unembedding.weight.detach()
        less = weight.mean(0) if len(tokens) == 1 else weight[tokens[1]]
        vector: Tensor = (weight[tokens[0]] - less) * self.oracle.multiplier
        return vector

    def patch(self, label: str, prompt: int, patch: int) -> Tensor:
        """Return the patch `[slot, columns]` of a component, a row for each ablated position."""
        positions, ablation = self.positions[prompt], self.experiment.ablation
        own = self.oracle.value(self.clean[prompt], label)[positions]
        # Other prompts are read at the same distances from the end.
        back = [len(self.tokens[prompt]) - position for position in positions]
        if isinstance(ablation, hs.Zero):
            return torch.zeros_like(own)
        if isinstance(ablation, OwnValue):
            return own
        if isinstance(ablation, hs.Counterfactual):
            return self.oracle.value(self._twin(prompt), label)[[-offset for offset in back]]
        if isinstance(ablation, hs.Resample):
            source = int(self.sources[prompt, patch])
            return self.oracle.value(self.clean[source], label)[[-offset for offset in back]]
        assert isinstance(ablation, hs.Mean)
        ablated = [{len(ids) - each for each in at} for ids, at in zip(self.tokens, self.positions, strict=True)]
        every = set().union(*ablated)
        assert set(back) <= every
        means = []
        for offset in back:
            longer = [run for run, ids in zip(self.clean, self.tokens, strict=True) if len(ids) >= offset]
            means.append(torch.stack([self.oracle.value(run, label)[-offset] for run in longer]).mean(0))
        return torch.stack(means)

    def _twin(self, prompt: int) -> Pass:
        if prompt not in self.twins:
            twin = self.experiment.prompts[prompt].counterfactual
            assert isinstance(twin, tuple)
            self.twins[prompt] = self.oracle.run(list(twin))
        return self.twins[prompt]

    def ablated(self, override: Override, prompt: int, patch: int, answer: Sequence[int] = ()) -> Pass:
        """Run an override on a prompt, or on the prompt continued by its answer."""
        tokens = [*self.tokens[prompt], *answer[:-1]]
        clean = self.clean[prompt] if len(answer) < 2 else self.oracle.run(tokens)
        writes: dict[str, tuple[Sequence[int], Tensor]] = {
            str(part): (self.positions[prompt], self.patch(str(part), prompt, patch)) for part in override.ablated
        }
        inputs = [part for part in override.frozen if part.is_input]
        for part in override.frozen:
            if not part.is_input:
                writes[str(part)] = (range(len(tokens)), self.oracle.value(clean, str(part)))
        if inputs:
            head = Component(inputs[0].block, "head", inputs[0].unit)
            writes[str(head)] = (range(len(tokens)), self._by_inputs(tokens, writes, head, inputs))
        return self.oracle.run(tokens, writes)

    def _by_inputs(self, tokens: list[int], writes: Writes, head: Component, inputs: Sequence[Component]) -> Tensor:
        """Return a head's activation with some of its inputs clean and the others ablated.

        It takes a pass of its own: where heads share keys, one frozen key changes other heads too.
        """
        places = []
        for part in inputs:
            found = head_input(self.oracle.names.blocks[head.block], self.oracle.config, part)
            assert found is not None
            places.append(found)
        clean = self.oracle.run(tokens, watched=[module for module, _ in places])
        frozen = [(module, columns, clean.values[module][:, columns]) for module, columns in places]
        return self.oracle.value(self.oracle.run(tokens, writes, frozen), str(head))

    def delta(self, override: Override, prompt: int, patch: int) -> dict[int, Tensor]:
        """Return each ablated sublayer's change of its own output, at the last position, by number."""
        found: dict[int, Tensor] = {}
        last = len(self.tokens[prompt]) - 1
        if last not in self.positions[prompt]:
            return found
        for number, sublayer in enumerate(self.oracle.names.sublayers):
            parts = [part for part in override.ablated if part.sublayer == sublayer]
            if parts:
                writes = {str(part): ([last], self.patch(str(part), prompt, patch)[-1:]) for part in parts}
                after = self.oracle.run(self.tokens[prompt], writes).values[str(sublayer)][-1]
                found[number] = (after - self.clean[prompt].values[str(sublayer)][-1]) * self.oracle.residual
        return found

    def whole(self, readout: Readout, run: Pass) -> float:
        """Return a readout's π̂ of a pass."""
        if readout.tokens:
            plus, *minus = readout.tokens
            logits = run.logits[-1]
            return float(logits[plus] - (logits[minus[0]] if minus else logits.mean()))
        return self.stream(readout, run.final[-1] if readout.before is None else run.streams[readout.before])

    @torch.no_grad()
    def stream(self, readout: Readout, residual: Tensor) -> float:
        """Return a readout's π̂ of a residual stream, with the scale of that stream."""
        if readout.before is not None:
            return float(residual @ readout.vector)
        if readout.tokens:
            plus, *minus = readout.tokens
            logits = self.oracle.logits_of(residual)
            return float(logits[plus] - (logits[minus[0]] if minus else logits.mean()))
        return float(self.oracle.names.final_norm(residual) @ readout.vector)

    def added(self, run: Pass) -> Tensor:
        """Return each component's term `[component, width]` of the residual stream at the end."""
        found = {each: run.values[str(each)][-1] * self.oracle.residual for each in self.oracle.names.sublayers}
        for site, units in self._units.items():
            written = self.oracle.written(site, units, run.values[site][-1], self._norms_after[site])
            found |= dict(zip(units, written, strict=True))
        return torch.stack([found[component] for component in self.components])

    def shares(self, readout: Readout, added: Tensor, scale: Tensor) -> Tensor:
        """Return the shares `[component]` of terms `[component, width]` in a readout at a scale.

        A component above the block of the readout has none.
        """
        if readout.before is None:
            return self.norm.linear(added, scale) @ readout.vector
        below = torch.tensor([component.block < readout.before for component in self.components])
        return added @ readout.vector * below

    def embed(self, readout: Readout, run: Pass, scale: Tensor) -> float:
        """Return the share of the embedding in a readout."""
        stream = run.streams[0]
        return float((stream if readout.before is not None else self.norm.linear(stream, scale)) @ readout.vector)


def _positions(at: str | int | list[int], length: int) -> list[int]:
    if at == "all":
        return list(range(length))
    given = [-1] if at == "last" else [at] if isinstance(at, int) else at
    return sorted({int(each) % length for each in given})


def _answer(prompt: hs.Prompt) -> tuple[int, ...]:
    assert isinstance(prompt.answer, tuple)
    return prompt.answer


def metric(name: str, logits: Tensor, clean: Tensor, target: int) -> float:
    """Return a metric of the logits, soft-cap included, as docs/quantities.md defines it."""
    log_p, log_clean = logits.log_softmax(-1), clean.log_softmax(-1)
    change = logits - clean
    mean = (log_clean.exp() * change).sum()
    return {
        "log_prob": lambda: float(log_p[target]),
        "prob": lambda: float(log_p[target].exp()),
        "rank": lambda: float((logits > logits[target]).sum()),
        "kl": lambda: float((log_clean.exp() * (log_clean - log_p)).sum()),
        "fisher": lambda: float((log_clean.exp() * (change - mean) ** 2).sum()),
        "top": lambda: float(logits.argmax()),
    }[name]()
