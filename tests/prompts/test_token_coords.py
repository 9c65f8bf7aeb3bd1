"""What a result tells of its prompts' tokens, against the tokenizer itself and rules written down again."""

import numpy as np
import pytest
from speaking import byte_level, speaking
from transformers import AutoTokenizer

import hydrascope as hs
from hydrascope.models.language_model import LanguageModel
from hydrascope.utils import assets
from hydrascope.utils.errors import HydrascopeError

PROMPTS = (
    hs.Prompt("The capital of Niger is", subject="Niger"),
    hs.Prompt("São Tomé 😀 and 東京 are", subject="São Tomé"),
    hs.Prompt("Niger, Niger and no other", subject="Niger"),
)
#: Prompts without a subject that can be found.
OTHERS = (hs.Prompt("What is it?"), hs.Prompt("Where is Paris?", subject="paris"), hs.Prompt("No", subject=" "))
PLACES = {"last": [-1], -2: [-2], "0,-1": [0, -1]}


@pytest.fixture(scope="module", params=["built-in", "byte-level"])
def model(request):
    if request.param == "built-in":
        return speaking(AutoTokenizer.from_pretrained(assets.model_path("built-in")))
    return speaking(byte_level(["The capital of Niger is Niamey"] * 20, trimmed=False))


def told(model, prompts, at="last"):
    results = hs.sweep(model, list(prompts), hs.Zero(), ablate="attn.0", at=at)
    return [results.isel(prompt=i) for i in range(len(prompts))]


def test_tokens_are_the_tokenizers(model):
    for prompt, own in zip(PROMPTS, told(model, PROMPTS), strict=True):
        ids = model.encode(prompt.text)
        assert own["token_id"].values.tolist() == ids + [-1] * (own.sizes["token"] - len(ids))
        texts = list(own["token_text"].values)
        assert texts == [model.tokenizer.decode([token]) for token in ids] + [""] * (own.sizes["token"] - len(ids))
        assert prompt.text in "".join(texts) or "\ufffd" in texts
        assert prompt.text in model.tokenizer.decode(own["token_id"].values[: len(ids)])


@pytest.mark.parametrize("at", PLACES)
def test_ablated_are_the_positions_that_were_asked_for(model, at):
    for prompt, own in zip(PROMPTS, told(model, PROMPTS, at), strict=True):
        length = len(model.encode(prompt.text))
        expected = {place % length for place in PLACES[at]}
        assert set(np.flatnonzero(own["token_ablated"])) == expected


def test_ablated_are_all_positions_or_the_subjects(model):
    for prompt, own in zip(PROMPTS, told(model, PROMPTS, "all"), strict=True):
        assert np.flatnonzero(own["token_ablated"]).tolist() == list(range(len(model.encode(prompt.text))))
    for at in ("subject", "subject-last"):
        for own in told(model, PROMPTS, at):
            first, end = int(own["subject_first"]), int(own["subject_end"])
            expected = list(range(first, end)) if at == "subject" else [end - 1]
            assert np.flatnonzero(own["token_ablated"]).tolist() == expected


def test_the_subject_is_where_it_is_written(model):
    for prompt, own in zip(PROMPTS, told(model, PROMPTS), strict=True):
        first, end = int(own["subject_first"]), int(own["subject_end"])
        ids = own["token_id"].values[first:end].tolist()
        assert model.tokenizer.decode(ids).strip(" ,") == prompt.subject == str(own["subject"].values)
    # Of two mentions it is the second.
    assert first > 1


def test_where_there_is_no_subject_it_is_nowhere(model):
    for own in told(model, (*OTHERS, hs.Prompt(tokens=(1, 2, 3), subject="x"))):
        assert int(own["subject_first"]) == int(own["subject_end"]) == -1
        assert str(own["subject"].values) == ""
    assert int(told(model, (*OTHERS, *PROMPTS))[-1]["subject_first"]) > 0
    with pytest.raises(HydrascopeError, match="has no subject"):
        told(model, OTHERS, "subject")


def test_a_tokenizer_that_does_not_say_where_tokens_stand(model, monkeypatch):
    def refuse(self, text):
        raise HydrascopeError("it does not say")

    monkeypatch.setattr(LanguageModel, "encode_with_offsets", refuse)
    assert [int(own["subject_first"]) for own in told(model, PROMPTS)] == [-1] * 3


def test_without_a_tokenizer_tokens_read_as_their_numbers():
    (own, other) = told(speaking(None, vocabulary=20), [(3, 17, 5), (4, 2)])
    assert list(own["token_text"].values) == ["3", "17", "5"]
    assert list(other["token_text"].values) == ["4", "2", ""]
    assert other["token_id"].values.tolist() == [4, 2, -1]
