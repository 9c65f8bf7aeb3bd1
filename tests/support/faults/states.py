"""Run commands in states of the user's process: numbers stay the same, or one line tells."""

import contextlib
import io
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from unittest import mock

import xarray as xr
from tiny import save_tiny
from torch_states import STATES, comma_folder

import hydrascope as hs
from faults.processes import identical
from hydrascope.cli import app

#: By name of the state, a line of bash that runs the command "$@" in it; $AS_USER before it takes root's rights away.
SHELLS = {
    "LC_ALL=C": 'LC_ALL=C LANG=C PYTHONUTF8=0 "$@"',
    "a locale with a decimal comma": 'LOCPATH="$PWD/locales" LC_ALL=de_DE.UTF-8 "$@"',
    "output in latin-1": 'PYTHONIOENCODING=latin-1 "$@"',
    "a MPLBACKEND that isn't installed": 'MPLBACKEND=module://not_installed "$@"',
    "no HOME": 'env -u HOME "$@"',
    "no HOME, and no name": 'env -u HOME $AS_USER "$@"',
    "HOME=/": 'HOME=/ "$@"',
    "a HOME that is read-only": 'mkdir home; chmod 555 home; HOME="$PWD/home" $AS_USER "$@"',
    "umask 077": 'umask 077; $AS_USER "$@"',
    "umask 777": 'umask 777; $AS_USER "$@"',
    "a working directory that is gone": 'mkdir gone; cd gone; rmdir ../gone; "$@"',
    "standard input closed": '"$@" <&-',
    "standard output closed": '"$@" >&-',
    "standard error closed": '"$@" 2>&-',
    "standard output full": '"$@" >/dev/full',
    "standard error full": '"$@" 2>/dev/full',
    "a reader that leaves": 'set -o pipefail; "$@" | :',
    "a reader of both that leaves": 'set -o pipefail; "$@" 2>&1 | :',
}
#: Parts of the names of states in which the output is lost, so can't be compared.
_WITHOUT_OUTPUT = ("output closed", "output full", "reader")
COMMANDS = ("sweep", "run", "summary", "report")
#: The outcomes that must never happen.
BAD = ("other numbers", "traceback", "lines", "code", "refused for nothing")
#: Parts of the names of states that may hinder a command, which then ends in one line.
_HINDERING = ("umask 777", "directory that is gone", "output closed", "output full", "of both")
#: The exit code in bash of a command that SIGPIPE ends.
_BY_SIGPIPE = 141
#: A script for the command "sweep": a sweep by the library.
_SWEEP = """
import sys
import hydrascope as hs
model, prompts, out = sys.argv[1:]
try:
    hs.sweep(hs.load_model(model), hs.load_prompts(prompts), hs.Zero(), out=out)
except hs.HydrascopeError as error:
    sys.exit(print(f"hydrascope: {error}", file=sys.stderr) or 2)
"""


def given(folder: Path, commands: Sequence[str]) -> Path:
    """Save a model, prompts, and the results of commands without any state."""
    folder.chmod(0o755)
    save_tiny(folder / "model")
    (folder / "prompts.txt").write_text("the cat\nno\nHello, world\nabc\nxyz.\n")
    hs.sweep(
        hs.load_model(folder / "model"), hs.load_prompts(folder / "prompts.txt"), hs.Zero(), out=folder / "alone.zarr"
    )
    for name in {"summary", "report"} & {*commands}:
        code, out, err = _in_process(_arguments(name, folder, folder))
        assert code == 0, err
        (folder / f"{name}.out").write_text(out)
    for path in folder.rglob("*"):  # for another user, too
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


def states(
    folder: Path, names: Iterable[str] | None = None, commands: Sequence[str] = COMMANDS
) -> Counter[tuple[str, str]]:
    """Count the outcomes of every command in each state, by command; print the bad ones."""
    given(folder, commands)
    found: Counter[tuple[str, str]] = Counter()
    for state in names if names is not None else (*SHELLS, *STATES):
        for command in commands:
            room = folder / "room"
            room.mkdir()
            room.chmod(0o777)
            outcome = _outcome(state, command, folder, room)
            found[command, outcome] += 1
            if outcome in BAD:
                print(f"{outcome}: {command} in {state}")
            shutil.rmtree(room)
    return found


