"""Whole checkpoint files from plain values, without torch: what the frameworks write, byte for byte.

The values are those of ``ckpttool.testing.plain``. Nothing is checked, so broken files can be written.
"""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Mapping
from typing import Any

from ckpttool.dtypes import SAFETENSORS
from ckpttool.testing.plain import Pickled, Tensor
from ckpttool.testing.zips import Record, torch_zip

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
CODES = {dtype.name: code for code, dtype in SAFETENSORS.items()}
"""safetensors' code by dtype name."""


def torch_file(value: Any, *, folder: str = "archive", checksums: bool = True) -> bytes:
    """The file that ``torch.save(value)`` of torch 2.13 writes to a buffer."""
    return torch_zip(torch_records(*Pickled.dumps(value), folder=folder), checksums=checksums)


def torch_records(pickled: bytes, storages: Mapping[str, Any], *, folder: str = "archive") -> list[Record]:
    """The records of such a file, in torch's order and without the serialization id."""
    head = {"data.pkl": pickled, ".format_version": b"1", ".storage_alignment": b"64", "byteorder": b"little"}
    contents = {f"data/{key}": storage.data for key, storage in storages.items()}
    named = {**head, **contents, "version": b"3\n"}
    return [Record(f"{folder}/{name}", data) for name, data in named.items()]


def legacy_file(value: Any, *, magic: int = LEGACY_MAGIC, protocol: int = LEGACY_PROTOCOL) -> bytes:
    """The file that torch wrote before 1.6: five pickles, then each storage after its element count."""
    pickled, storages = Pickled.dumps(value, legacy=True)
    keys = sorted(storages)
    parts = [pickle.dumps(head, 2) for head in (magic, protocol, SYSTEM)]
    parts += [pickled, pickle.dumps(keys, 2)]
    for key in keys:
        storage = storages[key]
        parts.append(struct.pack("<q", len(storage.data) // storage.dtype.itemsize) + storage.data)
    return b"".join(parts)


def safetensors_file(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """A safetensors file of contiguous tensors, laid out as its library does: widest first, then by name."""
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    body = b""
    for name, tensor in sorted(tensors.items(), key=lambda item: (-item[1].kind.bits, item[0])):
        data = tensor.storage.data
        offsets = [len(body), len(body) + len(data)]
        header[name] = {"dtype": CODES[tensor.kind.name], "shape": list(tensor.shape), "data_offsets": offsets}
        body += data
    return safetensors_bytes(json.dumps(header, separators=(",", ":"), ensure_ascii=False), body)


def safetensors_bytes(header: str | bytes, body: bytes, *, align: int = 8) -> bytes:
    """A header, padded with spaces to a multiple of ``align`` bytes, and the data behind it."""
    text = header.encode() if isinstance(header, str) else header
    text += b" " * (-len(text) % align)
    return struct.pack("<Q", len(text)) + text + body


def sharded_files(tensors: Mapping[str, Tensor], *, shards: int = 2) -> dict[str, bytes]:
    """The files of a sharded safetensors checkpoint, index included, by name."""
    names = list(tensors)
    parts = [names[i::shards] for i in range(shards)]
    files: dict[str, bytes] = {}
    places: dict[str, str] = {}
    for number, part in enumerate(parts, 1):
        file = f"model-{number:05d}-of-{shards:05d}.safetensors"
        files[file] = safetensors_file({name: tensors[name] for name in part}, {"format": "pt"})
        places |= dict.fromkeys(part, file)
    total = sum(len(tensor.storage.data) for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": {name: places[name] for name in names}}
    return {**files, "model.safetensors.index.json": json.dumps(index, indent=2).encode() + b"\n"}
