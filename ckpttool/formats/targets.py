"""What below a folder is a checkpoint of its own, found by names and first bytes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ckpttool.errors import Unreadable
from ckpttool.formats.folders import INDEX, Folder, inner_folders, layout_of, look, shards_in
from ckpttool.formats.natural import natural
from ckpttool.formats.sharded import is_plain, read_index
from ckpttool.limits import DEFAULT

DEPTH = 16
"""Levels of folders that are searched."""

_CLEAR = (".pt", ".pth", ".ckpt", ".safetensors", ".pth.tar", ".pt.tar", ".pyth")
_SKIPPED = frozenset(
    ".py .pyc .txt .json .jsonl .md .rst .yaml .yml .toml .log .csv .tsv .png .jpg .jpeg .gif .svg .html "
    ".css .js .c .h .cc .cpp .cu .so .sh .pdf .zip .gz .npy .npz .onnx .gguf .h5 .hdf5 .distcp .parquet "
    ".arrow".split()
)
_USUAL = re.compile(
    r"(pytorch_|diffusion_pytorch_|adapter_)?model.*|optimizer.*|scheduler.*|training_args|consolidated.*"
)
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_POINTER = b"version https://git-lfs"


def find_targets(path: str) -> tuple[str, ...]:
    """The checkpoints at or below a path: composite folders, indexes of shards and single files, in order.

    Files that belong to a composite or to an index are not listed again; links to folders and hidden names
    are not followed. A path that is no folder is its own target. Raises ``Unreadable`` for the folder itself.
    Cost: one listing for each folder, and the first 4 KiB of files whose names leave it open.
    """
    place = Path(path)
    if not place.is_dir():
        return (path,)
    found = [str(target) for target in _search(look(place), DEPTH)]
    return tuple(sorted(dict.fromkeys(found), key=natural))


def _search(folder: Folder, depth: int) -> Iterator[Path]:
    layout = layout_of(folder)
    if layout:
        yield folder.path
    else:
        yield from (folder.path / name for name in _single(folder))
    inner = set(inner_folders(folder, layout)) if layout else set()
    for name in folder.folders:
        if depth and name not in inner and not name.startswith((".", "__")):
            try:
                below = look(folder.path / name)
            except Unreadable:
                yield folder.path / name  # a target that cannot be read is said to be so, not left out
                continue
            yield from _search(below, depth - 1)


def _single(folder: Folder) -> Iterator[str]:
    indexes = [name for name in folder.files if name.endswith(INDEX)]
    taken = shards_in(folder.files)
    for name in indexes:
        taken.update(_mentioned(folder.path / name))
    yield from indexes
    for name in folder.files:
        if name not in taken and not name.startswith(".") and _is_checkpoint(folder.path / name):
            yield name


def _mentioned(index: Path) -> set[str]:
    try:
        return {name for name in read_index(str(index), DEFAULT).weight_map.values() if is_plain(name)}
    except Unreadable:
        return set()


def _is_checkpoint(path: Path) -> bool:
    name = path.name.lower()
    if name.endswith(_CLEAR):
        return True
    if path.suffix.lower() in _SKIPPED:
        return False
    if path.suffix.lower() == ".bin" and _USUAL.fullmatch(path.stem):
        return True
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError:
        return False
    return _starts_like_one(head, pickle=path.suffix.lower() in (".pkl", ".pickle", ".bin", ".tar"))


def _starts_like_one(head: bytes, *, pickle: bool) -> bool:
    """Whether the first bytes are those of a torch or safetensors file, or of a pickle where one may be."""
    if head.startswith(b"PK\x03\x04"):
        return b"data.pkl" in head or b"/data/" in head
    if head.startswith((_LEGACY, _POINTER)) or (head[8:10] == b'{"' and b'"data_offsets"' in head):
        return True
    if head[257:262] == b"ustar":
        return head[:100].rstrip(b"\0") in (b"storages", b"tensors", b"pickle")
    return pickle and head[:1] == b"\x80" and head[1:2] in (b"\2", b"\3", b"\4", b"\5")
