"""Prefixes come back from memory or a file as they were, or not at all."""

import errno
import gc
import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny

from hydrascope.engines.clean.prefix import SharedPrefix, compute_prefix
from hydrascope.engines.clean.prefix_store import PrefixStore
from hydrascope.engines.interface import sites_read
from hydrascope.engines.kernels.patching import fastest_routines

torch.set_num_threads(1)

PROMPTS = st.lists(st.lists(st.integers(1, 20), min_size=2, max_size=6), min_size=1, max_size=4)


def made(
    architecture: str = "gpt2", prompts: Any = ((1, 2, 3), (4, 5)), back: int = 1, dtype: torch.dtype = torch.float32
) -> SharedPrefix:
    """Of clean runs of `prompts`, of which the last `back` positions change."""
    model = tiny(architecture, dtype)
    positions = torch.tensor([[len(each) - back] for each in prompts])
    with torch.no_grad():
        return compute_prefix(
            model, [list(each) for each in prompts], positions, sites_read(model, (), ()), fastest_routines(model)
        )


def looks(one: SharedPrefix) -> list[tuple[Any, ...]]:
    """All that another must have to give the same bits: numbers, and how they lie in memory, which products see."""
    prefix = one.prefix
    each = [(each.dtype, each.shape, each.stride(), each.tolist()) for each in one.tensors]
    return [*each, (list(prefix.keys), prefix.start.tolist(), prefix.length, prefix.before), *one.clean.values]


@settings(max_examples=12, deadline=None)
@given(
    st.lists(PROMPTS, min_size=1, max_size=3),
    st.sampled_from(["gpt2", "llama", "gemma2"]),
    st.integers(1, 2),
    st.sampled_from([torch.float32, torch.bfloat16, torch.float64]),
)
def test_it_comes_back_as_it_was_in_any_order(batches: Any, architecture: str, back: int, dtype: torch.dtype) -> None:
    store = PrefixStore(folder=Path(tempfile.gettempdir()))
    each = [made(architecture, prompts, back, dtype) for prompts in batches]
    before = [looks(one) for one in each]
    for number, one in enumerate(each):
        store.put([number], one, math.inf)
    for number, expected in reversed(list(enumerate(before))):
        for give in (store.read, store.take):
            found = give([number])
            assert found is not None
            assert looks(found) == expected


def test_nothing_is_seen_of_the_file_and_it_goes_with_the_store(tmp_path: Path) -> None:
    def opened() -> list[str]:
        links = [Path("/proc/self/fd", number) for number in os.listdir("/proc/self/fd")]
        return [os.readlink(link) for link in links if link.is_symlink() and str(tmp_path) in os.readlink(link)]

    for end in ("drop all", "delete"):
        store = PrefixStore(folder=tmp_path)
        store.put([0], made(), math.inf)
        assert not list(tmp_path.iterdir())
        assert len(opened()) == 1
        assert store.take([0]) is not None
        if end == "drop all":
            store.drop_all()
        else:
            del store
        gc.collect()
        assert not opened()


def test_only_half_of_what_is_free_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = made()
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=5 * one.nbytes))
    store = PrefixStore(folder=tmp_path)
    for number in range(4):
        store.put([number], one, math.inf)
    assert list(store.prompts) == [(0,), (1,)]


def test_what_takes_longer_to_write_than_to_compute_is_not_kept_for_long(tmp_path: Path) -> None:
    store = PrefixStore(folder=tmp_path)
    for number, seconds in enumerate((100.0, -1000.0, 2000.0)):
        store.put([number], made(), seconds)
    assert list(store.prompts) == [(0,), (1,)]  # the second is there already, and serves


@pytest.mark.parametrize("fails", ["open", "write", "flush", "seek", "read", "read less"])
def test_a_disk_that_refuses_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str) -> None:
    class Refusing:
        def __init__(self, *given: Any, **how: Any) -> None:
            if fails == "open":
                raise OSError(errno.EACCES, "refused")
            self.file, self.seeks = open_file(*given, **how), 0

        def write(self, what: Any) -> int:
            return self._unless("write", lambda: self.file.write(what))

        def flush(self) -> None:
            self._unless("flush", self.file.flush)

        def seek(self, *where: int) -> int:
            self.seeks += 1
            return self._unless("seek" if self.seeks > 1 else "", lambda: self.file.seek(*where))

        def readinto(self, what: Any) -> int:
            return self._unless("read", lambda: self.file.readinto(what)) - (fails == "read less")

        def close(self) -> None:
            self.file.close()

        def _unless(self, name: str, act: Any) -> Any:
            if name == fails:
                raise OSError(errno.ENOSPC, "refused")
            return act()

    open_file = tempfile.TemporaryFile
    monkeypatch.setattr(tempfile, "TemporaryFile", Refusing)
    store = PrefixStore(folder=tmp_path)
    store.put([0], made(), math.inf)
    if fails in ("open", "write", "flush"):
        store.put([1], made(), math.inf)
        assert not store.prompts
    else:
        assert list(store.prompts) == [(0,)]
    assert store.take([0]) is None


def test_memory_keeps_what_fits_and_gives_it_once() -> None:
    one, other = made(), made()
    store = PrefixStore(1.5 * one.nbytes)
    store.put([3, 1], one, 0.0)
    store.put([2], other, 0.0)
    assert list(store.prompts) == [(3, 1)]
    assert store.read((3, 1)) is store.take((3, 1)) is one
    assert store.take((3, 1)) is None


def test_what_memory_does_not_hold_goes_to_the_file(tmp_path: Path) -> None:
    each = [made() for _ in range(3)]
    store = PrefixStore(1.5 * each[0].nbytes, tmp_path)
    for number, one in enumerate(each):
        store.put([number], one, math.inf)
    found = [store.take([number]) for number in range(3)]
    assert [one is again for one, again in zip(each, found, strict=True)] == [True, False, False]
    assert all(again is not None and looks(again) == looks(one) for one, again in zip(each, found, strict=True))


def test_by_default_and_once_all_are_dropped_nothing_is_kept(tmp_path: Path) -> None:
    full = PrefixStore(math.inf, tmp_path)
    full.put([0], made(), math.inf)
    full.drop_all()
    for store in (full, PrefixStore()):
        store.put([0], made(), math.inf)
        assert not store.prompts
        assert store.take([0]) is None
