"""Archives and compressed files that are no checkpoint themselves, but may hold one."""

from __future__ import annotations

import zlib

from ckpttool.errors import printable
from ckpttool.formats.foreign_verdict import Verdict
from ckpttool.formats.tar_members import is_tar, members
from ckpttool.formats.zip_archive import is_exported, read_directory
from ckpttool.limits import DEFAULT
from ckpttool.model import Json
from ckpttool.source import Memory, Source
from ckpttool.units import plural, size

SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".pkl", ".pth.tar")
"""Names that checkpoints usually have."""

_SHOWN = 5


def gzipped(source: Source, head: bytes) -> Verdict | None:
    """A gzip stream, with what its first bytes unpack to."""
    if not head.startswith(b"\x1f\x8b\x08"):
        return None
    inside = _inside(head)
    what = f" around {inside}" if inside else ""
    hint = "gunzip it (tar xzf where it holds a tar) and verify what comes out"
    facts: dict[str, Json] = {"inside": inside}
    return Verdict("gzip", "gzip-compressed data", f"gzip-compressed data{what}, {size(source.size)}", hint, facts)


def _inside(head: bytes) -> str:
    try:
        start = zlib.decompressobj(wbits=31).decompress(head, 1024)
    except zlib.error:
        return ""
    if start.startswith(b"PK\x03\x04"):
        return "a zip archive"
    if start.startswith(b"\x80"):
        return "a pickle"
    return "a tar archive" if is_tar(Memory(start)) else ""


def tar(source: Source, head: bytes) -> Verdict | None:
    """A tar archive, with the checkpoints among its members."""
    # A pickle can be made to look like a tar header; no name of a member starts with its first opcode.
    if head.startswith(b"\x80") or not is_tar(source):
        return None
    names = [member.name for member in members(source, 10_000)]
    return _archive("tar", "a tar archive", "member", names, "tar xf")


def plain_zip(source: Source, head: bytes) -> Verdict | None:
    """A zip archive that torch did not write: of numpy arrays, of a checkpoint, of anything."""
    if not head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return None
    directory = read_directory(source, DEFAULT)
    names = [] if directory is None else [record.name for record in directory.records]
    if names and all(name.endswith(".npy") for name in names):
        message = f"{plural(len(names), 'numpy array')} in an npz archive: {_some(names)}"
        return Verdict("npz", "numpy arrays", message, "read it with numpy.load", {"records": len(names)})
    if any(name.rpartition("/")[2] == "model.weights.h5" for name in names):
        return Verdict("keras", "a Keras model", "a Keras model, its weights in HDF5", "read it with keras")
    if is_exported(names):
        hint = "where you trust its origin, take its weights with torch.export.load(FILE).state_dict"
        message = f"a program of torch.export in {plural(len(names), 'record')}"
        return Verdict("pt2", "an exported program", message, hint, {"records": len(names)})
    return _archive("zip", "a zip archive without a data.pkl", "record", names, "unzip")


def _archive(ident: str, title: str, noun: str, names: list[str], command: str) -> Verdict:
    held = [name for name in names if name.lower().endswith(SUFFIXES)]
    facts: dict[str, Json] = {f"{noun}s": len(names), "checkpoints": [*held[:100]]}
    message = f"{title} with {plural(len(names), noun)}: {_some(held or names)}" if names else f"{title}, empty"
    hint = f"unpack it ({command}) and verify {_some(held)}" if held else ""
    return Verdict(ident, title, message, hint, facts)


def _some(names: list[str]) -> str:
    shown = ", ".join(repr(printable(name)[:80]) for name in names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
