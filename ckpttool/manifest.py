"""What a checkpoint's content was when it was sealed, and how that is written down and read again.

The file is JSON, ``ckpttool.manifest/1``: for each file its size, the digests of its blocks and, where asked for,
its SHA-256; for each tensor the digest of its logical content, which no change of format, strides or shards moves.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
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
INSIDE_RECORD = ".data/ckpttool_manifest"
INSIDE_KEY = "ckpttool.manifest"
"""Where a manifest stands inside a checkpoint: a record of torch's archives, an entry of safetensors' metadata."""

LIMIT = 256 << 20
"""Bytes of a manifest that are read: what a million tensors need."""

LEAST_BLOCK = 4096
"""Bytes of the smallest block that is believed: smaller ones would make a small manifest much work."""


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
    manifest has them. ``error`` says why the manifest could not be read; all else is empty then. ``paths`` are the
    checkpoint's own files as it names them, with their names in the manifest. ``extra`` are files in a sealed folder
    that the manifest does not have. ``inside`` says that the manifest stands in the checkpoint: then its only file
    stands for what is no tensor, and every tensor's digest of now is among ``tensors``.
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
    paths: Mapping[str, str] = field(default_factory=dict, hash=False)
    extra: tuple[str, ...] = ()
    inside: bool = False

    @property
    def intact(self) -> frozenset[str]:
        """The files whose every block is what it was."""
        files = () if self.manifest is None else self.manifest.files
        return frozenset(f.name for f in files if self.blocks.get(f.name) == f.blocks and not self._other(f))

    @property
    def sources(self) -> frozenset[str]:
        """The checkpoint's own files, as it names them, whose content is what was sealed."""
        intact = self.intact
        whole = not self.inside or self.manifest is None or self.same_tensors
        return frozenset(path for path, name in self.paths.items() if name in intact) if whole else frozenset()

    @property
    def same_tensors(self) -> bool:
        """Whether every sealed tensor is what it was, and there are no others."""
        before = () if self.manifest is None else self.manifest.tensors
        return {t.key: t for t in before} == dict(self.tensors)

    def _other(self, file: FileSeal) -> bool:
        return bool(file.sha256) and self.hashes.get(file.name, file.sha256) != file.sha256


def sidecar(path: str) -> Path:
    """Where the manifest of a checkpoint stands."""
    place = Path(path)
    is_folder = os.path.isdir(path)  # noqa: PTH112 - never raises
    return place / f"ckpttool{SIDECAR}" if is_folder else place.with_name(place.name + SIDECAR)


def manifest_for(path: str) -> Path | None:
    """The manifest that speaks of a checkpoint: its own, or that of the folder that it lies in; None if neither is.

    Of a link, that of what it points to.
    """
    own = sidecar(path)
    if own.is_file():
        return own
    if os.path.isdir(path):  # noqa: PTH112 - never raises
        return None
    real = os.path.realpath(path)  # `last.pth`, a link to what was sealed
    places = (sidecar(real), Path(path).parent / f"ckpttool{SIDECAR}", Path(real).parent / f"ckpttool{SIDECAR}")
    return next((place for place in places if place.is_file()), None)


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


def to_json(manifest: Manifest, *, compact: bool = False) -> str:
    """The manifest's text, a line for each file and tensor, or ``compact`` in one; equal manifests have equal texts."""
    import json  # here: whoever has no manifest does not wait for it

    if compact:
        return json.dumps(_written(manifest), separators=(",", ":"))
    return _lined(_written(manifest), json.dumps) + "\n"


def _lined(data: Mapping[str, Json], dumps: Callable[[Json], str]) -> str:
    """An object with the items of its lists on lines of their own."""
    parts = []
    for key, value in data.items():
        if isinstance(value, list) and value:
            text = "[\n  " + ",\n  ".join(map(dumps, value)) + "\n ]"
        else:
            text = _lined(value, dumps) if key == "previous" and isinstance(value, dict) else dumps(value)
        parts.append(f" {dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}"


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
        raise Malformed(reason if isinstance(error, Malformed) else f"not a manifest: {reason[:120]}") from error


def _read(data: object, depth: int) -> Manifest:
    found = _dict(data)
    if found.get("schema") != SCHEMA:
        raise Malformed(f"its schema is {found.get('schema')!r}, and {SCHEMA!r} is the one that is known")
    before = found.get("previous") if depth > 1 else None
    files = tuple(_file(item) for item in _list(found["files"]))
    if len({file.name for file in files}) < len(files):
        raise Malformed("it names a file twice")
    return Manifest(
        files,
        tuple(_tensor(item) for item in _list(found["tensors"])),
        str(found["tool"]),
        str(found["created"]),
        None if before is None else _read(before, depth - 1),
    )


def _file(data: object) -> FileSeal:
    found = _dict(data)
    blocks = tuple(str(digest) for digest in _list(found["blocks"]))
    size, block = _count(found["bytes"]), _count(found["block"])
    if block < LEAST_BLOCK:
        raise Malformed(f"blocks of {block} bytes, and {LEAST_BLOCK} is the least")
    if len(blocks) != -(-size // block):
        raise Malformed(f"{size} bytes in blocks of {block} are not {len(blocks)} blocks")
    return FileSeal(str(found["name"]), size, _count(found["mtime_ns"]), block, blocks, str(found.get("sha256", "")))


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
