"""The public names are there, and asking for the version does not load PyTorch."""

import subprocess
import sys

import pytest

import hydrascope


@pytest.mark.parametrize("name", hydrascope.__all__)
def test_every_public_name_is_documented(name):
    assert getattr(hydrascope, name).__doc__


def test_every_public_name_has_a_home():
    homes = [name for names in hydrascope._HOMES.values() for name in names]
    assert sorted([*homes, *hydrascope._PACKAGES]) == sorted(hydrascope.__all__)


def test_no_other_name():
    with pytest.raises(AttributeError, match="no attribute 'swep'"):
        _ = hydrascope.swep


def test_importing_is_quick():
    code = "import sys, hydrascope.cli.app; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