def _outcome(state: str, command: str, folder: Path, room: Path) -> str:
    """Return the outcome of a command in a state."""
    if state in STATES:
        with STATES[state]():
            code, out, err = _in_process(_arguments(command, folder, room))
    else:
        code, out, err = _in_shell(SHELLS[state], _arguments(command, folder, room), room)
    seen = not any(part in state for part in _WITHOUT_OUTPUT)
    if code == 0:
        return "the same" if _is_the_same(command, folder, room, out if seen else None) else "other numbers"
    if code == _BY_SIGPIPE and "reader" in state:
        return "lines" if err else "a quiet end"
    if "Traceback" in err:
        return "traceback"
    if code != 2:
        return "code"
    if not any(part in state for part in _HINDERING):
        return "refused for nothing"
    unseen = "error closed" in state or "error full" in state or "of both" in state
    return "one line" if unseen or (err.startswith("hydrascope: ") and err.count("\n") == 1) else "lines"


def _is_the_same(command: str, folder: Path, room: Path, out: str | None) -> bool:
    """Return whether a command gave what it gives without any state.

    Args:
        out: the output, or None where the state loses it.
    """
    if command == "summary":
        return out is None or out == (folder / "summary.out").read_text()
    if command == "report":
        return (room / "report.html").read_bytes() == (folder / "report.html").read_bytes()
    try:
        identical(room / "made.zarr", folder / "alone.zarr")
        return len(xr.open_zarr(room / "made.zarr")["prompt"]) == 5
    except AssertionError:
        return False


def _arguments(command: str, folder: Path, room: Path) -> list[str]:
    """Return the arguments of a command that writes into `room`; of `_SWEEP` for a sweep."""
    model, prompts = str(folder / "model"), str(folder / "prompts.txt")
    return {
        "sweep": [model, prompts, str(room / "made.zarr")],
        "run": ["run", model, "--prompts", prompts, "--ablation", "zero", "--out", str(room / "made.zarr")],
        "summary": ["summary", str(folder / "alone.zarr"), "--format", "csv"],
        "report": ["report", str(folder / "alone.zarr"), "--out", str(room / "report.html")],
    }[command]


def _in_process(arguments: list[str]) -> tuple[int, str, str]:
    """Run a command in this process; return its exit code, output and errors."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            if arguments[0] in COMMANDS:
                with mock.patch.object(sys, "argv", ["hydrascope", *arguments]):
                    app.main()
            else:
                hs.sweep(hs.load_model(arguments[0]), hs.load_prompts(arguments[1]), hs.Zero(), out=arguments[2])
        except hs.HydrascopeError as error:
            print(f"hydrascope: {error}", file=err)
            code = 2
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
    return code, out.getvalue(), err.getvalue()


def _in_shell(line: str, arguments: list[str], room: Path) -> tuple[int, str, str]:
    """Run a command in a process that bash starts; return its exit code, output and errors."""
    begin = [sys.executable, "-c", _SWEEP] if arguments[0] not in COMMANDS else [sys.executable, "-m", "hydrascope"]
    if "LOCPATH" in line:
        (room / "locales").mkdir()
        comma_folder(str(room / "locales"))
    environment = {**os.environ, "AS_USER": as_user(), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        ["bash", "-c", line, "bash", *begin, *arguments], cwd=room, env=environment, capture_output=True, check=False
    )
    return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")


@cache
def as_user() -> str:
    """Return the words that run a command as no root; "" where that can't or needn't be.

    Root may write anywhere, which would make some states meaningless.
    """
    words = ["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups"]
    if os.geteuid() or not shutil.which("setpriv"):
        return ""
    tried = subprocess.run([*words, sys.executable, "-c", f"open({hs.__file__!r})"], capture_output=True, check=False)
    return "" if tried.returncode else " ".join(words)
