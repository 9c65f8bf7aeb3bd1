"""A run gives the numbers that plain arithmetic on plain forward passes gives."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from every_ablation import every_ablation
from hypothesis import given, settings
from hypothesis import strategies as st
from plain import LONGER, TEXTS, Plain, Reader, exactly_normed, loaded, plain_run, quantities, sigma, stage
from rest_slow import rest_slow
from stored import run_to_disk

from hydrascope.ablations.ablation import Ablation, Counterfactual, Mean, Resample
from hydrascope.components.component import Component, Override
from hydrascope.engines.directions import Direction
from hydrascope.engines.readouts import Logit, Placebo
from hydrascope.models.language_model import LanguageModel
from hydrascope.prompts.prompt import Prompt
from hydrascope.runs.sweep import sweep
from hydrascope.storage.reader import open_results
from hydrascope.storage.schema import MEASURED_VARIABLES

torch.set_num_threads(1)

TWINS = [Prompt(text, counterfactual="k" + text[:0:-1] + "j") for text in TEXTS[:6]]
#: Everything is float64.
ATOL = 1e-10
#: Of four lengths, and more than a batch of three.
SOME = TEXTS[:4]
UNITS = [f"head.{block}.{head}" for block in range(3) for head in range(4)] + ["neuron.1.7"]


def last(length: int) -> list[int]:
    return [length - 1]


@dataclass(frozen=True)
class Case:
    """Hold the ablated components and positions, and the patched positions of a prompt by its length."""

    ablate: str = "layers"
    prompts: Sequence[Any] = SOME
    ablation: Ablation = field(default_factory=lambda: Resample(2))
    at: Any = "last"
    positions: Callable[[int], list[int]] = last
    read: str = "layers"


CASES = {
    "layers": Case(read="head.2.3"),
    "units": Case("heads,neuron.1.7", SOME, read="heads,neuron.1.7"),
    "earlier": Case(
        "layers,head.1.2,neuron.1.7", LONGER[:4], at=-2, positions=lambda length: [length - 2], read="heads"
    ),
    "two places": Case("attn,head.0.3", LONGER[:4], at="-2,-1", positions=lambda length: [length - 2, length - 1]),
    "counterfactual": Case(
        "layers,head.2.0", [Prompt(t, counterfactual=t[::-1] + "Q") for t in SOME], Counterfactual()
    ),
    "counterfactual everywhere": Case(
        "layers,head.1.1",
        [Prompt(t, counterfactual="k" * len(t)) for t in SOME],
        Counterfactual(),
        "all",
        lambda length: list(range(length)),
    ),
    "several": Case("attn.0+mlp.1,head.0.1+head.0.2+mlp.2,attn.0|mlp.1,head.0.1|head.1.0|mlp.2,mlp.0|attn.1|mlp.1"),
    "several earlier": Case(
        "attn.0+mlp.1,attn.0|mlp.1,head.1.1+mlp.1|mlp.2", LONGER[:4], at=-2, positions=lambda length: [length - 2]
    ),
}


@pytest.mark.parametrize("architecture", rest_slow(["gpt2", "llama"], ("llama",)))
@pytest.mark.parametrize("name", CASES)
def test_every_number_is_that_of_plain_forward_passes(architecture: str, name: str) -> None:
    """Each quantity by its definition, run by run, patch by patch, readout by readout."""
    model, case = exactly_normed(loaded(architecture)), CASES[name]
    probe = torch.linspace(-1, 1, model.width, dtype=torch.float64)
    results = sweep(
        model,
        case.prompts,
        case.ablation,
        ablate=case.ablate,
        read=case.read,
        at=case.at,
        readouts=[Logit(), Logit(7), Direction(probe, name="final"), Direction(probe, before=1, name="inner")],
        metrics=["log_prob", "prob", "rank", "kl", "top"],
        batch_size=3,
        keep="patches",
    )
    texts = [prompt.text if isinstance(prompt, Prompt) else prompt for prompt in case.prompts]
    clean = [plain_run(model, model.encode(text), units=UNITS) for text in texts]
    labels = list(results["component"].values)

    for prompt, text in enumerate(texts):
        own, here = clean[prompt], arrays(results.isel(prompt=prompt))
        target, length = int(own.logits.argmax()), len(model.encode(text))
        readers = [Reader.of_logit(model, target), Reader.of_logit(model, 7), Reader(probe), Reader(probe, 1)]
        assert (here["target"], here["target_text"], here["text"]) == (target, model.decode(target), text)
        check_clean(model, readers, own, labels, here)
        check_metrics(own, own, target, here["metric_clean"])
        sources = [donor(model, case, prompt, clean, int(source)) for source in here["patch_prompt"]]
        places = case.positions(length)
        for number, ablated_run in enumerate(map(Override.parse, results["ablated"].values)):
            changed = []
            for patch, source in enumerate(sources):
                back = [place - length for place in places]
                ablated = {
                    str(component): (places, source.values[str(component)][back]) for component in ablated_run.ablated
                }
                frozen = {
                    str(component): (range(length), own.values[str(component)]) for component in ablated_run.frozen
                }
                changed.append(plain_run(model, model.encode(text), ablated | frozen, UNITS))
                for row, reader in enumerate(readers):
                    for name, value in quantities(model, reader, own, ablated, changed[-1]).items():
                        found = here[name] if name == "scale" else here[name][row]
                        assert found[number, patch] == pytest.approx(value, abs=ATOL), (name, str(ablated_run))
                check_metrics(changed[-1], own, target, here["metric_ablated"][:, number, patch])
            check_components(model, readers, own, changed, labels, here, number)
    check_downstream(results)


def arrays(dataset: xr.Dataset) -> dict[str, Any]:
    """Its variables, without what xarray's looking them up costs."""
    return {name: variable.values for name, variable in dataset.variables.items()}


