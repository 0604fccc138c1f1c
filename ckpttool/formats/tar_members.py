"""The members of a tar archive, read from their headers alone.

Source: POSIX.1-2017 ``pax`` (ustar interchange format); GNU tar manual for base-256 sizes.
"""

from __future__ import annotations

from collections.abc import Iterator

from ckpttool.frozen import dataclass
from ckpttool.source import Source

BLOCK = 512
_SKIPPED = frozenset(b"xgLKV")
"""Type flags of headers that only describe the next member."""


@dataclass(frozen=True, slots=True)
class Member:
    """A regular member: where its content lies, and where the next header does. ``header`` is its own."""

    name: str
    header: int
    start: int
    stop: int
    following: int


def is_tar(source: Source) -> bool:
    """Whether the file starts with a header whose checksum holds; the oldest tars have no other mark."""
    return _is_header(source.read(0, BLOCK))


def members(source: Source, most: int = 1000) -> Iterator[Member]:
    """The first ``most`` members in order, up to the end mark or the first bad header; total."""
    at = 0
    for _ in range(most):
        block = source.read(at, BLOCK)
        if not _is_header(block):
            return
        size = _number(block[124:136])
        if size is None:
            return
        start = at + BLOCK
        following = start + (size + BLOCK - 1) // BLOCK * BLOCK
        if block[156] not in _SKIPPED:
            yield Member(_name(block), at, start, start + size, following)
        at = following


def _is_header(block: bytes) -> bool:
    if len(block) < BLOCK or not any(block[:100]):
        return False
    said = _number(block[148:156])
    return said is not None and said == sum(block[:148]) + sum(block[156:]) + 8 * ord(" ")


def _number(field: bytes) -> int | None:
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    text = field.strip(b" \0")
    # int() alone would take underscores and signs.
    if not all(c in b"01234567" for c in text):
        return None
    return int(text, 8) if text else 0


def _name(block: bytes) -> str:
    name = block[:100].partition(b"\0")[0]
    prefix = block[345:500].partition(b"\0")[0] if block[257:262] == b"ustar" else b""
    return (prefix + b"/" + name if prefix else name).decode("utf-8", "backslashreplace")
