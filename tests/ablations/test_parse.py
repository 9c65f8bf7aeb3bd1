"""Names, classes and documents tell of the same ablations, and an option that one lacks is refused."""

from pathlib import Path
from typing import Any, get_args

import pytest

import hydrascope as hs
from hydrascope.ablations import parse
from hydrascope.ablations.ablation import Noise, Resample
from hydrascope.ablations.names import ABLATIONS, AblationName
from hydrascope.ablations.parse import CLASSES
from hydrascope.utils.errors import HydrascopeError

DOCS = Path(__file__).parents[2] / "docs"


def test_every_name_has_a_class_and_every_class_a_name() -> None:
    assert get_args(AblationName) == ABLATIONS == tuple(CLASSES)


@pytest.mark.parametrize("name", ABLATIONS)
def test_a_name_is_the_same_everywhere(name: str) -> None:
    """On the command line, in Python, in results, and in the documents."""
    made = parse.ablation(name)
    kind = type(made)
    assert kind is CLASSES[name] is parse.class_of(name)
    assert kind.__name__.lower() == name  # as results have it
    assert getattr(hs, kind.__name__) is getattr(hs.ablations, kind.__name__) is kind
    assert kind.__name__ in hs.__all__
    assert kind.__name__ in hs.ablations.__all__
    assert made == kind()  # its defaults are the command line's
    assert f"\n| `{name}`" in (DOCS / "quantities.md").read_text()
    assert f"`{name}`" in (DOCS / "explore.md").read_text()


@pytest.mark.parametrize("name", ABLATIONS)
@pytest.mark.parametrize(
    ("option", "value", "kinds", "message"),
    [
        ("patches", 3, (Noise, Resample), "has one patch: leave out --patches"),
        ("noise_scale", 0.5, (Noise,), "has no noise: leave out --noise-scale"),
        ("different_target", True, (Resample,), "takes nothing from other prompts: leave out --different-target"),
    ],
)
def test_an_option_is_taken_or_refused(
    name: str, option: str, value: Any, kinds: tuple[type, ...], message: str
) -> None:
    """A seed is given to all, and only those that draw take it."""
    if (kind := CLASSES[name]) in kinds:
        made = parse.ablation(name, seed=7, **{option: value})
        field = "scale" if option == "noise_scale" else option
        assert made == kind(**{field: value, "seed": 7})
        assert option in parse.options_of(name)
    else:
        with pytest.raises(HydrascopeError, match=f"^--ablation {name} {message}$"):
            parse.ablation(name, seed=7, **{option: value})
        assert option not in parse.options_of(name)


@pytest.mark.parametrize("make", [parse.ablation, parse.options_of, parse.class_of])
def test_an_unknown_name_is_refused(make: Any) -> None:
    with pytest.raises(HydrascopeError, match=r"^there is no ablation shuffle: choose from resample, zero, "):
        make("shuffle")
