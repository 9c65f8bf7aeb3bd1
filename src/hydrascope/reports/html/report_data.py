"""What a page shows of a result: every number computed here, as arrays and as words."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from hydrascope.measures import (
    SIGMA_NAME,
    Bootstrap,
    Sigma,
    block_numbers,
    caption,
    depth,
    effects_only,
    outcome,
    per_prompt,
    readings,
    single_ablations,
)
from hydrascope.measures.effects_per_prompt import readout_unit, require_dimensions
from hydrascope.measures.labels import kind_of
from hydrascope.reports.colour_scale import scale_of
from hydrascope.reports.html.array_encoding import Arrays
from hydrascope.reports.html.heatmaps import Picture, interaction_picture, mediated, response, sigma_of
from hydrascope.reports.html.scatters import ce_on_de, de_and_ce, restored_on_removed
from hydrascope.reports.html.texts import NOT_KEPT, notes, page_texts, single_prompt_texts
from hydrascope.reports.html.tokens import keep_tokens
from hydrascope.reports.html.traces import has_patches, keep_ablated, keep_intact, keep_patches, ordered, patched
from hydrascope.reports.summary import Summary, clearest_verdict, run_in_words, summarise
from hydrascope.utils.errors import HydrascopeError

#: Columns of the table of prompts, as `measures.outcome` names them.
AMOUNTS = ("removed", "lost", "restored")


@dataclass(frozen=True)
class _Source:
    """What a page is made from, and the arrays that it is to hold.

    Attributes:
        results: of runs with nothing frozen.
        bootstrap: how intervals are drawn.
        patched: of how many prompts, the first ones, every patch is kept.
    """

    results: xr.Dataset
    bootstrap: Bootstrap
    patched: int
    arrays: Arrays = field(default_factory=Arrays)


def page_data(results: xr.Dataset, bootstrap: Bootstrap) -> tuple[dict[str, Any], dict[str, bytes]]:
    """What a page says of `results`, as JSON, and the arrays that it draws, compressed, by name.

    Raises:
        HydrascopeError: the results are no result at all, or lack a number or a dimension.
    """
    if not isinstance(results, xr.Dataset):
        raise HydrascopeError(f"a {type(results).__name__} is no hydrascope result: give that of run or sweep")
    if missing := [
        name
        for name in ("readout", "readout_before", "ablated", "total", "direct", "logit")
        if name not in results.variables
    ]:
        raise HydrascopeError(
            f"this is no hydrascope result: it has no variable {missing[0]!r}: give that of run or sweep"
        )
    require_dimensions(results, ("total", "direct", "logit"))
    experiment = results.attrs.get("experiment")
    plain = single_ablations(results) if experiment else results
    told = results if experiment == "interactions" else plain
    labels = [str(label) for label in np.atleast_1d(results["readout"].values)]
    source, readouts, first = _Source(plain, bootstrap, patched(plain)), [], None
    for place, label in enumerate(labels):
        read = _read(plain, label)
        found = {sigma: summarise(told, bootstrap, label, sigma) for sigma in read}
        first = first or (read["clean"], found["clean"])
        said = {sigma: page_texts(found[sigma], effects) for sigma, effects in read.items()}
        others = [*_interactions(found["clean"], read["clean"]), *mediated(results, read["clean"], bootstrap)]
        readouts.append(_views(source, read, said, others, f"{place}."))
    assert first is not None
    effects, summary = first
    remarks = list(notes(bootstrap, summary.verdicts, traces=_keeps_traces(effects)))
    return _page(source, effects, summary.run, _start(summary, effects), readouts, remarks)


def single_prompt_page_data(results: xr.Dataset) -> tuple[dict[str, Any], dict[str, bytes]]:
    """As `page_data`, of one prompt and one readout: what there is to say holds of this prompt and of no other."""
    once = Bootstrap(resamples=1)  # of one prompt there are no intervals to be drawn
    source = _Source(results, once, int(has_patches(results)))
    read = _read(results, str(results["readout"].values[0]))
    effects = read["clean"]
    views = _views(source, read, dict.fromkeys(read, single_prompt_texts(effects)), [], "0.")
    start = int(effects["direct"].values[0].argmin())
    remarks = list(notes(None, (), traces=_keeps_traces(effects)))
    return _page(source, effects, run_in_words(results, effects), start, [views], remarks)


def _page(
    source: _Source,
    effects: xr.Dataset,
    run: Mapping[str, str],
    start: int,
    readouts: list[dict[str, Any]],
    remarks: list[str],
) -> tuple[dict[str, Any], dict[str, bytes]]:
    page = {
        "model": str(effects.attrs.get("model", "")),
        "run": [[name, value] for name, value in run.items() if name not in ("model", "readout", "unit")],
        "depth": depth(effects),
        "start": start,
        "parts": _parts(effects["ablated"]),
        "components": _parts(effects["component"]) if _keeps_traces(effects) else [],
        "without": None if _keeps_traces(effects) else _without(readouts),
        "prompts": [
            {"text": str(text), "target": str(target)}
            for text, target in zip(effects["text"].values, effects["target_text"].values, strict=True)
        ],
        "tokens": keep_tokens(effects, source.arrays),
        "readings": [{"name": sigma, "said": said.removeprefix("at ")} for sigma, said in SIGMA_NAME.items()],
        "readouts": readouts,
        "patched": source.patched,
        "notes": remarks,
        "arrays": source.arrays.known,
    }
    return page, source.arrays.chunks


def _read(results: xr.Dataset, label: str) -> dict[Sigma, xr.Dataset]:
    """The effects on one readout under each reading of σ, in the order of the page; effects alone depend on none."""
    if not _keeps_traces(results):
        return {"clean": ordered(effects_only(results, label))}
    return {sigma: ordered(per_prompt(results, label, sigma)) for sigma in readings(results, label)}


def _interactions(found: Summary, effects: xr.Dataset) -> list[Picture]:
    """The matrix of pairs, of a result that tells of some."""
    parts = [str(name) for name in effects["ablated"].values]
    return [interaction_picture(found.pairs, parts, effects.attrs["readout"])] if found.pairs else []


def _without(readouts: list[dict[str, Any]]) -> dict[str, Any]:
    """Which views there aren't, and why."""
    return {"why": NOT_KEPT, "views": ["trace"] if readouts[0]["readings"][0]["pictures"] else ["matrix", "trace"]}


