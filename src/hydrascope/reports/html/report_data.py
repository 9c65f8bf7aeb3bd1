"""The content of a page: every number that it shows, computed here, as arrays and as text."""

import re
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
from hydrascope.reports.bar_axis import bar_limits
from hydrascope.reports.colour_scale import scale_of
from hydrascope.reports.flow.naming import model_name
from hydrascope.reports.html.array_encoding import Arrays
from hydrascope.reports.html.heatmaps import Picture, response
from hydrascope.reports.html.outcomes import Outcomes, mean_outcomes, single_outcomes
from hydrascope.reports.html.scatters import ce_on_de, de_and_ce, restored_on_removed
from hydrascope.reports.html.texts import NOT_KEPT, notes, page_texts, single_prompt_texts
from hydrascope.reports.html.tokens import keep_tokens
from hydrascope.reports.html.traces import has_patches, keep_ablated, keep_clean, keep_patches, ordered, patched
from hydrascope.reports.summary import Summary, clearest_verdict, read_effects, run_in_words
from hydrascope.utils.errors import HydrascopeError

#: Columns of the table of prompts, by their names in `measures.outcome`.
AMOUNTS = ("removed", "lost", "restored")


@dataclass(frozen=True)
class Views:
    """The content of a page that depends on the kind of result.

    Attributes:
        summarise: summarises results and their effects on one readout under one reading of σ.
        pictures: yields further matrices of one readout; they don't depend on σ.
        pictures_first: whether these matrices come before the matrix of responses. The page opens at the first matrix.
    """

    summarise: Callable[[xr.Dataset, EffectsOnly, Bootstrap], Summary]
    pictures: Callable[[xr.Dataset, EffectsOnly, Summary, Bootstrap], Iterable[Picture]]
    pictures_first: bool = False


@dataclass(frozen=True)
class _Source:
    """The data that a page is made from, and the arrays collected for it.

    Attributes:
        results: the results of ablations with nothing frozen.
        bootstrap: the resampling that gives the intervals.
        patched: the number of first prompts whose patches are kept one by one.
        pictures_first: as in `Views`.
        arrays: the arrays added so far.
    """

    results: xr.Dataset
    bootstrap: Bootstrap
    patched: int
    pictures_first: bool = False
    arrays: Arrays = field(default_factory=Arrays)


def require_results(results: xr.Dataset) -> None:
    """Refuse results that a page can't show.

    Raises:
        HydrascopeError: `results` is no result, or lacks a dimension.
    """
    if not isinstance(results, xr.Dataset):
        raise HydrascopeError(f"a {type(results).__name__} is no hydrascope result: give the result of a run")
    if missing := [
        name
        for name in ("readout", "readout_before", "ablated", "total", "direct", "logit")
        if name not in results.variables
    ]:
        raise HydrascopeError(
            f"this is no hydrascope result: it has no variable {missing[0]!r}: give the result of a run"
        )
    require_dimensions(results, ("total", "direct", "logit"))


@dataclass(frozen=True)
class Built:
    """A page's content, with what it was made from.

    Attributes:
        page: the content, as JSON values.
        chunks: the compressed arrays by name.
        alone: the single ablations of the results.
        effects: their effects on the first readout.
        summary: the summary of these effects.
    """

    page: dict[str, Any]
    chunks: dict[str, bytes]
    alone: xr.Dataset
    effects: EffectsOnly
    summary: Summary


def build_page(results: xr.Dataset, bootstrap: Bootstrap, views: Views) -> Built:
    """Return the page's content.

    Args:
        results: results that pass `require_results`.
        bootstrap: the resampling that gives the intervals.
        views: the content that depends on the results' kind.

    Raises:
        HydrascopeError: the results lack a number or a dimension.
    """
    plain = single_ablations(results)
    labels = [str(label) for label in np.atleast_1d(results["readout"].values)]
    source, readouts, first = _Source(plain, bootstrap, patched(plain), views.pictures_first), [], None
    for number, label in enumerate(labels):
        unordered = _read(plain, label)
        summaries = {sigma: views.summarise(results, each, bootstrap) for sigma, each in unordered.items()}
        effects_at = {sigma: ordered(each) for sigma, each in unordered.items()}
        first = first or (effects_at["clean"], summaries["clean"])
        texts = {sigma: page_texts(summaries[sigma], each) for sigma, each in effects_at.items()}
        others = list(views.pictures(results, effects_at["clean"], summaries["clean"], bootstrap))
        rows = [str(name) for name in effects_at["clean"]["ablated"].values]
        outcomes = mean_outcomes(summaries["clean"].components, rows)
        readouts.append(_views(source, effects_at, texts, others, outcomes, f"{number}."))
    assert first is not None
    effects, summary = first
    remarks = list(notes(bootstrap, summary.verdicts, traces=isinstance(effects, Effects)))
    page, chunks = _page(source, effects, summary.run, _start(summary, effects), readouts, remarks)
    return Built(page, chunks, plain, effects, summary)


