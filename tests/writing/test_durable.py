"""Files are as they were or complete, whatever happens in between."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from ckpttool.errors import WriteFailed
from ckpttool.writing.durable import backup_name, publishing, replacing, sweep

OLD, NEW = b"old " * 1000, b"new " * 5000
ROOT = Path(__file__).parents[2]
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="signals and links of POSIX")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "model.pt"
    path.write_bytes(OLD)
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def put(path: Path, data: bytes = NEW, **wishes: object) -> Path | None:
    with replacing(path, **wishes) as file:  # type: ignore[arg-type]
        file.write(data)
    return file.kept


def python(script: str, *arguments: str | Path, **wishes: object) -> subprocess.Popen[bytes]:
    """A child that has the package at hand."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, **wishes)  # type: ignore[call-overload, no-any-return]


# --- what is written ---------------------------------------------------------------------------------------


def test_a_new_file_and_an_old_one(tmp_path: Path, target: Path) -> None:
    assert put(tmp_path / "new.pt") is None
    put(target)
    assert (tmp_path / "new.pt").read_bytes() == target.read_bytes() == NEW
    assert names(tmp_path) == ["model.pt", "new.pt"]


def test_the_target_is_old_until_the_block_ends(target: Path) -> None:
    with replacing(target) as file:
        file.write(NEW)
        file.flush()
        assert target.read_bytes() == OLD
        assert file.path.read_bytes() == NEW
        assert file.path.parent == target.parent
    assert target.read_bytes() == NEW


def test_the_old_file_is_kept_under_a_name_that_is_free(target: Path) -> None:
    kept = [put(target, data, keep=backup_name(target)) for data in (b"1", b"2", b"3")]
    assert [path.name for path in kept if path] == ["model.pt.bak", "model.pt.bak.1", "model.pt.bak.2"]
    assert [path.read_bytes() for path in kept if path] == [OLD, b"1", b"2"]
    assert target.read_bytes() == b"3"


