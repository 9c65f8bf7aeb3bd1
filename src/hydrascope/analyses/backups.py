"""Search for backups: published scores, each beside the truth that it should predict.

With the heads S ablated, a backup makes up for them. Conditional co-ablation (CoAx, arXiv 2607.01940) looks for what
costs more to ablate once S is gone. The truth is measured by freezing: what a candidate's own reaction brings.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Unpack

import numpy as np
import xarray as xr

from hydrascope.ablations.ablation import Ablation, Zero
from hydrascope.analyses.attribution import atp, atp_star
from hydrascope.analyses.backup_energies import Rows, measure_energies
from hydrascope.analyses.halves import halves
from hydrascope.analyses.joint_ablation import require_affordable
from hydrascope.components.component import Component, Override, is_number
from hydrascope.components.order import downstream
from hydrascope.components.selection import Selection, refuse_terms, select_components, select_overrides
from hydrascope.engines.metrics import ReferenceFunction, reference_metrics
from hydrascope.loading.any_model import takes_any_model
from hydrascope.models.language_model import LanguageModel
from hydrascope.prompts.prompt import AnyPrompts, PromptSet
from hydrascope.runs.config import AnalysisOptions, EstimatorOptions, SweepConfig
from hydrascope.runs.plan import make_plan
from hydrascope.runs.sweep import sweep
from hydrascope.utils.errors import HydrascopeError

_SINGLE, _PAIR = ("readout", "prompt", "candidate"), ("readout", "seed", "prompt", "candidate")
#: The dimensions of energies and metrics, as they are measured.
_DIMS = {
    "single": ("prompt", "candidate"),
    "conditional": ("prompt", "seed", "candidate"),
    "coupling": ("prompt", "seed", "candidate"),
    "metric_single": ("prompt", "metric", "candidate"),
    "metric_conditional": ("prompt", "metric", "seed", "candidate"),
}


@takes_any_model
def backups(
    model: LanguageModel,
    prompts: AnyPrompts,
    ablation: Ablation | None = None,
    *,
    of: Selection = "top.1,top.3",
    candidates: Selection = "heads",
    slopes: bool = True,
    metrics: Sequence[ReferenceFunction] = (),
    seed: int = 0,
    **options: Unpack[AnalysisOptions],
) -> xr.Dataset:
    """Measure which candidates back up a seed set S, by scores and by the truth.

        >>> found = hs.analyses.backups(model, prompts, of="attn.3", candidates="head.3.0,head.4.1,mlp.5")
        >>> found["reaction"].dims
        ('readout', 'seed', 'prompt', 'candidate')

    Args:
        model: the model.
        prompts: as for `sweep`.
        ablation: the ablation of seed sets and candidates, as for `sweep`, both by the same patch; by default `Zero()`.
        of: the seed sets. The components of one are joined by +, as `head.9.6+head.9.9`. `top.3` is the set of the
            three heads that remove most of the first readout in the mean (−direct); they are chosen on one half of the
            prompts, and everything in the result is measured on the other.
        candidates: sublayers, heads or neurons, one by one.
        slopes: whether to estimate effects by gradients, too (AtP, and AtP* in two states).
        metrics: functions f(logits, clean, target, reference) that give a number for each row of `logits`
            [row, vocabulary]. `reference` [vocabulary] are the logits of the run that the rows branch off: the clean
            run, or that with S ablated. Each is a score, too: its mean in the state without S minus that alone.
        seed: the seed that draws the halves.
        options: as for `sweep`.

    Returns:
        means over patches. Energies are variances of a change of all logits under the clean probabilities, in logits²;
        effects are in the readouts' units. For a candidate u, with ℓ the logits and Δ the total effect:

        - `single` [prompt, candidate]: the energy of ℓ − ℓ^u;
        - `conditional` [seed, prompt, candidate]: that of ℓ^S − ℓ^{S∪u}. CoAx is `conditional` − `single`, in means;
        - `coupling` [seed, prompt, candidate]: that of (ℓ^S − ℓ^{S∪u}) − (ℓ − ℓ^u);
        - `metric_single` [metric, prompt, candidate], `metric_conditional` [metric, seed, prompt, candidate]: f of ℓ^u
          with the reference ℓ, and of ℓ^{S∪u} with the reference ℓ^S, if there are `metrics`;
        - `synergy` [readout, seed, prompt, candidate]: −(Δ_{S∪u} − Δ_S − Δ_u);
        - `reaction` [readout, seed, prompt, candidate]: π̂^S − π̂^{S, u frozen}, what the reaction of u to the ablation
          of S brings. Exactly 0 if u isn't downstream;
        - `direct`, `unembed` [readout, prompt, candidate]: as in `sweep`;
        - `removed` [readout, seed, prompt]: −direct of S;
        - `atp` [readout, prompt, candidate]: the estimated total effect; `atp_two_state` [readout, seed, prompt,
          candidate]: the `magnitude` of `atp_star` with S ablated minus that without;
        - the coordinates `downstream` [seed, candidate], whether u is downstream of anything in S, and `block`
          [candidate].

        Values of a candidate that S holds, or that holds a part of S, are NaN where they depend on S.

    Raises:
        HydrascopeError: a seed set, candidate or metric is wrong, there are too few prompts to choose on, or as
            `sweep` and `atp_star`.
    """
    ablation = Zero() if ablation is None else ablation
    units = select_components(model, candidates)
    refuse_terms(units, "a search for backups")
    seeing = reference_metrics(metrics)
    named, chosen_on, ranked = _seed_sets(model, of), 0, list[Component]()
    # Prompts are read several times, which some iterables can't be.
    prompts = prompts if isinstance(prompts, str) else PromptSet.of(prompts)
    if any(isinstance(each, int) for each in named):
        choosing, prompts = halves(model, prompts, seed, "seed sets")
        chosen_on, ranked = len(choosing), _ranked_heads(model, choosing, ablation, options)
    seeds = [Override(tuple(ranked[:each])) if isinstance(each, int) else each for each in named]
    search = Search.of(model, seeds, units)
    overrides = list(search.overrides)
    swept = sweep(model, prompts, ablation, ablate=overrides, read=list(units), keep="effects", **options)
    shared = {name: values for name, values in options.items() if name not in ("batch_size", "progress")}
    plan = make_plan(
        model,
        prompts,
        ablation,
        SweepConfig(ablate=list(search.rows.overrides), keep="effects", **shared),  # type: ignore[arg-type]
    )
    batch, progress = plan.batch(options.get("batch_size", "auto")), options.get("progress", False)
    measured = measure_energies(plan, search.rows, seeing, batch, progress)
    found = _effects(search, swept).assign({name: (_DIMS[name], values) for name, values in measured.items()})
    if seeing:
        found = found.assign_coords(metric=np.array(list(seeing), object))
    if slopes:
        found = found.assign(_estimates(model, prompts, ablation, search, options))
    return found.transpose("readout", ..., *_PAIR[1:]).assign_attrs(chosen_on=chosen_on, halves_seed=seed)


@dataclass(frozen=True)
class Search:
    """The overrides of a search for backups.

    Attributes:
        units: the candidates.
        rows: each candidate ablated alone, each seed set alone, and both.
        frozen: `[seed, candidate]` the seed set ablated and the candidate frozen; None if it isn't downstream.
    """

    units: tuple[Component, ...]
    rows: Rows
    frozen: list[list[Override | None]]

    @classmethod
    def of(cls, model: LanguageModel, seeds: Iterable[Override], units: tuple[Component, ...]) -> "Search":
        """Return the overrides for some seed sets, each once."""
        each = list(dict.fromkeys(seeds))
        joint = [[None if _overlap(s, u) else Override((*s.ablated, u)) for u in units] for s in each]
        frozen = [
            [Override(s.ablated, (u,)) if there else None for u, there in zip(units, reached, strict=True)]
            for s, reached in ((s, downstream(model, s, units)) for s in each)
        ]
        rows = Rows([Override((unit,)) for unit in units], each, joint)
        search = cls(units, rows, frozen)
        require_affordable(len(search.overrides), "name fewer seed sets or candidates")
        return search

    @property
    def overrides(self) -> tuple[Override, ...]:
        """All overrides, each once."""
        frozen = [override for override in chain.from_iterable(self.frozen) if override is not None]
        return tuple(dict.fromkeys((*self.rows.overrides, *frozen)))


def _overlap(seed: Override, unit: Component) -> bool:
    """Whether a candidate is in a seed set, holds a part of it, or is a part of it."""
    holders = {component.sublayer for component in seed.ablated}
    return unit in seed.ablated or unit.sublayer in seed.ablated or unit in holders


def _seed_sets(model: LanguageModel, of: Selection) -> list[Override | int]:
    """Return the seed sets: overrides, or the number of heads of `top.N`.

    Raises:
        HydrascopeError: one is unknown, freezes something, or has more heads than there are.
    """
    items = [of] if isinstance(of, str | Component | Override) else list(of)
    heads = sum(len(model.units(sublayer)) for sublayer in model.sublayers if sublayer.kind == "attn")
    found: list[Override | int] = []
    for item in chain.from_iterable(each.split(",") if isinstance(each, str) else [each] for each in items):
        if isinstance(item, str) and item.strip().partition(".")[0] == "top":
            count = item.strip().partition(".")[2]
            if not is_number(count) or not 1 <= int(count) <= heads:
                raise HydrascopeError(f"{item.strip()} is no seed set: give top.1 to top.{heads}, for as many heads")
            found.append(int(count))
            continue
        for override in select_overrides(model, item):
            if override.frozen:
                raise HydrascopeError(f"{override} freezes {override.frozen[0]}: name only what is ablated")
            refuse_terms(override.ablated, "a search for backups")
            found.append(override)
    if not found:
        raise HydrascopeError("there is no seed set: name heads, as head.9.6+head.9.9, or top.1")
    return found


def _ranked_heads(
    model: LanguageModel, prompts: AnyPrompts, ablation: Ablation, options: AnalysisOptions
) -> list[Component]:
    """Return all heads, those that remove most of the first readout first."""
    found = sweep(model, prompts, ablation, ablate="heads", keep="effects", **options)
    removed = -found["direct"].isel(readout=0).mean(("prompt", "patch"), dtype=np.float64)
    order = np.argsort(-removed.values, kind="stable")
    return [Component.parse(str(found["ablated"].values[place])) for place in order]


def _effects(search: Search, swept: xr.Dataset) -> xr.Dataset:
    """Return the effects on the readouts, from a sweep over all overrides."""
    labels = [str(unit) for unit in search.units]
    means = swept[["total", "direct"]].mean("patch", dtype=np.float64).transpose("readout", "prompt", "ablated")
    row = {str(label): place for place, label in enumerate(swept["ablated"].values)}
    total, direct = means["total"].values, means["direct"].values
    alone, seeds = ([row[str(each)] for each in some] for some in (search.rows.alone, search.rows.seeds))

    def at(overrides: Sequence[Override | None], missing: float) -> np.ndarray:
        """Return the total effects of some overrides, `[readout, prompt, candidate]`."""
        columns = [total[..., row[str(each)]] if each else np.full(total.shape[:2], missing) for each in overrides]
        return np.stack(columns, -1)

    synergy, reaction = [], []
    for place, joint, frozen in zip(seeds, search.rows.joint, search.frozen, strict=True):
        own = total[..., place, None]
        synergy.append(-(at(joint, np.nan) - own - total[..., alone]))
        there = [each is not None for each in frozen]
        apart = [each is not None for each in joint]
        reaction.append(np.where(there, own - at(frozen, 0.0), np.where(apart, 0.0, np.nan)))
    kept = [name for name in ("readout", "readout_before", "text", "target_text") if name in swept.coords]
    return xr.Dataset(
        {
            "synergy": (("seed", *_SINGLE), np.stack(synergy)),
            "reaction": (("seed", *_SINGLE), np.stack(reaction)),
            "direct": (_SINGLE, direct[..., alone]),
            "unembed": (_SINGLE, swept["unembed"].sel(component=labels).transpose(..., "component").values),
            "removed": (("readout", "prompt", "seed"), -direct[..., seeds]),
        },
        {
            **{name: swept[name].variable for name in kept},
            "seed": np.array([str(each) for each in search.rows.seeds], object),
            "candidate": np.array(labels, object),
            "downstream": (("seed", "candidate"), [[each is not None for each in one] for one in search.frozen]),
            "block": ("candidate", [unit.block for unit in search.units]),
        },
        swept.attrs | {"ablate": ",".join(str(each) for each in search.rows.seeds), "read": ",".join(labels)},
    )


def _estimates(
    model: LanguageModel, prompts: AnyPrompts, ablation: Ablation, search: Search, options: AnalysisOptions
) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    """Return `atp` and `atp_two_state`."""
    shared = EstimatorOptions(**{name: each for name, each in options.items() if name != "engine"})  # type: ignore[typeddict-item]
    shared["ablate"] = list(search.units)
    first = atp(model, prompts, ablation, **shared)["estimate"].transpose("readout", "prompt", "ablated").values
    states = [
        atp_star(model, prompts, ablation, state=state, **shared)["magnitude"].transpose("readout", "prompt", "ablated")
        for state in (None, *search.rows.seeds)
    ]
    apart = np.array([[each is not None for each in one] for one in search.rows.joint])[:, None, None]
    rises = np.stack([state.values.astype(np.float64) - states[0].values for state in states[1:]])
    return {"atp": (_SINGLE, first), "atp_two_state": (("seed", *_SINGLE), np.where(apart, rises, np.nan))}
