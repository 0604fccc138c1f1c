"""What numbers depend on beside the state."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import ckpttool
from ckpttool.saving.environment import DECISIVE

torch = pytest.importorskip("torch", reason="torch is not installed")


def test_it_is_plain_data_that_a_checkpoint_takes(tmp_path: Path) -> None:
    found = ckpttool.environment()
    assert json.loads(json.dumps(found)) == found
    ckpttool.save({"environment": found}, tmp_path / "a.pth")
    assert ckpttool.load(tmp_path / "a.pth")["environment"] == found
    assert ckpttool.environment_changes(found) == []


def test_what_may_change_bits_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    found = ckpttool.environment()
    for name in found:
        lines = ckpttool.environment_changes({**found, name: "another"})
        assert lines == ([f"{name}: saved 'another', now {found[name]!r}"] if name in DECISIVE else [])
    assert ckpttool.environment_changes({}) == [f"{name}: saved None, now {found[name]!r}" for name in DECISIVE]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    assert ckpttool.environment_changes(found) == [f"threads: saved {found['threads']}, now 77"]


def test_no_repository_and_no_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from ckpttool.saving.environment import _revision

    _revision.cache_clear()
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "script.py")])
    assert _revision() == ""
    _revision.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert _revision() == ""
    _revision.cache_clear()
