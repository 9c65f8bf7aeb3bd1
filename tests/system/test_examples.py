"""The examples run, and the README shows them as they are."""

import runpy
from pathlib import Path

import pytest

import hydrascope as hs
from hydrascope.utils import assets

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "ten_lines.py"


def test_the_readme_shows_the_example():
    code = EXAMPLE.read_text().split('"""\n\n', 1)[1]
    assert f"```python\n{code}```" in (ROOT / "README.md").read_text()


def test_the_example_runs(tmp_path, monkeypatch, capsys):
    folder = assets.model_path("built-in")
    if folder is None or not folder.exists():
        pytest.skip("the built-in model is not here")
    monkeypatch.chdir(tmp_path)
    # A tenth of its prompts shows that it runs.
    limit = hs.prompts.PromptSet.limit
    monkeypatch.setattr(hs.prompts.PromptSet, "limit", lambda prompts, count: limit(prompts, count // 10))
    runpy.run_path(str(EXAMPLE))
    assert (tmp_path / "figure7.png").stat().st_size > 10_000
    assert "attn.0" in capsys.readouterr().out
