"""Whatever a user gives ends in success or in one clear line, exit code 2, at once."""

import gzip
import json
import os
import re
import shutil
import sys
import time
import unicodedata
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import save_tiny

from hydrascope.cli import app
from hydrascope.loading.load import load_model
from hydrascope.prompts.load import load_prompts
from hydrascope.utils.errors import HydrascopeError

torch.set_num_threads(1)

Told = Callable[..., str]
HUGE = "1" + 20 * "0"
DIGITS = 5000 * "9"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    save_tiny(folder / "model")
    (folder / "prompts.txt").write_text("the cat\nno\nHello, world\nabc\n")
    (folder / "unknown.jsonl").write_text(
        '{"prompt": "ab ", "answer": "c", "foil": "d"}\n{"prompt": "no ", "answer": "7", "foil": "x"}\n'
    )
    os.mkfifo(folder / "pipe.txt")
    os.mkfifo(folder / "pipe.npy")
    (folder / "device.txt").symlink_to("/dev/zero")
    (folder / "folder.txt").mkdir()
    (folder / "hostile\x1b[2J\u202e\x9b.txt").write_text("")
    np.save(folder / "two.npy", np.zeros((2, 2, 2)))
    return folder


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Told:
    """What a command line that must fail says, after `hydrascope: `."""

    def run(*arguments: Any) -> str:
        monkeypatch.setattr(sys, "argv", ["hydrascope", *map(str, arguments)])
        start = time.process_time()
        with pytest.raises(SystemExit) as end:
            app.main()
        assert time.process_time() - start < 5
        _, err = capsys.readouterr()
        assert end.value.code == 2, err
        assert err.count("\n") == 1
        assert err.startswith("hydrascope: ")
        return err.removeprefix("hydrascope: ").rstrip("\n")

    return run


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (f"--batch-size {DIGITS}", "invalid --batch-size"),
        ("--ablation noise --patches 100000000", "100,000,000 patches of one override need about"),
        ("--ablation noise --patches 2 --noise-scale 1e-300", "noise of scale 1e-300 is lost in the rounding"),
        ("--ablation noise --patches 2 --noise-scale inf", "inf is no scale of noise"),
        (f"--target {HUGE}", "--target"),
        (f"--target {DIGITS}", "--target"),
        (f"--at {HUGE}", "has no position"),
        (f"--at {DIGITS}", "is no position"),
        (f"--ablate head.{HUGE}.0", "no component of a model"),
        (f"--ablate heads.{DIGITS}", "no component of a model"),
        ("--ablate attn.999999999999999999", "its blocks are 0 to 2"),
        (f"--readout placebo.{HUGE}", "--readout placebo"),
        ("--readout placebo.999999999999999", "999999999999999 placebo tokens: ask for 1 to 58"),
        (f"--readout logit.{DIGITS}", "--readout logit"),
        ("--readout direction:{folder}/pipe.npy", "pipe.npy: it is a pipe or a device"),
        ("--readout direction:~nobody-here/x.npy", "No such file"),
        ("--readout direction:{folder}/two.npy", "has the shape"),
        ("--device xpu", "the device 'xpu' cannot be used"),
        ("--device meta", "the device 'meta' cannot be used"),
        ("--device cuda:99", "the device 'cuda:99' cannot be used"),
        ("--device privateuseone", "the device 'privateuseone' cannot be used"),
        ("--device vulkan", "the device 'vulkan' cannot be used"),
        ("--prompts {folder}/pipe.txt", "it is a pipe or a device; give a file"),
        ("--prompts {folder}/device.txt", "it is a pipe or a device; give a file"),
        ("--prompts {folder}/folder.txt", "Is a directory"),
        (f"--prompts {300 * 'n'}", "no prompt set is called"),
        (f"--prompts {300 * 'n'}.txt", "File name too long"),
        ("--prompts {folder}/unknown.jsonl --readout difference", 'the answer "7" of prompt 2 .* is unknown to the'),
        (f"--metric {300 * 'm'}", "unknown metric"),
    ],
)
def test_options(told: Told, folder: Path, tmp_path: Path, options: str, message: str) -> None:
    given_ = options.format(folder=folder).split()
    prompts = () if "--prompts" in given_ else ("--prompts", folder / "prompts.txt")
    ablation = () if "--ablation" in given_ else ("--ablation", "zero")
    line = told("run", folder / "model", *prompts, *ablation, *given_, "--out", tmp_path / "r.zarr")
    assert re.search(message, line), line[:400]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [300 * "n", "./" + 300 * "n", "~nobody-here/model", "\ud800model", "a\x1b[31mb"])
