"""Every fault breaks what it says, at the time it says; and without one nothing differs."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ckpttool import CheckpointStore, UsageError

torch = pytest.importorskip("torch", reason="torch is not installed")

from ckpttool.trainer.config import make_config  # noqa: E402 - it needs torch
from ckpttool.trainer.data import Plan, Position  # noqa: E402
from ckpttool.trainer.faults import FAULTS, Faults  # noqa: E402
from ckpttool.trainer.state import TrainState, digests  # noqa: E402
from ckpttool.trainer.tasks import load_task  # noqa: E402
from ckpttool.trainer.train import fresh_state, set_up, train  # noqa: E402

# What torch says of itself while it imports its compiler and its distributed checkpoints.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*", "ignore::FutureWarning:torch.*"),
    pytest.mark.usefixtures("environment_put_back"),
]
SLOW = pytest.mark.slow

CUT, STEPS = 26, 34  # in the second epoch of digits, not at its start
SETTINGS: dict[str, dict[str, Any]] = {
    "digits": {"task": "digits", "batch_size": 64, "warmup": 5},
    "gpt": {"task": "gpt", "batch_size": 4},
    "tabular": {"task": "tabular", "eval_every": 3},
    "fp16": {"task": "tabular", "precision": "fp16", "eval_every": 3, "schedule": "cosine"},
    "accumulate": {"task": "tabular", "accumulate": 2, "schedule": "cosine"},
}
NEEDS = {
    "untied": "gpt", "compiled": "tabular", "plateau-lost": "tabular", "scaler-lost": "fp16",
    "growth-tracker-lost": "fp16", "gradients-lost": "accumulate",
}  # fmt: skip
"""The run that a fault needs, where it is not that of digits."""

PARTS = ("model", "optimizer", "scheduler", "scaler", "ema", "counters", "data", "rng")
Cut = Callable[[str], Path]


def settings(kind: str, **more: Any) -> dict[str, Any]:
    base = {"steps": STEPS, "log_every": 1, "eval_every": 10, "save_every": CUT, "progress": False, "keep": 9}
    return {**base, **SETTINGS[kind], **more}


def losses(folder: Path) -> dict[int, tuple[str, str]]:
    with (folder / "log.csv").open(newline="") as file:
        return {int(row["step"]): (row["loss"], row["lr"]) for row in csv.DictReader(file) if row["loss"]}


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Cut:
    """A folder with an uninterrupted run's log, whose only checkpoint is that of the cut; one for each kind."""
    known: dict[str, Path] = {}

    def get(kind: str) -> Path:
        if kind not in known:
            folder = known[kind] = tmp_path_factory.mktemp(kind)
            train(make_config(settings(kind)), folder / "whole")
            (folder / "cut").mkdir()
            for suffix in (".pth", ".pth.manifest.json"):
                shutil.copy2(folder / "whole" / f"step-{CUT:08d}{suffix}", folder / "cut")
        return known[kind]

    return get


def resumed(
    cut: Cut, tmp_path: Path, kind: str, inject: str
) -> tuple[dict[int, tuple[str, str]], dict[int, tuple[str, str]]]:
    """The losses of the whole run and of one that was resumed with a fault."""
    folder = cut(kind)
    shutil.copytree(folder / "cut", tmp_path / "run")
    train(make_config(settings(kind, inject=inject)), tmp_path / "run")
    return losses(folder / "whole"), losses(tmp_path / "run")


def restored(cut: Cut, kind: str, inject: str = "") -> TrainState:
    """The state after a resume, faults included."""
    config = make_config(settings(kind))
    set_up(config)
    parts = load_task(config)
    state = fresh_state(config, parts)
    with CheckpointStore(cut(kind) / "cut", readonly=True) as store:
        found = store.load_latest()
    assert found is not None
    state.restore(found.state)
    state.counters.resumes = 2
    Faults(inject).after_resume(state, parts)
    return state


@pytest.mark.parametrize("kind", SETTINGS)
def test_the_control_is_exact(cut: Cut, tmp_path: Path, kind: str) -> None:
    whole, again = resumed(cut, tmp_path, kind, "")
    assert again == {step: row for step, row in whole.items() if step > CUT}


ALONE = {name: fault for name, fault in FAULTS.items() if not name.startswith("rank-")}
"""Those that need no other process; `test_distributed` has the others."""
AT_RESUME = [name for name, fault in ALONE.items() if fault.when in ("resume", "second resume")]


@pytest.mark.parametrize("name", AT_RESUME)
def test_what_is_restored_differs_in_the_part_that_is_named(cut: Cut, name: str) -> None:
    kind, first = NEEDS.get(name, "digits"), FAULTS[name].first
    before = digests(restored(cut, kind).parts())
    after = digests(restored(cut, kind, name).parts())
    differ = [part for part in PARTS if before[part] != after[part]]
    if first in PARTS:
        # A schedule that starts again takes the rate with it.
        assert first in differ
        assert set(differ) <= {first, "optimizer"} | ({"rng"} if name == "scheduler-lost" else set())
    else:
        assert differ == []


STREAM = [name for name, fault in ALONE.items() if fault.when in ("order", "every order")]


