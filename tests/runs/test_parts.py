"""Parts of the changes that ablations make: by plain passes in float64, and by identities on every architecture."""

import numpy as np
import pytest
import torch
from plain import Parts, Reader, centred, exactly_normed, loaded, plain_run
from rest_slow import rest_slow
from tiny import CONFIGS, tiny

import hydrascope as hs
from hydrascope.components.component import Override
from hydrascope.runs.parts import stretches
from hydrascope.storage.reader import open_results
from hydrascope.utils.errors import HydrascopeError

#: Token ids: clean, corrupt, answer, foil.
PAIRS = [((5, 6, 7, 8), (5, 9, 7, 8), 11, 12), ((4, 20, 30), (4, 21, 31), 13, 14)]
LABELS = ["attn.0", "mlp.1", "head.1.2", "head.1.3", "neuron.0.5", "attn.0+mlp.1", "head.0.0+head.0.1"]


def expected(model, probe, pair, label, part) -> tuple[float, float]:
    """`total` and `direct` on the readout that splits, by plain hooks; a dose is read on `difference`."""
    own, twin, answer, foil = pair
    units = [each for each in label.split("+") if each.count(".") == 2]
    clean, source = (plain_run(model, ids, units=units) for ids in (own, twin))
    layers = Parts.of(model)
    changes = {}
    for each in label.split("+"):
        component = hs.Component.parse(each)
        change = source.values[each][-1] - clean.values[each][-1]
        if component.is_unit:
            change = change @ layers.weight(str(component.sublayer))[layers.columns(component)]
        sublayer = str(component.sublayer)
        changes[sublayer] = changes.get(sublayer, 0) + change
    readers = {"difference": Reader.of_logit(model, answer, foil), "probe": Reader(probe, before=2)}
    reader = readers.get(part.readout, readers["difference"])
    gain = layers.final_norm.weight.detach()
    a = probe if reader.before else centred(model, gain * reader.vector)
    last = [len(own) - 1]
    values, added = {}, 0
    for sublayer, change in changes.items():
        along = a * (change @ a) / (a @ a)
        written = {"readout": along, "content": change - along, "dose": part.dose * change}[part.kind]
        values[sublayer] = (last, clean.values[sublayer][last] + written)
        added = added + written
    run = plain_run(model, own, values)
    stream = clean.streams[-1 if reader.before is None else reader.before]
    direct = reader.stream(model, stream + added) - reader.stream(model, stream)
    return reader.whole(run) - reader.whole(clean), direct


@pytest.mark.parametrize(
    ("case", "engine"),
    [pytest.param("gpt2", "wavefront", marks=pytest.mark.slow), ("llama", "wavefront"), ("llama", "reference")],
)
def test_effects_are_those_of_plain_passes(case: str, engine: str) -> None:
    model = exactly_normed(loaded(case))
    probe = np.random.default_rng(0).normal(size=model.width)
    prompts = hs.prompts.PromptSet.of(
        [hs.Prompt(tokens=own, answer=answer, foil=foil, counterfactual=twin) for own, twin, answer, foil in PAIRS]
    )
    readouts = [hs.LogitDifference(), hs.Direction(probe, before=2, name="probe")]
    experiment = hs.Split(LABELS, doses=(-1, 0.5))
    results = hs.sweep(model, prompts, hs.Counterfactual(), ablate=experiment, readouts=readouts, engine=engine)
    overrides = [Override.parse(str(label)) for label in results["ablated"].values]
    assert len(overrides) == len(LABELS) * (1 + 2 * len(readouts) + 2)
    for override in overrides:
        if not override.part:
            continue
        readout = override.part.readout or "difference"
        here = results.sel(ablated=str(override), readout=readout).isel(patch=0)
        label = str(override).partition(":")[0]
        for number, pair in enumerate(PAIRS):
            total, direct = expected(model, torch.from_numpy(probe), pair, label, override.part)
            np.testing.assert_allclose(here["total"][number], total, rtol=1e-8, atol=1e-9, err_msg=str(override))
            np.testing.assert_allclose(here["direct"][number], direct, rtol=1e-8, atol=1e-9, err_msg=str(override))


