"""Print the works to cite, as BibTeX: hydrascope, its paper, and the methods of a result."""

from collections.abc import Mapping, Sequence
from typing import Any

import xarray as xr
import yaml

from hydrascope.reports.summary.latex import escape
from hydrascope.utils.assets import citation_path

#: BibTeX entries of methods: key, authors, title, year, arXiv number.
_METHODS = {
    "rushing": (
        "rushing2024selfrepair",
        "Rushing, Cody and Nanda, Neel",
        "Explorations of Self-Repair in Language Models",
        2024,
        "2402.15390",
    ),
    "atp_star": (
        "kramar2024atpstar",
        "Kramár, János and Lieberum, Tom and Shah, Rohin and Nanda, Neel",
        "AtP*: An efficient and scalable method for localizing LLM behaviour to components",
        2024,
        "2403.00745",
    ),
    "integrated_gradients": (
        "sundararajan2017axiomatic",
        "Sundararajan, Mukund and Taly, Ankur and Yan, Qiqi",
        "Axiomatic Attribution for Deep Networks",
        2017,
        "1703.01365",
    ),
}


def citations(results: xr.Dataset | None = None) -> str:
    """Return BibTeX of hydrascope, its paper, and the methods that a result holds.

    >>> print(hs.reports.citations(results).splitlines()[0])
    @misc{hydrascope,

    Args:
        results: of a run, or of an estimate; None for hydrascope and its paper alone.
    """
    described = yaml.safe_load(citation_path().read_text(encoding="utf-8"))
    program = {
        "author": _authors(described["authors"]),
        "title": escape(described["title"]),
        "version": escape(described["version"]),
    }
    entries = [_entry("misc", "hydrascope", program)]
    for reference in described["references"]:
        key = f"{reference['authors'][0]['family-names'].lower()}{reference['year']}"
        entries.append(_article(key, _authors(reference["authors"]), reference["title"], reference["year"], reference))
    for method in [] if results is None else _methods(results):
        key, authors, title, year, number = _METHODS[method]
        entries.append(_article(key, authors, title, year, {"url": f"https://arxiv.org/abs/{number}"}))
    return "\n\n".join(entries) + "\n"


def _methods(results: xr.Dataset) -> list[str]:
    """Return the methods that a result holds, in the order of `_METHODS`."""
    held = {str(results.attrs.get("method", "")), *map(str, results.data_vars)}
    kinds = results["ablated_kind"].values.tolist() if "ablated_kind" in results.coords else []
    # `measures.self_repair` is their measure of heads that are ablated by other prompts' activations, everywhere.
    if "head" in kinds and results.attrs.get("ablation") == "resample" and results.attrs.get("positions") == "all":
        held.add("rushing")
    return [method for method in _METHODS if method in held]


def _authors(authors: Sequence[Mapping[str, str]]) -> str:
    named = [
        # A name in braces is one word for BibTeX: an organisation.
        f"{{{each['name']}}}" if "name" in each else f"{each['family-names']}, {each['given-names']}"
        for each in authors
    ]
    return " and ".join(named)


def _article(key: str, authors: str, title: str, year: int, reference: Mapping[str, Any]) -> str:
    url = str(reference["url"])
    fields = {"author": authors, "title": f"{{{escape(title)}}}", "year": str(year)}
    if "arxiv.org/abs/" in url:
        fields |= {"eprint": url.rpartition("/")[2], "archivePrefix": "arXiv"}
    return _entry("article", key, {**fields, "url": url})


def _entry(kind: str, key: str, fields: Mapping[str, str]) -> str:
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items()]
    return "\n".join([f"@{kind}{{{key},", *lines, "}"])
