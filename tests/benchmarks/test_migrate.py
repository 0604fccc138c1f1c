"""migrate against what a user would otherwise run: ``cp`` and ``sync``, and a script that loads, renames and saves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3600)]
pytest.importorskip("torch", reason="torch is not installed")

LAYERS, SIDE = 122, 2048  # 2 GB of square matrices
MIGRATE = [sys.executable, "-m", "ckpttool", "migrate", "--force", "-q"]

MAKE = """
import sys, torch
layers, side = map(int, sys.argv[2:])
torch.save({f"layers.{i}.weight": torch.randn(side, side) * 0.02 for i in range(layers)}, sys.argv[1])
"""
RENAME = """
import os, sys, torch
state = torch.load(sys.argv[1], weights_only=True)
torch.save({key.replace("layers.", "blocks."): value for key, value in state.items()}, sys.argv[2])
os.sync()
"""
TURN = """
import os, sys, torch
state = torch.load(sys.argv[1], weights_only=True)
torch.save({key: value.t().contiguous() for key, value in state.items()}, sys.argv[2])
os.sync()
"""
SPLIT = """
import os, sys, torch
state = torch.load(sys.argv[1], weights_only=True)
made = {}
for key, value in state.items():
    for part, name in zip(value.chunk(2, 1), "ab"):
        made[f"{key}.{name}"] = part.contiguous()
torch.save(made, sys.argv[2])
os.sync()
"""

RULES = {
    "rename": "- rename: 'layers.{i}.weight'\n  to: 'blocks.{i}.weight'\n",
    "turn": "- transpose: 'layers.{i}.weight'\n",
    "split": "- split: 'layers.{i}.weight'\n  into: ['layers.{i}.weight.a', 'layers.{i}.weight.b']\n  dim: 1\n",
}
SCRIPTS = {"rename": RENAME, "turn": TURN, "split": SPLIT}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("migrate")
    path = folder / "large.pth"
    subprocess.run([sys.executable, "-c", MAKE, str(path), str(LAYERS), str(SIDE)], check=True)
    for name, text in RULES.items():
        (folder / f"{name}.yaml").write_text(f"ckpttool: 1\nrules:\n{text}")
    return path


def row(work: str, other: str, mine: float, theirs: float) -> tuple[str, str, str, str]:
    return work, f"{mine:.2f} s", f"{theirs:.2f} s ({other})", f"{theirs / mine:.1f} ×"


def command(large: Path, name: str) -> list[str]:
    return [
        *MIGRATE,
        str(large),
        "-o",
        str(large.with_name("out.pth")),
        "--rules",
        str(large.with_name(f"{name}.yaml")),
    ]


def script(large: Path, name: str) -> list[str]:
    return [sys.executable, "-c", SCRIPTS[name], str(large), str(large.with_name("out.pth"))]


def test_renaming_is_a_copy(large, versus, rows):
    copy = ["sh", "-c", f"cp '{large}' '{large.with_name('out.pth')}' && sync '{large.with_name('out.pth')}'"]
    mine, theirs = versus(command(large, "rename"), copy, runs=3)
    rows.append(row("migrate 2 GB, other names", "cp and sync", mine, theirs))
    assert mine <= 1.15 * theirs


@pytest.mark.parametrize(("name", "words", "least"), [
    ("rename", "other names", 4), ("turn", "every matrix transposed", 1), ("split", "every matrix split", 1),
])  # fmt: skip
def test_faster_than_the_script(large, versus, rows, name, words, least):
    mine, theirs = versus(command(large, name), script(large, name), runs=3)
    rows.append(row(f"migrate 2 GB, {words}", "torch.load, torch.save", mine, theirs))
    assert theirs >= least * mine


@pytest.mark.parametrize("name", RULES)
def test_memory_is_that_of_one_tensor(large, peak, name):
    largest = 4 * SIDE * SIDE
    assert peak(command(large, name)) <= largest + (150 << 20)
