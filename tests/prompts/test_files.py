"""What may stand in a file of prompts, and what is refused."""

import json
from pathlib import Path

import pytest

from hydrascope.prompts.load import load_prompts
from hydrascope.prompts.prompt import Prompt
from hydrascope.utils.errors import HydrascopeError


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_text_file_is_a_prompt_a_line(tmp_path: Path) -> None:
    file = write(tmp_path / "p.txt", "\ufeffThe tower is in\r\n\n  \nThe sea \u2028 is \nThe tower is in\n")
    loaded = load_prompts(file)
    assert [prompt.text for prompt in loaded.prompts] == ["The tower is in", "The sea \u2028 is "]
    assert (loaded.name, loaded.duplicates) == ("p.txt", 1)


def test_json_and_jsonl_carry_all_fields(tmp_path: Path) -> None:
    entries = [
        {"prompt": "The tower is in", "attribute": "Paris", "subject": "tower", "known_id": 1},
        {"prompt": "Iron is", "answer": "Fe", "attribute": "other", "foil": "Au", "counterfactual": "Gold is"},
        {"prompt": "Bare", "answer": None},
    ]
    expected = (
        Prompt("The tower is in", "Paris", subject="tower"),
        Prompt("Iron is", "Fe", foil="Au", counterfactual="Gold is"),
        Prompt("Bare"),
    )
    assert load_prompts(write(tmp_path / "p.json", json.dumps(entries))).prompts == expected
    lines = "\n\n".join(json.dumps(entry) for entry in entries)
    assert load_prompts(str(write(tmp_path / "p.jsonl", lines))).prompts == expected


def test_json_may_hold_token_ids(tmp_path: Path) -> None:
    entries = [
        {"tokens": [0, 306, 490], "answer": 7, "foil": 8, "counterfactual": [0, 307, 490], "template": "ids"},
        {"tokens": "0 306", "answer": "7"},
        {"tokens": [0, 308], "answer": [7, 8]},
        {"tokens": [0, 309], "answer": [7]},
        {"prompt": "Iron is", "tokens": None},
    ]
    expected = (
        Prompt(tokens=(0, 306, 490), answer=7, foil=8, counterfactual=(0, 307, 490), template="ids"),
        Prompt(tokens=(0, 306), answer=7),
        Prompt(tokens=(0, 308), answer=(7, 8)),
        Prompt(tokens=(0, 309), answer=(7,)),
        Prompt("Iron is"),
    )
    assert load_prompts(write(tmp_path / "p.json", json.dumps(entries))).prompts == expected
    lines = "\n".join(json.dumps(entry) for entry in entries)
    assert load_prompts(write(tmp_path / "p.jsonl", lines)).prompts == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.txt", "", "is empty"),
        ("p.txt", " \n\n", "is empty"),
        ("p.json", "[]", "holds no prompts"),
        ("p.txt", b"fine\n\xff\xfe\n", "line 2: not UTF-8"),
        ("p.json", '[{"prompt": "a"},\n {"prompt": }]', "line 2, column 13: not JSON"),
        ("p.json", "[" * 100_000, "JSON that can't be read"),
        ("p.json", '{"prompt": "a"}', "not a list"),
        ("p.json", '[{"prompt": "a"}, "b"]', "entry 2: not an object"),
        ("p.json", '[{"prompt": "a"}, {"prompt": " "}]', 'entry 2: "prompt" is missing or blank'),
        ("p.jsonl", '{"prompt": "a"}\n{"text": "b"}', 'line 2: "prompt" is missing'),
        ("p.jsonl", '{"prompt": "a"}\n{"prompt": "b"', "line 2, column 15: not JSON"),
        ("p.jsonl", '{"prompt": "a", "answer": 3}', 'line 1: "answer" is not a string'),
        ("p.jsonl", '{"prompt": "a", "foil": ["b"]}', 'line 1: "foil" is not a string'),
        ("p.json", '[{"prompt": "a", "counterfactual": [1, 2]}]', 'entry 1: "counterfactual" is not a string'),
        ("p.jsonl", '{"prompt": "a\\ud800"}', "half a surrogate pair"),
        ("p.jsonl", '{"tokens": [1, "x"]}', "line 1: \"tokens\": 'x' is no token id"),
        ("p.jsonl", '{"tokens": 7}', 'line 1: "tokens": 7 is no list of token ids'),
        ("p.jsonl", '{"tokens": [1, 2], "answer": "a"}', "line 1: \"answer\": 'a' is no token id"),
        ("p.jsonl", '{"tokens": [1, true]}', 'line 1: "tokens": True is no token id'),
        ("p.jsonl", '{"tokens": [1, 2.5]}', 'line 1: "tokens": 2.5 is no token id'),
        ("p.json", '[{"tokens": [1], "prompt": "a"}]', "entry 1 has both a text and token ids"),
        ("p.json", '[{"tokens": []}]', "entry 1 is blank"),
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
