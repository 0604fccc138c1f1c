"""What repair makes of damaged files, end to end and without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ckpttool.errors import CkpttoolError, ExitCode, UsageError
from ckpttool.formats import describe
from ckpttool.testing.samples import FILES, weights
from ckpttool.testing.writers import sharded_files
from ckpttool.testing.zips import placed, tail_of
from ckpttool.verbs.repair import repair
from ckpttool.verbs.verify import verify


@pytest.fixture
def sound() -> bytes:
    return FILES["torch-zip"]()


def outcome(folder: Path, data: bytes, suffix: str = ".pth", **wishes: Any) -> tuple[dict[str, Any], bytes | None]:
    source, output = folder / f"broken{suffix}", folder / f"mended{suffix}"
    source.write_bytes(data)
    output.unlink(missing_ok=True)
    found: Any = repair(source, output, **wishes).json
    assert source.read_bytes() == data
    json.dumps(found)
    return found, output.read_bytes() if output.exists() else None


def largest(data: bytes) -> Any:
    return max(placed(data), key=lambda p: p.stop - p.start)


def errors(path: Path) -> set[str]:
    found = [f for subject in verify([path]).subjects for f in subject.findings]
    return {f.name for f in found if f.severity == "error"}


# --- framing ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signatures", [(b"PK\3\4",), (b"PK\7\10",), (b"PK\1\2",), (b"PK\1\2", b"PK\3\4")])
def test_signatures_that_are_gone_are_put_back(tmp_path: Path, sound: bytes, signatures: tuple[bytes, ...]) -> None:
    bad = sound
    for signature in signatures:
        bad = bad.replace(signature, b"\0\0\0\0")
    found, output = outcome(tmp_path, bad)
    assert output == sound
    assert found["as_written"]
    assert not found["lost"]
    assert found["exit_code"] == 0


def test_a_file_without_its_end_is_what_it_was(tmp_path: Path, sound: bytes) -> None:
    entry = placed(sound)[0].entry
    for stop in (len(sound) - 10, entry + 5, entry):
        assert outcome(tmp_path, sound[:stop])[1] == sound


def test_bytes_before_and_behind_and_inside_are_taken_out(tmp_path: Path, sound: bytes) -> None:
    inside = largest(sound).start + 700
    noise = bytes(range(1, 200))
    for bad in (noise + sound, sound + noise, sound[:inside] + noise + sound[inside:]):
        found, output = outcome(tmp_path, bad)
        assert output == sound, found["notes"]


@pytest.mark.parametrize("stride", [409, pytest.param(41, marks=pytest.mark.slow)])
def test_every_field_of_the_framing_is_restored(tmp_path: Path, sound: bytes, stride: int) -> None:
    payloads = [(p.start, p.stop) for p in placed(sound)]
    framing = [i for i in range(len(sound)) if not any(a <= i < b for a, b in payloads)]
    for at in framing[::stride]:
        bad = sound[:at] + bytes([sound[at] ^ 0x10]) + sound[at + 1 :]
        assert outcome(tmp_path, bad)[1] == sound, at


@pytest.mark.parametrize("name", ["version", "byteorder", ".format_version", ".storage_alignment"])
def test_notes_of_the_writer_are_restored(tmp_path: Path, sound: bytes, name: str) -> None:
    place = next(p for p in placed(sound) if tail_of(p.name) == name)
    bad = sound[: place.start] + b"?" * (place.stop - place.start) + sound[place.stop :]
    assert outcome(tmp_path, bad)[1] == sound


# --- content ---------------------------------------------------------------------------------------------------


def test_a_flipped_bit_is_named_and_turned_back_on_request_alone(tmp_path: Path, sound: bytes) -> None:
    at = largest(sound).start + 1234
    bad = sound[:at] + bytes([sound[at] ^ 8]) + sound[at + 1 :]
    found, output = outcome(tmp_path, bad)
    assert found["exit_code"] == 1
    assert output not in (None, sound)
    assert found["fixable"][0]["byte"] == at
    assert 0 < found["fixable"][0]["mistaken"] < 1e-3
    found, output = outcome(tmp_path, bad, fix_bit=True)
    assert found["exit_code"] == 0
    assert output == sound


def test_a_flipped_bit_of_the_tree_is_turned_back_on_request(tmp_path: Path, sound: bytes) -> None:
    tree = next(p for p in placed(sound) if tail_of(p.name) == "data.pkl")
    at = tree.start + 300
    bad = sound[:at] + bytes([sound[at] ^ 1]) + sound[at + 1 :]
    with pytest.raises(CkpttoolError, match="--fix-bit"):
        outcome(tmp_path, bad)
    assert outcome(tmp_path, bad, fix_bit=True)[1] == sound


def test_a_tree_that_is_gone_is_taken_from_another_checkpoint_of_the_run(tmp_path: Path, sound: bytes) -> None:
    good = tmp_path / "good.pth"
    good.write_bytes(sound)
    bad = bytes(2000) + sound[2000:]
    with pytest.raises(CkpttoolError, match="--like"):
        outcome(tmp_path, bad)
    _found, output = outcome(tmp_path, bad, like=good)
    assert output == sound  # the same tree, byte for byte: its checksum says so


def test_equal_records_of_another_checkpoint_heal(tmp_path: Path, sound: bytes) -> None:
    good = tmp_path / "good.pth"
    good.write_bytes(sound)
    place = largest(sound)
    bad = sound[: place.start] + bytes(place.stop - place.start) + sound[place.stop :]
    assert outcome(tmp_path, bad, like=good)[1] == sound


def test_lost_tensors_are_left_out_and_their_optimizer_state_begins_afresh(tmp_path: Path, sound: bytes) -> None:
    bad = sound[: int(len(sound) * 0.6)]
    found, output = outcome(tmp_path, bad)
    assert output is not None
    assert found["exit_code"] == 1
    assert {one["proof"] for one in found["recovered"]} == {"proved"}
    keys = {entry.key for entry, _ in describe(tmp_path / "mended.pth").tensors()}
    assert keys == {one["key"] for one in found["recovered"]}
    assert keys.isdisjoint(one["key"] for one in found["lost"])
    assert errors(tmp_path / "mended.pth") == set()


@pytest.mark.parametrize("fill", ["zero", "nan", "good.pth"])
def test_what_is_lost_is_completed(tmp_path: Path, sound: bytes, fill: str) -> None:
    (tmp_path / "good.pth").write_bytes(sound)
    before = {entry.key for entry, _ in describe(tmp_path / "good.pth").tensors()}
    wanted = str(tmp_path / fill) if fill.endswith(".pth") else fill
    found, _ = outcome(tmp_path, sound[: int(len(sound) * 0.6)], fill=wanted)
    assert {entry.key for entry, _ in describe(tmp_path / "mended.pth").tensors()} == before
    assert all(one["filled"] for one in found["lost"])
    assert found["exit_code"] == 1
    stamp = describe(tmp_path / "mended.pth").metadata["migrations"]
    assert "repaired" in str(stamp)
    if fill != "nan":
        assert errors(tmp_path / "mended.pth") == set()


def test_unproved_tensors_are_kept_on_request(tmp_path: Path, sound: bytes) -> None:
    at = largest(sound).start + 64
    bad = sound[:at] + b"\x55\xaa\x55" + sound[at + 3 :]
    lost = outcome(tmp_path, bad)[0]["lost"]
    found, _ = outcome(tmp_path, bad, include_unproved=True)
    assert lost
    assert not found["lost"]
    assert "damaged" in {one["proof"] for one in found["recovered"]}


# --- other formats -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["torch-legacy", "safetensors"])
def test_whole_tensors_of_formats_without_checksums_are_kept_and_said_to_be_unproved(tmp_path: Path, kind: str) -> None:
    data = FILES[kind]()
    suffix = ".safetensors" if kind == "safetensors" else ".pth"
    found, output = outcome(tmp_path, data[: int(len(data) * 0.7)], suffix)
    assert output is not None
    assert found["recovered"]
    assert found["lost"]
    assert {one["proof"] for one in found["recovered"]} == {"unprovable"}
    assert any("no checksums" in note for note in found["notes"])


def test_the_opening_of_an_old_file_is_put_right(tmp_path: Path) -> None:
    data = FILES["torch-legacy"]()
    found, output = outcome(tmp_path, data[:3] + b"\0" + data[4:])
    assert output is not None
    assert not found["lost"]


def test_a_header_of_safetensors_is_made_out(tmp_path: Path) -> None:
    data = FILES["safetensors"]()
    (tmp_path / "good.safetensors").write_bytes(data)
    for bad in (b"\xff" * 8 + data[8:], bytes([data[0] ^ 1]) + data[1:]):
        assert outcome(tmp_path, bad, ".safetensors")[0]["lost"] == []
    at = data.index(b'"shape"')
    bad = data[: at + 2] + b"\0" + data[at + 3 :]
    found, _ = outcome(tmp_path, bad, ".safetensors")
    assert len(found["lost"]) == 1
    found, _ = outcome(tmp_path, bad, ".safetensors", like=tmp_path / "good.safetensors")
    assert found["lost"] == []


def test_shards_that_are_missing_are_listed_by_key(tmp_path: Path) -> None:
    files = sharded_files(weights(), shards=2)
    folder = tmp_path / "shards"
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    gone = sorted(name for name in files if name.endswith(".safetensors"))[0]
    (folder / gone).unlink()
    index = next(folder / name for name in files if name.endswith(".index.json"))
    found: Any = repair(index, tmp_path / "saved.safetensors").json
    assert found["exit_code"] == 1
    assert found["recovered"]
    assert all(gone in one["reason"] for one in found["lost"])
    assert found["lost"]


# --- manners -----------------------------------------------------------------------------------------------------


def test_a_sound_file_is_left_alone(tmp_path: Path, sound: bytes) -> None:
    found, output = outcome(tmp_path, sound)
    assert output is None
    assert found["sound"]
    assert found["exit_code"] == 0
    assert found["written"] is None


def test_without_an_output_the_plan_is_all(tmp_path: Path, sound: bytes) -> None:
    (tmp_path / "broken.pth").write_bytes(sound[:-500])
    report = repair(tmp_path / "broken.pth")
    assert report.json["written"] is None
    assert [path.name for path in tmp_path.iterdir()] == ["broken.pth"]


def test_the_damaged_file_is_never_the_output(tmp_path: Path, sound: bytes) -> None:
    path = tmp_path / "broken.pth"
    path.write_bytes(sound[:-500])
    with pytest.raises(UsageError, match="never touches"):
        repair(path, path, force=True)
    assert path.read_bytes() == sound[:-500]


def test_a_file_that_is_there_is_replaced_with_force_alone(tmp_path: Path, sound: bytes) -> None:
    (tmp_path / "broken.pth").write_bytes(sound[:-500])
    (tmp_path / "there.pth").write_bytes(b"precious")
    with pytest.raises(CkpttoolError):
        repair(tmp_path / "broken.pth", tmp_path / "there.pth")
    assert (tmp_path / "there.pth").read_bytes() == b"precious"
    assert repair(tmp_path / "broken.pth", tmp_path / "there.pth", force=True).exit_code == ExitCode.OK


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "page.pth").write_bytes(b"<html><body>404</body></html>")
    with pytest.raises(CkpttoolError):
        repair(tmp_path / "page.pth")
