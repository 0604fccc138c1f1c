"""A distributed checkpoint whose ``.metadata`` is lost: the archives in its data files, without their names.

Each archive says its tensor's type, shape and checksum; which tensor of the model it is, and which part, stood in
``.metadata`` alone.
"""

from __future__ import annotations

from collections.abc import Iterator

from ckpttool.errors import Unreadable, printable
from ckpttool.formats.dcp_slices import Describe, label
from ckpttool.formats.dcp_table import METADATA, Place
from ckpttool.formats.folders import DCP, Folder
from ckpttool.formats.merge import merge
from ckpttool.formats.slices import Slice, lifted
from ckpttool.model import Checkpoint, Damage, Mapping, Node, Value
from ckpttool.source import Source, open_source
from ckpttool.units import plural

NAME = "dcp"
BLOCK = 8 << 20
_START = b"archive/data.pkl"
_NAME_AT = 30
"""Bytes of a zip archive's local header before its record's name."""


def read(path: str, folder: Folder, describe_file: Describe, damage: list[Damage]) -> Checkpoint:
    """Describe what the data files hold by where it lies there; total. Reads them once."""
    parts: list[tuple[str, Checkpoint]] = []
    files = [name for name in folder.files if name.endswith(".distcp")]
    for name in files:
        try:
            parts += _parts(folder, name, describe_file)
        except Unreadable as error:
            damage.append(Damage("unreadable-part", printable(name), f"the file cannot be read: {error.why}"))
    merged = merge([(name, part) for name, part in parts if not part.kind])
    nodes: list[Node] = list(merged.nodes)
    names = [name for name, part in parts if not part.kind]
    found = [(name, root) for name, root in zip(names, merged.roots, strict=True) if root is not None]
    first = len(nodes)
    nodes += [Value(name) for name, _ in found]
    root = None
    if found:
        nodes.append(Mapping("dict", tuple(range(first, len(nodes))), tuple(index for _, index in found)))
        root = len(nodes) - 1
    temporary = [name for name in folder.files if name.endswith(".tmp") or METADATA in name]
    return Checkpoint(
        path,
        NAME,
        tuple(nodes),
        root,
        merged.storages,
        merged.extents,
        merged.globals,
        (*damage, _lost(len(found), len(files)), *merged.damage),
        tuple(str(folder.path / name) for name in (*files, *temporary)),
        sum((folder.path / name).stat().st_size for name in files if (folder.path / name).exists()),
        {"layout": DCP, "salvaged": True, "slices": len(found), "data_files": len(files)},
    )


def _lost(slices: int, files: int) -> Damage:
    message = (
        f"without it the names of tensors are lost; {plural(slices, 'archive')} can be read "
        f"in {plural(files, 'data file')}, named by where they lie"
    )
    return Damage("chunk-missing", METADATA, message, {"archives": slices, "files": files})


def _parts(folder: Folder, name: str, describe_file: Describe) -> Iterator[tuple[str, Checkpoint]]:
    source = open_source(str(folder.path / name))
    try:
        starts = list(_archives(source))
        for start, stop in zip(starts, [*starts[1:], source.size], strict=False):
            found = describe_file(Slice(source, start, stop))
            yield label(Place(name, start, stop - start)), lifted(found, start)
    finally:
        source.close()


def _archives(source: Source) -> Iterator[int]:
    """Where archives begin: local headers of a first record as torch names it when it writes to a stream."""
    reach = _NAME_AT + len(_START)
    for block in range(0, source.size, BLOCK):
        data = source.read(block, BLOCK + reach - 1)
        at = data.find(_START)
        while at >= 0:
            if at >= _NAME_AT and data[at - _NAME_AT : at - _NAME_AT + 4] == b"PK\x03\x04":
                start = block + at - _NAME_AT
                if start < block + BLOCK:
                    yield start
            at = data.find(_START, at + 1)
