"""Reading results: the balance holds in either reading of σ, blocks don't matter, nothing is counted twice."""

from pathlib import Path

import numpy as np
import pytest
import synthetic
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from hydrascope.measures import (
    by_patch,
    change,
    compensation,
    effects_only,
    effects_per_prompt,
    outcome,
    own_change,
    per_prompt,
    readings,
)
from hydrascope.utils.errors import HydrascopeError

READOUTS = {"logit": -1, "placebo.0": -1, "probe": 2, "early": 0}
RUNS = [
    *synthetic.labels(3),
    *synthetic.head_labels(3, 2),
    "attn.0+mlp.1",
    "attn.0|mlp.1",
    "head.1.0+head.1.1",
    "head.0.1+attn.2",
]


@given(
    ablated=st.lists(st.sampled_from(RUNS), min_size=1, unique=True),
    read_heads=st.booleans(),
    parallel=st.booleans(),
    prompts=st.integers(1, 4),
    patches=st.integers(1, 3),
    seed=st.integers(0, 99),
)
@settings(max_examples=8, deadline=None)
def test_the_books_balance_in_either_reading(
    ablated: list[str], read_heads: bool, parallel: bool, prompts: int, patches: int, seed: int
) -> None:
    results = synthetic.results(
        3,
        prompts,
        patches,
        seed,
        ablated=ablated,
        heads=2,
        read_heads=read_heads,
        parallel=parallel,
        readouts=READOUTS,
        dtype="float64",
    )
    for readout in READOUTS:
        for sigma in ("clean", "own"):
            effects = per_prompt(results, readout, sigma)
            moved = change(effects).where(effects["is_ablated"] | effects["downstream"], 0).sum("component")
            np.testing.assert_allclose(effects["total"], moved + effects["norm"], atol=1e-12)
            told = own_change(effects) + compensation(effects)["compensation"] + effects["norm"]
            known = [label != "head.0.1+attn.2" for label in ablated]
            np.testing.assert_allclose(told[:, known], effects["total"][:, known], atol=1e-12)
            assert told.isnull().sum() == prompts * (len(ablated) - sum(known))


@pytest.mark.parametrize("sigma", ["clean", "own"])
@pytest.mark.parametrize("readout", READOUTS)
def test_the_mean_over_patches_is_what_effects_hold(readout: str, sigma: str) -> None:
    results = synthetic.results(3, 2, 3, heads=2, readouts=READOUTS, dtype="float64")
    effects, patches = per_prompt(results, readout, sigma), by_patch(results, readout, sigma)
    assert patches.dims == ("prompt", "ablated", "patch", "component")
    np.testing.assert_allclose(patches.mean("patch"), effects["unembed_ablated"], atol=1e-12)
    assert list(map(str, patches["component"].values)) == synthetic.labels(3)
    assert readings(results, readout) == (("clean",) if READOUTS[readout] >= 0 else ("clean", "own"))


def test_single_patches_of_what_kept_means_alone() -> None:
    results = synthetic.results(3, 2, 3)
    assert by_patch(results.drop_vars("unembed_ablated_by_patch")) is None
    with pytest.raises(HydrascopeError, match="sigma is 'other'"):
        by_patch(results, sigma="other")


@pytest.mark.slow
@given(parallel=st.booleans(), seed=st.integers(0, 99))
@settings(max_examples=6, deadline=None)
def test_the_norms_share_patch_by_patch(parallel: bool, seed: int) -> None:
    """(s − 1)(e + Σ u) with u in the run itself, or in the intact network over what doesn't move."""
    results = synthetic.results(3, 4, 3, seed, heads=2, parallel=parallel, readouts=READOUTS, dtype="float64")
    names = synthetic.labels(3)
    below = synthetic.downstream(3, parallel)
    for readout, before in READOUTS.items():
        at = results.sel(readout=readout)
        scale, unembed, embed, ablated = (
            at[name].values for name in ("scale", "unembed", "embed", "unembed_ablated_by_patch")
        )
        seen = [before < 0 or int(name.split(".")[1]) < before for name in names]
        clean, own = per_prompt(results, readout, "clean"), per_prompt(results, readout, "own")
        for p in range(4):
            for a, label in enumerate(results["ablated"].values):
                k = names.index(synthetic.holder(label))
                run, still = [], []
                for patch in range(3):
                    s = scale[p, a, patch] if before < 0 else 1.0
                    after, intact = ablated[p, a, patch, :6], unembed[p, :6]
                    unmoved = [c for c in range(6) if seen[c] and c != k and not below[k, c]]
                    run.append((s - 1) * (embed[p] + sum(after[c] for c in range(6) if seen[c])))
                    still.append((s - 1) * (embed[p] + sum(intact[c] for c in unmoved)))
                np.testing.assert_allclose(clean["norm"][p, a], np.mean(run), atol=1e-12)
                np.testing.assert_allclose(own["norm"][p, a], np.mean(still), atol=1e-12)


