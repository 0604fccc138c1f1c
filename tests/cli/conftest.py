"""Running the command line inside this process, and small files to run it on."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from click.testing import CliRunner, Result

from ckpttool.cli import main
from ckpttool.errors import ExitCode
from ckpttool.model import Finding
from ckpttool.report import Findings, Report, Subject, Text

Run: TypeAlias = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in an empty folder; an exception that is not an exit fails the test."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> Result:
        result = CliRunner().invoke(main, [str(a) for a in arguments], prog_name="ckpttool")
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A safetensors file with two layers."""
    names = ["layers.0.weight", "layers.1.weight"]
    header = {n: {"dtype": "F32", "shape": [2], "data_offsets": [8 * i, 8 * i + 8]} for i, n in enumerate(names)}
    text = json.dumps(header).encode()
    path = tmp_path / "tiny.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + struct.pack("<4f", 0, 1, 2, float("nan")))
    return path


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Puts a small verb in place of the real one: paths named bad* have an error, gone* cannot be read."""
    asked: dict[str, Any] = {}

    def verify(paths: tuple[str, ...], **wishes: Any) -> Report:
        asked.update(wishes, paths=paths)
        subjects = tuple(map(_subject, paths))
        blocks = [block for s in subjects for block in (Text(s.path, "title"), Findings(s.findings))]
        codes = [2 if s.error else int(s.failed) for s in subjects]
        return Report("verify", {"targets": []}, tuple(blocks), ExitCode(max(codes)), subjects)

    monkeypatch.setattr("ckpttool.verbs.verify.verify", verify)
    return asked


def _subject(path: str) -> Subject:
    name = Path(path).name
    if name.startswith("gone"):
        return Subject(path, "unreadable", (), True, f"{path} – no such file or directory")
    if name.startswith("bad"):
        finding = Finding("CK102", "crc-mismatch", "error", "data/0", "recorded 0x1, computed 0x2")
        return Subject(path, "damaged", (finding,), True)
    return Subject(path, "exact", ())
