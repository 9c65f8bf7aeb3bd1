"""The pages of the API reference: one a package, with all its public names.

Names are read from the sources, and nothing is imported: the site is built without PyTorch.
"""

import ast
from dataclasses import dataclass
from functools import cache
from itertools import takewhile
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src"
#: Packages, with the modules that share each one's page.
PACKAGES = {
    "hydrascope": (),
    "hydrascope.measures": (),
    "hydrascope.analyses": ("hydrascope.analyses.attribution",),
    "hydrascope.ablations": (),
    "hydrascope.prompts": (),
    "hydrascope.models": (),
    "hydrascope.reports": ("hydrascope.reports.figures", "hydrascope.reports.flow"),
    "hydrascope.causal": (),
}
#: The headings under which a page has its names, by kind.
KINDS = {"function": "Functions", "class": "Classes", "value": "Values and types"}


@dataclass(frozen=True)
class Name:
    """A public name.

    Attributes:
        name: the name that the package exports.
        module: the module that defines it.
        kind: `function`, `class` or `value`.
        summary: the first line of its docstring, or the first sentence of the comment `#:` above it.
    """

    name: str
    module: str
    kind: str
    summary: str

    @property
    def path(self) -> str:
        """The dotted name by which the reference finds it."""
        return f"{self.module}.{self.name}"


def public(package: str) -> list[Name]:
    """Return the public names of a package, sorted; modules among them are left out.

    Raises:
        ValueError: the package exports nothing, or a name that its module doesn't define.
    """
    tree = ast.parse(_file(package).read_text("utf-8"))
    lazy = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    imports = [node for node in (lazy[0].body if lazy else tree.body) if isinstance(node, ast.ImportFrom)]
    homes = {alias.name: node.module or "" for node in imports for alias in node.names}
    exported = _listed(tree) or sorted(homes)
    if not exported:
        raise ValueError(f"{package} has neither `__all__` nor lazy imports")
    return [_described(name, homes[name]) for name in exported if not _file(f"{homes[name]}.{name}").exists()]


def summary(package: str) -> str:
    """Return the first line of a package's docstring."""
    return (ast.get_docstring(ast.parse(_file(package).read_text("utf-8"))) or "").split("\n")[0]


def uri(package: str) -> str:
    """Return the page of a package, such as `reference/measures.md`."""
    return f"reference/{package.split('.')[-1]}.md"


def pages() -> dict[str, str]:
    """Return the Markdown of each page of the reference, by its place in the site."""
    rows = [f"| [`{name}`]({Path(uri(name)).name}) | {summary(name)} |" for name in PACKAGES]
    index = "\n".join(["# API reference", "", "| package | purpose |", "|---|---|", *rows, ""])
    return {"reference/index.md": index, **{uri(package): _page(package) for package in PACKAGES}}


def _page(package: str) -> str:
    """Return the page of a package; a name with a home elsewhere has only a line in its table."""
    told = {name.path for other in PACKAGES if package == "hydrascope" != other for name in public(other)}
    parts = [f"# {package}", _directive(package, members="false")]
    parts += _names(public(package), told, level=2)
    for module in PACKAGES[package]:
        parts += [f"## {module}", _directive(module, members="false"), *_names(public(module), told, level=3)]
    return "\n\n".join(parts) + "\n"


def _names(names: list[Name], told: set[str], level: int) -> list[str]:
    """Return a table of names, then documentation by kind of those that aren't told elsewhere."""
    ordered = sorted(names, key=lambda name: [*KINDS].index(name.kind))
    rows = [f"| [`{name.name}`][{name.path}] | {name.summary} |" for name in ordered]
    parts = ["\n".join(["| name | purpose |", "|---|---|", *rows])]
    for kind, heading in KINDS.items():
        here = [name for name in names if name.kind == kind and name.path not in told]
        if here:
            parts += [f"{'#' * level} {heading}" if level == 2 else f"**{heading}**"]
            parts += [_directive(name.path, heading=name.name, heading_level=level + 1) for name in here]
    return parts


def _directive(path: str, **options: object) -> str:
    """Return the lines that mkdocstrings replaces by the documentation of `path`."""
    root = {} if "members" in options else {"show_root_heading": "true", "show_root_toc_entry": "true"}
    lines = [f"      {option}: {value}" for option, value in {**root, **options}.items()]
    return "\n".join([f"::: {path}", "    options:", *lines])


def _file(module: str) -> Path:
    """Return the file of a package's own code, or of a module."""
    path = SOURCE.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _listed(tree: ast.Module) -> list[str]:
    """Return the names in `__all__`."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return []


def _described(name: str, module: str) -> Name:
    """Return a name with its kind and its first line, from the module that defines it.

    Raises:
        ValueError: the module doesn't define it.
    """
    tree, lines = _parsed(_file(module))
    for node in reversed(tree.body):  # the last: overloads come before it
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            kind = "class" if isinstance(node, ast.ClassDef) else "function"
            return Name(name, module, kind, (ast.get_docstring(node) or "").split("\n")[0])
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(each, ast.Name) and each.id == name for each in targets):
            return Name(name, module, "value", _comment(lines[: node.lineno - 1]))
    raise ValueError(f"{module} doesn't define {name}: export it from the module that does")


def _comment(lines: list[str]) -> str:
    """Return the first sentence of the comment `#:` that ends with the last of some lines."""
    comment = takewhile(lambda line: line.startswith("#: "), reversed(lines))
    text = " ".join(line.removeprefix("#: ") for line in reversed([*comment]))
    return text.split(". ")[0].removesuffix(".") + "." if text else ""


@cache
def _parsed(file: Path) -> tuple[ast.Module, list[str]]:
    """Return the syntax tree and the lines of a file."""
    text = file.read_text("utf-8")
    return ast.parse(text), text.split("\n")
