"""A torch archive that somebody unzipped: a folder with ``data.pkl``, ``version`` and ``data/0``, ``data/1``, …

Not asked by ``describe``: torch loads no such folder. ``repair --repack`` makes an archive of it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ckpttool.errors import Unreadable
from ckpttool.formats.pickled import Reading, lift_arrays, read_pickle, scan_rest
from ckpttool.formats.sharded import is_plain
from ckpttool.formats.torch_zip import NAME
from ckpttool.limits import DEFAULT, Limits
from ckpttool.model import Checkpoint, Extent, Json, Span, Storage
from ckpttool.source import open_source

PICKLE = "data.pkl"
_TEXTS = ("byteorder", "version", ".format_version", ".storage_alignment")


def home_of(path: Path) -> Path | None:
    """The folder that holds ``data.pkl``: the one given, or the only one in it; None where there is none."""
    try:
        if (path / PICKLE).is_file():
            return path
        below = [one for one in path.iterdir() if one.is_dir() and (one / PICKLE).is_file()]
    except OSError:
        return None
    return below[0] if len(below) == 1 else None


def read_folder(home: Path, limits: Limits = DEFAULT) -> Checkpoint:
    """Describe an unzipped archive; total. Raises ``Unreadable`` for the pickle alone."""
    reading = Reading(str(home / PICKLE), limits)
    source = open_source(reading.source)
    try:
        size = source.size
        data = source.read(0, min(size, limits.pickle_bytes))
    finally:
        source.close()
    tree = read_pickle(reading, data, PICKLE)
    if tree.outcome.complete:
        scan_rest(reading, data, tree.outcome.end, PICKLE)
    small: dict[str, Json] = {name.lstrip("."): _text(home / name) for name in _TEXTS if (home / name).is_file()}
    swapped = small.get("byteorder") == "big"
    storages = tuple(_with_file(home, storage, swapped) for storage in reading.storages)
    nodes, storages = lift_arrays(reading, storages, PICKLE)
    code = (home / "constants.pkl").is_file()
    if code:
        message = "an unzipped TorchScript archive: it holds code that runs when it is loaded"
        reading.report("contains-code", "constants.pkl", message)
    spans = [storage.span for storage in storages if storage.span is not None and storage.record != PICKLE]
    extents = (
        Extent(PICKLE, Span(reading.source, 0, size)),
        *(Extent(f"data/{Path(span.source).name}", span) for span in dict.fromkeys(spans)),
    )
    prefix = home.name if home.name.isascii() else "archive"
    metadata: dict[str, Json] = {**small, "prefix": prefix, "crc_recorded": False, "unzipped": True}
    files = tuple(dict.fromkeys(extent.span.source for extent in extents))
    return Checkpoint(
        str(home), "torchscript" if code else NAME, nodes, tree.root, storages, extents, tuple(reading.globals),
        tuple(reading.damage), files, sum(extent.span.nbytes for extent in extents), metadata,
    )  # fmt: skip


def _text(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(64).decode("ascii", "replace").strip("\n")


def _with_file(home: Path, storage: Storage, swapped: bool) -> Storage:
    """A storage with its file, if that is a plain one in the folder ``data``."""
    path = home / "data" / storage.key
    if not is_plain(storage.key) or not path.is_file():
        return storage
    try:
        size = path.stat().st_size
    except OSError as error:
        raise Unreadable(str(path), error.strerror or str(error)) from error
    wide = swapped and storage.dtype.bits > 8
    return replace(storage, span=Span(str(path), 0, size), record=f"data/{storage.key}", swapped=wide)
