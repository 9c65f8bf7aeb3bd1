"""Tables on the hub, loaded by a stand-in for the library datasets."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from hydrascope.prompts.load import load_prompts
from hydrascope.prompts.prepare import prepare
from hydrascope.prompts.prompt import Prompt
from hydrascope.utils.errors import HydrascopeError

ROWS = [
    {"id": 1, "prompt": "Iron is", "question": "What is iron?", "answer": "Fe"},
    {"id": 2, "prompt": "Gold is", "question": "What is gold?", "answer": None},
]


class Table:
    """A table as `datasets.Dataset` is one: rows are mappings."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows
        self.column_names = list(rows[0]) if rows else []

    def __iter__(self) -> Any:
        return iter(self.rows)

    def to_dict(self, batch_size: int | None = None) -> dict[str, list[Any]]:
        raise AssertionError("columns, where rows are needed")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Install a stand-in for `datasets` with one table; what it is asked for."""
    asked: list[Any] = []

    def load_dataset(path: str, name: str | None = None, *, split: str) -> Table:
        asked.append((path, name, split))
        if path == "some/none":
            raise FileNotFoundError("Dataset 'some/none' doesn't exist\non the Hub")
        return Table(ROWS)

    def get_dataset_split_names(path: str, name: str | None = None) -> list[str]:
        return ["train", "test"] if path == "some/splits" else ["validation"]

    stand_in = SimpleNamespace(
        __version__="5.2.0", load_dataset=load_dataset, get_dataset_split_names=get_dataset_split_names
    )
    monkeypatch.setitem(sys.modules, "datasets", stand_in)
    return asked


@pytest.mark.parametrize(
    ("source", "loaded"),
    [
        ("hf:some/facts", ("some/facts", None, "validation")),
        ("hf:facts", ("facts", None, "validation")),
        ("hf:some/facts:test", ("some/facts", None, "test")),
        ("hf:some/facts:train[:10%]", ("some/facts", None, "train[:10%]")),
        ("hf:some/facts/english:train", ("some/facts", "english", "train")),
    ],
)
def test_a_table_is_loaded_by_name_and_split(asked: list[Any], source: str, loaded: tuple[str, str, str]) -> None:
    prompts = load_prompts(source)
    assert asked == [loaded]
    assert (prompts.name, prompts.prompts) == (source, (Prompt("Iron is", "Fe"), Prompt("Gold is")))


def test_a_column_may_be_named(asked: list[Any]) -> None:
    loaded = load_prompts("hf:some/facts:train[2:]:question")
    assert asked == [("some/facts", None, "train[2:]")]
    assert loaded.prompts == (Prompt("What is iron?", "Fe"), Prompt("What is gold?"))
    assert load_prompts("hf:some/facts::question").prompts == loaded.prompts


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("hf:", "'hf:' names no table: write hf:ORG/NAME"),
        ("hf:some/splits", "has the splits train, test: choose one, as hf:some/splits:train"),
        ("hf:some/none:train", "cannot load hf:some/none:train .Dataset 'some/none' doesn't exist.: check the name"),
        ("hf:some/facts:train:taste", 'no column "taste": choose one of id, prompt, question, answer'),
        ("hf:some/facts:train:id", 'row 1, column "prompt": 1, which is no text'),
        ("hf:some/facts:train:answer", 'row 2, column "prompt": empty'),
    ],
)
def test_mistakes_are_one_line(asked: list[Any], source: str, message: str) -> None:
    with pytest.raises(HydrascopeError, match=message) as caught:
        load_prompts(source)
    assert "\n" not in str(caught.value)


def test_the_library_must_run_no_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(__version__="2.21.0"))
    with pytest.raises(HydrascopeError, match=r"datasets 2\.21\.0 may run code of a repository: pip install"):
        load_prompts("hf:some/facts")


def test_the_name_of_a_table_is_no_prompt() -> None:
    with pytest.raises(HydrascopeError, match=r"give load_prompts\('hf:some/facts'\)"):
        prepare(SimpleNamespace(), "hf:some/facts")
