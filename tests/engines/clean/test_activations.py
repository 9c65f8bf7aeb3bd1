"""What is kept of clean runs is what plain forward passes write, at the positions that correspond."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from banked import banked
from hypothesis import given, settings
from hypothesis import strategies as st
from plain import loaded, plain_run

from hydrascope.components.component import Component
from hydrascope.engines.clean.activations import CleanActivations
from hydrascope.prompts.positions import At
from hydrascope.prompts.prompt import Prompt
from hydrascope.utils.errors import HydrascopeError

MODEL = loaded("gpt2")
SITES = [Component.parse("attn.1"), Component.parse("mlp.2"), Component(0, "head"), Component(1, "neuron")]
PARTS = ["attn.1", "mlp.2", "head.0.3", "neuron.1.7"]
ALPHABET = "abcdefgh"


def bank(prompts: Sequence[Prompt], at: At, batch_size: int = 3) -> CleanActivations:
    return banked(MODEL, prompts, at, SITES, batch_size)


def plain_values(prompt: Prompt) -> dict[str, torch.Tensor]:
    """`[position, columns]` of each component."""
    return plain_run(MODEL, MODEL.encode(prompt.text), units=PARTS).values


def mean(values: torch.Tensor) -> torch.Tensor:
    return values.mean(0)


def largest(values: torch.Tensor) -> torch.Tensor:
    """Of no prompts there is none: PyTorch refuses."""
    return values.amax(0)


@st.composite
def sets(draw: st.DrawFn) -> tuple[list[Prompt], str]:
    """Distinct prompts of 2 to 6 tokens with subjects of 1 or 2, and where to ablate them."""
    texts = draw(st.lists(st.text(ALPHABET, min_size=2, max_size=6), min_size=2, max_size=5, unique=True))
    prompts = []
    for text in texts:
        first = draw(st.integers(0, len(text) - 1))
        prompts.append(Prompt(text, subject=text[first : first + draw(st.integers(1, 2))]))
    return prompts, draw(st.sampled_from(["last", "-2", "0", "-2,0,-1", "all", "subject", "subject-last"]))


def spans(prompts: Sequence[Prompt], at: str) -> list[tuple[list[int], int, int]]:
    """By hand: each prompt's ablated positions, what they are counted back from, and where that begins."""
    found = []
    for prompt in prompts:
        length = len(prompt.text)
        if at.startswith("subject"):
            assert prompt.subject is not None
            start = prompt.text.rfind(prompt.subject)
            end = start + len(prompt.subject)
            found.append(([end - 1] if at == "subject-last" else list(range(start, end)), end, start))
        elif at == "all":
            found.append((list(range(length)), length, 0))
        else:
            numbers = [-1] if at == "last" else [int(number) for number in at.split(",")]
            found.append((sorted({number % length for number in numbers}), length, 0))
    return found


@settings(deadline=None, max_examples=12)
@given(sets(), st.integers(1, 5))
def test_it_is_what_single_runs_write_where_they_correspond(drawn: tuple[list[Prompt], str], batch_size: int) -> None:
    prompts, at = drawn
    clean = bank(prompts, at, batch_size)
    values, where = [plain_values(prompt) for prompt in prompts], spans(prompts, at)
    for index, (positions, end, _) in enumerate(where):
        assert list(clean.positions[index].positions) == positions
        back = [end - position for position in positions]
        fitting = [
            number for number, (_, other, start) in enumerate(where) if all(other - each >= start for each in back)
        ]
        assert list(np.flatnonzero(clean.donors(index))) == fitting
        for part in PARTS:
            component = Component.parse(part)
            expected = torch.stack([values[n][part][[where[n][1] - each for each in back]] for n in fitting])
            torch.testing.assert_close(clean.activations_of(component, np.array([fitting]), [index])[0], expected)
            torch.testing.assert_close(clean.own_activations(component, [index])[0, 0], values[index][part][positions])
            corresponding = []
            for each in back:
                far = [n for n, (_, other, start) in enumerate(where) if other - each >= start]
                corresponding.append(torch.stack([values[n][part][where[n][1] - each] for n in far]))
            for statistic in (mean, largest):
                reduced = clean.reduce_activations(component, [index], statistic)[0, 0]
                torch.testing.assert_close(reduced, torch.stack([statistic(each) for each in corresponding]))
    logits = [plain_run(MODEL, MODEL.encode(prompt.text)).logits for prompt in prompts]
    assert list(clean.argmax) == list(clean.targets) == [int(each.argmax()) for each in logits]


