"""A folder of files that are one checkpoint (a Trainer's, accelerate's) as such a folder again: file for file.

Files whose part of the tree has not changed, and what lies beside them (a tokenizer), are copied as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ckpttool.draft import Copied, Draft
from ckpttool.editing import Editor
from ckpttool.errors import UsageError, printable
from ckpttool.formats import describe, json_tree
from ckpttool.formats.folders import shards_in
from ckpttool.formats.sharded import read_index
from ckpttool.limits import DEFAULT
from ckpttool.model import Checkpoint, Json, Span
from ckpttool.source import open_source
from ckpttool.stamps import ROOMY, note_of
from ckpttool.tree import fields
from ckpttool.writing.compare import first_difference
from ckpttool.writing.losses import Loss
from ckpttool.writing.outputs import File, Format, Output, format_for, output_of
from ckpttool.writing.sharded import INDEX


def folder(draft: Draft, max_shard_size: int | None = None) -> Output:
    """The files of the folder that the draft's tree came from, each in its own format under its own name.

    Raises ``UsageError`` for a folder with parts in folders of their own, and where a file would change that no
    writer makes.
    """
    checkpoint = draft.checkpoint
    files: list[File] = []
    losses: list[Loss] = []
    home = _home(checkpoint)
    for name in fields(checkpoint, checkpoint.root):
        if "/" in name:
            raise UsageError(
                f"{printable(checkpoint.source)} – keeps {printable(name)} in a folder of its own, and such a set is "
                "not written again; name one file with -o"
            )
        part, noted = _noted(_part(draft, name), checkpoint, name == home)
        if noted and _is_as_it_was(part):
            files += [_copied(path) for path in _paths(part.checkpoint)]
            continue
        made = _written(part, name, max_shard_size)
        files += made.files
        losses += made.losses
    files += [_copied(Path(checkpoint.source) / name) for name in _beside(checkpoint)]
    return Output("folder", tuple({file.name: file for file in files}.values()), tuple(losses))


def _beside(checkpoint: Checkpoint) -> list[str]:
    """Files that are no part of the tree; shards are one through their index."""
    listed = checkpoint.metadata.get("beside")
    names = [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
    shards = shards_in([*names, *fields(checkpoint, checkpoint.root)])
    return [name for name in names if name not in shards]


def _part(draft: Draft, name: str) -> Draft:
    """One file's part of the tree, as a checkpoint of the file's format."""
    checkpoint = draft.checkpoint
    files = checkpoint.metadata.get("files")
    known = files.get(name) if isinstance(files, dict) else None
    metadata: dict[str, Json] = dict(known) if isinstance(known, dict) else {}
    editor = Editor(checkpoint, draft.contents)
    editor.root = fields(checkpoint, checkpoint.root)[name]
    source = str(Path(checkpoint.source) / name)
    return editor.finish(source=source, format=str(metadata.pop("format", "")), metadata=metadata)


def _home(checkpoint: Checkpoint) -> str:
    """The file that keeps the note of migrations: the one that does already, else the model's, else the first."""
    files = checkpoint.metadata.get("files")
    known = {
        name: one
        for name, one in (files.items() if isinstance(files, dict) else ())
        if isinstance(one, dict) and (one.get("format") in ROOMY or name.endswith(INDEX))
    }
    keeping = [name for name, one in known.items() if note_of(one)]
    models = [name for name in known if "model" in name]
    return next(iter([*keeping, *models, *known]), "")


def _noted(part: Draft, whole: Checkpoint, home: bool) -> tuple[Draft, bool]:
    """The part with the note that its file is to have; whether that is the note that the file has."""
    wanted = whole.metadata.get("migrations")
    if not isinstance(wanted, str):
        return part, True
    old, wanted = note_of(part.checkpoint.metadata), wanted if home else ""
    metadata: dict[str, Json] = {**part.checkpoint.metadata, "migrations": wanted}
    return replace(part, checkpoint=replace(part.checkpoint, metadata=metadata)), old == wanted


def _is_as_it_was(part: Draft) -> bool:
    """Whether the file holds this very tree and these very bytes."""
    found = _json(part) if _is_json(part.checkpoint.source) else describe(part.checkpoint.source)
    return first_difference(part.checkpoint, found) == "" and _bytes_of(part) == _lying(found)


def _is_json(name: str) -> bool:
    return name.endswith(".json") and not name.endswith(INDEX)


def _json(part: Draft) -> Checkpoint:
    source = open_source(part.checkpoint.source)
    try:
        return json_tree.read(source, DEFAULT)
    finally:
        source.close()


def _bytes_of(part: Draft) -> list[tuple[str, object]]:
    """Where each tensor's bytes come from."""
    return [
        (entry.key, _place(part, tensor.storage))
        for entry, tensor in part.checkpoint.tensors()
        if tensor.storage is not None
    ]


def _place(part: Draft, storage: int) -> object:
    content = part.contents[storage]
    return content.spans if isinstance(content, Copied) else part.checkpoint.storages[storage].inline or content


def _lying(found: Checkpoint) -> list[tuple[str, object]]:
    storages = [found.storages[t.storage] for _, t in found.tensors() if t.storage is not None]
    keys = [entry.key for entry, t in found.tensors() if t.storage is not None]
    places: list[object] = [one.inline or (() if one.span is None else (one.span,)) for one in storages]
    return list(zip(keys, places, strict=True))


def _paths(checkpoint: Checkpoint) -> Sequence[Path]:
    """The files that a part is read from: an index stands for its shards."""
    path = Path(checkpoint.source)
    if not path.name.endswith(INDEX):
        return [path]
    return [*(path.parent / name for name in sorted(set(read_index(str(path), DEFAULT).weight_map.values()))), path]


def _copied(path: Path) -> File:
    size = path.stat().st_size
    return File(path.name, size, lambda sink: sink.copy(Span(str(path), 0, size)))


def _written(part: Draft, name: str, max_shard_size: int | None) -> Output:
    """The file, or the set of shards, with its new content."""
    if _is_json(name):
        raise UsageError(f"{printable(part.checkpoint.source)} – would change, and JSON is not written again")
    made = output_of(part, _format(part, name), name, max_shard_size)
    files = [File(file.name or name, file.nbytes, file.write, file.check) for file in made.files]
    return Output(made.format, tuple(files), made.losses)


def _format(part: Draft, name: str) -> Format:
    if name.endswith(INDEX):
        return format_for(name)
    return format_for(name if Path(name).suffix != ".pkl" else "x.pt", None, part.checkpoint.format)
