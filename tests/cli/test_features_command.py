"""Dictionaries and the analysis of features from the command line, on a saved model."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import Run
from dictionaries import random_dictionary
from PIL import Image
from safetensors.torch import save_file
from tiny import shared

import hydrascope as hs
from hydrascope.analyses.features import PARTS

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def saved(folder: Path) -> Path:
    """A folder with dictionaries, of one site each, and with files that are none."""
    place = folder / "dictionaries"
    place.mkdir()
    model = shared("llama")
    for site in ("mlp.1", "attn.2", "stream.1"):
        random_dictionary(model, site, "topk", name=f"saved at {site}").save(place / f"{site}.safetensors")
    narrow = torch.randn(12, 16, generator=torch.Generator().manual_seed(0))
    hs.Dictionary("mlp.1", encoder=narrow, decoder=narrow).save(place / "narrow.safetensors")
    nowhere = {"W_enc": torch.randn(32, 12), "W_dec": torch.randn(12, 32)}
    save_file(nowhere, place / "nowhere.safetensors")
    whole = (place / "mlp.1.safetensors").read_bytes()
    (place / "damaged.safetensors").write_bytes(whole[: len(whole) // 2])
    wrong = random_dictionary(model, "mlp.1")
    holed = wrong.encoder.clone()
    holed[0, 0] = torch.nan
    save_file({"W_enc": holed.T.contiguous(), "W_dec": wrong.decoder}, place / "holed.safetensors")
    return place


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.usefixtures("one_format")
def test_features_are_those_of_the_library(hydrascope: Run, folder: Path, saved: Path, tmp_path: Path) -> None:
    dictionary = f"{saved}/mlp.1.safetensors"
    given = [folder / "model", "--prompts", folder / "prompts.txt", "--dictionary", dictionary, "--ablate", "attn"]
    given += ["--ablation", "zero", "--readout", "logit,logit.5", "--top", "3", "--seed", "7", "--out", tmp_path / "f"]
    code, out, err = hydrascope("features", *given, "--format", "csv")
    assert code == 0
    assert err.splitlines()[-1] == f"3 files in {tmp_path / 'f'}"
    assert sorted(path.name for path in (tmp_path / "f").iterdir()) == [
        *("features.csv", "features.png", "single-features.csv")
    ]
    assert (tmp_path / "f/features.csv").read_text() == out
    with Image.open(tmp_path / "f/features.png") as picture:
        run = json.loads(picture.text["Description"])
    assert (run["readout"], run["ablation"]) == ("logit", "zero")

    model = hs.load_model(folder / "model", dictionaries=[dictionary])
    prompts = hs.load_prompts(folder / "prompts.txt")
    asked: dict[str, Any] = {"ablate": "attn", "top": 3, "seed": 7, "readouts": [hs.Logit(), hs.Logit(5)]}
    found = hs.analyses.features(model, prompts, hs.Zero(), **asked)
    rows = read(out)
    assert len(rows) == 2 * 2 * len(PARTS)
    for row in rows:
        here = found.sel(readout=row["readout"], ablated=row["ablated"])
        for name in ("response", "restored_by"):
            expected = float(here[name].sel(part=row["part"]).mean())
            assert float(row[name]) == pytest.approx(expected, rel=1e-4, abs=1e-6)
        assert float(row["removed"]) == pytest.approx(float(here["removed"].mean()), rel=1e-4, abs=1e-6)
    singles = read((tmp_path / "f/single-features.csv").read_text())
    assert len(singles) == 2 * 2 * 3
    for row in singles:
        here = found.sel(readout=row["readout"], feature=row["feature"])
        response = here["feature_response"].sel(ablated=row["ablated"])
        assert float(row["response"]) == pytest.approx(float(response.mean()), rel=1e-4, abs=1e-6)
        assert float(row["unembed"]) == pytest.approx(float(here["feature_unembed"].mean()), rel=1e-4, abs=1e-6)


def test_as_text(hydrascope: Run, folder: Path, saved: Path) -> None:
    """A file that names no site, at the site that is given."""
    given = [folder / "model", "--prompts", folder / "prompts.txt", "--ablate", "attn.0", "--ablation", "zero"]
    code, out, _ = hydrascope("features", *given, "--dictionary", f"transcoder.2={saved}/nowhere.safetensors")
    assert code == 0
    said = " ".join(out.split())
    assert "of the dictionary at transcoder.2" in said
    assert "feature.transcoder.2." in said
    assert "the parts need not add up" in said
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("", "has no dictionary: give one with --dictionary"),
        ("{d}/mlp.1 {d}/attn.2", "has dictionaries at mlp.1, attn.2: name one site"),
        ("{d}/mlp.1 --site mlp.2", "has no dictionary at 'mlp.2': it has them at mlp.1"),
        ("{d}/stream.1", "rewrites the residual stream and is no part of a sublayer"),
        ("{d}/mlp.1 --ablate attn.2", "nothing that is ablated is upstream of mlp.1"),
        ("{d}/mlp.1 {d}/mlp.1", "two dictionaries take mlp.1 apart"),
        ("mlp.9={d}/mlp.1", "has no site mlp.9"),
        ("{d}/damaged", "damaged"),
        ("{d}/narrow", "writes 16 numbers, and mlp.1"),
        ("mlp.1={d}/holed", "holds NaN or infinity"),
        ("{d}/nowhere", "give its site, as site='mlp.5', or mlp.5=PATH"),
        ("{d}/none", "none.safetensors"),
        ("mlp.1=", "mlp.1= names no dictionary: write mlp.1=PATH"),
        ("{d}/mlp.1 --top 0", "--top': Input should be greater than or equal to 1"),
        ("{d}/mlp.1 --limit 1", "give at least 2"),
        ("{d}/mlp.1 --ablate feature.mlp.1.99", "feature.mlp.1.99"),
    ],
)
def test_refusals_are_one_clear_line(
    hydrascope: Run,
    folder: Path,
    saved: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    asked: str,
    message: str,
) -> None:
    monkeypatch.setattr("hydrascope.loading.self_check.require_valid", lambda model: None)
    given: list[str] = []
    words = asked.format(d=saved).split()
    for before, word in zip(["", *words], words, strict=False):
        if word.startswith("--") or before.startswith("--"):
            given.append(word)
        else:
            given += ["--dictionary", word if word.endswith("=") else f"{word}.safetensors"]
    out = tmp_path / "out"
    code, _, err = hydrascope(
        *("features", folder / "model", "--prompts", folder / "prompts.txt", "--ablation", "zero", "--out", out, *given)
    )
    lines = [line for line in err.splitlines() if "duplicate" not in line]
    assert code == 2
    assert len(lines) == 1, lines
    assert lines[0].startswith("hydrascope: ")
    assert message in lines[0]
    assert not out.exists()


def test_a_run_with_a_dictionary(hydrascope: Run, folder: Path, saved: Path, tmp_path: Path) -> None:
    """`run` reads and ablates terms as the library does, and the result says of which dictionary."""
    given = [folder / "model", "--prompts", folder / "prompts.txt", "--dictionary", f"{saved}/mlp.1.safetensors"]
    given += ["--ablate", "terms.mlp.1,attn.0|error.mlp.1", "--read", "terms", "--ablation", "zero"]
    code, _, _ = hydrascope("run", *given, "--out", tmp_path / "r.zarr")
    assert code == 0
    stored = hs.open_results(tmp_path / "r.zarr")
    dictionary = hs.Dictionary.load(saved / "mlp.1.safetensors")
    assert json.loads(stored.attrs["dictionary_hashes"]) == {"mlp.1": dictionary.sha256}
    model = hs.load_model(folder / "model").with_dictionaries(replace(dictionary, name=""))
    prompts = hs.load_prompts(folder / "prompts.txt")
    made = hs.sweep(model, prompts, hs.Zero(), ablate="terms.mlp.1,attn.0|error.mlp.1", read="terms")
    np.testing.assert_allclose(stored["total"], made["total"], atol=1e-5)
    np.testing.assert_allclose(stored["unembed_ablated"], made["unembed_ablated"], atol=1e-5)
