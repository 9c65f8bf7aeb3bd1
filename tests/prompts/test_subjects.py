"""A prompt's subject among its tokens, against a computation by bytes and one by single characters."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from speaking import byte_level, speaking
from tiny import tiny_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from hydrascope.models.language_model import LanguageModel
from hydrascope.prompts.prompt import Prompt
from hydrascope.prompts.subjects import subject_span
from hydrascope.utils import assets
from hydrascope.utils.errors import HydrascopeError

TEXTS = ["The capital of Niger is Niamey, not Lagos"] * 20

#: Byte-level tokenizers: with the space before a word among its characters or not, and the built-in model's, which sets
#: `<s>` and a space before everything.
BYTE_LEVEL = {
    "trimmed": byte_level(TEXTS),
    "with spaces": byte_level(TEXTS, trimmed=False),
    "built-in": AutoTokenizer.from_pretrained(assets.model_path("built-in")),
}
MODELS = {name: speaking(tokenizer) for name, tokenizer in BYTE_LEVEL.items()}

WORDS = st.sampled_from(["The", "capital", "of", "Niger", "Nigeria", "is", "São Tomé", "東京", "😀x", "a.", '"Niger"'])


def last(text: str, subject: str) -> int:
    """Where the subject stands for the last time, whole words before parts of words: by trying all positions."""

    def part(at: int) -> bool:
        around = text[max(at - 1, 0) : at] + text[at + len(subject) : at + len(subject) + 1]
        return any(character.isalnum() or character == "_" for character in around)

    places = [at for at in range(len(text)) if text[at : at + len(subject)] == subject]
    return max(places, key=lambda at: (not part(at), at))


def by_bytes(tokenizer: PreTrainedTokenizerFast, text: str, subject: str) -> tuple[int, int]:
    """The subject's tokens, from the bytes that each token is."""
    byte = {letter: number for number, letter in bytes_to_unicode().items()}
    special = set(tokenizer.all_special_tokens)
    pieces = [
        b"" if token in special else bytes(byte[letter] for letter in token)
        for token in tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"])
    ]
    whole = b"".join(pieces)
    start = len(whole) - len(text.encode()) + len(text[: last(text, subject)].encode())
    end = start + len(subject.encode())
    if last(text, subject) == 0:
        start = 0  # a space that is set before the text stands for its first character
    owner = [token for token, piece in enumerate(pieces) for _ in piece]
    return owner[start], owner[end - 1] + 1


@pytest.mark.parametrize("name", BYTE_LEVEL)
@given(words=st.lists(WORDS, min_size=1, max_size=8), data=st.data())
@settings(max_examples=100)
def test_the_subject_is_where_its_bytes_are(name: str, words: list[str], data: st.DataObject) -> None:
    text = " ".join(words)
    first = data.draw(st.integers(0, len(words) - 1))
    subject = " ".join(words[first : data.draw(st.integers(first + 1, len(words)))])
    found = subject_span(MODELS[name], 1, Prompt(text, subject=subject))
    assert found == by_bytes(BYTE_LEVEL[name], text, subject)


@given(text=st.text("abAB ,.", min_size=1, max_size=12).filter(str.strip), data=st.data())
def test_any_piece_of_a_text_can_be_its_subject(text: str, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(text) - 1))
    subject = text[first : data.draw(st.integers(first + 1, len(text)))]
    if not subject.strip():
        return
    start = last(text, subject)
    assert subject_span(speaking(tiny_tokenizer()), 1, Prompt(text, subject=subject)) == (start, start + len(subject))


def test_a_tokenizer_that_marks_spaces_with_a_letter() -> None:
    """As SentencePiece does, and with it Llama and Mistral."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=200, special_tokens=["<unk>"]))
    model = speaking(PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>"))
    prompt = Prompt("The capital of Niger is", subject="Niger")
    start, end = subject_span(model, 1, prompt)
    assert [tokenizer.id_to_token(token) for token in model.encode(prompt.text)[start:end]] == ["▁Niger"]


@pytest.mark.parametrize(
    ("text", "subject", "before"),
    [
        ("Niger? The capital of Niger is", "Niger", "Niger? The capital of"),  # the last
        ("Niger borders Nigeria, and its capital is", "Niger", ""),  # not within a word
        ("The Nigerians of Nigeria are", "Niger", "The Nigerians of"),  # but where there is no other
        ("niger, Niger, NIGER", "Niger", "niger,"),  # upper case is upper case
    ],
)
def test_which_occurrence_counts(text: str, subject: str, before: str) -> None:
    model = MODELS["trimmed"]
    start, _ = subject_span(model, 1, Prompt(text, subject=subject))
    assert start == len(model.encode(before))


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (Prompt("The capital is"), r'prompt 7 \("The capital is"\) has no subject'),
        (Prompt("The capital is", subject=" "), r"prompt 7 \(.*\) has no subject"),
        (Prompt("The capital is", subject="Capital"), r'prompt 7 \(.*\) does not contain its subject "Capital"'),
        (Prompt(tokens=(1, 2), subject="a"), r"prompt 7 \(token ids 1 2\) is given as token ids"),
    ],
)
def test_a_prompt_without_its_subject_is_named(prompt: Prompt, message: str) -> None:
    with pytest.raises(HydrascopeError, match=message):
        subject_span(MODELS["trimmed"], 7, prompt)


def test_a_subject_that_the_tokenizer_leaves_out_is_named() -> None:
    tokenizer = Tokenizer(models.WordLevel({"a": 0}))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("!", "removed")
    model = speaking(PreTrainedTokenizerFast(tokenizer_object=tokenizer))
    with pytest.raises(HydrascopeError, match=r'prompt 7 \("a!"\): its subject "!" has no tokens'):
        subject_span(model, 7, Prompt("a!", subject="!"))


def test_tokenizers_without_offsets_are_refused() -> None:
    class Slow:
        is_fast = False

    for model, message in (
        (speaking(Slow(), vocabulary=9), "tokenizer of toy doesn't report"),
        (_silent(), "without a"),
    ):
        with pytest.raises(HydrascopeError, match=message):
            subject_span(model, 1, Prompt("a", subject="a"))


def _silent() -> LanguageModel:
    return speaking(None, vocabulary=9)


@pytest.mark.parametrize("name", BYTE_LEVEL)
@given(text=st.text(max_size=20))
def test_offsets_come_with_the_tokens_that_the_model_gets(name: str, text: str) -> None:
    model = MODELS[name]
    ids, spans = model.encode_with_offsets(text)
    assert ids == model.encode(text)
    assert len(spans) == len(ids)
    assert all(0 <= start <= end <= len(text) for start, end in spans)
