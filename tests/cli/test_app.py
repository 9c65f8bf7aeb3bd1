"""What a user types and reads: results and tables, or one line that says what to mend, and exit code 2."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from command import Run
from stored import change_attributes

from hydrascope import Counterfactual, LogitDifference, Noise, load_model, load_prompts, open_results, sweep
from hydrascope.causal.figures import motifs
from hydrascope.cli import demo
from hydrascope.models import architectures
from hydrascope.models.architectures import Anatomy
from hydrascope.reports import kinds
from hydrascope.reports.figures.draw import Drawn
from hydrascope.utils import assets

torch.set_num_threads(1)


def test_help_and_version_answer_without_pytorch() -> None:
    code = "import sys; from hydrascope.cli.app import main; sys.argv[1:] = ['--help']\ntry: main()\n"
    code += "except SystemExit as end: print(end.code, 'torch' in sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert output.stdout.endswith("0 False\n")
    assert all(
        command in output.stdout
        for command in (
            "run",
            "figures",
            "summary",
            "compare",
            "export",
            "check",
            "demo",
            "motifs",
            "paths",
            "circuit",
            "map",
        )
    )


def test_a_bare_command_shows_the_help(hydrascope: Run) -> None:
    code, out, err = hydrascope()
    assert (code, err) == (0, "")
    assert "figures" in out
    assert hydrascope("--version") == (0, "0.2.0\n", "")


def test_a_dry_run_says_what_it_would_take_and_leaves_nothing(hydrascope: Run, folder: Path, tmp_path: Path) -> None:
    asked = ("--prompts", folder / "prompts.txt", "--patches", 2, "--out", tmp_path / "r.zarr", "--dry-run")
    for command in ("run", "mediate"):
        code, out, err = hydrascope(command, folder / "model", *asked)
        assert (code, err) == (0, "1 duplicate prompt left out\n")
        assert "would take about " in out
        assert not list(tmp_path.iterdir())
    assert hydrascope("rank", folder / "model", *asked)[::2] == (
        2,
        "hydrascope: rank has no --dry-run, since it makes several runs: use `hydrascope run --dry-run`\n",
    )
    code, _, err = hydrascope("run", folder / "model", *asked, "--ablate", "attn.99")
    assert (code, "attn.99" in err) == (2, True)


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
    assert (code, err) == (0, "1 duplicate prompt left out\n")
    assert "first prompt: t|h|e| |c|a|t\n" in out
    assert "7 ablations of 2 patches, 18 components read, 4 prompts, reference engine (asked for), float64" in out
    assert "4 prompts measured, total effects equal the sum of their terms within" in out
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
    probe = f"direction:{tmp_path / 'probe.npy'}"
    code, _, err = hydrascope(
        *("run", folder / "model", "--prompts", folder / "pairs.jsonl", "--out", tmp_path / "r.zarr", "--limit", 2),
        *("--ablation", "counterfactual", "--at", "subject"),
        *("--readout", f"difference,logit.answer,placebo.2,{probe},{probe}@1"),
    )
    assert (code, err) == (0, "")
    stored = open_results(tmp_path / "r.zarr")
    names = ["difference", "logit.answer", "placebo.0", "placebo.1", "probe", "probe@1"]
    assert list(stored["readout"].values) == names
    assert list(stored["readout_before"].values) == [-1, -1, -1, -1, -1, 1]
    prompts = load_prompts(folder / "pairs.jsonl").limit(2)
    expected = sweep(
        load_model(folder / "model"), prompts, Counterfactual(), at="subject", readouts=[LogitDifference()]
    )
    xr.testing.assert_allclose(stored["total"][:1], expected["total"], atol=1e-6)


def test_prompts_may_be_swapped(hydrascope: Run, folder: Path, tmp_path: Path) -> None:
    asked = ("--ablation", "counterfactual", "--at", "subject", "--readout", "difference", "--swapped")
    given = ("run", folder / "model", "--prompts", folder / "pairs.jsonl", "--out", tmp_path / "r.zarr")
    assert hydrascope(*given, "--limit", 2, *asked)[::2] == (0, "")
    prompts = load_prompts(folder / "pairs.jsonl").limit(2).swapped()
    expected = sweep(
        load_model(folder / "model"), prompts, Counterfactual(), at="subject", readouts=[LogitDifference()]
    )
    xr.testing.assert_allclose(open_results(tmp_path / "r.zarr")["total"], expected["total"], atol=1e-6)
    unpaired = ("--prompts", folder / "prompts.txt", "--out", tmp_path / "new.zarr")
    code, _, err = hydrascope("run", folder / "model", *unpaired, "--swapped")
    assert code == 2
    assert "has no counterfactual to exchange it with: give every prompt one" in err


def test_prompts_may_be_messages_in_the_chat_template(hydrascope: Run, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "model", tmp_path / "model")
    (tmp_path / "model" / "chat_template.jinja").write_text("{{ messages[0]['role'] }} {{ messages[0]['content'] }} b ")
    code, out, err = hydrascope(
        *("run", tmp_path / "model", "--prompts", folder / "pairs.jsonl", "--out", tmp_path / "r.zarr", "--limit", 2),
        *("--chat", "--ablation", "counterfactual", "--at", "subject", "--readout", "difference"),
    )
    assert (code, err) == (0, "")
    assert re.search(r"chat template of .*model applied \(sha256:\w{7}…\)\n", out)
    assert "first prompt: u|s|e|r| |a| |c|a|t| |a|n|d| | |b| \n" in out
    stored = open_results(tmp_path / "r.zarr")
    assert stored.attrs["chat_template"].startswith("sha256:")
    assert list(stored["text"].values) == ["user a cat and  b ", "user no  b "]
    assert list(stored["subject"].values) == ["cat", "no"]


def test_answers_as_targets(hydrascope: Run, folder: Path, tmp_path: Path) -> None:
    code, _, _ = hydrascope(
        *("run", folder / "model", "--prompts", folder / "facts.jsonl", "--out", tmp_path / "r.zarr"),
        *("--ablation", "mean", "--target", "answer"),
    )
    assert code == 0
    assert list(open_results(tmp_path / "r.zarr")["target_text"].values) == ["b", "w"]


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
    assert "With attn." in out
    assert "Findings" not in out
    code, out, err = hydrascope("summary", folder / "r.zarr", "--full")
    assert (code, err) == (0, "")
    assert "Findings" in out
    assert "attn.2" in out
    assert max(map(len, out.splitlines())) <= 80
    for name, start in (("csv", "ablated,kind,direct"), ("json", "{"), ("markdown", "With attn.")):
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

    def draw_all(results: xr.Dataset, folder: Path, *arguments: Any) -> Drawn:
        asked.append((results.sizes["prompt"], folder, *arguments))
        return Drawn(folder, (tmp_path / "figure1.png",), ())

    monkeypatch.setattr(kinds, "draw_all", draw_all)
    command, choice = ("figures", folder / "r.zarr", "--out", tmp_path), ("--readout", "logit", "--norm", "own")
    assert (
        hydrascope("figures", folder / "r.zarr", "--out", tmp_path, "--prompt", 1, "--ablated", "mlp.0", *choice)[0]
        == 0
    )
    assert hydrascope(*command) == (0, f"1 files and captions.md in {tmp_path}\n", "")
    assert asked == [(5, tmp_path, 1, "mlp.0", "logit", "own", None), (5, tmp_path, *[None] * 5)]
    assert hydrascope(*command, "--mediation", folder / "r.zarr")[0] == 0
    assert isinstance(asked[-1][-1], xr.Dataset)
    monkeypatch.setattr(motifs, "draw_all", lambda out: [out / "figure6.svg"])
    assert hydrascope("motifs", "--out", tmp_path) == (0, f"1 files in {tmp_path}\n", "")


@pytest.mark.parametrize("command", ["run", "mediate", "rank", "paths", "map", "explore", "check", "summary"])
def test_help_names_options_in_full(hydrascope: Run, command: str) -> None:
    _, shown, _ = hydrascope(command, "--help")
    assert max(map(len, shown.splitlines())) <= 80
    assert not re.search(r"--[\w-]*…", shown)
    if command == "run":
        choices = ("resample, zero, mean", "bfloat16", "`effects`", "reference")
        assert all(choice in " ".join(shown.replace("│", " ").split()) for choice in choices)


def test_check_shows_identity_by_identity(hydrascope: Run, folder: Path) -> None:
    code, out, err = hydrascope("check", folder / "model")
    assert (code, err) == (0, "")
    assert "total effects balance with their terms" in out
    assert all(line.startswith("holds  off by ") for line in out.splitlines())


def test_check_lists_what_holds_and_what_fails(
    hydrascope: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(architectures._ANATOMIES, "llama", Anatomy(norm_kind="layer"))
    code, out, err = hydrascope("check", folder / "model")
    assert code == 2
    assert "holds" in out
    assert any(line.startswith("FAILS") and "residual stream gives" in line for line in out.splitlines())
    assert err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.usefixtures("one_format")
def test_the_demo_of_a_real_model_tells_who_repairs(
    hydrascope: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With small models in its place: the same runs, pages and sentences."""
    (tmp_path / "many.txt").write_text("\n".join(f"{letter} cat" for letter in "abcdefghijklmnopqrst"))
    for name, value in {"MODEL": str(folder / "model"), "PROMPTS": "demo", "CONTROL": "built-in"}.items():
        monkeypatch.setattr(demo, name, value)
    for name in ("ZERO", "RESAMPLED"):
        monkeypatch.setattr(demo, name, 12)
    monkeypatch.setattr(assets, "model_path", lambda name: folder / "model" if name == "built-in" else None)
    monkeypatch.setattr(assets, "prompt_path", lambda name: tmp_path / "many.txt")
    code, out, err = hydrascope("demo", "--out", tmp_path / "demo")
    assert (code, err) == (0, "")
    assert "built-in (control): With " in " ".join(out.split())
    assert "Who restores what " in out
    for name in ("report.html", "figures/comparison.png"):
        assert (tmp_path / "demo" / name).exists()
    results = open_results(tmp_path / "demo" / "resample.zarr")
    assert (results.sizes["prompt"], results.sizes["patch"]) == (12, 3)


