"""Keep the prefixes of batches until they are measured, in memory or in a file."""

import shutil
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydrascope.engines.clean.prefix import SharedPrefix
from hydrascope.engines.clean.spill_store import SpillFile

#: How many bytes of prefixes a file takes at most.
FILE_BYTES = 16 * 2**30


@dataclass(frozen=True)
class _Kept:
    """A prefix in memory; or the shapes of one in the file, which begins there at `start`."""

    prefix: SharedPrefix
    start: int | None = None


class PrefixStore:
    """Keep prefixes by the prompts of their batch, as far as there is room.

    A prefix goes to memory first, then to a nameless file. The file takes at most `FILE_BYTES` and half of the disk's
    free space, and only as long as writing has taken less time in all than computing the prefixes again would. A
    prefix that is not kept, or can't be read, is computed again to the same bits: none of that is an error.

    >>> store = PrefixStore(memory_bytes=2**29, folder=Path("."))    # doctest: +SKIP
    >>> store.put([4, 0, 2], prefix, seconds=0.3)                    # doctest: +SKIP
    >>> store.take([4, 0, 2])                                        # doctest: +SKIP
    """

    def __init__(self, memory_bytes: float = 0, folder: Path | None = None) -> None:
        """Keep `memory_bytes` in memory, and more in a file of `folder`; by default nothing."""
        self._memory_room = memory_bytes
        self._file, self._file_room = (None, 0) if folder is None else _open(folder)
        #: By how many seconds computing the prefixes in the file has taken longer than writing them.
        self._seconds_saved = 0.0
        self._kept: dict[tuple[int, ...], _Kept] = {}

    @property
    def prompts(self) -> Collection[tuple[int, ...]]:
        """The batches whose prefixes are kept, each by the indices of its prompts."""
        return self._kept.keys()

    def put(self, prompts: Sequence[int], prefix: SharedPrefix, seconds: float) -> None:
        """Keep the prefix of a batch, which took `seconds` to compute, if there is room."""
        if prefix.nbytes <= self._memory_room:
            self._memory_room -= prefix.nbytes
            self._kept[tuple(prompts)] = _Kept(prefix)
        elif self._file and prefix.nbytes <= self._file_room:
            self._write(self._file, tuple(prompts), prefix, seconds)

    def _write(self, file: SpillFile, prompts: tuple[int, ...], prefix: SharedPrefix, seconds: float) -> None:
        began = time.perf_counter()
        try:
            start = file.append(prefix.tensors)
        except OSError:
            self._file_room = 0
            return
        self._kept[prompts] = _Kept(prefix.with_tensors([each.to("meta") for each in prefix.tensors]), start)
        self._seconds_saved += seconds - (time.perf_counter() - began)
        self._file_room = self._file_room - prefix.nbytes if self._seconds_saved > 0 else 0

    def read(self, prompts: Sequence[int]) -> SharedPrefix | None:
        """Return the prefix of a batch and keep it; None if it is not kept or can't be read."""
        return self._load(self._kept.get(tuple(prompts)))

    def take(self, prompts: Sequence[int]) -> SharedPrefix | None:
        """Return the prefix of a batch and forget it; None if it is not kept or can't be read."""
        return self._load(self._kept.pop(tuple(prompts), None))

    def _load(self, kept: _Kept | None) -> SharedPrefix | None:
        if kept is None:
            return None
        if kept.start is None:
            return kept.prefix
        assert self._file
        try:
            return kept.prefix.with_tensors(self._file.read(kept.start, kept.prefix.tensors))
        except OSError:
            return None

    def drop_all(self) -> None:
        """Drop all prefixes, and keep none from now on."""
        self._memory_room = self._file_room = 0
        self._file = None
        self._kept.clear()


def _open(folder: Path) -> tuple[SpillFile | None, int]:
    """Open a file and count the bytes that it may take; None and 0 if the disk refuses."""
    try:
        return SpillFile(folder), min(FILE_BYTES, shutil.disk_usage(folder).free // 2)
    except OSError:
        return None, 0
