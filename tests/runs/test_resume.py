"""Whatever ends a run, what was written stays, and going on gives the uninterrupted run's result to the bit."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from faults.processes import OPTIONS, TEXTS, identical, speaking
from stored import change_attributes, run_to_disk
from tiny import tiny, tiny_tokenizer
from zarr.abc.buffer import Buffer
from zarr.storage import LocalStore

from hydrascope.ablations.ablation import Mean, Noise, Resample, Zero
from hydrascope.engines import Engine, Readings, Request, wavefront
from hydrascope.engines.directions import Direction
from hydrascope.engines.readouts import Logit
from hydrascope.models.language_model import LanguageModel
from hydrascope.runs import plan
from hydrascope.runs.sweep import sweep
from hydrascope.storage import staging
from hydrascope.storage.reader import open_results, read_attributes
from hydrascope.utils.errors import HydrascopeError

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return speaking()


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    """For what is measured once for all tests: as in each of them, rounding isn't looked at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hydrascope.runs.start.precision", lambda plan, clean: {})
        yield patch


@pytest.fixture(scope="module")
def whole(model: LanguageModel, patch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing ended, which is left as it is."""
    return run_to_disk(model, TEXTS, **OPTIONS, out=tmp_path_factory.mktemp("whole") / "whole.zarr")


def interrupting(monkeypatch: pytest.MonkeyPatch, batches: int, error: BaseException) -> None:
    """Let the engine raise `error` once it has measured so many batches."""
    done = iter(range(batches))

    def measure(model: LanguageModel, request: Request) -> Readings:
        if next(done, None) is None:
            raise error
        return wavefront.measure(model, request)

    monkeypatch.setattr(plan, "choose_engine", lambda model, name: Engine("wavefront", measure, "for the test"))


@pytest.mark.parametrize(
    ("ablation", "batches"),
    [
        (Resample(3), 5),
        *(
            pytest.param(*each, marks=pytest.mark.slow)
            for each in ((Mean(), 5), (Resample(3), 0), (Resample(3), 11), (Noise(2), 5))
        ),
    ],
)
def test_an_interrupted_run_goes_on(
    model: LanguageModel, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ablation: Resample, batches: int
) -> None:
    if ablation != OPTIONS["ablation"]:
        whole = run_to_disk(model, TEXTS, ablation, out=tmp_path / "whole.zarr", batch_size=2)
    with monkeypatch.context() as patch:
        interrupting(patch, batches, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            run_to_disk(model, TEXTS, ablation, out=tmp_path / "r.zarr", batch_size=2)
    assert read_attributes(tmp_path / "r.zarr")["measured"] == 8 * (batches // 4)
    assert run_to_disk(model, TEXTS, ablation, out=tmp_path / "r.zarr", resume=True) == tmp_path / "r.zarr"
    identical(tmp_path / "r.zarr", whole)


def test_a_full_disk_keeps_what_is_measured(
    model: LanguageModel, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = LocalStore.set

    async def full(self: LocalStore, key: str, value: Buffer) -> None:
        if key.startswith("total/c/0/1"):
            raise OSError(errno.ENOSPC, "No space left on device")
        await written(self, key, value)

    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "set", full)
        with pytest.raises(HydrascopeError, match=r"left on device\); 8 prompts are kept: make room and resume"):
            run_to_disk(model, TEXTS, **OPTIONS, out=tmp_path / "r.zarr")
    assert open_results(tmp_path / "r.zarr").sizes["prompt"] == 8
    run_to_disk(model, TEXTS, **OPTIONS, out=tmp_path / "r.zarr", resume=True)
    identical(tmp_path / "r.zarr", whole)


@pytest.fixture(scope="module")
def ended(model: LanguageModel, patch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result of which one block is measured, which is left as it is."""
    path = tmp_path_factory.mktemp("ended") / "r.zarr"
    with patch.context() as once:
        interrupting(once, 4, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            run_to_disk(model, TEXTS, **OPTIONS, out=path)
    return path


@pytest.fixture
def begun(ended: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(ended, tmp_path / "r.zarr"))


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        ({"ablation": Resample(4)}, "patches was 3, now 4"),
        ({"ablation": Resample(3, seed=1)}, "seed was 0, now 1"),
        ({"ablation": Resample(3, different_target=True)}, "different_target was False, now True"),
        ({"ablation": Zero()}, "ablation was 'resample', now 'zero'"),
        ({"ablate": "heads"}, "ablate was 'layers', now 'heads'"),
        ({"read": "heads"}, "read was 'layers', now 'heads'"),
        ({"at": -1}, "positions was 'last', now '-1'"),
        ({"target": 5}, "target was 'argmax', now 5"),
        ({"metrics": ["kl"]}, r"metrics was \[\], now \['kl'\]"),
        ({"readouts": [Logit(5)]}, r"readouts was \[.*target.*\], now \['Logit\(token=5\)'\]"),
        ({"keep": "means"}, "keep was 'patches', now 'means'"),
        ({"engine": "reference"}, "engine was 'wavefront', now 'reference'"),
        ({"prompts": TEXTS[:-1]}, "prompt_count was 23, now 22"),
        ({"prompts": [*TEXTS[:-1], "other"]}, "prompts_hash was"),
        ({"model": tiny("llama", torch.float64)}, "dtype was 'float32', now 'float64'"),
        ({"model": tiny("gpt2", torch.float32)}, "model was 'llama', now 'gpt2'"),
    ],
)
def test_other_options_are_refused_by_name(
    model: LanguageModel, begun: Path, other: dict[str, Any], difference: str
) -> None:
    before = open_results(begun)
    arguments = {"model": model, "prompts": TEXTS, **OPTIONS, **other}
    arguments["model"].tokenizer = tiny_tokenizer()
    with pytest.raises(HydrascopeError, match=f"cannot resume .*{difference}"):
        run_to_disk(**arguments, out=begun, resume=True)
    xr.testing.assert_identical(open_results(begun), before)


