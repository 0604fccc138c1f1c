"""The layout before torch 1.6: views, ties, class source, truncations, counts, key lists, byte order."""

from __future__ import annotations

import io
import pickle
import struct
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ckpttool.checks import rules
from ckpttool.dtypes import DTYPES
from ckpttool.formats import describe, describe_source
from ckpttool.model import Checkpoint, Damage, Tensor
from ckpttool.source import Memory
from ckpttool.testing.plain import Storage, Tensor as Plain, tensor
from ckpttool.testing.writers import LEGACY_MAGIC, SYSTEM, legacy_file

FLOATS = struct.pack("<6f", 1, 2, 3, 4, 5, 6)
VALUE = {"a": tensor((2, 3), FLOATS), "b": tensor((3,), b"\1\2\3", "uint8"), "n": 3}
SMALL = legacy_file(VALUE)


def read(data: bytes) -> Checkpoint:
    return describe_source(Memory(data, "x.pt"), audit=True)


def found(data: bytes) -> dict[str, Damage]:
    return {d.rule: d for d in read(data).damage}


def tensors(checkpoint: Checkpoint) -> dict[str, Tensor]:
    return {entry.key: node for entry, node in checkpoint.tensors()}


def content(checkpoint: Checkpoint, data: bytes, key: str) -> bytes:
    storage = checkpoint.storages[tensors(checkpoint)[key].storage or 0]
    assert storage.span is not None
    return data[storage.span.start : storage.span.stop]


def keyed(keys: Any, data: bytes = SMALL) -> bytes:
    """The file with another list of storage keys."""
    old = pickle.dumps(["0", "1"], 2)
    assert data.count(old) == 1
    return data.replace(old, pickle.dumps(keys, 2))


def test_a_sound_file_is_described_without_damage() -> None:
    checkpoint = read(SMALL)
    assert (checkpoint.format, checkpoint.damage) == ("torch-legacy", ())
    assert content(checkpoint, SMALL, "a") == FLOATS
    assert content(checkpoint, SMALL, "b") == b"\1\2\3"
    assert checkpoint.metadata == {"crc_recorded": False, "little_endian": True}


def test_extents_own_every_byte_once() -> None:
    at = 0
    for extent in read(SMALL).extents:
        assert extent.span.start == at
        at = extent.span.stop
    assert at == len(SMALL)


def test_views_and_ties_look_into_one_storage() -> None:
    storage = Storage(FLOATS, DTYPES["float32"])
    value = {"all": Plain(storage, (6,), (1,)), "tail": Plain(storage, (2,), (1,), 4)}
    value["same"] = value["all"]
    seen = tensors(read(legacy_file(value)))
    assert {t.storage for t in seen.values()} == {0}
    assert seen["tail"].offset == 4
    assert seen["same"] is seen["all"]


def test_storage_views_add_their_offset(torch: ModuleType) -> None:
    base = torch.arange(10.0)
    out = io.BytesIO()
    torch.save(
        {"base": base, "row": base[3:7], "column": base.view(5, 2)[:, 1]}, out, _use_new_zipfile_serialization=False
    )
    checkpoint = read(out.getvalue())
    seen = tensors(checkpoint)
    assert checkpoint.damage == ()
    assert (seen["row"].offset, seen["column"].stride, seen["column"].offset) == (3, (2,), 1)
    assert content(checkpoint, out.getvalue(), "base") == base.numpy().tobytes()


def test_real_files_are_described_without_damage(fixtures_dir: Path) -> None:
    for name in ("legacy.pth", "legacy_training.pth", "legacy_views.pth", "legacy_module.pth", "torch113_legacy.pth"):
        checkpoint = describe(fixtures_dir / name, audit=True)
        assert (checkpoint.format, checkpoint.damage) == ("torch-legacy", ())
        assert sum(e.span.nbytes for e in checkpoint.extents) == checkpoint.nbytes


def test_the_source_of_a_class_in_a_persistent_id_is_no_code_to_run(fixtures_dir: Path) -> None:
    before = set(sys.modules)
    checkpoint = describe(fixtures_dir / "legacy_module.pth")
    assert "research_nets" not in set(sys.modules) - before
    assert any(g.module == "research_nets" for g in checkpoint.globals)
    assert tensors(checkpoint)


