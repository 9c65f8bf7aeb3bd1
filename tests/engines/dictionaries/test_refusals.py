"""Dictionaries and overrides of their terms that make no sense are refused, in one line that says why."""

import pytest
import torch
from dictionaries import with_dictionary
from tiny import shared

import hydrascope as hs
from hydrascope.components.selection import select_mediators, select_overrides
from hydrascope.dictionaries.dictionary import Dictionary
from hydrascope.models.language_model import LanguageModel


def refused(said: str, make, *arguments) -> None:
    with pytest.raises(hs.HydrascopeError, match=said) as caught:
        make(*arguments)
    assert "\n" not in str(caught.value)


def of_width(site: str, inputs: int, outputs: int) -> Dictionary:
    return Dictionary(site, encoder=torch.randn(4, inputs), decoder=torch.randn(4, outputs))


@pytest.fixture
def llama() -> LanguageModel:
    return shared("llama")


@pytest.mark.parametrize(
    ("dictionary", "said"),
    [
        (of_width("mlp.1", 16, 16), "writes 16 numbers, and mlp.1 of llama has 32: it was made for another model"),
        (of_width("stream.1", 64, 64), "writes 64 numbers, and stream.1 of llama has 32"),
        (of_width("transcoder.1", 16, 32), "reads 16 numbers, and the MLP of llama 32"),
        (of_width("raw.mlp.1", 32, 32), "no site raw.mlp.1 .* since no norm follows its sublayers: write mlp.1"),
        (of_width("mlp.3", 32, 32), "no site mlp.3 .*: its blocks are 0 to 2"),
        (of_width("stream.3", 32, 32), "no site stream.3 .*: its blocks are 0 to 2"),
    ],
)
def test_a_dictionary_that_does_not_fit_the_model(llama: LanguageModel, dictionary: Dictionary, said: str) -> None:
    refused(said, llama.with_dictionaries, dictionary)


def test_heads_have_their_own_width() -> None:
    """Refuse a dictionary unless it is as wide as all heads together."""
    model = shared("qwen3_moe")
    width = model.site_width(hs.Component(1, "head"))
    assert model.with_dictionaries(of_width("heads.1", width, width)).dictionaries
    refused(f"heads.1 of qwen3_moe has {width}", model.with_dictionaries, of_width("heads.1", width + 8, width + 8))


@pytest.mark.parametrize("other", ["attn.1", "heads.1"])
def test_two_dictionaries_of_one_sublayer(llama: LanguageModel, other: str) -> None:
    first, second = of_width("attn.1", 32, 32), of_width(other, 32, 32)
    refused(f"two dictionaries take attn.1 apart, at attn.1 and at {other}", llama.with_dictionaries, first, second)
    refused("two dictionaries take attn.1 apart", llama.with_dictionaries(first).with_dictionaries, second)


def test_a_transcoder_and_a_dictionary_of_the_same_mlp(llama: LanguageModel) -> None:
    both = of_width("transcoder.1", 32, 32), of_width("mlp.1", 32, 32)
    refused("two dictionaries take mlp.1 apart", llama.with_dictionaries, *both)


def test_dictionaries_of_several_sublayers_stand_side_by_side(llama: LanguageModel) -> None:
    model = llama.with_dictionaries(*(of_width(site, 32, 32) for site in ("mlp.1", "attn.1", "stream.1", "mlp.0")))
    assert [str(home) for home in model.dictionaries] == ["mlp.0", "attn.1", "mlp.1", "stream.1"]
    assert not llama.dictionaries


@pytest.mark.parametrize(
    ("case", "site", "selection", "said"),
    [
        ("llama", "mlp.1", "feature.mlp.1.12", "has feature.mlp.1.0 to feature.mlp.1.11"),
        ("llama", "mlp.1", "feature.mlp.2.0", "no feature.mlp.2.0: its dictionaries are at mlp.1"),
        ("llama", "mlp.1", "feature.attn.1.0", "no feature.attn.1.0: its dictionaries are at mlp.1"),
        ("llama", "mlp.1", "error.transcoder.1", "no error.transcoder.1: its dictionaries are at mlp.1"),
        ("llama", "mlp.1", "feature.mlp.1.3|error.mlp.1", "freezes error.mlp.1, which isn't downstream"),
        ("llama", "mlp.1", "feature.mlp.1.3|feature.mlp.1.4", "freezes feature.mlp.1.4, which isn't downstream"),
        ("llama", "mlp.1", "mlp.2|feature.mlp.1", "freezes feature.mlp.1, which isn't downstream"),
        ("llama", "mlp.1", "feature.mlp.1.3|neuron.1.0", "freezes neuron.1.0, which isn't downstream"),
        ("gpt_neox", "mlp.1", "attn.1|feature.mlp.1", "freezes feature.mlp.1, which isn't downstream"),
        ("llama", "transcoder.1", "neuron.1.1|feature.transcoder.1.3", "isn't downstream of what is ablated"),
        ("llama", "transcoder.1", "neuron.1.1|bias.transcoder.1", "isn't downstream of what is ablated"),
        ("llama", "mlp.1", "feature.mlp.1+feature.mlp.1.3", "feature.mlp.1.3 and all features there"),
        ("llama", "mlp.1", "feature.mlp.1.3+feature.mlp.1.3", "feature.mlp.1.3 twice"),
        ("llama", "mlp.1", "mlp.1+feature.mlp.1.3", "feature.mlp.1.3 and all of mlp.1"),
        ("llama", "heads.1", "attn.1+error.heads.1", "error.heads.1 and all of attn.1"),
    ],
)
def test_an_override_of_terms(case: str, site: str, selection: str, said: str) -> None:
    refused(said, select_overrides, with_dictionary(case, site), selection)


@pytest.mark.parametrize(
    ("site", "selection"),
    [
        ("transcoder.1", "neuron.1.1|error.transcoder.1"),
        ("transcoder.1", "attn.1|feature.transcoder.1.3"),
        ("heads.1", "head.1.1|feature.heads.1.3"),
        ("stream.1", "mlp.0|feature.stream.1.3"),
        ("stream.1", "feature.stream.1.3|attn.1"),
    ],
)
def test_what_is_downstream_may_be_frozen(site: str, selection: str) -> None:
    assert [str(each) for each in select_overrides(with_dictionary("llama", site), selection)] == [selection]


def test_no_dictionary_is_given(llama: LanguageModel) -> None:
    refused("has no feature.mlp.1.3: no dictionary is given", select_overrides, llama, "feature.mlp.1.3")
    refused("has no terms: no dictionary is given", select_overrides, llama, "terms")


def test_a_single_feature_is_no_mediator() -> None:
    model = with_dictionary("llama", "mlp.1")
    refused("feature.mlp.1.3 can't be a mediator by itself", select_mediators, model, "feature.mlp.1.3")
    assert [str(each) for each in select_mediators(model, "feature.mlp.1")] == ["feature.mlp.1"]


def test_the_labels_of_terms_are_read_back() -> None:
    model = with_dictionary("gemma2", "raw.mlp.1")
    labels = [str(each) for each in select_overrides(model, "features.raw.mlp.1,terms")]
    assert labels[:2] == ["feature.raw.mlp.1.0", "feature.raw.mlp.1.1"]
    assert labels[12:] == ["feature.raw.mlp.1", "error.raw.mlp.1", "bias.raw.mlp.1"]
    assert [str(each) for each in select_overrides(model, labels)] == labels
