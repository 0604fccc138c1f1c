"""A folder that is one checkpoint: transformers' ``checkpoint-N``, an accelerate state, a DeepSpeed tag, Llama's ranks.

Its root maps file names to the trees of the files. A folder that holds one checkpoint and nothing else to
choose from is read as that.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ckpttool.errors import Unreadable
from ckpttool.formats import json_tree
from ckpttool.formats.deepspeed_ranks import missing_ranks, world_size
from ckpttool.formats.folders import DEEPSPEED, META, STATE_FILES, Folder, inner_folders, layout_of, look, parts_of
from ckpttool.formats.merge import merge
from ckpttool.formats.meta_ranks import missing_parts
from ckpttool.formats.targets import find_targets
from ckpttool.limits import Limits
from ckpttool.model import Checkpoint, Damage, Json, Mapping, Node, Value
from ckpttool.source import open_source

NAME = "directory"

Describe = Callable[[str], Checkpoint]

__all__ = ["NAME", "find_targets", "read_path", "sniff_path"]


def sniff_path(path: str) -> bool:
    """Whether the folder is one checkpoint, or holds exactly one."""
    place = Path(path)
    if not place.is_dir():
        return False
    return bool(layout_of(look(place))) or len(find_targets(path)) == 1


def read_path(path: str, limits: Limits, describe_file: Describe) -> Checkpoint:
    """Describe the folder's files as one checkpoint; total. Raises ``Unreadable`` if it cannot be listed."""
    folder = look(Path(path))
    layout = layout_of(folder)
    if not layout:
        return describe_file(find_targets(path)[0])
    parts: list[tuple[str, Checkpoint]] = []
    damage: list[Damage] = []
    for name in _members(folder, layout):
        part = _read_part(folder.path / name, limits, describe_file)
        if isinstance(part, Checkpoint):
            parts.append((name, part))
        else:
            damage.append(part)
    return _assemble(path, folder, layout, parts, damage)


def _members(folder: Folder, layout: str) -> list[str]:
    names = list(parts_of(folder))
    for inner in inner_folders(folder, layout):
        names += [f"{inner}/{name}" for name in parts_of(look(folder.path / inner))]
    return names


def _read_part(path: Path, limits: Limits, describe_file: Describe) -> Checkpoint | Damage:
    try:
        if path.name not in STATE_FILES:
            part = describe_file(str(path))
        else:
            source = open_source(str(path))
            try:
                part = json_tree.read(source, limits)
            finally:
                source.close()
    except Unreadable as error:
        return Damage("unreadable-part", path.name, f"the file cannot be read: {error.why}")
    if not part.kind:
        return part
    said = part.damage[0] if part.damage else Damage("", "", part.kind)
    return Damage("unreadable-part", path.name, said.message, said.facts, said.hint)


def _assemble(
    path: str, folder: Folder, layout: str, parts: list[tuple[str, Checkpoint]], damage: list[Damage]
) -> Checkpoint:
    merged = merge(parts)
    nodes: list[Node] = list(merged.nodes)
    present = [(name, root) for (name, _), root in zip(parts, merged.roots, strict=True) if root is not None]
    first = len(nodes)
    nodes += [Value(name) for name, _ in present]
    keys = tuple(range(first, len(nodes)))
    nodes.append(Mapping("dict", keys, tuple(root for _, root in present)))
    read = {name for name, _ in parts}
    metadata: dict[str, Json] = {
        "layout": layout,
        "files": merged.metadata,
        "beside": [name for name in folder.files if name not in read],
    }
    if layout == DEEPSPEED:
        metadata["latest"] = _latest(folder.path.parent)
        damage = [*damage, *missing_ranks(folder.files, world_size(part for _, part in parts))]
    if layout == META:
        damage = [*damage, *missing_parts(folder.files)]
    return Checkpoint(
        path,
        NAME,
        tuple(nodes),
        len(nodes) - 1,
        merged.storages,
        merged.extents,
        merged.globals,
        (*damage, *merged.damage),
        merged.files,
        merged.nbytes,
        metadata,
    )


def _latest(folder: Path) -> str:
    """The tag that DeepSpeed's ``latest`` names; empty where there is no such file."""
    try:
        with (folder / "latest").open("rb") as file:
            return file.read(256).decode("utf-8", "replace").strip()
    except OSError:
        return ""
