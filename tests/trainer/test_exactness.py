"""Interrupted anywhere, by anything, resumed as often as you like: bit for bit the uninterrupted run."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

LOOP, SAVE = "ckpttool.trainer.train", "ckpttool.saving.save"
STEPS = 30  # 22 steps are an epoch of digits; evaluation and saves fall on different ones
COMMON = ("--steps", STEPS, "--log-every", 1, "--eval-every", 9, "--save-every", 4, "--quiet")
RUNS = {
    "digits": ("--task", "digits", "--schedule", "onecycle", "--batch-size", 64, "--warmup", 5),
    "digits-sgd-bf16": ("--task", "digits", "--optimizer", "sgd", "--precision", "bf16", "--activation-checkpointing"),
    "gpt-fp16": ("--task", "gpt", "--precision", "fp16", "--accumulate", 2, "--batch-size", 2, "--warmup", 8),
    "tabular": ("--task", "tabular", "--eval-every", 3, "--patience", 100, "--save-every", 5),
}
# Where a run is struck: a function, and about how often it is called in a run.
PLACES = {
    "before a step": (f"{LOOP}.Boundary", STEPS),
    "between micro-batches": (f"{LOOP}.loss_of", STEPS),
    "before the optimizer": (f"{LOOP}.update", STEPS),
    "in an evaluation": (f"{LOOP}.evaluate", 4),
    "before a save": (f"{LOOP}.save", 6),
    "while writing": ("ckpttool.saving.stream.ProvedStream.write", 300),
    "before the rename": (f"{SAVE}.turn", 6),
    "after the rename": ("ckpttool.saving.store.CheckpointStore._let_go", 6),
}

Control = Callable[[str], Any]


@pytest.fixture(scope="module")
def control(trainers: Any, outcome: Any, tmp_path_factory: pytest.TempPathFactory) -> Control:
    """The uninterrupted run of each kind, made once."""
    known: dict[str, Any] = {}

    def get(kind: str) -> Any:
        if kind not in known:
            folder = tmp_path_factory.mktemp(kind)
            ended = trainers(folder, *COMMON, *RUNS[kind])
            assert ended.status == 0, ended.text
            known[kind] = outcome(folder)
        return known[kind]

    return get


SLOW = pytest.mark.slow
QUICK = ("digits", "SIGKILL")
WAYS = [(kind, do) for kind in RUNS for do in ("SIGKILL", "SIGTERM", "raise")]


def slow_but(*quick: Any, of: Iterable[Any]) -> list[Any]:
    """Parameters, of which these alone run by default."""
    return [pytest.param(*value, marks=() if value in quick else SLOW) for value in of]


@pytest.mark.parametrize(("kind", "do"), slow_but(QUICK, ("gpt-fp16", "SIGTERM"), of=WAYS))
def test_interrupted_anywhere(
    trainers: Any, outcome: Any, control: Control, tmp_path: Path, kind: str, do: str
) -> None:
    """Each place once in a random order, each time in a run that goes on from the last: up to eight resumes."""
    dice = random.Random(f"{kind} {do}")
    places = list(PLACES.values())
    dice.shuffle(places)
    for place, calls in places:
        workers = dice.choice((0, 0, 0, 1, 2))
        ended = trainers(
            tmp_path, *COMMON, *RUNS[kind], "--workers", workers, at=[place, dice.randint(1, max(1, calls // 4))], do=do
        )
        assert ended.status in {"SIGKILL": (-9, 0), "SIGTERM": (143, 0), "raise": (99, 0)}[do], ended.text
    ended = trainers(tmp_path, *COMMON, *RUNS[kind])
    assert ended.status == 0, ended.text
    assert outcome(tmp_path) == control(kind)


@pytest.mark.parametrize("step", slow_but((22,), of=[(1,), (21,), (22,), (23,)]))
def test_resumed_once(trainers: Any, outcome: Any, control: Control, tmp_path: Path, step: int) -> None:
    """After the first step, between, at the last batch of an epoch, at its end and after it."""
    ended = trainers(tmp_path, *COMMON, *RUNS["digits"], at=[f"{LOOP}.Boundary", step + 1], do="SIGTERM")
    assert ended.status == 143, ended.text
    assert trainers(tmp_path, *COMMON, *RUNS["digits"], "--workers", 2).status == 0
    assert outcome(tmp_path) == control("digits")


@SLOW
def test_resumed_ten_times(trainers: Any, outcome: Any, control: Control, tmp_path: Path) -> None:
    for _ in range(10):
        ended = trainers(tmp_path, *COMMON, *RUNS["gpt-fp16"], at=[f"{LOOP}.update", 3], do="SIGTERM")
        assert ended.status in (0, 143), ended.text
    assert trainers(tmp_path, *COMMON, *RUNS["gpt-fp16"]).status == 0
    assert outcome(tmp_path) == control("gpt-fp16")


def test_killed_from_outside_at_any_time(trainers: Any, outcome: Any, control: Control, tmp_path: Path) -> None:
    dice = random.Random(7)
    for number in range(6):
        pid = trainers.start(tmp_path, *COMMON, *RUNS["digits"])
        time.sleep(dice.uniform(0.1, 0.9))
        os.kill(pid, (signal.SIGKILL, signal.SIGTERM)[number % 2])
        trainers.wait(pid)
    assert trainers(tmp_path, *COMMON, *RUNS["digits"]).status == 0
    assert outcome(tmp_path) == control("digits")


@pytest.mark.parametrize("harm", slow_but(("cut",), of=[("cut",), ("zeros",), ("empty",), ("gone",), ("manifest",)]))
def test_power_is_lost(trainers: Any, outcome: Any, control: Control, tmp_path: Path, harm: str) -> None:
    """The newest file is what a disk without fsync would have left: the one before it is taken, and it is said."""
    trainers(tmp_path, *COMMON, *RUNS["digits"], at=[f"{LOOP}.update", 11], do="SIGKILL")
    newest = sorted(tmp_path.glob("*.pth"))[-1]
    size = newest.stat().st_size
    if harm == "cut":
        os.truncate(newest, size // 2)
    elif harm == "zeros":
        newest.write_bytes(newest.read_bytes()[: size // 2] + bytes(size - size // 2))
    elif harm == "empty":
        newest.write_bytes(b"")
    elif harm == "gone":
        newest.unlink()
    else:
        newest.with_name(f"{newest.name}.manifest.json").write_text("{")
    ended = trainers(tmp_path, *COMMON[:-1], *RUNS["digits"])
    assert ended.status == 0, ended.text
    if harm in ("cut", "zeros", "empty"):
        assert f"skipped {newest.name}" in ended.text
    assert outcome(tmp_path) == control("digits")


# --- what must not change the trajectory ----------------------------------------------------------------------------


def losses(found: Any) -> list[tuple[str, str, str]]:
    rows = [dict(row) for row in found.rows]
    return [(row["step"], row["loss"], row["gradient_norm"]) for row in rows if row["loss"]]


BESIDE = [
    ("--save-every", 1, "--keep", 1), ("--eval-every", 1), ("--workers", 2), ("--save-every", 0), ("--eval-every", 0),
    ("--save-every", 2, "--save-async"), ("--save-every", 0, "--save-every-seconds", 0.05), ("--save-budget", "50%"),
]  # fmt: skip


@pytest.mark.parametrize(
    "options", [pytest.param(o, marks=SLOW if n > 2 else (), id=" ".join(map(str, o))) for n, o in enumerate(BESIDE)]
)
def test_saving_evaluating_and_workers_change_nothing(
    trainers: Any, outcome: Any, control: Control, tmp_path: Path, options: tuple[str | int, ...]
) -> None:
    ended = trainers(tmp_path, *COMMON, *RUNS["digits"], *options)
    assert ended.status == 0, ended.text
    found = outcome(tmp_path)
    assert losses(found) == losses(control("digits"))
    parts = {"model", "optimizer", "scheduler", "ema", "data", "rng"}
    assert {part: found.digests[part] for part in parts} == {part: control("digits").digests[part] for part in parts}


def test_logging_less_changes_nothing(trainers: Any, outcome: Any, control: Control, tmp_path: Path) -> None:
    assert trainers(tmp_path, *COMMON, *RUNS["digits"], "--log-every", 1000).status == 0
    assert outcome(tmp_path).digests == control("digits").digests


def test_a_background_save_that_is_killed(trainers: Any, outcome: Any, control: Control, tmp_path: Path) -> None:
    for call in (40, 90):
        place = "ckpttool.saving.stream.ProvedStream.write"
        trainers(tmp_path, *COMMON, *RUNS["digits"], "--save-async", at=[place, call], do="SIGKILL")
    assert trainers(tmp_path, *COMMON, *RUNS["digits"], "--save-async").status == 0
    assert outcome(tmp_path) == control("digits")


@SLOW
@pytest.mark.parametrize("kind", RUNS)
def test_stopped_around_everything_that_happens(
    trainers: Any, outcome: Any, control: Control, tmp_path: Path, kind: str
) -> None:
    """The first and the last step, the end of warm-up, saves, evaluations, drops of the rate, ends of epochs."""
    for step in (1, 4, 5, 8, 9, 10, 21, 22, 23, STEPS - 1):
        folder = tmp_path / str(step)
        trainers(folder, *COMMON, *RUNS[kind], at=[f"{LOOP}.Boundary", step + 1], do="SIGTERM")
        assert trainers(folder, *COMMON, *RUNS[kind], "--workers", step % 3).status == 0
        assert outcome(folder) == control(kind), step
        shutil.rmtree(folder)


@SLOW
def test_compiled(trainers: Any, outcome: Any, tmp_path: Path) -> None:
    if shutil.which("c++") is None and shutil.which("g++") is None:
        pytest.skip("torch.compile needs a C++ compiler")
    options = ("--task", "tabular", "--compile", *COMMON)
    assert trainers(tmp_path / "a", *options).status == 0
    trainers(tmp_path / "b", *options, at=[f"{LOOP}.update", 13], do="SIGTERM")
    assert trainers(tmp_path / "b", *options).status == 0
    assert outcome(tmp_path / "a") == outcome(tmp_path / "b")
