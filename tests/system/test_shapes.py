"""Shapes that a function or a data class declares are checked in all tests (`support/shapes.py`)."""

import ast

import numpy as np
import pytest
from jaxtyping import TypeCheckError
from shapes import decorate

from hydrascope.analyses.shapley import standard_error
from hydrascope.reports.colour_scale import scale_of

SOURCE = """
from dataclasses import dataclass
from jaxtyping import Float
import numpy as np

Square = Float[np.ndarray, "side side"]

@dataclass
class Pair:
    first: Float[np.ndarray, "prompt"]
    second: Float[np.ndarray, "prompt"]

def transpose(values: Float[np.ndarray, "row column"]) -> Float[np.ndarray, "column row"]:
    return values

def trace(values: Square | None, unit: str) -> float:
    return 0 if values is None else values.trace()
"""


@pytest.fixture(scope="module")
def names() -> dict:
    """The functions of `SOURCE`, decorated."""
    names: dict = {"__name__": "source"}
    exec(compile(decorate(ast.parse(SOURCE)), "source", "exec", dont_inherit=True), names)
    return names


def test_a_wrong_shape_is_refused_by_functions_of_hydrascope():
    assert scale_of(np.eye(3)).most == 1
    with pytest.raises(TypeCheckError, match="scale_of"):
        scale_of(np.ones(3))
    with pytest.raises(TypeCheckError, match="standard_error"):
        standard_error(np.ones((4, 3), int))


def test_a_wrong_result_is_refused(names: dict):
    assert names["transpose"](np.ones((2, 2))).shape == (2, 2)
    with pytest.raises(TypeCheckError, match="return value"):
        names["transpose"](np.ones((2, 3)))


def test_fields_are_checked_against_each_other(names: dict):
    names["Pair"](np.ones(2), np.ones(2))
    with pytest.raises(TypeCheckError, match="second"):
        names["Pair"](np.ones(2), np.ones(3))


def test_only_shapes_are_checked_also_by_another_name(names: dict):
    assert names["trace"](np.eye(3), unit=1) == 3
    assert names["trace"](None, unit=1) == 0
    with pytest.raises(TypeCheckError, match="values"):
        names["trace"](np.ones((2, 3)), unit="logit")
