"""Loading: what torch is told to allow, maps, folders, and what each failure says."""

from __future__ import annotations

import argparse
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import ckpttool
from ckpttool.testing.samples import weights
from ckpttool.testing.writers import legacy_file, safetensors_file, sharded_files, torch_file

torch = pytest.importorskip("torch")


def state(step: int = 1) -> dict[str, Any]:
    return {"w": torch.arange(1000.0) * step, "step": step}


# --- torch of other versions -------------------------------------------------------------------------------


@pytest.fixture(params=["2.4.1", "2.5.1", "now"])
def torch_version(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What torch says of itself; before 2.5 it has no ``safe_globals``, before 2.6 no pairs with names."""
    if request.param != "now":
        monkeypatch.setattr(torch, "__version__", request.param)
    if request.param == "2.4.1":
        monkeypatch.delattr(torch.serialization, "safe_globals")
    return str(request.param)


def test_plain_data_with_every_torch(tmp_path: Path, torch_version: str) -> None:
    torch.save({**state(), "args": argparse.Namespace(lr=0.1)}, tmp_path / "a.pth")
    assert ckpttool.load(tmp_path / "a.pth")["args"].lr == 0.1


def test_names_that_older_torch_cannot_be_told_of(tmp_path: Path, torch_version: str) -> None:
    """numpy 2 calls them otherwise than a file of numpy 1 does."""
    numpy = pytest.importorskip("numpy")
    torch.save({"x": numpy.arange(3)}, tmp_path / "a.pth")
    data = (tmp_path / "a.pth").read_bytes()
    if b"numpy._core.multiarray" not in data:
        pytest.skip("an older numpy")
    (tmp_path / "old.pth").write_bytes(renamed(tmp_path / "a.pth"))
    if torch_version == "now":
        assert ckpttool.load(tmp_path / "old.pth")["x"].tolist() == [0, 1, 2]
    else:
        with pytest.raises(ckpttool.UsageError, match=r"only from 2\.6 on, and this is 2\.[45]"):
            ckpttool.load(tmp_path / "old.pth")


def renamed(path: Path) -> bytes:
    """The file as numpy 1 would have had torch write it."""
    import io
    import zipfile

    made = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(made, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name.endswith("serialization_id"):
                continue  # a checksum of the records as they were
            new.writestr(name, data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    return made.getvalue()


def test_what_others_allowed_stays_allowed_and_nothing_else(tmp_path: Path, torch_version: str) -> None:
    torch.serialization.add_safe_globals([argparse.Namespace])
    before = set(torch.serialization.get_safe_globals())
    torch.save({"args": argparse.Namespace(lr=0.1)}, tmp_path / "a.pth")
    try:
        ckpttool.load(tmp_path / "a.pth")
        assert set(torch.serialization.get_safe_globals()) == before
    finally:
        torch.serialization.clear_safe_globals()
    ckpttool.load(tmp_path / "a.pth")
    assert torch.serialization.get_safe_globals() == []


def test_threads_do_not_take_each_others_names_away(tmp_path: Path) -> None:
    torch.save({"args": argparse.Namespace(lr=0.1)}, tmp_path / "a.pth")
    failed = []

    def run() -> None:
        try:
            for _ in range(8):
                assert ckpttool.load(tmp_path / "a.pth")["args"].lr == 0.1
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


def test_trust_may_be_one_name(tmp_path: Path) -> None:
    import email.charset

    torch.save({"x": email.charset.Charset("utf-8")}, tmp_path / "a.pth")
    with pytest.raises(ckpttool.Unsafe):
        ckpttool.load(tmp_path / "a.pth")
    assert ckpttool.load(tmp_path / "a.pth", trust="email.charset.Charset")["x"] == "utf-8"
    with pytest.raises(ckpttool.UsageError, match=r"cannot import no\.such\.Thing, which loading needs"):
        ckpttool.load(tmp_path / "a.pth", trust=["email.charset.Charset", "no.such.Thing"])


# --- maps --------------------------------------------------------------------------------------------------


def test_a_mapped_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    ckpttool.save(state(2), path)
    mapped = ckpttool.load(path, mmap=True)
    assert torch.equal(mapped["w"], state(2)["w"])
    ckpttool.save(state(3), path)
    assert torch.equal(mapped["w"], state(2)["w"]), "another file took its place; the mapped one is as it was"
    mapped["w"][0] = 7
    assert ckpttool.load(path)["w"][0] == 0, "changes stay in memory"


def test_what_cannot_be_mapped_says_so(tmp_path: Path) -> None:
    (tmp_path / "old.pth").write_bytes(legacy_file({"w": weights()["hidden.bias"]}))
    assert ckpttool.load(tmp_path / "old.pth")["w"].shape == (32,)
    with pytest.raises(ckpttool.UsageError, match="load it without, or convert it"):
        ckpttool.load(tmp_path / "old.pth", mmap=True)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts pages of Linux")
@pytest.mark.parametrize("mmap", [True, False])
def test_memory_while_verifying_and_mapping(tmp_path: Path, mmap: bool) -> None:
    """Mapped, a checkpoint takes no memory until it is used: one larger than memory can be loaded."""
    path = tmp_path / "a.pth"
    ckpttool.save({"w": torch.ones(150_000_000)}, path)  # 600 MB
    code = """
import re, sys, torch, ckpttool
def most():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
ckpttool.save({"w": torch.ones(100)}, sys.argv[1] + ".small")
ckpttool.load(sys.argv[1] + ".small")
before = most()
state = ckpttool.load(sys.argv[1], mmap=sys.argv[2] == "True")
assert float(state["w"][123_456_789]) == 1.0
print(most() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), str(mmap)], capture_output=True, text=True, check=True
    )
    kib = int(done.stdout)
    assert kib < 100_000 if mmap else kib > 500_000


