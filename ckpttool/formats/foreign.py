"""What is not a checkpoint is named for what it is, with the next thing to do.

Nothing is unpacked except the first bytes of a gzip stream. Sources: the magic numbers are those of each
format's own specification; Git LFS ``docs/spec.md`` for pointers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence as SequenceABC

from ckpttool.errors import printable
from ckpttool.formats import foreign_archives, foreign_text
from ckpttool.formats.foreign_verdict import Verdict
from ckpttool.formats.tar_members import is_tar
from ckpttool.formats.zip_archive import looks_like_zip, read_directory
from ckpttool.limits import DEFAULT, Limits
from ckpttool.model import Checkpoint, Damage
from ckpttool.source import Source
from ckpttool.units import plural, size

NAME = "foreign"

_WHOLE = 1 << 20
_PAGE = 4096

_TITLES = {
    "torch-zip": "a torch zip archive",
    "torch-legacy": "a torch file from before 1.6",
    "torch-tar": "a torch tar from before 0.2",
    "pickle": "a pickle",
    "safetensors": "a safetensors file",
}


def sniff(source: Source) -> bool:
    """Whether the file is surely something else than a checkpoint."""
    return identify(source) is not None


def read(source: Source, limits: Limits) -> Checkpoint:
    """Name what the file is instead of a checkpoint; total."""
    return identify(source) or unknown(source)


def identify(source: Source) -> Checkpoint | None:
    """Name a file that carries another format's mark; None where it has none. Reads a few kilobytes."""
    head = source.read(0, 65_536)
    for test in _TESTS:
        verdict = test(source, head)
        if verdict is not None:
            return _result(source, verdict)
    return None


def unknown(source: Source) -> Checkpoint:
    """Say of a file without any known mark what can be said."""
    head = source.read(0, _PAGE)
    text = foreign_text.plain_text(head)
    if text is not None:
        return _result(source, text)
    zeros = _leading_zeros(source)
    if zeros:
        message = f"no known format: the first {size(zeros)} of {size(source.size)} are zero"
        hint = "fetch or copy the file again: its beginning is lost"
        return _result(source, Verdict("unknown", "no known format", message, hint, {"zeros": zeros}))
    start = head[:8].hex(" ")
    ending = ", and a zip archive at their end" if looks_like_zip(source) else ""
    message = f"no known format: {size(source.size)} that begin with {start}{ending}"
    hint = "compare its size and digest with the place that it came from"
    return _result(source, Verdict("unknown", "no known format", message, hint, {"start": start}))


def polyglot(source: Source, names: SequenceABC[str]) -> Iterator[Damage]:
    """Report a file that several readers would take for theirs; ``names`` are the formats that claim it.

    A zip directory at the end or a tar header at the start count even where no format claims them.
    """
    also = list(names)
    if "torch-legacy" in also and "pickle" in also:
        also.remove("pickle")  # the old layout is a row of pickles
    if "safetensors" in also and "pickle" in also and source.read(2, 1) == b"\0":
        also.remove("pickle")  # a header of 640 bytes and the like: NUL is no opcode
    titles = [_TITLES.get(name, name) for name in also]
    if "torch-zip" not in also:
        directory = read_directory(source, DEFAULT)
        if directory is not None and directory.records:
            titles.append(f"a zip archive of {plural(len(directory.records), 'record')}")
    if "torch-tar" not in also and is_tar(source):
        titles.append("a tar archive")
    if len(titles) > 1:
        message = f"one file, several readings: {' and '.join(titles)}"
        hint = "a scanner and a loader may each see another file: take one written by a single writer"
        yield Damage("polyglot", "", message, {"readings": [*titles]}, hint)


# --- marks at the start of a file ------------------------------------------------------------------------

Test = Callable[[Source, bytes], Verdict | None]

_MAGICS: tuple[tuple[bytes, str, str, str], ...] = (
    (b"BZh", "bzip2", "bzip2-compressed data", "unpack it with bunzip2 and verify what comes out"),
    (b"\xfd7zXZ\0", "xz", "xz-compressed data", "unpack it with unxz and verify what comes out"),
    (b"\x28\xb5\x2f\xfd", "zstd", "zstd-compressed data", "unpack it with unzstd and verify what comes out"),
    (b"\x04\x22\x4d\x18", "lz4", "lz4-compressed data", "unpack it with unlz4 and verify what comes out"),
    (b"7z\xbc\xaf\x27\x1c", "7z", "a 7z archive", "unpack it with 7z x and verify what comes out"),
    (b"Rar!\x1a\x07", "rar", "a RAR archive", "unpack it and verify what comes out"),
    (b"\x89HDF\r\n\x1a\n", "hdf5", "an HDF5 file, as Keras writes it", "read it with h5py"),
    (b"PAR1", "parquet", "a Parquet table", "read it with pyarrow"),
    (b"ARROW1", "arrow", "an Arrow file", "read it with pyarrow"),
    (b"\x89PNG\r\n\x1a\n", "png", "a PNG image", ""),
    (b"\xff\xd8\xff", "jpeg", "a JPEG image", ""),
    (b"%PDF-", "pdf", "a PDF document", ""),
    (b"\x7fELF", "elf", "a Linux program or library", ""),
)


