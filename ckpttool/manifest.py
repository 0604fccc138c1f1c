"""What a checkpoint's content was when it was sealed, and how that is written down and read again.

The file is JSON, ``ckpttool.manifest/1``: for each file its size, the digests of its blocks and, where asked for,
its SHA-256; for each tensor the digest of its logical content, which no change of format, strides or shards moves.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from ckpttool.model import Json

SCHEMA = "ckpttool.manifest/1"
SIDECAR = ".manifest.json"
"""What is appended to a file's name; in a folder it is the name, after ``ckpttool``."""

ALGORITHMS: Mapping[str, str] = {
    "tensor": "xxh3-128 of the row-major little-endian content",
    "block": "xxh3-128 of each block",
    "sha256": "sha-256 of the whole file",
}
LIMIT = 256 << 20
"""Bytes of a manifest that are read: a hundred times what a million tensors need."""


class Malformed(ValueError):
    """What should be a manifest is none; the text says why."""


@dataclass(frozen=True, slots=True)
class FileSeal:
    """A file as it was: its name relative to the manifest's folder, bytes, digests of blocks of ``block`` bytes.

    ``mtime_ns`` is when it was last written; ``sha256`` is empty where it was not asked for.
    """

    name: str
    nbytes: int
    mtime_ns: int
    block: int
    blocks: tuple[str, ...]
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class TensorSeal:
    """A tensor as it was. ``digest`` is empty for what has no row-major content of its own (packed types)."""

    key: str
    dtype: str
    shape: tuple[int, ...]
    digest: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """A whole checkpoint as it was sealed.

    ``previous`` is what held before: while a file is being replaced either of the two is right, so a kill between
    the two renames leaves a manifest that fits.
    """

    files: tuple[FileSeal, ...]
    tensors: tuple[TensorSeal, ...]
    tool: str
    created: str
    previous: Manifest | None = None


@dataclass(frozen=True, slots=True)
class Sealed:
    """A manifest beside what was found: the digests of now, by file name and by tensor key.

    ``where`` is the manifest's path, ``base`` the folder that its names are relative to. ``lengths`` are bytes of the
    files that are there, ``touched`` those whose time of last writing moved; ``hashes`` are SHA-256 values where the
    manifest has them. ``error`` says why the manifest could not be read; all else is empty then.
    """

    where: str
    manifest: Manifest | None
    base: str = ""
    blocks: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    lengths: Mapping[str, int] = field(default_factory=dict, hash=False)
    touched: frozenset[str] = frozenset()
    hashes: Mapping[str, str] = field(default_factory=dict, hash=False)
    tensors: Mapping[str, TensorSeal] = field(default_factory=dict, hash=False)
    error: str = ""

    @property
    def intact(self) -> frozenset[str]:
        """The files whose every block is what it was."""
        files = () if self.manifest is None else self.manifest.files
        return frozenset(f.name for f in files if self.blocks.get(f.name) == f.blocks and not self._other(f))

    @property
    def sources(self) -> frozenset[str]:
        """The paths of the intact files."""
        return frozenset(str(Path(self.base) / name) for name in self.intact)

    def _other(self, file: FileSeal) -> bool:
        return bool(file.sha256) and self.hashes.get(file.name, file.sha256) != file.sha256


def sidecar(path: str) -> Path:
    """Where the manifest of a checkpoint stands."""
    place = Path(path)
    is_folder = os.path.isdir(path)  # noqa: PTH112 - never raises
    return place / f"ckpttool{SIDECAR}" if is_folder else place.with_name(place.name + SIDECAR)


def manifest_for(path: str) -> Path | None:
    """The manifest that speaks of a checkpoint: its own, or that of the folder that it lies in; None if neither is."""
    own = sidecar(path)
    if own.is_file():
        return own
    folder = Path(path).parent / f"ckpttool{SIDECAR}"
    return folder if folder.is_file() and not Path(path).is_dir() else None


