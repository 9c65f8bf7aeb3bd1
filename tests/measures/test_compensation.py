"""The compensatory effect: Equation 33 term by term, and the balance."""

import numpy as np
import synthetic
from hypothesis import given, settings
from hypothesis import strategies as st

from hydrascope.measures import compensable, compensation, per_prompt


@given(
    layers=st.integers(1, 4),
    prompts=st.integers(1, 5),
    patches=st.integers(1, 3),
    parallel=st.booleans(),
    seed=st.integers(0, 99),
    data=st.data(),
)
@settings(max_examples=15, deadline=None)
def test_equation_33_term_by_term(
    layers: int, prompts: int, patches: int, parallel: bool, seed: int, data: st.DataObject
) -> None:
    """Over sublayers, whether sublayers or heads were ablated and whatever else was read."""
    labels = synthetic.labels(layers)
    ablated = data.draw(
        st.lists(st.sampled_from([*labels, *synthetic.head_labels(layers, 2)]), min_size=1, unique=True)
    )
    results = synthetic.results(
        layers, prompts, patches, seed, parallel=parallel, heads=2, ablated=ablated, dtype="float64"
    )
    ours = compensation(per_prompt(results))
    clean, after = results["unembed"].values[0], results["unembed_ablated_by_patch"].values[0]
    for p in range(prompts):
        for a, label in enumerate(ablated):
            kind, layer = synthetic.holder(label).split(".")
            effect = {"attn": [], "mlp": []}
            for patch in range(patches):
                sums = {"attn": 0.0, "mlp": 0.0}
                for c, other in enumerate(labels):
                    other_kind, other_layer = other.split(".")
                    later = int(other_layer) > int(layer)
                    follows = other_layer == layer and (kind, other_kind) == ("attn", "mlp") and not parallel
                    if later or follows:
                        sums[other_kind] += float(after[p, a, patch, c]) - float(clean[p, c])
                for each, value in sums.items():
                    effect[each].append(value)
            np.testing.assert_allclose(ours["attention"][p, a], np.mean(effect["attn"]), atol=1e-12)
            np.testing.assert_allclose(ours["mlp"][p, a], np.mean(effect["mlp"]), atol=1e-12)
            np.testing.assert_allclose(
                ours["compensation"][p, a], np.mean(effect["attn"]) + np.mean(effect["mlp"]), atol=1e-12
            )


def test_the_top_of_the_network_cannot_be_compensated() -> None:
    sequential, parallel = synthetic.results(3, 2, 1), synthetic.results(3, 2, 1, parallel=True)
    assert compensable(per_prompt(sequential)).values.tolist() == [True] * 5 + [False]
    assert compensable(per_prompt(parallel)).values.tolist() == [True] * 4 + [False] * 2
    assert (compensation(per_prompt(parallel))["compensation"][:, 4:] == 0).all()


def test_one_missing_value_is_missing_from_the_sum() -> None:
    results = synthetic.results(3, 3, 2)
    results["unembed_ablated"][0, 1, 0, 5] = np.nan
    missing = compensation(per_prompt(results))["compensation"].isnull()
    assert missing[1, 0]
    assert missing.sum() == 1
