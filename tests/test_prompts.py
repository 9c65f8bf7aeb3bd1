"""What may stand in a file of prompts, what is refused, and which token is an answer's first."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from hydrascope.errors import HydrascopeError
from hydrascope.prompts import Prompt, PromptSet, answer_tokens, load_prompts, tokenize


@dataclass
class Tokens:
    """A byte-level BPE tokenizer, as GPT-2's, that knows a few words."""

    name: str = "toy"
    context_length: int | None = 6
    tokenizer: Tokenizer = field(init=False)

    def __post_init__(self) -> None:
        self.tokenizer = Tokenizer(models.BPE())
        self.tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        self.tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
        )
        self.tokenizer.train_from_iterator(["The tower is in Paris France"] * 20, trainer)

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text).ids

    def decode(self, token: int) -> str:
        return self.tokenizer.decode([token])


@pytest.fixture(scope="module")
def model() -> Tokens:
    return Tokens()


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_text_file_is_a_prompt_a_line(tmp_path: Path) -> None:
    file = write(tmp_path / "p.txt", "\ufeffThe tower is in\r\n\n  \nThe sea \u2028 is \nThe tower is in\n")
    loaded = load_prompts(file)
    assert [prompt.text for prompt in loaded.prompts] == ["The tower is in", "The sea \u2028 is "]
    assert (loaded.name, loaded.duplicates) == ("p.txt", 1)


def test_json_and_jsonl_carry_answers_and_subjects(tmp_path: Path) -> None:
    entries = [
        {"prompt": "The tower is in", "attribute": "Paris", "subject": "tower", "known_id": 1},
        {"prompt": "Iron is", "answer": "Fe", "attribute": "other"},
        {"prompt": "Bare", "answer": None},
    ]
    expected = (
        Prompt("The tower is in", "Paris", "tower"),
        Prompt("Iron is", "Fe"),
        Prompt("Bare"),
    )
    assert load_prompts(write(tmp_path / "p.json", json.dumps(entries))).prompts == expected
    lines = "\n\n".join(json.dumps(entry) for entry in entries)
    assert load_prompts(str(write(tmp_path / "p.jsonl", lines))).prompts == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.txt", "", "is empty"),
        ("p.txt", " \n\n", "is empty"),
        ("p.json", "[]", "holds no prompts"),
        ("p.txt", b"fine\n\xff\xfe\n", "line 2: not UTF-8"),
        ("p.json", '[{"prompt": "a"},\n {"prompt": }]', "line 2, column 13: not JSON"),
        ("p.json", "[" * 100_000, "not JSON that can be read"),
        ("p.json", '{"prompt": "a"}', "not a list"),
        ("p.json", '[{"prompt": "a"}, "b"]', "entry 2: not an object"),
        ("p.json", '[{"prompt": "a"}, {"prompt": " "}]', 'entry 2: "prompt" is missing or blank'),
        ("p.jsonl", '{"prompt": "a"}\n{"text": "b"}', 'line 2: "prompt" is missing'),
        ("p.jsonl", '{"prompt": "a"}\n{"prompt": "b"', "line 2, column 15: not JSON"),
        ("p.jsonl", '{"prompt": "a", "answer": 3}', 'line 1: "answer" is not a string'),
        ("p.jsonl", '{"prompt": "a\\ud800"}', "half a surrogate pair"),
        ("p.csv", "a", "is no file of prompts"),
    ],
)
def test_bad_files_are_one_clear_line(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(HydrascopeError, match=message) as caught:
        load_prompts(write(tmp_path / name, content))
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(HydrascopeError, match="No such file"):
        load_prompts(tmp_path / "none.txt")
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(HydrascopeError, match="directory"):
        load_prompts(tmp_path / "folder.txt")
    with pytest.raises(HydrascopeError, match=r"no prompt set is called 'nonsense'.*counterfact"):
        load_prompts("nonsense")


@given(st.lists(st.text(min_size=1).filter(str.strip), min_size=1), st.integers(1, 20))
def test_each_text_once_in_the_order_of_the_source(texts: list[str], count: int) -> None:
    made = PromptSet.of(texts)
    kept = [prompt.text for prompt in made.prompts]
    assert kept == [text for i, text in enumerate(texts) if text not in texts[:i]]
    assert made.duplicates == len(texts) - len(kept)
    assert made.limit(count).prompts == made.prompts[:count]


def test_the_first_of_two_equal_texts_is_kept() -> None:
    made = PromptSet.of([Prompt("a", "first"), Prompt("b"), Prompt("a", "second")])
    assert made.prompts == (Prompt("a", "first"), Prompt("b"))


def test_the_hash_tells_prompt_sets_apart() -> None:
    base = PromptSet.of(["a", "b"])
    assert base.hash == PromptSet.of(["a", "b"], "other name").hash
    others = [["b", "a"], ["a"], ["ab"], ["a", "b", "c"], [Prompt("a", "b")], [Prompt("a", "b"), "b"]]
    hashes = {PromptSet.of(other).hash for other in others}
    assert len(hashes | {base.hash}) == len(others) + 1


def test_limits_below_one_and_blank_prompts_are_refused() -> None:
    with pytest.raises(HydrascopeError, match="at least 1"):
        PromptSet.of(["a"]).limit(0)
    with pytest.raises(HydrascopeError, match="prompt 2 is blank"):
        PromptSet.of(["a", "\t"])
    with pytest.raises(HydrascopeError, match="holds no prompts"):
        PromptSet.of([])


def test_prompts_without_tokens_or_beyond_the_context_are_refused(model: Tokens) -> None:
    fits = Prompt("The tower is in Paris France")
    assert tokenize(model, [fits]) == [model.encode(fits.text)]
    assert len(model.encode(fits.text)) == 6
    with pytest.raises(HydrascopeError, match=r"prompt 2 .*is 7 tokens long, the context of toy holds 6"):
        tokenize(model, [fits, Prompt(fits.text + " in")])
    with pytest.raises(HydrascopeError, match="has no tokens"):
        tokenize(model, [Prompt("")])


def test_the_answer_is_read_as_it_continues_the_prompt(model: Tokens) -> None:
    asked = [
        Prompt("The tower is in", "Paris"),  # a space between
        Prompt("The tower is in", " Paris"),  # it has its own
        Prompt("The tower is in\n", "Paris"),  # the prompt brings white space
        Prompt("The tower is", "in Paris"),  # of several words the first
    ]
    found = [model.decode(token) for token in answer_tokens(model, asked)]
    assert found[:2] == [" Paris", " Paris"]
    assert found[2] == model.decode(model.encode("Paris")[0])
    assert found[3] == " in"


def test_answers_that_cannot_be_read_are_refused(model: Tokens) -> None:
    with pytest.raises(HydrascopeError, match=r"prompt 2 .*has no answer"):
        answer_tokens(model, [Prompt("The tower is in", "Paris"), Prompt("The tower is in")])
    with pytest.raises(HydrascopeError, match="has no answer"):
        answer_tokens(model, [Prompt("The tower is in", " ")])
    with pytest.raises(HydrascopeError, match="share a token"):
        answer_tokens(model, [Prompt("The tower is in ", "Paris")])
