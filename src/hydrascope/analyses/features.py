"""Measure how much of a repair features carry, and which of them respond most.

Features are chosen on one half of the prompts and measured on the other, so that their responses are no luck of the
draw. The shares need no choice; they are measured on the second half, too.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Unpack

import numpy as np
import torch
import xarray as xr

from hydrascope.ablations.ablation import Ablation
from hydrascope.analyses.halves import halves
from hydrascope.components.component import Component, Override
from hydrascope.components.order import follows
from hydrascope.components.selection import Selection, select_overrides
from hydrascope.engines.feature_sums import FeatureSums
from hydrascope.loading.any_model import takes_any_model
from hydrascope.models.language_model import LanguageModel
from hydrascope.prompts.prompt import AnyPrompts
from hydrascope.runs.batches import batches, compute_clean_activations, measure_batch, prepare_batch
from hydrascope.runs.config import AnalysisOptions, SweepConfig
from hydrascope.runs.parts import stretches
from hydrascope.runs.plan import Plan, make_plan
from hydrascope.runs.sweep import sweep, tell
from hydrascope.storage.reader import split_range
from hydrascope.utils.errors import HydrascopeError
from hydrascope.utils.progress import show_progress

#: The parts of a sublayer that a response is divided into, after the sublayer itself.
PARTS = ("sublayer", "features", "error", "bias")


@takes_any_model
def feature_sums(
    model: LanguageModel,
    prompts: AnyPrompts,
    ablation: Ablation | None = None,
    *,
    ablate: Selection = "attn",
    site: str | None = None,
    **options: Unpack[AnalysisOptions],
) -> xr.Dataset:
    """Return the mean response of every feature of a dictionary to every ablation.

        >>> found = hs.analyses.feature_sums(model, prompts, hs.Zero(), ablate="attn", site="mlp.5")  # doctest: +SKIP
        >>> found["response"].dims                                                             # doctest: +SKIP
        ('readout', 'ablated', 'feature')

    All features are read in every row and added up over prompts; none is kept prompt by prompt.

    Args:
        model: the model, with a dictionary.
        prompts: as for `sweep`.
        ablation: as for `sweep`.
        ablate: the ablations, one by one or several components at once.
        site: the dictionary's site; it may be left out if the model has one dictionary.
        options: as for `sweep`.

    Returns:
        means over prompts, in the readouts' units: `unembed` [readout, feature] the contribution in the clean pass;
        `response` [readout, ablated, feature] its change by the ablation, averaged over patches; `absolute`, of the
        absolute response; `spread`, the standard deviation of the response over prompts.

    Raises:
        HydrascopeError: the model has no such dictionary, or as `sweep`.
    """
    whole = _dictionary(model, site)
    plan = _plan_of_sums(model, prompts, ablation, ablate, options)
    tell([*plan.notices, *plan.dictionary_notices], None)
    return _sums(plan, whole, options)


def _plan_of_sums(
    model: LanguageModel,
    prompts: AnyPrompts,
    ablation: Ablation | None,
    ablate: Selection,
    options: AnalysisOptions,
) -> Plan:
    chosen = {name: value for name, value in options.items() if name not in ("batch_size", "progress")}
    return make_plan(model, prompts, ablation, SweepConfig(ablate=ablate, **chosen))  # type: ignore[arg-type]


def _sums(plan: Plan, whole: Component, options: AnalysisOptions) -> xr.Dataset:
    """Return the dataset of `feature_sums`."""
    batch, progress = plan.batch(options.get("batch_size", "auto")), options.get("progress", False)
    chunks = split_range(len(plan.tokens), batch.prompts * 4)
    clean = compute_clean_activations(plan, batch, chunks)
    found: list[list[FeatureSums]] = []
    with show_progress(len(plan.tokens), 0, progress) as advance, torch.no_grad():
        for indices in (each for chunk in chunks for each in batches(plan, chunk, batch.prompts)):
            prepared = prepare_batch(plan, clean, indices, (whole,))
            runs = list(stretches(plan.overrides, batch.overrides))
            found.append([measure_batch(plan, clean, prepared, some, (whole,))[2].sums[whole] for some in runs])
            advance(len(indices))
    count = len(plan.tokens)
    unembed = np.sum([_numpy(sums[0].clean) for sums in found], 0) / count

    def mean(name: str) -> np.ndarray:
        by_batch = [np.concatenate([_numpy(getattr(each, name)) for each in sums], 1) for sums in found]
        return np.asarray(np.sum(by_batch, 0) / count)

    response, square = mean("response"), mean("square")
    dims = ("readout", "ablated", "feature")
    spread = np.sqrt(np.maximum(square - response**2, 0) * count / max(count - 1, 1))
    return xr.Dataset(
        {
            "unembed": (("readout", "feature"), unembed),
            "response": (dims, response),
            "absolute": (dims, mean("absolute")),
            "spread": (dims, spread),
        },
        {
            "readout": _texts(plan.labels),
            "ablated": _texts(map(str, plan.overrides)),
            "feature": _texts(str(replace(whole, unit=unit)) for unit in range(unembed.shape[-1])),
        },
        {"model": plan.model.name, "prompt_count": count, "site": f"{whole.place}.{whole.block}"},
    )


@takes_any_model
def features(
    model: LanguageModel,
    prompts: AnyPrompts,
    ablation: Ablation | None = None,
    *,
    ablate: Selection = "attn",
    site: str | None = None,
    top: int = 10,
    seed: int = 0,
    **options: Unpack[AnalysisOptions],
) -> xr.Dataset:
    """Measure how features, error and bias share a sublayer's response and its repair.

        >>> found = hs.analyses.features(model, prompts, hs.Zero(), ablate="attn.3", site="mlp.5")    # doctest: +SKIP
        >>> hs.measures.feature_shares(found)["response_share"]                                # doctest: +SKIP

    Half of the prompts, drawn by `seed`, chooses the `top` features by their mean absolute response, over all
    ablations. Everything in the result is measured on the other half.

    Args:
        model: the model, with a dictionary of a sublayer.
        prompts: as for `sweep`, at least two.
        ablation: as for `sweep`.
        ablate: the ablations. Those that the dictionary's sublayer isn't downstream of are left out.
        site: the dictionary's site; it may be left out if the model has one dictionary.
        top: the number of features that are kept one by one.
        seed: the seed that draws the halves.
        options: as for `sweep`.

    Returns:
        in the readouts' units, means over patches; `part` is the whole sublayer, all features, the error, or the bias:

        - `removed` [readout, prompt, ablated]: −`direct` of the ablation;
        - `response` [readout, prompt, ablated, part]: the change of what the part writes;
        - `restored_by` [readout, prompt, ablated, part]: what is lost again if the part alone is frozen;
        - `feature_unembed` [readout, prompt, feature] and `feature_response` [readout, prompt, ablated, feature]: the
          contributions of the chosen features in the clean pass, and their changes.

    Raises:
        HydrascopeError: the model has no such dictionary, the dictionary is of a residual stream, no ablation is
            upstream of it, or as `sweep`.
    """
    whole = _dictionary(model, site)
    overrides = _upstream(model, whole, ablate)
    if isinstance(top, bool) or not isinstance(top, int) or top < 1:
        raise HydrascopeError(f"top is {top!r}: give the number of features to keep, at least 1")
    choosing, measuring = halves(model, prompts, seed, "features")
    sums = _sums(_plan_of_sums(model, choosing, ablation, overrides, options), whole, options)
    order = np.argsort(-sums["absolute"].mean(("readout", "ablated")).values, kind="stable")[:top]
    chosen = [replace(whole, unit=int(unit)) for unit in order]
    parts = dict(zip(PARTS, (whole.sublayer, *_terms(whole)), strict=True))
    runs = [*overrides, *(Override(each.ablated, (part,)) for each in overrides for part in parts.values())]
    found = sweep(model, measuring, ablation, ablate=runs, read=[*_terms(whole), *chosen], keep="means", **options)
    return _assemble(found, overrides, parts, chosen).assign_attrs(chosen_on=len(choosing), seed=seed)


def _assemble(
    found: xr.Dataset, overrides: Sequence[Override], parts: dict[str, Component], chosen: Sequence[Component]
) -> xr.Dataset:
    """Return the dataset of `features` from a run with each part free and frozen."""
    labels, features = [str(override) for override in overrides], [str(each) for each in chosen]
    free = found.sel(ablated=labels)
    change = free["unembed_ablated"] - found["unembed"]
    total = free["total"].mean("patch", dtype=np.float64)
    restored, responses = [], []
    for part in parts.values():
        frozen = found.sel(ablated=[str(Override(each.ablated, (part,))) for each in overrides])
        restored.append(_bare(total) - _bare(frozen["total"].mean("patch", dtype=np.float64)))
        responses.append(_bare(change.sel(component=str(part))))
    variables = {
        "removed": -_bare(free["direct"].mean("patch", dtype=np.float64)),
        "response": xr.concat(responses, "part"),
        "restored_by": xr.concat(restored, "part"),
        "feature_unembed": _bare(found["unembed"].sel(component=features)).rename(component="feature"),
        "feature_response": _bare(change.sel(component=features)).rename(component="feature"),
    }
    data = xr.Dataset(variables).transpose("readout", "prompt", "ablated", "part", "feature").astype(np.float64)
    kept = {name: found[name] for name in ("readout", "readout_before", "text", "target_text")}
    coords = {"ablated": _texts(labels), **kept, "part": _texts(PARTS), "feature": _texts(features)}
    return data.assign_coords(coords).assign_attrs(found.attrs)


def _bare(values: xr.DataArray) -> xr.DataArray:
    """Return values without coordinates, which differ between free and frozen rows."""
    return xr.DataArray(values.values, dims=values.dims)


def _terms(whole: Component) -> list[Component]:
    return [replace(whole, kind="feature"), replace(whole, kind="error"), replace(whole, kind="bias")]


def _dictionary(model: LanguageModel, site: str | None) -> Component:
    """Return all features of the dictionary at a site, as a component.

    Raises:
        HydrascopeError: there is none, or several and none is named.
    """
    sites = list(model.feature_counts)
    if not sites:
        raise HydrascopeError(f"{model.name} has no dictionary: give one with --dictionary, or model.with_dictionaries")
    if site is None and len(sites) > 1:
        raise HydrascopeError(f"{model.name} has dictionaries at {', '.join(sites)}: name one site")
    if site is not None and site not in sites:
        raise HydrascopeError(f"{model.name} has no dictionary at {site!r}: it has them at {', '.join(sites)}")
    return Component.parse(f"feature.{site or sites[0]}")


def _upstream(model: LanguageModel, whole: Component, ablate: Selection) -> tuple[Override, ...]:
    """Return the ablations that the sublayer of a dictionary is downstream of.

    Raises:
        HydrascopeError: there are none, one freezes something, or the dictionary is of a residual stream.
    """
    home = whole.sublayer
    if home.kind == "stream":
        raise HydrascopeError(
            f"{whole} rewrites the residual stream and is no part of a sublayer: measure it with sweep, or with "
            "hydrascope run"
        )
    overrides = select_overrides(model, ablate)
    for override in overrides:
        if override.frozen:
            raise HydrascopeError(f"{override} freezes {override.frozen[0]}: name only what is ablated")
    upstream = tuple(
        override
        for override in overrides
        if any(follows(model, home, each) for each in override.ablated)
        and all(each.sublayer != home for each in override.ablated)
    )
    if not upstream:
        raise HydrascopeError(f"nothing that is ablated is upstream of {home}: choose components before it")
    return upstream


def _numpy(values: torch.Tensor) -> np.ndarray:
    return np.asarray(values.double().cpu())


def _texts(values: Iterable[object]) -> np.ndarray:
    return np.array([str(value) for value in values], object)
