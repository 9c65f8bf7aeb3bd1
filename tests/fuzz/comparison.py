"""Compare the numbers of a sweep with the expected ones."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr

import hydrascope as hs
from fuzz.expected import Expected, Readout, metric
from fuzz.oracle import Pass
from hydrascope.components.component import Override

#: The largest error of a number, as a share of the largest number of its readout. Random models amplify rounding more
#: than trained ones: in float32, only gross errors show, of the kernels that float64 lacks.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 5e-3}
EFFECTS = ("total", "direct", "indirect")


@dataclass(frozen=True)
class Difference:
    """The difference of a number from the expected one.

    Attributes:
        what: the variable and the coordinates of the number.
        error: the difference as a share of the size of its readout.
    """

    what: str
    found: float
    expected: float
    error: float

    def __str__(self) -> str:
        return f"{self.what}: {self.found:.10g}, must be {self.expected:.10g} (off by {self.error:.1e} of its size)"


@dataclass(frozen=True)
class Numbers:
    """The expected variables of a result, each with the size that its errors are shares of.

    An expected number that isn't compared is NaN.
    """

    expected: dict[str, np.ndarray]
    sizes: dict[str, np.ndarray]

    def worst(self, results: xr.Dataset) -> Difference:
        """Return the number of a result that is furthest from the expected one."""
        return max((self._worst_of(results[name]) for name in self.expected), key=lambda each: each.error)

    def _worst_of(self, found: xr.DataArray) -> Difference:
        name, values = str(found.name), found.values
        must, size = self.expected[name], self.sizes[name]
        assert values.shape == must.shape, (name, values.shape, must.shape)
        error = np.abs(values - must) / np.where(size > 0, size, 1)
        # A NaN of the result is as wrong as can be.
        error = np.where(np.isnan(must), 0, np.where(np.isnan(values), np.inf, error))
        if not error.size:
            return Difference(name, 0.0, 0.0, 0.0)
        place = np.unravel_index(int(error.argmax()), error.shape)
        where = ", ".join(
            f"{dim} {found[dim].values[at] if dim in found.coords else at}"
            for dim, at in zip(found.dims, place, strict=True)
        )
        return Difference(f"{name} of {where}", float(values[place]), float(must[place]), float(error[place]))


def numbers(expected: Expected, overrides: Sequence[Override], patches: int) -> Numbers:
    """Compute every number that a sweep must give.

    Args:
        patches: the number of patches of each ablated component.
    """
    prompts = [_of_prompt(expected, prompt, overrides, patches) for prompt in range(len(expected.tokens))]
    # The axis of prompts: after that of readouts or metrics, else the first.
    axes = {"scale": 0, "target": 0, "patch_prompt": 0}
    names = list(prompts[0][0])
    return Numbers(
        *({name: np.stack([each[i][name] for each in prompts], axes.get(name, 1)) for name in names} for i in (0, 1))
    )


def _of_prompt(
    expected: Expected, prompt: int, overrides: Sequence[Override], patches: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the numbers of one prompt, without that dimension, and their sizes."""
    clean = expected.clean[prompt]
    runs = [[expected.ablated(override, prompt, patch) for patch in range(patches)] for override in overrides]
    deltas = [[expected.delta(override, prompt, patch) for patch in range(patches)] for override in overrides]
    added = [[expected.added(run) for run in row] for row in runs]
    own, sigma = expected.added(clean), expected.norm.scale(clean.final[-1])
    scale = np.array([[float(sigma / expected.norm.scale(run.final[-1])) for run in row] for row in runs])
    # Where a sublayer's output is replaced, the terms of its heads mean nothing.
    idle = np.array([[c.is_unit and c.sublayer in o.overridden for c in expected.components] for o in overrides])
    each: dict[str, list[np.ndarray]] = {}
    sizes: list[float] = []
    for readout in expected.readouts(prompt):
        parts = expected.shares(readout, own, sigma).numpy()
        by_patch = np.array([[expected.shares(readout, a, sigma).numpy() for a in row] for row in added])
        embed, before = expected.embed(readout, clean, sigma), expected.whole(readout, clean)
        sizes.append(max(np.abs(by_patch).max(), np.abs(parts).max(), abs(embed), abs(before), 1e-3))
        by_patch[np.broadcast_to(idle[:, None], by_patch.shape)] = np.nan
        rescaled = by_patch if readout.before is not None else by_patch * scale[..., None]
        effects = np.array(
            [
                [_effects(expected, readout, clean, run, delta) for run, delta in zip(row, shifts, strict=True)]
                for row, shifts in zip(runs, deltas, strict=True)
            ]
        )
        found = {
            "logit": np.array(before),
            "embed": np.array(embed),
            "unembed": parts,
            "unembed_ablated_by_patch": by_patch,
            "unembed_ablated": by_patch.mean(1),
            "unembed_ablated_own": rescaled.mean(1),
            **{name: effects[..., place] for place, name in enumerate(EFFECTS)},
        }
        for name, value in found.items():
            each.setdefault(name, []).append(value)
    must = {name: np.stack(values) for name, values in each.items()}
    size = {name: np.array(sizes).reshape(-1, *[1] * (values.ndim - 1)) for name, values in must.items()}
    must |= {"scale": scale, "target": np.array(expected.targets[prompt])}
    size |= {"scale": scale, "target": np.array(0.0)}
    must["patch_prompt"] = _sources(expected, prompt)
    size["patch_prompt"] = np.zeros(patches)
    if expected.experiment.metrics:
        of_metrics = _metrics(expected, prompt, overrides, runs)
        must |= of_metrics
        size |= {name: np.maximum(np.abs(values), 1.0) for name, values in of_metrics.items()}
    return must, size


