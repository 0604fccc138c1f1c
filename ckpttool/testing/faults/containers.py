"""Damage to a file as a run of bytes: what disks, networks, copies and interrupted writers do."""

from __future__ import annotations

import gzip
import random
import struct

from ckpttool.testing.faults.registry import Inapplicable, add, fault
from ckpttool.testing.faults.spans import flip_within, largest, record, some_page, splice
from ckpttool.testing.writers import torch_file

ZIP, LEGACY, SAFE = "torch-zip", "torch-legacy", "safetensors"
ANY = (ZIP, LEGACY, SAFE)


def _cut(share: float) -> None:
    def apply(data: bytes, rng: random.Random) -> bytes:
        return data[: int(len(data) * share)]

    text = f"a download or a save that stopped at {share:.0%}"
    add(f"cut-at-{share:.0%}".rstrip("%"), "truncated", ANY, text, apply)


for _share in (0.25, 0.5, 0.75, 0.99):
    _cut(_share)


@fault("cut-one-byte", "truncated", *ANY)
def cut_one_byte(data: bytes, rng: random.Random) -> bytes:
    """The last byte is missing."""
    return data[:-1]


@fault("zeroed-tail", "truncated", ZIP)
def zeroed_tail(data: bytes, rng: random.Random) -> bytes:
    """Space was reserved, and the last third never arrived."""
    keep = len(data) * 2 // 3
    return data[:keep] + bytes(len(data) - keep)


@fault("flipped-payload-bit", "crc-mismatch", ZIP)
def flipped_payload_bit(data: bytes, rng: random.Random) -> bytes:
    """One bit of one weight turned over on a disk or in memory."""
    place = largest(data)
    return flip_within(data, place.start, place.stop, rng)


@fault("flipped-pickle-bit", "crc-mismatch", ZIP)
def flipped_pickle_bit(data: bytes, rng: random.Random) -> bytes:
    """One bit of the pickle turned over: a name, a shape, an offset."""
    place = record(data, "data.pkl")
    return flip_within(data, place.start, place.stop, rng)


@fault("zeroed-page", "zero-run", ZIP)
def zeroed_page(data: bytes, rng: random.Random) -> bytes:
    """A page that was never flushed before the power went."""
    page = some_page(*_content(data), rng)
    return splice(data, page, page + 4096, bytes(4096))


@fault("swapped-pages", "crc-mismatch", ZIP)
def swapped_pages(data: bytes, rng: random.Random) -> bytes:
    """Two pages written to each other's place."""
    start, stop = _content(data)
    first = some_page(start, stop, rng)
    second = next((p for p in (first + 4096, first - 4096) if start <= p <= stop - 4096), None)
    if second is None:
        raise Inapplicable("the content has no two whole pages")
    one, two = data[first : first + 4096], data[second : second + 4096]
    return splice(splice(data, first, first + 4096, two), second, second + 4096, one)


@fault("dropped-page", "header-mismatch", ZIP)
def dropped_page(data: bytes, rng: random.Random) -> bytes:
    """A page is missing in the middle, and all that follows moved up."""
    page = some_page(*_content(data), rng)
    return splice(data, page, page + 4096)


@fault("doubled-page", "directory-damaged", ZIP)
def doubled_page(data: bytes, rng: random.Random) -> bytes:
    """A page stands twice: a write was retried and not noticed."""
    page = some_page(*_content(data), rng)
    return splice(data, page, page, data[page : page + 4096])


@fault("appended-byte", "trailing-bytes", ZIP, LEGACY)
def appended_byte(data: bytes, rng: random.Random) -> bytes:
    """One byte too many."""
    return data + b"\n"


@fault("appended-kilobyte", "trailing-bytes", ZIP, LEGACY)
def appended_kilobyte(data: bytes, rng: random.Random) -> bytes:
    """The rest of a longer file that was overwritten in place."""
    return data + rng.randbytes(1024)


@fault("prepended-bytes", "leading-bytes", ZIP)
def prepended_bytes(data: bytes, rng: random.Random) -> bytes:
    """Something wrote a header of its own in front."""
    return rng.randbytes(100) + data


@fault("crlf", "directory-damaged", ZIP)
def crlf(data: bytes, rng: random.Random) -> bytes:
    """A transfer in text mode turned every line feed into two bytes."""
    return data.replace(b"\n", b"\r\n")


@fault("html-page", "not-a-checkpoint", *ANY)
def html_page(data: bytes, rng: random.Random) -> bytes:
    """The server sent a page that asks for a login."""
    return b"<!DOCTYPE html><html><head><title>Sign in</title></head><body></body></html>\n"


@fault("lfs-pointer", "not-a-checkpoint", *ANY)
def lfs_pointer(data: bytes, rng: random.Random) -> bytes:
    """The repository was cloned without its large files."""
    oid = f"{rng.getrandbits(256):064x}"
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(data)}\n".encode()


@fault("still-gzipped", "not-a-checkpoint", *ANY)
def still_gzipped(data: bytes, rng: random.Random) -> bytes:
    """The file was never unpacked."""
    return gzip.compress(data, 1, mtime=0)


@fault("nothing-written", "not-a-checkpoint", *ANY)
def nothing_written(data: bytes, rng: random.Random) -> bytes:
    """Created, never flushed: 0 bytes."""
    return b""


@fault("all-zeros", "not-a-checkpoint", *ANY)
def all_zeros(data: bytes, rng: random.Random) -> bytes:
    """The length is right and the content never arrived."""
    return bytes(len(data))


@fault("polyglot", "polyglot", SAFE)
def polyglot(data: bytes, rng: random.Random) -> bytes:
    """A safetensors file whose last tensor is a whole archive: two readers see two checkpoints."""
    hidden = torch_file({"hidden": 1})
    end = len(data) - len(hidden)
    if end < struct.unpack_from("<Q", data)[0] + 8:
        raise Inapplicable(f"the data is shorter than the {len(hidden)} bytes of an archive")
    return data[:end] + hidden


def _content(data: bytes) -> tuple[int, int]:
    """The byte range of the largest storage."""
    if data[:4] == b"PK\3\4":
        place = largest(data)
        return place.start, place.stop
    return len(data) // 4, len(data) * 3 // 4
