"""Prompts in CSV and parquet files: what is read, and that every fault is one line that names its place."""

import csv
import gzip
import importlib.util
import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hydrascope.prompts.load import load_prompts
from hydrascope.prompts.prompt import Prompt
from hydrascope.prompts.table_files import prompt_of_row, read_csv
from hydrascope.utils.errors import HydrascopeError

HAS_PYARROW = importlib.util.find_spec("pyarrow") is not None

#: What stands in a cell: anything that may stand in a UTF-8 text.
CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_csv_is_read_by_its_columns(tmp_path: Path) -> None:
    content = (
        "\ufeffid,prompt,answer,foil,subject,counterfactual,template\r\n"
        '1,"The tower, the old one, is in",Paris,Rome,tower,The bridge is in,is in\r\n'
        "\r\n"
        '2,"Two\nlines are",NA,,,,\r\n'
    )
    expected = (
        Prompt(
            "The tower, the old one, is in",
            "Paris",
            foil="Rome",
            subject="tower",
            counterfactual="The bridge is in",
            template="is in",
        ),
        Prompt("Two\nlines are", "NA"),
    )
    loaded = load_prompts(write(tmp_path / "p.csv", content))
    assert (loaded.name, loaded.prompts) == ("p.csv", expected)
    zipped = load_prompts(write(tmp_path / "p.csv.gz", gzip.compress(content.encode())))
    assert (zipped.name, zipped.prompts) == ("p.csv.gz", expected)
    assert load_prompts(write(tmp_path / "t.csv", "text,attribute\nIron is,Fe\n")).prompts == (Prompt("Iron is", "Fe"),)


def test_csv_may_hold_token_ids(tmp_path: Path) -> None:
    content = 'tokens,answer,counterfactual\n"[0, 306, 490]",7,"[0, 307, 490]"\n0 306,,0 9\n0 308,7 8,\n0 309,[7],\n'
    assert load_prompts(write(tmp_path / "p.csv", content)).prompts == (
        Prompt(tokens=(0, 306, 490), answer=7, counterfactual=(0, 307, 490)),
        Prompt(tokens=(0, 306), counterfactual=(0, 9)),
        Prompt(tokens=(0, 308), answer=(7, 8)),
        Prompt(tokens=(0, 309), answer=(7,)),
    )


