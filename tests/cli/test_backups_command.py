"""Backups from the command line: tables, files, and mistakes in one line."""

import csv
import io
import json
from pathlib import Path

import pytest
from command import Run
from PIL import Image

import hydrascope as hs


@pytest.mark.slow
@pytest.mark.usefixtures("one_format")
def test_backups_are_those_of_the_library(hydrascope: Run, folder: Path, tmp_path: Path) -> None:
    given = [folder / "model", "--prompts", folder / "prompts.txt", "--of", "head.0.1,head.0.0+head.1.2", "--at", "all"]
    code, out, err = hydrascope("backups", *given, "--format", "csv", "--out", tmp_path / "b")
    assert code == 0, err
    assert err.splitlines()[-1] == f"3 files in {tmp_path / 'b'}"
    assert out.strip() == (tmp_path / "b" / "backups.csv").read_text().strip()
    with Image.open(tmp_path / "b" / "backups.png") as picture:
        assert min(picture.size) > 100
    model, prompts = hs.load_model(folder / "model"), hs.load_prompts(folder / "prompts.txt")
    found = hs.analyses.backups(model, prompts, of=["head.0.1", "head.0.0+head.1.2"], at="all")
    mean = found.mean("prompt").isel(readout=0)
    rows = list(csv.DictReader(io.StringIO(out)))
    assert len(rows) == 11 + 10
    for row in rows:
        one = mean.sel(seed=row["seed"], candidate=row["candidate"])
        for name in ("reaction", "synergy", "conditional", "single", "coupling", "atp_two_state"):
            assert float(row[name]) == pytest.approx(float(one[name]), abs=1e-5), name
        assert float(row["coax"]) == pytest.approx(float(one["conditional"] - one["single"]), abs=1e-5)
        assert float(row["removed"]) == pytest.approx(float(one["removed"]), abs=1e-5)
        assert row["downstream"] == str(bool(one["downstream"]))
    code, out, _ = hydrascope("backups", *given, "--format", "json", "--no-slopes")
    assert code == 0
    told = json.loads(out)
    assert len(told["candidates"]) == len(rows)
    assert told["candidates"][0]["atp"] is None
    scores = hs.measures.backup_scores(found)
    for row in told["scores"]:
        at = {name: row[name] for name in ("seed", "truth", "among", "score")}
        expected = float(scores["spearman"].sel(**at, bound="estimate"))
        assert row["spearman"]["estimate"] == (None if expected != expected else pytest.approx(expected, abs=1e-6))
    code, out, _ = hydrascope("backups", *given)
    assert code == 0
    assert "head.0.0+head.1.2 ablated removes" in out
    assert "two-state atp*" in out


def test_seed_sets_are_chosen_where_none_are_named(hydrascope: Run, folder: Path) -> None:
    code, out, _ = hydrascope("backups", folder / "model", "--prompts", folder / "prompts.txt", "--no-slopes")
    assert code == 0
    assert "were chosen on" in " ".join(out.split())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--of", "head.9.0"], "has no head.9.0: its blocks are 0 to 2"),
        (["--of", "head.0.1+head.0.1"], "head.0.1+head.0.1 overrides head.0.1 twice: name it once"),
        (["--of", "top.0"], "top.0 is no seed set: give top.1 to top.12, for as many heads"),
        (["--limit", "1"], "seed sets are chosen on half of the prompts: give at least 2 that differ"),
        (["--of", "head.0.1", "--candidates", "layer.3"], "'layer.3' is no component of a model"),
    ],
)
def test_mistakes_are_one_line(hydrascope: Run, folder: Path, more: list[str], message: str) -> None:
    code, _, err = hydrascope("backups", folder / "model", "--prompts", folder / "prompts.txt", *more)
    assert code == 2
    assert message in err.splitlines()[-1]
    assert "Traceback" not in err
