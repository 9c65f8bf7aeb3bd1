"""A wheel holds every file of the package: an editable install never notices that one is left out."""

import shutil
import subprocess
import sys
import sysconfig
import urllib.request
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


SOURCE = ROOT / "src" / "hydrascope"
#: PyPI's users wait for a download; this is the most that the project allows itself.
MOST_BYTES = 15_000_000


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a wheel from a copy of the package."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(SOURCE, folder / "src" / "hydrascope", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    (folder / "dist").mkdir()
    build = "from setuptools.build_meta import build_wheel; build_wheel('dist')"
    done = subprocess.run([sys.executable, "-c", build], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (found,) = (folder / "dist").glob("*.whl")
    return found


def test_a_wheel_holds_every_file(wheel: Path) -> None:
    held = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("hydrascope/")}
    files = (path for path in SOURCE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    assert held == {f"hydrascope/{path.relative_to(SOURCE).as_posix()}" for path in files}
    assert wheel.stat().st_size <= MOST_BYTES


@pytest.mark.slow
def test_a_wheel_works_alone(wheel: Path, tmp_path: Path) -> None:
    """Without the repository: in an environment that has the requirements, and hydrascope from the wheel."""
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    (packages,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    zipfile.ZipFile(wheel).extractall(packages)
    # A path that is named so is searched, and the editable install in it is not run.
    (packages / "requirements.pth").write_text(f"{sysconfig.get_path('purelib')}\n")

    def run(*arguments: str) -> str:
        command = [python, "-m", "hydrascope", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=500, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = subprocess.run(
        [python, "-c", "import hydrascope; print(hydrascope.__file__)"], cwd=tmp_path, capture_output=True, text=True
    )
    assert where.stdout.startswith(str(packages))
    run("demo", "--quick", "--limit", "20", "--out", "demo")
    run("run", "built-in", "--prompts", "demo", "--limit", "5", "--ablation", "zero", "--out", "a.zarr")
    assert "20 MLPs ablated" in run("summary", "a.zarr")
    run("report", "a.zarr", "--out", "a.html")
    assert (tmp_path / "a.html").stat().st_size > 100_000
    with subprocess.Popen(
        [python, "-u", "-m", "hydrascope", "explore", "built-in", "--no-browser"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            assert server.stdout is not None
            address = next(line.strip() for line in server.stdout if line.startswith("http"))
            with urllib.request.urlopen(address, timeout=60) as page:
                assert b"hydrascope" in page.read()
        finally:
            server.terminate()
