"""Ablations draw what Appendix A says, from corresponding positions, reproducibly, whatever the batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from banked import banked
from every_ablation import every_ablation
from hypothesis import given, settings
from hypothesis import strategies as st
from plain import Parts, exactly_normed, loaded, plain_run
from tiny import VOCABULARY, tiny

import hydrascope as hs
from hydrascope.ablations.ablation import Ablation, Counterfactual, Noise, Resample, Zero, draw_patches
from hydrascope.ablations.noise import embedding_std
from hydrascope.components.component import Component
from hydrascope.engines.clean.activations import CleanActivations
from hydrascope.models.hooks import hooked, on_input
from hydrascope.models.language_model import LanguageModel
from hydrascope.prompts.positions import At
from hydrascope.prompts.prompt import Prompt
from hydrascope.runs.sweep import sweep
from hydrascope.utils.errors import HydrascopeError

torch.set_num_threads(1)

PROMPTS = [
    Prompt("abc de", subject="bc", counterfactual="fgh ij"),
    Prompt("xyzw", subject="yzw", counterfactual="kmzw"),
    Prompt("q rs", subject="q", counterfactual="t uv"),
    Prompt("lmnop", subject="no", counterfactual="aeiou"),
    Prompt("gh", subject="g", counterfactual="zz"),
]
HEAD, MLP = Component.parse("head.1.2"), Component.parse("mlp.0")


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return loaded("gpt2")


def bank(model: LanguageModel, prompts: Sequence[Prompt], at: At = "last", targets: Any = None) -> CleanActivations:
    return banked(model, prompts, at, [HEAD.site, MLP], 2, targets)


def of_letters(count: int) -> list[Prompt]:
    return [Prompt(chr(97 + number // 20) + chr(97 + number % 20)) for number in range(count)]


@settings(deadline=None, max_examples=20)
@given(st.integers(2, 40), st.data(), st.integers(0, 2**31))
def test_resample_sources(count: int, data: st.DataObject, seed: int) -> None:
    patches = data.draw(st.integers(1, count - 1))
    clean = bank(loaded("gpt2"), of_letters(count))
    sources = Resample(patches, seed).draw(clean, range(count)).sources
    assert sources.shape == (count, patches)
    for prompt, row in enumerate(sources):
        assert len(set(row)) == patches
        assert prompt not in row
        assert ((row >= 0) & (row < count)).all()
    np.testing.assert_array_equal(Resample(patches, seed).draw(clean, range(count)).sources, sources)


def test_resample_sources_follow_the_seed(model: LanguageModel) -> None:
    clean = bank(model, of_letters(30))
    assert (Resample(5, 0).draw(clean, range(30)).sources != Resample(5, 1).draw(clean, range(30)).sources).any()


def test_every_other_prompt_is_drawn_equally_often(model: LanguageModel) -> None:
    """Over many seeds, a prompt's patch comes from each other prompt alike."""
    counts, clean = np.zeros(6), bank(model, of_letters(6))
    for seed in range(3000):
        counts[Resample(1, seed).draw(clean, [2]).sources[0, 0]] += 1
    assert counts[2] == 0
    # 600 each; five standard deviations of a binomial count are 110.
    assert (np.abs(np.delete(counts, 2) - 600) < 110).all()


def test_different_target(model: LanguageModel) -> None:
    targets = [1, 1, 2, 3, 1, 2]
    sources = Resample(3, different_target=True).draw(bank(model, of_letters(6), targets=targets), range(6)).sources
    for prompt, row in enumerate(sources):
        assert all(targets[source] != targets[prompt] for source in row)