# --- damage ------------------------------------------------------------------------------------------------


def test_every_prefix_is_reported() -> None:
    for length in range(21, len(SMALL)):
        checkpoint = read(SMALL[:length])
        assert any(rules()[d.rule].severity == "error" for d in checkpoint.damage), length


def test_a_prefix_says_how_many_storages_are_whole() -> None:
    checkpoint = read(SMALL)
    ends = [s.span.stop for s in checkpoint.storages if s.span]
    tree = next(e.span.stop for e in checkpoint.extents if e.name == "tree")
    for length in range(tree, len(SMALL)):
        facts = found(SMALL[:length])["truncated"].facts
        assert facts["storages"] == 2
        assert facts["whole_storages"] == sum(end <= length for end in ends), length
        assert facts["missing_bytes"] == len(SMALL) - length


def test_a_prefix_that_ends_in_the_tree_is_truncated() -> None:
    tree = next(e.span for e in read(SMALL).extents if e.name == "tree")
    for length in range(tree.start, tree.stop):
        assert "truncated" in found(SMALL[:length]), length


def test_a_wrong_element_count_is_told_with_both_numbers() -> None:
    at = SMALL.index(struct.pack("<q", 6) + FLOATS)
    damage = found(SMALL[:at] + struct.pack("<q", 7) + SMALL[at + 8 :])["storage-table"]
    assert (damage.facts["recorded"], damage.facts["expected"]) == (7, 6)
    assert "7" in damage.message
    assert "6" in damage.message


def test_an_element_count_in_the_other_byte_order_marks_the_storage() -> None:
    at = SMALL.index(struct.pack("<q", 6) + FLOATS)
    checkpoint = read(SMALL[:at] + struct.pack(">q", 6) + SMALL[at + 8 :])
    assert next(d.rule for d in checkpoint.damage) == "byte-swapped-size"
    assert checkpoint.storages[0].swapped


@pytest.mark.parametrize(
    "keys", [["0"], ["0", "1", "2"], ["0", "9"], "01", ["0", ["1"]], [], ["0", "1", "0"], {"0": 1}]
)
def test_key_lists_that_do_not_fit_are_reported(keys: Any) -> None:
    assert "storage-table" in found(keyed(keys))


def test_keys_in_another_order_lead_to_other_bytes() -> None:
    checkpoint = read(keyed(["1", "0"]))
    assert "storage-table" in {d.rule for d in checkpoint.damage}


def test_header_pickles_that_torch_does_not_write() -> None:
    def head(magic: object = LEGACY_MAGIC, protocol: object = 1001, system: object = SYSTEM) -> bytes:
        old = b"".join(pickle.dumps(x, 2) for x in (LEGACY_MAGIC, 1001, SYSTEM))
        assert SMALL.startswith(old)
        return b"".join(pickle.dumps(x, 2) for x in (magic, protocol, system)) + SMALL[len(old) :]

    assert "header-malformed" not in found(head())
    assert "header-malformed" in found(head(magic=LEGACY_MAGIC ^ 1))
    assert "header-malformed" in found(head(protocol=1002))
    assert "header-malformed" in found(head(system=[]))
    assert "header-malformed" in found(head(system={"protocol_version": 1001}))
    assert "header-malformed" in found(head(system={**SYSTEM, "little_endian": False}))


def test_trailing_bytes_are_counted() -> None:
    assert found(SMALL + b"more")["trailing-bytes"].facts["bytes"] == 4


def test_names_in_every_pickle_of_the_file_are_gathered() -> None:
    old = pickle.dumps(["0", "1"], 2)
    evil = b"\x80\2cos\nsystem\n0" + old[2:]
    checkpoint = read(SMALL.replace(old, evil))
    assert "os.system" in {g.dotted for g in checkpoint.globals}
    assert set(tensors(checkpoint)) == {"a", "b"}


def test_many_storages_take_linear_time() -> None:
    value = [tensor((1,), b"\0\0\0\0") for _ in range(3000)]
    checkpoint = read(legacy_file(value))
    assert checkpoint.damage == ()
    assert len(checkpoint.storages) == 3000
