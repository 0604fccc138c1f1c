"""What users install: the wheel alone, with no development dependency around."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow  # builds, and installs the runtime dependencies from pip's index


def run(*command: str | Path) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT)
    (path,) = folder.glob("*.whl")
    return path


def test_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.split("/")[0].split("-")[0] for name in names} == {"ckpttool"}
    assert "ckpttool/py.typed" in names
    presets = {f"ckpttool/presets/{path.name}" for path in (ROOT / "ckpttool" / "presets").glob("*.yaml")}
    assert presets
    assert presets <= names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_holds_the_compiled_kernel_where_there_is_a_compiler(wheel: Path) -> None:
    if sys.platform == "win32" or not any(map(shutil.which, ("cc", "gcc", "clang"))):
        pytest.skip("no C compiler here")
    assert {"ckpttool/_kernel.so", "ckpttool/measure/_sweep.so"} <= set(zipfile.ZipFile(wheel).namelist())


def test_without_a_compiler_the_wheel_is_pure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CKPTTOOL_NATIVE", "0")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, ROOT)
    (path,) = tmp_path.glob("*-py3-none-any.whl")
    assert not any(name.endswith(".so") for name in zipfile.ZipFile(path).namelist())


def test_runs_with_its_declared_dependencies_alone(wheel: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", tmp_path)
    folder = tmp_path / ("Scripts" if sys.platform == "win32" else "bin")
    run(folder / "python", "-m", "pip", "install", "--quiet", wheel)
    run(folder / "python", "-m", "pip", "check")
    assert run(folder / "ckpttool", "--version").strip()
    assert "verify" in run(folder / "ckpttool", "--help")
