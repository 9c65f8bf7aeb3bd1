"""Shares of a repair that features carry: against plain passes with hooks, runs made one by one, and brute force."""

from collections.abc import Iterable

import numpy as np
import pytest
import torch
import xarray as xr
from dictionaries import FEATURES, random_dictionary
from plain import loaded
from plain_terms import PlainTerms, Run, plain_model, standing

import hydrascope as hs
from hydrascope.analyses.features import PARTS, feature_sums
from hydrascope.components.component import Component
from hydrascope.models.language_model import LanguageModel
from hydrascope.utils.errors import HydrascopeError, HydrascopeWarning

torch.set_num_threads(1)

#: Of several lengths; an odd number, so that the halves differ in size.
PROMPTS = [[5, 9, 7, 11], [8, 6, 4], [12, 13, 14, 15, 3], [3, 30, 2, 41], [7, 7, 8], [20, 21, 22, 23], [33, 34, 35]]
PROMPTS += [[2, 3, 4, 10], [50, 40, 30]]
SITE = "mlp.1"
#: The runs of what is frozen, by part.
FROZEN = dict(zip(PARTS, ("mlp.1", "feature.mlp.1", "error.mlp.1", "bias.mlp.1"), strict=True))
ABLATED = ("attn.0", "attn.1", "attn.0+mlp.0", "head.0.2")
PROBE = np.random.default_rng(0).normal(size=32)
READOUTS = (hs.Logit(), hs.Direction(PROBE, before=2, name="probe"))


def tokens_of(found: xr.Dataset) -> list[list[int]]:
    """The prompts of a result, as they were given."""
    return [[int(number) for number in text.split()] for text in found["text"].values]


def others(found: xr.Dataset) -> list[list[int]]:
    """The prompts that chose."""
    measured = tokens_of(found)
    return [tokens for tokens in PROMPTS if tokens not in measured]


def attached(case: str = "llama", site: str = SITE, activation: str = "topk") -> LanguageModel:
    model = plain_model(case)
    return model.with_dictionaries(random_dictionary(model, site, activation))


class Plainly:
    """Effects of zero ablations of some prompts, each by a plain pass of its own."""

    def __init__(self, prompts: Iterable[list[int]]) -> None:
        self.plain = PlainTerms("llama", random_dictionary(plain_model("llama"), SITE, "topk"))
        self.prompts = list(prompts)
        self.clean = [self.plain.run(tokens) for tokens in self.prompts]

    def run(self, prompt: int, ablated: str, frozen: str | None = None) -> Run:
        clean, tokens = self.clean[prompt], self.prompts[prompt]
        changes = {}
        for component in map(Component.parse, ablated.split("+")):
            value = standing(self.plain, clean, component)[[-1]]
            changes[component] = ([len(tokens) - 1], torch.zeros_like(value))
        if frozen is not None:
            component = Component.parse(frozen)
            changes[component] = (range(len(tokens)), standing(self.plain, clean, component))
        return self.plain.run(tokens, changes)

    def total(self, prompt: int, ablated: str, frozen: str | None = None) -> list[float]:
        """The total effect on each readout."""
        clean, run = self.clean[prompt], self.run(prompt, ablated, frozen)
        probe = torch.from_numpy(PROBE)
        logit = float((run.normed - clean.normed) @ self._vector(prompt))
        return [logit, float((run.streams[2] - clean.streams[2]) @ probe)]

    def response(self, prompt: int, ablated: str | None, written: str) -> list[float]:
        """The change of what is written by a part or a feature, read by each readout; without ablation, its size."""
        clean = self.clean[prompt]
        component = Component.parse(written)

        def added(run: Run) -> torch.Tensor:
            return self.plain.written(run, component) if component.is_term else run.added[component]

        change = added(clean) if ablated is None else added(self.run(prompt, ablated)) - added(clean)
        logit = self.plain.read(change, self._vector(prompt), self.plain.sigma(clean.streams[-1]))
        return [logit, float(change @ torch.from_numpy(PROBE))]

    def removed(self, prompt: int, ablated: str) -> list[float]:
        """−direct: what is lost if the ablated components' writes are taken from the clean stream."""
        clean, run = self.clean[prompt], self.run(prompt, ablated)
        homes = {component.sublayer for component in map(Component.parse, ablated.split("+"))}
        if all(component in clean.added for component in map(Component.parse, ablated.split("+"))):
            delta = -torch.stack([clean.added[home] for home in homes]).sum(0)
        else:  # a head: it writes into its own sublayer, which reads nothing that is changed
            delta = torch.stack([run.added[home] - clean.added[home] for home in homes]).sum(0)
        vector = self._vector(prompt)
        stream = clean.streams[-1]
        logit = self.plain.logit(stream + delta, vector) - self.plain.logit(stream, vector)
        return [-logit, -float(delta @ torch.from_numpy(PROBE))]

    def _vector(self, prompt: int) -> torch.Tensor:
        logits = self.clean[prompt].normed @ self.plain.unembedding.T
        return self.plain.token(int(logits.argmax()))


