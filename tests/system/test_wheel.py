"""A wheel holds every file of the package: an editable install never notices that one is left out."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_wheel_holds_every_file(tmp_path: Path) -> None:
    source = ROOT / "src" / "hydrascope"
    shutil.copytree(source, tmp_path / "src" / "hydrascope", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    build = "from setuptools.build_meta import build_wheel; build_wheel('dist')"
    (tmp_path / "dist").mkdir()
    done = subprocess.run([sys.executable, "-c", build], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("hydrascope/")}
    files = (path for path in source.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    assert held == {f"hydrascope/{path.relative_to(source).as_posix()}" for path in files}