def test_prompts_with_fewer_positions_repeat_their_last() -> None:
    """In one batch, every prompt has as many slots; to write a position twice changes nothing."""
    clean = bank([Prompt("ab"), Prompt("cdef")], "all")
    np.testing.assert_array_equal(clean.padded_positions([0, 1]), [[0, 1, 1, 1], [0, 1, 2, 3]])
    np.testing.assert_array_equal(clean.padded_offsets([0, 1]), [[2, 1, 1, 1], [4, 3, 2, 1]])
    attn = Component.parse("attn.1")
    torch.testing.assert_close(clean.own_activations(attn, [0, 1])[0, 0, :2], clean.own_activations(attn, [0])[0, 0])


def test_a_source_that_does_not_correspond_is_refused() -> None:
    """Whoever writes an ablation of their own must not get another position's values without a word."""
    clean = bank([Prompt("ab"), Prompt("cdef")], "all")
    with pytest.raises(HydrascopeError, match=r'prompt 1 \("ab"\) is too short to patch prompt 2 \("cdef"\)'):
        clean.activations_of(Component.parse("attn.1"), np.array([[1], [0]]), [0, 1])


def test_other_targets_can_be_given() -> None:
    tokens = [[5, 6], [7]]
    prompts = [Prompt(tokens=tuple(ids)) for ids in tokens]
    clean = banked(MODEL, prompts, "last", SITES, 2, targets=[3, 4])
    assert list(clean.targets) == [3, 4]
    assert list(clean.argmax) == [int(plain_run(MODEL, ids).logits.argmax()) for ids in tokens]


@given(sets(), st.integers(1, 5))
@settings(deadline=None, max_examples=30)
def test_slices_join_to_the_whole(drawn: tuple[list[Prompt], str], size: int) -> None:
    """To the bit, in any order."""
    prompts, at = drawn
    whole, joined = (banked(MODEL, prompts, at, SITES, size, in_parts=in_parts) for in_parts in (False, True))
    assert whole.argmax == joined.argmax == joined.targets
    np.testing.assert_array_equal(whole.row_index, joined.row_index)
    for site in SITES:
        assert torch.equal(whole.values[site], joined.values[site])


@given(sets(), st.integers(1, 5))
@settings(deadline=None, max_examples=20)
def test_selected_concatenated_and_realigned_they_are_as_if_collected_so(
    drawn: tuple[list[Prompt], str], size: int
) -> None:
    """The explorer keeps all positions of a set once, and asks for other prompts and positions of it."""
    prompts, at = drawn
    direct, every = bank(prompts, at, size), bank(prompts, "all", size)
    backwards = range(len(prompts))[::-1]
    parts = [every.select([index], SITES[:3]) for index in backwards]
    again = CleanActivations.concatenate(parts).select(backwards, SITES[:2]).realign(direct.positions)
    assert list(again.values) == again.sites == SITES[:2]
    assert (again.prompts, again.tokens, again.argmax) == (list(prompts), direct.tokens, direct.argmax)
    assert again.positions == direct.positions
    for index in range(len(prompts)):
        donors = np.flatnonzero(direct.donors(index))
        np.testing.assert_array_equal(np.flatnonzero(again.donors(index)), donors)
        for site in SITES[:2]:
            values = [clean.activations_of(site, donors[None], [index]) for clean in (direct, again)]
            assert torch.equal(*values)
            assert torch.equal(*(clean.reduce_activations(site, [index], mean) for clean in (direct, again)))