@given(prompts=st.integers(1, 7), patches=st.integers(1, 4), block=st.integers(1, 20_000))
@settings(max_examples=6, deadline=None)
def test_the_mean_over_patches_is_the_plain_one_whatever_the_block(prompts: int, patches: int, block: int) -> None:
    results = synthetic.results(2, prompts, patches, readouts={"logit": -1, "other": -1})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(effects_per_prompt, "_BATCH_BYTES", block)
        effects = per_prompt(results, "other", "own")
    at = results.sel(readout="other")
    for name in ("total", "direct", "indirect"):
        np.testing.assert_allclose(effects[name], at[name].values.astype(np.float64).mean(-1), rtol=1e-12)
    np.testing.assert_allclose(effects["scale"], results["scale"].values.astype(np.float64).mean(-1), rtol=1e-12)
    np.testing.assert_array_equal(effects["unembed_ablated"], at["unembed_ablated_own"])
    np.testing.assert_array_equal(effects["unembed"], at["unembed"])
    assert all(effects[name].dtype == np.float64 for name in ("unembed", "unembed_ablated", "total", "norm"))
    assert list(effects["text"].values) == list(results["text"].values)
    assert (effects.readout, effects.readout_before, effects.sigma) == ("other", -1, "own")
    assert effects.data.attrs == {**results.attrs, "readout": "other", "readout_before": -1, "sigma": "own"}


def test_a_reading_has_a_name() -> None:
    results = synthetic.results(2, 3, 1, readouts={"logit": -1, "probe": 1})
    assert per_prompt(results).caption == "logit, at the clean run’s σ"
    assert per_prompt(results, sigma="own").caption == "logit, at each run’s own σ"
    assert per_prompt(results, "probe", "own").caption == "probe, before block 1, without a norm"


def test_the_first_readout_at_the_clean_scale_is_the_default() -> None:
    results = synthetic.results(2, 3, 2, readouts={"difference": -1, "logit": -1})
    xr.testing.assert_identical(per_prompt(results).data, per_prompt(results, "difference", "clean").data)


def test_heads_are_not_in_the_sums() -> None:
    results = synthetic.results(3, 4, 2, heads=2, dtype="float64")
    without = results.isel(component=[i for i, kind in enumerate(results["component_kind"].values) if kind != "head"])
    for sigma in ("clean", "own"):
        effects, fewer = per_prompt(results, sigma=sigma), per_prompt(without, sigma=sigma)
        assert list(effects["component"].values) == synthetic.labels(3)
        for name in ("norm", "unembed_ablated", "total"):
            np.testing.assert_array_equal(effects[name], fewer[name])
        np.testing.assert_array_equal(compensation(effects)["mlp"], compensation(fewer)["mlp"])


def test_results_and_effects_are_not_taken_for_each_other() -> None:
    results = synthetic.results(2, 3, 2)
    effects = per_prompt(results)
    with pytest.raises(HydrascopeError, match="these are effects already"):
        per_prompt(effects)  # type: ignore[arg-type]
    for measure in (compensation, outcome):
        said = rf"^{measure.__name__} takes effects, not a Dataset: give measures\.per_prompt"
        with pytest.raises(HydrascopeError, match=said):
            measure(results)  # type: ignore[arg-type]
        with pytest.raises(HydrascopeError, match="not a Dataset"):
            measure(effects=effects.data)  # type: ignore[arg-type]
    alone = effects_only(results)
    np.testing.assert_array_equal(outcome(alone)["restored"], outcome(effects)["restored"])
    with pytest.raises(HydrascopeError, match="needs the effects of components, too"):
        compensation(alone)  # type: ignore[arg-type]


def test_some_of_the_effects_are_chosen_as_of_a_dataset() -> None:
    effects = per_prompt(synthetic.results(2, 3, 2), sigma="own")
    chosen = effects.isel(prompt=[2, 0]).sel(ablated=["mlp.0"])
    assert (chosen.readout, chosen.readout_before, chosen.sigma) == ("logit", -1, "own")
    assert (chosen.sizes["prompt"], chosen.sizes["ablated"]) == (2, 1)
    np.testing.assert_array_equal(chosen["total"][:, 0], effects["total"].sel(ablated="mlp.0")[[2, 0]])


