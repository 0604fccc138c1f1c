"""Changes by powers of ten, on files."""

from __future__ import annotations

import struct
from pathlib import Path

from ckpttool.formats import describe
from ckpttool.measure.magnitudes import FAINTEST, MOST, SAMPLE, magnitudes
from ckpttool.model import Checkpoint
from ckpttool.testing.plain import tensor
from ckpttool.testing.writers import torch_file


def written(path: Path, *numbers: list[float]) -> Checkpoint:
    values = {f"t{i}": tensor((len(run),), struct.pack(f"<{len(run)}f", *run)) for i, run in enumerate(numbers)}
    path.write_bytes(torch_file(values))
    return describe(str(path))


def pairs(a: Checkpoint, b: Checkpoint) -> list[tuple[int, int]]:
    return [(x.index, y.index) for (x, _), (y, _) in zip(a.tensors(), b.tensors(), strict=True)]


def test_changed_finite_elements_are_counted(tmp_path: Path) -> None:
    nan, inf = float("nan"), float("inf")
    a = written(tmp_path / "a.pth", [0, 0, 0, 1, nan, 0, 5], [0])
    b = written(tmp_path / "b.pth", [2, 3, -0.05, 1, 1, inf, 1e-40], [1e-30])
    assert magnitudes(a, b, pairs(a, b)) == {FAINTEST: 1, -2: 1, 0: 3}
    assert magnitudes(a, a, pairs(a, a)) == {}
    assert magnitudes(a, b, []) == {}


def test_a_sample_is_looked_at(tmp_path: Path) -> None:
    size = SAMPLE + 10
    a, b = written(tmp_path / "a.pth", [0.0] * size), written(tmp_path / "b.pth", [2.0] * size)
    assert magnitudes(a, b, pairs(a, b)) == {0: SAMPLE}
    assert magnitudes(a, b, pairs(a, b) * (3 * MOST)) == {0: SAMPLE * MOST}


def test_a_file_that_ends_early_is_no_error(tmp_path: Path) -> None:
    a = written(tmp_path / "a.pth", [1.0, 2.0])
    b = written(tmp_path / "b.pth", [1.0, 3.0])
    (tmp_path / "b.pth").write_bytes((tmp_path / "b.pth").read_bytes()[:10])
    assert magnitudes(a, b, pairs(a, b)) == {}
