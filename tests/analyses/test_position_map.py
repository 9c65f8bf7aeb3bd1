"""The position map: each cell against a forward pass of its own, with hooks of its own; and by identities."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain import exactly_normed, loaded, plain_run
from rest_slow import rest_slow
from tiny import shared, tolerance

import hydrascope as hs
from hydrascope.analyses.position_map import _windows
from hydrascope.models.hooks import on_site
from hydrascope.utils.errors import HydrascopeError

IDS = [5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]
LABELS = [f"{kind}.{block}" for block in range(3) for kind in ("attn", "mlp")]


def reading(logits: torch.Tensor, target: int) -> float:
    return float(logits[target] - logits.mean())


def expected(model, ids, label, value) -> np.ndarray:
    """Return how much the likeliest token's centred logit falls, for each token that is overridden by `value`."""
    clean = plain_run(model, ids).logits
    target = int(clean.argmax())
    changed = [plain_run(model, ids, {label: ([token], value(token))}).logits for token in range(len(ids))]
    return np.array([reading(clean, target) - reading(each, target) for each in changed])


@pytest.mark.parametrize("case", rest_slow(["gpt2", "llama"], ("llama",)))
@pytest.mark.parametrize("length", [1, 2, 5, 11])
def test_every_cell_is_a_forward_pass(case, length):
    model, ids = exactly_normed(loaded(case)), IDS[:length]
    found = hs.analyses.position_map(model, [ids])
    assert found["cost"].dims == ("token", "component")
    assert list(found["component"].values) == LABELS
    assert list(found["token_id"].values) == ids
    for label in LABELS:
        width = torch.zeros(1, model.width, dtype=torch.float64)
        by_hand = expected(model, ids, label, lambda token, width=width: width)
        np.testing.assert_allclose(found["cost"].sel(component=label), by_hand, atol=1e-9)
        assert abs(by_hand).max() > 1e-3
    clean = plain_run(model, ids).logits
    assert int(found["target"]) == int(clean.argmax())
    assert float(found["logit"]) == pytest.approx(reading(clean, int(clean.argmax())), abs=1e-9)
    assert float(found["probability"]) == pytest.approx(float(clean.softmax(-1).max()), abs=1e-9)


@pytest.mark.parametrize(
    "case", ["gpt_neox", "gemma2", "mistral", "mixtral", "cohere", "granite", "gptj", "bloom", "gpt_oss"]
)
def test_every_cell_in_other_architectures(case):
    model, ids = shared(case), IDS[:6]

    @torch.no_grad()
    def logits(site=None, token=None) -> torch.Tensor:
        def zero(hidden):
            hidden = hidden.clone()
            hidden.view(len(ids), -1)[token] = 0
            return hidden

        hooks = [] if site is None else [on_site(model, site, zero)]
        with model.measuring():
            found = model.hf(torch.tensor([ids])).logits[0, -1]
        for hook in hooks:
            hook.remove()
        return model_logits(model, found)

    def model_logits(model, found):
        # π̂ is read before a final soft-cap, which some models put on their logits.
        cap = getattr(model.config, "final_logit_softcapping", None)
        return cap * torch.atanh(found / cap) if cap else found

    clean = logits()
    target = int(clean.argmax())
    by_hand = [
        [reading(clean, target) - reading(logits(sublayer, token), target) for sublayer in model.sublayers]
        for token in range(len(ids))
    ]
    found = hs.analyses.position_map(model, [ids])
    allowed = 2 * tolerance(case) * float(abs(found["logit"])) + 1e-9
    np.testing.assert_allclose(found["cost"], by_hand, rtol=1e-9, atol=allowed)
    assert abs(np.array(by_hand)[:-1, :-2]).max() > 50 * allowed


