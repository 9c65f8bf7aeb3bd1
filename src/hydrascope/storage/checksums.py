"""Checksums of a result's files, so that no altered, moved or foreign file is read.

A zarr.json holds a checksum over its content in its attributes. All other files are in *listings*, which are attributes
of subgroups with a checksum themselves. The listing in `checksums` covers the files that were written before anything
was measured. The listing in `checksums/<first prompt>` covers a measured chunk, and records how it was measured. A
listing names its run and its path, so that it can't replace another. To zarr these are ordinary groups.
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

#: The listing of the files that were written before anything was measured. It never changes, so a writer can lock it.
KNOWN_FILES = f"{CHECKSUMS}/{ROOT}"


class DamageError(ValueError):
    """An error for a file that is missing, or isn't what was written there."""


def add_checksum(document: Mapping[str, Any]) -> bytes:
    """Return the bytes of a zarr.json with an attribute `checksum` over its content."""
    attributes = {**document["attributes"], "checksum": _checksum(document)}
    return json.dumps({**document, "attributes": attributes}, indent=2).encode()


def parse_root(content: bytes) -> dict[str, Any]:
    """Return the document in a zarr.json; its attributes aren't checked.

    Raises:
        DamageError: it is no JSON, or has no attributes.
    """
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DamageError("it is no JSON") from error
    if not isinstance(document, dict) or not isinstance(document.get("attributes"), dict):
        raise DamageError("it has no attributes")
    return document


def check_attributes(document: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes of a zarr.json without their checksum.

    Raises:
        DamageError: the content doesn't have the checksum.
    """
    attributes = dict(document["attributes"])
    if attributes.pop("checksum", None) != _checksum(document):
        raise DamageError("its attributes are not what was written")
    return attributes


def _checksum(document: Mapping[str, Any]) -> str:
    attributes = {name: value for name, value in document["attributes"].items() if name != "checksum"}
    # Over a canonical form, so that spaces and the order of keys don't matter.
    content = json.dumps({**document, "attributes": attributes}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(content.encode()).hexdigest()


def replace(folder: Path, name: str, content: bytes) -> None:
    """Replace a file of a result atomically: a crash leaves the old or the new one."""
    # In the folder of checksums, where zarr ignores the partial file.
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
    """Return the content of a file of a result.

    Raises:
        DamageError: it is missing, or no regular file.
    """
    # Reading a FIFO would wait for ever.
    if not (folder / name).is_file():
        raise DamageError(f"{name} is missing")
    return (folder / name).read_bytes()


def listing_of(start: int) -> str:
    """Return the path of the listing of the chunk that begins with prompt `start`."""
    return f"{CHECKSUMS}/{start}/{ROOT}"


@dataclass(frozen=True)
class Listing:
    """The files of a chunk, and how it was measured.

    Attributes:
        files: the checksum of each file, by its path in the result.
        how: attributes that describe the measurement of the chunk.
    """

    files: Mapping[str, str]
    how: Mapping[str, Any]


def write_listing(folder: Path, name: str, run: str, files: Iterable[str], how: Mapping[str, Any]) -> None:
    """Write the listing of `files` as they are now; flush them and the listing to the disk."""
    checksums = {}
    for file in sorted(files):
        with (folder / file).open("rb") as opened:
            checksums[file] = hashlib.file_digest(opened, "sha256").hexdigest()
            os.fsync(opened.fileno())
    sync_names(folder, checksums)
    attributes = {"run": run, "of": name, "files": checksums, "how": how}
    replace(folder, name, add_checksum({"zarr_format": 3, "node_type": "group", "attributes": attributes}))


def read_listing(folder: Path, name: str, run: str) -> Listing:
    """Read a listing.

    Raises:
        DamageError: it is missing, was altered, or belongs to another chunk or run.
    """
    content = read(folder, name)
    try:
        attributes = check_attributes(parse_root(content))
    except DamageError as error:
        raise DamageError(f"{name} is not what was written") from error
    if (attributes.get("run"), attributes.get("of")) != (run, name):
        raise DamageError(f"{name} belongs to another run or chunk")
    return Listing(attributes["files"], attributes["how"])


def verify_files(folder: Path, files: Mapping[str, str]) -> None:
    """Compare all `files` with their checksums.

    Raises:
        DamageError: a file is missing or has another checksum.
    """
    for name, checksum in files.items():
        _require(name, read(folder, name), checksum)


def _require(name: str, content: bytes | memoryview, checksum: str) -> None:
    if hashlib.sha256(content).hexdigest() != checksum:
        raise DamageError(f"{name} is not what was written")


class CheckedStore(WrapperStore[LocalStore]):
    """A zarr store that reads only the listed files of a result, and checks each of them.

    Attributes:
        files: the checksum of each file, by its path in the result.
    """

    def __init__(self, store: LocalStore, files: Mapping[str, str]) -> None:
        super().__init__(store)
        self.files = files

    def _with_store(self, store: LocalStore) -> "CheckedStore":
        return CheckedStore(store, self.files)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        if key not in self.files:
            return None
        # Only shards are read in parts, and results have none.
        assert byte_range is None
        # Reading a device would never end.
        is_file = await asyncio.to_thread((self._store.root / key).is_file)
        content = await self._store.get(key, prototype) if is_file else None
        if content is None:
            raise DamageError(f"{key} is missing")
        await asyncio.to_thread(_require, key, content.to_bytes(), self.files[key])
        return content
