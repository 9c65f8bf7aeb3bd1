"""Tokens with which all prompts of a batch begin are run once, which changes no number."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from asked import assert_same, heads, request
from ropes import LIMIT, roped
from tiny import CONFIGS, shared, tiny, tolerance
from torch import Tensor

from hydrascope.components.component import Component, Override
from hydrascope.engines import reference, wavefront
from hydrascope.engines.clean import opening
from hydrascope.engines.clean.clean_pass import CleanPass
from hydrascope.engines.clean.opening import opening_length
from hydrascope.engines.clean.prefix import SharedPrefix, compute_prefix, compute_prefix_and_clean_pass
from hydrascope.engines.kernels.patching import fastest_routines
from hydrascope.engines.override_change import units_site
from hydrascope.models.hooks import hooked, on_input
from hydrascope.models.language_model import LanguageModel

FAST = [case for case in CONFIGS if shared(case).anatomy.supports_wavefront]
OPENING = [5, 17, 3, 8, 11, 29, 6, 2]
#: Of several lengths. The first two go on alike; the last has one token more than the opening.
PROMPTS = [[*OPENING, 7, 9, 4, 13], [*OPENING, 7, 12], [*OPENING, 21]]
LAST = [[11], [9], [8]]


def sites(model: LanguageModel) -> list[Component]:
    """All sublayers, the heads of a block and, unless there are experts, its neurons."""
    return [*model.sublayers, *(units_site(each) for each in model.sublayers[2:4] if model.is_dense(each))]


def computed(model: LanguageModel, positions: Sequence[Sequence[int]]) -> tuple[SharedPrefix, CleanPass]:
    """The prefix of `PROMPTS`, and activations at positions in the opening and behind it."""
    prompts, at = torch.tensor([2, 0, 1, 0, 2]), torch.tensor([8, 0, 5, 10, 7])
    return compute_prefix_and_clean_pass(
        model, PROMPTS, torch.tensor(positions), sites(model), fastest_routines(model), prompts, at
    )


def numbers(prefix: SharedPrefix, clean: CleanPass) -> list[Tensor]:
    """All numbers of a clean pass."""
    return [*prefix.tensors, *clean.values.values(), clean.embed, clean.final, clean.normed]


@pytest.mark.parametrize("case", FAST)
def test_it_changes_no_number(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = shared(case)
    for positions in (LAST, [[8, 11], [9, 9], [8, 8]]):
        monkeypatch.setattr(opening, "LEAST", 99)
        apart = numbers(*computed(model, positions))
        monkeypatch.setattr(opening, "LEAST", 2)
        once = numbers(*computed(model, positions))
        for here, there in zip(once, apart, strict=True):
            torch.testing.assert_close(here, there, rtol=tolerance(case), atol=tolerance(case))


@pytest.mark.parametrize("case", ["gpt2", "gemma2", "deepseek_v3"])
@pytest.mark.parametrize("at", [-1, 5])
def test_rows_give_what_plain_passes_give(case: str, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "LEAST", 2)
    model = shared(case)
    runs = [Override((component,)) for component in (*model.sublayers, *heads(model)[::3])]
    asked = request(model, runs, [len(prompt) for prompt in PROMPTS])
    positions = torch.tensor([[at % len(prompt)] for prompt in PROMPTS])
    asked = replace(asked, tokens=PROMPTS, positions=positions)
    assert_same(wavefront.measure(model, asked), reference.measure(model, asked), tolerance(case))


def test_the_opening_is_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "LEAST", 3)
    model, shapes = shared("llama"), []
    with hooked([on_input(model.blocks[0], lambda hidden: shapes.append(tuple(hidden.shape[:2])))]):
        computed(model, LAST)
        computed(model, [[4], [2], [1]])  # of which eight change, so that one token would be left
        computed(model, [[11], [9], [3]])  # of the last six change: three are left
    assert shapes == [(1, 8), (3, 4), (3, 12), (1, 3), (3, 9)]


def test_a_batch_gives_the_same_bits_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "LEAST", 2)
    model = tiny("llama", torch.float32)
    first, _ = computed(model, LAST)
    again = compute_prefix(model, PROMPTS, torch.tensor(LAST), sites(model), fastest_routines(model))
    assert all(map(torch.equal, first.tensors, again.tensors))


def test_an_opening_begins_all_prompts_and_ends_before_what_is_ablated() -> None:
    model, template = shared("llama"), [*range(1, 41)]
    assert opening_length(model, [[*template, 5], [*template, 6, 7], [*template, 5]], 1) == 40
    assert opening_length(model, [template, [*template, 6, 7], [*template, 5]], 1) == 39
    assert opening_length(model, [[*template, 5], [*template, 6, 7], [*template, 5]], 7) == 34
    assert opening_length(model, [[*template, 5], [*template, 6, 7], [*template, 5]], 50) == 0  # all is ablated
    assert opening_length(model, [[*template, 5], [9, *template], [*template, 5]], 1) == 0
    assert opening_length(model, [[*template, 5], [*template, 6, 7]], 1) == 0  # too little would be saved
    assert opening_length(model, [[*template, *template, 5]], 1) == 0


@pytest.mark.parametrize("rope", ["dynamic", "longrope"])
def test_tables_that_depend_on_the_length_allow_no_opening(rope: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "LEAST", 2)
    model = roped("llama", rope)
    short, long = ([[*range(1, length), end] for end in (50, 51)] for length in (LIMIT, LIMIT + 1))
    assert opening_length(model, short, 1) == LIMIT - 1
    assert opening_length(model, long, 1) == 0
