"""Which names stand for which prompts."""

from pathlib import Path

import pytest

from hydrascope.prompts.load import MADE, NAMES, load_prompts
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


@pytest.mark.parametrize("name", MADE)
def test_a_made_set_is_the_same_every_time_and_labelled(name: str) -> None:
    made = load_prompts(name)
    assert made == load_prompts(name)
    assert (len(made.prompts), made.duplicates) == (1000, 0)
    assert len({prompt.text for prompt in made.prompts}) == 1000
    for prompt in made.prompts:
        assert all((prompt.answer, prompt.foil, prompt.subject, prompt.counterfactual, prompt.template))
        assert str(prompt.subject) in prompt.text
        assert prompt.answer != prompt.foil
        assert prompt.counterfactual != prompt.text
