"""Which files a draft becomes in a format, what they cannot hold, and how each is checked when it is read back."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from ckpttool.draft import Draft
from ckpttool.errors import UsageError, printable
from ckpttool.frozen import dataclass
from ckpttool.model import Checkpoint, Tensor
from ckpttool.writing import adapting, safetensors, sharded
from ckpttool.writing.compare import first_difference
from ckpttool.writing.flat import dtype_in_file, shape_of
from ckpttool.writing.losses import Loss
from ckpttool.writing.streams import Sink

Format: TypeAlias = Literal["torch", "torch-legacy", "safetensors", "sharded", "sharded-bin", "folder"]
FORMATS: tuple[Format, ...] = get_args(Format)
SETS = ("sharded", "sharded-bin", "folder")
"""Formats of several files."""

FOLDER = "directory"
"""What a folder of files that are one checkpoint is called where it is read."""

TORCH_SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".tar")
Check: TypeAlias = Callable[[Checkpoint], str]


@dataclass(frozen=True, slots=True)
class File:
    """One file of an output: its name in a folder (empty for the output itself), its bytes about, how it is made.

    ``check`` says in words how a description of what was written differs from what was meant; None for text.
    """

    name: str
    nbytes: int
    write: Callable[[Sink], None]
    check: Check | None = None


@dataclass(frozen=True, slots=True)
class Output:
    """The files of an output, in the order in which they get their names, and what they do not carry."""

    format: Format
    files: tuple[File, ...]
    losses: tuple[Loss, ...]

    @property
    def nbytes(self) -> int:
        return sum(file.nbytes for file in self.files)


def format_for(destination: str | os.PathLike[str], wanted: str | None = None, source: str = "") -> Format:
    """The format that is asked for, else the one that the name says; ``source`` is what there was before.

    A file of torch stays of torch before 1.6 if it was, a folder of files a folder of files. Raises ``UsageError``
    where nothing says the format.
    """
    name = os.fspath(destination)
    is_set = _is_set(name)
    if wanted is not None:
        if wanted not in FORMATS:
            raise UsageError(f"no format is called '{printable(wanted)}'; there are {', '.join(FORMATS)}")
        if wanted == "folder" and source != FOLDER:
            raise UsageError(f"{printable(name)} – a folder of files is written from such a folder only")
        if is_set != (wanted in SETS):
            need = "a folder or an index (*.index.json)" if not is_set else "one file"
            raise UsageError(f"{printable(name)} – {wanted} is not written to this; name {need}")
        return next(one for one in FORMATS if one == wanted)
    if is_set and source == FOLDER and not name.endswith(sharded.INDEX):
        return "folder"
    if is_set:
        return "sharded-bin" if name.endswith(".bin.index.json") else "sharded"
    suffix = Path(name).suffix.lower()
    if suffix in safetensors.SUFFIXES:
        return "safetensors"
    if suffix in TORCH_SUFFIXES:
        return "torch-legacy" if source == "torch-legacy" else "torch"
    known = ", ".join((*TORCH_SUFFIXES, *safetensors.SUFFIXES, ".index.json"))
    raise UsageError(f"{printable(name)} – the name says no format: end it with {known}, or use --as")


def _is_set(name: str) -> bool:
    """Whether a path is for several files: an index, a folder, a name that ends like one or has no suffix."""
    ends = name.endswith((sharded.INDEX, "/", os.sep))
    return ends or Path(name).is_dir() or not (Path(name).suffix or Path(name).exists())


def output_of(
    draft: Draft, fmt: Format, destination: str | os.PathLike[str], max_shard_size: int | None = None
) -> Output:
    """The files that the draft becomes. Headers only; raises ``UsageError`` where names would meet."""
    if fmt == "safetensors":
        layout = safetensors.lay_out(draft)
        file = File(
            "",
            layout.nbytes,
            lambda sink: safetensors.write(draft, sink, layout=layout),
            lambda found: entries_differ(layout, found),
        )
        return Output(fmt, (file,), layout.losses)
    if fmt in ("torch", "torch-legacy"):
        return _torch(draft, fmt)
    if fmt == "folder":
        from ckpttool.writing.folder import folder

        return folder(draft, max_shard_size)
    return _shards(draft, fmt, destination, max_shard_size)


def _torch(draft: Draft, fmt: Format) -> Output:
    from ckpttool.writing import torch_legacy, torch_zip

    writer = torch_zip if fmt == "torch" else torch_legacy
    adapted = adapting.for_torch(draft)
    file = File(
        "",
        sum(content.nbytes for content in adapted.contents),
        lambda sink: writer.write(adapted, sink),
        lambda found: first_difference(adapted.checkpoint, found),
    )
    return Output(fmt, (file,), (*adapting.losses(draft), *writer.losses(adapted)))


def _shards(draft: Draft, fmt: Format, destination: str | os.PathLike[str], max_shard_size: int | None) -> Output:
    kind: sharded.Kind = "bin" if fmt == "sharded-bin" else "safetensors"
    adapted = adapting.for_torch(draft) if kind == "bin" else draft
    stem = ""
    if os.fspath(destination).endswith(sharded.INDEX):
        stem = Path(destination).name.removesuffix(sharded.INDEX).removesuffix(f".{kind}")
    made = sharded.plan(adapted, kind, stem, max_shard_size or sharded.MAX_SHARD_SIZE)
    files = [_shard(shard, kind) for shard in made.shards]
    if made.index is not None:
        index = made.index
        files.append(File(made.index_name, len(index), lambda sink: sink.write(index)))
    return Output(fmt, tuple(files), made.losses)


def _shard(shard: sharded.Shard, kind: sharded.Kind) -> File:
    def check(found: Checkpoint) -> str:
        if kind == "bin":
            return first_difference(shard.draft.checkpoint, found)
        return entries_differ(shard.layout, found) if shard.layout is not None else ""

    return File(shard.name, shard.nbytes, shard.write, check)


def entries_differ(layout: safetensors.Layout, found: Checkpoint) -> str:
    """How the table of a safetensors file that was read back differs from what was meant, in words."""
    meant = {i.name: (dtype_in_file(i.tensor).name, shape_of(i.tensor)) for i in layout.items}
    have = {e.path[0]: (e.node.dtype.name, e.node.shape) for e in found.entries() if isinstance(e.node, Tensor)}
    if list(meant) != list(have):
        return f"{len(meant)} tensors were written, and {len(have)} others are there"
    for name, form in meant.items():
        if have[name] != form:
            return f"'{printable(name)}' is {form}, and {have[name]} was found"
    recorded = found.metadata.get("metadata")
    return "" if recorded == layout.metadata else "the metadata differ"
