"""The notebooks run from top to bottom, on a tenth of their prompts."""

import json
from pathlib import Path

import matplotlib
import pytest
from IPython.core.interactiveshell import InteractiveShell

import hydrascope as hs
from hydrascope.loading.fetch import model_file

FOLDER = Path(__file__).parents[2] / "examples" / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))

needs_smollm2 = pytest.mark.skipif(
    not model_file("smollm2").exists(), reason="SmolLM2 isn't fetched: run `hydrascope fetch smollm2`"
)


def code(name: str) -> list[str]:
    """Return the code cells of a notebook, without those that install or download."""
    cells = json.loads((FOLDER / f"{name}.ipynb").read_text("utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return [source for source in sources if not any(word in source for word in ("%pip", "!hydrascope"))]


@needs_smollm2
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_cell_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    limit = hs.prompts.PromptSet.limit
    monkeypatch.setattr(hs.prompts.PromptSet, "limit", lambda prompts, count: limit(prompts, count // 10))
    shell, backend = InteractiveShell(), matplotlib.get_backend()
    try:
        for source in code(name):
            found = shell.run_cell(source.replace("%matplotlib inline\n", ""), silent=True)
            found.raise_error()
    finally:
        matplotlib.use(backend)
        InteractiveShell.clear_instance()


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_installs_first_and_holds_what_its_reader_sees(name: str) -> None:
    cells = json.loads((FOLDER / f"{name}.ipynb").read_text("utf-8"))["cells"]
    first, *others = [cell for cell in cells if cell["cell_type"] == "code"]
    assert "%pip install" in "".join(first["source"])
    assert any(cell["outputs"] for cell in others)
    assert not any(output["output_type"] == "error" for cell in others for output in cell["outputs"])
    text = json.dumps([cell["outputs"] for cell in others])
    assert "/tmp/" not in text
    assert "/home/" not in text
