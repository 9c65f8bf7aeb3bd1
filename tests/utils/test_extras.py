"""Without the packages of an extra, what needs them says in one line how to get it."""

import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from plain import loaded

import hydrascope as hs
from hydrascope.cli.export import _write_table, _writing
from hydrascope.explorer import require_server
from hydrascope.prompts.table_files import read_parquet
from hydrascope.runs import ray_backend
from hydrascope.utils.errors import HydrascopeError

PYPROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))


def write_parquet() -> None:
    import pandas as pd

    _writing(out := Path("never-written.parquet"), lambda: _write_table(pd.DataFrame({"a": [1]}), out))


#: Per extra, the packages that it installs, and what needs them.
NEEDED: dict[str, tuple[list[str], list[Callable[[], object]]]] = {
    "notebook": (["anywidget"], [lambda: hs.view(model=loaded("gpt2"))]),
    "ray": (["ray"], [ray_backend._ray]),
    "prompts": (["pyarrow", "fastparquet"], [lambda: list(read_parquet(b"PAR1", "p.parquet")), write_parquet]),
    "datasets": (["datasets"], [lambda: hs.load_prompts("hf:some/facts")]),
    "explore": (["starlette", "uvicorn"], [require_server]),
}


def test_every_extra_is_here() -> None:
    assert {*NEEDED, "dev"} == set(PYPROJECT["project"]["optional-dependencies"])


@pytest.mark.parametrize(
    ("extra", "place"), [(name, i) for name, (_, calls) in NEEDED.items() for i in range(len(calls))]
)
def test_one_line_names_the_extra(extra: str, place: int, monkeypatch: pytest.MonkeyPatch) -> None:
    packages, calls = NEEDED[extra]
    for package in packages:
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(HydrascopeError, match=rf"pip install 'hydrascope\[{extra}\]'") as caught:
        calls[place]()
    assert "\n" not in str(caught.value)
