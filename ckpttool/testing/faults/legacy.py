"""Damage to the format that torch wrote before 1.6: pickles, a list of keys, counts and raw bytes."""

from __future__ import annotations

import pickle
import pickletools
import random
import struct

from ckpttool.testing.edit import load, tensors
from ckpttool.testing.faults.pickles import SYSTEM, call
from ckpttool.testing.faults.registry import Inapplicable, fault
from ckpttool.testing.faults.spans import edit_field, splice
from ckpttool.testing.writers import LEGACY_MAGIC, legacy_file

LEGACY = "torch-legacy"


def _keys_at(data: bytes) -> tuple[int, int, list[str]]:
    """Where the list of storage keys lies, the pickle after the tree, and the keys."""
    start = data.find(b".\x80\x02]q\x00") + 1
    if not start:
        raise Inapplicable("the file has no list of storages")
    operations = list(pickletools.genops(data[start:]))
    keys = [str(operand) for opcode, operand, _ in operations if opcode.name == "BINUNICODE"]
    return start, start + (operations[-1][2] or 0) + 1, keys


def _magic(data: bytes) -> bytes:
    head = pickle.dumps(LEGACY_MAGIC, 2)
    if not data.startswith(head):
        raise Inapplicable("the file does not begin with the magic number")
    return head


@fault("legacy-magic", "header-malformed", LEGACY)
def legacy_magic(data: bytes, rng: random.Random) -> bytes:
    """Another number than torch's stands first."""
    return splice(data, 0, len(_magic(data)), pickle.dumps(LEGACY_MAGIC ^ 1, 2))


@fault("legacy-protocol", "header-malformed", LEGACY)
def legacy_protocol(data: bytes, rng: random.Random) -> bytes:
    """A protocol that no torch has written."""
    start = len(_magic(data))
    return splice(data, start, start + len(pickle.dumps(1001, 2)), pickle.dumps(1002, 2))


@fault("legacy-magic-call", "unsafe-global", LEGACY)
def legacy_magic_call(data: bytes, rng: random.Random) -> bytes:
    """The magic number is computed by a call, which scanners take for a number."""
    head = b"\x80\x02" + call("posix.system", SYSTEM) + b"0"
    return splice(data, 0, 2, head)


@fault("legacy-count", "storage-table", LEGACY)
def legacy_count(data: bytes, rng: random.Random) -> bytes:
    """The element count in front of a storage is not that of the tree."""
    return edit_field(data, _keys_at(data)[1], 8, lambda count: count + 1)


@fault("legacy-swapped-count", "byte-swapped-size", LEGACY)
def legacy_swapped_count(data: bytes, rng: random.Random) -> bytes:
    """The element count in front of a storage is in the other byte order."""
    start = _keys_at(data)[1]
    return splice(data, start, start + 8, data[start : start + 8][::-1])


@fault("legacy-negative-count", "storage-table", LEGACY)
def legacy_negative_count(data: bytes, rng: random.Random) -> bytes:
    """The element count in front of a storage is negative."""
    start = _keys_at(data)[1]
    return splice(data, start, start + 8, struct.pack("<q", -1))


@fault("legacy-no-keys", "storage-table", LEGACY)
def legacy_no_keys(data: bytes, rng: random.Random) -> bytes:
    """The list of storages is empty: torch returns whatever its memory held."""
    start, stop, _ = _keys_at(data)
    return splice(data, start, stop, pickle.dumps([], 2))


@fault("legacy-extra-key", "storage-table", LEGACY)
def legacy_extra_key(data: bytes, rng: random.Random) -> bytes:
    """The list of storages names one that the tree does not know."""
    start, stop, keys = _keys_at(data)
    return splice(data, start, stop, pickle.dumps([*keys, "zzz"], 2)) + struct.pack("<q", 0)


@fault("legacy-huge-count", "huge-allocation", LEGACY)
def legacy_huge_count(data: bytes, rng: random.Random) -> bytes:
    """The tree asks for 64 GiB, and the file is small: torch allocates first."""
    value = load(data)
    tensors(value)[0][1].storage.declared = 1 << 34
    return legacy_file(value)
