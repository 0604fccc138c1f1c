"""Every system call of a save refused once, by tracing it: what was there stays, and one line says why."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import ckpttool
from ckpttool.manifest import sidecar

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
]

SERVER = """
import os, signal, sys
import torch
import ckpttool

def one():
    ckpttool.save({"model": {"w": torch.full((3000,), 2.0)}, "step": 2}, sys.argv[1] + "/a.pth")

def store():
    with ckpttool.CheckpointStore(sys.argv[1], keep=1, best=1) as store:
        store.save({"model": {"w": torch.full((3000,), 2.0)}, "step": 2}, step=2, metric=2.0)

save = globals()[sys.argv[2]]
import tempfile
here, sys.argv[1] = sys.argv[1], tempfile.mkdtemp()
save()
sys.argv[1] = here
report = os.open(sys.argv[3], os.O_WRONLY | os.O_TRUNC)
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        os.ftruncate(report, 0)
        os.kill(os.getpid(), signal.SIGSTOP)
        os.getppid()  # from here on
        code = 0
        try:
            save()
        except ckpttool.CkpttoolError as error:
            os.getppid()
            os.pwrite(report, str(error).encode(), 0)
            code = 3
        except BaseException as error:
            os.getppid()
            os.pwrite(report, repr(error).encode(), 0)
            code = 4
        os.getppid()  # until here
        os._exit(code)
    print(pid, flush=True)
    status = os.waitpid(pid, 0)[1]
    print(os.waitstatus_to_exitcode(status), flush=True)
"""
CALLS = "openat,write,pwrite64,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,link,linkat,flock,ftruncate,"
CALLS += "fchmod,close,newfstatat,fstat,lseek,preadv,pread64,read,sync_file_range,statfs,getdents64,readlink"
ERRORS = ("ENOSPC", "EIO", "EDQUOT", "EINTR")


class Traced:
    """Runs a save in a fork, traced; the save's system calls are those between the fork's marks."""

    def __init__(self, folder: Path, what: str, notes: Path) -> None:
        self.folder, self.report, self.log = folder, notes / "report", notes / "log"
        self.report.touch()
        command = [sys.executable, "-c", SERVER, str(folder), what, str(self.report)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def save(self, *inject: str) -> tuple[int, str]:
        """The exit code and what was reported, of a save in which something is injected."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print("go", file=self.process.stdin, flush=True)
        pid = int(self.process.stdout.readline())
        while Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "T":
            pass
        options = [option for text in inject for option in ("-e", f"inject={text}")]
        tracer = subprocess.Popen(
            ["strace", "-f", "-qq", "-o", str(self.log), "-e", f"trace=getppid,{CALLS}", *options, "-p", str(pid)],
            stderr=subprocess.DEVNULL,
        )
        while not int(re.findall(r"TracerPid:\s*(\d+)", Path(f"/proc/{pid}/status").read_text())[0]):
            assert tracer.poll() is None, "strace may not trace here"
        os.kill(pid, signal.SIGCONT)
        status = int(self.process.stdout.readline())
        tracer.wait()
        return status, self.report.read_text()

    def calls(self) -> Counter[str]:
        """The system calls of the save that was last traced, by name."""
        text = self.log.read_text().partition("getppid()")[2].partition("getppid()")[0]
        return Counter(re.findall(r"^\d+\s+(\w+)\(", text, re.MULTILINE))

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


@pytest.fixture(params=["one", "store"])
def traced(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Traced]:
    notes = tmp_path / "notes"
    notes.mkdir()
    (tmp_path / "run").mkdir()
    running = Traced(tmp_path / "run", request.param, notes)
    yield running
    running.close()


def prepared(folder: Path) -> None:
    """What was there before: one checkpoint, under the name that is to be replaced or as an older step."""
    shutil.rmtree(folder)
    folder.mkdir()
    ckpttool.save({"model": {"w": torch.full((3000,), 1.0)}, "step": 1}, folder / "a.pth")
    with ckpttool.CheckpointStore(folder) as store:
        store.save({"model": {"w": torch.full((3000,), 1.0)}, "step": 1}, step=1, metric=1.0)


def stands(folder: Path, what: str) -> int:
    """The step that is found; it must be sound."""
    if what == "one":
        path = folder / "a.pth"
        assert ckpttool.verify([path]).exit_code == 0
        state = ckpttool.load(path)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = ckpttool.CheckpointStore(folder, readonly=True).load_latest()
        assert found is not None
        assert not found.skipped
        state = found.state
    assert bool((state["model"]["w"] == state["step"]).all())
    return int(state["step"])


def tidy(folder: Path, what: str) -> None:
    """After the next save nothing lies about."""
    if what == "one":
        ckpttool.save({"step": 3}, folder / "a.pth")
    else:
        with ckpttool.CheckpointStore(folder, keep=5) as store:
            store.save({"step": 3}, step=3)
    for path in folder.iterdir():
        assert not path.name.endswith(".tmp"), path.name
        if path.name.endswith(".manifest.json"):
            assert path.with_name(path.name.removesuffix(".manifest.json")).exists(), path.name
        if path.suffix == ".pth":
            assert sidecar(str(path)).exists(), path.name


def what_of(traced: Traced) -> str:
    return "one" if "one" in traced.process.args else "store"  # type: ignore[operator]


def sweep(traced: Traced) -> Iterator[tuple[str, int]]:
    prepared(traced.folder)
    status, _ = traced.save()
    assert status == 0
    found = traced.calls()
    print(f"\n{what_of(traced)}: {sum(found.values())} system calls: {dict(found)}")
    for name, count in sorted(found.items()):
        yield from ((name, number) for number in range(1, count + 1))


def test_every_call_refused(traced: Traced) -> None:
    what, outcomes = what_of(traced), Counter[str]()
    for name, number in sweep(traced):
        errors = ERRORS if name in ("write", "fsync", "rename", "openat", "ftruncate") else ERRORS[:2]
        for error in errors:
            prepared(traced.folder)
            status, said = traced.save(f"{name}:error={error}:when={number}")
            case = (name, number, error, status, said)
            assert status in (0, 3), case
            step = stands(traced.folder, what)
            assert step == 2 or status == 3, case
            assert len(said.splitlines()) == (1 if status else 0), case
            assert "Traceback" not in said, case
            tidy(traced.folder, what)
            outcomes[f"{'refused' if status else 'saved'}, step {step}"] += 1
    print(f"{sum(outcomes.values())} refusals: {dict(outcomes)}")


def test_every_call_killed(traced: Traced) -> None:
    what, count = what_of(traced), 0
    for name, number in sweep(traced):
        prepared(traced.folder)
        status, said = traced.save(f"{name}:signal=KILL:when={number}")
        assert status in (0, -signal.SIGKILL), (name, number, status, said)
        count += status != 0
        assert stands(traced.folder, what) in (1, 2)
        tidy(traced.folder, what)
    print(f"{count} kills at system calls")


def test_writes_that_lie(traced: Traced) -> None:
    """A write that says it wrote and did not, wholly or in part: never a checkpoint that is not sound."""
    what, outcomes = what_of(traced), Counter[int]()
    prepared(traced.folder)
    traced.save()
    for number in range(1, traced.calls()["write"] + 1):
        for nbytes in (1, 10, 4096):
            prepared(traced.folder)
            status, _ = traced.save(f"write:retval={nbytes}:when={number}")
            outcomes[status] += 1
            stands(traced.folder, what)
    print(f"\n{sum(outcomes.values())} lies: {dict(outcomes)}")