def test_a_readout_inside_the_network_sees_what_is_below_it_and_no_norm() -> None:
    results = synthetic.results(4, 3, 2, readouts={"logit": -1, "probe": 2}, dtype="float64")
    # Whatever a run stores of what can't reach the readout.
    results["unembed"].loc[{"readout": "probe", "component": "mlp.3"}] = np.nan
    results["unembed_ablated"].loc[{"readout": "probe", "component": "mlp.3"}] = np.nan
    effects = per_prompt(results, "probe")
    assert (effects["norm"] == 0).all()
    assert (effects["scale"] == 1).all()
    above = effects.isel(ablated=slice(4, None))
    assert (above["total"] == 0).all()
    assert (above["contribution"] == 0).all()
    assert not effects["downstream"][:, 4:].any()
    assert effects["downstream"][0, 1:4].all()
    assert (effects["unembed_ablated"][..., 4:] == 0).all()


@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_a_stored_result_is_never_loaded_whole(tmp_path: Path, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    results = synthetic.results(3, 5, 4, heads=2, readouts={"logit": -1, "other": -1})
    big = ("unembed_ablated", "unembed_ablated_own")
    results.to_zarr(
        tmp_path / "r.zarr",
        consolidated=False,
        encoding={name: {"chunks": (1, chunk, *results[name].shape[2:])} for name in big},
    )
    stored = xr.open_zarr(tmp_path / "r.zarr", chunks=None, consolidated=False)
    sizes: list[int] = []
    monkeypatch.setattr(effects_per_prompt, "_BATCH_BYTES", results["unembed_ablated"].nbytes // 2)
    original = xr.Dataset.compute

    def spy(dataset: xr.Dataset, **kwargs: object) -> xr.Dataset:
        sizes.append(dataset.sizes["prompt"])
        return original(dataset, **kwargs)

    monkeypatch.setattr(xr.Dataset, "compute", spy)
    effects = per_prompt(stored, "other", "own")
    assert max(sizes) < 5 or chunk == 5
    assert all(size % chunk == 0 for size in sizes[:-1])
    assert not any(stored[name]._in_memory for name in (*big, "unembed_ablated_by_patch", "total"))
    monkeypatch.undo()
    xr.testing.assert_identical(effects.data, per_prompt(results, "other", "own").data)


def test_what_is_no_result_is_refused() -> None:
    with pytest.raises(HydrascopeError, match="no variable 'unembed'"):
        per_prompt(xr.Dataset({"temperature": ("x", [1.0])}))
    results = synthetic.results(2, 3, 1)
    with pytest.raises(HydrascopeError, match="no measurements"):
        per_prompt(results.isel(prompt=slice(0)))
    with pytest.raises(HydrascopeError, match=r"no readout 'lgoit': choose among logit"):
        per_prompt(results, "lgoit")
    with pytest.raises(HydrascopeError, match="sigma is 'run': give 'clean' or 'own'"):
        per_prompt(results, sigma="run")  # type: ignore[arg-type]
    with pytest.raises(HydrascopeError, match=r"ablates mlp\.9 but lacks mlp\.9"):
        per_prompt(results.assign_coords(synthetic.coordinates("ablated", ["attn.0", "mlp.0", "attn.1", "mlp.9"])))


@pytest.mark.parametrize("measure", [per_prompt, by_patch, effects_only])
@pytest.mark.parametrize(
    ("taken", "dim"),
    [
        (lambda results: results.isel(prompt=0), "prompt"),
        (lambda results: results.sel(ablated="attn.1"), "ablated"),
        (lambda results: results.isel(patch=0), "patch"),
        (lambda results: results.mean("patch", keep_attrs=True), "patch"),
    ],
)
def test_a_single_prompt_component_or_patch_is_to_be_chosen_by_a_list(measure, taken, dim: str) -> None:
    results = synthetic.results(3, 2, 3)
    with pytest.raises(HydrascopeError, match=rf"has no dimension '{dim}': select with a list, as isel\({dim}=\[0\]\)"):
        measure(taken(results))


@pytest.mark.parametrize("measure", [per_prompt, effects_only])
def test_what_a_where_spread_over_a_dimension_is_refused(measure) -> None:
    results = synthetic.results(3, 2, 3)
    with pytest.raises(HydrascopeError, match="has an extra dimension 'ablated': select with sel"):
        measure(results.where(results["ablated_kind"] == "attn", drop=True))


def test_results_without_some_sublayers_are_refused_since_sums_over_them_would_be_wrong() -> None:
    results = synthetic.results(3, 2, 3)
    attention = results.isel(ablated=results["ablated_kind"] == "attn", component=results["component_kind"] == "attn")
    with pytest.raises(HydrascopeError, match="hold 3 of the model's 6 sublayers, and sums need all"):
        per_prompt(attention)


def test_results_without_their_coordinates_are_none() -> None:
    with pytest.raises(HydrascopeError, match="no hydrascope result: it has no variable 'ablated_kind'"):
        per_prompt(synthetic.results(3, 2, 3).reset_coords(drop=True))
