"""How many there are of something, in words."""

import doctest

from hydrascope.utils import text


def test_the_noun_follows_its_number():
    assert doctest.testmod(text) == (0, 3)
