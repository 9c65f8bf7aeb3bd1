"""What a page shows of a result: every number computed here, as arrays and as words."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from hydrascope.measures import (
    SIGMA_NAME,
    Bootstrap,
    Effects,
    EffectsOnly,
    Sigma,
    block_numbers,
    depth,
    outcome,
    readings,
    single_ablations,
)
from hydrascope.measures.effects_per_prompt import require_dimensions
from hydrascope.measures.labels import kind_of
from hydrascope.reports.colour_scale import scale_of
from hydrascope.reports.html.array_encoding import Arrays
from hydrascope.reports.html.heatmaps import Picture, response
from hydrascope.reports.html.scatters import ce_on_de, de_and_ce, restored_on_removed
from hydrascope.reports.html.texts import NOT_KEPT, notes, page_texts, single_prompt_texts
from hydrascope.reports.html.tokens import keep_tokens
from hydrascope.reports.html.traces import has_patches, keep_ablated, keep_intact, keep_patches, ordered, patched
from hydrascope.reports.summary import Summary, clearest_verdict, read_effects, run_in_words
from hydrascope.utils.errors import HydrascopeError

#: Columns of the table of prompts, as `measures.outcome` names them.
AMOUNTS = ("removed", "lost", "restored")


@dataclass(frozen=True)
class Views:
    """What a page says and shows of results of one kind, besides what it shows of all.

    Attributes:
        summarise: what it says of the effects on one readout under one reading of σ, which are of the results.
        pictures: the matrices besides that of responses, on one readout; they don't depend on σ.
        pictures_first: whether they come before it: the page opens with the first.
    """

    summarise: Callable[[xr.Dataset, EffectsOnly, Bootstrap], Summary]
    pictures: Callable[[xr.Dataset, EffectsOnly, Summary, Bootstrap], Iterable[Picture]]
    pictures_first: bool = False


@dataclass(frozen=True)
class _Source:
    """What a page is made from, and the arrays that it is to hold.

    Attributes:
        results: of runs with nothing frozen.
        bootstrap: how intervals are drawn.
        patched: of how many prompts, the first ones, every patch is kept.
        pictures_first: as in `Views`.
    """

    results: xr.Dataset
    bootstrap: Bootstrap
    patched: int
    pictures_first: bool = False
    arrays: Arrays = field(default_factory=Arrays)


def require_results(results: xr.Dataset) -> None:
    """Refuse what a page can't show.

    Raises:
        HydrascopeError: the results are no result at all, or lack a dimension.
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


def build_page(results: xr.Dataset, bootstrap: Bootstrap, views: Views) -> tuple[dict[str, Any], dict[str, bytes]]:
    """What a page says of `results`, as JSON, and the arrays that it draws, compressed, by name.

    Args:
        results: such as `require_results` doesn't refuse.
        bootstrap: how intervals are drawn.
        views: those of the results' kind.

    Raises:
        HydrascopeError: the results lack a number or a dimension.
    """
    plain = single_ablations(results)
    labels = [str(label) for label in np.atleast_1d(results["readout"].values)]
    source, readouts, first = _Source(plain, bootstrap, patched(plain), views.pictures_first), [], None
    for place, label in enumerate(labels):
        under = _read(plain, label)
        found = {sigma: views.summarise(results, each, bootstrap) for sigma, each in under.items()}
        read = {sigma: ordered(each) for sigma, each in under.items()}
        first = first or (read["clean"], found["clean"])
        said = {sigma: page_texts(found[sigma], each) for sigma, each in read.items()}
        others = list(views.pictures(results, read["clean"], found["clean"], bootstrap))
        readouts.append(_views(source, read, said, others, f"{place}."))
    assert first is not None
    effects, summary = first
    remarks = list(notes(bootstrap, summary.verdicts, traces=isinstance(effects, Effects)))
    return _page(source, effects, summary.run, _start(summary, effects), readouts, remarks)


def single_prompt_page_data(results: xr.Dataset) -> tuple[dict[str, Any], dict[str, bytes]]:
    """As `build_page`, of one prompt and one readout: what there is to say holds of this prompt and of no other."""
    once = Bootstrap(resamples=1)  # of one prompt there are no intervals to be drawn
    source = _Source(results, once, int(has_patches(results)))
    read = {sigma: ordered(each) for sigma, each in _read(results, str(results["readout"].values[0])).items()}
    effects = read["clean"]
    views = _views(source, read, dict.fromkeys(read, single_prompt_texts(effects)), [], "0.")
    start = int(effects["direct"].values[0].argmin())
    remarks = list(notes(None, (), traces=isinstance(effects, Effects)))
    return _page(source, effects, run_in_words(results, effects), start, [views], remarks)


