"""The public names are there, and asking for the version does not load PyTorch."""

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import get_origin

import pytest

import hydrascope as hs

LAZY = [hs, hs.ablations, hs.models, hs.prompts, hs.reports]
PACKAGES = [hs, hs.ablations, hs.analyses, hs.causal, hs.measures, hs.models, hs.prompts, hs.reports]


@pytest.mark.parametrize(("package", "name"), [(each.__name__, name) for each in PACKAGES for name in each.__all__])
def test_every_public_name_is_documented(package, name):
    found = getattr(importlib.import_module(package), name)
    assert get_origin(found) or found.__doc__


@pytest.mark.parametrize("package", LAZY)
def test_type_checkers_see_the_public_names_and_no_others(package):
    """A lazy package imports its names a second time, where only type checkers look."""
    tree = ast.parse(Path(package.__file__).read_text())
    block = next(each for each in tree.body if isinstance(each, ast.If))
    names = {name.asname: (each.module, name.name) for each in block.body for name in each.names}
    assert sorted(names) == package.__all__
    for exported, (module, name) in names.items():
        assert exported == name  # or type checkers take it for private
        imported = importlib.import_module(module)
        found = getattr(imported, name, None) or importlib.import_module(f"{module}.{name}")
        assert getattr(package, name) is found


@pytest.mark.parametrize("package", LAZY)
def test_no_lazy_name_is_a_module_unless_it_stands_for_it(package):
    """Importing the module would replace what the name stood for."""
    modules = {each.name for each in pkgutil.iter_modules(package.__path__)}
    assert all(isinstance(getattr(package, name), ModuleType) for name in modules & set(package.__all__))


def test_figures_need_no_import_of_their_own():
    assert hs.reports.__getattr__("figures").figure_backups.__doc__


def test_no_other_name():
    with pytest.raises(AttributeError, match="no attribute 'swep'"):
        _ = hs.swep


def test_importing_is_quick():
    code = "import sys, hydrascope.cli.app; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