# --- what is loaded, and what is said ------------------------------------------------------------------------


def test_folders_and_indexes(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    ckpttool.save(state(), tmp_path / "one" / "a.pth")
    assert ckpttool.load(tmp_path / "one")["step"] == 1
    ckpttool.save(state(), tmp_path / "one" / "b.pth")
    with pytest.raises(ckpttool.UsageError, match="holds 2 checkpoints; name one, or ask `ckpttool latest`"):
        ckpttool.load(tmp_path / "one")
    (tmp_path / "none").mkdir()
    with pytest.raises(ckpttool.Unreadable, match="holds no checkpoint"):
        ckpttool.load(tmp_path / "none")
    pytest.importorskip("safetensors")
    for name, data in sharded_files(weights()).items():
        (tmp_path / name).write_bytes(data)
    found = ckpttool.load(tmp_path / "model.safetensors.index.json")
    assert set(found) == set(weights())


def test_a_distributed_checkpoint_is_to_be_converted(tmp_path: Path) -> None:
    from ckpttool.testing.dcp import dcp_files
    from ckpttool.testing.samples import distributed_state

    for name, data in dcp_files(distributed_state()).items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(ckpttool.UsageError, match="`ckpttool convert` makes one file of it"):
        ckpttool.load(tmp_path)


def test_map_location(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    ckpttool.save(state(), tmp_path / "a.pth")
    (tmp_path / "a.safetensors").write_bytes(safetensors_file(weights(), {"format": "pt"}))
    for name in ("a.pth", "a.safetensors"):
        for location in ("cpu", torch.device("cpu"), None):
            ckpttool.load(tmp_path / name, map_location=location)
    with pytest.raises(ckpttool.UsageError, match="the name of one device"):
        ckpttool.load(tmp_path / "a.safetensors", map_location=lambda storage, _: storage)


def test_torch_is_never_quoted_with_its_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its message says to allow everything; ours does not."""
    ckpttool.save(state(), tmp_path / "a.pth")

    def refuse(*_: object, **__: object) -> None:
        raise pickle.UnpicklingError(
            "Weights only load failed.\nre-running `torch.load` with `weights_only` set to `False` will likely succeed"
        )

    monkeypatch.setattr(torch, "load", refuse)
    with pytest.raises(ckpttool.Unsafe) as caught:
        ckpttool.load(tmp_path / "a.pth")
    assert "weights_only" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_plain_pickle_is_to_be_converted(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"a": 1}, 2))
    with pytest.raises(ckpttool.UsageError, match="a plain pickle, which torch does not load"):
        ckpttool.load(tmp_path / "a.pkl")


@pytest.mark.parametrize(
    ("data", "error", "said"),
    [
        (b"", ckpttool.UsageError, "not a checkpoint"),
        (b"<html>", ckpttool.UsageError, "not a checkpoint"),
        (torch_file(weights())[:-5000], ckpttool.Damaged, "damaged"),
        (torch_file(weights())[:100], ckpttool.CkpttoolError, "a.pth"),
    ],
)
def test_every_failure_is_one_line(tmp_path: Path, data: bytes, error: type[ckpttool.CkpttoolError], said: str) -> None:
    (tmp_path / "a.pth").write_bytes(data)
    with pytest.raises(error, match=said) as caught:
        ckpttool.load(tmp_path / "a.pth")
    assert len(str(caught.value).splitlines()) == 1
    assert str(tmp_path / "a.pth") in str(caught.value)


def test_what_is_wrong_is_what_is_named(tmp_path: Path) -> None:
    """A flipped bit that is a NaN as well: damage is the reason, not the NaN."""
    tensor = torch.ones(5000)
    tensor[5] = float("nan")
    ckpttool.save({"w": tensor, "v": torch.ones(5000)}, tmp_path / "a.pth")
    data = bytearray((tmp_path / "a.pth").read_bytes())
    data[data.rindex(b"\0\0\x80?" * 100)] ^= 1
    (tmp_path / "a.pth").write_bytes(data)
    with pytest.raises(ckpttool.Damaged, match=r"CRC|checksum|digest|sealed"):
        ckpttool.load(tmp_path / "a.pth")