@pytest.fixture(scope="module")
def found() -> xr.Dataset:
    return hs.analyses.features(attached(), PROMPTS, hs.Zero(), ablate=ABLATED, top=3, readouts=READOUTS)


def test_everything_is_what_plain_passes_give(found: xr.Dataset) -> None:
    assert found["removed"].dims == ("readout", "prompt", "ablated")
    assert found["response"].dims == found["restored_by"].dims == ("readout", "prompt", "ablated", "part")
    assert found["feature_unembed"].dims == ("readout", "prompt", "feature")
    assert found["feature_response"].dims == ("readout", "prompt", "ablated", "feature")
    assert all(variable.dtype == np.float64 for variable in found.data_vars.values())
    plainly = Plainly(tokens_of(found))
    for prompt in range(found.sizes["prompt"]):
        here = found.isel(prompt=prompt)
        for feature in map(str, found["feature"].values):
            expected = plainly.response(prompt, None, feature)
            np.testing.assert_allclose(here["feature_unembed"].sel(feature=feature), expected, atol=1e-4)
        for ablated in ABLATED:
            row = here.sel(ablated=ablated)
            np.testing.assert_allclose(row["removed"], plainly.removed(prompt, ablated), atol=1e-4)
            free = np.array(plainly.total(prompt, ablated))
            for part, frozen in FROZEN.items():
                expected = plainly.response(prompt, ablated, frozen)
                np.testing.assert_allclose(row["response"].sel(part=part), expected, atol=1e-4)
                restored = free - plainly.total(prompt, ablated, frozen)
                np.testing.assert_allclose(row["restored_by"].sel(part=part), restored, atol=1e-4)
            for feature in map(str, found["feature"].values):
                expected = plainly.response(prompt, ablated, feature)
                np.testing.assert_allclose(row["feature_response"].sel(feature=feature), expected, atol=1e-4)
    for name in ("removed", "response", "restored_by", "feature_response", "feature_unembed"):
        assert float(abs(found[name]).max()) > 0.05


@pytest.mark.parametrize("site", ["mlp.1", "raw.mlp.1", "raw.attn.1", "heads.1", "transcoder.1"])
def test_runs_made_one_by_one_give_the_same(site: str) -> None:
    """With patches, whatever the kind of the site; the ablations upstream of the other kind of sublayer, too."""
    model, ablation = attached("gemma2", site, "jumprelu"), hs.Resample(2, seed=3)
    found = hs.analyses.features(model, PROMPTS, ablation, ablate="attn.0,mlp.0", top=2)
    whole = Component.parse(f"feature.{site}")
    names = [str(whole.sublayer), f"feature.{site}", f"error.{site}", f"bias.{site}"]
    chosen = list(map(str, found["feature"].values))
    read = ",".join([*names[1:], *chosen])

    def alone(label: str) -> xr.Dataset:
        made = hs.sweep(model, tokens_of(found), ablation, ablate=[label], read=read, engine="reference", keep="means")
        return made.isel(ablated=0)

    for label in ("attn.0", "mlp.0"):
        free, here = alone(label), found.sel(ablated=label)
        np.testing.assert_allclose(here["removed"], -free["direct"].mean("patch"), atol=1e-6)
        change = free["unembed_ablated"] - free["unembed"]
        np.testing.assert_allclose(here["response"], change.sel(component=names), atol=1e-6)
        np.testing.assert_allclose(here["feature_response"], change.sel(component=chosen), atol=1e-6)
        np.testing.assert_allclose(here["feature_unembed"], free["unembed"].sel(component=chosen), atol=1e-6)
        for part, name in zip(PARTS, names, strict=True):
            restored = (free["total"] - alone(f"{label}|{name}")["total"]).mean("patch")
            np.testing.assert_allclose(here["restored_by"].sel(part=part), restored, atol=1e-6)
    parts = found["response"].sel(part=["features", "error", "bias"]).sum("part")
    np.testing.assert_allclose(parts, found["response"].sel(part="sublayer"), atol=1e-6)


