"""What a user types and reads: results and tables, or one line that says what to mend, and exit code 2."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors.torch import load_file, save_file
from stored import change_attributes
from tiny import save_tiny

from hydrascope import (
    Counterfactual,
    LogitDifference,
    Noise,
    Resample,
    __main__,
    anatomy,
    cli,
    figures,
    load_model,
    load_prompts,
    open_results,
    runs,
    sweep,
    zoo,
)
from hydrascope.anatomy import Anatomy
from hydrascope.figures import motifs
from hydrascope.runs import run as measure

torch.set_num_threads(1)

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def hydrascope(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line in this process; its exit code, output and errors."""

    def run(*arguments: Any) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["hydrascope", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
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


def test_help_and_version_answer_without_pytorch() -> None:
    code = "import sys; from hydrascope.cli import main; sys.argv[1:] = ['--help']\ntry: main()\n"
    code += "except SystemExit as end: print(end.code, 'torch' in sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert output.stdout.endswith("0 False\n")
    assert all(
        command in output.stdout
        for command in ("run", "figures", "summary", "compare", "export", "check", "demo", "motifs")
    )


def test_a_bare_command_shows_the_help(hydrascope: Run) -> None:
    code, out, err = hydrascope()
    assert (code, err) == (0, "")
    assert "figures" in out
    assert hydrascope("--version") == (0, "0.1.0\n", "")


def test_run_stores_what_the_library_measures(hydrascope: Run, folder: Path, tmp_path: Path) -> None:
    code, out, err = hydrascope(
        *("run", folder / "model", "--prompts", folder / "prompts.txt", "--out", tmp_path / "r.zarr"),
        *("--ablation", "noise", "--patches", 2, "--noise-scale", 0.5, "--seed", 3, "--limit", 4),
        *(
            "--ablate",
            "heads.1,mlp",
            "--read",
            "heads",
            "--at",
            "-1,-2",
            "--metric",
            "kl,log_prob",
            "--keep",
            "patches",
        ),
        *("--engine", "reference", "--dtype", "float64", "--device", "cpu", "--batch-size", 2),
    )
    assert (code, err) == (0, "1 duplicate prompts left out\n")
    assert "7 ablations of 2 patches, 18 components read, 4 prompts, reference engine (asked for), float64" in out
    assert "4 prompts measured, total effects and their parts apart by at most" in out
    stored = open_results(tmp_path / "r.zarr")
    expected = sweep(
        load_model(folder / "model", dtype="float64"),
        load_prompts(folder / "prompts.txt").limit(4),
        Noise(2, 0.5, 3),
        ablate="heads.1,mlp",
        read="heads",
        at=[-1, -2],
        metrics=["kl", "log_prob"],
        keep="patches",
        engine="reference",
        batch_size=2,
    )
    assert stored.attrs.pop("command").startswith("hydrascope run ")
    expected.attrs.pop("command")
    assert stored.attrs == expected.attrs
    xr.testing.assert_identical(stored, expected)


def test_readouts_and_twins(hydrascope: Run, folder: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "probe.npy", np.arange(32.0))
    code, _, err = hydrascope(
        *("run", folder / "model", "--prompts", folder / "pairs.jsonl", "--out", tmp_path / "r.zarr", "--limit", 2),
        *("--ablation", "counterfactual", "--at", "subject"),
        *("--readout", f"difference,logit.answer,placebo.2,direction:{tmp_path / 'probe.npy'}@1"),
    )
    assert (code, err) == (0, "")
    stored = open_results(tmp_path / "r.zarr")
    assert list(stored["readout"].values) == ["difference", "logit.answer", "placebo.0", "placebo.1", "probe"]
    assert list(stored["readout_before"].values) == [-1, -1, -1, -1, 1]
    prompts = load_prompts(folder / "pairs.jsonl").limit(2)
    expected = sweep(
        load_model(folder / "model"), prompts, Counterfactual(), at="subject", readouts=[LogitDifference()]
    )
    xr.testing.assert_allclose(stored["total"][:1], expected["total"])


def test_answers_as_targets(hydrascope: Run, folder: Path, tmp_path: Path) -> None:
    code, _, _ = hydrascope(
        *("run", folder / "model", "--prompts", folder / "facts.jsonl", "--out", tmp_path / "r.zarr"),
        *("--ablation", "mean", "--target", "answer"),
    )
    assert code == 0
    assert list(open_results(tmp_path / "r.zarr")["target_text"].values) == [" ", " "]


def test_resume_and_overwrite(hydrascope: Run, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "r.zarr", tmp_path / "r.zarr")
    command = ("run", folder / "model", "--prompts", folder / "prompts.txt", "--out", tmp_path / "r.zarr")
    code, _, err = hydrascope(*command, "--patches", 2)
    assert (code, err.count("\n")) == (2, 1)
    assert "exists (5 of 5 prompts measured): go on with resume" in err
    assert hydrascope(*command, "--patches", 2, "--resume")[0] == 0
    code, _, err = hydrascope(*command, "--patches", 3, "--resume")
    assert code == 2
    assert "patches was 2, now 3" in err
    assert hydrascope(*command, "--patches", 3, "--overwrite")[0] == 0
    assert open_results(tmp_path / "r.zarr").sizes["patch"] == 3


def test_summary_prints_findings(hydrascope: Run, folder: Path) -> None:
    code, out, err = hydrascope("summary", folder / "r.zarr")
    assert (code, err) == (0, "")
    assert "Is what ablating attention removes restored?" in out
    assert "Findings" not in out
    code, out, err = hydrascope("summary", folder / "r.zarr", "--full")
    assert (code, err) == (0, "")
    assert "Findings" in out
    assert "attn.2" in out
    assert max(map(len, out.splitlines())) <= 80
    for name, start in (("csv", "ablated,kind,direct"), ("json", "{"), ("markdown", "Is what ablating attention")):
        code, out, err = hydrascope("summary", folder / "r.zarr", "--format", name)
        assert (code, err, out.startswith(start)) == (0, "", True)


def test_an_unfinished_result_is_said_to_be(hydrascope: Run, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "r.zarr", tmp_path / "r.zarr")
    change_attributes(tmp_path / "r.zarr", measured=4)
    code, _, err = hydrascope("summary", tmp_path / "r.zarr")
    assert code == 0
    assert "only 4 of 5 prompts are measured" in err


def test_figures_and_motifs_are_drawn_where_they_are_asked_for(
    hydrascope: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple] = []

    def draw_all(results: xr.Dataset, folder: Path, *arguments: Any) -> figures.Drawn:
        asked.append((results.sizes["prompt"], folder, *arguments))
        return figures.Drawn(folder, (tmp_path / "figure1.png",), ())

    monkeypatch.setattr(figures, "draw_all", draw_all)
    command, choice = ("figures", folder / "r.zarr", "--out", tmp_path), ("--readout", "logit", "--norm", "own")
    assert (
        hydrascope("figures", folder / "r.zarr", "--out", tmp_path, "--prompt", 1, "--ablated", "mlp.0", *choice)[0]
        == 0
    )
    assert hydrascope(*command) == (0, f"1 files in {tmp_path}\n", "")
    assert asked == [(5, tmp_path, 1, "mlp.0", "logit", "own"), (5, tmp_path, None, None, None, None)]
    monkeypatch.setattr(motifs, "draw_all", lambda out: [out / "figure6.svg"])
    assert hydrascope("motifs", "--out", tmp_path) == (0, f"1 files in {tmp_path}\n", "")


def test_check_shows_identity_by_identity(hydrascope: Run, folder: Path) -> None:
    code, out, err = hydrascope("check", folder / "model")
    assert (code, err) == (0, "")
    assert "total effects balance with their parts" in out
    assert all(line.startswith("holds  off by ") for line in out.splitlines())


def test_check_lists_what_holds_and_what_fails(
    hydrascope: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(anatomy._ANATOMIES, "llama", Anatomy(norm_kind="layer"))
    code, out, err = hydrascope("check", folder / "model")
    assert code == 2
    assert "holds" in out
    assert any(line.startswith("FAILS") and "residual stream gives" in line for line in out.splitlines())
    assert err.count("\n") == 1


def test_demo_runs_draws_and_tells(
    hydrascope: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "many.txt").write_text("\n".join(f"{letter} cat" for letter in "abcdefghijklmnopqrst"))
    monkeypatch.setattr(zoo, "MODELS", ("built-in", "built-in-dropout"))
    monkeypatch.setattr(zoo, "model_path", lambda name: folder / "model" if name in zoo.MODELS else None)
    monkeypatch.setattr(zoo, "prompt_path", lambda name: tmp_path / "many.txt")
    monkeypatch.setattr(figures, "draw_all", lambda results, out, *choices: figures.Drawn(out, (out,), ()))
    for again in ((), (), ("--overwrite",)):
        code, out, _ = hydrascope("demo", "--out", tmp_path / "demo", "--limit", 18, *again)
        assert code == 0
        assert out.count("18 prompts measured") == 2
        assert f"1 files in {tmp_path / 'demo' / 'figures'}" in out
        # A sentence a model, then the picture and where to look further.
        assert all(f"\n{name}: " in out for name in zoo.MODELS)
        assert (tmp_path / "demo" / "figures" / "comparison.png").exists()
    for name in zoo.MODELS:
        results = open_results(tmp_path / "demo" / f"{name}.zarr")
        assert (results.sizes["prompt"], results.attrs["ablation"]) == (18, "zero")
        assert list(map(str, results["readout"].values)) == ["logit", "placebo.0", "placebo.1"]
        assert (results.attrs["model"], results.attrs["prompts"]) == (name, "demo")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("frob", "No such command 'frob'"),
        ("run {model}", "Missing option '--prompts'"),
        ("run {model} --prompts {prompts} --frob", "No such option: --frob"),
        ("summary {results} --norm ours", "'ours' is not one of 'clean', 'own'"),
        ("summary {results} --readout difference", "difference"),
        ("run {model} --prompts {prompts} --out {out} --ablate tail", "'tail' is no part of a model"),
        ("run {model} --prompts {prompts} --out {out} --ablate head.99.0", "has no head.99.0: its layers are 0 to 2"),
        ("run {model} --prompts {prompts} --out {out} --read head.0.9", "has no head.0.9: attn.0 has head.0.0 to"),
        ("run {model} --prompts {prompts} --out {out} --ablate attn.1+attn.1", "overrides attn.1 twice"),
        ("run {model} --prompts {prompts} --out {out} --ablate attn.1+head.1.0", "and the whole of attn.1"),
        ("run {model} --prompts {prompts} --out {out} --ablate mlp.1|attn.1", "freezes attn.1, which nothing"),
        ("run {model} --prompts {prompts} --out {out} --at middle", "'middle' is no position"),
        ("run {model} --prompts {prompts} --out {out} --at 30", "prompt 1 .* has no position 30"),
        ("run {model} --prompts {prompts} --out {out} --at subject", "prompt 1 .* has no subject"),
        ("run {model} --prompts {prompts} --out {out} --readout taste", "--readout taste is none that is known"),
        ("run {model} --prompts {prompts} --out {out} --readout logit,logit", "two readouts are called 'logit'"),
        ("run {model} --prompts {prompts} --out {out} --readout logit.99", "has no token 99"),
        ("run {model} --prompts {prompts} --out {out} --readout placebo.99", "99 placebo tokens"),
        ("run {model} --prompts {prompts} --out {out} --readout difference", "has no answer"),
        ("run {model} --prompts {folder}/facts.jsonl --out {out} --readout difference", "has no foil"),
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
        ("run {model} --prompts {prompts} --out {out} --readout direction:{folder}/short.npy@x", "'x' is no block"),
        ("run {model} --prompts {prompts} --out {out} --metric taste", "unknown metric 'taste'"),
        ("run {model} --prompts {prompts} --out {out} --target taste", "--target taste is none that is known"),
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
        ("run {model} --prompts {prompts} --out {out} --batch-size few", "--batch-size few is no number"),
        ("run {model} --prompts {prompts} --out {out} --batch-size 0", "--batch-size 0 is no number"),
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
        patch.setattr(runs, "run", interrupted)
        code, _, err = hydrascope(*command)
    assert code == 2
    assert err.splitlines()[-1].endswith("go on with --resume")
    assert "interrupted: 5 of 5 prompts are kept" in err


def test_an_interrupted_overwrite_says_that_the_old_result_stands(
    hydrascope: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    shutil.copytree(folder / "r.zarr", tmp_path / "r.zarr")
    monkeypatch.setattr(runs, "run", interrupted)
    command = ("run", folder / "model", "--prompts", folder / "prompts.txt", "--out", tmp_path / "r.zarr")
    code, _, err = hydrascope(*command, "--overwrite")
    assert (code, err.splitlines()[-1]) == (2, f"hydrascope: interrupted: {tmp_path / 'r.zarr'} is as it was")


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
        monkeypatch.setattr(cli, "main", interrupted)
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
