"""Check the shapes that functions and data classes of hydrascope declare, at every call.

Only these are wrapped: `jaxtyping.install_import_hook` wraps every function, which makes tests half as long again. And
only shapes are checked: functions that refuse or convert what users give them take more than their types say.
"""

import ast
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any, get_args

from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray, jaxtyped

#: Elements of containers are looked at without random numbers, which belong to the tests.
check = beartype(conf=BeartypeConf(is_random=False))


def install_shape_checks(package: str) -> None:
    """Check the shapes declared by modules of a package that are imported from now on."""
    loaded = [name for name in sys.modules if f"{name}.".startswith(f"{package}.")]
    assert not loaded, f"imported before their shapes could be checked: {loaded}"
    sys.meta_path.insert(0, _Finder(package))


def check_shapes(function: Callable) -> Callable:
    """Make a function check those of its annotations that declare a shape."""
    shapes = {name: hint for name, hint in function.__annotations__.items() if _declares_shape(hint)}
    if not shapes:
        return function
    function.__annotations__ = shapes
    return check(function)


shaped = jaxtyped(typechecker=check_shapes)


def _declares_shape(hint: Any) -> bool:
    inner = hint if isinstance(hint, list) else get_args(hint)
    return (isinstance(hint, type) and issubclass(hint, AbstractArray)) or any(map(_declares_shape, inner))


class _Finder(MetaPathFinder):
    def __init__(self, package: str) -> None:
        self.package = package

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: Any = None) -> ModuleSpec | None:
        if not f"{fullname}.".startswith(f"{self.package}."):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec and spec.origin and "from jaxtyping import" in Path(spec.origin).read_text("utf-8"):
            spec.loader = _Loader(fullname, spec.origin)
        return spec


class _Loader(SourceFileLoader):
    def path_stats(self, path: Any) -> Any:
        # Python keeps no compiled file of a source without a time: others would load it, checks and all.
        raise OSError

    def source_to_code(self, data: Any, path: Any, *, _optimize: int = -1) -> CodeType:
        return super().source_to_code(decorate(ast.parse(data)), path, _optimize=_optimize)


def decorate(tree: ast.Module) -> ast.Module:
    """Decorate the functions and classes of a module that name a shape."""
    names = {
        name.asname or name.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module == "jaxtyping"
        for name in node.names
    }
    for node in tree.body:
        if isinstance(node, ast.Assign) and _names(node.value, names):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and any(_names(each, names) for each in (node.args, node.returns)):
            node.decorator_list.append(_decorator(node))
        elif isinstance(node, ast.ClassDef) and any(
            _names(each.annotation, names) for each in node.body if isinstance(each, ast.AnnAssign)
        ):
            node.decorator_list.insert(0, _decorator(node))
    return tree


def _names(node: ast.AST | None, names: set[str]) -> bool:
    return node is not None and any(isinstance(each, ast.Name) and each.id in names for each in ast.walk(node))


def _decorator(node: ast.AST) -> ast.expr:
    made = ast.parse(f"__import__({__name__!r}).shaped", mode="eval").body
    return ast.fix_missing_locations(ast.copy_location(made, node))
