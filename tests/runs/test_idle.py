"""Ablations that write what stands there: exactly no effect, no rows, and no change to any other number."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from tiny import tiny

import hydrascope as hs
from hydrascope.components.component import Component
from hydrascope.models.language_model import LanguageModel
from hydrascope.runs import batches, idle

#: Some of both lengths: each is a batch of its own.
PROMPTS = [[5, 6, 7, 8], [9, 10, 11, 12], [13, 14, 15]]
#: They write their own activations; everything else is set to zero.
HELD = ("head.0.1", "mlp.2")
#: By what is left of it where nothing before a held component has changed.
ASKED = {
    "head.0.1": "",
    "head.0.1+mlp.2": "",
    "head.0.1|attn.1": "",
    "attn.1": "attn.1",
    "head.0.1+attn.1": "attn.1",
    "attn.1|mlp.1": "attn.1|mlp.1",
    "head.0.1+attn.1|mlp.1": "attn.1|mlp.1",
    "head.0.2": "head.0.2",
    "head.0.1+head.0.2": "head.0.2",
    # It finds a change of the first.
    "attn.1+mlp.2": "attn.1+mlp.2",
}


@dataclass(frozen=True)
class Held:
    """Zero ablation, but for the held components."""

    patches: int = 2

    def draw(self, clean: Any, prompts: Sequence[int]) -> hs.ablations.Patches:
        def values(component: Component) -> torch.Tensor:
            own = clean.own_activations(component, prompts).repeat(1, self.patches, 1, 1)
            return own if str(component) in HELD else torch.zeros_like(own)

        return hs.ablations.Patches(np.full((len(prompts), self.patches), -1), values)


def swept(model: LanguageModel, **options: Any) -> xr.Dataset:
    return hs.sweep(model, PROMPTS, Held(), ablate=list(ASKED), metrics=["log_prob"], **options)


@pytest.mark.parametrize("at", ["last", "-2,-1"])
def test_what_changes_nothing_has_no_rows_and_no_effect(at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, left = tiny("gpt2", torch.float32), []

    def kept(*arguments: Any) -> Any:
        found = idle.without_idle(*arguments)
        left.append(list(map(str, found[0])))
        return found

    monkeypatch.setattr(batches, "without_idle", kept)
    results = swept(model, at=at)
    assert left
    assert all(each == list(ASKED.values()) for each in left)
    by_reference = swept(model, at=at, engine="reference")
    monkeypatch.setattr(batches, "without_idle", lambda clean, indices, overrides, values: (tuple(overrides), values))
    rows_for_all, plain = swept(model, at=at), swept(model, at=at, engine="reference")
    for name in ("total", "direct", "indirect", "scale", "unembed_ablated", "metric_ablated"):
        for label, other in ASKED.items():
            one = results[name].sel(ablated=label)
            if other:
                np.testing.assert_array_equal(one, results[name].sel(ablated=other))
        for found in (results, by_reference, rows_for_all):
            np.testing.assert_allclose(found[name], plain[name], atol=2e-5)
    nothing = [label for label, other in ASKED.items() if not other]
    for name in ("total", "direct", "indirect"):
        assert (results[name].sel(ablated=nothing) == 0).all()
    assert (results["metric_ablated"].sel(ablated=nothing) == results["metric_clean"]).all()
    assert (abs(results["total"].sel(ablated="attn.1+mlp.2") - results["total"].sel(ablated="attn.1")) > 1e-4).all()


def test_a_neuron_that_is_0_needs_no_row_to_be_set_to_0() -> None:
    """On one of the prompts alone: on the other it has an effect."""
    model = tiny("opt")
    every = [str(neuron) for neuron in model.units(Component(1, "mlp"))]
    results = hs.sweep(model, PROMPTS[:2], hs.Zero(), ablate=every, batch_size=1)
    plain = hs.sweep(model, PROMPTS[:2], hs.Zero(), ablate=every, engine="reference")
    np.testing.assert_allclose(results["total"], plain["total"], atol=1e-12)
    still = (results["total"] == 0).isel(readout=0, patch=0)
    assert 0.2 < float(still.mean()) < 0.8
    assert (still.isel(prompt=0) != still.isel(prompt=1)).any()
