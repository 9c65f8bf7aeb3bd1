"""What reads results loads no PyTorch, which would take seconds."""

import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import sys
from hydrascope.cli.app import main
sys.argv[1:] = sys.stdin.read().split("\\n")
try:
    main()
except SystemExit as end:
    print(end.code, [name for name in ("torch", "transformers") if name in sys.modules], file=sys.stderr)
"""


HEAVY = """
import sys
from hydrascope.cli.app import main
sys.argv[1:] = sys.stdin.read().split()
try:
    main()
except SystemExit:
    pass
heavy = ("torch", "transformers", "pandas", "xarray", "matplotlib")
print([name for name in heavy if name in sys.modules], file=sys.stderr)
"""


@pytest.mark.parametrize("command", ["--help", "run --help", "summary --help", "explore --help", "completion"])
def test_help_and_completion_load_nothing_heavy(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if command == "completion":
        monkeypatch.setenv("_HYDRASCOPE_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", "hydrascope run --abl")
        monkeypatch.setenv("COMP_CWORD", "2")
    # Completion looks for the variable by the program's name.
    code = HEAVY.replace("import sys\n", "import sys\nsys.argv[0] = 'hydrascope'\n", 1)
    given = "" if command == "completion" else command
    done = subprocess.run([sys.executable, "-c", code], input=given, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == "[]", done.stderr
    assert "--ablat" in done.stdout if command == "completion" else "Usage" in done.stdout


@pytest.mark.parametrize("command", ["summary {}", "report {} --out {}.html", "export {} --out {}.csv"])
def test_reading_results_loads_no_torch(folder: Path, tmp_path: Path, command: str) -> None:
    (tmp_path / "r.zarr").symlink_to(folder / "r.zarr")
    line = command.replace("{}", str(tmp_path / "r.zarr")).replace(" ", "\n")
    done = subprocess.run([sys.executable, "-c", CODE], input=line, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] in ("None []", "0 []"), done.stderr