@pytest.mark.parametrize("at", ["last", "all", "-2", "0", "subject", "subject-last"])
def test_resample_draws_only_what_corresponds(model: LanguageModel, at: str) -> None:
    """From prompts that are long enough, counted from the end; for the subject, from the subject's."""
    spans = [(prompt.text.index(prompt.subject or ""), len(prompt.subject or "")) for prompt in PROMPTS]
    room = [length for _, length in spans] if at == "subject" else [len(prompt.text) for prompt in PROMPTS]
    needed = {"all": room, "0": room, "subject": room, "-2": [2] * 5}.get(at, [1] * 5)
    allowed = [{n for n in range(5) if room[n] >= needed[index]} - {index} for index in range(5)]
    fewest = min(map(len, allowed))
    clean, seen = bank(model, PROMPTS, at), [set() for _ in PROMPTS]
    for seed in range(40):
        for index in range(5):
            if allowed[index]:
                seen[index] |= set(Resample(1, seed).draw(clean, [index]).sources[0])
    assert seen == allowed
    first = next(index for index in range(5) if len(allowed[index]) == fewest)
    short = 5 - sum(each >= needed[first] for each in room)
    reasons = rf" \({short} are too short for its positions\)" if short else ""
    otherwise = "add prompts or ask for fewer"
    if at == "subject":
        reasons = rf" \(the subjects of {short} have fewer tokens than its {room[first]}\)"
        otherwise = f"ablate at subject-last, leave the prompt out, {otherwise}"
    message = rf'prompt {first + 1} \("{PROMPTS[first].text}"\) has {fewest}{reasons}: {otherwise}'
    with pytest.raises(HydrascopeError, match=rf"{fewest + 1} other prompts to draw from, and {message}"):
        sweep(model, PROMPTS, Resample(fewest + 1), ablate="head.1.2", at=at)


def test_too_few_prompts_of_another_target(model: LanguageModel) -> None:
    clean = bank(model, of_letters(4), targets=[1, 1, 1, 2])
    with pytest.raises(HydrascopeError, match=r'2 other prompts with another target .* prompt 1 \("aa"\) has 1: add'):
        Resample(2, different_target=True).draw(clean, range(4))


@pytest.mark.parametrize("at", ["last", -2, "subject", [-1, -2]])
def test_each_writes_what_it_says(model: LanguageModel, at: At) -> None:
    """Zeros; the source's, the twin's values at the same distance; from nobody where from nobody."""
    clean = bank(model, PROMPTS, at)
    for index, prompt in enumerate(PROMPTS):
        positions, length = list(clean.positions[index].positions), len(prompt.text)
        zero, twin = (each.draw(clean, [index]) for each in (Zero(), Counterfactual()))
        assert (zero.sources == -1).all()
        assert (twin.sources == -1).all()
        other = plain_run(model, model.encode(str(prompt.counterfactual)), units=[str(HEAD)]).values
        for component in (HEAD, MLP):
            assert zero.values(component).shape == (1, 1, len(positions), 8 if component == HEAD else 32)
            assert not zero.values(component).any()
            back = [position - length for position in positions]
            torch.testing.assert_close(twin.values(component)[0, 0], other[str(component)][back])


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(5)), st.integers(0, 5), st.sampled_from(["last", "-2", "subject-last"]))
def test_draws_do_not_depend_on_the_batch(order: list[int], seed: int, at: str) -> None:
    model = loaded("gpt2")
    clean = bank(model, PROMPTS, at)
    for ablation in every_ablation(2, seed):
        together = ablation.draw(clean, order)
        for place, prompt in enumerate(order):
            alone = ablation.draw(clean, [prompt])
            np.testing.assert_array_equal(together.sources[place], alone.sources[0])
            for component in (HEAD, MLP):
                found, expected = together.values(component)[place], alone.values(component)[0]
                # Twins of a batch run padded together: rounding may differ.
                torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_noise_is_of_the_stated_size() -> None:
    """The first block sees embeddings that differ from the clean ones by `scale` standard deviations."""
    model, tokens = tiny("llama"), list(range(4, 44)) * 1
    seen: list[torch.Tensor] = []
    clean = bank(model, [Prompt(tokens=tuple(tokens))])
    with hooked([on_input(model.blocks[0], seen.append)]):
        Noise(30, scale=2.0).draw(clean, [0]).values(MLP)
    embedding = model.hf.get_input_embeddings()
    noise = (seen[0] - embedding(torch.tensor(tokens))).detach()
    assert abs(float(noise.std()) / float(embedding.weight.detach().std(correction=0)) - 2.0) < 0.02
    assert abs(float(noise.mean())) < 0.02
    assert not torch.equal(noise[0], noise[1])


