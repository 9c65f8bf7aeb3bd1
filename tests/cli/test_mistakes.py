"""What a user mistypes, breaks or interrupts: one line that says what to mend, exit code 2, and nothing is lost."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from command import Run
from safetensors.torch import load_file, save_file

from hydrascope import __main__
from hydrascope.cli import app
from hydrascope.runs import sweep

torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("frob", "No such command 'frob'"),
        ("run {model}", "Missing option '--prompts'"),
        ("run {model} --prompts {prompts} --frob", "No such option: --frob"),
        ("summary {results} --norm ours", "'ours' is not one of 'clean', 'own'"),
        ("summary {results} --readout difference", "difference"),
        ("run {model} --prompts {prompts} --out {out} --ablate tail", "'tail' is no component of a model"),
        ("run {model} --prompts {prompts} --out {out} --ablate head.99.0", "has no head.99.0: its blocks are 0 to 2"),
        ("run {model} --prompts {prompts} --out {out} --read head.0.9", "has no head.0.9: attn.0 has head.0.0 to"),
        ("run {model} --prompts {prompts} --out {out} --ablate attn.1+attn.1", "overrides attn.1 twice"),
        ("run {model} --prompts {prompts} --out {out} --ablate attn.1+head.1.0", "and all of attn.1"),
        ("run {model} --prompts {prompts} --out {out} --ablate mlp.1|attn.1", "freezes attn.1, which isn't downstream"),
        ("run {model} --prompts {prompts} --out {out} --at middle", "'middle' is no position"),
        ("run {model} --prompts {prompts} --out {out} --at 30", "prompt 1 .* has no position 30"),
        ("run {model} --prompts {prompts} --out {out} --at subject", "prompt 1 .* has no subject"),
        ("run {model} --prompts {prompts} --out {out} --readout taste", "unknown --readout taste"),
        ("run {model} --prompts {prompts} --out {out} --readout logit,logit", "two readouts are called 'logit'"),
        ("run {model} --prompts {prompts} --out {out} --readout logit.99", "has no token 99"),
        ("run {model} --prompts {prompts} --out {out} --readout placebo.99", "99 placebo tokens"),
        ("run {model} --prompts {prompts} --out {out} --readout logit.answer", "has no answer"),
        ("run {model} --prompts {folder}/facts.jsonl --out {out} --readout logit.foil", "has no foil"),
        ("run {model} --prompts {folder}/pairs.jsonl --out {out} --readout difference", "begin with the same token"),
        (
            "run {model} --prompts {prompts} --out {out} --readout direction:{folder}/none.npy",
            "cannot read the direction",
        ),
        ("run {model} --prompts {prompts} --out {out} --readout direction:{prompts}", "cannot read the direction"),
        (
            "run {model} --prompts {prompts} --out {out} --readout direction:{folder}/words.npy",
            "a .npy file of numbers",
        ),
        ("run {model} --prompts {prompts} --out {out} --readout direction:{folder}/short.npy", r"has the shape \[5\]"),
        ("run {model} --prompts {prompts} --out {out} --readout direction:{folder}/short.npy@x", "'x' is not a block"),
        ("run {model} --prompts {prompts} --out {out} --metric taste", "unknown metric 'taste'"),
        ("run {model} --prompts {prompts} --out {out} --target taste", "unknown --target taste"),
        ("run {model} --prompts {prompts} --out {out} --ablation counterfactual", "has no counterfactual"),
        (
            "run {model} --prompts {folder}/pairs.jsonl --out {out} --ablation counterfactual --at 0",
            "is 1 tokens long and its counterfactual 2",
        ),
        ("run {model} --prompts {prompts} --out {out} --dtype int8", "'int8' is not one of"),
        ("run {model} --prompts {prompts} --out {out} --patches 0", "Invalid value for '--patches'"),
        ("run {model} --prompts {prompts} --out {out} --patches many", "Invalid value for '--patches'"),
        ("run {model} --prompts {prompts} --out {out} --seed -1", "Invalid value for '--seed'"),
        ("run {model} --prompts {prompts} --out {out} --limit 0", "Invalid value for '--limit'"),
        ("run {model} --prompts {prompts} --out {out} --batch-size few", "invalid --batch-size few"),
        ("run {model} --prompts {prompts} --out {out} --batch-size 0", "invalid --batch-size 0"),
        ("run {model} --prompts {prompts} --out {out} --ablation zero --patches 2", "zero has one patch"),
        ("run {model} --prompts {prompts} --out {out} --noise-scale 2", "resample has no noise"),
        ("run {model} --prompts {prompts} --out {out} --ablation noise --noise-scale nan", "no scale of noise"),
        ("run {model} --prompts {prompts} --out {out} --ablation mean --different-target", "mean takes nothing"),
        ("run {model} --prompts {prompts} --out {out} --device warp", "the device 'warp' cannot be used"),
        ("run {model} --prompts {prompts} --out {out} --revision main", "has no revision 'main'"),
        ("run {model} --prompts {prompts} --out {out} --target answer", "has no answer"),
        ("run {model} --prompts {prompts} --out {out}", "15 resample patches need 15 other prompts"),
        ("run {model} --prompts {prompts} --out {out} --resume --overwrite", "exclude each other"),
        ("run {model} --prompts {folder}/none.txt --out {out}", "none.txt: No such file"),
        ("run {model} --prompts {folder}/empty.txt --out {out}", "empty.txt is empty"),
        ("run {model} --prompts {folder}/bytes.txt --out {out}", "line 1: not UTF-8"),
        ("run {model} --prompts {folder}/broken.json --out {out}", "line 1, column 13: not JSON"),
        ("run {model} --prompts {folder}/ragged.csv --out {out}", "ragged.csv, line 3: 1 cell for 2 columns"),
        ("run {model} --prompts hf:surely/nonsense --out {out}", "need datasets: pip install|cannot load hf:surely"),
        ("run {model} --prompts {prompts} --out {out} --chat", "model has no chat template: leave out chat"),
        ("run {model} --prompts nonsense --out {out}", "no prompt set is called 'nonsense'"),
        ("run {folder}/none --prompts {prompts} --out {out}", "no model folder at"),
        ("run {folder}/nothing --prompts {prompts} --out {out}", "cannot load the model"),
        ("run surely/nonsense --prompts {prompts} --out {out}", "cannot load the model surely/nonsense"),
        ("run {model} --prompts {prompts} --out {folder}/nothing", "exists and is no hydrascope result"),
        ("run {model} --prompts {prompts} --out {folder}/nothing --overwrite", "exists and is no hydrascope"),
        ("run {model} --prompts {prompts} --out {prompts}/r.zarr --patches 2", "cannot create .*prompts.txt/r.zarr"),
        ("summary {folder}/none.zarr", "there is no .*none.zarr"),
        ("summary {folder}/nothing", "is no hydrascope result"),
        ("summary {prompts}", "is no hydrascope result"),
        ("figures {folder}/nothing --out {out}", "is no hydrascope result"),
        ("figures {results} --out {out} --prompt 99", "99"),
        ("figures {results} --out {out} --ablated attn.99", "attn.99"),
        ("figures {results} --out {prompts}", "cannot write figures"),
        ("motifs --out {prompts}", "cannot write figures"),
        ("check {folder}/none", "no model folder at"),
    ],
)
def test_bad_input_is_one_clear_line(
    hydrascope: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: str, message: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    places = {"folder": folder, "model": folder / "model", "prompts": folder / "prompts.txt", "out": tmp_path / "out"}
    code, _, err = hydrascope(*arguments.format(**places, results=folder / "r.zarr").split())
    lines = [line for line in err.splitlines() if "duplicate" not in line]
    assert code == 2
    assert len(lines) == 1
    assert lines[0].startswith("hydrascope: ")
    assert re.search(message, lines[0]), lines[0]
    assert not (tmp_path / "out").exists()


def damaged(folder: Path, damage: str) -> None:
    """Break the model in `folder`."""
    weights = folder / "model.safetensors"
    if damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "not finite":
        tensors = load_file(weights)
        tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = float("nan")
        save_file(tensors, weights, {"format": "pt"})
    elif damage == "incomplete":
        tensors = load_file(weights)
        del tensors["model.norm.weight"]
        save_file(tensors, weights, {"format": "pt"})
    elif damage == "no weights":
        weights.unlink()
    elif damage == "no tokenizer":
        for path in folder.glob("tokenizer*"):
            path.unlink()
    elif damage == "pickled":
        torch.save(load_file(weights), folder / "pytorch_model.bin")
        weights.unlink()
    else:
        (folder / "config.json").write_text("{")


@pytest.mark.parametrize(
    "damage",
    ["truncated", "not finite", "incomplete", "no weights", "no tokenizer", "pickled", "no configuration"],
)
def test_a_broken_model_is_one_clear_line(hydrascope: Run, folder: Path, tmp_path: Path, damage: str) -> None:
    shutil.copytree(folder / "model", tmp_path / "model")
    damaged(tmp_path / "model", damage)
    code, out, err = hydrascope("check", tmp_path / "model")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert str(tmp_path / "model") in err
    if damage in ("not finite", "incomplete"):
        assert damage in err


def test_a_truncated_chunk_is_one_clear_line(hydrascope: Run, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "r.zarr", tmp_path / "r.zarr")
    chunk = tmp_path / "r.zarr/total/c/0/0/0/0"
    chunk.write_bytes(chunk.read_bytes()[:-7])
    for command in (("summary",), ("figures", "--out", tmp_path / "out")):
        code, out, err = hydrascope(command[0], tmp_path / "r.zarr", *command[1:])
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "r.zarr is damaged, total cannot be read" in err


def test_an_interrupted_run_says_how_to_go_on(
    hydrascope: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: Any, **options: Any) -> None:
        shutil.copytree(folder / "r.zarr", options["out"])
        raise KeyboardInterrupt

    command = ("run", folder / "model", "--prompts", folder / "prompts.txt", "--out", tmp_path / "r.zarr")
    with monkeypatch.context() as patch:
        patch.setattr(sweep, "sweep", interrupted)
        code, _, err = hydrascope(*command)
    assert code == 2
    assert err.splitlines()[-1].endswith("continue with --resume")
    assert "interrupted: 5 of 5 prompts are stored" in err


def test_an_interrupted_overwrite_says_that_the_old_result_stands(
    hydrascope: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    shutil.copytree(folder / "r.zarr", tmp_path / "r.zarr")
    monkeypatch.setattr(sweep, "sweep", interrupted)
    command = ("run", folder / "model", "--prompts", folder / "prompts.txt", "--out", tmp_path / "r.zarr")
    code, _, err = hydrascope(*command, "--overwrite")
    assert (code, err.splitlines()[-1]) == (2, f"hydrascope: interrupted: {tmp_path / 'r.zarr'} is unchanged")


@pytest.mark.parametrize("where", ["while it loads", "while it starts"])
def test_an_early_interruption_is_said(
    hydrascope: Run,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    if where == "while it loads":
        monkeypatch.setattr("hydrascope.load_prompts", interrupted, raising=False)
        code, _, err = hydrascope("run", "built-in", "--prompts", "demo", "--out", tmp_path / "r.zarr")
    else:
        monkeypatch.setattr(app, "main", interrupted)
        with pytest.raises(SystemExit) as end:
            __main__.main()
        code, err = end.value.code, capsys.readouterr().err
    assert (code, err) == (2, "hydrascope: interrupted\n")


def test_a_path_is_expanded_once(
    hydrascope: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    code, out, _ = hydrascope("export", folder / "r.zarr", "--out", "~/r.csv", "--overwrite")
    assert code == 2
    (tmp_path / "home").mkdir()
    code, out, _ = hydrascope("export", folder / "r.zarr", "--out=~/r.csv")
    assert (code, str(tmp_path / "home" / "r.csv") in out) == (0, True)
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