def donor(model: LanguageModel, case: Case, prompt: int, clean: Sequence[Plain], source: int) -> Plain:
    """The run that a patch comes from."""
    if isinstance(case.ablation, Counterfactual):
        assert source == -1
        return plain_run(model, model.encode(case.prompts[prompt].counterfactual), units=UNITS)
    assert source not in (-1, prompt)
    return clean[source]


def check_clean(
    model: LanguageModel, readers: Sequence[Reader], own: Plain, labels: list[str], here: dict[str, Any]
) -> None:
    scale, added = sigma(model, own.streams[-1]), torch.stack([own.added[label] for label in labels])
    for row, reader in enumerate(readers):
        assert here["logit"][row] == pytest.approx(reader.whole(own), abs=ATOL)
        expected = reader.parts(model, ["embed", *labels], torch.cat([own.streams[:1], added]), scale)
        np.testing.assert_allclose(here["embed"][row], expected[0], rtol=0, atol=ATOL)
        np.testing.assert_allclose(here["unembed"][row], expected[1:], rtol=0, atol=ATOL)


def check_components(
    model: LanguageModel,
    readers: Sequence[Reader],
    own: Plain,
    changed: Sequence[Plain],
    labels: list[str],
    here: dict[str, Any],
    number: int,
) -> None:
    """u^k by patch, and its means at the clean run's scale and at each run's own: no product of means."""
    added = [torch.stack([run.added[label] for label in labels]) for run in changed]
    scale, scales = sigma(model, own.streams[-1]), [sigma(model, run.streams[-1]) for run in changed]
    for row, reader in enumerate(readers):
        at_clean = [reader.parts(model, labels, vectors, scale) for vectors in added]
        at_own = [reader.parts(model, labels, vectors, each) for vectors, each in zip(added, scales, strict=True)]
        for name, expected in (
            ("unembed_ablated_by_patch", at_clean),
            ("unembed_ablated", np.mean(at_clean, 0)),
            ("unembed_ablated_own", np.mean(at_own, 0)),
        ):
            np.testing.assert_allclose(here[name][row, number], expected, rtol=0, atol=ATOL, err_msg=name)


def check_metrics(run: Plain, clean: Plain, target: int, found: Any) -> None:
    log_p, log_q = clean.logits.log_softmax(-1), run.logits.log_softmax(-1)
    kl = (log_p.exp() * (log_p - log_q)).sum()
    rank = (run.logits > run.logits[target]).sum()
    expected = [log_q[target], log_q[target].exp(), rank, kl, run.logits.argmax()]
    np.testing.assert_allclose(found, [float(value) for value in expected], rtol=0, atol=ATOL)


def check_downstream(results: xr.Dataset) -> None:
    """What is later than all that is ablated, is not overridden, and has no overridden unit."""
    for label in results["ablated"].values:
        overridden = [str(component) for component in Override.parse(label).overridden]
        first = min(stage(str(component)) for component in Override.parse(label).ablated)
        layers = {str(component.sublayer) for component in Override.parse(label).ablated}
        for component in results["component"].values:
            below = stage(component) > first and component not in overridden and component not in layers
            below &= str(Component.parse(component).sublayer) not in overridden
            assert bool(results["downstream"].sel(ablated=label, component=component)) == below, (label, component)


