"""The numbers of the repair flow: plain arithmetic on results, frozen runs, and results that don't fit together."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import synthetic
import xarray as xr

import hydrascope as hs
from hydrascope.measures import Bootstrap, mediation, routes
from hydrascope.prompts import PromptSet
from hydrascope.reports.flow.measured import chosen, repair_flow
from hydrascope.reports.flow.naming import model_name, prompts_name
from hydrascope.reports.flow.repair import RepairFlow
from hydrascope.reports.kinds import summarise
from hydrascope.utils.errors import HydrascopeError

FEW = Bootstrap(resamples=200)


@pytest.fixture(scope="module")
def measured() -> tuple[xr.Dataset, xr.Dataset]:
    """A sweep of the phantom and a mediation of two of its components, on the same prompts."""
    model, prompts = hs.load_model("phantom"), hs.load_prompts("phantom").limit(24)
    asked = hs.Mediation("attn.3,mlp.2", "layers,head.4.1,query.4.1")
    return hs.sweep(model, prompts, hs.Zero(), ablate="layers"), hs.sweep(model, prompts, hs.Zero(), ablate=asked)


@pytest.mark.parametrize("sigma", ["clean", "own"])
@pytest.mark.parametrize("ablated", ["attn.1", "mlp.2", "head.1.1"])
def test_amounts_are_plain_arithmetic(sigma: str, ablated: str) -> None:
    results = synthetic.results(4, 30, 3, heads=2, noise=0.5)
    flow = repair_flow(results, ablated, sigma=sigma, bootstrap=FEW)
    labels = synthetic.labels(4)
    row = list(results["ablated"].values).index(ablated)
    own = labels.index(ablated.replace("head.1.1", "attn.1"))
    clean = results["unembed"].values[0].astype(float)
    after = results["unembed_ablated_by_patch"].values[0, :, row].astype(float)
    scale = results["scale"].values[:, row].astype(float)
    read = after if sigma == "clean" else after * scale[..., None]
    change = (read.mean(1) - clean)[:, :8].mean(0)
    removed = -results["direct"].values[0, :, row].astype(float).mean()
    lost = -results["total"].values[0, :, row].astype(float).mean()
    expected = {
        "removed": removed,
        "lost": lost,
        "attention": sum(change[i] for i in range(own + 1, 8) if i % 2 == 0),
        "mlp": sum(change[i] for i in range(own + 1, 8) if i % 2 == 1),
        "written": clean[:, list(results["component"].values).index(ablated)].mean(),
        "restored": removed - lost,
        "share": 1 - lost / removed,
        "lost_share": lost / removed,
    }
    for name, value in expected.items():
        assert getattr(flow, name).estimate == pytest.approx(value, abs=2e-6), name
    for number, each in enumerate(flow.sublayers):
        assert each.label == labels[number]
        assert (each.downstream, each.ablated) == (number > own, number == own)
        assert each.clean.estimate == pytest.approx(clean[:, number].mean(), abs=1e-6)
        if each.downstream:
            assert each.response.estimate == pytest.approx(change[number], abs=1e-6)
            assert each.response.low < each.response.estimate < each.response.high
        else:
            assert np.isnan(each.response.estimate)
    assert flow.components == (ablated,)
    assert not flow.mediated


@pytest.mark.parametrize("sigma", ["clean", "own"])
def test_heads_are_plain_arithmetic(sigma: str) -> None:
    results = synthetic.results(4, 30, 3, heads=4, noise=0.5).assign_attrs(heads=4, kv_heads=2)
    flow = repair_flow(results, "head.1.1", sigma=sigma, bootstrap=FEW, found=())
    row, names = list(results["ablated"].values).index("head.1.1"), list(results["component"].values)
    after = results["unembed_ablated_by_patch"].values[0, :, row].astype(float)
    scale = results["scale"].values[:, row].astype(float)
    read = (after if sigma == "clean" else after * scale[..., None]).mean(1)
    clean = results["unembed"].values[0].astype(float)
    assert [each.label for each in flow.heads] == [f"head.{block}.{unit}" for block in (2, 3) for unit in range(4)]
    assert [each.group for each in flow.heads] == [0, 0, 1, 1] * 2
    for each in flow.heads:
        own = names.index(each.label)
        assert each.clean.estimate == pytest.approx(clean[:, own].mean(), abs=1e-6)
        assert each.response.estimate == pytest.approx((read - clean)[:, own].mean(), abs=2e-6)
        assert each.response.low < each.response.estimate < each.response.high
    assert flow.heads_each == 4
    old = results.assign_attrs({**results.attrs})
    del old.attrs["kv_heads"]
    unknown = repair_flow(old, "head.1.1", bootstrap=FEW, found=())
    assert {each.group for each in unknown.heads} == {-1}
    before = results.isel(readout=[0]).assign_coords(readout_before=("readout", [3]))
    assert {each.block for each in repair_flow(before, "head.1.1", bootstrap=FEW, found=()).heads} == {2}
    assert not repair_flow(synthetic.results(4, 5, 1), "attn.1", bootstrap=FEW, found=()).heads


@pytest.mark.parametrize("sigma", ["clean", "own"])
def test_the_picture_adds_up(sigma: str) -> None:
    results = synthetic.results(5, 25, 2)
    for ablated in map(str, results["ablated"].values[:-1]):
        flow = repair_flow(results, ablated, sigma=sigma, bootstrap=FEW, found=())
        made_up = flow.attention.estimate + flow.mlp.estimate + flow.norm.estimate
        assert made_up + flow.lost.estimate == pytest.approx(flow.removed.estimate, abs=1e-5)
        for kind, total in (("attn", flow.attention), ("mlp", flow.mlp)):
            responses = [each.response.estimate for each in flow.sublayers if each.downstream and each.kind == kind]
            assert sum(responses) == pytest.approx(total.estimate, abs=1e-9)


def test_half_of_what_is_removed_is_on_the_fewest_prompts() -> None:
    results = synthetic.results(3, 21, 2, noise=0.8)
    flow = repair_flow(results, "attn.1", bootstrap=FEW)
    removed = -results["direct"].values[0, :, 2].mean(1)
    held = [max(sum(group) for group in [sorted(removed)[::-1][:count]]) for count in range(1, 22)]
    assert held[flow.half - 1] >= removed.sum() / 2 > (held[flow.half - 2] if flow.half > 1 else 0)


def test_the_share_is_that_of_held_out_prompts() -> None:
    results = synthetic.results(4, 60, 2, noise=0.1)
    summary = summarise(results, FEW)
    flow = repair_flow(results, bootstrap=FEW, found=summary.verdicts)
    assert flow.ablated == chosen(summary.verdicts)
    verdict = next(each for each in summary.verdicts if each.component.split(" or ")[0] == flow.ablated)
    assert flow.confidence == verdict.confidence
    if verdict.pooled:
        assert flow.rival in verdict.component
    else:
        assert flow.held_out == verdict.restored
        assert flow.share == flow.held_out  # both halves chose it, so it is measured on all prompts
    other = next(label for label in ("attn.0", "attn.1", "attn.2") if label not in verdict.component)
    assert np.isnan(repair_flow(results, other, bootstrap=FEW).held_out.estimate)


def test_frozen_runs_say_who_is_needed(measured: tuple[xr.Dataset, xr.Dataset]) -> None:
    sweep, frozen = measured
    both = repair_flow(sweep, "attn.3", mediation=frozen, bootstrap=FEW)
    # A mediation holds its plain run, so it says the same alone.
    for flow in (both, repair_flow(frozen, "attn.3", bootstrap=FEW)):
        means = mediation(frozen).isel(readout=0).sel(ablated="attn.3").mean("prompt")
        ways = routes(frozen, "attn.3").mean("prompt")
        assert [each.label for each in flow.mediators] == ways["mediator"].values.tolist()
        for each in flow.mediators:
            for name in ("restored_by", "restored_alone"):
                expected = float(means[name].sel(mediator=each.label))
                assert getattr(each, name).estimate == pytest.approx(expected, abs=1e-9)
            for name in ("itself", "others", "norm"):
                assert getattr(each, name).estimate == pytest.approx(
                    float(ways[name].sel(mediator=each.label)), abs=1e-9
                )
            least = 0.05 * flow.removed.estimate
            assert each.necessary == (each.restored_by.low > 0 and each.restored_by.estimate >= least)
            assert each.sufficient == (each.restored_alone.low > 0 and each.restored_alone.estimate >= least)
        assert flow.mediator("attn.4").necessary
        assert flow.mediator("head.4.1").necessary
        assert not flow.mediator("attn.5").necessary
        assert flow.mediator("attn.0") is None


def test_a_trifle_is_neither_necessary_nor_sufficient(
    measured: tuple[xr.Dataset, xr.Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = repair_flow(measured[1], "attn.3", bootstrap=FEW)
    share = flow.mediator("attn.4").restored_by.estimate / flow.removed.estimate
    assert 0 < share < 1
    monkeypatch.setattr("hydrascope.reports.flow.measured.NOTABLE", 1.01 * share)
    assert not repair_flow(measured[1], "attn.3", bootstrap=FEW).mediator("attn.4").necessary


def test_a_sweep_alone_has_no_frozen_runs(measured: tuple[xr.Dataset, xr.Dataset]) -> None:
    sweep, frozen = measured
    assert not repair_flow(sweep, "attn.3", bootstrap=FEW).mediated
    # The mediation doesn't ablate it.
    assert not repair_flow(sweep, "attn.1", mediation=frozen, bootstrap=FEW).mediated


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda each: each.isel(prompt=slice(20)), r"number of prompts \(24 and 20\)"),
        (lambda each: each.assign_coords(text=each["text"].astype(object) + "!"), "prompts:"),
        (lambda each: each.assign(target=each["target"] + 1), "targets:"),
        (lambda each: each.assign_attrs(ablation="mean"), r"ablation \(zero and mean\)"),
        (lambda each: each.assign_attrs(positions="all"), r"ablated positions \(last and all\)"),
        (lambda each: each.assign_attrs(patches=3), r"number of patches \(1 and 3\)"),
        (lambda each: each.assign_attrs(seed=3), r"seed \(none and 3\)"),
        (lambda each: each.assign_attrs(revision="other"), r"weights"),
        (lambda each: each.assign(total=1.2 * each["total"]), r"total effects of attn\.3"),
    ],
)
def test_results_that_do_not_match_are_refused(measured: tuple[xr.Dataset, xr.Dataset], change, message: str) -> None:
    sweep, frozen = measured
    with pytest.raises(HydrascopeError, match=f"the sweep and the mediation differ in their {message}") as error:
        repair_flow(sweep, "attn.3", mediation=change(frozen), bootstrap=FEW)
    assert "\n" not in str(error.value)


def test_what_cannot_be_asked(measured: tuple[xr.Dataset, xr.Dataset]) -> None:
    with pytest.raises(HydrascopeError, match=r"this run doesn't ablate attn\.9: choose among attn\.0, mlp\.0"):
        repair_flow(measured[0], "attn.9", bootstrap=FEW)
    with pytest.raises(HydrascopeError, match=r"there is no readout 'other'"):
        repair_flow(measured[0], "attn.3", readout="other", bootstrap=FEW)
    one_prompt = synthetic.results(3, 1, 1)
    with pytest.raises(HydrascopeError, match=r"chooses no component for the repair flow: name an ablation"):
        repair_flow(one_prompt, bootstrap=FEW)
    assert not repair_flow(one_prompt, "attn.1", bootstrap=FEW).certain


def test_it_can_be_stored(measured: tuple[xr.Dataset, xr.Dataset]) -> None:
    flow: RepairFlow = repair_flow(*measured[:1], "attn.3", mediation=measured[1], bootstrap=FEW)
    stored = json.loads(flow.as_json())
    assert stored["removed"]["estimate"] == flow.removed.estimate
    assert stored["held_out"] == dict.fromkeys(("estimate", "low", "high")) or flow.held_out.estimate
    assert set(stored) == set(asdict(flow))


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("/home/someone/secret/SmolLM2-135M.gguf", "SmolLM2-135M"),
        ("C:\\Users\\someone\\model", "model"),
        ("openai-community/gpt2", "gpt2"),
        ("./local/folder/", "folder"),
        ("a\nb\x1b[2J", "a b\\x1b[2J"),
        ("x" * 100, "x" * 59 + "…"),
    ],
)
def test_no_path_is_a_name(model: str, name: str) -> None:
    assert model_name({"model": model}) == name
    shown = prompts_name({"prompts": model})
    assert "/" not in shown
    assert "someone" not in shown
    assert len(shown) <= 60


def test_a_table_on_the_hub_keeps_its_name() -> None:
    assert prompts_name({"prompts": "hf:NeelNanda/pile-10k:train:text"}) == "NeelNanda/pile-10k"
    assert prompts_name({"prompts": PromptSet.of([[1, 2]]).name}) == ""
