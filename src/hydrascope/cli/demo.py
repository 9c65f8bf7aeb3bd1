"""The demo: a real model beside a positive control, or the shipped models alone."""

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydrascope.cli.options import say
from hydrascope.cli.prompt_request import PromptRequest
from hydrascope.cli.results import open_selected
from hydrascope.cli.run_commands import RunRequest, run_loaded

if TYPE_CHECKING:
    import xarray as xr

    from hydrascope.models.language_model import LanguageModel
    from hydrascope.reports.summary import Summary
    from hydrascope.reports.summary.verdict import Verdict

#: The real model, and the facts that it is asked.
MODEL, PROMPTS = "smollm2", "common-facts"
#: The model that was trained while its sublayers failed: it is known to repair itself.
CONTROL = "built-in-depth"
#: The numbers of prompts: set to zero, also with frozen mediators, and resampled with `RESAMPLED_PATCHES` patches.
ZERO, RESAMPLED = 200, 60
RESAMPLED_PATCHES = 3


def show_real_model(out: Path, *, overwrite: bool) -> None:
    """Measure SmolLM2 and the control; print the findings, and write pages to `out`.

    Raises:
        HydrascopeError: the model isn't fetched yet; a result can't be written.
    """
    from hydrascope import Mediation, Resample, Zero, load_model

    model = load_model(MODEL)
    zero = _measured(model, out / "zero.zarr", ZERO, Zero(), "layers", prompts=PROMPTS, overwrite=overwrite)
    component = _chosen(zero)
    mediation = Mediation(component, "layers")
    mediated = _measured(model, out / "who.zarr", ZERO, Zero(), mediation, prompts=PROMPTS, overwrite=overwrite)
    resample = Resample(RESAMPLED_PATCHES)
    resampled = _measured(
        model, out / "resample.zarr", RESAMPLED, resample, "layers", prompts=PROMPTS, overwrite=overwrite
    )
    control = _measured(
        load_model(CONTROL), out / "control.zarr", ZERO, Zero(), "layers", prompts="demo", overwrite=overwrite
    )
    measured = {MODEL: zero, f"{MODEL}, resampled": resampled, f"{CONTROL} (control)": control}
    _tell(measured, mediated, resampled, out)


def show_shipped_models(out: Path, limit: int, *, overwrite: bool) -> None:
    """Measure the shipped models, each sublayer set to zero, and compare them."""
    from hydrascope import Logit, Placebo, Zero, load_model
    from hydrascope.reports.kinds import draw_all
    from hydrascope.utils import assets

    measured = {
        name: _measured(
            load_model(name),
            out / f"{name}.zarr",
            limit,
            Zero(),
            "layers",
            prompts="demo",
            overwrite=overwrite,
            readouts=[Logit(), Placebo(2)],
        )
        for name in assets.MODELS
    }
    best = _compare(measured, out)
    say(str(draw_all(measured[best], out / "figures")))
    say(f"Comparison: {out / 'figures' / 'comparison.png'}. The other figures there show {best}.")
    say(f"For more: hydrascope summary {out / f'{best}.zarr'} --full")


def _measured(
    model: "LanguageModel",
    path: Path,
    limit: int,
    ablation: Any,
    ablate: Any,
    *,
    prompts: str,
    overwrite: bool,
    **options: Any,
) -> "xr.Dataset":
    """Measure to `path`, or go on with the result there; return it."""
    from hydrascope.runs.config import Output

    output = Output(path, resume=not overwrite, overwrite=overwrite)
    asked = PromptRequest(prompts, limit)
    request = RunRequest(model.name, asked, {}, {"ablation": ablation, "ablate": ablate, **options}, output)
    run_loaded(request, model, request.read_prompts())
    return open_selected(path)


def _chosen(results: "xr.Dataset") -> str:
    """Return the component that the page shows, else the strongest attention sublayer.

    The paper's claim is about attention, and few components lie downstream of a late sublayer.
    """
    from hydrascope.measures import per_prompt
    from hydrascope.reports.kinds import summarise
    from hydrascope.reports.summary import strongest_component

    component = _shown(summarise(results)).component.split(" or ")[0]
    return component or str(strongest_component(per_prompt(results), "attn"))


def _tell(measured: "dict[str, xr.Dataset]", mediated: "xr.Dataset", resampled: "xr.Dataset", out: Path) -> None:
    """Print the findings, and write the page."""
    from hydrascope.reports.kinds import summarise
    from hydrascope.reports.pages import report
    from hydrascope.reports.summary.verdict_text import mediation_sentences

    _compare(measured, out)
    for sentence in mediation_sentences(summarise(mediated)):
        say(textwrap.fill(sentence, 79, subsequent_indent="  ") + "\n")
    page = report(measured[MODEL], out / "report.html", mediation=mediated, other=resampled, overwrite=True)
    say(f"Report: {page}")
    say(f"Comparison: {out / 'figures' / 'comparison.png'}")
    say(f"For more: hydrascope summary {out / 'zero.zarr'} --full")


def _shown(summary: "Summary") -> "Verdict":
    """Return the verdict on attention if it chose a component, else the clearest."""
    from hydrascope.reports.summary import clearest_verdict

    attention = [each for each in summary.verdicts if each.kind == "attn" and each.component]
    return attention[0] if attention else clearest_verdict(summary.verdicts)


def _compare(measured: "dict[str, xr.Dataset]", out: Path) -> str:
    """Print a verdict for each result, draw the comparison, and return the clearest."""
    from hydrascope.reports.figures.comparison import figure_comparison
    from hydrascope.reports.figures.origin import save_of_several
    from hydrascope.reports.kinds import summarise
    from hydrascope.reports.summary import one_line
    from hydrascope.reports.summary.comparison import compare

    summaries: dict[str, Summary] = {name: summarise(results) for name, results in measured.items()}
    found = {name: _shown(summary) for name, summary in summaries.items()}
    save_of_several(figure_comparison(compare(measured)), measured, out / "figures", "comparison")
    say()
    for name, verdict in found.items():
        say(textwrap.fill(f"{name}: {one_line(verdict, summaries[name].run)}", 79, subsequent_indent="  ") + "\n")
    return max(found, key=lambda name: (found[name].answer == "yes", found[name].restored.estimate))
