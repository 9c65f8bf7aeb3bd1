"""A part of `make fuzz`, and that it would find what is wrong; no option of a new transformers goes unnoticed."""

import inspect
from dataclasses import fields, is_dataclass
from itertools import count, islice

import pytest
from fuzz.cases import AGREES, FAILURES, WRONG, run_case
from fuzz.configurations import CONFIGURATIONS, UNDRAWN
from fuzz.drawing import Draw
from fuzz.models import architecture_of, draw_model
from fuzz.planted_faults import FAULTS, planted
from tiny import CONFIGS
from transformers import PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.mpt.configuration_mpt import MptAttentionConfig

#: How many configurations are drawn to see every option: one of a choice in twenty is there.
DRAWS = 40


def drawn(architecture: str) -> set[str]:
    """The options that a generator gives."""
    return {name for seed in range(DRAWS) for name in CONFIGURATIONS[architecture](Draw(str(seed)))}


def options(configuration: type[PreTrainedConfig]) -> set[str]:
    """The fields of a class, by its signature."""
    assert is_dataclass(configuration)
    return set(inspect.signature(configuration).parameters) & {field.name for field in fields(configuration)}


@pytest.mark.parametrize("architecture", sorted(CONFIGURATIONS))
def test_every_option_is_drawn_or_changes_nothing(architecture: str) -> None:
    given, every = drawn(architecture), options(CONFIG_MAPPING[architecture])
    assert every - given - UNDRAWN.keys() == set()
    assert given & UNDRAWN.keys() == set()


def test_nor_is_one_of_the_attention_of_mpt() -> None:
    given = {name for seed in range(DRAWS) for name in CONFIGURATIONS["mpt"](Draw(str(seed)))["attn_config"]}
    own = options(MptAttentionConfig) - options(PreTrainedConfig)
    assert own - given == {"attn_pdrop"}, "it is drawn as what a whole number can be: none"


def test_no_reason_is_left_over() -> None:
    every = set().union(*(options(CONFIG_MAPPING[architecture]) for architecture in CONFIGURATIONS))
    assert UNDRAWN.keys() <= every


def test_every_architecture_is_drawn() -> None:
    assert set(CONFIGURATIONS) == {architecture for architecture, _ in CONFIGS.values()}


def test_a_seed_is_a_case() -> None:
    first, second = (draw_model(7, "gemma2") for _ in range(2))
    assert first.settings == second.settings
    assert first.draw.random() == second.draw.random()
    assert draw_model(8, "gemma2").settings != first.settings


#: Each is of another architecture. None is a model that hydrascope doesn't support.
SEEDS = range(29, 29 + 60, 5)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_random_model_is_measured_as_by_plain_passes(seed: int) -> None:
    outcome = run_case(seed)
    assert outcome.ended == AGREES, outcome


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found_within_200(fault: str) -> None:
    with planted(fault):
        found = (run_case(seed, planted=True) for seed in islice(count(), 200))
        outcome = next((each for each in found if each.ended in FAILURES), None)
    assert outcome is not None
    assert outcome.ended == WRONG, outcome
    # Without the fault it is the same case, and right.
    assert run_case(outcome.seed, architecture_of(outcome.seed), planted=True).ended == AGREES
