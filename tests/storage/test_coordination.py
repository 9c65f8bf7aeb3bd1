"""Several processes measure one result, to the bits of one, whoever comes, leaves or dies."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from faults.processes import OPTIONS, PROCESSES, TEXTS, Process, identical, speaking
from rest_slow import rest_slow
from stored import run_to_disk
from tiny import tiny

from hydrascope.ablations.ablation import Mean, Resample
from hydrascope.models.language_model import LanguageModel
from hydrascope.runs import batches
from hydrascope.runs import start as starts
from hydrascope.runs.rounding import precision
from hydrascope.storage import coordination
from hydrascope.storage.coordination import join_workers
from hydrascope.storage.reader import open_results, read_attributes
from hydrascope.storage.staging import recover_staging
from hydrascope.storage.writer import Writer
from hydrascope.utils.errors import HydrascopeError

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return speaking()


@pytest.fixture(autouse=True)
def _as_in_processes_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no test leaves anything out."""
    monkeypatch.setattr("hydrascope.runs.start.precision", precision)


@pytest.fixture(scope="module")
def whole(model: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process measures."""
    return run_to_disk(model, TEXTS, **OPTIONS, out=tmp_path_factory.mktemp("whole") / "whole.zarr")


def alone_in(folder: Path) -> bool:
    """Whether nothing is left beside the result."""
    return [file.name for file in folder.iterdir()] == ["r.zarr"]


@pytest.mark.slow
def test_two_that_start_at_once_share_the_work(whole: Path, tmp_path: Path) -> None:
    both = [Process(tmp_path / "r.zarr", join=True) for _ in range(2)]
    assert [each.end() for each in both] == ["", ""]
    identical(tmp_path / "r.zarr", whole)
    # 23 prompts, two at a time; neither measured a block of the other's.
    assert sum(each.batches.value for each in both) == 12
    assert alone_in(tmp_path)


@pytest.mark.slow
def test_who_comes_later_measures_what_is_left(model: LanguageModel, whole: Path, tmp_path: Path) -> None:
    # The first is in its second block.
    first = Process(tmp_path / "r.zarr", join=True, hold=6)
    later = Process(tmp_path / "r.zarr", join=True)
    wait_for_batches(later, 4)
    assert (first.end(), later.end()) == ("", "")
    assert (first.batches.value, later.batches.value) == (8, 4)
    identical(tmp_path / "r.zarr", whole)
    assert alone_in(tmp_path)


@pytest.mark.parametrize("end", rest_slow([signal.SIGKILL, signal.SIGINT], (signal.SIGKILL,)))
def test_the_block_of_one_that_dies_or_leaves_is_taken_over(
    model: LanguageModel, whole: Path, tmp_path: Path, end: signal.Signals
) -> None:
    first = Process(tmp_path / "r.zarr", join=True, hold=2)
    second = Process(tmp_path / "r.zarr", join=True)
    wait_for_batches(second, 8)
    time.sleep(0.2)
    assert read_attributes(tmp_path / "r.zarr")["measured"] == 0
    os.kill(first.process.pid or 0, end)
    assert second.end() == ""
    first.process.join()
    assert first.process.exitcode
    identical(tmp_path / "r.zarr", whole)
    recover_staging(tmp_path / "r.zarr")
    assert alone_in(tmp_path)


def wait_for_batches(process: Process, count: int) -> None:
    """Until a process has begun so many; a block has four."""
    while process.batches.value < count:
        assert process.process.is_alive()
        time.sleep(0.005)


def test_after_all_are_killed_one_goes_on(whole: Path, tmp_path: Path) -> None:
    both = [Process(tmp_path / "r.zarr", join=True, hold=2) for _ in range(2)]
    for each in both:
        assert each.kill(0)
    assert not alone_in(tmp_path)
    assert Process(tmp_path / "r.zarr", resume=True).end() == ""
    identical(tmp_path / "r.zarr", whole)
    assert alone_in(tmp_path)


@pytest.mark.parametrize("ablation", rest_slow([Resample(3), Mean()], (Mean(),)))
def test_the_second_reads_what_the_first_ran_clean(
    model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ablation: Resample
) -> None:
    one = run_to_disk(model, TEXTS, ablation, batch_size=2, out=tmp_path / "one.zarr")
    together: dict[str, Any] = {"ablation": ablation, "batch_size": 2, "out": tmp_path / "r.zarr", "join": True}
    with join_workers(tmp_path / "r.zarr"):
        with monkeypatch.context() as patch:
            patch.setattr("hydrascope.storage.writer.Writer.write", interrupted)
            with pytest.raises(KeyboardInterrupt):
                run_to_disk(model, TEXTS, **together)
        monkeypatch.setattr(batches, "collect_shard", None)
        run_to_disk(model, TEXTS, **together)
    identical(tmp_path / "r.zarr", one)


def test_each_measures_first_what_it_ran_clean_itself(
    model: LanguageModel, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What that needs of the clean runs it has kept; of others' it makes it again."""
    out, again, order = tmp_path / "r.zarr", [], []
    shared, write = batches.compute_prefix, Writer.write
    with join_workers(out) as others:
        with monkeypatch.context() as patch:
            patch.setattr(Writer, "write", interrupted)
            with pytest.raises(KeyboardInterrupt):
                run_to_disk(model, TEXTS, **OPTIONS, out=out, join=True)
        (others.clean / "8.safetensors").unlink()
        monkeypatch.setattr(batches, "compute_prefix", lambda *given: again.append(given) or shared(*given))
        monkeypatch.setattr(
            Writer, "write", lambda self, start, *what: order.append(start) or write(self, start, *what)
        )
        run_to_disk(model, TEXTS, **OPTIONS, out=out, join=True)
    identical(out, whole)
    assert order == [8, 0, 16]
    assert len(again) == 8  # batches of two, in the other blocks, of eight and of seven prompts


def interrupted(*arguments: object) -> None:
    raise KeyboardInterrupt


def test_where_nothing_is_left_nothing_is_done(whole: Path) -> None:
    before = read_attributes(whole)
    assert Process(whole, join=True).end() == ""
    assert read_attributes(whole) == before


def test_a_damaged_block_is_measured_again(whole: Path, model: LanguageModel, tmp_path: Path) -> None:
    run_to_disk(model, TEXTS, **OPTIONS, out=tmp_path / "r.zarr")
    chunk = tmp_path / "r.zarr" / "total" / "c" / "0" / "1" / "0" / "0"
    chunk.write_bytes(b"damaged")
    run_to_disk(model, TEXTS, **OPTIONS, out=tmp_path / "r.zarr", join=True)
    identical(tmp_path / "r.zarr", whole)


def test_what_is_written_and_not_counted_counts_with_how_it_was_measured(
    model: LanguageModel, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a worker dies between the two."""
    with monkeypatch.context() as patch:
        patch.setattr("hydrascope.storage.writer.Writer.update_measured", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_to_disk(model, TEXTS, **OPTIONS, out=tmp_path / "r.zarr")
    assert read_attributes(tmp_path / "r.zarr")["measured"] == 0
    for number in (1, 2):
        run_to_disk(model, TEXTS, **OPTIONS, out=tmp_path / "r.zarr", join=number == 1, resume=number == 2)
        identical(tmp_path / "r.zarr", whole)


def test_only_those_that_ask_for_it_work_together(whole: Path, tmp_path: Path) -> None:
    first = Process(tmp_path / "r.zarr", join=True, hold=2)
    for others in ({"resume": True}, {"overwrite": True}):
        assert "another run writes to" in Process(tmp_path / "r.zarr", **others).end()
    assert first.end() == ""
    first = Process(tmp_path / "r.zarr", overwrite=True, hold=2)
    assert "another run writes to" in Process(tmp_path / "r.zarr", join=True).end()
    assert first.end() == ""
    identical(tmp_path / "r.zarr", whole)


@pytest.mark.parametrize(
    ("others", "difference"),
    [
        ({"ablation": Resample(4)}, "patches was 3, now 4"),
        ({"prompts": [*TEXTS[:-1], "other"]}, "prompts_hash was"),
        ({"model": tiny("llama", torch.float64)}, "dtype was 'float32', now 'float64'"),
    ],
)
def test_others_must_measure_the_same(
    model: LanguageModel, tmp_path: Path, others: dict[str, Any], difference: str
) -> None:
    given = {"model": model, "prompts": TEXTS, **OPTIONS, "out": tmp_path / "r.zarr"}
    run_to_disk(**given)
    before = read_attributes(tmp_path / "r.zarr")
    if other := others.get("model"):
        other.tokenizer = model.tokenizer
    with pytest.raises(HydrascopeError, match=difference):
        run_to_disk(**{**given, **others}, join=True)
    assert read_attributes(tmp_path / "r.zarr") == before
    assert alone_in(tmp_path)


def test_a_worker_of_another_version_is_refused(
    model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_to_disk(model, TEXTS, **OPTIONS, out=tmp_path / "r.zarr")
    monkeypatch.setattr("hydrascope.runs.attrs.__version__", "9.9")
    with pytest.raises(HydrascopeError, match=r"hydrascope was '.*', now '9\.9'"):
        run_to_disk(model, TEXTS, **OPTIONS, out=tmp_path / "r.zarr", join=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"ablation": Resample(3, seed=1)}, "seed was 1, now 0"),
        ({"batch_size": 3}, "another run has made .* meanwhile"),
        ({"overwrite": True}, "another run has made .* meanwhile"),
    ],
)
def test_a_result_that_another_run_makes_meanwhile_is_left_alone(
    model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: dict[str, Any], message: str
) -> None:
    """While prompts are run clean: of other settings, of other blocks, or in the place of the one that was joined."""
    out, made = tmp_path / "r.zarr", starts.compute_clean_activations_with_workers

    def meanwhile(*given: Any) -> Any:
        run_to_disk(model, TEXTS, **{**OPTIONS, **others}, out=out)
        return made(*given)

    if others.get("overwrite"):
        with monkeypatch.context() as patch:
            patch.setattr("hydrascope.storage.writer.Writer.write", interrupted)
            with pytest.raises(KeyboardInterrupt):
                run_to_disk(model, TEXTS, **OPTIONS, out=out)
    monkeypatch.setattr(starts, "compute_clean_activations_with_workers", meanwhile)
    with pytest.raises(HydrascopeError, match=message):
        run_to_disk(model, TEXTS, **OPTIONS, out=out, join=True)
    monkeypatch.undo()
    run_to_disk(model, TEXTS, **{**OPTIONS, **others}, out=tmp_path / "other.zarr")
    identical(out, tmp_path / "other.zarr")


def test_joining_and_overwriting_exclude_each_other(model: LanguageModel, tmp_path: Path) -> None:
    with pytest.raises(HydrascopeError, match="join and overwrite exclude each other"):
        run_to_disk(model, TEXTS, **OPTIONS, out=tmp_path / "r.zarr", join=True, overwrite=True)


def test_without_locks_nothing_is_shared(model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coordination, "fcntl", None)
    with pytest.raises(HydrascopeError, match="workers share a result by file locks, which this system has not"):
        run_to_disk(model, TEXTS, **OPTIONS, out=tmp_path / "r.zarr", join=True)
    assert not list(tmp_path.iterdir())


def test_a_block_is_one_workers_and_a_turn_too(tmp_path: Path) -> None:
    with join_workers(tmp_path / "r.zarr") as one, join_workers(tmp_path / "r.zarr") as other:
        with one.claim("0") as first, other.claim("0") as second, other.claim("8") as third:
            assert (first, second, third) == (True, False, True)
        with other.claim("0") as again:
            assert again
        with one.exclusive():
            pass
        recover_staging(tmp_path / "r.zarr")
        assert one.room.exists()
    assert not list(tmp_path.iterdir())


def enter_and_leave(path: Path, times: int) -> None:
    for _ in range(times):
        with join_workers(path) as here, here.exclusive():
            # Nobody else is in here: what is made can't be there.
            (here.room / "0").mkdir()
            (here.room / "0").rmdir()


def test_workers_come_and_go_at_once(tmp_path: Path) -> None:
    each = [PROCESSES.Process(target=enter_and_leave, args=(tmp_path / "r.zarr", 200)) for _ in range(3)]
    for process in each:
        process.start()
    for process in each:
        process.join()
    assert [process.exitcode for process in each] == [0, 0, 0]
    assert not list(tmp_path.iterdir())


def test_each_prompt_is_run_clean_once(whole: Path, tmp_path: Path) -> None:
    """By whom, is settled block by block; nobody measures before all are."""
    with join_workers(tmp_path / "r.zarr") as others, others.claim("clean-8"):
        second = Process(tmp_path / "r.zarr", join=True)
        while sorted(part.name for part in others.clean.glob("*.safetensors")) != ["0.safetensors", "16.safetensors"]:
            time.sleep(0.005)
        time.sleep(0.1)
        assert not second.batches.value
    assert second.end() == ""
    identical(tmp_path / "r.zarr", whole)


def test_a_reader_sees_the_first_blocks_alone(model: LanguageModel, whole: Path, tmp_path: Path) -> None:
    """Whatever later ones are written."""
    with join_workers(tmp_path / "r.zarr") as others, others.claim("0"):
        second = Process(tmp_path / "r.zarr", join=True)
        wait_for_batches(second, 8)
        time.sleep(0.2)
        with pytest.raises(HydrascopeError, match=r"nothing of .* is measured yet"):
            open_results(tmp_path / "r.zarr")
    assert second.end() == ""
    identical(tmp_path / "r.zarr", whole)