def test_without_hard_links_the_old_file_is_copied(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    kept = put(target, keep=backup_name(target))
    assert kept is not None
    assert (kept.read_bytes(), target.read_bytes()) == (OLD, NEW)
    assert put(target.with_name("fresh"), overwrite=False) is None
    assert names(target.parent) == ["fresh", "model.pt", "model.pt.bak"]


@POSIX
def test_permissions_are_those_of_the_old_file_or_of_the_umask(target: Path) -> None:
    target.chmod(0o640)
    put(target)
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    before = os.umask(0o027)
    try:
        put(target.with_name("new"))
    finally:
        os.umask(before)
    assert stat.S_IMODE(target.with_name("new").stat().st_mode) == 0o640


@POSIX
def test_a_private_file_is_private_while_it_is_written(target: Path) -> None:
    target.chmod(0o600)
    with replacing(target) as file:
        assert stat.S_IMODE(file.path.stat().st_mode) == 0o600


@POSIX
def test_a_link_stays_and_what_it_points_to_is_replaced(tmp_path: Path, target: Path) -> None:
    (tmp_path / "links").mkdir()
    link = tmp_path / "links" / "last.pt"
    link.symlink_to(target)
    put(link, keep=backup_name(link))
    assert link.is_symlink()
    assert target.read_bytes() == NEW
    assert names(tmp_path / "links") == ["last.pt"]
    assert names(tmp_path) == ["links", "model.pt", "model.pt.bak"]


def test_long_names_and_names_with_newlines(tmp_path: Path) -> None:
    for name in ("x" * 255, "é" * 127, "a\nb\x1b[31m.pt"):
        put(tmp_path / name)
        assert names(tmp_path) == [name]
        (tmp_path / name).unlink()


# --- what fails --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_a_failure_leaves_everything_as_it_was(target: Path, error: type[BaseException]) -> None:
    def fail() -> None:
        with replacing(target, keep=backup_name(target)) as file:
            file.write(NEW)
            raise error

    with pytest.raises(error):
        fail()
    assert target.read_bytes() == OLD
    assert names(target.parent) == ["model.pt"]


@pytest.mark.parametrize("step", ["fsync", "replace", "fchmod"])
def test_a_step_that_fails_leaves_everything_as_it_was(
    target: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(*((Path, step) if step == "replace" else (os, step)), refuse)
    with pytest.raises(WriteFailed, match=r"model\.pt – cannot be written: Input/output error"):
        put(target, keep=backup_name(target))
    assert target.read_bytes() == OLD
    assert names(target.parent) == ["model.pt"]


def test_nothing_is_overwritten_unasked(target: Path) -> None:
    with pytest.raises(WriteFailed, match="exists already; --force replaces it"):
        put(target, overwrite=False)
    late = target.with_name("late.pt")

    def come_late() -> None:
        with replacing(late, overwrite=False) as file:
            file.write(NEW)
            late.write_bytes(b"someone else")

    with pytest.raises(WriteFailed, match="exists already"):
        come_late()
    assert (target.read_bytes(), late.read_bytes()) == (OLD, b"someone else")
    assert names(target.parent) == ["late.pt", "model.pt"]


def test_what_cannot_be_a_target(tmp_path: Path, target: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    reasons = {
        "gone/model.pt": "does not exist; make it first",
        "model.pt/x": "is not a folder",
        ".": "is a folder; a folder is not replaced by a file",
        "loop": "a loop of symbolic links",
        "pipe": "is not a regular file",
        "x\0y": "holds a NUL byte",
        "x" * 300: "the name is too long",
    }
    before = names(tmp_path)
    for name, why in reasons.items():
        with pytest.raises(WriteFailed) as caught:
            put(tmp_path / name)
        assert why in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1
        assert names(tmp_path) == before


def test_room_is_asked_for_before_anything_is_written(target: Path) -> None:
    free = shutil.disk_usage(target.parent).free
    with pytest.raises(WriteFailed, match=r"needs .*B, and the disk has .*B free; free some space"):
        put(target, expected=free + (1 << 40))
    assert names(target.parent) == ["model.pt"]


@POSIX
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder(target: Path) -> None:
    target.parent.chmod(0o555)
    try:
        with pytest.raises(WriteFailed, match="permission denied"):
            put(target)
    finally:
        target.parent.chmod(0o755)
    assert target.read_bytes() == OLD


@POSIX
def test_a_file_that_may_not_grow(target: Path) -> None:
    """A limit of the process, which the kernel enforces as a full disk does: in the middle of a write."""
    child = python(
        """
        import resource, sys
        from ckpttool.errors import WriteFailed
        from ckpttool.writing.durable import replacing
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
        try:
            with replacing(sys.argv[1]) as file:
                for _ in range(100):
                    file.write(b"new " * 1000)
        except WriteFailed as error:
            print(error.why)
        """,
        target,
    )
    assert child.communicate()[0].decode().strip() == "cannot be written: larger than a file may be here"
    assert target.read_bytes() == OLD
    assert names(target.parent) == ["model.pt"]


def test_a_full_disk(small_disk: Path) -> None:
    target = small_disk / "model.pt"
    target.write_bytes(OLD)
    with pytest.raises(WriteFailed, match="the disk is full; free some space"):
        put(target, bytes(2 << 20), keep=backup_name(target))
    with pytest.raises(WriteFailed, match=r"needs 2\.10 MB, and the disk has 1\.04 MB free"):
        put(target, bytes(2 << 20), expected=2 << 20)
    assert target.read_bytes() == OLD
    assert names(small_disk) == ["model.pt"]


def test_a_read_only_disk(small_disk: Path) -> None:
    (small_disk / "model.pt").write_bytes(OLD)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(WriteFailed, match="the file system is read-only"):
        put(small_disk / "model.pt")
    assert (small_disk / "model.pt").read_bytes() == OLD


# --- writers that die ----------------------------------------------------------------------------------------

WAITS = """
    import signal, sys, time
    from ckpttool.writing.durable import replacing
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored below nohup
    with replacing(sys.argv[1]) as file:
        file.write(b"half")
        file.flush()
        print("ready", flush=True)
        time.sleep(60)
"""


@POSIX
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_leaves_nothing_behind_and_ends_the_process(target: Path, number: signal.Signals) -> None:
    child = python(WAITS, target, stderr=subprocess.DEVNULL)
    assert child.stdout is not None
    child.stdout.readline()
    assert len(names(target.parent)) == 2
    child.send_signal(number)
    child.communicate()
    assert child.returncode == -number
    assert target.read_bytes() == OLD
    assert names(target.parent) == ["model.pt"]


@POSIX
def test_a_handler_of_the_caller_is_left_alone(target: Path) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        with replacing(target) as file:
            os.kill(os.getpid(), signal.SIGTERM)
            file.write(NEW)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]
    assert target.read_bytes() == NEW


def test_signals_are_as_they_were_afterwards_and_threads_may_write(target: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    put(target)
    assert signal.getsignal(signal.SIGTERM) is before
    thread = threading.Thread(target=put, args=(target, b"thread"))
    thread.start()
    thread.join()
    assert target.read_bytes() == b"thread"


@POSIX
def test_what_a_dead_writer_left_is_removed_and_a_live_one_is_let_be(target: Path) -> None:
    dead, alive = python(WAITS, target), python(WAITS, target)
    for child in (dead, alive):
        assert child.stdout is not None
        child.stdout.readline()
    assert len(names(target.parent)) == 3
    dead.kill()
    dead.communicate()
    assert len(names(target.parent)) == 3
    put(target)
    left = names(target.parent)
    assert len(left) == 2
    alive.kill()
    alive.communicate()
    sweep(target)
    assert names(target.parent) == ["model.pt"]


def test_files_of_others_are_never_swept(tmp_path: Path, target: Path) -> None:
    others = [".model.pt.tmp", ".model.pt.ckpttool-.tmp", ".other.pt.ckpttool-0123456789ab.tmp", "model.pt.tmp"]
    for name in others:
        (tmp_path / name).touch()
    (tmp_path / ".model.pt.ckpttool-0123456789ab.tmp").touch()
    put(target)
    assert names(tmp_path) == sorted(["model.pt", *others])


KILLED = """
    import json, os, signal, sys
    from pathlib import Path
    from ckpttool.writing.durable import backup_name, publishing, replacing

    os.fsync = os.fstat
    folder = Path(sys.argv[1])
    target, new_folder = folder / "model.pt", folder / "shards"
    old, new = b"old " * 1000, b"new " * 5000

    def write():
        with replacing(target, keep=backup_name(target)) as file:
            file.write(new)
        with publishing(new_folder) as inside:
            for name in ("a", "b"):
                with replacing(inside / name) as file:
                    file.write(new)

    def counted(last):
        calls = 0
        def count(frame, event, argument):
            nonlocal calls
            owner = getattr(argument, "__module__", None) or type(getattr(argument, "__self__", None)).__module__
            if event in ("c_call", "c_return") and owner in ("posix", "fcntl", "_io", "ckpttool.writing.durable"):
                calls += 1
                if calls == last:
                    os.kill(os.getpid(), signal.SIGKILL)
        return count

    seen, last, stride = [], 0, int(sys.argv[2])
    while True:
        last += stride
        for path in folder.rglob("*"):
            path.is_dir() or path.unlink()
        if new_folder.exists():
            new_folder.rmdir()
        target.write_bytes(old)
        child = os.fork()
        if not child:
            sys.setprofile(counted(last))
            write()
            sys.setprofile(None)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        state = {old: "old", new: "new"}.get(target.read_bytes(), "broken")
        bak = folder / "model.pt.bak"
        kept = {old: "old"}.get(bak.read_bytes(), "broken") if bak.exists() else "none"
        shards = sorted(os.listdir(new_folder)) if new_folder.exists() else []
        whole = all((new_folder / name).read_bytes() == new for name in shards)
        seen.append([state, kept, shards, whole])
        write_again = folder / "model.pt"
        with replacing(write_again) as file:
            file.write(new)
        if not shards:
            with publishing(new_folder) as inside:
                (inside / "a").write_bytes(new)
        left = [name for name in os.listdir(folder) if name.endswith(".tmp")]
        if left:
            seen.append(["left", left, [], False])
        if os.WIFEXITED(status):
            break
    print(json.dumps(seen))
"""


@POSIX
@pytest.mark.parametrize("stride", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_at_any_call_the_file_is_old_or_new(tmp_path: Path, stride: int) -> None:
    """Each call to the system is the last one once, before and after it happens; the next writer clears up.

    Flushing is left out: it takes most of the time, and a kill does not undo what was not flushed.
    """
    child = python(KILLED, tmp_path, str(stride))
    seen = json.loads(child.communicate()[0])
    assert child.returncode == 0
    assert len(seen) > 50 // stride
    states = [one[0] for one in seen]
    assert states == ["old"] * states.count("old") + ["new"] * states.count("new")
    assert "old" in states[:-1]
    for state, kept, shards, whole in seen:
        assert kept == "old" if state == "new" else kept in ("none", "old")
        assert shards in ([], ["a", "b"])
        assert whole


ONCE = """
    import sys
    from ckpttool.writing.durable import backup_name, replacing
    print("start", flush=True)
    with replacing(sys.argv[1], keep=backup_name(sys.argv[1])) as file:
        file.write(b"new " * 5000)
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_killed_at_any_system_call_the_file_is_old_or_new(tmp_path: Path, target: Path) -> None:
    script = tmp_path.with_suffix(".py")
    script.write_text(textwrap.dedent(ONCE))
    states = []
    for call, number in _system_calls(script, target):
        for name in names(tmp_path):
            (tmp_path / name).unlink()
        target.write_bytes(OLD)
        _traced(script, target, f"inject={call}:signal=KILL:when={number}")
        data = target.read_bytes()
        assert data in (OLD, NEW), (call, number)
        kept = tmp_path / "model.pt.bak"
        assert not kept.exists() or kept.read_bytes() == OLD
        states.append(data == NEW)
        put(target)
        assert set(names(tmp_path)) <= {"model.pt", "model.pt.bak"}, (call, number)
    assert len(states) > 20
    assert states == sorted(states)
    assert set(states) == {False, True}


def _traced(script: Path, target: Path, *expressions: str) -> str:
    """Run the script under strace; what strace says."""
    options = [word for expression in expressions for word in ("-e", expression)]
    command = ["strace", "-qq", *options, sys.executable, "-S", str(script), str(target)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    return done.stderr.decode(errors="replace")


def _system_calls(script: Path, target: Path) -> list[tuple[str, int]]:
    """The calls after the script has said that it starts, each with its count among those of its name."""
    counts: dict[str, int] = {}
    found: list[tuple[str, int]] = []
    started = False
    for line in _traced(script, target).splitlines():
        call = line.partition("(")[0]
        if not call.isidentifier():
            continue
        counts[call] = counts.get(call, 0) + 1
        if started:
            found.append((call, counts[call]))
        started = started or line.startswith('write(1, "start')
    return [one for one in found if one[0] not in ("exit_group", "brk", "mmap", "munmap", "rt_sigaction")]


# --- folders -------------------------------------------------------------------------------------------------


def test_a_folder_has_its_name_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "shards"
    with publishing(target) as folder:
        (folder / "a").write_bytes(NEW)
        assert not target.exists()
    assert names(target) == ["a"]
    assert names(tmp_path) == ["shards"]


def test_a_folder_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with publishing(tmp_path / "shards") as folder:
            (folder / "a").write_bytes(NEW)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert names(tmp_path) == []


def test_a_folder_with_something_in_it_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    (tmp_path / "file").touch()
    with publishing(tmp_path / "empty") as folder:
        (folder / "a").write_bytes(NEW)
    for name, why in {"full": "never replaced", "file": "is a file", "gone/x": "does not exist"}.items():
        with pytest.raises(WriteFailed, match=why), publishing(tmp_path / name):
            pass
    assert names(tmp_path) == ["empty", "file", "full"]
    assert names(tmp_path / "empty") == ["a"]


@POSIX
def test_folders_of_dead_writers_are_removed(tmp_path: Path) -> None:
    child = python(
        """
        import sys, time
        from ckpttool.writing.durable import publishing
        with publishing(sys.argv[1]) as folder:
            (folder / "a").write_bytes(b"half")
            print("ready", flush=True)
            time.sleep(60)
        """,
        tmp_path / "shards",
    )
    assert child.stdout is not None
    child.stdout.readline()
    sweep(tmp_path / "shards")
    assert len(names(tmp_path)) == 1
    child.kill()
    child.communicate()
    sweep(tmp_path / "shards")
    assert names(tmp_path) == []


def test_writers_of_one_target_do_not_disturb_each_other(target: Path) -> None:
    """Sweeping and creating meet: every writer ends well, and the file is one of theirs, whole."""
    contents = [bytes([number]) * 50_000 for number in range(8)]
    ends = time.monotonic() + 0.5

    def work(data: bytes) -> None:
        while time.monotonic() < ends:
            put(target, data)

    threads = [threading.Thread(target=work, args=(data,)) for data in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert target.read_bytes() in contents
    assert names(target.parent) == ["model.pt"]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="descriptors have no names here")
def test_everything_is_flushed_before_it_gets_its_name_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    rename, replace = Path.rename, Path.replace

    def noted(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        steps.append("temporary" if name.endswith(".tmp") else name)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(Path, "replace", lambda old, new: steps.append("named") or replace(old, new))
    monkeypatch.setattr(Path, "rename", lambda old, new: steps.append("named") or rename(old, new))
    put(tmp_path / "a")
    assert steps == ["temporary", "named", tmp_path.name]
    steps.clear()
    with publishing(tmp_path / "shards") as folder:
        (folder / "x").write_bytes(NEW)
    assert steps == ["x", "temporary", "named", tmp_path.name]