def test_names_of_models(told: Told, name: str) -> None:
    line = told("check", name)
    assert line.isprintable()


def changed(folder: Path, place: Path, **values: Any) -> Path:
    """The model in `folder`, its configuration changed, at `place`."""
    shutil.copytree(folder, place)
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps({**config, **values}))
    return place


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0: give a number from 1 on"),
        ({"num_hidden_layers": -1}, "num_hidden_layers is -1: give a number from 1 on"),
        ({"num_hidden_layers": 10**6}, "num_hidden_layers is 1000000, its weights are 30 tensors"),
        ({"num_hidden_layers": "3"}, "expected int, got str"),
        ({"num_hidden_layers": 4}, "incomplete: model.layers.3"),
        ({"num_hidden_layers": 2}, "leaves out 9 of its weights: model.layers.2.input_layernorm.weight"),
        ({"max_position_embeddings": -1}, "max_position_embeddings is -1"),
        ({"max_position_embeddings": True}, "expected int, got bool"),
        ({"max_position_embeddings": "64"}, "expected int, got str"),
        ({"vocab_size": 10**13}, "vocab_size is 10000000000000, its weights are 27,168 numbers"),
        ({"vocab_size": 30}, "incomplete: lm_head.weight is [61, 32], not [30, 32]"),
        ({"hidden_size": 20_000}, "are more than the 27,168 numbers of its weights"),
        ({"intermediate_size": 10**12}, "intermediate_size is 1000000000000"),
        ({"hidden_act": "nonsense"}, "it asks for 'nonsense', which is not known"),
        ({"model_type": None}, "cannot load the model"),
    ],
)
def test_configurations(told: Told, folder: Path, tmp_path: Path, values: dict, message: str) -> None:
    assert message in told("check", changed(folder / "model", tmp_path / "model", **values))


