"""Archives written as torch writes them, checksums where they were left out, indices made anew; nothing is run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from ckpttool.errors import CkpttoolError, UsageError, WriteFailed
from ckpttool.testing.plain import tensor
from ckpttool.testing.writers import sharded_files, torch_file
from ckpttool.verbs.diff import diff
from ckpttool.verbs.repair import repair
from ckpttool.verbs.verify import verify

if TYPE_CHECKING:
    from ckpttool.report import Report


def data_of(report: Report) -> Any:
    """The report's JSON."""
    return report.json


TREE = {"a": tensor((2, 3), bytes(range(24))), "b": {"c": tensor((100,), bytes(range(100)) * 4), "n": 3}}


def findings(path: Path) -> set[str]:
    target: Any = data_of(verify([path]))["targets"][0]
    return {finding["name"] for finding in target["findings"]}


def repaired(path: Path, **wishes: Any) -> tuple[Path, dict[str, Any]]:
    target = path.with_name("repaired.pth")
    return target, data_of(repair(path, target, **wishes))


def assert_same(one: Path, other: Path) -> None:
    assert data_of(diff(one, other))["identical"]


# --- archives --------------------------------------------------------------------------------------------------


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    path = tmp_path / "sound.pth"
    path.write_bytes(torch_file(TREE))
    return path


def zipped(sound: Path, *, method: int = zipfile.ZIP_STORED, folder: str = "archive/") -> Path:
    """The same records, zipped by somebody else."""
    path = sound.with_name("zipped.pth")
    with zipfile.ZipFile(sound) as given, zipfile.ZipFile(path, "w", method) as made:
        for name in given.namelist():
            if not name.endswith("serialization_id"):
                made.writestr(folder + name.removeprefix("archive/"), given.read(name))
    return path


@pytest.mark.parametrize(
    ("how", "rules"),
    [
        ({"method": zipfile.ZIP_DEFLATED}, {"compressed-record"}),
        ({}, {"misaligned"}),
        ({"folder": ""}, {"bad-record-name"}),
        ({"folder": "", "method": zipfile.ZIP_DEFLATED}, {"bad-record-name", "compressed-record"}),
    ],
    ids=["deflated", "misaligned", "no-folder", "no-folder-deflated"],
)
def test_zipped_anew(sound: Path, how: dict[str, Any], rules: set[str]) -> None:
    path = zipped(sound, **how)
    assert rules <= findings(path)
    target, report = repaired(path, repack=True)
    assert report["lost"] == []
    assert not rules & findings(target)
    assert_same(sound, target)
    assert data_of(repair(target, repack=True))["sound"]


@pytest.mark.parametrize("above", [False, True])
def test_unzipped(sound: Path, tmp_path: Path, above: bool) -> None:
    folder = tmp_path / "unzipped"
    with zipfile.ZipFile(sound) as given:
        given.extractall(folder)
    target, report = repaired(folder if above else folder / "archive", repack=True)
    assert report["exit_code"] == 0
    assert [step["op"] for step in report["plan"]] == ["repack"]
    assert_same(sound, target)
    assert "crc-not-recorded" not in findings(target)


def test_unzipped_with_a_file_missing(sound: Path, tmp_path: Path) -> None:
    folder = tmp_path / "unzipped"
    with zipfile.ZipFile(sound) as given:
        given.extractall(folder)
    (folder / "archive/data/1").unlink()
    _, report = repaired(folder / "archive", repack=True)
    assert [loss["key"] for loss in report["lost"]] == ["b.c"]
    assert report["exit_code"] == 1


def test_a_folder_without_a_pickle_is_none(tmp_path: Path) -> None:
    with pytest.raises(CkpttoolError, match="no checkpoint"):
        repair(tmp_path, repack=True)


def test_missing_checksums(tmp_path: Path) -> None:
    path = tmp_path / "in.pth"
    path.write_bytes(torch_file(TREE, checksums=False))
    assert "crc-not-recorded" in findings(path)
    target, report = repaired(path, recrc=True)
    assert "crc-not-recorded" not in findings(target)
    assert report["exit_code"] == 0
    assert_same(path, target)
    assert data_of(repair(target, recrc=True))["sound"]


def test_formats_without_room_for_checksums(tmp_path: Path, fixtures_dir: Path) -> None:
    report = data_of(repair(fixtures_dir / "legacy.pth", recrc=True))
    assert report["plan"] == []
    assert any("ckpttool seal" in str(note) for note in report["notes"])


# --- shards ----------------------------------------------------------------------------------------------------

WEIGHTS = {name: tensor((2, 2), bytes([i]) * 16) for i, name in enumerate(["a.w", "a.b", "b.w", "b.b"])}


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    folder = tmp_path / "set"
    folder.mkdir()
    for name, data in sharded_files(WEIGHTS).items():
        (folder / name).write_bytes(data)
    return folder


def index_of(folder: Path) -> Path:
    (path,) = folder.glob("*.index.json")
    return path


def test_an_index_that_is_gone_is_made_anew(shards: Path) -> None:
    path = index_of(shards)
    before = json.loads(path.read_text())
    path.unlink()
    plan = data_of(repair(shards, reindex=True))
    assert plan["written"] is None
    assert not path.exists()
    report = data_of(repair(shards, shards, reindex=True))
    assert report["written"] == str(path)
    assert json.loads(path.read_text())["weight_map"] == before["weight_map"]
    assert not {"total-size", "key-not-in-index", "missing-shard"} & findings(path)
    assert data_of(repair(shards, reindex=True))["sound"]