def test_every_cell_of_a_head():
    model, ids = exactly_normed(loaded("llama")), IDS[:6]
    found = hs.analyses.position_map(model, [ids], components="heads.1")
    assert list(found["component"].values) == [f"head.1.{unit}" for unit in range(4)]
    for label in found["component"].values:
        by_hand = expected(model, ids, str(label), lambda token: torch.zeros(1, model.width // 4, dtype=torch.float64))
        np.testing.assert_allclose(found["cost"].sel(component=label), by_hand, atol=1e-9)


def test_a_twin_and_other_prompts():
    """Take each patch from the corresponding token of the other prompt, counted from the end."""
    model, ids = exactly_normed(loaded("gpt2")), IDS[:6]
    twin, others = [20, 21, 22, 23, 24, 25], [[30, 31, 32, 33, 34, 35, 36], [40, 41, 42, 43, 44, 45]]
    own, of_twin, one, other = (plain_run(model, each).values for each in (ids, twin, *others))
    prompt = hs.Prompt(tokens=tuple(ids), counterfactual=tuple(twin))
    swapped = hs.analyses.position_map(model, prompt, hs.Counterfactual())
    mean = hs.analyses.position_map(model, prompt, hs.Mean(), others=others)
    drawn = hs.analyses.position_map(model, prompt, hs.Resample(2), others=others)
    assert drawn.sizes["patch"] == 2
    np.testing.assert_allclose(drawn["cost"], -drawn["total"].mean("patch"), atol=1e-12)
    for label in LABELS:
        values = {
            "twin": lambda token, label=label: of_twin[label][token],
            "mean": lambda token, label=label: (own[label][token] + one[label][token + 1] + other[label][token]) / 3,
            "one": lambda token, label=label: one[label][token + 1],
            "other": lambda token, label=label: other[label][token],
        }
        by_hand = {name: expected(model, ids, label, value) for name, value in values.items()}
        np.testing.assert_allclose(swapped["cost"].sel(component=label), by_hand["twin"], atol=1e-9)
        np.testing.assert_allclose(mean["cost"].sel(component=label), by_hand["mean"], atol=1e-9)
        both = (by_hand["one"] + by_hand["other"]) / 2
        np.testing.assert_allclose(drawn["cost"].sel(component=label), both, atol=1e-9)


def test_only_the_paths_that_there_are():
    """At an earlier token nothing reads what the last block writes: exactly 0."""
    for case in ("gpt2", "gpt_neox", "qwen2"):
        found = hs.analyses.position_map(shared(case), [IDS])["cost"].isel(token=slice(-1))
        late = found.sel(component=["attn.2", "mlp.2"])
        np.testing.assert_allclose(late, 0, atol=1e-12)
        assert (abs(found.sel(component=["attn.1", "mlp.0"])) > 1e-9).all()


class Own:
    """An ablation of the user's own: a component's own activation, so that nothing changes."""

    patches = 2

    def draw(self, clean, prompts):
        def values(component):
            return clean.own_activations(component, prompts).expand(-1, 2, -1, -1)

        return hs.ablations.Patches(np.array(prompts)[:, None].repeat(2, 1), values)


def test_patches_from_the_prompt_itself_change_nothing():
    found = hs.analyses.position_map(shared("gemma3_text"), [IDS], Own())
    np.testing.assert_allclose(found["cost"], 0, atol=1e-5)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_every_row_is_a_sweep_at_that_token(data):
    """With noise, of several patches, by heads and sublayers, in the run's own engine and in the reference engine."""
    model = shared(data.draw(st.sampled_from(["gpt2", "mistral", "gpt_neox", "gemma3_text"])))
    ids = data.draw(st.lists(st.integers(3, 60), min_size=1, max_size=11))
    token = data.draw(st.integers(0, len(ids) - 1))
    ablation = data.draw(st.sampled_from([hs.Zero(), hs.Noise(2)]))
    components = data.draw(st.sampled_from(["layers", "heads.1", "mlp.1,head.0.2"]))
    engine = data.draw(st.sampled_from(["wavefront", "reference"]))
    asked = {"components": components, "target": 4, "engine": engine}
    found = hs.analyses.position_map(model, [ids], ablation, **asked)
    swept = hs.sweep(model, [ids], ablation, ablate=components, at=token, target=4)
    total = swept["total"].isel(readout=0, prompt=0)
    np.testing.assert_allclose(found["total"].isel(token=token), total, atol=1e-5)


@given(st.integers(1, 60))
def test_windows_hold_each_position_once_and_the_last_one_alone(length):
    windows = list(_windows(length))
    assert [position for window in windows for position in window] == list(range(length))
    assert windows[-1] == range(length - 1, length)


def test_what_names_the_run():
    model = loaded("gpt2")
    found = hs.analyses.position_map(model, "the cat", hs.Noise(3, seed=5), readout=hs.Logit(7))
    assert (found.attrs["ablation"], found.attrs["seed"], found.attrs["prompt_count"]) == ("noise", 5, 1)
    assert found.attrs["positions"] == "each token alone"
    assert (str(found["text"].values), str(found["readout"].values)) == ("the cat", "logit.7")
    assert "".join(found["token_text"].values) == "the cat"
    alone = hs.analyses.position_map(model, "the cat", hs.Resample(1), others=["and now"])
    fewer = hs.analyses.position_map(model, "the cat", hs.Resample(1), others=["and not"])
    assert alone.attrs["patches_hash"] != fewer.attrs["patches_hash"]


@pytest.mark.parametrize("ablation", [hs.Mean(), hs.Resample(1)])
def test_others_are_needed(ablation):
    with pytest.raises(HydrascopeError, match=r"this is one prompt: give others \(--prompts\)"):
        hs.analyses.position_map(shared("gpt2"), [IDS], ablation)


def test_others_as_long_as_the_prompt_are_needed():
    for ablation in (hs.Mean(), hs.Resample(1)):
        with pytest.raises(HydrascopeError, match=r"none of the others has as many tokens as the prompt \(11\)"):
            hs.analyses.position_map(shared("gpt2"), [IDS], ablation, others=[[4, 5]])


def test_mistakes():
    with pytest.raises(HydrascopeError, match="this is of one prompt, not of 2"):
        hs.analyses.position_map(shared("gpt2"), [[4, 5], [6, 7]])
    with pytest.raises(HydrascopeError, match="one readout, not 2"):
        hs.analyses.position_map(shared("gpt2"), [[4, 5]], readout=[hs.Logit(3), hs.Logit(4)])
    prompt = hs.Prompt(tokens=(4, 5, 6), counterfactual=(4, 5))
    with pytest.raises(HydrascopeError, match="tokens"):
        hs.analyses.position_map(shared("gpt2"), prompt, hs.Counterfactual())
