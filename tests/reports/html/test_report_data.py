"""What a page shows is what the measures say, each number against one that is computed plainly from the results."""

import numpy as np
import pytest
import synthetic
import xarray as xr
from opened import FEW, decoded, example, lines, names
from rest_slow import rest_slow
from scipy.special import stdtrit
from tiny import tiny

import hydrascope as hs
from hydrascope import measures
from hydrascope.reports.html.array_encoding import STEPS
from hydrascope.reports.kinds import summarise
from hydrascope.reports.pages import page_data
from hydrascope.reports.summary import format_interval, sentences
from hydrascope.reports.summary.interval import Interval, format_share
from hydrascope.reports.summary.verdict_text import clearest_first
from hydrascope.utils.errors import HydrascopeError

#: What sublayers write in ablated runs, under each reading of σ.
WRITTEN = {"clean": "unembed_ablated", "own": "unembed_ablated_own"}


@pytest.fixture(scope="module")
def page(results):
    return page_data(results, FEW)


def test_components_stand_in_the_order_of_the_figures(page):
    layers = [f"{kind}.{block}" for block in range(4) for kind in ("attn", "mlp")]
    assert names(page, "ablated") == [*layers, "head.2.1"]
    assert names(page, "components") == layers
    assert names(page, "readouts") == ["logit", "placebo.0"]


@pytest.mark.parametrize(("readout", "sigma"), [(0, "clean"), (0, "own"), (1, "clean"), (1, "own")])
def test_responses(results, page, readout, sigma):
    found = decoded(page[0]["arrays"], page[1], f"{readout}.{sigma}.picture")
    at = results.isel(readout=readout)
    sure = measures.responses(measures.per_prompt(results, str(at["readout"].values), sigma), FEW)
    for row, ablated in enumerate(names(page, "ablated")):
        for column, component in enumerate(names(page, "components")):
            if not at["downstream"].sel(ablated=ablated, component=component):
                assert np.isnan(found[:, row, column]).all()
                continue
            before = at["unembed"].sel(component=component).values.astype(float)
            after = at[WRITTEN[sigma]].sel(ablated=ablated, component=component).values.astype(float)
            np.testing.assert_allclose(found[0, row, column], (after - before).mean(), rtol=1e-5, atol=1e-6)
            bounds = sure.sel(ablated=ablated, component=component).values
            np.testing.assert_array_equal(found[:, row, column], bounds.astype(np.float32))