def close(one: xr.Dataset, other: xr.Dataset, atol: float = ATOL) -> None:
    names = set(MEASURED_VARIABLES) & set(other.data_vars) - {"imbalance"} | {"target", "downstream"}
    assert set(one.data_vars) == set(other.data_vars)
    for name in names:
        np.testing.assert_allclose(one[name], other[name], rtol=0, atol=atol, err_msg=name)


ABLATIONS = [*every_ablation(2, 5), Resample(2, 5, different_target=True)]
OPTIONS: dict[str, Any] = {
    "ablate": "layers,head.1.1,attn.0+mlp.1,attn.0|mlp.2",
    "read": "heads",
    "readouts": [Logit(), Placebo(2)],
    "metrics": ["kl"],
}


@pytest.mark.parametrize(
    ("case", "ablation"), [*(("gpt2", each) for each in ABLATIONS), ("gpt_neox", Resample(2)), ("stablelm", Mean())]
)
def test_batches_and_engines_change_nothing(case: str, ablation: Ablation, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded(case)
    results = sweep(model, TWINS, ablation, batch_size=16, **OPTIONS)
    close(sweep(model, TWINS, ablation, batch_size=1, **OPTIONS), results)
    close(sweep(model, TWINS, ablation, batch_size=2, engine="reference", **OPTIONS), results)
    with monkeypatch.context() as patch:
        # A run's own memory is too much for all runs of one prompt: they are made a few at a time.
        patch.setattr("hydrascope.models.memory.CPU_BYTES", 1)
        split = sweep(model, TWINS, ablation, **OPTIONS)
    assert (split.attrs["batch_size"], split.attrs["overrides_at_once"]) == (1, 1)
    close(split, results)
    assert results.attrs["worst_imbalance"] == results["imbalance"].max() < 1e-10
    assert results.attrs["engine"] == "wavefront"


@settings(deadline=None, max_examples=5)
@given(st.integers(1, 12), st.permutations(TEXTS), st.sampled_from(["last", "-1"]), st.integers(0, 9))
def test_any_batch_of_any_order(batch_size: int, texts: Sequence[str], at: str, seed: int) -> None:
    """In pieces of the plan and in one piece, with prompts in any order."""
    model = loaded("gpt2")
    ablation = Resample(3, seed)
    whole = sweep(model, texts, ablation, at=at, batch_size=len(texts))
    close(sweep(model, texts, ablation, at=at, batch_size=batch_size), whole)
    assert list(whole["text"].values) == list(texts)


@pytest.mark.parametrize("case", ["gpt2", "gpt_neox"])
@pytest.mark.parametrize("at", ["last", -2])
def test_the_norms_share_balances_under_both_readings_of_its_scale(case: str, at: Any) -> None:
    """In the means over patches that are kept: total = changes of what may change + norm, σ clean and σ own."""
    model = loaded(case)
    results = sweep(model, LONGER, Resample(3), ablate="layers,attn.0+mlp.1,attn.0|mlp.2", at=at, keep="means")
    assert "unembed_ablated_by_patch" not in results
    overridden = np.array(
        [
            [c in map(str, Override.parse(k).overridden) for c in results["component"].values]
            for k in results["ablated"].values
        ]
    )
    changing = results["downstream"] | xr.DataArray(overridden, dims=("ablated", "component"))
    s, e, u = results["scale"], results["embed"], results["unembed"]
    clean, own = results["unembed_ablated"], results["unembed_ablated_own"]
    total = results["total"].mean("patch")
    norm = {
        "clean": (s - 1).mean("patch") * e + (own - clean).sum("component"),
        "own": (s - 1).mean("patch") * (e + (u * ~changing).sum("component")),
    }
    for reading, after in (("clean", clean), ("own", own)):
        changes = ((after - u) * changing).sum("component")
        xr.testing.assert_allclose((changes + norm[reading]).transpose(*total.dims), total, rtol=0, atol=1e-9)
    assert float(abs(norm["clean"] - norm["own"]).max()) > 1e-3


def test_a_stored_run_is_the_sweep_in_memory(tmp_path: Path) -> None:
    model = loaded()
    for number, ablation in enumerate((Resample(3), Counterfactual())):
        expected = sweep(model, TWINS, ablation, batch_size=1, **OPTIONS)
        out = tmp_path / f"{number}.zarr"
        assert run_to_disk(model, TWINS, ablation, out=out, batch_size=1, **OPTIONS) == out
        found = open_results(out).load()
        xr.testing.assert_identical(found, expected)
        # Which doesn't compare dtypes.
        assert {name: each.dtype for name, each in found.variables.items()} == {
            name: each.dtype for name, each in expected.variables.items()
        }
