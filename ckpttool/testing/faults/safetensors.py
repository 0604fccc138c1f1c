"""Damage to a safetensors file: its length, its JSON, its offsets. The format records no checksum."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from typing import Any

from ckpttool.testing.faults.registry import Inapplicable, add, fault
from ckpttool.testing.faults.spans import edit_field
from ckpttool.testing.writers import safetensors_bytes

SAFE = "safetensors"
Header = dict[str, Any]


def split(data: bytes) -> tuple[Header, bytes]:
    """The header as JSON, and the tensors' bytes."""
    length: int = struct.unpack_from("<Q", data)[0]
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def entries(header: Header) -> list[Header]:
    """The tensors' descriptions, in the order of their bytes; at least two, all of which have bytes."""
    found = [entry for name, entry in header.items() if name != "__metadata__"]
    found = [entry for entry in found if entry["data_offsets"][0] < entry["data_offsets"][1]]
    if len(found) < 2:
        raise Inapplicable("the file has fewer than two tensors")
    return sorted(found, key=lambda entry: entry["data_offsets"][0])


def _header(name: str, rule: str, about: str, change: Callable[[Header], Header | bytes | None]) -> None:
    def apply(data: bytes, rng: random.Random) -> bytes:
        header, body = split(data)
        changed = change(header)
        text = changed if isinstance(changed, bytes) else json.dumps(changed or header).encode()
        return safetensors_bytes(text, body)

    add(name, rule, (SAFE,), about, apply)


def _entry(name: str, rule: str, about: str, **fields: Callable[[Any], Any]) -> None:
    """The last tensor's description with some fields changed."""

    def change(header: Header) -> None:
        entry = entries(header)[-1]
        for field, edit in fields.items():
            entry[field] = edit(entry[field])

    _header(name, rule, about, change)


def _last_starts_early(offsets: list[int]) -> list[int]:
    return [offsets[0] - 4, offsets[1] - 4]


def _doubled(header: Header) -> bytes:
    name, entry = next((n, e) for n, e in header.items() if n != "__metadata__")
    return (json.dumps(header)[:-1] + f", {json.dumps(name)}: {json.dumps(entry)}}}").encode()


def _hole(header: Header) -> None:
    del header[next(n for n, e in header.items() if e is entries(header)[0])]


def _deep(header: Header) -> bytes:
    return b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"


def _metadata(value: Any) -> Callable[[Header], Header]:
    return lambda header: {**header, "__metadata__": value}


_entry("st-overlap", "header-ambiguous", "a tensor that begins inside another one", data_offsets=_last_starts_early)
_entry(
    "st-past-end", "truncated", "a tensor that ends past the file", data_offsets=lambda o: [o[0] + 4096, o[1] + 4096]
)
_entry("st-backward", "header-malformed", "a tensor that ends before it begins", data_offsets=lambda o: [o[1], o[0]])
_entry("st-shape", "storage-size", "a shape that needs more bytes than there are", shape=lambda s: [*s, 3])
_entry("st-negative-size", "invalid-shape", "a negative size", shape=lambda s: [-1, *s])
_entry("st-overflow", "header-ambiguous", "more elements than 64 bits count", shape=lambda s: [1 << 62, 1 << 62])
_entry("st-unknown-dtype", "storage-declaration", "a dtype that the format does not have", dtype=lambda d: "F31")
_header("st-duplicate-key", "header-ambiguous", "a tensor described twice", _doubled)
_header("st-hole", "unowned-bytes", "bytes that belong to no tensor", _hole)
_header("st-deep-json", "header-ambiguous", "JSON nested a hundred thousand deep", _deep)
_header("st-bad-json", "header-malformed", "JSON that ends early", lambda h: json.dumps(h)[:-1].encode())
_header("st-leading-space", "header-malformed", "a space before the header", lambda h: b" " + json.dumps(h).encode())
_header("st-list", "header-malformed", "a header that is a list", lambda h: b"[" + json.dumps(h).encode() + b"]")
_header(
    "st-extra-field",
    "header-odd",
    "a description with a field of its own",
    lambda h: {**h, **{n: {**e, "x": 1} for n, e in h.items() if n != "__metadata__"}},
)
_header("st-null-metadata", "header-odd", "metadata that is null", _metadata(None))
_header("st-metadata-number", "header-malformed", "metadata that is no text", _metadata({"steps": 7}))


@fault("st-unpadded", "header-odd", SAFE)
def st_unpadded(data: bytes, rng: random.Random) -> bytes:
    """Tensors that do not begin on a multiple of eight bytes."""
    header, body = split(data)
    text = json.dumps(header).encode()
    return safetensors_bytes(text + b" " * ((-len(text)) % 8 + 1), body, align=1)


@fault("st-length", "truncated", SAFE)
def st_length(data: bytes, rng: random.Random) -> bytes:
    """A header length that reaches past the file."""
    return edit_field(data, 0, 8, lambda length: len(data) + 1)


@fault("st-huge-length", "over-limit", SAFE)
def st_huge_length(data: bytes, rng: random.Random) -> bytes:
    """A header length past anything that the format permits."""
    return edit_field(data, 0, 8, lambda length: 1 << 62)


@fault("st-swapped-length", "byte-swapped-size", SAFE)
def st_swapped_length(data: bytes, rng: random.Random) -> bytes:
    """A header length in the other byte order."""
    return data[:8][::-1] + data[8:]


@fault("st-shifted-length", "header-malformed", SAFE)
def st_shifted_length(data: bytes, rng: random.Random) -> bytes:
    """A header length that is eight bytes short."""
    return edit_field(data, 0, 8, lambda length: length - 8)


@fault("st-appended", "unowned-bytes", SAFE)
def st_appended(data: bytes, rng: random.Random) -> bytes:
    """Bytes behind the last tensor."""
    return data + rng.randbytes(16)
