"""Who repairs: against runs made one by one with plain forward passes, on the phantom whose watchers are known, and by
identities that hold for any model."""

import numpy as np
import pytest
from alone import PROMPTS, total
from rest_slow import rest_slow
from stored import run_to_disk
from tiny import tiny

import hydrascope as hs
from hydrascope import measures
from hydrascope.models import phantom
from hydrascope.utils.errors import HydrascopeError


@pytest.mark.parametrize("case", rest_slow(["gpt2", "gpt_neox", "gemma2"], ("gemma2",)))
def test_differences_of_runs_made_one_by_one(case):
    model = tiny(case)
    found = hs.analyses.mediation(
        model, PROMPTS, hs.Resample(2, seed=3), ablate="attn.0,head.1.2", mediators="layers,heads.2"
    )
    layers = list(map(str, model.sublayers))
    below = [name for name in layers if not name.endswith(".0")] + ([] if model.parallel else ["mlp.0"])
    below = [name for name in layers if name in below]
    bare, rest = total(model, "attn.0"), "|".join(["attn.0", *below])
    for name in ("attn.1", "mlp.2"):
        expected = bare - total(model, f"attn.0|{name}")
        np.testing.assert_allclose(found["restored_by"].sel(ablated="attn.0", mediator=name), expected, atol=1e-6)
        others = "|".join(["attn.0", *(each for each in below if each != name)])
        expected = total(model, others) - total(model, rest)
        np.testing.assert_allclose(found["restored_alone"].sel(ablated="attn.0", mediator=name), expected, atol=1e-6)
    np.testing.assert_allclose(found["restored"].sel(ablated="attn.0"), bare - total(model, rest), atol=1e-6)
    head = "head.2.1"
    expected = bare - total(model, f"attn.0|{head}")
    np.testing.assert_allclose(found["restored_by"].sel(ablated="attn.0", mediator=head), expected, atol=1e-6)
    held = [each for each in below if each != "attn.2"] + ["head.2.0", "head.2.2", "head.2.3"]
    expected = total(model, "|".join(["attn.0", *held])) - total(model, rest)
    np.testing.assert_allclose(found["restored_alone"].sel(ablated="attn.0", mediator=head), expected, atol=1e-6)


@pytest.mark.parametrize("case", ["gpt2", "llama", "gpt_neox"])
def test_identities(case):
    model = tiny(case)
    found = hs.analyses.mediation(model, PROMPTS, hs.Resample(2), ablate="layers", mediators="layers")
    for ablated in found["ablated"].values:
        for mediator in found["mediator"].values:
            one = found.sel(ablated=ablated, mediator=mediator)
            stage = [model.stage(hs.Component.parse(str(label))) for label in (ablated, mediator)]
            assert bool(one["downstream"]) == (stage[1] > stage[0])
            if stage[1] <= stage[0]:
                # Freezing what isn't downstream changes nothing, exactly.
                assert not one["restored_by"].any()
                assert not one["restored_alone"].any()
    # Where one sublayer alone is downstream, it is all that there is: necessary and sufficient.
    if not model.parallel:
        last = found.sel(ablated="attn.2", mediator="mlp.2")
        np.testing.assert_allclose(last["restored_by"], last["restored_alone"], atol=1e-12)
        np.testing.assert_allclose(last["restored_by"], last["restored"], atol=1e-12)
    # With everything downstream frozen, what is left is the direct effect.
    np.testing.assert_allclose(found["total"] - found["restored"], found["direct"], atol=1e-9)


def test_together_and_from_disk(tmp_path):
    model = tiny("llama")
    asked = hs.Mediation("attn.0,head.1.2", "mlp,head.2.1,attn.2")
    found = hs.analyses.mediation(
        model, PROMPTS, hs.Resample(2, seed=3), ablate=asked.ablate, mediators=asked.mediators
    )
    for label, frozen in (("attn.0", "mlp.0|mlp.1|mlp.2|attn.2"), ("head.1.2", "mlp.1|mlp.2|attn.2")):
        expected = total(model, label) - total(model, f"{label}|{frozen}")
        np.testing.assert_allclose(found["restored_together"].sel(ablated=label), expected, atol=1e-6)
    out = run_to_disk(model, PROMPTS, hs.Resample(2, seed=3), out=tmp_path / "m.zarr", ablate=asked)
    again = measures.mediation(hs.open_results(out))
    for name, values in found.data_vars.items():
        np.testing.assert_array_equal(again[name], values)
    # What a head attends by writes nothing.
    inputs = hs.analyses.mediation(
        model, PROMPTS, hs.Resample(2, seed=3), ablate="attn.0", mediators="head.2.1,query.2.1"
    )
    assert inputs["response"].sel(mediator="query.2.1").isnull().all()
    assert not inputs["response"].sel(mediator="head.2.1").isnull().any()


@pytest.mark.parametrize("label", ["attn.0", "mlp.0", "attn.0+mlp.1"])
def test_what_all_mediators_bring_is_what_all_bring(label):
    model = tiny("gpt2")
    found = hs.analyses.mediation(model, PROMPTS, hs.Resample(2), ablate=[label], mediators="layers")
    np.testing.assert_allclose(found["restored_together"], found["restored"], atol=1e-12)


