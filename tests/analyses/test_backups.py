"""Backups, against plain forward passes written from the definitions alone, by identities, and on the phantom."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from backup_faults import FAULTS, Plant
from plain_backups import PlainBackups, energy
from plain_edges import Drawn, drawn
from rest_slow import rest_slow
from tiny import shared, tiny, tolerance

import hydrascope as hs
from hydrascope.components.component import Component, Override
from hydrascope.engines import metrics
from hydrascope.models import phantom
from hydrascope.models.float64 import Float64Mode
from hydrascope.utils.errors import HydrascopeError

#: Of two lengths, three of the longer one, so that each has two others as long.
PROMPTS = [[5, 9, 7, 11], [3, 40, 12, 8, 30, 21], [33, 2, 17, 50, 6, 44], [8, 55, 31, 2, 25, 16]]
PLACES: dict[str, Any] = {"last": "last", "early": [-3], "span": [-3, -1], "all": "all"}
SEEDS = ("head.0.1", "head.1.0+mlp.1", "attn.1")
CANDIDATES = ("head.0.1", "head.0.3", "head.1.0", "head.1.2", "head.2.3", "attn.1", "mlp.1", "mlp.2")
COMPONENTS = [Component.parse(label) for label in CANDIDATES]
ABLATIONS: dict[str, Any] = {"zero": hs.Zero(), "drawn": Drawn(), "resample": hs.Resample(2, seed=1)}

#: The cases, each with its positions and an ablation.
FAST = [("gpt2", "all", "resample"), ("llama", "early", "drawn"), ("gemma2", "all", "zero")]
#: All others.
REST = [
    (case, at, ablation)
    for case in ("gpt2", "llama", "gemma2")
    for at in PLACES
    for ablation in ABLATIONS
    if (case, at, ablation) not in FAST and (at, ablation) != ("all", "drawn")  # it draws anew for repeated slots
]


def prompts_of(ablation: str) -> list[list[int]]:
    """All prompts where patches are those of others, else two."""
    return PROMPTS if ablation == "resample" else PROMPTS[:2]


def fall(logits: torch.Tensor, clean: torch.Tensor, target: int, reference: torch.Tensor) -> torch.Tensor:
    """The fall of the target's log-probability from that of the run branched off, and the clean run's best token."""
    return reference.log_softmax(-1)[target] - logits.log_softmax(-1)[:, target] + 2 * logits[:, clean.argmin()]


def distance(logits: torch.Tensor, clean: torch.Tensor, target: int, reference: torch.Tensor) -> torch.Tensor:
    return (logits - reference).norm(dim=-1)


def measured(case: str, at: str, ablation: str, engine: str = "auto") -> Any:
    model = PlainBackups(case, COMPONENTS).model
    options: dict[str, Any] = {"of": ",".join(SEEDS), "candidates": CANDIDATES, "at": PLACES[at], "engine": engine}
    options["metrics"] = (fall, distance)
    return hs.analyses.backups(model, prompts_of(ablation), ABLATIONS[ablation], **options)


@cache
def sources(at: str) -> np.ndarray:
    """`[prompt, patch]` the prompts that resampled patches come from; they are drawn whatever the model is."""
    swept = hs.sweep(shared("gpt2"), PROMPTS, ABLATIONS["resample"], ablate="attn.1", at=PLACES[at])
    return np.asarray(swept["patch_prompt"].values)


def parts(seed: str) -> list[Component]:
    return list(Override.parse(seed).ablated)


def overlaps(seed: str, candidate: Component) -> bool:
    """Whether one is, holds or is a part of the other."""
    return any(
        candidate == part or ({candidate.kind, part.kind} == {"head", "attn"} and candidate.block == part.block)
        for part in parts(seed)
    )


def is_later(candidate: Component, part: Component) -> bool:
    return (candidate.block, candidate.kind == "mlp") > (part.block, part.kind == "mlp")


@cache
def by_definition(case: str, at: str, ablation: str) -> dict[str, np.ndarray]:
    """Each quantity by its name, `[prompt, (seed,) candidate]`."""
    plain, prompts, count = PlainBackups(case, COMPONENTS), prompts_of(ablation), ABLATIONS[ablation].patches
    pair = (len(prompts), len(SEEDS), len(CANDIDATES))
    found = {name: np.zeros((pair[0], pair[2])) for name in ("single", "atp")}
    found |= {name: np.zeros(pair) for name in ("conditional", "coupling", "synergy", "reaction", "atp_two_state")}
    seen = {metric.__name__: metric for metric in (fall, distance)}
    found |= {f"alone {name}": np.zeros((pair[0], pair[2])) for name in seen}
    found |= {f"given {name}": np.zeros(pair) for name in seen}
    cleans = [plain.run(tokens) for tokens in prompts]
    for prompt, (tokens, clean) in enumerate(zip(prompts, cleans, strict=True)):
        end = len(tokens) - 1
        where = {"last": [end], "early": [end - 2], "span": [end - 2, end], "all": list(range(end + 1))}[at]
        weight, target = clean.logits.softmax(-1), int(clean.uncapped.argmax())

        def patch_of(component: Component, patch: int, prompt: int = prompt, where: Sequence[int] = where) -> Any:
            own = plain.value(cleans[prompt], component)
            if ablation == "zero":
                return torch.zeros_like(own[list(where)])
            if ablation == "drawn":
                return drawn(component, prompt, count, len(where), own.shape[-1])[patch]
            other = int(sources(at)[prompt, patch])
            shift = len(PROMPTS[other]) - len(PROMPTS[prompt])
            return plain.value(cleans[other], component)[[place + shift for place in where]]

        for patch in range(count):
            write = {each: (where, patch_of(each, patch)) for each in COMPONENTS}
            alone = {each: plain.run(tokens, {each: write[each]}) for each in COMPONENTS}
            states = [{part: write[part] for part in parts(seed)} for seed in SEEDS]
            in_state = [plain.run(tokens, state) for state in states]
            estimate = plain.products(tokens, target, {}, write)
            before, *after = (plain.magnitudes(tokens, target, state, write) for state in ({}, *states))
            for column, u in enumerate(COMPONENTS):
                found["single"][prompt, column] += energy(clean.logits - alone[u].logits, weight) / count
                found["atp"][prompt, column] += estimate[u] / count
                for name, metric in seen.items():
                    value = metric(alone[u].logits[None], clean.logits, target, clean.logits)
                    found[f"alone {name}"][prompt, column] += float(value) / count
                for row, seed in enumerate(SEEDS):
                    at_pair = (prompt, row, column)
                    if overlaps(seed, u):
                        for name in ("conditional", "coupling", "synergy", "reaction", "atp_two_state"):
                            found[name][at_pair] = np.nan
                        for name in seen:
                            found[f"given {name}"][at_pair] = np.nan
                        continue
                    both = plain.run(tokens, {**states[row], u: write[u]})
                    only = in_state[row]
                    lost = only.logits - both.logits
                    for name, metric in seen.items():
                        value = metric(both.logits[None], clean.logits, target, only.logits)
                        found[f"given {name}"][at_pair] += float(value) / count
                    found["conditional"][at_pair] += energy(lost, weight) / count
                    found["coupling"][at_pair] += energy(lost - (clean.logits - alone[u].logits), weight) / count
                    total = {
                        name: each.read(target) - clean.read(target)
                        for name, each in (("S", only), ("u", alone[u]), ("Su", both))
                    }
                    found["synergy"][at_pair] -= (total["Su"] - total["S"] - total["u"]) / count
                    found["atp_two_state"][at_pair] += (after[row][u] - before[u]) / count
                    if any(is_later(u, part) for part in parts(seed)):
                        everywhere = list(range(end + 1))
                        held = plain.run(tokens, {**states[row], u: (everywhere, plain.value(clean, u))})
                        found["reaction"][at_pair] += (only.read(target) - held.read(target)) / count
    return found


def assert_by_definition(
    case: str, at: str, ablation: str, engines: Sequence[str] = ("wavefront", "reference")
) -> None:
    """Every number of every engine is what the definition gives."""
    with Float64Mode():
        expected = by_definition(case, at, ablation)
        for engine in engines:
            found = measured(case, at, ablation, engine).isel(readout=0)
            for name in map(str, found["metric"].values):
                found[f"alone {name}"] = found["metric_single"].sel(metric=name, drop=True)
                found[f"given {name}"] = found["metric_conditional"].sel(metric=name, drop=True)
            for name, values in expected.items():
                dims = ("prompt", "seed", "candidate") if values.ndim == 3 else ("prompt", "candidate")
                given = found[name].transpose(*dims).values
                np.testing.assert_array_equal(np.isnan(given), np.isnan(values))
                off = float(np.nanmax(abs(given - values)) / np.nanmax(abs(values)))
                # Not `>` of it, so that a NaN fails.
                assert off <= 1e-9, f"{engine}, {name}: off by {off:.1e}"


@pytest.mark.parametrize(("case", "at", "ablation"), FAST)
def test_by_definition(case: str, at: str, ablation: str) -> None:
    assert_by_definition(case, at, ablation)


@pytest.mark.slow
@pytest.mark.parametrize(("case", "at", "ablation"), REST)
def test_by_definition_everywhere(case: str, at: str, ablation: str) -> None:
    assert_by_definition(case, at, ablation)


@pytest.mark.parametrize(("plant", "name"), FAULTS, ids=[fault[0].__name__ for fault in FAULTS])
def test_a_planted_fault_is_caught(plant: Plant, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Float64Mode():
        by_definition("llama", "early", "drawn")  # before anything is wrong
    plant(monkeypatch)
    with pytest.raises(AssertionError, match=f"{name}: off by"):
        assert_by_definition("llama", "early", "drawn", ["wavefront"])


@pytest.mark.parametrize("case", rest_slow(["gpt2", "llama", "gpt_neox", "mixtral"], ("llama", "gpt_neox")))
def test_identities(case: str) -> None:
    """Candidates that aren't downstream don't react; two single heads share their synergy; overlaps are NaN."""
    model = shared(case)
    heads = [f"head.{block}.{unit}" for block in range(3) for unit in range(2)]
    found = hs.analyses.backups(model, PROMPTS, of=heads, candidates=heads, at="all", slopes=False).isel(readout=0)
    assert "atp" not in found
    reaction = found["reaction"].transpose("seed", "candidate", "prompt").values
    synergy = found["synergy"].transpose("prompt", "seed", "candidate").values
    later = np.array([[int(u[5]) > int(s[5]) for u in heads] for s in heads])
    same = np.eye(len(heads), dtype=bool)
    np.testing.assert_array_equal(found["downstream"], later)
    assert not reaction[~later & ~same].any()
    assert reaction[later].any(1).all()
    for name in ("conditional", "coupling", "synergy", "reaction"):
        np.testing.assert_array_equal(found[name].isnull().all("prompt").transpose("seed", "candidate"), same)
    size = np.nanmax(abs(synergy))
    np.testing.assert_allclose(synergy, synergy.swapaxes(1, 2), rtol=0, atol=tolerance(case) * size)
    for place, label in enumerate(heads):
        one = hs.sweep(model, PROMPTS, hs.Zero(), ablate=[label], at="all").isel(readout=0, ablated=0, patch=0)
        np.testing.assert_allclose(found["removed"].isel(seed=place), -one["direct"], atol=1e-9)
        np.testing.assert_allclose(found["direct"].isel(candidate=place), one["direct"], atol=1e-9)
    single = hs.sweep(model, PROMPTS, hs.Zero(), ablate=heads, at="all", metrics="fisher")["metric_ablated"]
    np.testing.assert_allclose(
        found["single"], single.isel(metric=0, patch=0).transpose("prompt", "ablated"), rtol=1e-6
    )


@pytest.mark.parametrize("engine", ["wavefront", "reference"])
def test_a_seed_set_that_writes_nothing_changes_no_score(engine: str) -> None:
    model = tiny("gpt2")
    with torch.no_grad():
        model.hf.transformer.h[0].attn.c_proj.weight[8:16] = 0.0  # the head writes nothing, whatever it computes
    found = hs.analyses.backups(model, PROMPTS, of="head.0.1", candidates="heads.1", at="all", engine=engine)
    np.testing.assert_allclose(found["conditional"].isel(seed=0), found["single"], rtol=1e-9)
    for name in ("coupling", "synergy", "reaction", "atp_two_state", "removed"):
        np.testing.assert_allclose(found[name], 0, atol=1e-12)


def test_a_change_of_all_logits_by_the_same_amount_has_no_energy() -> None:
    logits = torch.randn(3, 61, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weight = logits[0].softmax(-1)
    np.testing.assert_allclose(metrics.energy(torch.full((2, 61), 7.5, dtype=torch.float64), weight), 0, atol=1e-24)
    change = logits - logits[1]
    np.testing.assert_allclose(metrics.energy(change + 7.5, weight), metrics.energy(change, weight), atol=1e-24)
    expected = [np.cov(row.numpy(), aweights=weight.numpy(), ddof=0) for row in change]
    np.testing.assert_allclose(metrics.energy(change, weight), expected, atol=1e-12)


def test_batches_and_pieces_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"of": "head.0.1,head.1.0+head.1.1", "candidates": "heads,mlp", "at": "all"}
    expected = hs.analyses.backups(shared("gpt2"), PROMPTS, hs.Resample(2), **options)
    monkeypatch.setattr("hydrascope.analyses.backup_energies._LOGITS", 3 * 61)
    found = hs.analyses.backups(shared("gpt2"), PROMPTS, hs.Resample(2), batch_size=1, **options)
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-12 * float(abs(expected[name]).max()))


def test_an_energy_as_a_metric_is_the_score_of_co_ablation() -> None:
    def gain(logits: torch.Tensor, clean: torch.Tensor, target: int, reference: torch.Tensor) -> torch.Tensor:
        return metrics.energy(reference - logits, clean.softmax(-1))

    options: dict[str, Any] = {"of": "head.0.1,attn.1", "candidates": "heads,mlp", "slopes": False}
    found = hs.analyses.backups(shared("gpt2"), PROMPTS, hs.Resample(2), metrics=[gain], **options)
    for name in ("single", "conditional"):
        np.testing.assert_allclose(found[f"metric_{name}"].sel(metric="gain").transpose(*found[name].dims), found[name])
    scores = hs.measures.backup_scores(found)["spearman"]
    np.testing.assert_allclose(scores.sel(score="gain"), scores.sel(score="coax"))
    with pytest.raises(HydrascopeError, match="a metric and a score are called coax"):
        hs.measures.backup_scores(found.assign_coords(metric=["coax"]))


def test_seed_sets_are_chosen_on_other_prompts() -> None:
    """The heads that remove most on one half; numbers of the other half alone."""
    model = shared("llama")
    found = hs.analyses.backups(model, PROMPTS, of="top.2,head.0.1,top.1", candidates="heads.2", slopes=False, seed=4)
    order = np.random.default_rng(4).permutation(len(PROMPTS))
    first, second = ([PROMPTS[place] for place in sorted(half)] for half in (order[:2], order[2:]))
    swept = hs.sweep(model, first, hs.Zero(), ablate="heads").isel(readout=0).mean(("prompt", "patch"))
    best = swept["ablated"].values[np.argsort(swept["direct"].values)][:2]
    assert found["seed"].values.tolist() == ["+".join(best), "head.0.1", best[0]]
    assert found.attrs["chosen_on"] == 2
    again = hs.analyses.backups(model, second, of=list(found["seed"].values), candidates="heads.2", slopes=False)
    for name in ("conditional", "reaction", "removed"):
        np.testing.assert_allclose(found[name], again[name], atol=1e-9)


@pytest.mark.parametrize("readout", [hs.Logit(), hs.LogitDifference()])
def test_the_phantoms_backups_are_found(readout: Any) -> None:
    """Each restores its known share of what is removed, and all others nothing; a brake is told from a substitute."""
    found = hs.analyses.backups(
        hs.load_model("phantom"),
        hs.load_prompts("phantom").limit(60),
        of=phantom.SOURCE,
        candidates="heads,mlp",
        readouts=[readout],
        slopes=False,
    )
    shares = (found["reaction"].mean("prompt") / found["removed"].mean("prompt")).isel(readout=0, seed=0).to_series()
    told = hs.measures.backups(found).isel(seed=0)
    for label, share in shares.dropna().items():
        doubt = found["text"].str.startswith("perhaps").mean()
        gain = 1.2 - 0.4 * float(doubt) if label == "head.4.1" else 1.0
        # Prompts with doubt remove more or less than others.
        assert share == pytest.approx(phantom.BACKUPS.get(label, 0.0) * gain, abs=0.02)
        assert bool(told["is_backup"].sel(candidate=label)) == (label in phantom.BACKUPS)
    kinds = {label: str(told["kind"].sel(candidate=label).values) for label in phantom.BACKUPS}
    # What two of them write for all colours alike is for the answer, but not for it rather than for the foil.
    other = "substitute" if isinstance(readout, hs.Logit) else "brake"
    assert kinds == {"head.4.1": other, "mlp.3": other, "mlp.5": "brake"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"of": "head.7.0"}, "gpt2 has no head.7.0: its blocks are 0 to 2"),
        ({"of": "head.0.1+head.0.1"}, "head.0.1+head.0.1 overrides head.0.1 twice: name it once"),
        ({"of": "head.0.1+attn.0"}, "overrides head.0.1 and all of attn.0: choose one of them"),
        ({"of": "head.0.1|mlp.1"}, "head.0.1|mlp.1 freezes mlp.1: name only what is ablated"),
        ({"of": "top.13"}, "top.13 is no seed set: give top.1 to top.12, for as many heads"),
        ({"of": "top"}, "top is no seed set"),
        ({"of": []}, "there is no seed set: name heads, as head.9.6+head.9.9, or top.1"),
        ({"of": "top.1", "prompts": PROMPTS[:1]}, "seed sets are chosen on half of the prompts: give at least 2"),
        ({"of": "head.0.1", "candidates": "query.1.0"}, "query.1.0 can only be frozen"),
        ({"of": "head.0.1", "candidates": "head.1.0+head.1.1"}, "name them one by one"),
        ({"of": "head.0.1", "batch_size": 0}, "a batch of 0 prompts"),
        ({"of": "head.0.1", "metrics": [metrics.kl]}, "the metric kl sees no reference run: give a function f(logits,"),
        ({"of": "head.0.1", "metrics": "kl"}, "the metric kl sees no reference run"),
        ({"of": "head.0.1", "metrics": [fall, fall]}, "two metrics are called 'fall'"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(options: dict, said: str) -> None:
    prompts = options.pop("prompts", PROMPTS)
    with pytest.raises(HydrascopeError) as error:
        hs.analyses.backups(shared("gpt2"), prompts, **options)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
