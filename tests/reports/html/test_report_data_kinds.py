"""What a page shows of mediations, of interactions, and of effects alone."""

import numpy as np
import pytest
from opened import FEW, decoded, lines, names

import hydrascope as hs
from hydrascope import measures
from hydrascope.reports.kinds import summarise
from hydrascope.reports.pages import page_data
from hydrascope.reports.summary import sentences
from hydrascope.reports.summary.interval import format_significant

#: What sublayers write in ablated runs, under each reading of σ.
WRITTEN = {"clean": "unembed_ablated", "own": "unembed_ablated_own"}


@pytest.fixture(scope="module")
def phantom():
    return hs.load_model("phantom"), hs.load_prompts("phantom").limit(40)


def test_a_mediation_has_a_matrix_of_what_each_response_is_worth(phantom):
    experiment = hs.Mediation("attn.3", "layers")
    results = hs.sweep(*phantom, hs.Zero(), ablate=experiment)
    described, chunks = page_data(results, FEW)
    found = measures.mediation(results).isel(readout=0).sel(ablated="attn.3")
    clean, pictures = (each["pictures"] for each in described["readouts"][0]["readings"])
    assert clean[:2] == pictures[:2]
    read = [(each["sigma"], each["caption"]) for each in pictures]
    assert read == [(None, "logit"), (None, "logit"), ("own", "logit, at each run’s own σ")]
    assert [each["name"] for each in pictures] == ["Lost again without it", "Brought by it alone", "Response"]
    assert [each["name"] for each in described["ablated"]] == ["attn.3"]
    reactions = {each.mediator: each for each in summarise(results, FEW).reactions}
    texts = described["readouts"][0]["readings"][0]
    assert "".join(texts["verdicts"][0]).startswith("Who restores what attn.3 removes: necessary ")
    strongest = summarise(results, FEW).reactions[0]
    assert texts["ranked"]["rows"][0][:3] == ["attn.3", strongest.mediator, format_significant(strongest.restored_by)]
    for number, name in enumerate(("restored_by", "restored_alone")):
        bounds = decoded(described["arrays"], chunks, pictures[number]["array"])[:, 0]
        for column, mediator in enumerate(pictures[number]["columns"]):
            one = found.sel(mediator=mediator)
            expected = float(one[name].mean("prompt")) if one["downstream"] else np.nan
            np.testing.assert_allclose(bounds[0, column], expected, rtol=1e-5, atol=1e-6)
            if mediator in reactions:
                told = getattr(reactions[mediator], name)
                np.testing.assert_allclose(
                    bounds[:, column], [told.estimate, told.low, told.high], rtol=1e-4, atol=1e-6
                )
    assert reactions


PARTS = ["attn.1", "attn.3", "mlp.3", "head.4.1"]


@pytest.fixture(scope="module", params=["effects", "means"])
def pairs(phantom, request):
    """Pairs of components, a sublayer and a head of its own among them, which are none."""
    experiment = hs.Interactions([*PARTS, "attn.4"])
    return hs.sweep(*phantom, hs.Zero(), ablate=experiment, keep=request.param, readouts=hs.Logit())


def test_interactions_have_a_matrix_of_pairs(pairs):
    described, chunks = page_data(pairs, FEW)
    found = measures.interactions(pairs).isel(readout=0)
    told = summarise(pairs, FEW)
    first = described["readouts"][0]["readings"][0]["pictures"][0]
    assert (first["name"], first["joint"], first["grey"]) == ("Interaction", " and ", "no pair")
    assert (
        first["columns"] == names((described, chunks), "ablated") == ["attn.1", "attn.3", "mlp.3", "attn.4", "head.4.1"]
    )
    bounds = decoded(described["arrays"], chunks, "0.picture.0")
    for row, one in enumerate(first["columns"]):
        for column, other in enumerate(first["columns"]):
            mean = found["interaction"].sel(first=one, second=other).mean("prompt", skipna=False)
            np.testing.assert_allclose(bounds[0, row, column], mean, rtol=1e-5, atol=1e-6)
            pair = next((each for each in told.pairs if {each.first, each.second} == {one, other}), None)
            assert (pair is None) == np.isnan(mean)
            if pair:
                expected = [pair.interaction.estimate, pair.interaction.low, pair.interaction.high]
                np.testing.assert_allclose(bounds[:, row, column], expected, rtol=1e-5, atol=1e-6)
    verdict = "".join(described["readouts"][0]["readings"][0]["verdicts"][0])
    assert [verdict] == sentences(told)
    assert "attn.3 and head.4.1 −1.19" in verdict
    assert described["ablated"][described["start"]]["name"] == "attn.3"


