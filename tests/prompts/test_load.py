"""Which names stand for which prompts."""

from pathlib import Path

import pytest

from hydrascope.prompts.load import NAMES, load_prompts
from hydrascope.utils.errors import HydrascopeError


def test_names_that_stand_for_nothing(tmp_path: Path) -> None:
    with pytest.raises(HydrascopeError, match=r"no prompt set is called 'nonsense'.*counterfact.*demo.*ioi.*hf:ORG"):
        load_prompts("nonsense")
    other = tmp_path / "p.md"
    other.write_text("a")
    with pytest.raises(HydrascopeError, match=r"p\.md is no file of prompts: give a file that ends in .*parquet"):
        load_prompts(other)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "counterfact"])
def test_every_set_has_prompts_of_its_name(name: str) -> None:
    loaded = load_prompts(name)
    assert loaded.name == name
    assert len(loaded.prompts) > 200
    assert all(prompt.text.strip() for prompt in loaded.prompts)