@given(st.lists(st.tuples(CELLS.filter(str.strip), CELLS, CELLS), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_what_the_csv_module_writes_is_read_back(rows: list[tuple[str, str, str]]) -> None:
    file = io.StringIO(newline="")
    csv.writer(file).writerows([("prompt", "answer", "note"), *rows])
    read = list(read_csv(file.getvalue(), "p.csv"))
    assert read == [Prompt(text, answer or None) for text, answer, _ in rows]


@given(st.text(max_size=60))
@settings(max_examples=100, deadline=None)
def test_any_text_is_prompts_or_one_line(text: str) -> None:
    said = "p.csv"
    try:
        list(read_csv("prompt,answer\n" + text, "p.csv"))
    except HydrascopeError as error:
        said = str(error)
    assert said.startswith("p.csv")
    assert "\n" not in said


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty: give a file with prompts"),
        (" \n\n", "is empty"),
        ("prompt,answer\n", "holds no prompts"),
        ("answer,foil\na,b\n", r'without a column of prompts: call one "prompt" \(its columns: answer, foil\)'),
        ("prompt;answer\na;b\n", "line 1: one column, 'prompt;answer': separate columns by commas"),
        (b"prompt\nfine\n\xff\xfe\n", "line 3: not UTF-8: save the file as UTF-8 text"),
        ("prompt\nfine\n".encode("utf-16"), "line 1: not UTF-8"),
        ("prompt,answer\na,b\nc,d,e\n", "line 3: 3 cells for 2 columns: put cells with a comma in quotes"),
        ("prompt,answer\na,b\nc\n", "line 3: 1 cell for 2 columns"),
        ('prompt,answer\n"a\nb",c\n,d\n', 'line 4, column "prompt": empty: write a prompt, or remove the row'),
        ("text,answer\n  ,d\n", 'line 2, column "text": empty'),
        ('tokens\n1 2\n""\n', 'line 3, column "tokens": empty'),
        ("prompt,prompt\na,b\n", 'two columns are called "prompt": rename one of them'),
        ("prompt,answer,answer\na,b,c\n", 'two columns are called "answer"'),
        ("prompt,text\na,b\n", "line 2 gives text in two columns: remove one of them"),
        ("prompt,tokens\na,1 2\n", "line 2 has both a text and token ids"),
        ('prompt\n"a\nb\n', "line 2: not CSV .unexpected end of data.: correct it there"),
        ("tokens\n1 x 2\n", "line 2, column \"tokens\": 'x' is no token id: write a whole number"),
        ("tokens\n[1\n", "line 2, column \"tokens\": '.1' is no list of token ids: write whole numbers"),
        ("tokens,answer\n1 2,Paris\n", "line 2, column \"answer\": 'Paris' is no token id"),
    ],
)
def test_a_bad_csv_is_one_clear_line(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(HydrascopeError, match=message) as caught:
        load_prompts(write(tmp_path / "p.csv", content))
    assert "p.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"prompt\na\n", gzip.compress(b"prompt\na\n", mtime=0)[:-6], b"\x1f\x8b"])
def test_a_bad_gzip_file_is_one_clear_line(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(HydrascopeError, match=r"p\.csv\.gz: not a whole gzip file .*: compress it again"):
        load_prompts(write(tmp_path / "p.csv.gz", content))


def parquet(monkeypatch: pytest.MonkeyPatch, path: Path, table: Any) -> Path:
    """A file that pandas reads as `table`, with or without pyarrow."""
    monkeypatch.setattr("pandas.read_parquet", lambda file, engine: table)
    return write(path, b"PAR1")


def test_parquet_is_read_by_its_columns(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    table = pd.DataFrame({"prompt": ["Iron is", "Gold is"], "answer": ["Fe", None], "row": [1, 2]})
    loaded = load_prompts(parquet(monkeypatch, tmp_path / "p.parquet", table))
    assert (loaded.name, loaded.prompts) == ("p.parquet", (Prompt("Iron is", "Fe"), Prompt("Gold is")))
    ids = pd.DataFrame({"tokens": [np.array([0, 306]), np.array([0, 7, 8])], "answer": [7.0, np.nan]})
    assert load_prompts(parquet(monkeypatch, tmp_path / "p.parquet", ids)).prompts == (
        Prompt(tokens=(0, 306), answer=7),
        Prompt(tokens=(0, 7, 8)),
    )


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pd.DataFrame({"prompt": ["a", None]}), 'row 2, column "prompt": empty'),
        (pd.DataFrame({"prompt": ["a", np.nan]}), 'row 2, column "prompt": empty'),
        (pd.DataFrame({"prompt": [3]}), 'row 1, column "prompt": 3, which is no text'),
        (pd.DataFrame({"prompt": ["a"], "answer": [5]}), "row 1: answer is 5, which is no text"),
        (pd.DataFrame({"answer": ["a"]}), "without a column of prompts"),
        (pd.DataFrame([["a", "b"]], columns=["prompt", "prompt"]), 'two columns are called "prompt"'),
        (pd.DataFrame({"prompt": []}), "holds no prompts"),
        (pd.DataFrame({"tokens": [[1, 2], 5]}), 'row 2, column "tokens": 5 is no list of token ids'),
        (pd.DataFrame({"tokens": [[1, 2.5]]}), 'row 1, column "tokens": 2.5 is no token id'),
    ],
)
def test_bad_parquet_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, table: pd.DataFrame, message: str
) -> None:
    with pytest.raises(HydrascopeError, match=message) as caught:
        load_prompts(parquet(monkeypatch, tmp_path / "p.parquet", table))
    assert "p.parquet" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not HAS_PYARROW, reason="needs pyarrow")
def test_real_parquet_files(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    pd.DataFrame({"tokens": [[0, 306], [0, 7, 8]], "answer": [7, None]}).to_parquet(path)
    assert load_prompts(path).prompts == (Prompt(tokens=(0, 306), answer=7), Prompt(tokens=(0, 7, 8)))
    pd.DataFrame({"tokens": [[0, 306], [0, 7, 8]], "answer": [[7, 9], None]}).to_parquet(path)
    assert load_prompts(path).prompts == (Prompt(tokens=(0, 306), answer=(7, 9)), Prompt(tokens=(0, 7, 8)))
    pd.DataFrame({"prompt": ["Iron is", "Gold is"], "answer": ["Fe", None]}).to_parquet(path)
    assert load_prompts(path).prompts == (Prompt("Iron is", "Fe"), Prompt("Gold is"))
    for damaged in (path.read_bytes()[:-9], b"PAR1"):
        with pytest.raises(HydrascopeError, match=r"p\.parquet: not a whole parquet file .*: write it again") as caught:
            load_prompts(write(path, damaged))
        assert "\n" not in str(caught.value)


def test_a_row_is_named_by_its_place() -> None:
    with pytest.raises(HydrascopeError, match=r'facts, row 3, column "text": empty'):
        prompt_of_row({"text": None, "answer": "a"}, "facts", "row 3")