def read_manifest(place: Path) -> Manifest:
    """Read a manifest's file. Raises ``Malformed``, and ``OSError``."""
    with place.open("rb") as file:
        text = file.read(LIMIT + 1)
    if len(text) > LIMIT:
        raise Malformed(f"more than {LIMIT} bytes")
    return from_json(text)


def block_size(nbytes: int) -> int:
    """Bytes of a block: a mebibyte, and more where a file would have more than 4096 of them."""
    size = 1 << 20
    while size * 4096 < nbytes:
        size *= 2
    return size


# --- JSON ------------------------------------------------------------------------------------------------


def to_json(manifest: Manifest) -> str:
    """The manifest's text, a line for each tensor and file; equal manifests have equal texts."""
    import json  # here: whoever has no manifest does not wait for it

    dumps = json.JSONEncoder(ensure_ascii=True).encode  # its `indent` is ten times as slow

    def text(value: Json) -> str:
        items = [f"  {dumps(item)}" for item in value] if isinstance(value, list) else []
        return "[\n" + ",\n".join(items) + "\n ]" if items else dumps(value)

    lines = [f" {dumps(key)}: {text(value)}" for key, value in _written(manifest).items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _written(manifest: Manifest) -> dict[str, Json]:
    files: list[Json] = [
        {
            "name": f.name, "bytes": f.nbytes, "mtime_ns": f.mtime_ns, "block": f.block,
            "blocks": list(f.blocks), **({"sha256": f.sha256} if f.sha256 else {}),
        }
        for f in manifest.files
    ]  # fmt: skip
    tensors: list[Json] = [
        {"key": t.key, "dtype": t.dtype, "shape": list(t.shape), "digest": t.digest} for t in manifest.tensors
    ]
    head: dict[str, Json] = {
        "schema": SCHEMA, "tool": manifest.tool, "created": manifest.created, "algorithms": dict(ALGORITHMS),
    }  # fmt: skip
    before: dict[str, Json] = {} if manifest.previous is None else {"previous": _written(manifest.previous)}
    return {**head, "files": files, "tensors": tensors, **before}


def from_json(text: str | bytes) -> Manifest:
    """Read a manifest's text. Raises ``Malformed``, for any input that is none."""
    import json

    try:
        return _read(json.loads(text), depth=2)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        reason = str(error) or type(error).__name__
        raise Malformed(
            reason if isinstance(error, Malformed) else f"not a manifest: {reason[:120]}"
        ) from error


def _read(data: object, depth: int) -> Manifest:
    found = _dict(data)
    if found.get("schema") != SCHEMA:
        raise Malformed(f"its schema is {found.get('schema')!r}, and {SCHEMA!r} is the one that is known")
    before = found.get("previous") if depth > 1 else None
    return Manifest(
        tuple(_file(item) for item in _list(found["files"])),
        tuple(_tensor(item) for item in _list(found["tensors"])),
        str(found["tool"]),
        str(found["created"]),
        None if before is None else _read(before, depth - 1),
    )


def _file(data: object) -> FileSeal:
    found = _dict(data)
    blocks = tuple(str(digest) for digest in _list(found["blocks"]))
    size, block = _count(found["bytes"]), _count(found["block"])
    if block < 1 or len(blocks) != -(-size // block):
        raise Malformed(f"{size} bytes in blocks of {block} are not {len(blocks)} blocks")
    return FileSeal(
        str(found["name"]), size, _count(found["mtime_ns"]), block, blocks, str(found.get("sha256", ""))
    )


def _tensor(data: object) -> TensorSeal:
    found = _dict(data)
    shape = tuple(_count(size) for size in _list(found["shape"]))
    return TensorSeal(str(found["key"]), str(found["dtype"]), shape, str(found["digest"]))


def _dict(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise Malformed(f"an object is needed where {type(value).__name__} stands")
    return cast("dict[str, object]", value)


def _list(value: object) -> Iterable[object]:
    if not isinstance(value, list):
        raise Malformed(f"a list is needed where {type(value).__name__} stands")
    return value


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise Malformed(f"a count is needed where {str(value)[:40]} stands")
    return value
