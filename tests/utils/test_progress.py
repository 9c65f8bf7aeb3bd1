"""How far a run is, where standard error is no terminal: a line every half a minute, and none for a short run."""

import pytest

from hydrascope.utils import progress


def test_a_line_every_half_minute(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    clock = iter([0.0, 10.0, 30.0, 45.0, 61.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress.show_progress(1_000, 400, True) as advance:
        for _ in range(4):
            advance(100)
    lines = capsys.readouterr().err.splitlines()
    # At 30 s 200 of the 600 that were left are measured, at 61 s 400.
    assert lines == ["600 of 1,000 prompts measured, 60 s left", "800 of 1,000 prompts measured, 30 s left"]


def test_where_nothing_is_measured_yet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """As where workers measure, and the run that started them looks."""
    clock = iter([0.0, 31.0, 62.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress.show_progress(100, 0, True) as advance:
        advance(0)
        advance(50)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["0 of 100 prompts measured", "50 of 100 prompts measured, 62 s left"]


def test_nothing_where_none_is_asked_for(capsys: pytest.CaptureFixture) -> None:
    with progress.show_progress(10, 0, False) as advance:
        advance(10)
    assert not capsys.readouterr().err
