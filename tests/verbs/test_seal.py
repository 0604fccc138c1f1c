"""Sealing, and what verify says of a sealed checkpoint afterwards."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from ckpttool.errors import UsageError, WriteFailed
from ckpttool.manifest import FileSeal, Malformed, Manifest, TensorSeal, block_size, from_json, sidecar, to_json
from ckpttool.testing.samples import run_files, training_state, weights
from ckpttool.testing.writers import safetensors_file, sharded_files, torch_file
from ckpttool.verbs.seal import seal
from ckpttool.verbs.verify import verify


def names(path: Path) -> set[str]:
    report: Any = verify([path]).json
    return {finding["name"] for target in report["targets"] for finding in target["findings"]}


def integrity(path: Path) -> str:
    report: Any = verify([path]).json
    found: str = report["targets"][0]["integrity"]
    return found


@pytest.fixture
def weights_file(tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(safetensors_file(weights(), {"format": "pt"}))
    return path


def test_a_seal_proves_what_the_format_cannot(weights_file: Path) -> None:
    assert integrity(weights_file) == "unprovable"
    seal(weights_file)
    assert integrity(weights_file) == "proved"


def test_every_byte_of_a_sealed_file_counts(weights_file: Path) -> None:
    seal(weights_file)
    sound = weights_file.read_bytes()
    for at in range(0, len(sound), 997):
        weights_file.write_bytes(sound[:at] + bytes([sound[at] ^ 1]) + sound[at + 1 :])
        assert verify([weights_file]).exit_code == 1, at
    weights_file.write_bytes(sound)
    assert verify([weights_file]).exit_code == 0


def test_the_checkpoint_itself_is_not_touched(weights_file: Path) -> None:
    before = weights_file.read_bytes(), weights_file.stat().st_mtime_ns
    seal(weights_file, sha256=True)
    assert (weights_file.read_bytes(), weights_file.stat().st_mtime_ns) == before


def test_a_copy_with_another_time_is_still_what_was_sealed(weights_file: Path) -> None:
    seal(weights_file)
    os.utime(weights_file, ns=(1, 1))
    assert verify([weights_file]).exit_code == 0


def test_tensors_that_differ_are_named(weights_file: Path) -> None:
    seal(weights_file)
    data = bytearray(weights_file.read_bytes())
    data[-5] ^= 1
    weights_file.write_bytes(data)
    report: Any = verify([weights_file]).json
    (finding,) = (f for f in report["targets"][0]["findings"] if f["name"] == "digest-mismatch")
    assert len(finding["facts"]["tensors"]) == 1
    assert "1 of 4 tensors differ" in finding["message"]


def test_another_save_is_an_edit_and_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "last.pth"
    path.write_bytes(torch_file(training_state()))
    seal(path)
    path.write_bytes(torch_file(training_state(seed=8)))
    assert "edited-since-sealed" in names(path)
    assert integrity(path) == "proved"
    seal(path)
    assert verify([path]).exit_code == 0


@pytest.mark.parametrize("files", [sharded_files(weights()), run_files()], ids=["sharded", "run"])
def test_a_folder_is_sealed_as_a_whole(tmp_path: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "tokenizer.json").write_text("{}")
    seal(tmp_path)
    assert verify([tmp_path]).exit_code == 0
    (tmp_path / "tokenizer.json").write_text("{ }")
    assert verify([tmp_path]).exit_code == 1
    (tmp_path / "tokenizer.json").unlink()
    assert "sealed-file-missing" in names(tmp_path)


def test_sha256_is_the_one_of_sha256sum(weights_file: Path) -> None:
    import hashlib

    seal(weights_file, sha256=True)
    made = json.loads(sidecar(str(weights_file)).read_bytes())
    assert made["files"][0]["sha256"] == hashlib.sha256(weights_file.read_bytes()).hexdigest()


def test_what_is_damaged_or_no_checkpoint_is_not_sealed(tmp_path: Path) -> None:
    path = tmp_path / "cut.pth"
    path.write_bytes(torch_file(training_state())[:5000])
    with pytest.raises(UsageError, match="damaged"):
        seal(path)
    path.write_bytes(b"<html>")
    with pytest.raises(UsageError, match="not a checkpoint"):
        seal(path)
    assert not sidecar(str(path)).exists()


def test_a_manifest_that_cannot_be_written_says_so(weights_file: Path, tmp_path: Path) -> None:
    with pytest.raises(WriteFailed):
        seal(weights_file, output=tmp_path / "no" / "folder.json")


def test_a_manifest_never_leads_out_of_its_folder(weights_file: Path) -> None:
    seal(weights_file)
    place = sidecar(str(weights_file))
    made = json.loads(place.read_bytes())
    for name in ("/etc/hostname", "../weights.safetensors"):
        made["files"][0]["name"] = name
        place.write_text(json.dumps(made))
        assert "sealed-file-missing" in names(weights_file)


# --- the manifest's text ---------------------------------------------------------------------------------

HEX = st.text("0123456789abcdef", min_size=32, max_size=32)


@st.composite
def manifests(draw: st.DrawFn, depth: int = 1) -> Manifest:
    def file() -> FileSeal:
        block = draw(st.integers(4096, 1 << 20))
        blocks = draw(st.lists(HEX, max_size=5))
        size = draw(st.integers(max(0, (len(blocks) - 1) * block + 1), len(blocks) * block)) if blocks else 0
        return FileSeal(draw(st.text()), size, draw(st.integers(0, 1 << 62)), block, tuple(blocks), draw(HEX))

    files = tuple({found.name: found for found in (file() for _ in range(draw(st.integers(0, 3))))}.values())
    shapes = st.lists(st.integers(0, 9)).map(tuple)
    tensor = st.builds(TensorSeal, st.text(), st.text(), shapes, HEX)
    tensors = tuple(draw(st.lists(tensor, max_size=4)))
    previous = draw(manifests(depth=0)) if depth and draw(st.booleans()) else None
    return Manifest(files, tensors, draw(st.text()), draw(st.text()), previous)


@given(manifests())
def test_a_manifest_is_read_as_it_was_written(manifest: Manifest) -> None:
    assert from_json(to_json(manifest)) == manifest


KEYS = st.sampled_from(["schema", "files", "tensors", "tool", "created", "name"])
JSON = st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(KEYS, x))


@given(st.binary() | JSON.map(json.dumps))
def test_what_is_no_manifest_is_malformed_and_nothing_else(text: str | bytes) -> None:
    with pytest.raises(Malformed):
        from_json(text)


@given(st.integers(0, 1 << 50))
def test_blocks_are_few_and_never_small(nbytes: int) -> None:
    block = block_size(nbytes)
    assert block >= 1 << 20
    assert nbytes <= block * 4096
