"""The public names are there, and asking for the version does not load PyTorch."""

import importlib
import pkgutil
import subprocess
import sys
from types import ModuleType
from typing import get_origin

import pytest

import hydrascope as hs

PACKAGES = [hs, hs.ablations, hs.analyses, hs.causal, hs.measures, hs.models, hs.prompts, hs.reports]


@pytest.mark.parametrize(("package", "name"), [(each.__name__, name) for each in PACKAGES for name in each.__all__])
def test_every_public_name_is_documented(package, name):
    found = getattr(importlib.import_module(package), name)
    assert get_origin(found) or found.__doc__


@pytest.mark.parametrize("package", [hs, hs.ablations, hs.models, hs.prompts, hs.reports])
def test_no_lazy_name_is_a_module_unless_it_stands_for_it(package):
    """Importing the module would replace what the name stood for."""
    modules = {each.name for each in pkgutil.iter_modules(package.__path__)}
    assert all(isinstance(getattr(package, name), ModuleType) for name in modules & set(package.__all__))


def test_no_other_name():
    with pytest.raises(AttributeError, match="no attribute 'swep'"):
        _ = hs.swep


def test_importing_is_quick():
    code = "import sys, hydrascope.cli.app; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
