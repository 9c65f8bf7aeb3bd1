"""Who repairs: what each part's reaction to an ablation is worth, not what it writes.

A response is not yet a repair: that d writes more for the answer when k is ablated doesn't say how much of the answer
depends on it, since what d writes is read by others, too. Here d's reaction is taken away, or left alone, by freezing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from hydrascope.ablation import Ablation
from hydrascope.components import Component, Run, Selection, downstream, selected, selected_runs
from hydrascope.errors import HydrascopeError
from hydrascope.model import LanguageModel
from hydrascope.prompts import AnyPrompts
from hydrascope.runs import sweep


@dataclass(frozen=True)
class _Asked:
    """The runs that tell of one ablation: as it is, with everything downstream frozen, and of each mediator two."""

    run: Run
    none: Run
    without: Mapping[Component, Run]
    alone: Mapping[Component, Run]

    @property
    def runs(self) -> tuple[Run, ...]:
        return (self.run, self.none, *self.without.values(), *self.alone.values())


def mediation(
    model: LanguageModel,
    prompts: AnyPrompts,
    ablation: Ablation | None = None,
    *,
    ablate: Selection = "attn",
    mediators: Selection = "layers",
    **options: Any,
) -> xr.Dataset:
    """What the reaction of each mediator d to each ablation k is worth, as necessary and as sufficient.

        >>> m = hs.mediation(model, prompts, hs.Zero(), ablate="attn.3", mediators="layers")   # doctest: +SKIP
        >>> m["restored_by"].mean("prompt")                                                    # doctest: +SKIP

    Args:
        ablation: as for `sweep`; by default `Resample()`.
        ablate: what is ablated, one by one or together, nothing frozen.
        mediators: layers and heads whose reactions are asked for.
        options: of `sweep`: readouts, metrics, at, target, engine, batch_size, progress.

    Returns:
        means over patches, in the readouts' units:

        - `restored_by` [readout, prompt, ablated, mediator] π̂^k − π̂^{k, d frozen}: what d's reaction brings, wherever
          it brings it. 0, exactly, of what isn't downstream.
        - `restored_alone` (likewise) π̂^{k, all downstream of k frozen but d} − π̂^{k, all downstream of k frozen}: what
          d's reaction brings if nobody else reacts: path patching k → d → output with everything else held. Where d is
          a head, the other heads of its layer are frozen.
        - `response` (likewise) `unembed_ablated` − `unembed` of d, at the clean run's σ: what d itself writes more.
        - `restored` [readout, prompt, ablated] π̂^k − π̂^{k, all downstream of k frozen}: what all bring together.
        - `total`, `direct` (likewise), of k alone.

    Raises:
        HydrascopeError: as `sweep`; a mediator is a neuron, or something is frozen already.
    """
    runs, parts = selected_runs(model, ablate), selected(model, mediators)
    for run in runs:
        if run.frozen:
            raise HydrascopeError(
                f"{run} freezes {run.frozen[0]}: name what is ablated only, mediators are frozen here"
            )
    for part in parts:
        if part.is_unit and part.kind != "head":
            raise HydrascopeError(f"{part} can't be a mediator: give layers or heads")
    asked = [_asked(model, run, parts) for run in runs]
    every = list(dict.fromkeys(each for one in asked for each in one.runs))
    read = ["layers", *(str(part) for part in parts if part.is_unit)]
    results = sweep(model, prompts, ablation, ablate=every, read=read, keep="means", **options)
    means = results[["total", "direct"]].mean("patch", dtype=np.float64)
    return _differences(results, means, asked, parts)


def _asked(model: LanguageModel, run: Run, parts: Sequence[Component]) -> _Asked:
    def downstream_of(chosen: Sequence[Component]) -> list[Component]:
        return [part for part, yes in zip(chosen, downstream(model, run, chosen), strict=True) if yes]

    layers, below = downstream_of(model.components), downstream_of(parts)

    def frozen(chosen: Sequence[Component]) -> Run:
        return Run(run.ablated, tuple(chosen))

    return _Asked(
        run,
        frozen(layers),
        {part: frozen([part]) for part in below},
        {part: frozen(_others(model, part, layers)) for part in below},
    )


def _others(model: LanguageModel, part: Component, layers: Sequence[Component]) -> list[Component]:
    """All of `layers` but what `part` writes: of its own layer, if it is a head, the other heads."""
    rest = [layer for layer in layers if layer != part.whole]
    return rest + ([head for head in model.units(part.whole) if head != part] if part.is_unit else [])


def _differences(
    results: xr.Dataset, means: xr.Dataset, asked: Sequence[_Asked], parts: Sequence[Component]
) -> xr.Dataset:
    place = {str(label): number for number, label in enumerate(results["ablated"].values)}
    column = {str(label): number for number, label in enumerate(results["component"].values)}
    total, direct = (means[name].transpose("readout", "prompt", "ablated").values for name in ("total", "direct"))
    ablated = results["unembed_ablated"].transpose("readout", "prompt", "ablated", "component").values
    clean = results["unembed"].transpose("readout", "prompt", "component").values

    def of(run: Run) -> np.ndarray:
        return np.asarray(total[..., place[str(run)]])

    shape = (*total.shape[:2], len(asked), len(parts))
    by, alone, response = (np.zeros(shape) for _ in range(3))
    for row, one in enumerate(asked):
        for number, part in enumerate(parts):
            if part in one.without:
                by[:, :, row, number] = of(one.run) - of(one.without[part])
                alone[:, :, row, number] = of(one.alone[part]) - of(one.none)
                at = column[str(part)]
                response[:, :, row, number] = ablated[:, :, place[str(one.run)], at] - clean[:, :, at]
    rows = [place[str(one.run)] for one in asked]
    pair, single = ("readout", "prompt", "ablated", "mediator"), ("readout", "prompt", "ablated")
    found = {
        "restored_by": (pair, by),
        "restored_alone": (pair, alone),
        "response": (pair, response),
        "restored": (single, np.stack([of(one.run) - of(one.none) for one in asked], -1)),
        "total": (single, total[..., rows]),
        "direct": (single, direct[..., rows]),
    }
    names = np.array([str(one.run) for one in asked], object), np.array([str(part) for part in parts], object)
    kept = {name: results[name] for name in ("readout", "text", "target_text")}
    return xr.Dataset(found, {"ablated": names[0], "mediator": names[1], **kept}, results.attrs)