def _keeps_traces(results: xr.Dataset) -> bool:
    """Whether what parts write in ablated runs was kept; of results, or of the effects read from them."""
    return "unembed_ablated" in results


def _views(
    source: _Source,
    read: Mapping[Sigma, xr.Dataset],
    said: Mapping[Sigma, dict[str, Any]],
    others: list[Picture],
    prefix: str,
) -> dict[str, Any]:
    """What the page shows of one readout: once what doesn't depend on σ, the rest under each reading.

    Args:
        read: its effects under each reading, as `_read` gives them; `said`: what is said of them.
        others: matrices that don't depend on σ.
    """
    effects, arrays = read["clean"], source.arrays
    samples = outcome(effects)
    if _keeps_traces(effects):
        keep_intact(effects, prefix, arrays)
    arrays.add(f"{prefix}amounts", _stack(samples, AMOUNTS, ("ablated", "prompt")))
    still = [_kept(picture, f"{prefix}picture.{place}", arrays) for place, picture in enumerate(others)]
    restored = restored_on_removed(samples, effects.attrs["readout"], source.bootstrap)
    plotted = {
        "array": f"{prefix}amounts",
        "rows": [AMOUNTS.index(name) for name in restored.names],
        **asdict(restored),
    }
    return {
        "name": effects.attrs["readout"],
        "unit": readout_unit(effects),
        "clean": [float(value) for value in effects["logit"].values],
        "readings": [
            {**said[sigma], **_reading(source, each, still, plotted, f"{prefix}{sigma}.")}
            for sigma, each in read.items()
        ],
    }


def _reading(
    source: _Source, effects: xr.Dataset, still: list[dict[str, Any]], restored: dict[str, Any], prefix: str
) -> dict[str, Any]:
    """What the page shows of one readout under one reading of σ.

    Args:
        still: the matrices that don't depend on it; `restored`: the scatter that doesn't.
    """
    pictures, scatters = [*still], [restored]
    if _keeps_traces(effects):
        keep_ablated(effects, prefix, source.arrays)
        keep_patches(source.results.isel(prompt=slice(source.patched)), effects, prefix, source.arrays)
        responding = _kept(response(effects, source.bootstrap), f"{prefix}picture", source.arrays)
        # Of pairs the page opens with what they do to each other.
        pictures.insert(len(still) if source.results.attrs.get("experiment") else 0, responding)
        # Where only positions before the last are ablated, DE isn't of what is ablated.
        if effects["direct"].any():
            amounts, name = de_and_ce(effects), f"{prefix}compensated"
            compensated = ce_on_de(amounts, effects, source.bootstrap)
            source.arrays.add(name, _stack(amounts, compensated.names, ("ablated", "prompt")))
            scatters.append({"array": name, "rows": [0, 1], **asdict(compensated)})
    return {
        "prefix": prefix,
        "sigma": sigma_of(effects),
        "caption": caption(effects),
        "pictures": pictures,
        "scatters": scatters,
    }


def _start(found: Summary, effects: xr.Dataset) -> int:
    """The part that the page opens at: that of the clearest verdict, or of the most redundant pair, else the one that
    removes most.
    """
    names = [str(name) for name in effects["ablated"].values]
    covering = found.pairs[0].first if found.pairs else ""
    part = clearest_verdict(found.verdicts).part.split(" or ")[0] if found.verdicts else covering
    return names.index(part) if part in names else int(effects["direct"].mean("prompt").values.argmin())


def _parts(labels: xr.DataArray) -> list[dict[str, Any]]:
    return [
        {"name": name, "kind": kind_of(name), "layer": block}
        for name, block in zip(map(str, labels.values), block_numbers(labels), strict=True)
    ]


def _stack(samples: xr.Dataset, names: tuple[str, ...], dims: tuple[str, ...]) -> np.ndarray:
    return np.stack([samples[name].transpose(*dims).values for name in names])


def _kept(picture: Picture, name: str, arrays: Arrays) -> dict[str, Any]:
    """What the page says of a matrix, whose numbers it finds by that name."""
    arrays.add(name, picture.bounds)
    return {
        "array": name,
        "name": picture.name,
        "meaning": picture.meaning,
        "caption": picture.caption,
        "sigma": picture.sigma,
        "axis": picture.axis,
        "columns": picture.columns,
        "kinds": list(map(kind_of, picture.columns)),
        "joint": picture.joint,
        "grey": picture.grey,
        "most": scale_of(picture.bounds[0]),
    }
