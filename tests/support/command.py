"""The command line run in this process, and a folder of things to give it; fixtures of every test (`conftest.py`)."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import save_tiny

from hydrascope import Resample, load_model, load_prompts
from hydrascope.cli import app
from hydrascope.runs.sweep import sweep as measure

torch.set_num_threads(1)
# Warnings are errors: one that comes once a process would fail whichever test is the first.
torch.set_warn_always(True)

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def hydrascope(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line in this process; its exit code, output and errors."""

    def run(*arguments: Any) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["hydrascope", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            app.main()
        code = end.value.code
        return code if isinstance(code, int) else 0, *capsys.readouterr()

    return run


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, prompts, a result, and things that are none of them."""
    folder = tmp_path_factory.mktemp("cli")
    save_tiny(folder / "model")
    (folder / "prompts.txt").write_text("the cat\nno\nHello, world\nabc\nno\nxyz.\n")
    (folder / "empty.txt").write_text("")
    (folder / "bytes.txt").write_bytes(b"\xff\xfe")
    (folder / "broken.json").write_text('[{"prompt": ]')
    (folder / "ragged.csv").write_text("prompt,answer\na,b\nno\n")
    (folder / "facts.jsonl").write_text('{"prompt": "a", "answer": "b"}\n{"prompt": "no", "answer": "way"}\n')
    pairs = [
        {"prompt": "a cat and ", "answer": "b", "foil": "c", "subject": "cat", "counterfactual": "a dog and "},
        {"prompt": "no ", "answer": "way", "foil": "x", "subject": "no", "counterfactual": "on "},
        {"prompt": "z", "answer": "y", "foil": "y", "counterfactual": "zz"},
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    (folder / "nothing").mkdir()
    np.save(folder / "short.npy", np.ones(5))
    np.save(folder / "words.npy", np.array(["a"]))
    prompts = load_prompts(folder / "prompts.txt")
    measure(load_model(folder / "model"), prompts, Resample(2), out=folder / "r.zarr")
    return folder