@pytest.mark.parametrize("at", ["last", "-2", "all"])
def test_noise_at_earlier_positions_is_that_of_one_noised_run(model: LanguageModel, at: At) -> None:
    """All positions of a patch come from the same noised copy of the prompt."""
    clean = bank(model, PROMPTS, at)
    index, seen = 3, []
    with hooked([on_input(model.blocks[0], seen.append)]):
        values = Noise(2, seed=4).draw(clean, [index]).values(MLP)
    positions = list(clean.positions[index].positions)
    for patch in range(2):
        noised = seen[0][patch]
        with hooked([on_input(model.blocks[0], lambda hidden, noised=noised: noised[None].expand_as(hidden))]):
            expected = plain_run(model, model.encode(PROMPTS[index].text)).values[str(MLP)]
        torch.testing.assert_close(values[0, patch], expected[positions])


def test_embedding_std_counts_a_scale_inside_the_module() -> None:
    model = tiny("gemma3_text")
    embedding = model.hf.get_input_embeddings()
    expected = embedding(torch.arange(VOCABULARY)).detach().std(correction=0)
    assert abs(embedding_std(model) - float(expected)) < 1e-9
    assert embedding_std(model) > 2 * float(embedding.weight.detach().std())


@pytest.mark.parametrize("ablation", every_ablation(patches=1), ids=lambda each: type(each).__name__)
@pytest.mark.parametrize("at", ["-2", "0,-1", "subject"])
def test_every_ablation_at_every_position(model: LanguageModel, ablation: Ablation, at: str) -> None:
    """In batches of any size and with either engine; `subject` with the same subject length, so that all can draw."""
    prompts = [Prompt(p.text + "bc", subject="bc", counterfactual=f"{p.counterfactual}xy") for p in PROMPTS]
    # Prompts of one length, so that a first token corresponds to a first token.
    prompts = [p for p in prompts if len(p.text) == 6] + [Prompt("uvwxbc", subject="bc", counterfactual="bcuvwx")]
    options: dict[str, Any] = {"ablate": "layers,head.0.1,attn.0|mlp.1", "at": at}
    found = sweep(model, prompts, ablation, batch_size=1, **options)
    expected = sweep(model, prompts, ablation, engine="reference", **options)
    assert found.attrs["patch_source"] == type(ablation).patch_source  # type: ignore[attr-defined]
    for name in ("total", "direct", "indirect", "unembed_ablated", "unembed_ablated_own", "scale", "patch_prompt"):
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-10, err_msg=name)


def test_a_twin_of_another_length_is_refused_where_that_matters(model: LanguageModel) -> None:
    prompts = [Prompt("abcd", subject="d", counterfactual="efgh"), Prompt("ijkl", subject="l", counterfactual="mn")]
    for at in ("last", "-1", "subject"):
        assert sweep(model, prompts, Counterfactual(), at=at).sizes["patch"] == 1
    for at in (-2, "all", "-1,0"):
        with pytest.raises(HydrascopeError, match=r'prompt 2 \("ijkl"\) is 4 tokens long and its counterfactual 2'):
            sweep(model, prompts, Counterfactual(), at=at)


@dataclass(frozen=True)
class ProjectOut:
    """The worked example of `hydrascope.ablations.ablation`."""

    direction: torch.Tensor
    patches: int = 1

    def draw(self, clean: CleanActivations, prompts: Sequence[int]) -> hs.ablations.Patches:
        own = np.array(prompts)[:, None]

        def values(component: Component) -> torch.Tensor:
            value = clean.activations_of(component, own, prompts)
            return value - (value @ self.direction)[..., None] * self.direction

        return hs.ablations.Patches(own, values)


