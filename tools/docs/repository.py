"""Files of the repository that pages link to: each becomes a page of the site."""

import re
from pathlib import Path
from posixpath import dirname, join, normpath, relpath

ROOT = Path(__file__).parents[2]
#: A block of code, or the address of a link or a picture after its text.
_CODE_OR_LINK = re.compile(r"^```.*?^```|^    .*?$|(?<=\]\()(?P<address>[^)\s]+)(?=\))", re.MULTILINE | re.DOTALL)
#: Pages that the navigation names though no page may link to them.
ALWAYS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")


def site_uri(path: str) -> str:
    """Return the place in the site of a file or folder of the repository.

    `docs/prompts.md` is `prompts.md`, the README is the home page, all else lies in `repository/`.
    """
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path == "README.md":
        return "index.md"
    if path.endswith(".md"):
        return f"repository/{path}"
    return f"repository/{path}.md"


def outside(markdown: str, path: str) -> set[str]:
    """Return the files and folders outside docs/ to which the page at `path` links."""
    found = {_target(found["address"], path) for found in _CODE_OR_LINK.finditer(markdown)}
    return {each for each in found if each and not each.startswith("docs/")}


def in_site(markdown: str, path: str) -> str:
    """Return a page of the repository with its links changed to places in the site."""
    home = dirname(site_uri(path))

    def change(found: re.Match[str]) -> str:
        target = _target(found["address"], path)
        if target is None:
            return found[0]
        _, mark, anchor = found["address"].partition("#")
        return f"{relpath(site_uri(target), home or '.')}{mark}{anchor}"

    return _with_blank_lines(_CODE_OR_LINK.sub(change, markdown))


def pages() -> dict[str, str]:
    """Return the Markdown of each page from outside docs/, by its path in the repository.

    Raises:
        FileNotFoundError: a page links to a file that isn't there.
    """
    found: dict[str, str] = {}
    ahead = set(ALWAYS)
    for page in (ROOT / "docs").rglob("*.md"):
        ahead |= outside(page.read_text("utf-8"), page.relative_to(ROOT).as_posix())
    while ahead:
        path = ahead.pop()
        found[path] = _as_page(path)
        ahead |= outside(found[path], path) - found.keys()
    return found


def _as_page(path: str) -> str:
    """Return a Markdown file as it is, a folder as names, another file as a block of code."""
    file = ROOT / path
    if file.is_dir():
        return "\n".join([f"# {path}", "", *(f"- `{each.name}`" for each in sorted(file.iterdir())), ""])
    text = file.read_text("utf-8")
    return text if path.endswith(".md") else f"# {file.name}\n\n`{path}`\n\n````{file.suffix[1:]}\n{text}````\n"


def _target(address: str | None, path: str) -> str | None:
    """Return the path of a link's file in the repository; None on the same page or the web."""
    file = (address or "").partition("#")[0]
    if not file or ":" in file:
        return None
    return normpath(join(dirname(path), file))


def _with_blank_lines(markdown: str) -> str:
    """Return Markdown with a blank line between a bold line and a list, as this parser asks."""
    return re.sub(r"^(?P<before>\*\*.+\*\*)\n(?=1\. )", r"\g<before>\n\n", markdown, flags=re.MULTILINE)
