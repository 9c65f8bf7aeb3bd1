"""Prompts as users hold them: tables, encodings, padded ids; and tokenizers that append, fold case, or split spaces."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from plain import loaded
from speaking import speaking
from tiny import tiny, tiny_tokenizer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import BatchEncoding, PreTrainedTokenizerFast

import hydrascope as hs
from hydrascope.models.language_model import LanguageModel
from hydrascope.prompts.answers import answer_tokens, foil_tokens, whole_answers
from hydrascope.prompts.prepare import prepare
from hydrascope.utils.errors import HydrascopeWarning

torch.set_num_threads(1)

TEXTS = ["the cat", "Hello, world", "no", "a cow"]


def model_with(change: Any = None, **settings: Any) -> LanguageModel:
    """A tiny model whose tokenizer of single characters is changed, or has other special tokens."""
    tokenizer = tiny_tokenizer()
    if change is not None:
        change(tokenizer.backend_tokenizer)
    for name, token in settings.items():
        setattr(tokenizer, name, token)
    model = tiny("llama", torch.float64)
    model.hf.eval()
    model.tokenizer = tokenizer
    return model


def ending(begin: str, end: str) -> Any:
    """A change: texts stand between special tokens."""

    def change(tokenizer: Tokenizer) -> None:
        special = [(token, tokenizer.token_to_id(token)) for token in ("<s>", "</s>")]
        whole = f"{begin} $A {end}".strip()
        tokenizer.post_processor = processors.TemplateProcessing(single=whole, special_tokens=special)

    return change


def sentence_pieces() -> PreTrainedTokenizerFast:
    """A tokenizer that marks spaces as SentencePiece does, with digits and 好 as pieces of their own."""
    pieces = ["<unk>", "<s>", "▁", "▁has", "▁is", "5", "7", "好", "是", "▁red", "。"]
    tokenizer = Tokenizer(models.WordLevel({piece: place for place, piece in enumerate(pieces)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(prepend_scheme="always"),
            pre_tokenizers.Split(pattern="5", behavior="isolated"),
            pre_tokenizers.Split(pattern="7", behavior="isolated"),
            pre_tokenizers.Split(pattern="好", behavior="isolated"),
            pre_tokenizers.Split(pattern="是", behavior="isolated"),
        ]
    )
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>")


def same(one: Any, other: Any) -> None:
    for name in ("logit", "total", "unembed"):
        np.testing.assert_array_equal(one[name], other[name])


def test_a_table_is_read_by_its_columns() -> None:
    table = pd.DataFrame(
        {
            "id": [1, 2],
            "prompt": ["the cat", "a cow"],
            "answer": [" s", None],
            "foil": [" t", np.nan],
            "subject": ["cat", "cow"],
        }
    )
    expected = (hs.Prompt("the cat", " s", foil=" t", subject="cat"), hs.Prompt("a cow", subject="cow"))
    assert hs.prompts.PromptSet.of(table).prompts == expected
    rows = [
        {"prompt": "the cat", "attribute": " s", "foil": " t", "subject": "cat"},
        {"text": "a cow", "subject": "cow"},
    ]
    assert hs.prompts.PromptSet.of(rows).prompts == expected
    assert hs.prompts.PromptSet.of(pd.DataFrame({"tokens": [[4, 5], [6]]})).prompts == (
        hs.Prompt(tokens=(4, 5)),
        hs.Prompt(tokens=(6,)),
    )
    assert hs.prompts.PromptSet.of(table["prompt"]).prompts == (hs.Prompt("the cat"), hs.Prompt("a cow"))
    model = loaded()
    same(hs.sweep(model, table[["prompt"]], hs.Zero()), hs.sweep(model, ["the cat", "a cow"], hs.Zero()))


class Columns:
    """A table of another library: pyarrow's `to_pylist`, polars' `to_dicts`, or a `datasets.Dataset` of rows."""

    def __init__(self, method: str) -> None:
        rows = [{"prompt": "the cat"}, {"prompt": "a cow"}]
        setattr(self, "columns" if method == "to_dicts" else "column_names", ["prompt"])
        if method:
            setattr(self, method, lambda: rows)
        self._rows = rows

    def __iter__(self) -> Any:
        return iter(self._rows)


@pytest.mark.parametrize("method", ["to_dicts", "to_pylist", ""])
def test_tables_of_other_libraries(method: str) -> None:
    assert hs.prompts.PromptSet.of(Columns(method)).prompts == (hs.Prompt("the cat"), hs.Prompt("a cow"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (pd.DataFrame({"question": ["a"], "answer": ["b"]}), r'without a column of prompts: call one "prompt"'),
        (pd.DataFrame({"prompt": ["a"], "text": ["b"]}), "prompt 1 gives text in two columns"),
        (pd.DataFrame({"prompt": ["a", None]}), "prompt 2 has no text"),
        (pd.DataFrame({"prompt": ["a"], "answer": [5]}), "prompt 1: answer is 5, which is no text"),
        (pd.DataFrame({"prompt": [3]}), "prompt 1 has no text"),
        ({"prompt": ["a", "b"]}, "cannot be a dict"),
        ({"a", "b"}, "cannot be a set"),
        (io.StringIO("a\nb"), "cannot be a StringIO"),
        (Path("prompts.txt"), r"cannot be a P\w+Path"),
        (bytearray(b"ab"), "cannot be a bytearray"),
        (["a", {1, 2}], "prompt 2 is no prompt"),
        (["a", [True, False]], "prompt 2 is no prompt"),
        (["a", b"bc"], "prompt 2 is no prompt"),
        ({"input_ids": [[4, 5]], "attention_mask": [[1, 1, 1]]}, "attention_mask and input_ids differ in shape"),
        ({"input_ids": [[4, 5, 6]], "attention_mask": [[1, 0, 1]]}, "attention_mask has gaps in prompt 1"),
        ({"input_ids": [[4, 5]], "attention_mask": [[0, 0]]}, "attention_mask masks all of prompt 1"),
    ],
)
def test_what_is_no_sequence_of_prompts_is_refused(prompts: Any, message: str) -> None:
    with pytest.raises(hs.HydrascopeError, match=message) as caught:
        hs.prompts.PromptSet.of(prompts)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("prompts", ["demo", "prompts.jsonl", "my.txt"])
def test_the_name_of_a_set_or_a_file_is_no_prompt(prompts: str) -> None:
    with pytest.raises(hs.HydrascopeError, match=r"give load_prompts\("):
        hs.sweep(loaded(), prompts, hs.Zero())


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("tensors", [None, "pt", "np"])
def test_an_encoding_is_read_by_its_mask(side: str, tensors: str | None) -> None:
    """Whatever the padding token is: here one that also begins a text."""
    model = loaded()
    model.tokenizer.pad_token, model.tokenizer.padding_side = model.tokenizer.bos_token, side
    encoded = model.tokenizer(TEXTS, padding=True, return_tensors=tensors)
    same(hs.sweep(model, encoded, hs.Zero()), hs.sweep(model, TEXTS, hs.Zero()))
    one = BatchEncoding({"input_ids": torch.tensor([4, 5, 6]), "attention_mask": torch.tensor([0, 1, 1])})
    assert hs.prompts.PromptSet.of(one).prompts == (hs.Prompt(tokens=(5, 6)),)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_taken_from_ids(side: str) -> None:
    model = model_with(pad_token="<pad>")
    model.tokenizer.padding_side = side
    ids = model.tokenizer(TEXTS, padding=True)["input_ids"]
    assert len(set(map(len, ids))) == 1
    prepared = prepare(model, ids)
    assert prepared.tokens == [model.encode(text) for text in TEXTS]
    assert prepared.notes == ("padding removed from 3 prompts",)
    with pytest.warns(HydrascopeWarning, match="padding removed from 3 prompts"):
        results = hs.sweep(model, ids, hs.Zero())
    same(results, hs.sweep(model, TEXTS, hs.Zero()))


def test_padding_without_a_padding_token() -> None:
    """What stands before the first token of all, however it is called; unknown tokens at the end."""
    model = model_with(ending("<s>", ""))
    first, unknown = model.tokenizer.bos_token_id, model.tokenizer.unk_token_id
    assert prepare(model, [[0, 0, first, 9, 8], [unknown, first, 9], [first, 7, unknown, unknown]]).tokens == [
        [first, 9, 8],
        [first, 9],
        [first, 7],
    ]
    kept = [[9, 8, first, 7], [unknown, 9], [first, unknown], [first, first, 9]]
    assert prepare(model, kept).tokens == kept


def test_padding_that_may_be_a_beginning() -> None:
    model = model_with(pad_token="<s>")
    begin = model.tokenizer.bos_token_id
    assert prepare(model, [[begin, 9, 8], [begin, 7]]).tokens == [[begin, 9, 8], [begin, 7]]
    for ids in ([[begin, begin, 9], [8, 7, 9]], [[begin, 9, 8], [7, 8, 9]]):
        with pytest.raises(
            hs.HydrascopeError, match=r"prompt 1 .* begins with \d tokens .* that may be padding .* attention_mask"
        ):
            prepare(model, ids)
    adds = model_with(ending("<s>", ""), pad_token="<s>")
    assert prepare(adds, [[begin, begin, begin, 9], [begin, 7, 8, 9]]).tokens == [[begin, 9], [begin, 7, 8, 9]]
    with pytest.raises(hs.HydrascopeError, match=r"prompt 1 .* is nothing but padding"):
        prepare(model_with(pad_token="<pad>"), [[0, 0, 0]])


def test_texts_of_the_same_tokens_are_one_prompt() -> None:
    def folding(tokenizer: Tokenizer) -> None:
        tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])

    model = model_with(folding)
    prompts = ["The cat", "the cat", "a cow", "ｔhe cat", "no"]
    prepared = prepare(model, prompts)
    assert [prompt.text for prompt in prepared.prompts.prompts] == ["The cat", "a cow", "no"]
    assert prepared.prompts.duplicates == 2
    assert prepared.notes == ("2 prompts left out: the same tokens as an earlier one",)
    with pytest.warns(HydrascopeWarning, match="2 prompts left out: the same tokens as an earlier one"):
        results = hs.sweep(model, prompts, hs.Resample(2))
    assert results["text"].values.tolist() == ["The cat", "a cow", "no"]
    assert (np.abs(results["total"]).max(["readout", "ablated"]) > 1e-3).all()
    mixed = prepare(model, ["a cow", model.encode("A COW")])
    assert [prompt.text for prompt in mixed.prompts.prompts] == ["a cow"]


def test_a_prompt_is_read_before_what_its_tokenizer_appends() -> None:
    model, plain = model_with(ending("<s>", "</s>")), model_with(ending("<s>", ""))
    with pytest.warns(HydrascopeWarning, match="appends </s> to a text"):
        results = hs.sweep(model, TEXTS, hs.Zero())
    same(results, hs.sweep(plain, TEXTS, hs.Zero()))
    assert [row[row != ""][-1] for row in results["token_text"].values] == ["t", "d", "o", "w"]
    prepared = prepare(model, TEXTS)
    assert prepared.notes == ("the tokenizer of llama appends </s> to a text: prompts are read before it",)
    assert prepare(model, model.tokenizer(TEXTS)["input_ids"]).tokens == prepared.tokens
    prompts = [hs.Prompt("the ", "cat"), hs.Prompt("a c", "ow")]
    assert answer_tokens(plain, [hs.Prompt("the ", "cat")]) == answer_tokens(model, prompts[:1])
    ids, spans = model.encode_with_offsets("the cat")
    assert ids == model.encode("the cat")
    assert spans[0] == (0, 0)
    assert spans[-1] == (6, 7)


def test_a_text_that_begins_with_the_first_token_of_all_gets_no_second_one() -> None:
    model = model_with(ending("<s>", ""))
    own = model.encode("the cat")
    assert own[0] == model.tokenizer.bos_token_id
    assert model.encode("<s>the cat") == own
    assert model.encode_with_offsets("<s>the cat")[0] == own
    assert model.encode("<s><s>the cat") == [own[0], *own]
    assert loaded().encode("<s>the cat") == [own[0], *loaded().encode("the cat")]


@pytest.mark.parametrize("answer", ["5", " 5", "好"])
def test_an_answer_that_begins_with_a_bare_space_is_refused(answer: str) -> None:
    model = speaking(sentence_pieces())
    with pytest.raises(hs.HydrascopeError, match="begins with a bare space") as caught:
        answer_tokens(model, [hs.Prompt("has", answer)])
    assert "\n" not in str(caught.value)
    piece = model.tokenizer.convert_tokens_to_ids(answer.strip())
    blank = model.tokenizer.convert_tokens_to_ids("▁")
    # It is a token of the whole answer.
    assert whole_answers(model, [hs.Prompt("has", answer)]) == [[blank, piece]]
    assert answer_tokens(model, [hs.Prompt("has ", answer.strip())]) == [piece]
    assert answer_tokens(model, [hs.Prompt("has", "red")]) == [model.tokenizer.convert_tokens_to_ids("▁red")]


def test_a_prompt_is_read_after_the_space_that_begins_its_answer() -> None:
    model = speaking(sentence_pieces())
    prompts = [
        hs.Prompt("has", "5", foil="7", counterfactual="is"),
        hs.Prompt("is", " 7", foil=" 5", counterfactual="has"),
        hs.Prompt("has red", "red", foil="is"),
        hs.Prompt("red ", "5", foil="7"),
    ]
    prepared = prepare(model, prompts, answered="alone")
    assert prepared.prompts.prompts == (
        hs.Prompt("has ", "5", foil="7", counterfactual="is "),
        hs.Prompt("is ", "7", foil="5", counterfactual="has "),
        *prompts[2:],
    )
    assert prepared.notes == ("2 prompts read after the space that is their answer's first token",)
    five, seven = model.tokenizer.convert_tokens_to_ids(["5", "7"])
    assert answer_tokens(model, prepared.prompts.prompts)[:2] == [five, seven]
    assert foil_tokens(model, prepared.prompts.prompts)[:2] == [seven, five]
    assert prepare(model, prompts).prompts.prompts == tuple(prompts)
    pair = hs.Prompt("has", "5", foil="red")
    assert prepare(model, [pair], answered="in pairs").prompts.prompts == (pair,)
    assert (
        prepare(model, prompts[:2], answered="in pairs").prompts
        == prepare(model, prompts[:2], answered="alone").prompts
    )
    blank, red = model.tokenizer.convert_tokens_to_ids(["▁", "▁red"])
    assert answer_tokens(model, [pair], in_pairs=True) == [blank]
    assert foil_tokens(model, [pair], in_pairs=True) == [red]
    # What can't be read so is refused when it is read.
    ids = hs.Prompt("has", "5", counterfactual=(3,))
    assert prepare(model, [ids], answered="alone").prompts.prompts == (ids,)


def test_scripts_without_spaces_are_joined_without_one() -> None:
    model = speaking(sentence_pieces())
    good = model.tokenizer.convert_tokens_to_ids("好")
    assert answer_tokens(model, [hs.Prompt("是", "好"), hs.Prompt("好是", "好")]) == [good, good]
