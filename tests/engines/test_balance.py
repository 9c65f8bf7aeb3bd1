"""The balance of a run by its definition, term by term, on numbers that no model made."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain import TEXTS, loaded, stage
from rest_slow import rest_slow

from hydrascope.ablations.ablation import Resample, Zero
from hydrascope.components.component import Override
from hydrascope.engines import Engine, Readings, Request, wavefront
from hydrascope.engines.balance import balance_size, imbalance, may_change, quantities
from hydrascope.models.language_model import LanguageModel
from hydrascope.runs import plan
from hydrascope.runs.sweep import sweep
from hydrascope.utils.errors import HydrascopeError

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
        unembed_ablated=random(2, prompts, runs, patches, components),
        logit_ablated=random(2, prompts, runs, patches),
        logit_direct=random(2, prompts, runs, patches),
        logit_indirect=random(2, prompts, runs, patches),
        own=random(2, prompts, runs, patches),
        scale=random(prompts, runs, patches).abs(),
        metrics=random(0, prompts),
        metrics_ablated=random(0, prompts, runs, patches),
        clean_error=torch.tensor(0.0),
    )


shapes = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(4, 6), st.integers(0, 99))


@settings(deadline=None, max_examples=10)
@given(shapes, st.data())
def test_imbalance_and_size_of_every_run(shape: tuple[int, ...], data: st.DataObject) -> None:
    """Sublayers alone are in the balance: of 4 to 6 components, the first 4."""
    given_, (prompts, runs, patches, _, _) = readings(*shape), shape
    changing = torch.tensor(
        data.draw(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=runs, max_size=runs))
    )
    off, allowed = imbalance(given_, changing, FINAL), balance_size(given_, 4, FINAL)
    assert off.shape == allowed.shape == (2, prompts, runs, patches)
    for readout, prompt, run, patch in np.ndindex(*off.shape):
        u, e, clean = (getattr(given_, name)[readout, prompt] for name in ("unembed", "embed", "logit"))
        after = given_.unembed_ablated[readout, prompt, run, patch]
        s = float(given_.scale[prompt, run, patch]) if readout == 0 else 1.0
        parts = sum(after[c] - u[c] for c in range(4) if changing[run, c])
        own = given_.own[readout, prompt, run, patch]
        norm = (s - 1) * (e + after[:4].sum() + own)
        total = given_.logit_ablated[readout, prompt, run, patch] - clean
        terms = abs(e) + abs(own) + sum(max(abs(after[c]), abs(u[c])) for c in range(4))
        assert float(off[readout, prompt, run, patch]) == pytest.approx(abs(float(total - parts - own - norm)))
        assert float(allowed[readout, prompt, run, patch]) == pytest.approx(float(max(1, s) * terms + abs(clean)))


@settings(deadline=None, max_examples=10)
@given(shapes)
def test_quantities(shape: tuple[int, ...]) -> None:
    given_ = readings(*shape)
    found = quantities(given_, FINAL)
    clean = given_.logit[:, :, None, None]
    after = {"total": given_.logit_ablated, "direct": given_.logit_direct, "indirect": given_.logit_indirect}
    for effect, logit in after.items():
        torch.testing.assert_close(found[effect], logit - clean)
    own = given_.unembed_ablated.clone()
    own[0] *= given_.scale[..., None]
    torch.testing.assert_close(found["unembed_ablated"], given_.unembed_ablated.mean(3))
    # Inside the network there is no norm.
    torch.testing.assert_close(found["unembed_ablated_own"], own.mean(3))
    torch.testing.assert_close(found["unembed_ablated_own"][1], found["unembed_ablated"][1])


@pytest.mark.parametrize("case", ["gpt2", "gpt_neox"])
def test_what_may_change_is_what_is_overridden_or_later(case: str) -> None:
    model = loaded(case)
    labels = ["attn.0", "mlp.1", "head.1.2", "attn.0+mlp.2", "attn.0|mlp.1", "head.0.1|head.1.0|mlp.2"]
    overrides = [Override.parse(label) for label in labels]
    for override, row in zip(overrides, may_change(model, overrides).numpy(), strict=True):
        when = {c: stage(str(c)) if case == "gpt2" else c.block for c in model.sublayers}
        first = min(when[component.sublayer] for component in override.ablated)
        overridden = {component.sublayer for component in override.overridden}
        np.testing.assert_array_equal(row, [when[c] > first or c in overridden for c in model.sublayers])


@pytest.mark.parametrize("engine", ["wavefront", "reference"])
@pytest.mark.parametrize("case", rest_slow(["gpt2", "llama"], ("llama",)))
@pytest.mark.parametrize("seed", [6, pytest.param(11, marks=pytest.mark.slow)])
def test_a_model_with_one_large_output_balances(case: str, engine: str, seed: int) -> None:
    """A row of a down projection that is 5,000 times what it was: healthy, however much cancels in it."""
    for block, feature in ((0, 17), (1, 3)):
        given = loaded(case, torch.float32, seed)
        mlp = given.hf.transformer.h[block].mlp if case == "gpt2" else given.hf.model.layers[block].mlp
        with torch.no_grad():
            (mlp.c_proj.weight.T if case == "gpt2" else mlp.down_proj.weight)[feature] *= 5e3
        for ablation in (Zero(), Resample(3)):
            assert sweep(given, TEXTS, ablation, engine=engine)["imbalance"].max() < 1e-2


@pytest.mark.parametrize("case", ["gpt2", "llama"])
def test_an_error_of_a_thousandth_of_a_logit_does_not_balance(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(model: LanguageModel, request: Request) -> Readings:
        readings = wavefront.measure(model, request)
        readings.logit_ablated[0, 0, 0, 0] += 1e-3
        return readings

    monkeypatch.setattr(plan, "choose_engine", lambda model, name: Engine("wavefront", wrong, "for the test"))
    with pytest.raises(HydrascopeError, match=r"do not balance: off by 0\.001"):
        sweep(loaded(case, torch.float32), TEXTS, Zero())