@pytest.mark.parametrize("readout", [0, 1])
def test_amounts(results, page, readout):
    removed, lost, restored = decoded(page[0]["arrays"], page[1], f"{readout}.amounts")
    at = results.isel(readout=readout).sel(ablated=names(page, "ablated"))
    total, direct = (
        at[name].astype(float).mean("patch").transpose("ablated", "prompt") for name in ("total", "direct")
    )
    np.testing.assert_allclose(removed, -direct, rtol=1e-6)
    np.testing.assert_allclose(lost, -total, rtol=1e-6)
    np.testing.assert_allclose(restored, total - direct, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("readout", [0, 1])
def test_bars(results, page, readout):
    """Means of what is removed and lost, with the bounds that the sentences say; rows as in the matrix."""
    described, chunks = page
    bars = described["readouts"][readout]["bars"]
    found = decoded(described["arrays"], chunks, bars["array"])
    at = results.isel(readout=readout).sel(ablated=names(page, "ablated"))
    for amount, effect in enumerate(("direct", "total")):
        values = -at[effect].astype(float).mean("patch").transpose("prompt", "ablated").values
        np.testing.assert_allclose(found[amount, 0], values.mean(0), rtol=1e-5, atol=1e-6)
        # Bounds of a mean of 40 are about those of Student's t.
        wide = 2 * stdtrit(39, 0.975) * values.std(0, ddof=1) / 40**0.5
        np.testing.assert_allclose(found[amount, 2] - found[amount, 1], wide, rtol=0.4, atol=1e-6)
        assert (found[amount, 1] <= found[amount, 0]).all()
        assert (found[amount, 0] <= found[amount, 2]).all()
    for row, texts in enumerate(described["readouts"][readout]["readings"][0]["ablations"]):
        removed, lost = (format_interval(Interval(*map(float, found[amount, :, row])), 2) for amount in (0, 1))
        assert texts[0].split(" removes ")[1].startswith(f"{removed} ")
        assert f" loses {lost}" in texts[0]
    least, most = bars["limits"]
    assert least <= min(0, np.sort(found[:, 0].min(0))[1])
    assert most >= np.sort(found[:, 0].max(0))[-2]
    assert all(picture["bars"] for each in described["readouts"][readout]["readings"] for picture in each["pictures"])


@pytest.mark.parametrize("sigma", ["clean", "own"])
def test_traces(results, page, sigma):
    """Means as they are; of single prompts what can't respond isn't kept at the clean σ: it stays what it was."""
    described, chunks = page
    at = results.isel(readout=0).sel(component=names(page, "components"))
    clean = decoded(described["arrays"], chunks, "0.clean_pass")
    np.testing.assert_array_equal(clean, at["unembed"].values)
    np.testing.assert_allclose(
        decoded(described["arrays"], chunks, "0.clean_pass.mean"), at["unembed"].astype(float).mean("prompt"), rtol=1e-5
    )
    means = decoded(described["arrays"], chunks, f"0.{sigma}.ablated.mean")
    for row, ablated in enumerate(names(page, "ablated")):
        expected = at[WRITTEN[sigma]].sel(ablated=ablated).values.astype(float)
        np.testing.assert_allclose(means[row], expected.mean(0), rtol=1e-4, atol=1e-6)
        kept = described["arrays"][f"0.{sigma}.ablated.{row}"]["columns"]
        found = clean.astype(float)
        found[:, kept] = decoded(described["arrays"], chunks, f"0.{sigma}.ablated.{row}")
        assert (abs(found - expected) <= np.ptp(expected, axis=0) / (2 * STEPS) + 1e-6).all()
        assert (len(kept) < 8) == (sigma == "clean" and ablated != "attn.0")


def test_tokens(results, page):
    """Which texts, which are ablated (1), which the subject's (2)."""
    described, chunks = page
    texts, marks = decoded(described["arrays"], chunks, "tokens").astype(int)
    assert len(set(described["tokens"])) == len(described["tokens"])
    for prompt in range(results.sizes["prompt"]):
        at = results.isel(prompt=prompt)
        count = int((at["token_id"] >= 0).sum())
        assert "".join(described["tokens"][place] for place in texts[prompt, :count]) == str(at["text"].values)
        assert set(texts[prompt, count:]) <= {-1}
        expected = [0] * len(marks[prompt])
        expected[count - 1] += 1
        for place in range(int(at["subject_first"]), int(at["subject_end"])):
            expected[place] += 2
        assert marks[prompt].tolist() == expected
    assert (marks == 2).any()


@pytest.mark.slow
def test_a_result_that_does_not_tell_its_tokens_is_shown_without(results):
    told, chunks = page_data(results.drop_vars([name for name in results.coords if "token" in results[name].dims]), FEW)
    assert told["tokens"] == []
    assert "tokens" not in chunks


@pytest.mark.parametrize(("readout", "sigma"), [(0, "clean"), (0, "own"), (1, "own")])
def test_every_patch_of_every_prompt(results, page, readout, sigma):
    described, chunks = page
    at = results.isel(readout=readout).sel(component=names(page, "components"))
    by_patch, scale = (at[name].astype(float) for name in ("unembed_ablated_by_patch", "scale"))
    assert described["patched"] == 40
    for row, ablated in enumerate(names(page, "ablated")):
        expected = (by_patch if sigma == "clean" else by_patch * scale).sel(ablated=ablated)
        expected = expected.transpose("prompt", "patch", "component").values
        kept = described["arrays"][f"{readout}.{sigma}.patches.{row}"]["columns"]
        found = np.repeat(decoded(described["arrays"], chunks, f"{readout}.clean_pass").astype(float)[:, None], 2, 1)
        found[..., kept] = decoded(described["arrays"], chunks, f"{readout}.{sigma}.patches.{row}").reshape(40, 2, -1)
        assert (abs(found - expected) <= np.ptp(expected, axis=(0, 1)) / (2 * STEPS) + 1e-6).all()
        assert np.ptp(expected[..., kept], axis=1).max() > 0.1
        mean = at[WRITTEN[sigma]].sel(ablated=ablated).values
        np.testing.assert_allclose(found.mean(1), mean, atol=1e-3 * np.ptp(expected))


@pytest.mark.slow
def test_patches_of_as_many_prompts_as_fit(results, monkeypatch):
    one = 2 * 2 * 2 * 9 * 2 * 8  # bytes, readouts, readings, ablated components, patches, sublayers
    monkeypatch.setattr("hydrascope.reports.html.traces.PATCH_BYTES", 4 * one - 1)
    described, chunks = page_data(results, FEW)
    assert described["patched"] == 3
    found = decoded(described["arrays"], chunks, "1.own.patches.0").reshape(3, 2, 8)
    at = results.isel(readout=1, prompt=slice(3)).sel(component=names((described,), "components"), ablated="attn.0")
    expected = (at["unembed_ablated_by_patch"] * at["scale"]).transpose("prompt", "patch", "component")
    np.testing.assert_allclose(found, expected, atol=1e-3)
    kept = [described["arrays"][name]["shape"][0] for name in described["arrays"] if ".patches." in name]
    assert kept == [3 * 2] * 2 * 2 * 9


@pytest.mark.slow
def test_no_patches_where_there_is_one_or_means_alone_were_kept(results):
    one = results.isel(readout=[0])
    for of in (one.isel(patch=[0]), one.drop_vars("unembed_ablated_by_patch")):
        described, chunks = page_data(of, FEW)
        assert described["patched"] == 0
        assert not any(".patches." in name for name in chunks)


def test_what_does_not_depend_on_sigma_is_there_once(page):
    described, chunks = page
    of_one = [name.removeprefix("0.") for name in chunks if name.startswith("0.")]
    by_part = (f"{kind}.{part}" for kind in ("ablated", "patches") for part in range(9))
    each = ["ablated.mean", *by_part, "picture", "compensated"]
    assert sorted(of_one) == sorted(
        ["clean_pass", "clean_pass.mean", "amounts", "outcomes.mean", *(f"{s}.{a}" for s in WRITTEN for a in each)]
    )
    assert [each["name"] for each in described["readings"]] == list(WRITTEN)


def test_one_readout_taken_from_several(results, page):
    described, chunks = page_data(results.isel(readout=1), FEW)
    assert described["patched"] == 40
    for name in ("own.picture", "clean.patches.3", "clean_pass"):
        assert chunks[f"0.{name}"] == page[1][f"1.{name}"]


def test_inside_the_network_there_is_one_reading():
    results = example(readouts={"logit": -1, "inner": 2})
    described, chunks = page_data(results, FEW)
    first, inner = described["readouts"]
    assert [each["sigma"] for each in first["readings"]] == ["clean", "own"]
    assert [each["sigma"] for each in inner["readings"]] == [None]
    assert [each["sigma"] for each in inner["readings"][0]["pictures"]] == [None]
    assert "σ" not in str(inner)
    assert not any(name.startswith("1.own") for name in chunks)


@pytest.mark.parametrize(("place", "sigma"), rest_slow(enumerate(WRITTEN), (1,)))
def test_words_are_those_of_the_summary(results, page, place, sigma):
    for readout in page[0]["readouts"]:
        found, told = summarise(results, FEW, readout["name"], sigma), readout["readings"][place]
        # The clearest comes first.
        assert ["".join(each) for each in told["verdicts"]] == sentences(clearest_first(found))
        assert told["warnings"] == list(found.warnings)
        for part in found.components:
            said = " ".join(told["ablations"][names(page, "ablated").index(part.ablated)])
            assert format_interval(part.removed, 2) in said
            assert format_interval(part.lost, 2) in said
            shares = part.attention, part.mlp, part.norm
            if np.isfinite(part.restored.low):
                assert all(format_interval(each, 2) in said for each in shares)
                assert said.endswith(f", {measures.SIGMA_NAME[sigma]}.")
        assert sum("comes back" in " ".join(each) for each in told["ablations"]) > 2


def is_of(line, x, y):
    """The least-squares line of y on x, from end to end."""
    slope, intercept = np.polyfit(x, y, 1)
    ends = np.array([x.min(), x.max()])
    np.testing.assert_allclose(line["ends"], np.stack([ends, intercept + slope * ends], 1), rtol=1e-4, atol=1e-6)
    assert line["slope"].startswith(f"{round(slope, 2) + 0.0:.2f}".replace("-", "−"))


def test_what_is_undone_of_an_increase_is_called_that():
    results = synthetic.results(4, 40, 1, ablated=["attn.0", "attn.1"])
    results["direct"].loc[{"ablated": "attn.1"}] = (2 + np.linspace(-0.5, 0.5, 40))[:, None]
    results["total"].loc[{"ablated": "attn.1"}] = -1
    part = summarise(results, FEW).components[1]
    removes, adds = (" ".join(each) for each in page_data(results, FEW)[0]["readouts"][0]["readings"][0]["ablations"])
    assert "instead" not in removes
    share = format_share(part.restored)
    assert f". It adds instead of removing: {share} of the increase is undone. Shares: attention " in adds
    assert "Restored" not in adds


def test_the_line_of_restored_on_removed(results, page):
    at = results.isel(readout=0)
    for name, line in zip(names(page, "ablated"), lines(page), strict=True):
        total, direct = (at[each].sel(ablated=name).astype(float).mean("patch").values for each in ("total", "direct"))
        is_of(line, -direct, total - direct)
    assert lines(page) == lines(page, reading=1)


@pytest.mark.parametrize(("readout", "sigma"), [(0, "clean"), (0, "own"), (1, "own")])
def test_ce_on_de(results, page, readout, sigma):
    described, chunks = page
    scatter = described["readouts"][readout]["readings"][list(WRITTEN).index(sigma)]["scatters"][1]
    assert (scatter["name"], scatter["sigma"], scatter["rows"]) == ("CE on DE", sigma, [0, 1])
    at = results.isel(readout=readout).astype(float, keep_attrs=True)
    points = decoded(described["arrays"], chunks, scatter["array"])
    places = zip(names(page, "ablated"), scatter["lines"], *points, strict=True)
    for name, line, direct, compensated in places:
        np.testing.assert_allclose(direct, at["unembed"].sel(component=name), rtol=1e-6)
        layers = names(page, "components")
        below = [layer for layer in layers if bool(results["downstream"].sel(ablated=name, component=layer))]
        after, before = (
            values.sel(component=below) for values in (at[WRITTEN[sigma]].sel(ablated=name), at["unembed"])
        )
        expected = (after - before).sum("component").values
        np.testing.assert_allclose(compensated, expected, rtol=1e-4, atol=1e-5)
        if below:
            is_of(line, direct, expected)
        else:
            assert line is None


def test_it_opens_at_the_component_of_the_verdict(results, page):
    verdicts = summarise(results, FEW).verdicts
    assert any(names(page, "ablated")[page[0]["start"]] in verdict.component for verdict in verdicts)


def test_what_cannot_be_shown():
    with pytest.raises(HydrascopeError, match="no hydrascope result"):
        page_data(xr.Dataset(), FEW)
    # What measures make of a result is none.
    found = measures.interactions(synthetic.pairs(["attn.0", "mlp.0"], 3))
    for other in (None, "gpt2.zarr"):
        with pytest.raises(HydrascopeError, match="is no hydrascope result: give the result of a run"):
            page_data(other, FEW)
    results = synthetic.results(3, 4, 2)
    for taken in ({"prompt": 0}, {"ablated": 0}, {"patch": 0}):
        with pytest.raises(HydrascopeError, match="select with a list"):
            page_data(results.isel(taken), FEW)
    for none in ({"prompt": []}, {"ablated": []}):
        with pytest.raises(HydrascopeError, match="holds no measurements"):
            page_data(results.isel(none), FEW)
    with pytest.raises(
        HydrascopeError, match="no hydrascope result: it has no variable 'ablated': give the result of a run"
    ):
        page_data(found, FEW)


def test_where_nothing_is_removed_directly():
    results = hs.sweep(tiny("gpt2"), [[5, 6, 7, 8], [9, 10, 11]], hs.Zero(), ablate="attn.0", at="-2")
    readout = page_data(results, FEW)[0]["readouts"][0]
    told = readout["readings"][1]
    lost = -results["total"].isel(readout=0, ablated=0).values.astype(float).mean()
    assert abs(lost) > 0.1
    assert told["verdicts"] == []
    assert "nothing is removed directly" in told["warnings"][0]
    assert f"{lost:.2f}".replace("-", "−") in told["ablations"][0][0]
    # What it adds at the last position isn't what is ablated.
    assert [(each["name"], each["lines"]) for each in told["scatters"]] == [("restored on removed", [None])]


@pytest.mark.slow
def test_an_unfinished_run_is_marked(results):
    told = page_data(results.assign_attrs(prompt_count=100), FEW)[0]
    assert (
        "only 40 of 100 prompts are measured: finish the run with --resume"
        in told["readouts"][0]["readings"][0]["warnings"]
    )


def test_some_prompts_of_a_finished_run_are_no_unfinished_one(results):
    finished = results.assign_attrs(prompt_count=40, measured=40)
    assert not any(
        "--resume" in warning
        for warning in page_data(finished.isel(prompt=[1, 5]), FEW)[0]["readouts"][0]["readings"][0]["warnings"]
    )


@pytest.mark.slow
def test_how_wide_intervals_are_is_said_of_answers_too(results):
    confidence = summarise(results, FEW).verdicts[0].confidence
    assert confidence > FEW.confidence
    notes = page_data(results, FEW)[0]["notes"]
    assert notes[0].startswith("Intervals: 95%")
    assert notes[1].startswith(f"In the 3 answers above they are {confidence:.1%}")


def test_one_prompt_has_no_bounds(results):
    described, chunks = page_data(results.isel(prompt=[0]), FEW)
    mean, *bounds = decoded(described["arrays"], chunks, "0.own.picture")
    assert np.isfinite(mean).any()
    assert np.isnan(bounds).all()
    assert lines((described,)) == lines((described,), scatter=1) == [None] * 9
    said = described["readouts"][0]["readings"][0]["ablations"][0]
    assert said[1:] == ["One prompt has no intervals, and says nothing about others."]
