"""The balance of a run by its definition, term by term, on numbers that no model made."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain import loaded, stage

from hydrascope.balance import imbalance, quantities, responding, size
from hydrascope.components import Run
from hydrascope.engines import Readings

FINAL = torch.tensor([True, False])


def readings(prompts: int, runs: int, patches: int, components: int, seed: int) -> Readings:
    """Random readings of two readouts, the second inside the network; nothing balances."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    return Readings(
        unembed=random(2, prompts, components),
        embed=random(2, prompts),
        logit=random(2, prompts),
        run_unembed=random(2, prompts, runs, patches, components),
        run_logit=random(2, prompts, runs, patches),
        run_direct=random(2, prompts, runs, patches),
        run_indirect=random(2, prompts, runs, patches),
        scale=random(prompts, runs, patches).abs(),
        metrics=random(0, prompts),
        run_metrics=random(0, prompts, runs, patches),
        clean_error=0.0,
    )


shapes = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(4, 6), st.integers(0, 99))


@settings(deadline=None, max_examples=20)
@given(shapes, st.data())
def test_imbalance_and_size_of_every_run(shape: tuple[int, ...], data: st.DataObject) -> None:
    """Layers alone are in the balance: of 4 to 6 components, the first 4."""
    given_, (prompts, runs, patches, _, _) = readings(*shape), shape
    changing = torch.tensor(
        data.draw(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=runs, max_size=runs))
    )
    off, allowed = imbalance(given_, changing, FINAL), size(given_, 4, FINAL)
    assert off.shape == allowed.shape == (2, prompts, runs, patches)
    for readout, prompt, run, patch in np.ndindex(*off.shape):
        u, e, clean = (getattr(given_, name)[readout, prompt] for name in ("unembed", "embed", "logit"))
        after = given_.run_unembed[readout, prompt, run, patch]
        s = float(given_.scale[prompt, run, patch]) if readout == 0 else 1.0
        parts = sum(after[c] - u[c] for c in range(4) if changing[run, c])
        norm = (s - 1) * (e + after[:4].sum())
        total = given_.run_logit[readout, prompt, run, patch] - clean
        terms = abs(e) + sum(max(abs(after[c]), abs(u[c])) for c in range(4))
        assert float(off[readout, prompt, run, patch]) == pytest.approx(abs(float(total - parts - norm)))
        assert float(allowed[readout, prompt, run, patch]) == pytest.approx(float(max(1, s) * terms + abs(clean)))


@settings(deadline=None, max_examples=20)
@given(shapes)
def test_quantities(shape: tuple[int, ...]) -> None:
    given_ = readings(*shape)
    found = quantities(given_, FINAL)
    clean = given_.logit[:, :, None, None]
    for name in ("logit", "direct", "indirect"):
        effect = {"logit": "total"}.get(name, name)
        torch.testing.assert_close(found[effect], getattr(given_, f"run_{name}") - clean)
    own = given_.run_unembed.clone()
    own[0] *= given_.scale[..., None]
    torch.testing.assert_close(found["unembed_ablated"], given_.run_unembed.mean(3))
    # Inside the network there is no norm.
    torch.testing.assert_close(found["unembed_ablated_own"], own.mean(3))
    torch.testing.assert_close(found["unembed_ablated_own"][1], found["unembed_ablated"][1])


@pytest.mark.parametrize("case", ["gpt2", "gpt_neox"])
def test_what_may_change_is_what_is_overridden_or_later(case: str) -> None:
    model = loaded(case)
    labels = ["attn.0", "mlp.1", "head.1.2", "attn.0+mlp.2", "attn.0|mlp.1", "head.0.1|head.1.0|mlp.2"]
    runs = [Run.parse(label) for label in labels]
    for run, row in zip(runs, responding(model, runs).numpy(), strict=True):
        when = {c: stage(str(c)) if case == "gpt2" else c.layer for c in model.components}
        first = min(when[part.whole] for part in run.ablated)
        overridden = {part.whole for part in run.overridden}
        np.testing.assert_array_equal(row, [when[c] > first or c in overridden for c in model.components])