def single_prompt_page_data(results: xr.Dataset) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return the content and the arrays of a page on one prompt and one readout.

    Its texts hold for this prompt alone.
    """
    once = Bootstrap(resamples=1)  # one prompt has no intervals
    source = _Source(results, once, int(has_patches(results)))
    label = str(results["readout"].values[0])
    effects_at = {sigma: ordered(each) for sigma, each in _read(results, label).items()}
    effects = effects_at["clean"]
    texts = dict.fromkeys(effects_at, single_prompt_texts(effects))
    views = _views(source, effects_at, texts, [], single_outcomes(effects), "0.")
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
        "model": model_name(effects.data.attrs),
        "command": f"hydrascope explore {_argument(effects.data.attrs)} --results RESULTS",
        "run": [[name, value] for name, value in run.items() if name not in ("model", "readout", "unit")],
        "depth": depth(effects),
        "start": start,
        "ablated": _components(effects["ablated"]),
        "components": _components(effects["component"]) if isinstance(effects, Effects) else [],
        "without": None if isinstance(effects, Effects) else _missing_views(readouts),
        "prompts": [
            {"text": str(text), "target": str(target)}
            for text, target in zip(effects["text"].values, effects["target_text"].values, strict=True)
        ],
        "tokens": keep_tokens(effects, source.arrays),
        "readings": [{"name": sigma, "label": name.removeprefix("at ")} for sigma, name in SIGMA_NAME.items()],
        "readouts": readouts,
        "patched": source.patched,
        "notes": remarks,
        "arrays": source.arrays.known,
    }
    return page, source.arrays.chunks


def _argument(attributes: Mapping[str, Any]) -> str:
    """Return the model's name for a command.

    A path, or a name that a shell would read otherwise, is left to the reader.
    """
    name = str(attributes.get("model", ""))
    return name if re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name, re.ASCII) else "MODEL"


def _read(results: xr.Dataset, label: str) -> dict[Sigma, EffectsOnly]:
    """Return the effects on one readout under each reading of σ; `EffectsOnly` have one reading."""
    first = read_effects(results, label, "clean")
    others = readings(results, label)[1:] if isinstance(first, Effects) else ()
    return {"clean": first, **{sigma: read_effects(results, label, sigma) for sigma in others}}


def _missing_views(readouts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the names of the missing views, and the reason."""
    return {"why": NOT_KEPT, "views": ["trace"] if readouts[0]["readings"][0]["pictures"] else ["matrix", "trace"]}


def _views(
    source: _Source,
    effects_at: Mapping[Sigma, EffectsOnly],
    texts: Mapping[Sigma, dict[str, Any]],
    others: list[Picture],
    outcomes: Outcomes,
    prefix: str,
) -> dict[str, Any]:
    """Return the page's content on one readout, with data that depend on σ under each reading.

    Args:
        source: the data; its arrays grow.
        effects_at: the effects under each reading of σ.
        texts: the texts under each reading of σ.
        others: the matrices that don't depend on σ.
        outcomes: the amounts that the bars beside the matrices show.
        prefix: the start of the arrays' names.
    """
    effects, arrays = effects_at["clean"], source.arrays
    samples = outcome(effects)
    if isinstance(effects, Effects):
        keep_clean(effects, prefix, arrays)
    arrays.add(f"{prefix}amounts", _stack(samples, AMOUNTS, ("ablated", "prompt")))
    arrays.add(f"{prefix}outcomes.mean", outcomes)
    fixed = [_add_picture(picture, f"{prefix}picture.{number}", arrays) for number, picture in enumerate(others)]
    restored = restored_on_removed(samples, effects.readout, source.bootstrap)
    plotted = {
        "array": f"{prefix}amounts",
        "rows": [AMOUNTS.index(name) for name in restored.names],
        **asdict(restored),
    }
    return {
        "name": effects.readout,
        "unit": effects.unit,
        "bars": {"array": f"{prefix}outcomes.mean", "limits": list(bar_limits(outcomes[:, 0].astype(np.float32)))},
        "clean": [float(value) for value in effects["logit"].values],
        "readings": [
            {**texts[sigma], **_reading(source, each, fixed, plotted, f"{prefix}{sigma}.")}
            for sigma, each in effects_at.items()
        ],
    }


def _reading(
    source: _Source, effects: EffectsOnly, fixed: list[dict[str, Any]], restored: dict[str, Any], prefix: str
) -> dict[str, Any]:
    """Return the page's content on one readout under one reading of σ.

    Args:
        source: the data; its arrays grow.
        effects: the effects under this reading.
        fixed: the matrices that don't depend on σ.
        restored: the scatter that doesn't depend on σ.
        prefix: the start of the arrays' names.
    """
    pictures, scatters = [*fixed], [restored]
    if isinstance(effects, Effects):
        keep_ablated(effects, prefix, source.arrays)
        keep_patches(source.results.isel(prompt=slice(source.patched)), effects, prefix, source.arrays)
        responding = _add_picture(response(effects, source.bootstrap), f"{prefix}picture", source.arrays)
        pictures.insert(len(fixed) if source.pictures_first else 0, responding)
        # If only positions before the last are ablated, DE doesn't measure the ablated activation.
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


def _start(summary: Summary, effects: EffectsOnly) -> int:
    """Return the index of the ablated component that the page opens at.

    It is the component of the clearest verdict or of the most redundant pair, else the one that removes most.
    """
    names = [str(name) for name in effects["ablated"].values]
    covering = summary.pairs[0].first if summary.pairs else ""
    name = clearest_verdict(summary.verdicts).component.split(" or ")[0] if summary.verdicts else covering
    return names.index(name) if name in names else int(effects["direct"].mean("prompt").values.argmin())


def _components(labels: xr.DataArray) -> list[dict[str, Any]]:
    return [
        {"name": name, "kind": kind_of(name), "block": block}
        for name, block in zip(map(str, labels.values), block_numbers(labels), strict=True)
    ]


def _stack(samples: xr.Dataset, names: tuple[str, ...], dims: tuple[str, ...]) -> np.ndarray:
    return np.stack([samples[name].transpose(*dims).values for name in names])


def _add_picture(picture: Picture, name: str, arrays: Arrays) -> dict[str, Any]:
    """Add a matrix to the arrays under `name`, and return its description."""
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
        "signs": picture.signs.tolist(),
        "ends": list(picture.ends),
        "bars": picture.bars,
        "scale": scale_of(picture.bounds[0]).for_page(),
    }