@pytest.mark.parametrize("name", STREAM)
def test_what_the_stream_yields_differs_in_what_is_named(name: str) -> None:
    plan, at = Plan(1438, 64, 0), Position(1, 4)
    faults = Faults(name)
    faults.resumed = True
    made = faults.order(plan, at)
    exact = plan.batches_from(at)
    found, wanted = [next(made) for _ in range(40)], [next(exact) for _ in range(40)]
    ids = [[index for _, index in chosen] for chosen in found]
    same_ids = ids == [[index for _, index in chosen] for chosen in wanted]
    assert found != wanted
    assert same_ids == (FAULTS[name].first == "batch contents")
    assert (found[0] != wanted[0]) == (FAULTS[name].loss == "+0")
    assert Faults(name).order(plan, at).__next__() == wanted[0] or FAULTS[name].when == "every order"


ELSEWHERE = ("save", "evaluate", "start", "saved", "second resume", "restart")
IN_A_RUN = [name for name, fault in ALONE.items() if fault.when not in ELSEWHERE]


@SLOW
@pytest.mark.parametrize("name", [n for n in IN_A_RUN if n not in ("checkpoints-ignored", "unsorted-files")])
def test_the_loss_shows_it_when_it_is_said_to(cut: Cut, tmp_path: Path, name: str) -> None:
    kind = NEEDS.get(name, "digits")
    whole, broken = resumed(cut, tmp_path, kind, name)
    # In order, whatever the steps are called: a count that is one behind is no other loss.
    pairs = zip([broken[k][0] for k in sorted(broken)], [whole[k][0] for k in sorted(whole) if k > CUT], strict=False)
    differ = [number for number, (ours, theirs) in enumerate(pairs) if ours != theirs]
    loss = FAULTS[name].loss
    if loss == "never":
        assert differ == []
    elif loss == "later":
        assert not differ or differ[0] > 0
    elif loss != "depends":
        assert f"+{differ[0]}" == loss


@pytest.mark.parametrize("name", ["save-draws", "ema-swapped", "evaluation-draws"])
def test_what_happens_beside_training_changes_it(cut: Cut, tmp_path: Path, name: str) -> None:
    train(make_config(settings("digits", inject=name, save_every=5)), tmp_path)
    first = 6 if FAULTS[name].when == "save" else 11
    whole, broken = losses(cut("digits") / "whole"), losses(tmp_path)
    assert min(step for step in broken if broken[step][0] != whole[step][0]) == first


def test_no_two_runs_are_alike(cut: Cut, tmp_path: Path) -> None:
    for name in ("unseeded", "unsorted-files"):
        train(make_config(settings("digits", inject=name, steps=3)), tmp_path / name)
        assert losses(tmp_path / name)[2][0] != losses(cut("digits") / "whole")[2][0]


def test_the_second_resume_alone(cut: Cut, tmp_path: Path) -> None:
    whole, once = resumed(cut, tmp_path, "digits", "second-resume")
    assert once == {step: row for step, row in whole.items() if step > CUT}


def test_checkpoints_that_are_not_there_for_it(cut: Cut, tmp_path: Path) -> None:
    whole, again = resumed(cut, tmp_path, "digits", "checkpoints-ignored")
    assert again == whole


def test_a_torn_save_costs_steps_and_no_bit(cut: Cut, tmp_path: Path) -> None:
    train(make_config(settings("digits", save_every=10)), tmp_path)
    newest = CheckpointStore(tmp_path, readonly=True).steps()[-1][1]
    FAULTS["torn-save"].act(CheckpointStore(tmp_path, readonly=True))
    result = train(make_config(settings("digits", save_every=10)), tmp_path)
    assert any(newest.name in note for note in result.notes)
    assert losses(tmp_path) == losses(cut("digits") / "whole")


@pytest.mark.parametrize("name", ["untied", "scaler-lost", "growth-tracker-lost", "gradients-lost", "plateau-lost"])
def test_a_fault_that_would_break_nothing_is_refused(cut: Cut, tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"this run has no"):
        resumed(cut, tmp_path, "digits", name)


def test_a_name_that_is_none() -> None:
    with pytest.raises(UsageError, match="did you mean optimizer-lost"):
        Faults("optimiser-lost")
    with pytest.raises(UsageError, match="there are data-restarted"):
        Faults("zzzz")


def test_another_number_of_processes_takes_a_command_of_one(cut: Cut, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no command of one process"):
        resumed(cut, tmp_path, "digits", "world-size-changed")


@SLOW
def test_another_number_of_processes_goes_on(tmp_path: Path) -> None:
    given: dict[str, Any] = {"task": "tabular", "batch_size": 64, "schedule": "constant", "keep_best": 0}
    train(make_config({**given, "steps": 4, "progress": False}), tmp_path)
    words = [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    command = [sys.executable, "-m", "ckpttool.trainer", "--out", str(tmp_path), *words, "--steps", "8"]
    done = subprocess.run([*command, "--inject", "world-size-changed"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "1 saved, 2 go on" in done.stderr
    with CheckpointStore(tmp_path, readonly=True) as store:
        found = store.load_latest()
    assert found is not None
    assert found.state["global_step"] == 8
    assert found.state["environment"]["world_size"] == 2
    assert len(found.state["rng"]) == 2
