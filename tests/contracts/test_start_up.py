"""Starting costs the interpreter and click: what a command does not need is not imported."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import click
import pytest

SPY = """
import sys
before = set(sys.modules)
{body}
loaded = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(*sorted(loaded - sys.stdlib_module_names - {{"__mp_main__"}}), file=sys.stderr, sep="\\n")
"""
RUN = """
from ckpttool.cli import main
try:
    main({arguments!r})
except SystemExit as stop:
    assert stop.code == 0, stop.code
"""
CLICK = {"ckpttool", "click", "colorama"}  # colorama: click asks for it on Windows


def imported_by(body: str) -> set[str]:
    """The packages that `body` loads in a fresh interpreter, beyond the standard library."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SPY.format(body=body)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


@pytest.fixture(scope="module")
def main() -> click.Group:
    """The command group."""
    cli = pytest.importorskip("ckpttool.cli", reason="ckpttool.cli is not there yet")
    if not hasattr(cli, "main"):
        pytest.skip("ckpttool.cli has no main yet")
    return cli.main


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A safetensors file with one tensor."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    path = tmp_path / "tiny.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + struct.pack("<2f", 1, 2))
    return path


def test_the_package_imports_nothing_else() -> None:
    assert imported_by("import ckpttool") <= {"ckpttool"}


def test_the_command_line_imports_click_alone(main: click.Group) -> None:
    assert imported_by("import ckpttool.cli") <= CLICK


@pytest.mark.parametrize("arguments", [["--version"], ["--help"]], ids=" ".join)
def test_greetings_import_click_alone(main: click.Group, arguments: list[str]) -> None:
    assert imported_by(RUN.format(arguments=arguments)) <= CLICK


def test_inspect_imports_neither_torch_nor_numpy_nor_rich(main: click.Group, tiny: Path) -> None:
    if "inspect" not in main.list_commands(click.Context(main)):
        pytest.skip("`ckpttool inspect` is not there yet")
    assert imported_by(RUN.format(arguments=["inspect", str(tiny)])) <= CLICK


def test_migrate_by_names_imports_neither_torch_nor_numpy_nor_rich(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text("ckpttool: 1\nrules: [{rename: w, to: v}]\n")
    arguments = ["migrate", str(tiny), "--rules", str(tmp_path / "rules.yaml"), "-o", str(tmp_path / "new.safetensors")]
    assert not imported_by(RUN.format(arguments=arguments)) & {"torch", "numpy", "rich"}
    assert (tmp_path / "new.safetensors").exists()
