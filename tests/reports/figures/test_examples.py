"""Choose the prompts and components that figures 1 and 3 show, and say why they were chosen."""

from pathlib import Path

import numpy as np
import pytest
import synthetic
import xarray as xr

from hydrascope.measures import candidates, direct_effect, most_restored, per_prompt
from hydrascope.reports.figures import examples, figure_heads
from hydrascope.reports.figures.figures_1_3 import why_chosen
from hydrascope.reports.kinds import draw_all
from hydrascope.utils.errors import HydrascopeError


def test_the_default_examples_are_typical_of_the_sublayer_of_which_most_is_restored() -> None:
    results = synthetic.results(6, 31, 2)
    effects = per_prompt(results)
    samples = candidates(effects, "attn")
    best = str(samples["ablated"].values[int(most_restored(samples).values.argmax())])
    one = samples.sel(ablated=best)
    large = (one["removed"] > one["removed"].median()).values
    share = (one["restored"] / one["removed"]).values
    near = np.where(large, abs(share - np.median(share[large])), np.inf)
    first, second = examples(effects)
    assert first == (near.argmin(), best)
    assert second == (np.argsort(near)[1], best)


def test_where_nothing_removes_enough_the_examples_have_the_largest_direct_effects() -> None:
    results = synthetic.results(5, 12, 2)
    results["logit"] = results["logit"] + 1e6
    direct = direct_effect(per_prompt(results)).isel(ablated=slice(0, None, 2)).values
    best = np.unravel_index(direct.argmax(), direct.shape)
    first, second = examples(per_prompt(results))
    assert first == (best[0], f"attn.{best[1]}")
    others = np.delete(np.arange(12), best[0])
    assert second[0] in others
    assert results["unembed"].sel(component=second[1])[0, second[0]] == direct[others].max()


def test_examples_are_of_a_kind_of_which_something_is_restored() -> None:
    results = synthetic.results(4, 31, 2)
    assert examples(per_prompt(results))[0][1].startswith("attn")
    # Of what attention removes twice as much is lost, of what MLPs remove half.
    attention = results["ablated_kind"] == "attn"
    results["direct"] = results["direct"].where(attention, results["direct"] - 2)
    results["total"] = results["direct"] * xr.where(attention, 2, 0.5)
    (_, first), (_, second) = examples(per_prompt(results))
    assert first.startswith("mlp")
    assert second == first
    assert why_chosen(per_prompt(results), first) == "chosen as a typical example of what is restored"


@pytest.mark.slow
def test_why_an_example_was_chosen_is_so(tmp_path: Path) -> None:
    results = synthetic.results(4, 31, 2)
    results["total"] = 2 * results["direct"]
    part = examples(per_prompt(results))[0][1]
    assert why_chosen(per_prompt(results), part) == "chosen as a typical example; on average nothing is restored"
    results["logit"] = results["logit"] + 1e6
    part = examples(per_prompt(results))[0][1]
    assert why_chosen(per_prompt(results), part) == "chosen for its large direct effect"
    draw_all(results, tmp_path)
    for name in ("figure1", "figure3"):
        assert "Chosen for its large direct effect" in (tmp_path / f"{name}.svg").read_text()


def test_where_nothing_is_removed_directly_the_examples_are_those_that_lose_most() -> None:
    results = synthetic.results(4, 12, 2, heads=2)
    results["direct"] = xr.zeros_like(results["direct"])
    lost = -results["total"].isel(readout=0).mean("patch").sel(ablated=[f"attn.{block}" for block in range(4)])
    prompt, part = np.unravel_index(lost.values.argmax(), lost.shape)
    assert examples(per_prompt(results))[0] == (prompt, f"attn.{part}")
    assert why_chosen(per_prompt(results), f"attn.{part}") == "chosen for how much is lost without it"
    assert "Direct effect, Δ unembed" not in [axes.get_title() for axes in figure_heads(per_prompt(results)).get_axes()]


def test_what_is_named_is_kept_and_the_rest_differs() -> None:
    results = synthetic.results(4, 6, 2)
    effects = per_prompt(results)
    assert examples(effects, 3, "mlp.2") == ((3, "mlp.2"), (3, "mlp.2"))
    (p1, k1), (p2, k2) = examples(effects, prompt=3)
    assert p1 == p2 == 3
    assert k1 != k2
    (p1, k1), (p2, k2) = examples(effects, ablated="mlp.1")
    assert k1 == k2 == "mlp.1"
    assert p1 != p2
    assert examples(per_prompt(results.isel(prompt=[0], ablated=[4]))) == ((0, "attn.2"), (0, "attn.2"))


def test_a_component_with_nothing_downstream_can_be_named() -> None:
    results = synthetic.results(4, 6, 2)
    effects = per_prompt(results)
    (p1, k1), (p2, k2) = examples(effects, ablated="mlp.3")
    assert k1 == k2 == "mlp.3"
    strongest = abs(direct_effect(effects).sel(ablated="mlp.3")).argsort()
    assert [p1, p2] == strongest.values[::-1][:2].tolist()


def test_an_unknown_prompt_or_component_is_refused() -> None:
    results = synthetic.results(4, 6, 2)
    effects = per_prompt(results)
    with pytest.raises(HydrascopeError, match="prompts 0 to 5"):
        examples(effects, prompt=6)
    with pytest.raises(HydrascopeError, match="prompts 0 to 5"):
        examples(effects, prompt=-1)
    with pytest.raises(HydrascopeError, match=r"attn\.9 isn't among"):
        examples(effects, ablated="attn.9")