def _effects(
    expected: Expected, readout: Readout, clean: Pass, run: Pass, delta: dict[int, torch.Tensor]
) -> list[float]:
    """Return `total`, `direct` and `indirect` of a readout."""
    inner = readout.before is not None
    z, after = (each.streams[readout.before] if inner else each.final[-1] for each in (clean, run))
    below = [change for sublayer, change in delta.items() if not inner or sublayer < 2 * readout.before]
    shift = torch.stack(below).sum(0) if below else torch.zeros_like(z)
    before = expected.stream(readout, z)
    return [
        expected.whole(readout, run) - expected.whole(readout, clean),
        expected.stream(readout, z + shift) - before,
        expected.stream(readout, after - shift) - before,
    ]


def _sources(expected: Expected, prompt: int) -> np.ndarray:
    """Return the prompts that patches come from: NaN where none is, −2 where they are wrong."""
    row = expected.sources[prompt]
    if not isinstance(expected.experiment.ablation, hs.Resample):
        return np.full(len(row), np.nan)
    valid = len(set(row.tolist())) == len(row) and prompt not in row and min(row) >= 0
    return row.astype(float) if valid else np.full(len(row), -2.0)


def _metrics(
    expected: Expected, prompt: int, overrides: Sequence[Override], runs: list[list[Pass]]
) -> dict[str, np.ndarray]:
    """Return the metrics `[metric]` of the clean pass and `[metric, ablated, patch]`."""
    clean, target = expected.clean[prompt], expected.targets[prompt]
    answer = expected.experiment.prompts[prompt].answer
    before, after = [], []
    for name in expected.experiment.metrics:
        if name != "answer_log_prob":
            before.append(metric(name, clean.capped[-1], clean.capped[-1], target))
            after.append([[metric(name, run.capped[-1], clean.capped[-1], target) for run in row] for row in runs])
            continue
        assert isinstance(answer, tuple)
        several = len(answer) > 1
        continued = [*expected.tokens[prompt], *answer[:-1]]
        before.append(_answer_log_prob(expected.oracle.run(continued), answer))
        after.append(
            [
                [
                    _answer_log_prob(expected.ablated(override, prompt, patch, answer) if several else run, answer)
                    for patch, run in enumerate(row)
                ]
                for override, row in zip(overrides, runs, strict=True)
            ]
        )
    return {"metric_clean": np.array(before), "metric_ablated": np.array(after)}


def _answer_log_prob(run: Pass, answer: Sequence[int]) -> float:
    rows = run.capped[-len(answer) :].log_softmax(-1)
    return float(sum(row[token] for row, token in zip(rows, answer, strict=True)))
