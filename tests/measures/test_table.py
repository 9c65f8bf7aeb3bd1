"""The table: every row the numbers that plain loops find in the results."""

import numpy as np
import pandas as pd
import pytest
import synthetic
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny

import hydrascope as hs
from hydrascope.utils.errors import HydrascopeError

RUNS = [*synthetic.labels(2), "head.0.1", "attn.0+mlp.1", "attn.1|mlp.1"]


@given(
    ablated=st.lists(st.sampled_from(RUNS), min_size=1, unique=True),
    prompts=st.integers(1, 4),
    patches=st.integers(1, 3),
    metrics=st.sampled_from([(), ("log_prob",), ("log_prob", "top"), ("top",)]),
)
@settings(max_examples=20, deadline=None)
def test_every_row_by_plain_loops(ablated: list[str], prompts: int, patches: int, metrics: tuple[str, ...]) -> None:
    readouts = {"logit": -1, "placebo.0": -1, "probe": 1}
    results = synthetic.results(
        2, prompts, patches, ablated=ablated, heads=2, read_heads=False, readouts=readouts, metrics=metrics
    )
    table = hs.tidy(results)
    rows = table.to_dict("records")
    assert len(rows) == 3 * prompts * len(ablated)
    read = [str(label) for label in results["component"].values]
    for r, readout in enumerate(readouts):
        for p in range(prompts):
            for a, label in enumerate(ablated):
                row = rows.pop(0)
                assert (row["readout"], row["prompt"], row["ablated"]) == (readout, p, label)
                assert row["text"] == results["text"].values[p]
                assert row["target_text"] == results["target_text"].values[p]
                assert row["kind"] == results["ablated_kind"].values[a]
                assert (row["block"], row["unit"]) == (results["ablated_block"][a], results["ablated_unit"][a])
                for name in ("direct", "total", "indirect"):
                    mean = sum(float(x) for x in results[name].values[r, p, a]) / patches
                    np.testing.assert_allclose(row[name], mean, rtol=1e-12, atol=1e-15)
                assert row["removed"] == -row["direct"]
                assert row["lost"] == -row["total"]
                np.testing.assert_allclose(row["scale"], np.mean(results["scale"].values[p, a].astype(float)))
                parts = synthetic.parts_of(label)
                known = set(parts) <= set(read)
                clean = sum(float(results["unembed"].values[r, p, read.index(part)]) for part in parts if known)
                np.testing.assert_allclose(row["unembed"], clean if known else np.nan)
                for m, name in enumerate(metrics):
                    before = results["metric_clean"].values[m, p]
                    after = results["metric_ablated"].values[m, p, a].astype(float)
                    assert row[f"{name}_clean"] == before
                    if name == "top":
                        assert row["top_kept"] == np.mean(after == before)
                    else:
                        np.testing.assert_allclose(row[f"{name}_ablated"], after.mean())


def test_the_columns_and_their_order() -> None:
    table = hs.tidy(synthetic.results(2, 3, 2, metrics=("log_prob", "top")))
    assert " ".join(table.columns) == (
        "readout prompt text target_text ablated kind block unit unembed direct total indirect removed lost scale "
        "log_prob_clean log_prob_ablated top_clean top_kept"
    )
    assert (table.dtypes[["unembed", "scale", "lost"]] == np.float64).all()
    assert (table.dtypes[["prompt", "block", "unit"]] == np.int64).all()


def test_one_readout_can_be_chosen_before() -> None:
    results = synthetic.results(2, 3, 2, readouts={"logit": -1, "other": -1})
    both, one = hs.tidy(results), hs.tidy(results.sel(readout="other"))
    assert one.equals(both[both["readout"] == "other"].reset_index(drop=True))


def test_what_is_no_result_is_refused() -> None:
    with pytest.raises(HydrascopeError, match="no variable 'total'"):
        hs.tidy(synthetic.results(2, 3, 1).drop_vars("total"))


def test_where_effects_alone_were_kept_all_is_there_that_is_in_the_table() -> None:
    model, prompts = tiny("gpt2"), [[5, 6, 7], [8, 9]]
    effects, means = (hs.sweep(model, prompts, hs.Zero(), ablate="attn", keep=keep) for keep in ("effects", "means"))
    pd.testing.assert_frame_equal(hs.tidy(effects), hs.tidy(means))
