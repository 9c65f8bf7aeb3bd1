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


@pytest.mark.parametrize("command", ["summary {}", "report {} --out {}.html", "export {} --out {}.csv"])
def test_reading_results_loads_no_torch(folder: Path, tmp_path: Path, command: str) -> None:
    (tmp_path / "r.zarr").symlink_to(folder / "r.zarr")
    line = command.replace("{}", str(tmp_path / "r.zarr")).replace(" ", "\n")
    done = subprocess.run([sys.executable, "-c", CODE], input=line, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] in ("None []", "0 []"), done.stderr
