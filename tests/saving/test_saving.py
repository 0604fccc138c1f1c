"""Saving and loading with the real torch: nothing lost, nothing trusted that is not known."""

from __future__ import annotations

import argparse
import datetime
import email.message
import json
import os
import signal
import subprocess
import sys
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

import ckpttool
from ckpttool.manifest import read_manifest, sidecar
from ckpttool.measure.seals import tensor_seals

torch = pytest.importorskip("torch")


def state(step: int = 0) -> dict[str, Any]:
    torch.manual_seed(step)
    model = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(16, 8)).square().sum().backward()
    optimizer.step()
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def payload_offset(path: Path) -> int:
    checkpoint = ckpttool.describe(path)
    span = max((s.span for s in checkpoint.storages if s.span), key=lambda s: s.nbytes)
    return span.start


# --- save and load ---------------------------------------------------------------------------------------


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    saved = ckpttool.save(state(3), tmp_path / "a.pth")
    back = ckpttool.load(tmp_path / "a.pth")
    assert back["step"] == 3
    for key, value in state(3)["model"].items():
        assert torch.equal(back["model"][key], value)
    assert saved.nbytes == saved.path.stat().st_size
    assert torch.load(tmp_path / "a.pth", weights_only=True)["step"] == 3


def test_a_save_is_sealed_and_clean(tmp_path: Path) -> None:
    ckpttool.save(state(), tmp_path / "a.pth")
    assert ckpttool.verify([tmp_path / "a.pth"], require="resumable").exit_code == 0
    made = json.loads(sidecar(str(tmp_path / "a.pth")).read_bytes())
    keys = {t["key"] for t in made["tensors"]}
    assert "model.0.weight" in keys
    assert all(t["digest"] for t in made["tensors"])


def test_saving_again_replaces_file_and_manifest(tmp_path: Path) -> None:
    for step in range(3):
        ckpttool.save(state(step), tmp_path / "a.pth")
        assert ckpttool.verify([tmp_path / "a.pth"]).exit_code == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.pth", "a.pth.manifest.json"]
    ckpttool.save(state(9), tmp_path / "a.pth", manifest=False)
    assert [p.name for p in tmp_path.iterdir()] == ["a.pth"]


def test_any_object_that_torch_saves(tmp_path: Path) -> None:
    view = torch.arange(12.0)
    for number, obj in enumerate([torch.nn.Linear(2, 2), [1, "two", 3.0], view, {"a": view, "b": view[3:]}, None]):
        path = tmp_path / f"{number}.pth"
        ckpttool.save(obj, path)
        findings = ckpttool.verify([path]).subjects[0].findings
        assert not [f for f in findings if f.code.startswith(("CK1", "CK3"))], obj


@pytest.mark.parametrize("what", ["payload", "cut", "manifest", "pickle"])
def test_damage_is_not_loaded(tmp_path: Path, what: str) -> None:
    path = tmp_path / "a.pth"
    ckpttool.save(state(), path)
    if what == "payload":
        flip(path, payload_offset(path))
    elif what == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif what == "manifest":
        torch.save(state(1), path)
    else:
        flip(path, path.read_bytes().index(b"exp_avg"))
    with pytest.raises(ckpttool.Damaged):
        ckpttool.load(path)


class Thing:
    """A class of the project's own."""


def test_what_runs_code_is_not_loaded(tmp_path: Path) -> None:
    torch.save({"x": os.system}, tmp_path / "bad.pth")
    with pytest.raises(ckpttool.Unsafe, match=r"system"):
        ckpttool.load(tmp_path / "bad.pth")
    torch.save(Thing(), tmp_path / "own.pth")
    with pytest.raises(ckpttool.Unsafe, match="Thing"):
        ckpttool.load(tmp_path / "own.pth")


def test_a_class_that_is_trusted_is_loaded(tmp_path: Path) -> None:
    torch.save({"x": email.message.Message()}, tmp_path / "own.pth")
    with pytest.raises(ckpttool.Unsafe, match=r"email\.message"):
        ckpttool.load(tmp_path / "own.pth")
    back = ckpttool.load(tmp_path / "own.pth", trust=["email.message.Message", "email._policybase.Compat32"])
    assert isinstance(back["x"], email.message.Message)


