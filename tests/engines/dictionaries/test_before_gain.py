"""Transcoders that read the MLP's input before the gain of its norm: x̂ is computed itself, nothing is folded."""

import pytest
import torch
from by_definition import assert_by_definition
from dictionaries import ACTIVATIONS, random_dictionary
from plain_terms import PlainTerms, plain_model
from tiny import shared, tiny, tolerance

import hydrascope as hs
from hydrascope.engines.clean.clean_pass import compute_clean_pass_at

CASES = ("gpt2", "llama", "gemma", "gemma2", "gpt_neox")


@pytest.mark.parametrize("case", CASES)
def test_every_number_of_a_transcoder_before_the_gain(case: str) -> None:
    """LayerNorm with a bias, RMSNorm, a gain of 1 plus the weight; parallel blocks."""
    activation = ACTIVATIONS[CASES.index(case) % 4]
    dictionary = random_dictionary(plain_model(case), "transcoder.1", activation, before_gain=True)
    assert_by_definition(case, dictionary, "span")


@pytest.mark.parametrize("case", CASES)
def test_its_terms_at_every_position(case: str) -> None:
    dictionary = random_dictionary(plain_model(case), "transcoder.1", before_gain=True)
    plain, tokens = PlainTerms(case, dictionary), [5, 9, 7, 11]
    expected = plain.run(tokens).terms
    model = plain.model.with_dictionaries(dictionary)
    sites = model.dictionaries[hs.Component(1, "mlp")].term_sites
    clean = compute_clean_pass_at(model, [tokens], torch.zeros(4, dtype=torch.long), torch.arange(4), sites)
    assert float(expected["feature"].max()) > 0.1
    for site in sites:
        torch.testing.assert_close(clean.values[site], expected[site.kind], atol=10 * tolerance(case), rtol=0)


def test_a_centred_input_of_a_layer_norm() -> None:
    """Before its gain it has no mean; that after it isn't centred then."""
    dictionary = random_dictionary(plain_model("gpt2"), "transcoder.1", before_gain=True, centred=True)
    assert_by_definition("gpt2", dictionary, "last")


@pytest.mark.parametrize(
    ("case", "settings", "said"),
    [
        ("llama", {"centred": True}, "reads a centred input, and llama doesn't centre its stream"),
        ("olmo2", {}, "no norm stands right in front of Olmo2MLP in block 1"),
    ],
)
def test_what_cannot_be_folded(case: str, settings: dict, said: str) -> None:
    dictionary = random_dictionary(shared(case), "transcoder.1", before_gain=True, **settings)
    with pytest.raises(hs.HydrascopeError, match=said) as caught:
        shared(case).with_dictionaries(dictionary)
    assert "\n" not in str(caught.value)


def test_a_gain_of_zero_cannot_be_divided_by() -> None:
    model = tiny("llama")
    with torch.no_grad():
        model.hf.model.layers[1].post_attention_layernorm.weight[3] = 0
    with pytest.raises(hs.HydrascopeError, match="some of the gains of llama are 0"):
        model.with_dictionaries(random_dictionary(model, "transcoder.1", before_gain=True))
