"""What a result's files must be: a checksum of each and its place, so that nothing altered, moved or foreign is read.

Attributes are *sealed*: they hold a checksum over themselves and all else in their file. Every other file is in a
*listing*, sealed in turn: that of all that was known before anything was measured, in the attributes of the result's
subgroup `checksums`, and one of each measured block, in `checksums/<its first prompt>`, which says how it was measured,
too. A listing names the run and the block that it is of, so that it can't stand in for another. To zarr these are
groups like any other.
"""

import asyncio
import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore, WrapperStore

from hydrascope.utils.fsync import sync_names

ROOT = "zarr.json"
CHECKSUMS = "checksums"

#: The listing of what was known before anything was measured. It never changes, so a writer can lock it.
KNOWN_FILES = f"{CHECKSUMS}/{ROOT}"


class DamageError(ValueError):
    """A file is gone, or isn't what was written at its place."""


def add_checksum(document: Mapping[str, Any]) -> bytes:
    """A zarr.json whose attribute `checksum` is of everything in it."""
    attributes = {**document["attributes"], "checksum": _checksum(document)}
    return json.dumps({**document, "attributes": attributes}, indent=2).encode()


def parse_root(content: bytes) -> dict[str, Any]:
    """A zarr.json, whatever is in its attributes.

    Raises:
        DamageError: it isn't one.
    """
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DamageError("it is no JSON") from error
    if not isinstance(document, dict) or not isinstance(document.get("attributes"), dict):
        raise DamageError("it has no attributes")
    return document


def check_attributes(document: dict[str, Any]) -> dict[str, Any]:
    """The attributes of a zarr.json, without their checksum.

    Raises:
        DamageError: they, or something else in it, aren't what was sealed.
    """
    attributes = dict(document["attributes"])
    if attributes.pop("checksum", None) != _checksum(document):
        raise DamageError("its attributes are not what was written")
    return attributes


def _checksum(document: Mapping[str, Any]) -> str:
    attributes = {name: value for name, value in document["attributes"].items() if name != "checksum"}
    # Of what it says, however that is spelled.
    content = json.dumps({**document, "attributes": attributes}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(content.encode()).hexdigest()


def replace(folder: Path, name: str, content: bytes) -> None:
    """Write a file of a result so that whatever happens the old one or the new one is there, on the disk."""
    # Among the checksums, where zarr doesn't wonder at it.
    partial = folder / CHECKSUMS / f"zarr.{uuid.uuid4().hex}.partial"
    partial.parent.mkdir(exist_ok=True)
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        (folder / name).parent.mkdir(exist_ok=True)
        partial.replace(folder / name)
        sync_names(folder, [name])
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def read(folder: Path, name: str) -> bytes:
    """The content of one of the files.

    Raises:
        DamageError: it isn't there, or is no file.
    """
    # Who reads a FIFO waits for ever.
    if not (folder / name).is_file():
        raise DamageError(f"{name} is missing")
    return (folder / name).read_bytes()


def listing_of(start: int) -> str:
    """Where the listing of the block of prompts from `start` on is."""
    return f"{CHECKSUMS}/{start}/{ROOT}"


@dataclass(frozen=True)
class Listing:
    """What some files of a result are: the checksum of each, by its path, and how what is in them was measured."""

    files: Mapping[str, str]
    how: Mapping[str, Any]


def write_listing(folder: Path, name: str, run: str, files: Iterable[str], how: Mapping[str, Any]) -> None:
    """List `files`, as they are now, and see to it that all of it is on the disk."""
    checksums = {}
    for file in sorted(files):
        with (folder / file).open("rb") as opened:
            checksums[file] = hashlib.file_digest(opened, "sha256").hexdigest()
            os.fsync(opened.fileno())
    sync_names(folder, checksums)
    attributes = {"run": run, "of": name, "files": checksums, "how": how}
    replace(folder, name, add_checksum({"zarr_format": 3, "node_type": "group", "attributes": attributes}))


def read_listing(folder: Path, name: str, run: str) -> Listing:
    """What some files are, as it was written.

    Raises:
        DamageError: it is gone, was altered, or is of another block or run.
    """
    content = read(folder, name)
    try:
        attributes = check_attributes(parse_root(content))
    except DamageError as error:
        raise DamageError(f"{name} is not what was written") from error
    if (attributes.get("run"), attributes.get("of")) != (run, name):
        raise DamageError(f"{name} is of another run or block")
    return Listing(attributes["files"], attributes["how"])


def verify_files(folder: Path, files: Mapping[str, str]) -> None:
    """Read all of `files`.

    Raises:
        DamageError: one isn't what its checksum says.
    """
    for name, checksum in files.items():
        _require(name, read(folder, name), checksum)


def _require(name: str, content: bytes | memoryview, checksum: str) -> None:
    if hashlib.sha256(content).hexdigest() != checksum:
        raise DamageError(f"{name} is not what was written")


class CheckedStore(WrapperStore[LocalStore]):
    """A result's files for zarr to read: those that are listed, and only if they are what they were."""

    def __init__(self, store: LocalStore, files: Mapping[str, str]) -> None:
        super().__init__(store)
        self.files = files

    def _with_store(self, store: LocalStore) -> "CheckedStore":
        return CheckedStore(store, self.files)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        if key not in self.files:
            return None
        # Only shards are read in parts.
        assert byte_range is None
        # Who reads a device never ends.
        is_file = await asyncio.to_thread((self._store.root / key).is_file)
        content = await self._store.get(key, prototype) if is_file else None
        if content is None:
            raise DamageError(f"{key} is missing")
        await asyncio.to_thread(_require, key, content.to_bytes(), self.files[key])
        return content
