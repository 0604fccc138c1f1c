"""What a run meets: disks that fill up, clocks that jump, states that were tampered with, hours of training."""

from __future__ import annotations

import copy
import io
import itertools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ckpttool import CheckpointStore, UsageError, WriteFailed, load

torch = pytest.importorskip("torch", reason="torch is not installed")

from ckpttool.cli.train import progress  # noqa: E402
from ckpttool.trainer import optim  # noqa: E402 - it needs torch
from ckpttool.trainer.checkpoints import Saver  # noqa: E402
from ckpttool.trainer.config import make_config  # noqa: E402
from ckpttool.trainer.signals import Signals  # noqa: E402
from ckpttool.trainer.state import TrainState  # noqa: E402
from ckpttool.trainer.tasks import load_task  # noqa: E402
from ckpttool.trainer.train import Result, fresh_state, set_up, train  # noqa: E402

SLOW = pytest.mark.slow
pytestmark = pytest.mark.usefixtures("environment_put_back")
SHORT = {
    "task": "tabular", "steps": 12, "eval_every": 4, "save_every": 4, "log_every": 1, "progress": False, "keep": 9,
}  # fmt: skip


def run(folder: Path, **settings: Any) -> Result:
    return train(make_config({**SHORT, **settings}), folder)


LONG = {"steps": 60, "eval_every": 0, "save_every": 50}
"""Longer than the log has room for in the page that it has."""


def steps(folder: Path) -> list[int]:
    return [step for step, _ in CheckpointStore(folder, readonly=True).steps()]


def fill(disk: Path, room: int) -> Path:
    filler = disk / "filler"
    filler.write_bytes(b"x" * (shutil.disk_usage(disk).free - room))
    return filler


# --- disks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("room", [0, 20_000])
def test_a_full_disk_stops_the_run_and_the_last_checkpoint_stays(
    small_disk: Path, tmp_path: Path, outcome: Any, room: int
) -> None:
    """With no room for a line of the log, and with room for that alone."""
    run(tmp_path / "whole", **LONG)
    run(small_disk / "run", **{**LONG, "steps": 5})
    filler = fill(small_disk, room)
    with pytest.raises(WriteFailed, match=r"cannot be written: (the disk is full|No space left)"):
        run(small_disk / "run", **LONG)
    assert steps(small_disk / "run") == [5]
    filler.unlink()
    run(small_disk / "run", **LONG)
    assert outcome(small_disk / "run") == outcome(tmp_path / "whole")


