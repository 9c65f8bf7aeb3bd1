"""One table of importances: means and ranks as plain arithmetic gives them, on the phantom as they are known."""

import csv
import io
import sys

import numpy as np
import pytest
from tiny import shared

import hydrascope as hs
from hydrascope.cli import app
from hydrascope.measures import Bootstrap
from hydrascope.models import phantom
from hydrascope.reports.summary.ranking_table import importance_rows
from hydrascope.reports.summary.serialize import rows_as_csv
from hydrascope.utils.errors import HydrascopeError

FEW = Bootstrap(resamples=100)
PROMPTS = [[place, 40 - place, (place * 7) % 61] for place in range(12)]
OPTIONS = {"readouts": [hs.Logit(7), hs.Logit(9)]}


def test_means_and_ranks():
    model = shared("gpt2")
    exact = hs.sweep(model, PROMPTS, hs.Resample(2), ablate="heads,mlp", read="heads", **OPTIONS)
    fair = hs.analyses.shapley(model, PROMPTS, hs.Resample(2), components="heads,mlp", orders=2, **OPTIONS)
    # In another order of components.
    guess = hs.analyses.attribution.atp(model, PROMPTS, hs.Resample(2), ablate="mlp,heads", **OPTIONS)
    found = hs.measures.rank(hs.measures.per_prompt(exact, "logit.9"), fair, guess, bootstrap=FEW)
    assert list(found["measure"].values) == ["unembed", "removed", "lost", "shapley", "atp"]
    means = exact.isel(readout=1).mean(["prompt", "patch"])
    for part in ("head.1.2", "mlp.0"):
        expected = {
            "unembed": means["unembed"].sel(component=part),
            "removed": -means["direct"].sel(ablated=part),
            "lost": -means["total"].sel(ablated=part),
            "shapley": -fair["shapley"].isel(readout=1).sel(component=part).mean(),
            "atp": -guess["estimate"].isel(readout=1).sel(ablated=part).mean(),
        }
        for measure, value in expected.items():
            one = found.sel(measure=measure, component=part)
            assert float(one["importance"].sel(bound="estimate")) == pytest.approx(float(value), abs=1e-9)
            estimates = found["importance"].sel(measure=measure, bound="estimate").values
            assert int(one["place"]) == 1 + int((estimates > float(one["importance"].sel(bound="estimate"))).sum())
    rows = list(csv.DictReader(io.StringIO(rows_as_csv(importance_rows(found)))))
    assert [row["component"] for row in rows] == list(found["component"].values)
    assert float(rows[3]["atp_low"]) == float(found["importance"].sel(bound="low", measure="atp")[3])


def test_on_the_phantom_ablation_hides_what_is_backed_up_and_shapley_does_not():
    model, prompts = hs.load_model("phantom", dtype="float64"), hs.load_prompts("phantom").limit(40)
    parts = [phantom.SOURCE, phantom.UNWATCHED]
    exact = hs.sweep(model, prompts, hs.Zero(), ablate=parts)
    fair = hs.analyses.shapley(model, prompts, hs.Zero(), components=[*parts, *phantom.BACKUPS], orders=8)
    found = hs.measures.rank(hs.measures.per_prompt(exact), fair.sel(component=parts), bootstrap=FEW)
    place = found["place"].sel(component=phantom.SOURCE)
    assert {name: int(place.sel(measure=name)) for name in found["measure"].values} == {
        "unembed": 1,
        "removed": 1,
        "lost": 2,
        "shapley": 1,
    }


def test_what_cannot_be_ranked():
    model = shared("gpt2")
    exact = hs.sweep(model, PROMPTS, hs.Zero(), ablate="attn", target=7)
    effects = hs.measures.per_prompt(exact)
    # Heads that weren't read have no direct effect that is known, and so no rank by it.
    unread = hs.measures.per_prompt(hs.sweep(model, PROMPTS, hs.Zero(), ablate="heads.1", target=7))
    heads = hs.measures.rank(unread, bootstrap=FEW)
    assert np.isnan(heads["place"].sel(measure="unembed")).all()
    other = hs.analyses.attribution.atp(model, PROMPTS, hs.Zero(), ablate="mlp", target=7)
    with pytest.raises(HydrascopeError, match="'atp' has other components than the results"):
        hs.measures.rank(effects, other)
    same = hs.analyses.attribution.atp(model, PROMPTS, hs.Zero(), ablate="attn", target=7)
    for chosen in ([0, 1], [*range(1, 12), 0]):
        with pytest.raises(HydrascopeError, match="'atp' has other prompts than the results: select the same of both"):
            hs.measures.rank(effects, same.isel(prompt=chosen))
    some = hs.measures.rank(effects.isel(prompt=[3, 1]), same.isel(prompt=[3, 1]), bootstrap=FEW)["importance"]
    expected = -same["estimate"].isel(readout=0, prompt=[3, 1]).mean("prompt")
    np.testing.assert_allclose(some.sel(bound="estimate", measure="atp"), expected)
    with pytest.raises(HydrascopeError, match="atp is given twice"):
        hs.measures.rank(effects, same, same)
    with pytest.raises(HydrascopeError, match="neither shapley nor attribution"):
        hs.measures.rank(effects, exact)


@pytest.mark.slow
def test_from_the_command_line(tmp_path, capsys, monkeypatch):
    def run(*options: str) -> tuple[int, str, str]:
        command = ["rank", "phantom", "--prompts", "phantom", "--limit", "20", "--ablation", "zero"]
        monkeypatch.setattr(
            sys, "argv", ["hydrascope", *command, "--components", "attn", "--out", str(tmp_path / "r.zarr"), *options]
        )
        with pytest.raises(SystemExit) as end:
            app.main()
        return end.value.code or 0, *capsys.readouterr()

    code, out, _ = run("--orders", "4")
    assert code == 0
    assert all(word in out for word in ("Whom to credit", "shapley", "AtP", "GIM", "attn.3"))
    assert max(map(len, out[out.index("Whom") :].splitlines())) <= 80
    code, out, _ = run("--by", "atp", "--format", "csv", "--resume")
    assert code == 0
    assert out.startswith("component,unembed,unembed_low")  # alone, for programs
    code, _, errors = run("--by", "loss", "--resume")
    assert (code, errors.count("\n")) == (2, 1)
    assert "unknown --by loss" in errors
