"""Routes of repair: against plain forward passes, against plain arithmetic, and as parts of what is restored."""

import numpy as np
import pytest
import synthetic
import torch
from alone import PROMPTS
from plain import LONGER, Plain, Reader, loaded, plain_run, sigma
from tiny import tiny

import hydrascope as hs
from hydrascope.measures import ROUTES, Bootstrap, mediation, route_bounds, routes
from hydrascope.utils.errors import HydrascopeError

MEDIATORS = ["mlp.1", "attn.2", "mlp.2", "head.2.1"]


def made_up(prompts: int = 7, patches: int = 3):
    """A mediation that never was: attn.1 alone, and with each of three sublayers frozen."""
    names = ["mlp.1", "attn.2", "mlp.3"]
    runs = ["attn.1", *(f"attn.1|{name}" for name in names)]
    found = synthetic.results(4, prompts, patches, ablated=runs, noise=0.6)
    return found.assign_attrs(experiment="mediation", mediators=",".join(names), heads=0, parallel=False), names


@pytest.mark.parametrize("sigma_name", ["clean", "own"])
def test_routes_are_plain_arithmetic(sigma_name: str) -> None:
    results, names = made_up()
    found = routes(results, "attn.1", sigma=sigma_name)
    assert found["mediator"].values.tolist() == names
    values = {name: results[name].values.astype(np.float64) for name in ("unembed_ablated_by_patch", "total", "scale")}
    after, total, scale = values["unembed_ablated_by_patch"][0], values["total"][0], values["scale"]
    clean, embed = results["unembed"].values[0].astype(np.float64), results["embed"].values[0].astype(np.float64)
    labels = synthetic.labels(4)
    responds = np.arange(8) >= labels.index("attn.1")
    for number, name in enumerate(names):
        own = labels.index(name)
        gone = np.zeros((len(clean), 8))
        norm = np.zeros(len(clean))
        for patch in range(after.shape[2]):
            k, d = after[:, 0, patch], after[:, number + 1, patch]
            s_k, s_d = scale[:, 0, patch, None], scale[:, number + 1, patch, None]
            if sigma_name == "clean":
                gone += k - d
                norm += ((s_k - 1) * (embed[:, None] + k.sum(1, keepdims=True)))[:, 0]
                norm -= ((s_d - 1) * (embed[:, None] + d.sum(1, keepdims=True)))[:, 0]
            else:
                gone += (s_k * k - s_d * d) * responds
                norm += (s_k - s_d)[:, 0] * (embed + clean[:, ~responds].sum(1))
        gone, norm = gone / after.shape[2], norm / after.shape[2]
        one = found.sel(mediator=name)
        np.testing.assert_allclose(one["itself"], gone[:, own], atol=2e-5)
        np.testing.assert_allclose(one["others"], np.delete(gone, own, 1).sum(1), atol=2e-5)
        np.testing.assert_allclose(one["norm"], norm, atol=2e-5)
        np.testing.assert_allclose(one["restored_by"], total[:, 0].mean(1) - total[:, number + 1].mean(1), atol=2e-5)


def test_bounds_hold_the_means() -> None:
    results, names = made_up(30)
    each, bounds = routes(results, "attn.1"), route_bounds(results, "attn.1", bootstrap=Bootstrap(resamples=200))
    for name in (*ROUTES, "restored_by"):
        estimate, low, high = bounds[name].transpose("bound", "mediator").values
        np.testing.assert_allclose(estimate, each[name].mean("prompt"), atol=1e-12)
        assert (low <= estimate).all()
        assert (estimate <= high).all()
    assert bounds["mediator"].values.tolist() == names


@pytest.mark.parametrize("case", ["gpt2", "llama"])
@pytest.mark.parametrize("sigma_name", ["clean", "own"])
def test_routes_of_plain_passes(case: str, sigma_name: str) -> None:
    """Each mediator is frozen by hand in a forward pass of its own, and every route is read by its definition."""
    model = loaded(case)
    prompts = [model.tokenizer(text)["input_ids"] for text in LONGER]
    asked = hs.Mediation("attn.0", ",".join(MEDIATORS))
    results = hs.sweep(model, prompts, hs.Zero(), ablate=asked)
    found = routes(results, "attn.0", sigma=sigma_name)
    labels = [str(each) for each in model.sublayers]
    for number, tokens in enumerate(prompts):
        clean = plain_run(model, tokens, units=["head.2.1"])
        last = [len(tokens) - 1]
        ablated = {"attn.0": (last, torch.zeros_like(clean.values["attn.0"][-1:]))}
        reader = Reader.of_logit(model, int(clean.logits.argmax()))
        scale_clean = sigma(model, clean.streams[-1])

        def read(run: Plain, label: str, scale_clean: float = scale_clean, reader: Reader = reader) -> float:
            at = scale_clean if sigma_name == "clean" else sigma(model, run.streams[-1])
            return float(reader.parts(model, [label], run.added[label][None], at)[0])

        free = plain_run(model, tokens, ablated, units=["head.2.1"])
        for mediator in MEDIATORS:
            held = {mediator: (range(len(tokens)), clean.values[mediator])}
            frozen = plain_run(model, tokens, {**ablated, **held}, units=["head.2.1"])
            moved = {label: read(free, label) - read(frozen, label) for label in labels}
            restored = reader.whole(free) - reader.whole(frozen)
            itself = read(free, mediator) - read(frozen, mediator)
            # All sublayers can respond to the first: what is left is the scale of the rest, the embedding.
            expected = {
                "itself": itself,
                "others": sum(moved.values()) - itself,
                "norm": restored - sum(moved.values()),
                "restored_by": restored,
            }
            for name, value in expected.items():
                np.testing.assert_allclose(found[name].sel(mediator=mediator)[number], value, atol=2e-6)


@pytest.mark.parametrize("case", ["gpt2", "gpt_neox", "gemma2"])
@pytest.mark.parametrize("sigma_name", ["clean", "own"])
def test_routes_add_up_to_what_is_restored(case: str, sigma_name: str) -> None:
    model = tiny(case)
    asked = hs.Mediation("attn.0,mlp.1,head.1.2,attn.0+mlp.1", "layers,heads.2,query.2.1")
    results = hs.sweep(model, PROMPTS, hs.Resample(2, seed=3), ablate=asked)
    expected = mediation(results)["restored_by"].isel(readout=0)
    for ablated in expected["ablated"].values:
        found = routes(results, str(ablated), sigma=sigma_name)
        np.testing.assert_allclose(sum(found[name] for name in ROUTES), found["restored_by"], atol=2e-6)
        same = expected.sel(ablated=ablated, mediator=found["mediator"].values)
        np.testing.assert_allclose(found["restored_by"], same, atol=1e-6)
        assert not found["itself"].sel(mediator="query.2.1").any()
        below = mediation(results)["downstream"].sel(ablated=ablated).values
        assert found["mediator"].values.tolist() == expected["mediator"].values[below].tolist()


def test_what_cannot_be_asked() -> None:
    results, _ = made_up()
    with pytest.raises(HydrascopeError, match=r"doesn't ablate attn\.2: choose among attn\.1$"):
        routes(results, "attn.2")
    with pytest.raises(HydrascopeError, match=r"doesn't ablate attn\.1\|mlp\.1: choose among attn\.1$"):
        routes(results, "attn.1|mlp.1")
    with pytest.raises(HydrascopeError, match="are no results of mediation"):
        routes(synthetic.results(2, 3, 1), "attn.1")
    with pytest.raises(HydrascopeError, match="there is no readout 'none'"):
        routes(results, "attn.1", "none")