@pytest.mark.parametrize("case", rest_slow(CONFIGS, ("gpt2", "gemma2", "gpt_neox")))
def test_parts_add_up_on_every_architecture(case: str) -> None:
    """All of the direct effect at the clean σ is the readout part's; doses 1 and 0 are the ablation and nothing."""
    model = tiny(case, torch.float64)
    model.hf.eval()
    prompts = [[5, 6, 7, 8], [9, 10, 11], [3, 4, 12, 13, 14]]
    units = "head.1.0,head.1.2" + (",neuron.1.3" if model.is_dense(hs.Component(1, "mlp")) else "")
    experiment = hs.Split(f"layers,{units}", doses=(1.0, 0.0))
    results = hs.sweep(model, prompts, hs.Resample(patches=2), ablate=experiment, keep="patches")
    whole = [str(label) for label in results["ablated"].values if ":" not in str(label)]

    def of(part: str) -> tuple[np.ndarray, np.ndarray]:
        rows = results.sel(ablated=[label + part for label in whole], readout="logit")
        change = rows["unembed_ablated_by_patch"] - rows["unembed"]
        own = [change.values[:, row, :, list(rows["component"].values).index(sublayer)] for row, sublayer in at]
        return rows["total"].values, np.stack(own, 1)

    at = [(row, str(hs.Component.parse(label).sublayer)) for row, label in enumerate(whole)]
    total, own = of("")
    size = np.abs(total).max()
    for part, expected_total, expected_own in (
        (":dose(1)", total, own),
        (":dose(0)", 0 * total, 0 * own),
        (":readout(logit)", None, own),
        (":content(logit)", None, 0 * own),
    ):
        found_total, found_own = of(part)
        np.testing.assert_allclose(found_own, expected_own, rtol=1e-5, atol=1e-6 * size, err_msg=part)
        if expected_total is not None:
            np.testing.assert_allclose(found_total, expected_total, rtol=1e-5, atol=1e-6 * size, err_msg=part)


def test_the_whole_ablations_of_a_split_are_those_of_a_sweep(tmp_path) -> None:
    model = loaded("llama")
    options = {"readouts": [hs.Logit(), hs.Placebo(1)], "batch_size": 2}
    texts = ["the cat", "no", "Hello, world", "a", "xyz."]
    plain = hs.sweep(model, texts, hs.Mean(), ablate="layers,head.1.0", **options)
    path = tmp_path / "split.zarr"
    hs.sweep(model, texts, hs.Mean(), ablate=hs.Split("layers,head.1.0"), out=path, **options)
    stored = open_results(path)
    assert stored.attrs["experiment"] == "split"
    alone = hs.measures.single_ablations(stored)
    assert list(alone["ablated"].values) == list(plain["ablated"].values)
    for name in ("total", "direct", "unembed_ablated"):
        np.testing.assert_array_equal(alone[name], plain[name])
    kinds = dict(zip(map(str, stored["ablated"].values), map(str, stored["ablated_kind"].values), strict=True))
    assert (kinds["head.1.0"], kinds["head.1.0:boost"], kinds["attn.0:content(placebo.0)"]) == ("head", "part", "part")


def test_one_pass_writes_one_part_at_a_sublayer() -> None:
    labels = ["attn.0", "mlp.0", "head.0.0:boost", "head.1.0:boost", "head.0.1:boost", "mlp.0:boost"]
    overrides = [Override.parse(label) for label in labels]
    assert [(each.start, each.stop) for each in stretches(overrides, 10)] == [(0, 2), (2, 4), (4, 6)]
    assert [(each.start, each.stop) for each in stretches(overrides, 1)] == [(n, n + 1) for n in range(6)]


def test_batches_change_nothing() -> None:
    model = loaded("gpt2")
    texts = ["the cat", "no", "Hello, world", "a", "xyz."]
    experiment = hs.Split("heads.1,mlp", doses=(-1, 2))
    one, many = (hs.sweep(model, texts, hs.Resample(patches=2), ablate=experiment, batch_size=size) for size in (1, 5))
    np.testing.assert_allclose(one["total"], many["total"], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("ablate", "at", "message"),
    [
        (hs.Split("attn.0"), "all", "a split is of what is written at the last position: leave the positions at last"),
        (hs.Split("attn.0|mlp.1"), "last", "attn.0|mlp.1 freezes mlp.1: name only what is ablated"),
        (hs.Split("attn.0", doses=(float("nan"),)), "last", "nan is no dose: give numbers"),
        ("attn.0:boost", "last", "attn.0:boost is a part of an ablation: name the component alone, and ask for"),
        (hs.Split("attn.9"), "last", "has no attn.9"),
    ],
)
def test_wrong_splits_are_one_line(ablate, at: str, message: str) -> None:
    with pytest.raises(HydrascopeError) as raised:
        hs.sweep(loaded("gpt2"), ["the cat", "no"], hs.Zero(), ablate=ablate, at=at)
    assert message in str(raised.value)