def _page(
    source: _Source,
    effects: EffectsOnly,
    run: Mapping[str, str],
    start: int,
    readouts: list[dict[str, Any]],
    remarks: list[str],
) -> tuple[dict[str, Any], dict[str, bytes]]:
    page = {
        "model": str(effects.data.attrs.get("model", "")),
        "run": [[name, value] for name, value in run.items() if name not in ("model", "readout", "unit")],
        "depth": depth(effects),
        "start": start,
        "parts": _parts(effects["ablated"]),
        "components": _parts(effects["component"]) if isinstance(effects, Effects) else [],
        "without": None if isinstance(effects, Effects) else _without(readouts),
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


def _read(results: xr.Dataset, label: str) -> dict[Sigma, EffectsOnly]:
    """The effects on one readout under each reading of σ; effects alone depend on none."""
    first = read_effects(results, label, "clean")
    others = readings(results, label)[1:] if isinstance(first, Effects) else ()
    return {"clean": first, **{sigma: read_effects(results, label, sigma) for sigma in others}}


def _without(readouts: list[dict[str, Any]]) -> dict[str, Any]:
    """Which views there aren't, and why."""
    return {"why": NOT_KEPT, "views": ["trace"] if readouts[0]["readings"][0]["pictures"] else ["matrix", "trace"]}


def _views(
    source: _Source,
    read: Mapping[Sigma, EffectsOnly],
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
    if isinstance(effects, Effects):
        keep_intact(effects, prefix, arrays)
    arrays.add(f"{prefix}amounts", _stack(samples, AMOUNTS, ("ablated", "prompt")))
    still = [_kept(picture, f"{prefix}picture.{place}", arrays) for place, picture in enumerate(others)]
    restored = restored_on_removed(samples, effects.readout, source.bootstrap)
    plotted = {
        "array": f"{prefix}amounts",
        "rows": [AMOUNTS.index(name) for name in restored.names],
        **asdict(restored),
    }
    return {
        "name": effects.readout,
        "unit": effects.unit,
        "clean": [float(value) for value in effects["logit"].values],
        "readings": [
            {**said[sigma], **_reading(source, each, still, plotted, f"{prefix}{sigma}.")}
            for sigma, each in read.items()
        ],
    }


def _reading(
    source: _Source, effects: EffectsOnly, still: list[dict[str, Any]], restored: dict[str, Any], prefix: str
) -> dict[str, Any]:
    """What the page shows of one readout under one reading of σ.

    Args:
        still: the matrices that don't depend on it; `restored`: the scatter that doesn't.
    """
    pictures, scatters = [*still], [restored]
    if isinstance(effects, Effects):
        keep_ablated(effects, prefix, source.arrays)
        keep_patches(source.results.isel(prompt=slice(source.patched)), effects, prefix, source.arrays)
        responding = _kept(response(effects, source.bootstrap), f"{prefix}picture", source.arrays)
        pictures.insert(len(still) if source.pictures_first else 0, responding)
        # Where only positions before the last are ablated, DE isn't of what is ablated.
        if effects["direct"].any():
            amounts, name = de_and_ce(effects), f"{prefix}compensated"
            compensated = ce_on_de(amounts, effects, source.bootstrap)
            source.arrays.add(name, _stack(amounts, compensated.names, ("ablated", "prompt")))
            scatters.append({"array": name, "rows": [0, 1], **asdict(compensated)})
    return {
        "prefix": prefix,
        "sigma": effects.read_at,
        "caption": effects.caption,
        "pictures": pictures,
        "scatters": scatters,
    }


def _start(found: Summary, effects: EffectsOnly) -> int:
    """The part that the page opens at: that of the clearest verdict, or of the most redundant pair, else the one that
    removes most.
    """
    names = [str(name) for name in effects["ablated"].values]
    covering = found.pairs[0].first if found.pairs else ""
    part = clearest_verdict(found.verdicts).component.split(" or ")[0] if found.verdicts else covering
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
