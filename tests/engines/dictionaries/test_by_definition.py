"""Effects and readings of a dictionary's terms, against plain passes written from the definition alone."""

import pytest
from asked import PLACES
from by_definition import assert_by_definition
from dictionaries import ACTIVATIONS, SITES, random_dictionary
from plain_terms import NAMES, plain_model
from term_faults import FAULTS, Plant

#: Every case, every site that it has.
CASES = ("gpt2", "llama", "granite", "gemma2", "olmo2-bias", "gpt_neox")
PLACED = [(case, site) for case in CASES for site in SITES if NAMES[case].post_norm or not site.startswith("raw")]


@pytest.mark.parametrize(("case", "site"), PLACED)
def test_terms_of_every_site(case: str, site: str) -> None:
    """Each with another activation, overridden at another place."""
    number = PLACED.index((case, site))
    at = ("last", "span", "all", "middle")[number // 3 % 4]
    assert_by_definition(case, random_dictionary(plain_model(case), site, ACTIVATIONS[number % 4]), at)


@pytest.mark.slow
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("case", "site"), PLACED)
def test_terms_of_every_site_activation_and_place(case: str, site: str, activation: str) -> None:
    for at in PLACES:
        assert_by_definition(case, random_dictionary(plain_model(case), site, activation, seed=3), at, seed=4)


@pytest.mark.parametrize(
    ("site", "settings"),
    [
        ("mlp.1", {"centred": True}),
        ("raw.attn.1", {"centred": True}),
        ("transcoder.1", {"centred": True}),
        ("transcoder.1", {"skip": None}),
        ("attn.1", {"pre_bias": None, "encoder_bias": None, "decoder_bias": None}),
    ],
)
def test_other_forms_of_dictionaries(site: str, settings: dict) -> None:
    assert_by_definition("gemma2", random_dictionary(plain_model("gemma2"), site, **settings), "last")


@pytest.mark.parametrize(("plant", "case", "site"), FAULTS, ids=[fault[0].__name__ for fault in FAULTS])
def test_a_planted_fault_is_caught(plant: Plant, case: str, site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    with pytest.raises(AssertionError, match=r": off by"):
        test_terms_of_every_site(case, site)
