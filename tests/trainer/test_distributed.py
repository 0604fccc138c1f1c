"""Several processes, one run: interrupted in any of them, resumed by as many or another number, saved as one."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ckpttool

torch = pytest.importorskip("torch", reason="torch is not installed")

from ckpttool.trainer.config import make_config  # noqa: E402 - it needs torch
from ckpttool.trainer.data import Plan, Position  # noqa: E402
from ckpttool.trainer.distributed import processes  # noqa: E402
from ckpttool.trainer.faults import FAULTS, Faults  # noqa: E402
from ckpttool.trainer.tasks import load_task  # noqa: E402
from ckpttool.trainer.train import fresh_state  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is:UserWarning")  # alone, where a folder is read
SLOW = pytest.mark.slow
STEPS = 12
COMMON = ("--steps", STEPS, "--log-every", 1, "--eval-every", 5, "--save-every", 3, "--quiet")
RUNS = {
    "ddp": ("--parallel", "ddp", "--task", "tabular"),
    "ddp-digits-dcp": ("--parallel", "ddp", "--task", "digits", "--batch-size", 256, "--save-as", "dcp"),
    "fsdp2-digits": ("--parallel", "fsdp2", "--task", "digits", "--batch-size", 256),
    "fsdp2-gpt-fp16-dcp": (
        "--parallel", "fsdp2", "--task", "gpt", "--precision", "fp16", "--accumulate", 2, "--batch-size", 4,
        "--activation-checkpointing", "--save-as", "dcp", "--keep-best", 0,
    ),
    "ddp-gpt-bf16-async": (
        "--parallel", "ddp", "--task", "gpt", "--precision", "bf16", "--accumulate", 2, "--batch-size", 4,
        "--save-async",
    ),
}  # fmt: skip
LOOP = "ckpttool.trainer.train"

Control = Callable[[str], Any]


def statuses(ended: list[Any]) -> list[int]:
    return [one.status for one in ended]


@pytest.fixture(scope="module")
def control(trainers: Any, outcome: Any, tmp_path_factory: pytest.TempPathFactory) -> Control:
    """The uninterrupted run of two processes of each kind, made once."""
    known: dict[str, Any] = {}

    def get(kind: str) -> Any:
        if kind not in known:
            folder = tmp_path_factory.mktemp(kind)
            ended = trainers.together(2, folder, *COMMON, *RUNS[kind])
            assert statuses(ended) == [0, 0], ended
            known[kind] = outcome(folder)
        return known[kind]

    return get


def test_told_to_stop_in_one_process_all_stop_together(
    trainers: Any, outcome: Any, control: Control, tmp_path: Path
) -> None:
    ended = trainers.together(2, tmp_path, *COMMON, *RUNS["ddp"], struck=1, at=[f"{LOOP}.update", 5], do="SIGTERM")
    assert statuses(ended) == [143, 143], ended
    assert outcome(tmp_path).step == 5
    assert statuses(trainers.together(2, tmp_path, *COMMON, *RUNS["ddp"])) == [0, 0]
    assert outcome(tmp_path) == control("ddp")


@SLOW
def test_one_process_may_save_pieces_and_form_a_group_of_its_own(trainers: Any, outcome: Any, tmp_path: Path) -> None:
    """Without torchrun it is the run of one process, however it saves and whatever it is told to be part of."""
    options = (*COMMON, "--task", "tabular")
    assert trainers(tmp_path / "plain", *options).status == 0
    for number, more in enumerate((("--save-as", "dcp"), ("--parallel", "fsdp2"), ("--parallel", "ddp"))):
        ended = trainers(tmp_path / "mixed", *options, *more, at=[f"{LOOP}.update", 4], do="SIGTERM")
        assert (ended.status, outcome(tmp_path / "mixed").step) == (143, 4 * number + 4), ended.text
    assert outcome(tmp_path / "mixed").digests == outcome(tmp_path / "plain").digests
    assert numbers(outcome(tmp_path / "mixed"), "loss") == numbers(outcome(tmp_path / "plain"), "loss")


def test_processes_of_no_group_do_not_train() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORLD_SIZE", "2")
        with pytest.raises(ckpttool.UsageError, match="--parallel ddp"), processes(make_config({})):
            pass


def test_every_process_gets_its_part_of_the_same_batches() -> None:
    at = Position(1, 3)
    alone = next(Plan(100, 12, 7).rest_of(at))
    for world in (2, 3, 4):
        parts = [next(Plan(100, 12, 7, rank, world).rest_of(at)) for rank in range(world)]
        assert {len(part) for part in parts} == {12 // world}
        assert sorted(sample for part in parts for sample in part) == sorted(alone)


def test_pieces_in_the_background_are_refused() -> None:
    with pytest.raises(ckpttool.UsageError, match="save_async"):
        make_config({"save_as": "dcp", "save_async": True})


# --- interrupted ---------------------------------------------------------------------------------------------------


@SLOW
@pytest.mark.parametrize("kind", ["ddp-digits-dcp", "fsdp2-digits", "fsdp2-gpt-fp16-dcp", "ddp-gpt-bf16-async"])
def test_interrupted_in_any_process(trainers: Any, outcome: Any, control: Control, tmp_path: Path, kind: str) -> None:
    """Killed in one, which ends the others; told to stop in one; each in a run that goes on from the last."""
    dice = random.Random(kind)
    for do, place in (("SIGKILL", "update"), ("SIGTERM", "loss_of"), ("SIGKILL", "evaluate"), ("SIGKILL", "save")):
        struck = dice.randrange(2)
        at = [f"{LOOP}.{place}", dice.randint(2, 4) if place in ("update", "loss_of") else 1]
        ended = trainers.together(2, tmp_path, *COMMON, *RUNS[kind], struck=struck, at=at, do=do)
        if do == "SIGTERM":
            assert statuses(ended) == [143, 143], ended
        else:
            assert ended[struck].status == -9, ended
            assert ended[1 - struck].status == 1, ended  # nobody waits for a process that is gone
    assert statuses(trainers.together(2, tmp_path, *COMMON, *RUNS[kind])) == [0, 0]
    assert outcome(tmp_path) == control(kind)


@SLOW
def test_killed_at_every_file_event(trainers: Any, outcome: Any, control: Control, tmp_path: Path) -> None:
    """At each flush and rename of a save, in the first process and in the other: the next start recovers."""
    kind, each = "ddp-digits-dcp", ("--save-every", 1)
    events = [(1, "os.fsync", n) for n in (1, 2)] + [(0, "os.fsync", n) for n in range(1, 13)]
    events += [(0, "pathlib.Path.rename", n) for n in (1, 2)] + [(1, "pathlib.Path.rename", 1)]
    killed = 0
    for struck, place, count in events:
        ended = trainers.together(
            2, tmp_path, *COMMON, *RUNS[kind], *each, struck=struck, at=[place, count], do="SIGKILL"
        )
        assert ended[struck].status in (-9, 0), ended  # never an error: what the last kill left was no hindrance
        killed += ended[struck].status == -9
        for checkpoint in tmp_path.glob("step-*"):  # who has its name is whole
            assert ckpttool.verify([checkpoint]).exit_code == 0
    assert killed >= 14
    assert statuses(trainers.together(2, tmp_path, *COMMON, *RUNS[kind])) == [0, 0]
    assert outcome(tmp_path) == control(kind)
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".tmp")]


@SLOW
def test_all_killed_at_once(trainers: Any, outcome: Any, control: Control, tmp_path: Path) -> None:
    kind = "fsdp2-gpt-fp16-dcp"
    for seconds in (0.8, 1.6, 2.4):
        pids = trainers.start_together(2, tmp_path, *COMMON, *RUNS[kind])
        time.sleep(seconds)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        assert {one.status for one in map(trainers.wait, pids)} <= {-9, 0, 1}
    assert statuses(trainers.together(2, tmp_path, *COMMON, *RUNS[kind])) == [0, 0]
    assert outcome(tmp_path) == control(kind)


@SLOW
@pytest.mark.parametrize(("choice", "want"), [("go-on", [0, 0]), ("stop", [2, 2])])
def test_a_disk_that_is_full_for_one_process(trainers: Any, tmp_path: Path, choice: str, want: list[int]) -> None:
    """All hear of it, and go on or stop together; the last good checkpoint stays."""
    options = (*COMMON, *RUNS["ddp-digits-dcp"], "--on-full-disk", choice)
    ended = trainers.together(2, tmp_path, *options, struck=1, at=["os.fsync", 2], do="ENOSPC")
    assert statuses(ended) == want, ended
    assert "No space left on device" in ended[0].text
    with ckpttool.CheckpointStore(tmp_path, readonly=True) as store:
        assert [step for step, _ in store.steps()] == [3]
        assert store.latest() is not None


@SLOW
def test_the_newest_is_damaged(trainers: Any, outcome: Any, control: Control, tmp_path: Path) -> None:
    """The first process finds it out, and all take the one before."""
    kind = "fsdp2-gpt-fp16-dcp"
    options = (*COMMON[:-1], *RUNS[kind])
    trainers.together(2, tmp_path, *options, struck=1, at=[f"{LOOP}.update", 8], do="SIGKILL")
    newest = tmp_path / "step-00000006"
    os.truncate(newest / "__1_0.distcp", 5000)
    ended = trainers.together(2, tmp_path, *options)
    assert statuses(ended) == [0, 0], ended
    assert "skipped step-00000006" in ended[0].text
    assert "resumed from step-00000003" in ended[0].text
    assert outcome(tmp_path) == control(kind)


@SLOW
@pytest.mark.parametrize("parallel", ["ddp", "fsdp2"])
def test_compiled(trainers: Any, outcome: Any, tmp_path: Path, parallel: str) -> None:
    """The same bits as a compiled run that was never interrupted, and names in the checkpoint as without a compiler."""
    if shutil.which("c++") is None and shutil.which("g++") is None:
        pytest.skip("torch.compile needs a C++ compiler")
    options = ("--task", "tabular", "--steps", 6, "--log-every", 1, "--eval-every", 4, "--save-every", 2, "--quiet")
    options = (*options, "--accumulate", 2, "--batch-size", 8, "--compile", "--parallel", parallel)
    assert statuses(trainers.together(2, tmp_path / "whole", *options)) == [0, 0]
    ended = trainers.together(2, tmp_path / "cut", *options, struck=1, at=[f"{LOOP}.update", 3], do="SIGTERM")
    assert statuses(ended) == [143, 143], ended
    assert outcome(tmp_path / "cut").step == 3
    assert statuses(trainers.together(2, tmp_path / "cut", *options)) == [0, 0]
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")
    made = fresh_state(make_config({"task": "tabular"}), load_task(make_config({"task": "tabular"})))
    assert ckpttool.load(tmp_path / "cut" / "step-00000006.pth")["model"].keys() == made.model.state_dict().keys()


# --- other processes ----------------------------------------------------------------------------------------------


def numbers(found: Any, *names: str) -> list[list[str]]:
    return [[row[name] for name in names] for row in map(dict, found.rows)]


@SLOW
@pytest.mark.parametrize(("task", "save_as"), [("gpt", "file"), ("tabular", "dcp")])
def test_added_or_spread(trainers: Any, outcome: Any, tmp_path: Path, task: str, save_as: str) -> None:
    """DDP and FSDP2 of two processes are one run, bit for bit, where nothing is clipped; a resume may change over."""
    options = (*COMMON, "--task", task, "--batch-size", 4, "--clip", 0, "--save-as", save_as)
    runs = {"ddp": tmp_path / "ddp", "fsdp2": tmp_path / "fsdp2"}
    for parallel, folder in runs.items():
        assert statuses(trainers.together(2, folder, *options, "--parallel", parallel)) == [0, 0]
    mixed = tmp_path / "mixed"
    strike = {"at": [f"{LOOP}.update", 4], "do": "SIGTERM"}
    for parallel, how in (("ddp", strike), ("fsdp2", strike), ("ddp", {})):
        trainers.together(2, mixed, *options, "--parallel", parallel, **how)
    found = [outcome(folder) for folder in (*runs.values(), mixed)]
    assert found[0].digests == found[1].digests == found[2].digests
    kept = ("step", "epoch", "loss", "lr", "metric", "ema_metric")
    assert numbers(found[0], *kept) == numbers(found[1], *kept) == numbers(found[2], *kept)


@SLOW
@pytest.mark.parametrize("save_as", ["file", "dcp"])
@pytest.mark.parametrize("world", [1, 4])
def test_another_number_of_processes(
    trainers: Any, outcome: Any, control: Control, tmp_path: Path, save_as: str, world: int
) -> None:
    """The state is what it was, to the bit, and each step sees the same samples; what is weaker is said."""
    kind = "fsdp2-digits"
    options = (*COMMON[:-1], *RUNS[kind], "--save-as", save_as)
    trainers.together(2, tmp_path, *options, at=[f"{LOOP}.update", 5], do="SIGTERM")
    before = outcome(tmp_path)
    assert before.step == 5
    ended = trainers.together(world, tmp_path, *options)
    assert statuses(ended) == [0] * world, ended  # what was restored had the digests that were saved, or it would stop
    assert f"weaker: 2 saved, {world} go on" in ended[0].text
    found = outcome(tmp_path)
    assert found.rows[:6] == before.rows[:6]
    assert (found.step, found.digests["data"]) == (STEPS, control(kind).digests["data"])
    assert found.digests["model"] != control(kind).digests["model"]  # or the warning would be wrong


# --- faults of one process among several ------------------------------------------------------------------------------

RANKS = [name for name in FAULTS if name.startswith("rank-")]


@pytest.mark.parametrize("name", RANKS)
def test_a_fault_of_processes_needs_several(name: str) -> None:
    faults = Faults(name)
    state = fresh_state(make_config({"task": "tabular"}), load_task(make_config({"task": "tabular"})))
    faults.resumed = True
    when: dict[str, Callable[[], object]] = {"order": lambda: faults.order(Plan(100, 10, 0), Position())}
    with pytest.raises(ckpttool.UsageError, match=r"has no (other processes|pieces)"):
        when.get(FAULTS[name].when, lambda: faults.strike("resume", state))()


@SLOW
def test_faults_of_one_process_show_when_they_are_said_to(
    trainers: Any, outcome: Any, control: Control, tmp_path: Path
) -> None:
    kind, step = "fsdp2-digits", 5
    trainers.together(2, tmp_path / "cut", *COMMON, *RUNS[kind], at=[f"{LOOP}.update", step], do="SIGTERM")
    want = {int(number): loss for number, loss in numbers(control(kind), "step", "loss") if loss}
    for name in RANKS:
        shutil.copytree(tmp_path / "cut", tmp_path / name)
        ended = trainers.together(2, tmp_path / name, *COMMON, *RUNS[kind], "--inject", name)
        assert statuses(ended) == [0, 0], ended
        found = outcome(tmp_path / name)
        losses = {int(number): loss for number, loss in numbers(found, "step", "loss") if loss}
        later = min(number for number, loss in losses.items() if loss != want[number]) - (step + 1)
        assert f"+{later}" == FAULTS[name].loss, name
        part = FAULTS[name].first
        assert found.digests.get(part) != control(kind).digests.get(part, ""), name


# --- started by torchrun ----------------------------------------------------------------------------------------------


def workers_of(launcher: int) -> dict[int, int]:
    """The process of each rank that a launcher has started."""
    found = {}
    for child in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        with contextlib.suppress(OSError):
            variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
            found |= {int(value[5:]): int(child) for value in variables if value.startswith(b"RANK=")}
    return found


@SLOW
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc")
def test_torchrun_starts_again_by_itself(trainers: Any, outcome: Any, control: Control, tmp_path: Path) -> None:
    """One process is killed for real: the launcher ends the others and starts all anew, which go on."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["--max-restarts", "1", "--monitor-interval", "0.1", "-m", "ckpttool.trainer", "--out", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    log = tmp_path / "log.csv"
    more = [*map(str, (*COMMON, *RUNS["ddp"]))]
    with subprocess.Popen([*command, *more], env=environment, stderr=subprocess.PIPE, text=True) as launcher:
        while launcher.poll() is None and not (log.exists() and log.read_bytes().count(b"\n") > 3):
            time.sleep(0.01)
        os.kill(workers_of(launcher.pid)[1], signal.SIGKILL)
        text = launcher.communicate()[1]
    assert launcher.returncode == 0, text
    assert outcome(tmp_path) == control("ddp")
    assert "exitcode" in text  # of the processes that were there first
