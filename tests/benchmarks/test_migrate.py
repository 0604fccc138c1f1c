"""migrate against what a user would otherwise run: ``cp`` and ``sync``, and a script that loads, renames and saves."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3600)]
pytest.importorskip("torch", reason="torch is not installed")

LAYERS, SIDE = 122, 2048  # 2 GB of square matrices
RUNS = 3
MIGRATE = [sys.executable, "-m", "ckpttool", "migrate", "--force", "-q"]

MAKE = """
import sys, torch
layers, side = map(int, sys.argv[2:])
torch.save({f"layers.{i}.weight": torch.randn(side, side) * 0.02 for i in range(layers)}, sys.argv[1])
"""
LOAD = """
import os, sys, torch
state = torch.load(sys.argv[1], weights_only=True)
"""
SAVE = """
torch.save(made, sys.argv[2])
"""
SYNC = """
with open(sys.argv[2], "rb+") as file:
    os.fsync(file.fileno())
"""
RENAME = """
made = {key.replace("layers.", "blocks."): value for key, value in state.items()}
"""
TURN = """
made = {key: value.t().contiguous() for key, value in state.items()}
"""
SPLIT = """
made = {}
for key, value in state.items():
    for part, name in zip(value.chunk(2, 1), "ab"):
        made[f"{key}.{name}"] = part.contiguous()
"""

RULES = {
    "rename": "- rename: 'layers.{i}.weight'\n  to: 'blocks.{i}.weight'\n",
    "turn": "- transpose: 'layers.{i}.weight'\n",
    "split": "- split: 'layers.{i}.weight'\n  into: ['layers.{i}.weight.a', 'layers.{i}.weight.b']\n  dim: 1\n",
}
SCRIPTS = {"rename": RENAME, "turn": TURN, "split": SPLIT}
WORDS = {"rename": "other names", "turn": "every matrix transposed", "split": "every matrix split"}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("migrate")
    path = folder / "large.pth"
    subprocess.run([sys.executable, "-c", MAKE, str(path), str(LAYERS), str(SIDE)], check=True)
    return path


def row(work: str, other: str, mine: float, theirs: float) -> tuple[str, str, str, str]:
    return work, f"{mine:.2f} s", f"{theirs:.2f} s ({other})", f"{theirs / mine:.1f} ×"


def command(source: Path, name: str) -> list[str]:
    rules = source.with_name(f"{name}.yaml")
    rules.write_text(f"ckpttool: 1\nrules:\n{RULES[name]}")
    return [*MIGRATE, str(source), "-o", str(source.with_name("out.pth")), "--rules", str(rules)]


def script(source: Path, name: str, *, sync: bool = True) -> list[str]:
    code = f"{LOAD}{SCRIPTS[name]}{SAVE}{SYNC if sync else ''}"
    return [sys.executable, "-c", code, str(source), str(source.with_name("out.pth"))]


def test_renaming_is_a_copy(large, versus, rows):
    out = large.with_name("out.pth")
    copy = ["sh", "-c", f"cp '{large}' '{out}' && sync '{out}'"]
    mine, theirs = versus(command(large, "rename"), copy, runs=RUNS)
    rows.append(row("migrate 2 GB, other names", "`cp` and `sync`", mine, theirs))
    assert mine <= 1.15 * theirs


@pytest.mark.parametrize(("name", "least"), [("rename", 4), ("turn", 1), ("split", 1)])
def test_faster_than_the_script(large, versus, rows, name, least):
    """Like with like: what was written is on the disk in the end, here and there."""
    mine, theirs = versus(command(large, name), script(large, name), runs=RUNS)
    other = "`torch.load`, `torch.save`, `fsync`"
    rows.append(row(f"migrate 2 GB, {WORDS[name]}", other, mine, theirs))
    assert theirs >= least * mine


def test_faster_than_a_script_that_leaves_its_file_to_the_cache(large, versus, rows):
    mine, theirs = versus(command(large, "rename"), script(large, "rename", sync=False), runs=RUNS)
    rows.append(row("migrate 2 GB, other names", "`torch.load`, `torch.save`, nothing flushed", mine, theirs))
    assert theirs >= mine


@pytest.mark.parametrize("name", RULES)
def test_memory_is_that_of_one_tensor(large, peak, rows, name):
    largest = 4 * SIDE * SIDE
    mine, theirs = peak(command(large, name)), peak(script(large, name))
    other = f"{theirs >> 20} MB (`torch.load`, `torch.save`)"
    rows.append((f"peak memory of migrate, {WORDS[name]}", f"{mine >> 20} MB", other, f"{theirs / mine:.1f} ×"))
    assert mine <= largest + (150 << 20)


def processor_time(call: list[str]) -> float:
    """The least of three runs, in seconds of processor time, which others on the machine lengthen little."""
    found = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(call, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(found)


def test_time_grows_with_the_number_of_tensors(saved, rows):
    many, few = (processor_time(command(saved(number, 16), "rename")) for number in (100_000, 10_000))
    rows.append(row("migrate 100 000 tensors, processor time", "10 000 of them", many, few))
    assert many <= 11 * few


def test_many_tensors_cost_less_than_twice_the_script(saved, rows):
    source = saved(100_000, 16)
    mine, theirs = (processor_time(call) for call in (command(source, "rename"), script(source, "rename")))
    rows.append(row("migrate 100 000 tensors, processor time", "`torch.load`, `torch.save`", mine, theirs))
    assert mine <= 2 * theirs
