"""What a trained model shows, by hydrascope itself: effects, compensation, erasure and the norm's share.

The paper's protocol (every attention and MLP layer, 15 resample patches) on fixed prompts; the result is a few
numbers per ablated layer, each with its bootstrap interval over prompts, as data that a page can be drawn from.
"""

from collections.abc import Sequence
from typing import Any

import xarray as xr

from hydrascope.measures import (
    Effects,
    compensation,
    compensation_regression,
    direct_effect,
    erasure,
    interval,
    mean_interval,
    own_change,
    per_prompt,
    regression,
)
from hydrascope.measures.bootstrap import Bootstrap
from hydrascope.models.language_model import LanguageModel
from hydrascope.prompts.prompt import Prompt, PromptSet
from hydrascope.runs.sweep import sweep
from training.lines import Line


def effects(model: LanguageModel, lines: Sequence[Line], name: str) -> Effects:
    """The paper's protocol on `lines`, averaged over patches."""
    prompts = PromptSet.of([Prompt(line["prompt"], line["answer"]) for line in lines], name)
    return per_prompt(sweep(model, prompts))


def curves(result: Effects) -> xr.Dataset:
    """Per ablated layer, [bound, ablated]: what docs/built-in-model.md shows.

    `slope` and `r2` of CE on DE; `slope_norm` and `r2_norm` of CE plus the norm's change on DE; the mean
    `unembed` and `total` effect; the shares of what is removed that `attention`, `mlp` and the `norm`
    restore, and what is `lost` of it.
    """
    bootstrap = Bootstrap()
    fit = compensation_regression(result, bootstrap)
    repaired = compensation(result)["compensation"] + result["norm"]
    with_norm = regression(direct_effect(result), repaired, bootstrap)
    return xr.merge(
        [
            fit[["slope", "r2"]],
            with_norm[["slope", "r2"]].rename(slope="slope_norm", r2="r2_norm"),
            mean_interval(direct_effect(result), bootstrap).rename("unembed"),
            mean_interval(result["total"], bootstrap).rename("total"),
            shares_of_removed(result, bootstrap),
        ],
        compat="override",
        join="exact",
    )


def shares_of_removed(result: Effects, bootstrap: Bootstrap) -> xr.Dataset:
    """What becomes of what the ablated layer itself wrote less, read at the clean run's σ.

    `attention`, `mlp` and `norm` bring back, the rest is `lost`: shares of the mean that add up to 1, each
    [bound, ablated]. Not `hydrascope.measures.restoration`, which takes what is removed with the model's own norm.
    """
    samples = compensation(result).assign(norm=result["norm"], lost=-result["total"], removed=-own_change(result))
    names = ["attention", "mlp", "norm", "lost"]
    return interval(lambda means: means[names] / means["removed"], samples, bootstrap)


def late_erasure(result: Effects) -> xr.Dataset:
    """The late MLPs' erasure, ablating the attention layer with the largest mean direct effect."""
    direct = direct_effect(result).mean("prompt")
    attention = [str(label) for label in direct["ablated"].values if str(label).startswith("attn")]
    lower = attention[: 3 * len(attention) // 4]
    strongest = lower[int(direct.sel(ablated=lower).values.argmax())]
    return erasure(result, strongest).assign_attrs(ablated=strongest)


def as_data(measured: xr.Dataset) -> dict[str, Any]:
    """The numbers as plain lists, rounded to four places, ready for JSON."""
    return {
        "ablated": [str(label) for label in measured["ablated"].values],
        **{
            str(name): {
                str(bound): [round(float(v), 4) for v in measured[name].sel(bound=bound).values]
                for bound in measured["bound"].values
            }
            for name in measured
        },
    }


def from_data(data: dict[str, Any]) -> xr.Dataset:
    """What `as_data` was given."""
    labels = data["ablated"]
    bounds = ["estimate", "low", "high"]
    return xr.Dataset(
        {
            name: (("bound", "ablated"), [values[bound] for bound in bounds])
            for name, values in data.items()
            if name != "ablated"
        },
        coords={"bound": bounds, "ablated": labels},
    )


def erasure_data(measured: xr.Dataset) -> dict[str, Any]:
    """What `late_erasure` found, as plain numbers."""
    bounds = [str(bound) for bound in measured["bound"].values]
    over_all = {
        name: {bound: round(float(measured[name].sel(bound=bound)), 4) for bound in bounds}
        for name in ("erasing", "attenuated", "attenuation")
    }
    per_mlp = {
        name: {bound: [round(float(v), 4) for v in measured[name].sel(bound=bound).values] for bound in bounds}
        for name in ("unembed", "change")
    }
    return {
        "ablated": measured.attrs["ablated"],
        "component": [str(c) for c in measured["component"].values],
        **over_all,
        **per_mlp,
    }


def curves_of(data: dict[str, Any], key: str) -> xr.Dataset:
    """The curves of one entry of measurements.json."""
    return from_data(data[key]["curves"])


def of_kind(curves: xr.Dataset, kind: str) -> xr.Dataset:
    """The ablated layers of one kind that have anything downstream."""
    return curves.sel(ablated=[a for a in curves["ablated"].values if str(a).startswith(kind)]).dropna("ablated")


def checkpoints(data: dict[str, Any], name: str) -> dict[int, str]:
    """The measured checkpoints of a model: its keys in measurements.json by step, ascending."""
    keys = {key.split("/")[0] for key in data if key.startswith(f"{name}@") and key.endswith("/passages")}
    return dict(sorted((int(key.split("@")[1]), key) for key in keys))