def test_another_direction_is_refused(model: LanguageModel, tmp_path: Path) -> None:
    """What a direction is decides, not only what it is called; as what it comes does not."""
    numbers = np.linspace(-1, 1, 32)
    run_to_disk(model, TEXTS, **OPTIONS, out=tmp_path / "r.zarr", readouts=[Direction(numbers)])
    same = torch.tensor(numbers, requires_grad=True)
    run_to_disk(model, TEXTS, **OPTIONS, out=tmp_path / "r.zarr", readouts=[Direction(same)], resume=True)
    for other in (Direction(numbers + 1e-9), Direction(numbers, before=1), Direction(numbers, name="other")):
        with pytest.raises(HydrascopeError, match="readouts was"):
            run_to_disk(model, TEXTS, **OPTIONS, out=tmp_path / "r.zarr", readouts=[other], resume=True)


def test_other_versions_are_refused_by_name(model: LanguageModel, begun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hydrascope.runs.attrs.__version__", "0.0.1")
    with pytest.raises(HydrascopeError, match=r"hydrascope was '.*', now '0\.0\.1'"):
        run_to_disk(model, TEXTS, **OPTIONS, out=begun, resume=True)


def test_weights_count_where_there_is_a_hash_of_them_and_names_do_not(tmp_path: Path) -> None:
    def named(name: str, revision: str, seed: int) -> LanguageModel:
        made = tiny("llama", torch.float32, seed)
        return LanguageModel(made.hf, tiny_tokenizer(), name=name, revision=revision)

    run_to_disk(named("here", "sha256:1", 0), TEXTS, **OPTIONS, out=tmp_path / "r.zarr")
    run_to_disk(named("there", "sha256:1", 0), TEXTS, **OPTIONS, out=tmp_path / "r.zarr", resume=True)
    with pytest.raises(HydrascopeError, match="revision was 'sha256:1', now 'sha256:2'"):
        run_to_disk(named("here", "sha256:2", 1), TEXTS, **OPTIONS, out=tmp_path / "r.zarr", resume=True)


def test_a_smaller_batch_may_go_on(model: LanguageModel, whole: Path, begun: Path) -> None:
    """Where the system kills for memory there is no error to catch: a smaller batch must be able to finish."""
    run_to_disk(model, TEXTS, Resample(3), out=begun, resume=True, batch_size=1)
    found, expected = open_results(begun), open_results(whole)
    assert (found.attrs["batch_size"], found.attrs["chunk_size"]) == (1, 8)
    np.testing.assert_allclose(found["total"], expected["total"], atol=1e-5)


def test_a_complete_result_is_left_as_it_is(model: LanguageModel, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupting(monkeypatch, 0, AssertionError("nothing is left to measure"))
    run_to_disk(model, TEXTS, **OPTIONS, out=whole, resume=True)


def test_a_result_is_touched_only_on_request(model: LanguageModel, begun: Path) -> None:
    before = open_results(begun)
    with pytest.raises(HydrascopeError, match=r"r.zarr exists \(8 of 23 prompts measured\): go on with resume"):
        run_to_disk(model, TEXTS, **OPTIONS, out=begun)
    with pytest.raises(HydrascopeError, match="resume and overwrite exclude each other"):
        run_to_disk(model, TEXTS, **OPTIONS, out=begun, resume=True, overwrite=True)
    xr.testing.assert_identical(open_results(begun), before)
    run_to_disk(model, TEXTS, Zero(), out=begun, overwrite=True)
    assert open_results(begun).attrs["ablation"] == "zero"


def test_a_result_of_format_1_can_only_be_replaced(model: LanguageModel, begun: Path) -> None:
    change_attributes(begun, format="hydrascope results 1")
    for option in ({}, {"resume": True}):
        with pytest.raises(HydrascopeError, match="holds a result of format 1, which is no longer read: measure again"):
            run_to_disk(model, TEXTS, **OPTIONS, out=begun, **option)
    run_to_disk(model, TEXTS, **OPTIONS, out=begun, overwrite=True)
    assert open_results(begun).sizes["prompt"] == len(TEXTS)


def test_an_overwrite_that_cannot_run_deletes_nothing(model: LanguageModel, begun: Path) -> None:
    with pytest.raises(HydrascopeError, match="23 resample patches need"):
        run_to_disk(model, TEXTS, Resample(23), out=begun, overwrite=True)
    assert open_results(begun).sizes["prompt"] == 8


@pytest.mark.parametrize("option", ["resume", "overwrite"])
def test_what_is_no_result_is_never_touched(model: LanguageModel, tmp_path: Path, option: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "precious").write_text("precious")
    (tmp_path / "file").write_text("precious")
    for name in ("folder", "file"):
        with pytest.raises(HydrascopeError, match=f"{name} exists and is no hydrascope result: choose another place"):
            run_to_disk(model, TEXTS, **OPTIONS, out=tmp_path / name, **{option: True})
    assert (tmp_path / "folder" / "precious").read_text() == (tmp_path / "file").read_text() == "precious"


def test_just_the_damaged_blocks_are_measured_again(
    model: LanguageModel, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a run that isn't at its end, to the bits that were there."""
    shutil.copytree(whole, tmp_path / "r.zarr")
    damaged = {name: (tmp_path / "r.zarr" / name).read_bytes() for name in ("total/c/0/1/0/0", "scale/c/2/0/0")}
    (tmp_path / "r.zarr" / "total/c/0/1/0/0").write_bytes(b"damaged")
    (tmp_path / "r.zarr" / "scale/c/2/0/0").unlink()
    with monkeypatch.context() as patch:
        interrupting(patch, 4, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            run_to_disk(model, TEXTS, **OPTIONS, out=tmp_path / "r.zarr", resume=True)
    with pytest.raises(HydrascopeError, match=r"is damaged, scale cannot .* is missing\): resume its run"):
        open_results(tmp_path / "r.zarr")
    with monkeypatch.context() as patch:
        # The last block is of four batches.
        interrupting(patch, 4, AssertionError("what is whole is not measured again"))
        run_to_disk(model, TEXTS, **OPTIONS, out=tmp_path / "r.zarr", resume=True)
    identical(tmp_path / "r.zarr", whole)
    assert damaged == {name: (tmp_path / "r.zarr" / name).read_bytes() for name in damaged}


@pytest.mark.parametrize("locks", [True, False])
def test_an_overwrite_while_a_run_lives(
    model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locks: bool
) -> None:
    """It is refused; where there are no locks to tell by, the earlier run ends and leaves the new result alone."""
    out, batches = tmp_path / "r.zarr", []

    def refused(by: str) -> AbstractContextManager[object]:
        return pytest.raises(HydrascopeError, match=f"another run writes to .*{by}")

    def measure(model: LanguageModel, request: Request) -> Readings:
        batches.append(request)
        if len(batches) == 6:
            with refused("let it end") if locks else nullcontext():
                run_to_disk(model, TEXTS, Zero(), out=out, batch_size=2, overwrite=True)
        return wavefront.measure(model, request)

    monkeypatch.setattr(plan, "choose_engine", lambda model, name: Engine("wavefront", measure, "for the test"))
    if not locks:
        monkeypatch.setattr(staging, "fcntl", None)
    with nullcontext() if locks else refused("this one ends"):
        run_to_disk(model, TEXTS, **OPTIONS, out=out)
    assert open_results(out).attrs["ablation"] == ("resample" if locks else "zero")
    assert open_results(out).sizes["prompt"] == len(TEXTS)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("file/r.zarr", "cannot create .*file is no folder"),
        ("pipe", "exists and is no hydrascope result"),
        ("x" * 256, "cannot use x.*File name too long"),
        ("~no-such-user/r.zarr", "cannot use .*home directory"),
    ],
)
def test_paths_that_hold_no_result_are_refused_before_anything_is_measured(
    model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, message: str
) -> None:
    interrupting(monkeypatch, 0, AssertionError("nothing can be stored"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("precious")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(HydrascopeError, match=message) as caught:
        run_to_disk(model, TEXTS, **OPTIONS, out=place, resume=True)
    assert "\n" not in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == ["file", "pipe"]


def test_the_home_folder_is_found(model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    sweep(model, TEXTS, Zero(), out="~/r.zarr")
    assert os.listdir(tmp_path) == ["home"]
    assert os.listdir(tmp_path / "home") == ["r.zarr"]