def test_plain_data_that_torch_does_not_know_is_loaded(tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    plain = {
        "args": argparse.Namespace(lr=0.1), "where": PurePosixPath("a/b"), "loss": numpy.float64(0.5),
        "order": numpy.arange(5), "rng": numpy.random.get_state(), "when": datetime.timedelta(1),
    }  # fmt: skip
    torch.save(plain, tmp_path / "a.pth")
    back = ckpttool.load(tmp_path / "a.pth")
    assert (back["args"], back["where"], back["loss"]) == (plain["args"], plain["where"], plain["loss"])
    assert (back["order"] == plain["order"]).all()


def test_what_is_no_checkpoint_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(b"<html></html>")
    with pytest.raises(ckpttool.UsageError, match="not a checkpoint"):
        ckpttool.load(tmp_path / "a.pth")
    with pytest.raises(ckpttool.CkpttoolError, match="no such file"):
        ckpttool.load(tmp_path / "b.pth")


def test_safetensors_and_shards_are_loaded(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    from ckpttool.testing.samples import weights
    from ckpttool.testing.writers import safetensors_file, sharded_files

    (tmp_path / "a.safetensors").write_bytes(safetensors_file(weights(), {"format": "pt"}))
    for name, data in sharded_files(weights()).items():
        (tmp_path / name).write_bytes(data)
    one = ckpttool.load(tmp_path / "a.safetensors")
    many = ckpttool.load(tmp_path / "model.safetensors.index.json")
    assert one.keys() == many.keys()
    assert all(torch.equal(one[key], many[key]) for key in one)


def test_the_short_way_to_seals_gives_what_the_file_has(tmp_path: Path) -> None:
    from ckpttool.saving.seals import seals_of

    weight = torch.randn(6, 4)
    plain = {
        "model": {"a.b": weight, "tied": weight, "half": weight.bfloat16(), "empty": torch.empty(0, 3)},
        "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "groups": [{"lr": 0.1, "params": [0]}]},
        "more": (torch.arange(5, dtype=torch.int16), [torch.tensor([True]), torch.zeros(2, dtype=torch.complex64)]),
        "n": torch.tensor(7),
        "part": weight[2:4], "\n": torch.nn.Parameter(torch.ones(2)),
    }  # fmt: skip
    odd = {"t": weight.t(), "sparse": torch.eye(3).to_sparse(), "conj": torch.zeros(2, dtype=torch.complex64).conj()}
    for number, obj in enumerate([plain, {**plain, **odd}, weight, {}, [], {**plain, "model": torch.nn.Linear(2, 2)}]):
        path = tmp_path / f"{number}.pth"
        torch.save(obj, path)
        assert seals_of(torch, obj) == tensor_seals(ckpttool.describe(path))


def test_what_goes_by_has_the_seals_that_the_file_has(tmp_path: Path) -> None:
    """Tensors large enough to be digested on their way, ties, parts and views of them, and what is not as plain."""
    big = torch.randn(300, 400)
    big[0, 0] = float("nan")
    plain = {
        "a": big, "tied": big, "part": big[100:], "row": big[3], "half": big.half(), "copy": big.clone(),
        "parameter": torch.nn.Parameter(torch.randn(90_000)), "small": torch.ones(3), "flat": big.view(-1),
        "bytes": torch.arange(20_000, dtype=torch.uint8),
    }  # fmt: skip
    for number, obj in enumerate([plain, {**plain, "turned": big.t()}, big[50:], big]):
        path = tmp_path / f"{number}.pth"
        saved = ckpttool.save(obj, path)
        assert saved.manifest is not None
        assert read_manifest(saved.manifest).tensors == tensor_seals(ckpttool.describe(path))


# --- failures --------------------------------------------------------------------------------------------

SERVER = """
import os, signal, sys
import torch
import ckpttool

EVENTS = {"open", "os.rename", "os.remove", "os.link", "os.truncate", "os.listdir"}
left = None

def hook(event, args):
    global left
    if left is not None and event in EVENTS:
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

def save():
    ckpttool.save({"model": {"w": torch.full((3000,), 2.0)}, "step": 2}, sys.argv[1])

save()  # whatever is imported late is imported now
sys.addaudithook(hook)
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        left = int(line)
        save()
        left = None
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


def test_no_kill_loses_the_checkpoint_that_was_there(tmp_path: Path) -> None:
    """Killed at the first file event, at the second, …: until the save gets through."""
    path = tmp_path / "a.pth"
    ckpttool.save({"model": {"w": torch.full((3000,), 1.0)}, "step": 1}, path)
    before = {place: place.read_bytes() for place in (path, sidecar(str(path)))}
    command = [sys.executable, "-c", SERVER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        found: list[int] = []
        while not found or found[-1] != 2:
            for place, data in before.items():
                place.write_bytes(data)
            print(len(found) + 1, file=server.stdin, flush=True)
            status = int(server.stdout.readline())
            assert status in (0, -signal.SIGKILL)
            found.append(2 if status == 0 else 1)
            assert ckpttool.load(path)["step"] in ((2,) if status == 0 else (1, 2)), len(found)
    assert len(found) > 15
    ckpttool.save({"step": 3}, path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.pth", "a.pth.manifest.json"]


def test_a_full_disk_leaves_everything_as_it_was(tmp_path: Path) -> None:
    import resource

    path = tmp_path / "a.pth"
    ckpttool.save(state(1), path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    kept = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, kept[1]))
    try:
        with pytest.raises(ckpttool.WriteFailed, match=r"a\.pth"):
            ckpttool.save({"w": torch.zeros(1 << 20)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, kept)
        signal.signal(signal.SIGXFSZ, old)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


# --- the store -------------------------------------------------------------------------------------------


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.glob("*.pth"))


def test_a_store_keeps_what_it_says(tmp_path: Path) -> None:
    with ckpttool.CheckpointStore(tmp_path / "run", keep=2, every=4, best=1) as store:
        for step in range(1, 8):
            store.save(state(step), step=step, metric=abs(step - 3))
    assert names(tmp_path / "run") == [f"step-{n:08d}.pth" for n in (3, 4, 6, 7)]


def test_the_newest_sound_one_is_loaded_with_a_warning(tmp_path: Path) -> None:
    with ckpttool.CheckpointStore(tmp_path) as store:
        for step in (1, 2, 3):
            store.save(state(step), step=step)
        flip(store.path_of(3), payload_offset(store.path_of(3)))
        store.path_of(2).write_bytes(b"")
        with pytest.warns(UserWarning, match="step-0000000[32]"):
            found = store.load_latest()
        assert found is not None
        assert (found.step, found.state["step"]) == (1, 1)
        assert [path.name for path, _ in found.skipped] == ["step-00000003.pth", "step-00000002.pth"]
        assert store.latest() == store.path_of(1)


def test_an_empty_store_has_none(tmp_path: Path) -> None:
    with ckpttool.CheckpointStore(tmp_path / "new") as store:
        assert store.latest() is None
        assert store.load_latest() is None


@pytest.mark.parametrize("numel", [3_000, 3_000_000, 30_000_000])
def test_a_byte_that_changes_on_its_way_to_the_disk_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, numel: int
) -> None:
    """Within the first piece, at the end of one, and far into a file; none of the old ones goes."""
    from ckpttool.writing.temporary import Replacement

    flush, spoiled = Replacement.flush, []

    def flip_last(file: Replacement) -> None:
        flush(file)
        if not spoiled and file.target.name.endswith("2.pth") and (end := os.fstat(file.fileno()).st_size):
            spoiled.append(end)
            old = os.pread(file.fileno(), 1, end - 1)
            os.pwrite(file.fileno(), bytes([old[0] ^ 1]), end - 1)

    with ckpttool.CheckpointStore(tmp_path, keep=1) as store:
        store.save(state(1), step=1)
        monkeypatch.setattr(Replacement, "flush", flip_last)
        with pytest.raises(ckpttool.WriteFailed, match="read back"):
            store.save({"w": torch.zeros(numel)}, step=2)
        assert names(tmp_path) == ["step-00000001.pth"]
        assert store.latest() == store.path_of(1)


def test_one_that_is_damaged_counts_for_nothing(tmp_path: Path) -> None:
    with ckpttool.CheckpointStore(tmp_path, keep=1) as store:
        store.save(state(1), step=1)
        store.path_of(5).write_bytes(b"")
        with pytest.warns(UserWarning, match="skipped"):
            assert store.load_latest() is not None
        store.save(state(2), step=2)
        assert names(tmp_path) == ["step-00000002.pth", "step-00000005.pth"]
        store.save(state(5), step=5)
        assert names(tmp_path) == ["step-00000005.pth"]


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with ckpttool.CheckpointStore(tmp_path) as store:
        store.save(state(1), step=1)
        with pytest.raises(ckpttool.Locked, match=str(os.getpid())):
            ckpttool.CheckpointStore(tmp_path)
        reader = ckpttool.CheckpointStore(tmp_path, readonly=True)
        assert reader.latest() == store.path_of(1)
        with pytest.raises(ckpttool.UsageError, match="reading only"):
            reader.save({}, step=2)
    ckpttool.CheckpointStore(tmp_path).close()


def test_a_lock_dies_with_its_holder(tmp_path: Path) -> None:
    code = "import ckpttool, os, sys; ckpttool.CheckpointStore(sys.argv[1]); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    ckpttool.CheckpointStore(tmp_path).close()


def test_settings_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    for bad in ({"keep": 0}, {"every": 0}, {"best": -1}):
        with pytest.raises(ckpttool.UsageError):
            ckpttool.CheckpointStore(tmp_path, **bad)  # type: ignore[arg-type]
    with ckpttool.CheckpointStore(tmp_path) as store, pytest.raises(ckpttool.UsageError):
        store.save({}, step=-1)
