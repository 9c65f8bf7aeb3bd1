"""Trajectories from the command line: their rows, files, and mistakes."""

import csv
import io
import json
import shutil
from pathlib import Path

import pytest
from command import Run
from PIL import Image
from tiny import save_tiny

import hydrascope as hs


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two checkpoints and prompts."""
    folder = tmp_path_factory.mktemp("trajectory")
    for seed in (1, 2):
        save_tiny(folder / f"step{seed}", seed=seed)
    (folder / "prompts.txt").write_text("the cat\nno\nHello, world\nabc\nxyz.\n")
    return folder


@pytest.mark.slow
@pytest.mark.usefixtures("one_format")
def test_rows_are_those_of_the_library(hydrascope: Run, steps: Path, tmp_path: Path) -> None:
    given = [steps / "step1", steps / "step2", "--prompts", steps / "prompts.txt", "--ablation", "zero"]
    given += ["--out", tmp_path / "t"]
    code, out, err = hydrascope("trajectory", *given, "--format", "csv")
    assert code == 0, err
    assert err.splitlines()[-1] == f"2 files in {tmp_path / 't'}"
    rows = list(csv.DictReader(io.StringIO(out)))
    assert rows == list(csv.DictReader((tmp_path / "t" / "trajectory.csv").open()))
    paths = hs.analyses.trajectory(
        [steps / "step1", steps / "step2"], hs.load_prompts(steps / "prompts.txt"), hs.Zero(), out=tmp_path / "p"
    )
    found = hs.measures.trajectory({label: hs.open_results(path) for label, path in paths.items()})
    assert [(row["checkpoint"], row["ablated"]) for row in rows] == [
        (label, f"{kind}.{block}") for label in ("step1", "step2") for block in range(3) for kind in ("attn", "mlp")
    ]
    for row in rows:
        at = found.sel(checkpoint=row["checkpoint"], ablated=row["ablated"])
        for name in ("removed", "lost", "restored_slope"):
            high = float(at[name].sel(bound="high"))
            assert float(row[f"{name}_high"] or "nan") == pytest.approx(high, abs=1e-5, nan_ok=True)
    with Image.open(tmp_path / "t" / "trajectory.png") as picture:
        assert min(picture.size) > 100
        assert "prompts.txt answered by step2" in picture.info["Description"]
    code, out, _ = hydrascope("trajectory", *given, "--format", "json")
    page = json.loads(out)
    assert code == 0
    assert page["target"] == "the likeliest tokens of step2 in all checkpoints"
    assert len(page["components"]) == 12
    assert [each["writers"] for each in page["kinds"]] == found["writers"].transpose(
        "kind", ...
    ).values.ravel().tolist()
    code, out, _ = hydrascope("trajectory", *given)
    assert code == 0
    assert "Target: the likeliest tokens of step2 in all checkpoints." in " ".join(out.split())


@pytest.mark.usefixtures("one_format")
def test_a_damaged_checkpoint_is_one_line_and_finished_ones_stay(hydrascope: Run, steps: Path, tmp_path: Path) -> None:
    broken = tmp_path / "step0"
    shutil.copytree(steps / "step1", broken)
    (broken / "model.safetensors").write_bytes(b"nothing")
    given = ["--prompts", steps / "prompts.txt", "--ablation", "zero", "--out", tmp_path / "t"]
    code, out, err = hydrascope("trajectory", steps / "step1", broken, steps / "step2", *given)
    assert code == 2
    assert out == ""
    assert err.splitlines()[-1].startswith("hydrascope: checkpoint step0: ")
    assert "Traceback" not in err
    for label in ("step1", "step2"):
        assert hs.open_results(tmp_path / "t" / f"{label}.zarr").attrs["measured"] == 5
    code, _, err = hydrascope(
        "trajectory", steps / "step1", steps / "step2", *given[:2], "--ablation", "mean", *given[4:]
    )
    assert code == 2
    assert "cannot resume" in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["{folder}/step1"], "two checkpoints are called step1"),
        (["--revision", "main"], "give each checkpoint as NAME@REVISION"),
        (["--target", "likeliest"], "unknown --target likeliest"),
        (["{folder}/step3"], "checkpoint step3: no model folder"),
        (["--readout", "difference"], "own runner-up"),
    ],
)
def test_mistakes_are_one_line(hydrascope: Run, steps: Path, tmp_path: Path, more: list[str], message: str) -> None:
    words = [word.format(folder=steps) for word in more]
    code, out, err = hydrascope(
        "trajectory", steps / "step1", *words, "--prompts", steps / "prompts.txt", "--out", tmp_path / "t"
    )
    assert (code, out) == (2, "")
    assert message in err.splitlines()[-1]
    assert "Traceback" not in err


def test_an_interruption_says_how_to_go_on(
    hydrascope: Run, steps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object, **keywords: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hydrascope.runs.sweep.measure_chunks", interrupt)
    given = ["--prompts", steps / "prompts.txt", "--ablation", "zero", "--out", tmp_path / "t"]
    code, _, err = hydrascope("trajectory", steps / "step1", *given)
    assert code == 2
    assert err.splitlines()[-1].endswith(f"stored in {tmp_path / 't'}: continue with the same command")
