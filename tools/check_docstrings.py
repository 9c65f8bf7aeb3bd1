"""Check the first line of every docstring: at most 90 characters, no riddle; run by `make lint`."""

import ast
import sys
from pathlib import Path

#: The longest first line, in characters.
LONGEST = 90

#: Words that open a riddle: "What a run leaves" for "Return the activations of a run".
RIDDLES = {"as", "by", "from", "how", "if", "in", "of", "on", "that", "those", "to", "what", "when", "where", "which"}
RIDDLES |= {"who", "whom", "whose", "why", "with", "without"}


def faults(path: Path) -> list[str]:
    """Return a line for each docstring of a file whose first line is too long or opens as a riddle."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        text = ast.get_docstring(node)
        if not text:
            continue
        first, line = text.split("\n")[0], getattr(node, "lineno", 1)
        name = getattr(node, "name", "module")
        if len(first) > LONGEST:
            found.append(f"{path}:{line}: {name}: first line of {len(first)} characters")
        if first.split()[0].strip("`,.:").lower() in RIDDLES:
            found.append(f"{path}:{line}: {name}: opens with {first.split()[0]!r}")
    return found


def main(folders: list[str]) -> int:
    """Print the faults of all Python files in some folders; return 1 if there are any."""
    paths = sorted(path for folder in folders for path in Path(folder).rglob("*.py"))
    found = [fault for path in paths for fault in faults(path)]
    print("\n".join(found) if found else f"docstrings of {len(paths)} files open well")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
