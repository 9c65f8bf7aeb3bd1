"""Build a folder of real reports, and its index: `python -m studies.gallery`.

Each exhibit is measured, or resumed, and shown on a page. The index tells each finding in a sentence, which the program
writes from the result; docs/gallery.md is the same index with four pictures.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import click
import xarray as xr
from PIL import Image

import hydrascope as hs
from hydrascope.reports.flow.source import in_one_line, source_of
from hydrascope.reports.flow.words import title
from hydrascope.reports.summary import read_effects
from hydrascope.reports.summary.verdict_text import clearest_verdict, headline, headlines, mediation_sentences
from hydrascope.utils.errors import HydrascopeError

DOCS = Path(__file__).parents[1] / "docs"

#: The width of a picture on the index, in pixels.
_WIDTH = 1200

_STYLE = """
:root { color-scheme: light dark; --soft: #565d66; --line: #d5d9de; }
@media (prefers-color-scheme: dark) { :root { --soft: #a9b0b8; --line: #363c44; } }
body { margin: 2rem auto; padding: 0 1rem; max-width: 60rem; font: 16px/1.5 system-ui, sans-serif; }
li { margin: 0 0 1.2rem; padding: 0 0 1.2rem; border-bottom: 1px solid var(--line); }
ol { padding: 0; list-style: none; } a { font-size: 1.15rem; } p { margin: 0.2rem 0; } .how { color: var(--soft); }
img { width: 100%; height: auto; }
"""


@dataclass(frozen=True)
class Exhibit:
    """A result that is worth a look.

    Attributes:
        name: the name of its files.
        shows: the reason to look at it, in a sentence.
        model: the name of the model.
        prompts: the name of the prompt set.
        limit: the number of prompts.
        ablation: the ablation.
        ablate: the ablated components, or an experiment on them.
        picture: the name of the figure on the index; empty if it has none.
        mediation: the name of the exhibit that tells who is necessary.
    """

    name: str
    shows: str
    model: str
    prompts: str
    limit: int
    ablation: Any
    ablate: Any = "layers"
    picture: str = ""
    mediation: str = ""


EXHIBITS = (
    Exhibit(
        "phantom",
        "The instrument on a model whose self-repair is known, since its weights are set by formula.",
        model="phantom",
        prompts="phantom",
        limit=60,
        ablation=hs.Resample(3),
    ),
    Exhibit(
        "depth",
        "A positive control: a small model that was trained while its sublayers failed.",
        model="built-in-depth",
        prompts="demo",
        limit=200,
        ablation=hs.Zero(),
        picture="flow",
    ),
    Exhibit(
        "who",
        "Who repairs attn.28 of a real language model: every later sublayer frozen, then alone.",
        model="smollm2",
        prompts="common-facts",
        limit=200,
        ablation=hs.Zero(),
        ablate=hs.Mediation("attn.28", "layers"),
    ),
    Exhibit(
        "smollm2",
        "All 60 sublayers of SmolLM2-135M-Instruct, set to zero one by one; attn.28 was picked by hand.",
        model="smollm2",
        prompts="common-facts",
        limit=200,
        ablation=hs.Zero(),
        picture="responses",
        mediation="who",
    ),
    Exhibit(
        "gemma3",
        "All 36 sublayers of Gemma 3 270M, set to zero one by one.",
        model="gemma3-270m",
        prompts="common-facts",
        limit=200,
        ablation=hs.Zero(),
        picture="flow",
    ),
    Exhibit(
        "pairs",
        "Who covers for whom: the last ten sublayers of SmolLM2, ablated one by one and in pairs.",
        model="smollm2",
        prompts="common-facts",
        limit=100,
        ablation=hs.Zero(),
        ablate=hs.Interactions([f"{kind}.{block}" for block in range(25, 30) for kind in ("attn", "mlp")]),
        picture="interactions",
    ),
)


def measure(exhibit: Exhibit, stores: Path) -> xr.Dataset:
    """Measure an exhibit, or resume it, and return its result."""
    path = stores / f"{exhibit.name}.zarr"
    prompts = hs.load_prompts(exhibit.prompts).limit(exhibit.limit)
    model = hs.load_model(exhibit.model)
    hs.sweep(model, prompts, exhibit.ablation, ablate=exhibit.ablate, out=path, resume=True)
    return hs.open_results(path)


def sentence(results: xr.Dataset, mediation: xr.Dataset | None = None) -> str:
    """Return the finding of a result in one sentence: of the mediation's component if there is a mediation."""
    summary = hs.reports.summarise(results)
    if summary.reactions:
        return mediation_sentences(summary)[0]
    if summary.pairs:
        return f"{headlines(summary)[0]}."
    if mediation is not None:
        return f"{' '.join(title(hs.reports.flow.repair_flow(results, mediation=mediation)))}."
    return f"{headline(clearest_verdict(summary.verdicts), summary.run)}."


def run_of(results: xr.Dataset) -> str:
    """Return the run of a result in one line, as figures say it."""
    return in_one_line(source_of(read_effects(results)))


def draw(exhibit: Exhibit, results: xr.Dataset, mediation: xr.Dataset | None, folder: Path) -> None:
    """Draw the picture of an exhibit, as wide as the index."""
    hs.reports.draw_all(results, folder / "figures" / exhibit.name, mediation=mediation)
    with Image.open(folder / "figures" / exhibit.name / f"{exhibit.picture}.png") as whole:
        size = (_WIDTH, round(_WIDTH * whole.height / whole.width))
        whole.convert("RGB").resize(size, Image.Resampling.LANCZOS).quantize(256).save(folder / f"{exhibit.name}.png")


def as_markdown(found: Mapping[str, xr.Dataset]) -> str:
    """Return the index as the page docs/gallery.md."""
    lines = [
        "# Gallery",
        "",
        "Findings on real and built models, each in a sentence that the program wrote from the result. `make gallery`",
        "measures them and writes their [reports](report.md) and this index to `gallery/`.",
    ]
    for exhibit in EXHIBITS:
        results = found[exhibit.name]
        told = sentence(results, found.get(exhibit.mediation))
        lines += ["", f"## {exhibit.shows.removesuffix('.')}", "", f"**{told}**", "", f"{run_of(results)}."]
        if exhibit.picture:
            lines += ["", f"![{told}](images/gallery-{exhibit.name}.png)"]
    return "\n".join(lines) + "\n"


def as_html(found: Mapping[str, xr.Dataset]) -> str:
    """Return the index of the folder; texts of results are escaped."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>hydrascope · gallery</title><style>{_STYLE}</style></head><body><h1>Gallery</h1><ol>"
        f"{''.join(_items(found))}</ol></body></html>"
    )


def _items(found: Mapping[str, xr.Dataset]) -> Iterator[str]:
    for exhibit in EXHIBITS:
        results, told = found[exhibit.name], sentence(found[exhibit.name], found.get(exhibit.mediation))
        picture = f'<img src="{exhibit.name}.png" alt="">' if exhibit.picture else ""
        yield (
            f'<li><a href="{exhibit.name}.html">{escape(told)}</a><p>{escape(exhibit.shows)}</p>'
            f'<p class="how">{escape(run_of(results))}</p>{picture}</li>'
        )


def build(folder: Path, measured: Callable[[Exhibit], xr.Dataset]) -> dict[str, xr.Dataset]:
    """Write the reports, the pictures and the index to a folder, and return the results by name.

    Args:
        folder: the folder to write to.
        measured: returns the result of an exhibit.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, xr.Dataset] = {}
    for exhibit in EXHIBITS:
        found[exhibit.name] = results = measured(exhibit)
        mediation = found.get(exhibit.mediation)
        page = hs.reports.report(results, folder / f"{exhibit.name}.html", mediation=mediation, overwrite=True)
        if exhibit.picture:
            draw(exhibit, results, mediation, folder)
        click.echo(f"{page}: {sentence(results, mediation)}")
    (folder / "index.html").write_text(as_html(found), encoding="utf-8")
    return found


@click.command()
@click.option("--out", type=Path, default=Path("gallery"), help="the folder to write")
@click.option("--docs", is_flag=True, help="also write docs/gallery.md and its pictures")
def main(out: Path, docs: bool) -> None:
    """Build the gallery."""
    try:
        found = build(out, partial(measure, stores=out / "results"))
    except HydrascopeError as error:
        click.echo(f"gallery: {error}", err=True)
        raise click.exceptions.Exit(2) from error
    if docs:
        (DOCS / "gallery.md").write_text(as_markdown(found), encoding="utf-8")
        for exhibit in EXHIBITS:
            if exhibit.picture:
                target = DOCS / "images" / f"gallery-{exhibit.name}.png"
                target.write_bytes((out / f"{exhibit.name}.png").read_bytes())
    click.echo(f"{out / 'index.html'}")


if __name__ == "__main__":
    main()