@pytest.mark.parametrize(("at", "back"), [("last", [-1]), ("-2,-1", [-2, -1])])
@pytest.mark.parametrize("case", ["gpt2", "llama"])
def test_a_users_own_ablation_is_that_of_plain_hooks(case: str, at: str, back: list[int]) -> None:
    model = exactly_normed(loaded(case))
    direction = torch.linspace(-1, 2, model.width, dtype=torch.float64)
    direction /= direction.norm()
    results = sweep(model, PROMPTS, ProjectOut(direction), at=at, ablate="layers", batch_size=2)
    assert results.attrs["ablation"] == "projectout"
    assert "patch_source" not in results.attrs
    np.testing.assert_array_equal(results["patch_prompt"][:, 0], range(5))
    for index, prompt in enumerate(PROMPTS):
        tokens = model.encode(prompt.text)
        clean = plain_run(model, tokens)
        for label, module in Parts.of(model).layers.items():

            def project(module: object, inputs: object, output: Any) -> None:
                hidden = (output[0] if isinstance(output, tuple) else output)[0]
                hidden[back] -= (hidden[back] @ direction)[:, None] * direction

            handle = module.register_forward_hook(project)
            logits = plain_run(model, tokens).logits
            handle.remove()
            target = int(clean.logits.argmax())
            expected = (logits - logits.mean())[target] - (clean.logits - clean.logits.mean())[target]
            found = results["total"].sel(ablated=label)[0, index, 0]
            assert float(found) == pytest.approx(float(expected), abs=1e-10)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((), "draws values of mlp.0 of shape [1, 1, 32]: give [1, 1, 1, 32]"),
        ((1, 1, 1, 31), "draws values of mlp.0 of shape [1, 1, 1, 31]: give [1, 1, 1, 32]"),
        ((1, 2, 1, 32), "draws values of mlp.0 of shape [1, 2, 1, 32]: give [1, 1, 1, 32]"),
    ],
)
def test_values_of_another_shape_are_refused(model: LanguageModel, shape: tuple[int, ...], message: str) -> None:
    """Tensors would broadcast them into numbers that mean nothing."""

    class Own:
        patches = 1

        def draw(self, clean: CleanActivations, prompts: Sequence[int]) -> hs.ablations.Patches:
            own = np.array(prompts)[:, None]
            return hs.ablations.Patches(
                own, lambda c: torch.zeros(shape) if shape else clean.activations_of(c, own, prompts)[:, :, 0]
            )

    with pytest.raises(HydrascopeError) as caught:
        sweep(model, PROMPTS, Own(), ablate="mlp.0", batch_size=1)
    assert message in str(caught.value)

    class Short(Own):
        def draw(self, clean: CleanActivations, prompts: Sequence[int]) -> hs.ablations.Patches:
            return hs.ablations.Patches(np.zeros(len(prompts), int), super().draw(clean, prompts).values)

    with pytest.raises(HydrascopeError, match=r"the ablation Short draws sources of shape \[5\]: give \[5, 1\]"):
        draw_patches(Short(), bank(model, PROMPTS), range(5))


@pytest.mark.parametrize(
    ("patches", "message"),
    [
        (None, "the ablation Own draws patches as a NoneType: give a Patches"),
        (
            hs.ablations.Patches(np.zeros((5, 1), int), lambda c: np.zeros((5, 1, 1, 32))),
            "values of mlp.0 as a ndarray: give a Ten",
        ),
    ],
)
def test_what_is_no_patches_is_refused(model: LanguageModel, patches: object, message: str) -> None:
    class Own:
        patches = 1

        def draw(self, clean: CleanActivations, prompts: Sequence[int]) -> object:
            return given

    given = patches
    with pytest.raises(HydrascopeError, match=message):
        sweep(model, PROMPTS, Own(), ablate="mlp.0")