def test_a_wrong_index_is_replaced_only_when_asked(shards: Path) -> None:
    path = index_of(shards)
    said = json.loads(path.read_text())
    right = dict(said["weight_map"])
    said["weight_map"] = {name: next(iter(right.values())) for name in right} | {"gone": "x.safetensors"}
    said["metadata"]["license"] = "mit"
    path.write_text(json.dumps(said))
    with pytest.raises(WriteFailed, match="--force"):
        repair(path, shards, reindex=True)
    repair(path, shards, reindex=True, force=True)
    again = json.loads(path.read_text())
    assert again["weight_map"] == right
    assert again["metadata"] == {"license": "mit", "total_size": 64}


def test_missing_and_broken_shards_are_losses(shards: Path, tmp_path: Path) -> None:
    first, second = sorted(shards.glob("*.safetensors"))
    second.write_bytes(b"<html>")
    report = data_of(repair(shards, tmp_path / "x.safetensors.index.json", reindex=True))
    assert [loss["key"] for loss in report["lost"]] == [second.name]
    assert report["exit_code"] == 1
    second.unlink()
    report = data_of(repair(shards, reindex=True))
    assert report["lost"] == [{"key": second.name, "reason": "the shard is not here"}]
    assert first.exists()


def test_a_key_in_two_shards(shards: Path) -> None:
    first, second = sorted(shards.glob("*.safetensors"))
    path = index_of(shards)
    right = json.loads(path.read_text())["weight_map"]
    second.write_bytes(first.read_bytes())
    report = data_of(repair(shards, reindex=True))
    assert {e["key"] for e in report["recovered"]} == {k for k, v in right.items() if v == first.name}
    path.unlink()
    with pytest.raises(CkpttoolError, match="which of the two counts"):
        repair(shards, reindex=True)


def test_what_is_no_set_of_shards(tmp_path: Path, sound: Path) -> None:
    with pytest.raises(CkpttoolError, match="holds no shards"):
        repair(tmp_path, reindex=True)
    with pytest.raises(UsageError, match="takes a folder of shards"):
        repair(sound, reindex=True)


# --- nothing is run --------------------------------------------------------------------------------------------

WATCHED = """
import json, sys
from pathlib import Path
from ckpttool.errors import CkpttoolError
from ckpttool.verbs.repair import repair
good, folder, *paths = json.load(sys.stdin)
BAD = []
STARTED = {"os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "subprocess.Popen"}
def watch(event, args):
    if event in STARTED or event.startswith("socket.") or event in ("pickle.find_class", "os.mkdir"):
        BAD.append(f"{event} {args}")
    elif event == "import" and args[0].split(".")[0] in ("torch", "posix_nothing", "antigravity", "wave"):
        BAD.append(f"import {args[0]}")
    elif event == "open" and isinstance(args[2], int) and args[2] & 3:
        if not isinstance(args[0], int) and not str(args[0]).startswith(folder):
            BAD.append(f"open {args[0]}")
repair(good, f"{folder}/good.pth", sanitize=True, compact=True)
sys.addaudithook(watch)
for number, path in enumerate(paths):
    for more in ({}, {"extract_weights": True}):
        try:
            repair(path, f"{folder}/{number}.pth", sanitize=True, compact=True, force=True, format="torch", **more)
        except CkpttoolError:
            pass
    if BAD:
        sys.exit(f"{path}: {BAD}")
"""


def test_no_hostile_file_makes_it_do_anything(tmp_path: Path, sound: Path, fixtures_dir: Path) -> None:
    paths = sorted(str(p) for p in fixtures_dir.iterdir() if p.suffix in (".pth", ".ckpt", ".pt", ".pkl"))
    corpora = os.environ.get("CKPTTOOL_CORPORA")
    if corpora:
        paths += sorted(str(p) for p in Path(corpora).iterdir() if p.suffix == ".pt")
    folder = tmp_path / "out"
    folder.mkdir()
    given = json.dumps([str(sound), str(folder), *paths])
    done = subprocess.run(
        [sys.executable, "-B", "-c", WATCHED], input=given, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


LOADING = """
import sys, torch
bad = []
for path in sys.argv[1:]:
    try:
        torch.load(path, weights_only=True)
    except Exception as error:
        bad.append(f"{path}: {error!r}"[:300])
sys.exit("\\n".join(bad) or 0)
"""


def test_torch_loads_every_sanitized_file(torch: ModuleType, tmp_path: Path, fixtures_dir: Path) -> None:
    """In a process of its own: what hangs or crashes torch must not take the tests along."""
    paths = sorted(p for p in fixtures_dir.iterdir() if p.suffix in (".pth", ".ckpt", ".pt", ".pkl", ".tar"))
    corpora = os.environ.get("CKPTTOOL_CORPORA")
    if corpora:
        paths += sorted(p for p in Path(corpora).iterdir() if p.suffix in (".pt", ".safetensors"))
    made = []
    for number, path in enumerate(paths):
        target = tmp_path / f"{number}-{path.stem}.pth"
        try:
            report = data_of(repair(path, target, sanitize=True, format="torch"))
        except CkpttoolError:
            continue
        written = report["written"]
        made.append(str(written or path))
        if written:
            assert data_of(repair(target, sanitize=True))["sound"], path
    assert len(made) > 20
    done = subprocess.run(
        [sys.executable, "-c", LOADING, *made], text=True, capture_output=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