def test_a_full_disk_does_not_stop_a_run_that_is_to_go_on(
    small_disk: Path, tmp_path: Path, outcome: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is saved while it is full; then there is room, and the log has every row."""
    run(tmp_path / "whole", **LONG)
    run(small_disk / "run", **{**LONG, "steps": 5})
    filler = fill(small_disk, 0)
    save = Saver.save

    def make_room(saver: Saver, state: TrainState, *more: Any) -> None:
        if state.counters.step == 60:
            filler.unlink()
        save(saver, state, *more)

    monkeypatch.setattr(Saver, "save", make_room)
    with (
        pytest.warns(UserWarning, match="rows wait until there is room"),
        pytest.warns(UserWarning, match="not saved, training goes on"),
    ):
        result = run(small_disk / "run", **LONG, on_full_disk="go-on")
    assert result.why == "all steps done"
    assert steps(small_disk / "run") == [5, 60]
    whole, mine = outcome(tmp_path / "whole"), outcome(small_disk / "run")
    assert mine.digests == whole.digests
    assert mine.rows == whole.rows


def test_a_disk_that_may_only_be_read(small_disk: Path) -> None:
    run(small_disk / "run", steps=4)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(WriteFailed, match=r"[Rr]ead-only"):
        run(small_disk / "run")


# --- clocks -----------------------------------------------------------------------------------------------------------


def test_a_clock_that_jumps_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The date goes days forth and back at every look; what counts seconds is another clock."""
    days = itertools.cycle((1e6, -1e6, 5e8, 0.0))
    monkeypatch.setattr(time, "time", lambda: 1.8e9 + next(days))
    monkeypatch.setattr(time, "time_ns", lambda: int((1.8e9 + next(days)) * 1e9))
    run(tmp_path / "a", save_every=0, save_every_seconds=3600.0, keep_best=0)
    assert steps(tmp_path / "a") == [12]
    passed = itertools.count(0.0, 100.0)
    monkeypatch.setattr(time, "monotonic", lambda: next(passed))
    run(tmp_path / "b", save_every=0, save_every_seconds=1000.0, keep_best=0)
    assert 1 < len(steps(tmp_path / "b")) < 12


def test_a_budget_counts_every_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step takes a second and a save three; half of them are asked for otherwise, and all come out of one budget."""
    now, taken = 0.0, 0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    config = make_config({**SHORT, "save_budget": "10%", "save_every": 0})
    state = fresh_state(config, load_task(config))
    with Signals() as signals, Saver(tmp_path, config, signals, lower=True) as saver:

        def written(*_: Any) -> None:
            nonlocal now, taken
            now, taken = now + 3.0, taken + 1

        monkeypatch.setattr(saver, "_done", written)
        for step in range(1000):
            now += 1.0
            if saver.due(state, epoch_ended=False, is_best=step % 70 == 0):
                saver.save(state)
        assert 3 * taken <= 0.1 * now + 3
        assert 3 * taken >= 0.09 * now
        assert f"{taken} saves of 3000 ms took" in saver.costs.advice()


def test_no_budget_asks_for_no_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = itertools.count(0.0, 100.0)
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    run(tmp_path, save_every=5, keep_best=0, keep=9)
    assert steps(tmp_path) == [5, 10, 12]


# --- environments -----------------------------------------------------------------------------------------------------


@SLOW
def test_another_processor_is_noticed(tmp_path: Path) -> None:
    """A resume without the wide instructions goes on, and says what the bits may owe to it."""
    run(tmp_path, steps=4)
    command = [sys.executable, "-m", "ckpttool.trainer", "--task", "tabular", "--out", str(tmp_path)]
    command += ["--steps", "8", "--eval-every", "4", "--save-every", "4"]
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": "default"}
    ended = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    if torch.backends.cpu.get_cpu_capability() != "DEFAULT":
        assert "isa: saved" in ended.stderr
        assert "now 'DEFAULT'" in ended.stderr
    assert steps(tmp_path) == [4, 8]


# --- metrics ----------------------------------------------------------------------------------------------------------


def test_it_stops_when_nothing_gets_better(tmp_path: Path) -> None:
    """Nothing is learned at a rate of 0, so the first evaluation stays the best one; more patience goes on."""
    still = {"lr": 0.0, "eval_every": 2, "steps": 40, "schedule": "constant"}
    result = run(tmp_path, **still, patience=3)
    assert (result.why, result.counters.step, result.counters.best_step) == ("no better metric", 8, 2)
    assert steps(tmp_path)[-1] == 8
    assert run(tmp_path, **still, patience=3).counters.step == 8
    result = run(tmp_path, **still, patience=5)
    assert (result.why, result.counters.step, result.counters.best_step) == ("no better metric", 12, 2)


@pytest.mark.parametrize(("task", "best"), [("digits", max), ("tabular", min)])
def test_the_best_checkpoint_stays(tmp_path: Path, task: str, best: Callable[..., int]) -> None:
    result = run(tmp_path, task=task, eval_every=2, keep=1, keep_best=1, batch_size=32, lr=0.02)
    metrics = CheckpointStore(tmp_path, readonly=True).metrics()
    wanted = best(metrics, key=lambda step: metrics[step])
    assert metrics[wanted] == result.counters.best
    assert {wanted, 12} == set(steps(tmp_path)) | {wanted}
    assert wanted in steps(tmp_path)


def test_steps_whose_gradients_overflow_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outcome: Any
) -> None:
    made = torch.amp.GradScaler
    monkeypatch.setattr(
        optim.torch.amp, "GradScaler", lambda *a, **wishes: made(*a, **{**wishes, "init_scale": 2.0**40})
    )
    long = {"precision": "fp16", "schedule": "cosine", "steps": 40, "save_every": 5}
    run(tmp_path / "whole", **long)
    state = load(tmp_path / "whole" / "step-00000040.pth")
    assert 10 < state["counters"]["skipped"] < 40
    assert state["scheduler"]["last_epoch"] == 40 - state["counters"]["skipped"]
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    for step in steps(tmp_path / "cut")[1:]:
        (tmp_path / "cut" / f"step-{step:08d}.pth").unlink()
    run(tmp_path / "cut", **long)
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")


# --- what a person sees -----------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    """What stands for a terminal, or for a file."""

    def __init__(self, is_one: bool) -> None:
        super().__init__()
        self.isatty = lambda: is_one  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("terminal", "wanted", "shown"), [(True, True, True), (False, True, False), (True, False, False)]
)
def test_progress_is_for_terminals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, terminal: bool, wanted: bool, shown: bool
) -> None:
    screen = Terminal(terminal)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with progress(make_config({**SHORT, "progress": wanted}), wanted=True) as watch:
        train(make_config(SHORT), tmp_path, watch)
    assert ("12/12" in screen.getvalue()) == shown
    assert shown or not screen.getvalue()


def test_the_advice_names_the_classic_optimum(tmp_path: Path) -> None:
    (note,) = (note for note in run(tmp_path, failures_every=3600.0).notes if "saves of" in note)
    saves = float(note.split(" saves of ")[1].split(" ms")[0]) / 1e3
    best = float(note.split("a save every ")[1].split(" s")[0])
    assert "with a failure every 3600 s" in note
    assert best == pytest.approx((2 * saves * 3600) ** 0.5, rel=0.2, abs=1)


# --- states -----------------------------------------------------------------------------------------------------------


def places(tree: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to everything in nested containers."""
    if isinstance(tree, (dict, list, tuple)):
        for key in tree if isinstance(tree, dict) else range(len(tree)):
            yield (*at, key)
            yield from places(tree[key], (*at, key))


def changed(tree: Any, at: tuple[Any, ...], act: Callable[[Any, Any], None]) -> Any:
    """A copy in which something was done to what lies there; the rest is not copied."""
    made = holder = copy.copy(tree)
    for key in at[:-1]:
        holder[key] = copy.copy(holder[key])
        holder = holder[key]
    act(holder, at[-1])
    return made


def other(value: Any) -> Any:
    """The same kind of thing, and not the same."""
    if isinstance(value, torch.Tensor):
        return value ^ 1 if value.dtype in (torch.uint8, torch.bool) else value + 1
    if isinstance(value, bool):
        return not value
    if value == float("inf"):
        return 0.5
    return {type(None): lambda: 1.5, str: lambda: f"{value}x"}.get(type(value), lambda: value + 1)()


def dropped(holder: Any, key: Any) -> None:
    del holder[key]


def replaced(holder: Any, key: Any) -> None:
    holder[key] = other(holder[key])


def another_kind(holder: Any, key: Any) -> None:
    holder[key] = "text" if not isinstance(holder[key], str) else 7


def intruder(holder: Any, key: Any) -> None:
    if isinstance(holder[key], dict):
        holder[key] = {**holder[key], "intruder": 1}
    else:
        holder["intruder"] = 1


RECORDS = ("environment", "config")
"""What a checkpoint says of the run, and no part of its state: looked at before it is restored."""


@pytest.fixture(scope="module")
def captured(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainState, Any]:
    """A state to restore to, and one that was saved."""
    folder = tmp_path_factory.mktemp("run")
    settings = {"optimizer": "adamw", "precision": "fp16", "schedule": "plateau"}
    run(folder, **settings, steps=4)
    config = make_config({**SHORT, **settings, "steps": 4})
    set_up(config)
    return fresh_state(config, load_task(config)), load(folder / "step-00000004.pth")


@pytest.mark.parametrize("act", [dropped, replaced, *(pytest.param(f, marks=SLOW) for f in (another_kind, intruder))])
def test_nothing_in_a_state_is_passed_over(captured: tuple[TrainState, Any], act: Any) -> None:
    """Whatever is taken, added or changed, wherever: the restore refuses, in words."""
    state, saved = captured
    state.restore(saved)
    silent, count = [], 0
    for at in places(saved):
        holder = saved
        for key in at[:-1]:
            holder = holder[key]
        value = holder[at[-1]]
        if at[0] in RECORDS or at == ("counters", "resumes") or "python" in at[:-1]:  # 625 numbers: one is enough
            continue
        if isinstance(holder, tuple) or (act is replaced and isinstance(value, (dict, list, tuple))):
            continue
        if act is intruder and not (isinstance(holder, dict) or isinstance(value, dict)):
            continue
        count += 1
        try:
            state.restore(changed(saved, at, act))
        except UsageError:
            continue
        except Exception as error:  # a person would get a traceback
            silent.append((at, repr(error)[:90]))
        else:
            silent.append((at, "restored"))
    assert silent == []
    assert count > 50
    state.restore(saved)


def test_a_part_that_is_lost_on_the_way_is_seen(
    captured: tuple[TrainState, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    state, saved = captured
    monkeypatch.setattr("ckpttool.trainer.state.load_named_state", lambda *_: None)
    state.optimizer.state.clear()
    with pytest.raises(UsageError, match="restored otherwise than it was saved: optimizer; nothing"):
        state.restore(saved)


# --- hours ------------------------------------------------------------------------------------------------------------


@SLOW
def test_memory_stays_flat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand steps with evaluations, saves, logs and epochs: not a megabyte more than after two thousand."""
    status = Path("/proc/self/statm")
    if not status.exists():
        pytest.skip("memory is read from /proc")
    known: dict[int, int] = {}
    save = Saver.save

    def note(saver: Saver, state: TrainState, *more: Any) -> None:
        save(saver, state, *more)
        known[state.counters.step] = int(status.read_text().split()[1]) * 4096

    monkeypatch.setattr(Saver, "save", note)
    run(tmp_path, steps=10_000, batch_size=8, save_every=500, eval_every=500, log_every=10, keep=2, patience=0)
    assert max(known) == 10_000
    late = max(size for step, size in known.items() if step > 2000)
    assert late - known[2000] < 1 << 20, known
