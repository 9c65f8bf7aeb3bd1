"""The reactions of one model in the contexts of a half, and their agreement."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from studies.damping.halves import Half
from studies.repairers import estimator
from studies.repairers.estimator import Agreement, Draws, Estimate, Transform, Units, agree, as_they_are
from studies.repairers.profiles import KINDS, Profiles, clean_writes, responses
from studies.repairers.runs import Run, units_at
from studies.stored import Numbers, rounded

#: The two kinds that the claim compares.
COMPARED = ("damping", "content")
#: No resamples: the standard error is the jackknife's.
_NONE = np.full(1, np.nan)
#: The largest reactors that are left out in one of the readings.
_LARGEST = 3
#: A mean closer to 0 than so many standard errors has no clear sign.
_CLEAR = 2


@dataclass(frozen=True)
class Measured:
    """The reactions of one model.

    Attributes:
        settings: the study's settings.
        contexts: the contexts.
        profiles: the reactions in each.
        writes: the clean direct effects of the heads in each, `[unit, ablated, head]`.
        raw: the responses of the heads to the whole ablation in each, `[unit, ablated, head]`.
    """

    settings: Mapping[str, Any]
    contexts: tuple[str, ...]
    profiles: tuple[Profiles, ...]
    writes: tuple[np.ndarray, ...]
    raw: tuple[np.ndarray, ...]

    @classmethod
    def read(
        cls,
        settings: Mapping[str, Any],
        stores: Mapping[Run, Path],
        half: Half,
        kind: str = "reactions",
        prompts: int | None = None,
        named: Mapping[str, str] | None = None,
    ) -> "Measured":
        """Read what is stored of one model in the contexts of a half.

        Args:
            settings: the study's settings.
            stores: the path of each run of the model.
            half: the half.
            kind: `reactions`, or with noise on the weights `noise.0` and so on.
            prompts: the number of prompts, from the first on; by default all.
            named: other names of units by their own; those of one name are one unit.
        """
        runs = [run for run in stores if run.kind == kind and run.half == half]
        profiles, writes, raw = [], [], []
        for run in runs:
            stored = json.loads(units_at(stores[run._replace(kind="reactions")]).read_text("utf-8"))[:prompts]
            units = [(named or {}).get(unit, unit) for unit in stored]
            each = Profiles.read(stores[run], units)
            profiles.append(each)
            heads, inside = each.heads, ~np.isnan(each.of("full", "head")[:1])
            others = stores[run._replace(kind="responses")]
            writes.append(np.where(inside, clean_writes(others, units, heads)[:, None], np.nan))
            raw.append(np.where(inside, responses(others, units, heads), np.nan))
        return cls(settings, tuple(run.context for run in runs), tuple(profiles), tuple(writes), tuple(raw))

    @cached_property
    def draws(self) -> Draws:
        """Weights of units and contexts."""
        intervals = self.settings["intervals"]
        counts = [len(each.removed) for each in self.profiles]
        return Draws.of(counts, intervals["halvings"], intervals["resamples"], intervals["seed"])

    @cached_property
    def signs(self) -> np.ndarray:
        """The sign of what is removed in the mean, `[context, ablated]`."""
        return np.sign([each.removed.mean(0) for each in self.profiles])

    @property
    def clear(self) -> np.ndarray:
        """Whether the sign of what is removed is clear, `[ablated, context]`."""
        every = [each.removed for each in self.profiles]
        errors = np.array([each.std(0, ddof=1) / np.sqrt(len(each)) for each in every])
        return (abs(np.array([each.mean(0) for each in every])) > _CLEAR * errors).T

    def units(self, kind: str, reactors: str = "head") -> list[np.ndarray]:
        """Return reactions of heads, or of MLPs, with the sign of what is removed: above 0 they give back."""
        return [each.of(kind, reactors) * sign[:, None] for each, sign in zip(self.profiles, self.signs, strict=True)]

    def agree(self, units: Units, transform: Transform = as_they_are) -> Agreement:
        """Return the agreement of contexts on these units."""
        return agree(units, self.draws, self.settings["least_reliability"], transform)

    def bounds(self, estimate: Estimate, cells: np.ndarray) -> list[float | None]:
        """Return the bounds of a number over the contexts of these cells; their degrees of freedom follow from them."""
        contexts = contexts_in(cells)
        if contexts < 3:
            return [rounded(estimate.value), None, None]
        return [rounded(each) for each in estimate.bounds(contexts, self.settings["intervals"]["confidence"])]

    def mean(self, agreement: Agreement, cells: np.ndarray | None = None) -> list[float | None]:
        """Return the mean agreement over ablations and pairs of contexts, with bounds."""
        cells = agreement.cells if cells is None else cells
        return self.bounds(Estimate.of(agreement, self.draws, cells), cells)

    def compare(self, damping: Agreement, content: Agreement) -> Numbers:
        """Return both means, each over its own cells, and their difference over those that both have."""
        both = damping.cells & content.cells
        difference = Estimate.of(damping, self.draws, both) - Estimate.of(content, self.draws, both)
        return {
            "damping": self.mean(damping),
            "content": self.mean(content),
            "difference": self.bounds(difference, both),
            "difference_contexts": contexts_in(both),
            "jackknife": {
                "damping": self.bounds(replace(Estimate.of(damping, self.draws), resampled=_NONE), damping.cells),
                "difference": self.bounds(replace(difference, resampled=_NONE), both),
            },
        }

    def of(self, contexts: Sequence[str]) -> "Measured":
        """Return the same with some of the contexts."""
        places = [self.contexts.index(context) for context in contexts]
        parts = (tuple(each[place] for place in places) for each in (self.profiles, self.writes, self.raw))
        return Measured(self.settings, tuple(contexts), *parts)

    def both(self) -> Numbers:
        """Return the agreement for damping and for content, and the difference."""
        return self.compare(*(self.agree(self.units(kind)) for kind in COMPARED))

    def by_removed(self) -> Numbers:
        """Return the same of the slope of reactions on what is removed, over the units of a context.

        It needs no sign: a head that gives back half of all that is removed does so where less than nothing is.
        """
        units = [[each.of(kind, "head") * each.removed[..., None] for each in self.profiles] for kind in COMPARED]
        return self.compare(*map(self.agree, units))

    def correlation(self, other: "Measured", kind: str) -> float | None:
        """Return the mean correlation of each profile with that of the same context elsewhere, uncorrected."""
        pairs = zip(self.profiles, other.profiles, strict=True)
        means = [np.stack([each.of(kind, "head").mean(0) for each in pair]) for pair in pairs]
        return rounded(np.mean([estimator.correlations(*each) for each in means]))

    def agreements(self) -> Numbers:
        """Return the agreement of contexts by kind of reaction, and the matrices of the figure."""
        found = {kind: self.agree(self.units(kind)) for kind in KINDS}
        damping, content = (found[kind] for kind in COMPARED)
        count = len(self.contexts)
        numbers: Numbers = {"contexts": list(self.contexts), **self.compare(damping, content)}
        numbers["full"] = self.mean(found["full"])
        numbers["kinds"] = {
            kind: {
                "raw": rounded(estimator.mean_over(each.raw, each.cells, np.ones(count))),
                "reliability": rounded(each.reliability[each.kept].mean()) if each.kept.any() else None,
                "profiles": int(each.kept.sum()),
                "pairs": int(each.cells.sum()),
                "left_out": self._left_out(each),
                "errors": [rounded(error) for error in Estimate.of(each, self.draws).errors()],
                "by_ablated": [
                    rounded(estimator.mean_over(each.disattenuated[[k]], each.cells[[k]], np.ones(count)))
                    for k in range(len(each.kept))
                ],
            }
            for kind, each in found.items()
        }
        numbers["matrix"] = {kind: _matrix(found[kind]) for kind in COMPARED}
        return numbers

    def _left_out(self, agreement: Agreement) -> dict[str, list[str]]:
        """Return the contexts whose profiles are too noisy, by ablated sublayer."""
        return {
            label: [context for context, kept in zip(self.contexts, row, strict=True) if not kept]
            for label, row in zip(self.profiles[0].ablated, agreement.kept, strict=True)
        }

    def readings(self) -> Numbers:
        """Return the same numbers by other readings and for other profiles."""
        damping, content = (self.units(kind) for kind in COMPARED)
        lines = [estimator.beyond_line(units, self.writes) for units in (damping, content)]

        def both(change: Any, transform: Transform = as_they_are) -> Numbers:
            return self.compare(*(self.agree(change(units), transform) for units in (damping, content)))

        pooled = [Estimate.pooled(self.agree(units)) for units in (damping, content)]
        every = np.ones((1, len(self.contexts), len(self.contexts)), bool)
        as_is = [[each.of(kind, "head") for each in self.profiles] for kind in COMPARED]
        unsigned = [self.agree(units) for units in as_is]
        signed = [self.agree(units) for units in (damping, content)]
        writes, whole = self.agree(self.writes), self.agree(self.units("full"))
        shared = writes.cells & whole.cells
        more = Estimate.of(writes, self.draws, shared) - Estimate.of(whole, self.draws, shared)
        return {
            "unsigned": self.compare(*unsigned),
            "content_unsigned": self.compare(self.agree(damping), unsigned[1]),
            "clear_signs": self.compare(*(replace(each, kept=each.kept & self.clear) for each in signed)),
            "by_removed": self.by_removed(),
            "relations": self.of([each for each in self.contexts if each not in self.settings["prompts"]]).both(),
            "spearman": both(list, estimator.ranks),
            "without_largest": both(lambda units: estimator.without_largest(units, _LARGEST)),
            "pooled": {
                **{kind: self.bounds(each, every) for kind, each in zip(COMPARED, pooled, strict=True)},
                "difference": self.bounds(pooled[0] - pooled[1], every),
            },
            "beyond_line": self.compare(*(self.agree(left) for left, _, _ in lines)),
            "beyond_ablations": both(estimator.beyond_ablations),
            "beyond_ablations_unsigned": self.compare(
                *(self.agree(estimator.beyond_ablations(units)) for units in as_is)
            ),
            "mlps": self.compare(*(self.agree(self.units(kind, "mlp")) for kind in COMPARED)),
            "lines": {
                kind: {"slope": rounded(np.median(slopes)), "correlation": rounded(np.median(correlations))}
                for kind, (_, slopes, correlations) in zip(COMPARED, lines, strict=True)
            },
            "writes": self.mean(writes),
            "writes_more": self.bounds(more, shared),
            "responses": self.mean(self.agree(self._signed(self.raw))),
            "other_ablations": self._other_ablations((damping, content)),
            "other_ablations_unsigned": self._other_ablations(as_is),
            "sizes": {
                reactors: {kind: self._size(kind, reactors) for kind in COMPARED} for reactors in ("head", "mlp")
            },
        }

    def _size(self, kind: str, reactors: str) -> float | None:
        """Return how much all reactors react, Σ |mean reaction|, relative to Σ |mean removed|."""
        reacted = sum(np.nansum(abs(each.of(kind, reactors).mean(0))) for each in self.profiles)
        return rounded(reacted / sum(abs(each.removed.mean(0)).sum() for each in self.profiles))

    def _signed(self, units: Units) -> list[np.ndarray]:
        return [each * sign[:, None] for each, sign in zip(units, self.signs, strict=True)]

    def _other_ablations(self, compared: Sequence[Units]) -> Numbers:
        """Return the agreement of different ablations in one context, and how much more contexts agree on one.

        Args:
            compared: the units of each compared kind.
        """
        found: Numbers = {}
        for kind, units in zip(COMPARED, compared, strict=True):
            agreement = self.agree(units)
            apart = estimator.between_ablations(units, self.draws, agreement.kept)
            inside = np.isfinite(apart)
            without = np.array([_mean(np.delete(apart, place)) for place in range(len(apart))])
            other = Estimate(_mean(apart), without, _NONE)
            same = Estimate.of(agreement, self.draws)
            # Only the jackknife has both at once.
            more = Estimate(same.value - other.value, same.without - other.without, _NONE)
            cells = np.ones((1, int(inside.sum()), int(inside.sum())), bool)
            found[kind] = {"agreement": self.bounds(other, cells), "same_more": self.bounds(more, cells)}
        return found

    def apart(self) -> Numbers:
        """Return the heads that surely react otherwise in a context, and those that surely give back in many."""
        intervals, most = self.settings["intervals"], self.settings["generalist"]
        how = {"resamples": intervals["resamples"], "confidence": intervals["confidence"], "seed": intervals["seed"]}
        ablated, heads = self.profiles[0].ablated, self.profiles[0].heads
        found: Numbers = {}
        for kind in ("full", "damping"):
            units = self.units(kind)
            own = estimator.apart(units)
            special = np.array(estimator.surely(own, **how))
            size = np.stack([np.nan_to_num(each.mean(0)) for each in own])
            order = np.argsort(-abs(size * (special != 0)), axis=None)[: int((special != 0).sum())]
            gives = (np.array(estimator.surely(units, **how)) > 0).sum(0)
            means = np.nan_to_num(np.mean([each.mean(0) for each in units], 0))
            many = sorted(zip(*np.nonzero(gives >= most), strict=True), key=lambda place: -means[place])
            found[kind] = {
                "pairs": int(sum(np.isfinite(each[0]).sum() for each in units)),
                "specialists": len(order),
                "by_context": {
                    context: int((row != 0).sum()) for context, row in zip(self.contexts, special, strict=True)
                },
                "largest": [
                    [ablated[k], heads[d], self.contexts[c], rounded(size[c, k, d])]
                    for c, k, d in (np.unravel_index(place, size.shape) for place in order[:6])
                ],
                "generalists": [[ablated[k], heads[d], int(gives[k, d]), rounded(means[k, d])] for k, d in many],
            }
        return found

    def removed(self) -> dict[str, Any]:
        """Return what each ablation removes: the mean over contexts, and in how many it is below 0, or unclear."""
        means = np.array([each.removed.mean(0) for each in self.profiles])
        return {
            label: {"mean": rounded(column.mean()), "below": int((column < 0).sum()), "unclear": int((~clear).sum())}
            for label, column, clear in zip(self.profiles[0].ablated, means.T, self.clear, strict=True)
        }


def _mean(values: np.ndarray) -> float:
    """Return the mean of the numbers that there are; NaN of none."""
    found = values[np.isfinite(values)]
    return float(found.mean()) if len(found) else float("nan")


def contexts_in(cells: np.ndarray) -> int:
    """Return the number of contexts in any cell of `[ablated, context, context]`."""
    return int((cells.any((0, 1)) | cells.any((0, 2))).sum())


def _matrix(agreement: Agreement) -> list[list[float | None]]:
    """Return the agreement of contexts, mean over ablations; on the diagonal the mean reliability of a profile."""
    both = agreement.kept[:, :, None] & agreement.kept[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.where(both, agreement.disattenuated, 0).sum(0) / both.sum(0)
    np.fill_diagonal(found, agreement.reliability.mean(0))
    return [[rounded(each) for each in row] for row in found]
