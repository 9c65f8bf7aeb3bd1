"""Random damages of a result: each is refused with one clear line, or harmless; and resuming mends it or refuses."""

import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import xarray as xr
from stored import create_for, known, measured, write

from hydrascope.storage import writer as writing
from hydrascope.storage.reader import open_results
from hydrascope.utils.errors import HydrascopeError

#: The content of a result's files, by their paths in it.
Files = dict[str, bytes]

# Few variables, that thousands of damages take minutes: one is read as the other.
_MEASURED = measured(7, 2, "float32")[["unembed", "total", "imbalance", "patch_prompt"]]


def flip(files: Files, name: str, random: random.Random) -> None:
    content = bytearray(files[name])
    content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    files[name] = bytes(content)


def truncate(files: Files, name: str, random: random.Random) -> None:
    files[name] = files[name][: random.randrange(len(files[name]))]


def zero(files: Files, name: str, random: random.Random) -> None:
    start = random.randrange(len(files[name]))
    length = min(random.randint(1, 64), len(files[name]) - start)
    files[name] = files[name][:start] + bytes(length) + files[name][start + length :]


def delete(files: Files, name: str, random: random.Random) -> None:
    del files[name]


def swap(files: Files, name: str, random: random.Random) -> None:
    other = random.choice(_alike(files, name))
    files[name], files[other] = files[other], files[name]


def duplicate(files: Files, name: str, random: random.Random) -> None:
    files[name] = files[random.choice(_alike(files, name))]


def foreign(files: Files, name: str, random: random.Random) -> None:
    files[f"{name}.{random.randrange(10)}"] = random.randbytes(9)


def edit(files: Files, name: str, random: random.Random) -> None:
    """Another value for something in a zarr.json, however deep."""
    name = random.choice([name for name in files if name.endswith("zarr.json")])
    document = node = json.loads(files[name])
    while True:
        key = random.choice(list(node) if isinstance(node, dict) else range(len(node)))
        if not isinstance(node[key], dict | list) or not node[key] or random.random() < 0.1:
            break
        node = node[key]
    # Like over like would alter nothing but the file's spaces.
    node[key] = random.choice([value for value in _VALUES if repr(value) != repr(node[key])])
    files[name] = json.dumps(document).encode()


_VALUES = (-5, 0, 3, 1e308, "", "x", None, True, [], {})

KINDS: tuple[Callable[[Files, str, random.Random], None], ...] = (
    *(flip, truncate, zero, delete, swap, duplicate, foreign, edit),
)


def _alike(files: Files, name: str) -> list[str]:
    """Files that could most easily be taken for `name`: others of its variable, where there are any."""
    variable = name.split("/")[0]
    return [other for other in files if other != name and other.split("/")[0] == variable] or list(files)


def damages(folder: Path, count: int, seed: int = 0) -> Counter[tuple[str, str, str]]:
    """How often each kind of damage was found or harmless, and then mended or refused, or worse: see `BAD`."""
    path, drawn, found = folder / "r.zarr", random.Random(seed), Counter[tuple[str, str, str]]()
    with create_for(path, _MEASURED, known(7)) as writer:
        write(writer, _MEASURED)
    whole, files = open_results(path).load(), read(path)
    xr.testing.assert_equal(whole.drop_vars(whole.coords)[list(_MEASURED)], _MEASURED)
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        damaged = dict(files)
        kind(damaged, drawn.choice(list(files)), drawn)
        laid(path, files, damaged)
        found[kind.__name__, _opened(path, whole), _resumed(path, files)] += 1
        laid(path, read(path), files)
    return found


#: What must never happen.
BAD = ("silent", "traceback", "lines")


def _opened(path: Path, whole: xr.Dataset) -> str:
    try:
        read = open_results(path).load()
    except Exception as error:
        return _refused(error)
    return "harmless" if read.identical(whole) else "silent"


def _resumed(path: Path, files: Files) -> str:
    try:
        with writing.resume(path) as writer:
            write(writer, _MEASURED)
    except Exception as error:
        return _refused(error)
    return "mended" if files.items() <= read(path).items() else "silent"


def _refused(error: Exception) -> str:
    if not isinstance(error, HydrascopeError):
        return "traceback"
    return "lines" if "\n" in str(error) or "r.zarr" not in str(error) else "refused"


def read(path: Path) -> Files:
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def laid(path: Path, before: Files, after: Files) -> None:
    for name in before.keys() - after.keys():
        (path / name).unlink()
    for name, content in after.items():
        if before.get(name) != content:
            (path / name).write_bytes(content)
