"""The run that numbers are of, in words for figures, files, captions and pages."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import xarray as xr

from hydrascope.measures import EffectsOnly, Sigma, depth
from hydrascope.reports.flow.naming import model_name, prompts_name, short_hash


@dataclass(frozen=True)
class Source:
    """The run that the numbers are of, in words that may be shown: no paths.

    Attributes:
        model: the display name of the model.
        weights: the hash or revision of its weights; empty if unknown.
        change: how the weights differ from those of the model of that name; empty if they don't.
        prompts: the display name of the set of prompts; empty if unknown.
        count: the number of prompts; 0 where the numbers are of one prompt that belongs to no set.
        prompts_hash: the hash of the prompts; empty if unknown.
        ablation: the name of the ablation: `zero`.
        patches: the number of patches per prompt.
        positions: the ablated positions: `last`.
        readout: the label of the readout.
        unit: the unit of all amounts.
        sigma: the reading of σ; None where nothing depends on it.
        depth: the number of blocks of the network.
        parallel: whether attention and MLP of a block read the same residual stream.
        version: the version of hydrascope that measured.
        reading: the readout and the reading of σ in words: `logit, at the clean run’s σ`.
    """

    model: str
    weights: str
    change: str
    prompts: str
    count: int
    prompts_hash: str
    ablation: str
    patches: int
    positions: str
    readout: str
    unit: str
    sigma: Sigma | None
    depth: int
    parallel: bool
    version: str
    reading: str


def source_of(effects: EffectsOnly) -> Source:
    """Return the run that effects are of.

    >>> source_of(effects).ablation
    'zero'

    Args:
        effects: on one readout.
    """
    attributes = effects.data.attrs
    return _source(
        attributes,
        prompts=prompts_name(attributes),
        count=effects.sizes["prompt"],
        readout=effects.readout,
        unit=effects.unit,
        sigma=effects.read_at,
        depth=depth(effects) if "component" in effects.data.coords else int(attributes.get("depth", 0)),
        reading=effects.caption,
    )


def source_of_analysis(found: xr.Dataset) -> Source:
    """Return the run that the numbers of an analysis are of; it has no reading of σ.

    >>> source_of_analysis(hs.analyses.position_map(model, "the fox is")).count
    0

    Args:
        found: the dataset of an analysis, with one `readout`; without a dimension `prompt` it is of one prompt that
            belongs to no set.
    """
    attributes, readout = found.attrs, str(found["readout"].item())
    count = found.sizes.get("prompt", 0)
    return _source(
        attributes,
        prompts=prompts_name(attributes) if count else "",
        count=count,
        readout=readout,
        unit=str(attributes.get("units", "logits")),
        sigma=None,
        depth=int(attributes.get("depth", 0)),
        reading=readout,
    )


def _source(
    attributes: Mapping[Any, Any],
    *,
    prompts: str,
    count: int,
    readout: str,
    unit: str,
    sigma: Sigma | None,
    depth: int,
    reading: str,
) -> Source:
    """Return a run, with what a result and an analysis alike hold as attributes."""
    return Source(
        model=model_name(attributes),
        weights=str(attributes.get("revision", "")),
        change=str(attributes.get("weights_changed", "")),
        prompts=prompts,
        count=count,
        prompts_hash=str(attributes.get("prompts_hash", "")),
        ablation=str(attributes.get("ablation", "")),
        patches=int(attributes.get("patches", 1)),
        positions=str(attributes.get("positions", "last")),
        readout=readout,
        unit=unit,
        sigma=sigma,
        depth=depth,
        parallel=bool(attributes.get("parallel", False)),
        version=str(attributes.get("hydrascope", "")),
        reading=reading,
    )


def as_named(source: Source) -> dict[str, str]:
    """Return a run by name, for the files of a picture; without what is unknown.

    >>> as_named(source_of(effects))["positions"]
    'last'
    """
    named = {
        "model": source.model,
        "weights": source.weights,
        "weights changed": source.change,
        "prompts": _prompts(source),
        "prompts hash": source.prompts_hash,
        "ablation": source.ablation,
        "patches": str(source.patches),
        "positions": source.positions,
        "readout": source.reading,
        "hydrascope": source.version,
    }
    return {name: value for name, value in named.items() if value}


def in_one_line(source: Source) -> str:
    """Return a run as the line on a figure.

    >>> in_one_line(source_of(effects)).rpartition(" · ")[0].endswith("at last · Readout: logit, at the clean run’s σ")
    True
    """
    parts = (
        source.model,
        weights_in_words(source),
        f"prompts: {_prompts(source)}" if source.count else "",
        " at ".join(each for each in (source.ablation, source.positions) if each),
        f"Readout: {source.reading}",
        f"hydrascope {source.version}" if source.version else "",
    )
    return " · ".join(part for part in parts if part)


def weights_in_words(source: Source) -> str:
    """Return the hash of a model's weights and how they were changed; empty if nothing is known.

    >>> results.attrs |= {"revision": "sha256:12345678ab", "weights_changed": "adapter merged: poet"}
    >>> weights_in_words(source_of(hs.measures.per_prompt(results)))
    'weights 12345678, adapter merged: poet'
    """
    known = f"weights {short_hash(source.weights)}" if source.weights else ""
    return ", ".join(each for each in (known, source.change) if each)


def positions_in_words(positions: str) -> str:
    """Return ablated positions in words: `the last token`."""
    return {"last": "the last token", "all": "all tokens", "subject": "the subject"}.get(positions, positions)


def _prompts(source: Source) -> str:
    if not source.count:
        return ""
    return f"{source.count:,} of {source.prompts}" if source.prompts else f"{source.count:,}"
