"""The site of `make docs`: every page is in the navigation, the reference has every public name, no link is broken."""

import importlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from browsing import opening

from tools.docs import reference, repository

ROOT = Path(__file__).parents[2]
MKDOCS = ROOT / ".venv-docs" / "bin" / "mkdocs"
PAGES = sorted(path.relative_to(ROOT / "docs").as_posix() for path in ROOT.glob("docs/**/*.md"))
DOCUMENTED = [each for package, modules in reference.PACKAGES.items() for each in (package, *modules)]
#: A script, style, picture or font that a page loads from elsewhere; links that a reader follows are none.
LOADED = re.compile(r"<(?:script|img|iframe|link)\b[^>]*\b(?:src|href)=\"?(?:https?:)?//[^>]*>")

needs_mkdocs = pytest.mark.skipif(
    not MKDOCS.exists(), reason="the site isn't built: `make docs` sets up .venv-docs, which isn't here"
)


def navigation() -> list[str]:
    """Return the pages in the navigation of mkdocs.yml."""
    config = yaml.load((ROOT / "mkdocs.yml").read_text("utf-8"), yaml.BaseLoader)

    def pages(entry: Any) -> Iterator[str]:
        if isinstance(entry, str):
            yield entry
        else:
            for inner in entry.values() if isinstance(entry, dict) else entry:
                yield from pages(inner)

    return list(pages(config["nav"]))


@pytest.mark.parametrize(
    "page", sorted(path.relative_to(ROOT / "docs").as_posix() for path in ROOT.glob("docs/**/*.md"))
)
def test_every_page_is_in_the_navigation(page: str) -> None:
    title = Path(page).stem.replace("-", " ").capitalize()
    section = "Findings" if page.startswith("findings/") else "Guides, or where a reader looks for it"
    assert page in navigation(), f"add the line `- {title}: {page}` to `nav` of mkdocs.yml, under {section}"


def test_the_navigation_names_each_page_once_and_none_that_is_not_there() -> None:
    named = navigation()
    assert sorted(set(named)) == sorted(named)
    made = {*reference.pages(), *(repository.site_uri(path) for path in repository.pages())}
    assert [page for page in named if page not in made and not (ROOT / "docs" / page).exists()] == []


@pytest.mark.parametrize(
    "package", [*reference.PACKAGES, *(each for more in reference.PACKAGES.values() for each in more)]
)
def test_the_reference_has_every_public_name_and_no_other(package: str) -> None:
    module = importlib.import_module(package)
    documented = reference.public(package)
    modules = {name for name in module.__all__ if isinstance(getattr(module, name), ModuleType)}
    assert sorted(name.name for name in documented) == sorted(set(module.__all__) - modules)
    for name in documented:
        assert getattr(importlib.import_module(name.module), name.name) is getattr(module, name.name), name
        assert name.summary, f"{name.path} has neither a docstring nor a comment `#:` above it"


def test_every_public_module_has_a_page_or_a_section() -> None:
    for package in reference.PACKAGES:
        module = importlib.import_module(package)
        inner = {f"{package}.{name}" for name in module.__all__ if isinstance(getattr(module, name), ModuleType)}
        assert inner <= set(DOCUMENTED)


def test_links_out_of_the_docs_lead_to_pages_of_the_site() -> None:
    page = "See [the rules](../CONTRIBUTING.md#rules), [`x.py`](../src/x.py) and [prompts](prompts.md#files).\n"
    inner = "See [the rules](../repository/CONTRIBUTING.md#rules), [`x.py`](../repository/src/x.py.md)"
    assert repository.in_site(page, "docs/a.md").startswith(inner.replace("../", ""))
    assert repository.in_site(page.replace("](", "](../"), "docs/findings/a.md").startswith(inner)
    assert repository.in_site("[a](docs/a.md)", "README.md") == "[a](a.md)"
    assert repository.in_site("[a](../docs/a.md#b)", "training/README.md") == "[a](../../a.md#b)"
    assert repository.outside(page, "docs/a.md") == {"CONTRIBUTING.md", "src/x.py"}


def test_links_in_code_stay() -> None:
    page = "    x[0](../a.md)\n\n```text\n[x](../a.md)\n```\n"
    assert repository.in_site(page, "docs/a.md") == page
    assert repository.outside(page, "docs/a.md") == set()


def build(root: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """Build the site of the repository at `root`, strictly."""
    command = [MKDOCS, "build", "--strict", "--site-dir", site]
    environment = {"PATH": "/usr/bin:/bin", "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    folder = tmp_path_factory.mktemp("docs") / "site"
    done = build(ROOT, folder)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


@needs_mkdocs
@pytest.mark.slow
def test_the_site_builds_strictly_and_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = {path: path.read_text("utf-8") for path in site.rglob("*.html")}
    assert len(pages) > len(navigation()) - 1
    assert {path: found for path, text in pages.items() if (found := LOADED.findall(text))} == {}
    styles = [
        path for path in site.rglob("*.css") if re.search(r"(url\(|@import )[\"']?(https?:)?//", path.read_text())
    ]
    assert styles == []


@needs_mkdocs
@pytest.mark.slow
def test_the_reference_shows_examples_as_code(site: Path) -> None:
    page = (site / "reference" / "measures.html").read_text("utf-8")
    assert "language-pycon" in page
    assert "<blockquote>" not in page
    assert 'id="hydrascope.measures.restoration.restoration"' in page


@needs_mkdocs
@pytest.mark.slow
def test_the_search_works_from_a_folder(site: Path, browser: Any) -> None:
    with opening(browser) as open_page:
        page = open_page((site / "index.html").as_uri())
        page.click(".md-search__input")
        page.keyboard.type("compensation_regression")
        page.wait_for_selector(".md-search-result__item")
        page.click(".md-search-result__item a >> nth=0")
        assert "compensation_regression" in page.inner_text("article")


@needs_mkdocs
@pytest.mark.slow
def test_broken_links_and_anchors_are_found(tmp_path: Path) -> None:
    for path in ROOT.iterdir():
        if path.name in ("docs", "tools"):
            shutil.copytree(path, tmp_path / path.name)
        elif not path.name.startswith((".", "site")):
            (tmp_path / path.name).symlink_to(path)
    with (tmp_path / "docs" / "start.md").open("a") as page:
        page.write("\n[a](missing.md) [b](quantities.md#nowhere)\n")
    (tmp_path / "docs" / "forgotten.md").write_text("# Forgotten\n")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode == 1
    assert done.stderr.count("WARNING") == 3
    assert all(told in done.stderr for told in ("missing.md", "#nowhere", "forgotten.md"))
