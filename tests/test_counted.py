"""How many there are of something, in words."""

import doctest

from hydrascope import counted


def test_the_noun_follows_its_number():
    assert doctest.testmod(counted) == (0, 3)