def _nothing(source: Source, head: bytes) -> Verdict | None:
    if source.size:
        return None
    hint = "fetch the file again, or use the checkpoint before it: it was created and nothing was written"
    return Verdict("empty", "an empty file", "an empty file: 0 bytes", hint, {"bytes": 0})


def _zeros(source: Source, head: bytes) -> Verdict | None:
    if any(head) or not all(not any(source.read(at, _PAGE)) for at in _samples(source.size)):
        return None
    looked = "" if source.size <= _WHOLE else " in every place that was looked at"
    message = f"nothing but zeros{looked}: {size(source.size)} were reserved and never written"
    hint = "fetch the file again, or use the checkpoint before it"
    return Verdict("zeros", "zeros", message, hint, {"bytes": source.size})


def _samples(nbytes: int) -> list[int]:
    """Where to look for content: everywhere in a small file, in 257 pages of a large one."""
    if nbytes <= _WHOLE:
        return list(range(0, nbytes, _PAGE))
    step = nbytes // 256
    return [*range(0, nbytes - _PAGE, step), nbytes - _PAGE]


def _leading_zeros(source: Source) -> int:
    """How many bytes at the start are zero, to the page, in the first mebibyte."""
    if any(source.read(0, 16)):
        return 0
    pages = range(0, min(source.size, _WHOLE), _PAGE)
    return next((at for at in pages if any(source.read(at, _PAGE))), 0)


def _magic(source: Source, head: bytes) -> Verdict | None:
    for mark, ident, title, hint in _MAGICS:
        if head.startswith(mark):
            return Verdict(ident, title, f"{title}, {size(source.size)}", hint)
    return None


def _gguf(source: Source, head: bytes) -> Verdict | None:
    if head[:4] != b"GGUF" or len(head) < 24:
        return None
    version, tensors = int.from_bytes(head[4:8], "little"), int.from_bytes(head[8:16], "little")
    message = f"a GGUF file (llama.cpp), version {version}, with {plural(tensors, 'tensor')}"
    hint = "read it with the gguf package, or take the weights that it was made from"
    return Verdict("gguf", "a GGUF file", message, hint, {"version": version, "tensors": tensors})


def _npy(source: Source, head: bytes) -> Verdict | None:
    if not head.startswith(b"\x93NUMPY"):
        return None
    found = re.search(rb"\{[^{}]*\}", head[8:2000])
    what = f": {printable(found[0].decode('latin-1').strip())}" if found else ""
    return Verdict("npy", "a numpy array", f"one numpy array{what}", "read it with numpy.load")


_ONNX_FIELDS = frozenset(b"\x12\x1a\x22\x28\x32\x3a\x42")


def _onnx(source: Source, head: bytes) -> Verdict | None:
    # A ModelProto begins with field 1, the IR version; then comes the producer or another of its fields.
    if len(head) < 16 or head[0] != 8 or not 1 <= head[1] <= 30 or head[2] not in _ONNX_FIELDS:
        return None
    producer = head[4 : 4 + head[3]] if head[2] == 0x12 else b""
    if not producer.isascii() or not producer.decode("latin-1").isprintable():
        return None
    by = f", written by {producer.decode()}" if producer else ""
    message = f"an ONNX graph, IR version {head[1]}{by}"
    return Verdict("onnx", "an ONNX graph", message, "read it with the onnx package", {"ir_version": head[1]})


_TESTS: tuple[Test, ...] = (
    _nothing, _zeros, foreign_text.lfs_pointer, foreign_text.markup, foreign_text.json_text, _magic, _gguf,
    _npy, foreign_archives.gzipped, foreign_archives.tar, foreign_archives.plain_zip, _onnx,
)  # fmt: skip


def _result(source: Source, verdict: Verdict) -> Checkpoint:
    facts = {"kind": verdict.ident, **verdict.facts}
    damage = Damage("not-a-checkpoint", "", verdict.message, facts, verdict.hint)
    return Checkpoint(
        source.name, verdict.ident, damage=(damage,), files=(source.name,), nbytes=source.size, kind=verdict.title
    )