@pytest.mark.slow
def test_single_components_of_interactions_are_shown_as_a_run_of_them_would_be(pairs, phantom):
    described, chunks = page_data(pairs, FEW)
    plain = hs.sweep(*phantom, hs.Zero(), ablate=[*PARTS, "attn.4"])
    expected, of_plain = page_data(plain, FEW)
    assert described["ablated"] == expected["ablated"]
    kept = decoded(described["arrays"], chunks, "0.amounts")
    np.testing.assert_allclose(kept, decoded(expected["arrays"], of_plain, "0.amounts"), atol=1e-5)
    found, of_whole = lines((described,)), lines((expected,))
    told, whole = (each["readouts"][0]["readings"][0] for each in (described, expected))
    assert [said[0] for said in told["ablations"]] == [said[0] for said in whole["ablations"]]
    # What is restored is said to the same digits; by whom only where that is known.
    for said, full in zip(told["ablations"], whole["ablations"], strict=True):
        assert said[1].removesuffix(".") == full[1].partition(". Shares: ")[0].removesuffix(".")
    assert [line["slope"] for line in found] == [line["slope"] for line in of_whole]


def test_what_was_not_kept_is_not_shown(pairs):
    described, chunks = page_data(pairs, FEW)
    if pairs.attrs["keep"] == "means":
        assert [each["name"] for each in described["readouts"][0]["readings"][0]["pictures"]] == [
            "Interaction",
            "Response",
        ]
        assert described["without"] is None
        assert {"0.clean_pass.mean", "0.clean.ablated.0", "0.own.picture"} <= set(chunks)
        assert len(described["readouts"][0]["readings"]) == 2
    else:
        assert described["without"]["views"] == ["trace"]
        assert "--keep means" in described["without"]["why"]
        assert set(chunks) == {"tokens", "0.amounts", "0.outcomes.mean", "0.picture.0"}
    assert any("Writes" in note for note in described["notes"]) == (pairs.attrs["keep"] == "means")


def test_effects_alone_have_components_and_prompts_and_no_matrix(phantom):
    kept, alone = (hs.sweep(*phantom, hs.Zero(), ablate="attn", keep=keep) for keep in ("means", "effects"))
    described, chunks = page_data(alone, FEW)
    expected, of_kept = page_data(kept, FEW)
    assert described["without"]["views"] == ["matrix", "trace"]
    assert set(chunks) == {"tokens", "0.amounts", "0.outcomes.mean"}
    np.testing.assert_array_equal(
        decoded(described["arrays"], chunks, "0.amounts"), decoded(expected["arrays"], of_kept, "0.amounts")
    )
    (told,) = described["readouts"][0]["readings"]
    assert told["sigma"] is None
    assert (told["verdicts"], told["warnings"], told["caption"]) == ([], [], "logit")
    assert lines((described,)) == lines((expected,))
    assert [each["name"] for each in told["scatters"]] == ["restored on removed"]
    full = expected["readouts"][0]["readings"][0]["ablations"]
    assert [said[0] for said in told["ablations"]] == [said[0] for said in full]
    assert described["ablated"][described["start"]]["name"] == "attn.3"


def test_a_mediation_of_effects_alone_shows_what_reactions_are_worth(phantom):
    experiment = hs.Mediation("attn.3", "layers")
    kept, alone = (hs.sweep(*phantom, hs.Zero(), ablate=experiment, keep=keep) for keep in ("means", "effects"))
    described, chunks = page_data(alone, FEW)
    expected, of_kept = page_data(kept, FEW)
    pictures = described["readouts"][0]["readings"][0]["pictures"]
    assert [each["name"] for each in pictures] == ["Lost again without it", "Brought by it alone"]
    for number in (0, 1):
        found = decoded(described["arrays"], chunks, f"0.picture.{number}")
        np.testing.assert_array_equal(found, decoded(expected["arrays"], of_kept, f"0.picture.{number}"))
