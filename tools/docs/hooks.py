"""The events at which MkDocs asks for pages of the site that don't lie in docs/."""

from typing import Any

import reference
import repository
from mkdocs.structure.files import File, Files, InclusionLevel


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that don't lie in docs/: the reference, and files that pages link to."""
    for uri, markdown in reference.pages().items():
        files.append(File.generated(config, uri, content=markdown))
    for path, markdown in repository.pages().items():
        page = File.generated(config, repository.site_uri(path), content=markdown, inclusion=InclusionLevel.NOT_IN_NAV)
        page.origin = path
        files.append(page)
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Lead links to files outside docs/ to their pages in the site."""
    if page.file.src_uri.startswith("reference/"):
        return markdown
    return repository.in_site(markdown, getattr(page.file, "origin", f"docs/{page.file.src_uri}"))