def test_parts_of_the_response_add_up(found: xr.Dataset) -> None:
    parts = found["response"].sel(part=["features", "error", "bias"]).sum("part")
    np.testing.assert_allclose(parts, found["response"].sel(part="sublayer"), atol=1e-9)


def test_the_chosen_features_respond_most_on_the_other_half(found: xr.Dataset) -> None:
    plainly = Plainly(others(found))
    assert found.attrs["chosen_on"] == len(plainly.prompts) == 4
    assert found.sizes["prompt"] == 5
    features = [f"feature.{SITE}.{number}" for number in range(FEATURES)]
    sizes = {
        feature: np.mean(
            [abs(np.array(plainly.response(prompt, each, feature))) for prompt in range(4) for each in ABLATED]
        )
        for feature in features
    }
    ranked = sorted(features, key=lambda feature: -sizes[feature])
    assert list(found["feature"].values) == ranked[:3]
    # On all prompts the choice would be another.
    assert sizes[ranked[2]] > 1.01 * sizes[ranked[3]]


def test_the_choice_sees_only_the_first_half(found: xr.Dataset) -> None:
    kept = others(found)
    changed = [tokens if tokens in kept else [*reversed(tokens), 17] for tokens in PROMPTS]
    again = hs.analyses.features(attached(), changed, hs.Zero(), ablate=ABLATED, top=3, readouts=READOUTS)
    np.testing.assert_array_equal(again["feature"], found["feature"])
    assert tokens_of(again) == [[*reversed(tokens), 17] for tokens in tokens_of(found)]
    assert float(abs(again["removed"] - found["removed"]).max()) > 0.01


def test_the_numbers_see_only_the_second_half(found: xr.Dataset) -> None:
    measured = tokens_of(found)
    changed = [tokens if tokens in measured else [*reversed(tokens), 17] for tokens in PROMPTS]
    again = hs.analyses.features(attached(), changed, hs.Zero(), ablate=ABLATED, top=FEATURES, readouts=READOUTS)
    assert tokens_of(again) == measured
    for name in ("removed", "response", "restored_by"):
        np.testing.assert_allclose(again[name], found[name], atol=1e-9)
    same = again.sel(feature=found["feature"].values)
    np.testing.assert_allclose(same["feature_response"], found["feature_response"], atol=1e-9)
    assert sorted(map(str, again["feature"].values)) == sorted(f"feature.{SITE}.{unit}" for unit in range(FEATURES))
    assert list(again["feature"].values[:3]) != list(found["feature"].values)


def test_seeds_draw_other_halves(found: xr.Dataset) -> None:
    model = attached()
    halves = {
        tuple(hs.analyses.features(model, PROMPTS, hs.Zero(), ablate="attn.0", top=1, seed=seed)["text"].values)
        for seed in range(3)
    }
    assert len(halves) > 1
    (again,) = (hs.analyses.features(model, PROMPTS, hs.Zero(), ablate="attn.0", top=1, seed=0),)
    np.testing.assert_array_equal(again["text"], found["text"])


def test_what_is_given_twice_is_in_one_half() -> None:
    """Keep a prompt and its tokens in one half, so that a choice is measured on others."""
    model = loaded()
    model = model.with_dictionaries(random_dictionary(model, SITE, "topk"))
    texts = ["the cat", "Hello, world", "xyz."]
    prompts = [each for text in texts for each in (text, model.encode(text))]
    with pytest.warns(HydrascopeWarning, match="3 prompts left out: the same tokens as an earlier"):
        found = hs.analyses.features(model, prompts, hs.Zero(), ablate="attn.0", top=1)
    assert (found.attrs["chosen_on"], found.sizes["prompt"]) == (1, 2)