@pytest.mark.slow
def test_demo_runs_draws_and_tells(
    hydrascope: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "many.txt").write_text("\n".join(f"{letter} cat" for letter in "abcdefghijklmnopqrst"))
    monkeypatch.setattr(assets, "MODELS", ("built-in", "built-in-dropout"))
    monkeypatch.setattr(assets, "model_path", lambda name: folder / "model" if name in assets.MODELS else None)
    monkeypatch.setattr(assets, "prompt_path", lambda name: tmp_path / "many.txt")
    monkeypatch.setattr(kinds, "draw_all", lambda results, out, *choices: Drawn(out, (out,), ()))
    for again in ((), (), ("--overwrite",)):
        code, out, _ = hydrascope("demo", "--quick", "--out", tmp_path / "demo", "--limit", 18, *again)
        assert code == 0
        assert out.count("18 prompts measured") == 2
        assert f"1 files and captions.md in {tmp_path / 'demo' / 'figures'}" in out
        # A sentence a model, then the picture and where to look further.
        assert all(f"\n{name}: " in out for name in assets.MODELS)
        assert (tmp_path / "demo" / "figures" / "comparison.png").exists()
    for name in assets.MODELS:
        results = open_results(tmp_path / "demo" / f"{name}.zarr")
        assert (results.sizes["prompt"], results.attrs["ablation"]) == (18, "zero")
        assert list(map(str, results["readout"].values)) == ["logit", "placebo.0", "placebo.1"]
        assert (results.attrs["model"], results.attrs["prompts"]) == (name, "demo")