def test_weights_may_be_left_out_on_request(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    short = changed(folder / "model", tmp_path / "model", num_hidden_layers=2)
    monkeypatch.setattr(sys, "argv", ["hydrascope", "check", str(short), "--allow-unused-weights"])
    with pytest.raises(SystemExit) as end:
        app.main()
    assert not end.value.code
    assert "FAILS" not in capsys.readouterr().out


@pytest.mark.parametrize("forbidden", ["model", "."])
def test_a_folder_that_may_not_be_entered(
    told: Told, folder: Path, monkeypatch: pytest.MonkeyPatch, forbidden: str
) -> None:
    """The model's own, and one above it."""

    def denied(path: Any, *arguments: Any, **options: Any) -> Any:
        if str(path).startswith(str(folder / "model")):
            raise PermissionError(13, "Permission denied")
        return listed(path)

    listed = os.listdir if forbidden == "model" else os.stat
    monkeypatch.setattr(os, listed.__name__, denied)
    assert "Permission denied" in told("check", folder / "model")


def test_a_file_of_a_model_that_is_a_pipe(told: Told, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "model", tmp_path / "model")
    (tmp_path / "model/config.json").unlink()
    os.mkfifo(tmp_path / "model/config.json")
    assert "config.json: it is a pipe or a device; give a file" in told("check", tmp_path / "model")


def test_weights_that_are_a_link_to_themselves(told: Told, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "model", tmp_path / "model")
    weights = tmp_path / "model/model.safetensors"
    weights.unlink()
    weights.symlink_to(weights)
    assert "model.safetensors: Too many levels of symbolic links" in told("check", tmp_path / "model")


def test_what_may_not_be_read_is_not_called_missing(
    told: Told, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tests may run as root, who may read everything."""
    opened = Path.open

    def refused(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.suffix in (".safetensors", ".txt"):
            raise PermissionError(13, "Permission denied")
        return opened(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", refused)
    assert "model.safetensors: Permission denied" in told("check", folder / "model")
    command = ("run", folder / "model", "--prompts", folder / "prompts.txt", "--out", tmp_path / "r.zarr")
    assert "cannot read prompts from" in (line := told(*command))
    assert line.endswith("prompts.txt: Permission denied")


def test_nothing_that_steers_a_terminal_reaches_it(told: Told, folder: Path, tmp_path: Path) -> None:
    """Of paths, of names, of prompts."""
    out = tmp_path / "r\x1b]0;title\x07.zarr"
    line = told("run", folder / "model", "--prompts", folder / "hostile\x1b[2J\u202e\x9b.txt", "--out", out)
    assert r"hostile\x1b[2J\u202e\x9b.txt is empty" in line
    (tmp_path / "p.jsonl").write_text(json.dumps({"prompt": "ab\u009b31m \u202ecd", "answer": "\x1bc"}))
    line = told("run", folder / "model", "--prompts", tmp_path / "p.jsonl", "--out", out, "--target", "answer")
    assert line.isprintable()
    assert r"\x9b31m \u202ecd" in line


def test_what_a_result_says_of_itself_is_shown_harmless(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = shutil.copytree(folder / "model", tmp_path / "m\x1b[2J")
    out = tmp_path / "r\u202e.zarr"
    run = [
        "run",
        str(model),
        "--prompts",
        str(folder / "prompts.txt"),
        "--ablation",
        "zero",
        "--ablate",
        "mlp.1",
        "--out",
        str(out),
    ]
    for arguments in (run, ["summary", str(out)]):
        monkeypatch.setattr(sys, "argv", ["hydrascope", *arguments])
        with pytest.raises(SystemExit) as end:
            app.main()
        assert not end.value.code
        assert all(char.isprintable() or char == "\n" for char in "".join(capsys.readouterr()))


odd = st.one_of(
    st.integers(-(10**20), 10**20), st.integers(-2, 70), st.booleans(), st.none(), st.text(max_size=5), st.floats()
)
KEYS = (
    *("num_hidden_layers", "hidden_size", "vocab_size", "num_attention_heads", "num_key_value_heads", "head_dim"),
    *("intermediate_size", "max_position_embeddings", "rms_norm_eps", "hidden_act", "attention_bias", "model_type"),
    *("rope_parameters", "tie_word_embeddings", "pad_token_id", "architectures", "dtype", "layer_types"),
)


@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(values=st.dictionaries(st.sampled_from(KEYS), odd, min_size=1, max_size=2))
def test_any_configuration_loads_or_is_one_clear_line(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, values: dict
) -> None:
    place = changed(folder / "model", tmp_path_factory.mktemp("any") / "model", **values)
    with suppress(HydrascopeError):  # whose message is one line, whatever it quotes
        load_model(place)
    shutil.rmtree(place)


lines = st.one_of(
    st.text(),
    st.dictionaries(
        st.sampled_from(["prompt", "answer", "foil", "subject", "counterfactual", "tokens"]), st.text() | odd
    ).map(json.dumps),
    st.sampled_from(["prompt,answer,tokens", "tokens,counterfactual", "a,b,c", "0 1 2,[3]"]),
    st.recursive(odd, lambda each: st.lists(each) | st.dictionaries(st.text(), each)).map(json.dumps),
)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.one_of(st.binary(), st.lists(lines).map("\n".join).map(lambda text: text.encode("utf-8", "ignore"))),
    suffix=st.sampled_from([".txt", ".json", ".jsonl", ".csv", ".csv.gz", ".parquet"]),
)
def test_any_file_of_prompts_is_read_or_is_one_clear_line(tmp_path: Path, content: bytes, suffix: str) -> None:
    file = tmp_path / f"p{suffix}"
    file.write_bytes(gzip.compress(content) if suffix == ".csv.gz" else content)
    with suppress(HydrascopeError):
        assert load_prompts(file).prompts


@given(st.text())
def test_an_error_is_one_line_that_a_terminal_can_show(message: str) -> None:
    shown = str(HydrascopeError(message))
    assert not any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in shown)
    assert not set(shown) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
    assert len(shown.splitlines()) <= 1