@pytest.mark.parametrize(
    ("case", "site", "activation"),
    [("llama", "mlp.1", "topk"), ("gemma2", "raw.attn.1", "relu"), ("gpt2", "stream.1", "relu")],
)
@pytest.mark.parametrize("batch_size", [2, "auto"])
def test_sums_are_the_means_of_single_readings(case: str, site: str, activation: str, batch_size) -> None:
    model, ablation = attached(case, site, activation), hs.Resample(2, seed=1)
    features = [f"feature.{site}.{number}" for number in range(FEATURES)]
    asked = {"ablate": "attn.0,mlp.0,attn.0+mlp.0", "readouts": (hs.Logit(), hs.Logit(3)), "batch_size": batch_size}
    sums = feature_sums(model, PROMPTS, ablation, **asked)
    run = hs.sweep(model, PROMPTS, ablation, read=",".join(features), keep="means", **asked)
    clean = run["unembed"].sel(component=features)
    response = (run["unembed_ablated"].sel(component=features) - clean).transpose(
        "readout", "prompt", "ablated", "component"
    )
    assert list(sums["feature"].values) == features
    assert list(sums["ablated"].values) == list(run["ablated"].values)
    assert list(sums["readout"].values) == list(run["readout"].values)
    np.testing.assert_allclose(sums["unembed"], clean.mean("prompt").transpose("readout", "component"), atol=1e-6)
    np.testing.assert_allclose(sums["response"], response.values.mean(1), atol=1e-6)
    np.testing.assert_allclose(sums["absolute"], abs(response.values).mean(1), atol=1e-6)
    np.testing.assert_allclose(sums["spread"], response.values.std(1, ddof=1), atol=1e-6)
    assert sums.attrs["prompt_count"] == len(PROMPTS)
    assert float(sums["spread"].max()) > 0.01
    if site != "stream.1":
        assert float((sums["absolute"] - abs(sums["response"])).max()) > 1e-3


def test_sums_of_one_prompt_spread_by_nothing() -> None:
    sums = feature_sums(attached(), PROMPTS[:1], hs.Zero(), ablate="attn.0")
    assert not sums["spread"].any()
    np.testing.assert_allclose(abs(sums["response"]), sums["absolute"])


def test_ablations_that_are_not_upstream_are_left_out() -> None:
    model = attached("llama", "mlp.1")
    found = hs.analyses.features(model, PROMPTS, hs.Zero(), ablate="layers,attn.0+mlp.1,neuron.1.3", top=1)
    assert list(found["ablated"].values) == ["attn.0", "mlp.0", "attn.1"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"site": "attn.1"}, "has no dictionary at 'attn.1': it has them at mlp.1"),
        ({"ablate": "attn.2,mlp.1"}, "nothing that is ablated is upstream of mlp.1"),
        ({"ablate": "attn.0|mlp.0"}, "attn.0|mlp.0 freezes mlp.0: name only what is ablated"),
        ({"top": 0}, "top is 0: give the number of features to keep, at least 1"),
        ({"top": True}, "top is True"),
        ({"prompts": PROMPTS[:1]}, "give at least 2"),
        ({"prompts": [PROMPTS[0], PROMPTS[0]]}, "give at least 2"),
        ({"prompts": "ioi"}, "give load_prompts"),
    ],
)
def test_refusals(asked: dict, message: str) -> None:
    arguments = {"prompts": PROMPTS, "ablate": "attn.0", **asked}
    with pytest.raises(HydrascopeError, match=message.replace("|", r"\|")):
        hs.analyses.features(attached(), arguments.pop("prompts"), hs.Zero(), **arguments)


def test_the_site_must_be_clear() -> None:
    model = plain_model("llama")
    with pytest.raises(HydrascopeError, match="llama has no dictionary: give one"):
        hs.analyses.features(model, PROMPTS, hs.Zero())
    both = model.with_dictionaries(*(random_dictionary(model, site) for site in ("mlp.1", "attn.2")))
    with pytest.raises(HydrascopeError, match=r"has dictionaries at mlp\.1, attn\.2: name one site"):
        hs.analyses.features(both, PROMPTS, hs.Zero())
    found = hs.analyses.features(both, PROMPTS, hs.Zero(), ablate="attn.0", site="attn.2", top=1)
    assert str(found["feature"].values[0]).startswith("feature.attn.2.")
    with pytest.raises(HydrascopeError, match="rewrites the residual stream and is no part of a sublayer"):
        hs.analyses.features(attached("llama", "stream.1"), PROMPTS, hs.Zero())
