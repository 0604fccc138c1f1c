"""The bar appears for long work only, and goes away."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from ckpttool.cli import progress
from ckpttool.cli.progress import progress_bar


def test_none_where_none_is_wanted() -> None:
    with progress_bar(False) as bar:
        assert bar is None


def test_a_moment_of_work_does_not_even_import_rich() -> None:
    code = (
        "import sys; from ckpttool.cli.progress import progress_bar\n"
        "with progress_bar(True) as bar: bar(1, 2); bar(2, 2)\n"
        "assert 'rich' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_long_work_shows_a_bar_from_any_thread(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "PATIENCE", 0)
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress_bar(True) as bar, ThreadPoolExecutor(2) as pool:
        assert bar is not None
        list(pool.map(lambda done: bar(done, 3_000_000), range(0, 3_000_001, 500_000)))
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "/3.0 MB" in shown.err
    assert shown.err.endswith("\x1b[2K"), "the bar was left on the screen"
