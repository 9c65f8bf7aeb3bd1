"""The gallery: its index shows every exhibit, and texts of results are inert in it."""

from dataclasses import replace
from pathlib import Path

import pytest
import synthetic

import hydrascope as hs
from studies import gallery

DOCS = Path(__file__).parents[2] / "docs"


def test_the_committed_index_shows_every_exhibit() -> None:
    page = (DOCS / "gallery.md").read_text("utf-8")
    for exhibit in gallery.EXHIBITS:
        assert exhibit.shows.removesuffix(".") in page
        if exhibit.picture:
            assert f"(images/gallery-{exhibit.name}.png)" in page
            assert (DOCS / "images" / f"gallery-{exhibit.name}.png").stat().st_size < 200_000


@pytest.mark.slow
def test_a_folder_is_built_and_its_texts_are_inert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = replace(gallery.EXHIBITS[0], name="one", picture="responses", mediation="")
    monkeypatch.setattr(gallery, "EXHIBITS", (shown,))
    results = synthetic.results(4, 20, 1).assign_attrs(model="<b>tiny</b>")
    found = gallery.build(tmp_path, lambda exhibit: results)
    index = (tmp_path / "index.html").read_text("utf-8")
    assert "<b>tiny" not in index
    assert 'href="one.html"' in index
    assert (tmp_path / "one.html").exists()
    assert (tmp_path / "one.png").exists()
    assert gallery.sentence(results) in gallery.as_markdown(found)
    with pytest.raises(hs.HydrascopeError, match="no hydrascope result"):
        gallery.sentence(results.drop_vars("total"))