def test_heads_of_several_sublayers_ablated_together():
    """Of a sublayer that holds an ablated head the others react, and are frozen, too."""
    model = tiny("gpt2")
    run, mediators = "head.0.1+head.1.2", ["attn.2", "head.1.0", "query.1.3"]
    found = hs.analyses.mediation(model, PROMPTS, hs.Resample(2, seed=3), ablate=[run], mediators=mediators)
    others = "mlp.0|mlp.1|attn.2|mlp.2|head.1.0|head.1.1|head.1.3"
    none = total(model, f"{run}|{others}")
    np.testing.assert_allclose(found["restored"].sel(ablated=run), total(model, run) - none, atol=1e-9)
    np.testing.assert_allclose(found["total"] - found["restored"], found["direct"], atol=1e-9)
    alone = {
        "attn.2": others.replace("attn.2|", ""),
        "head.1.0": others.replace("head.1.0|", ""),
        "query.1.3": others.replace("|head.1.3", "") + "|key.1.3|value.1.3",
    }
    for name, frozen in alone.items():
        expected = total(model, f"{run}|{frozen}") - none
        np.testing.assert_allclose(found["restored_alone"].sel(mediator=name)[..., 0], expected, atol=1e-9)
        expected = total(model, run) - total(model, f"{run}|{name}")
        np.testing.assert_allclose(found["restored_by"].sel(mediator=name)[..., 0], expected, atol=1e-9)


@pytest.mark.slow
def test_on_the_phantom_each_watcher_brings_its_share():
    model, prompts = hs.load_model("phantom", dtype="float64"), hs.load_prompts("phantom").limit(40)
    watchers = [*phantom.BACKUPS, "attn.5"]
    found = hs.analyses.mediation(
        model, prompts, hs.Zero(), ablate=[phantom.SOURCE, phantom.UNWATCHED], mediators=watchers
    )
    removed = -found["direct"]
    doubt = found["text"].str.startswith("perhaps").values
    for name, share in phantom.BACKUPS.items():
        gain = np.where(doubt, 0.8, 1.2) if name == "head.4.1" else 1.0
        expected = share * gain * removed.sel(ablated=phantom.SOURCE)
        for kind in ("restored_by", "restored_alone", "response"):
            here = found[kind].sel(ablated=phantom.SOURCE, mediator=name)
            assert float(abs(here - expected).max()) < 2e-3 * float(removed.max())
    together = found["restored"].sel(ablated=phantom.SOURCE).mean() / removed.sel(ablated=phantom.SOURCE).mean()
    assert float(together) == pytest.approx(sum(phantom.BACKUPS.values()), abs=0.05)
    for kind in ("restored_by", "restored_alone"):
        assert float(abs(found[kind].sel(ablated=phantom.UNWATCHED)).max()) < 2e-3 * float(removed.max())
        assert float(abs(found[kind].sel(mediator="attn.5")).max()) < 1e-9


def test_what_cannot_be_asked():
    model = tiny("gpt2")
    with pytest.raises(HydrascopeError, match=r"attn.0\|mlp.1 freezes mlp.1"):
        hs.analyses.mediation(model, PROMPTS, ablate=["attn.0|mlp.1"])
    with pytest.raises(HydrascopeError, match="are no results of mediation: measure with hydrascope mediate"):
        measures.mediation(hs.sweep(model, PROMPTS, hs.Zero()))
    with pytest.raises(HydrascopeError, match=r"ablates neuron.1.3 and another sublayer"):
        hs.analyses.mediation(model, PROMPTS, ablate="attn.0+neuron.1.3")
    with pytest.raises(HydrascopeError, match=r"query\.1\.3 can only be frozen, as in attn\.0\|query\.1\.3"):
        hs.analyses.mediation(model, PROMPTS, ablate="query.1.3")
    with pytest.raises(HydrascopeError, match="inputs of its heads cannot be frozen; freeze heads"):
        hs.analyses.mediation(tiny("gptj"), PROMPTS, hs.Zero(), ablate="attn.0", mediators="query.1.3")
    with pytest.raises(HydrascopeError, match=r"neuron\.1\.3 can't be a mediator"):
        hs.analyses.mediation(model, PROMPTS, mediators="neuron.1.3")


def test_results_of_some_readouts_prompts_and_runs():
    model = tiny("gpt2")
    readouts = [hs.Logit(), hs.Placebo(1)]
    results = hs.sweep(model, PROMPTS, hs.Zero(), ablate=hs.Mediation("attn.0,attn.1"), readouts=readouts)
    found = measures.mediation(results)
    one = measures.mediation(results.isel(readout=1, prompt=[0]))
    np.testing.assert_array_equal(one["restored_by"], found["restored_by"].isel(readout=[1], prompt=[0]))
    with pytest.raises(HydrascopeError, match="overrides of the mediation are missing: give all its results"):
        measures.mediation(results.isel(ablated=[0, 1]))
    with pytest.raises(HydrascopeError, match="'total' has no dimension 'prompt': select with a list"):
        measures.mediation(results.isel(prompt=0))


@pytest.mark.parametrize("name", ["mediation", "interactions"])
def test_metrics_are_refused(name: str) -> None:
    with pytest.raises(TypeError, match=rf"{name}\(\) takes no metrics=: .*: hs.sweep\("):
        getattr(hs.analyses, name)(tiny("gpt2"), [[1, 2]], metrics="log_prob")
