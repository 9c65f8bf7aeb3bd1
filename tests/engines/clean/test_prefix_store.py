"""What batches share of their clean runs comes back from a file as it was, or not at all."""

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
from hydrascope.engines.clean.prefix_store import in_either, in_file, in_memory
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
            model, [list(each) for each in prompts], positions, sites_read(model, ()), fastest_routines(model)
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
    keep = in_file(Path(tempfile.gettempdir()))
    each = [made(architecture, prompts, back, dtype) for prompts in batches]
    before = [looks(one) for one in each]
    backs = [keep(one, math.inf) for one in each]
    for one, expected in reversed(list(zip(backs, before, strict=True))):
        assert one is not None
        found = one()
        assert found is not None
        assert looks(found) == expected


def test_nothing_is_seen_of_the_file_and_it_goes_with_what_is_kept(tmp_path: Path) -> None:
    def opened() -> list[str]:
        links = [Path("/proc/self/fd", number) for number in os.listdir("/proc/self/fd")]
        return [os.readlink(link) for link in links if link.is_symlink() and str(tmp_path) in os.readlink(link)]

    keep = in_file(tmp_path)
    back = keep(made(), math.inf)
    assert not list(tmp_path.iterdir())
    assert len(opened()) == 1
    del keep
    gc.collect()
    assert back is not None
    assert back() is not None
    del back
    gc.collect()
    assert not opened()


def test_only_half_of_what_is_free_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = made()
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=5 * one.nbytes))
    keep = in_file(tmp_path)
    assert [keep(made(), math.inf) is not None for _ in range(4)] == [True, True, False, False]


def test_what_takes_longer_to_write_than_to_compute_is_not_kept_for_long(tmp_path: Path) -> None:
    keep = in_file(tmp_path)
    assert keep(made(), 100.0) is not None
    assert keep(made(), -1000.0) is not None  # is there already, and serves
    assert keep(made(), 2000.0) is None


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
    keep = in_file(tmp_path)
    back = keep(made(), math.inf)
    if fails in ("open", "write", "flush"):
        assert back is None
        assert keep(made(), math.inf) is None
    else:
        assert back is not None
        assert back() is None


def test_in_memory_is_kept_what_fits() -> None:
    one, other = made(), made()
    keep = in_memory(1.5 * one.nbytes)
    back = keep(one, 0.0)
    assert keep(other, 0.0) is None
    assert back is not None
    assert back() is one


def test_what_memory_does_not_hold_goes_to_the_file(tmp_path: Path) -> None:
    each = [made() for _ in range(3)]
    keep = in_either(in_memory(1.5 * each[0].nbytes), in_file(tmp_path))
    backs = [keep(one, math.inf) for one in each]
    found = [back() for back in backs if back]
    assert [one is again for one, again in zip(each, found, strict=True)] == [True, False, False]
    assert all(again is not None and looks(again) == looks(one) for one, again in zip(each, found, strict=True))
    assert in_either(in_memory(0), in_memory(0))(each[0], 0.0) is None
