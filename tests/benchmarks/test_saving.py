"""save, seal and latest against what a user would otherwise run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ckpttool.testing.samples import run_files, training_state
from ckpttool.testing.writers import torch_file

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3600)]
pytest.importorskip("torch", reason="torch is not installed")

LARGE = (122, 4 << 20)  # 2 GB
TOOL = [sys.executable, "-m", "ckpttool"]


@pytest.mark.parametrize("layout", ["files", "folders"])
def test_latest_of_a_thousand(tmp_path: Path, versus, rows, layout) -> None:
    """Beside ``import torch``, which a script pays before it can even look."""
    if layout == "files":
        data = torch_file(training_state())
        for step in range(1000):
            (tmp_path / f"step-{step}.pth").write_bytes(data)
    else:
        for step in range(1000):
            (tmp_path / f"checkpoint-{step}").mkdir()
            for name, data in run_files().items():
                (tmp_path / f"checkpoint-{step}" / name).write_bytes(data)
    mine, theirs = versus([*TOOL, "latest", str(tmp_path)], [sys.executable, "-c", "import torch"], runs=7)
    rows.append(
        (
            f"latest of 1,000 {layout}",
            f"{mine:.2f} s",
            f"{theirs:.2f} s (`import torch`)",
            f"{theirs / mine:.1f} ×",
        )
    )
    assert mine < 1.0


def test_seal_two_gigabytes(saved, versus, rows) -> None:
    path = str(saved(*LARGE))
    mine, theirs = versus([*TOOL, "seal", path], ["sh", "-c", 'cat "$0" > /dev/null', path])
    rows.append(("seal, 2 GB", f"{mine:.2f} s", f"{theirs:.2f} s (`cat`)", f"{theirs / mine:.1f} ×"))
    assert mine < 4 * theirs
