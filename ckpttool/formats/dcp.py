"""A distributed checkpoint of torch: ``.metadata``, and ``*.distcp`` files that hold one small archive after another.

The tree is the nested state dict that was saved. A tensor that several ranks or items hold comes whole, as a
``chunked`` one; a value that is no tensor is what its own archive's pickle says. Nothing is run: torch unpickles
``.metadata`` and every such value.

Source: torch 2.13 ``torch/distributed/checkpoint/filesystem.py`` and ``default_planner.py``.
"""

from __future__ import annotations

import re
from pathlib import Path

from ckpttool.boxes import named, row_major
from ckpttool.dtypes import STORAGE_CLASSES, DType
from ckpttool.errors import Unreadable
from ckpttool.formats import dcp_judge, dcp_salvage
from ckpttool.formats.dcp_slices import Describe, Slices, read_slices
from ckpttool.formats.dcp_table import METADATA, Entry, Table, in_order, joined, read_table
from ckpttool.formats.folders import DCP, Folder, layout_of, look
from ckpttool.formats.natural import natural
from ckpttool.formats.nesting import nested
from ckpttool.limits import Limits
from ckpttool.model import Checkpoint, Damage, Extent, Json, Node, Span, Tensor
from ckpttool.source import open_source

NAME = "dcp"
TEMPORARY = f"{METADATA}.tmp"

_CLASSES = {dtype.name for dtype in STORAGE_CLASSES.values()}
_OF_RANK = re.compile(r"__(\d+)\.metadata")


def sniff_path(path: str) -> bool:
    """Whether the folder is such a checkpoint, told from its names; finished or not."""
    place = Path(path)
    return place.is_dir() and layout_of(look(place)) == DCP


def read_path(path: str, limits: Limits, describe_file: Describe) -> Checkpoint:
    """Describe the folder as the state dict that was saved; total. Raises ``Unreadable`` if it cannot be listed.

    Reads ``.metadata`` and the headers of every archive in the data files, a few kilobytes for each. Without
    ``.metadata`` what the data files hold is found by looking through them.
    """
    folder = look(Path(path))
    names, table, damage = _table(folder, limits)
    if table is None:
        return dcp_salvage.read(path, folder, describe_file, damage)
    slices = read_slices(folder, table, describe_file)
    damage += [*table.damage, *slices.damage, *dcp_judge.judge(folder, table, slices)]
    return _assemble(path, folder, table, slices, names, damage)


# --- .metadata -------------------------------------------------------------------------------------------


def _table(folder: Folder, limits: Limits) -> tuple[list[str], Table | None, list[Damage]]:
    """The files that were read as the table, and what they say; None where there is none to go by.

    Ranks that save without talking to each other write a file each. Where only the temporary one is left,
    whose rename was all that lacked, it serves.
    """
    found = [name for name in folder.files if name == METADATA]
    found = found or sorted(filter(_OF_RANK.fullmatch, folder.files), key=natural)
    damage: list[Damage] = []
    if not found and TEMPORARY in folder.files:
        trial = _read(folder.path / TEMPORARY, limits)
        complete = trial is not None and trial.usable and not trial.damage
        return ([TEMPORARY], trial, damage) if complete else ([], None, damage)
    tables = []
    for name in found:
        table = _read(folder.path / name, limits)
        if table is None:
            damage.append(Damage("unreadable-part", name, "the file cannot be opened or read"))
        else:
            tables.append(table)
    if not any(table.usable for table in tables):
        return found, None, [*damage, *(one for table in tables for one in table.damage)]
    return found, tables[0] if len(tables) == 1 else joined(tables), damage


def _read(path: Path, limits: Limits) -> Table | None:
    try:
        source = open_source(str(path))
    except Unreadable:
        return None
    try:
        return read_table(source, limits, path.name)
    except Unreadable:
        return None
    finally:
        source.close()


# --- the tree --------------------------------------------------------------------------------------------


def _assemble(
    path: str, folder: Folder, table: Table, slices: Slices, names: list[str], damage: list[Damage]
) -> Checkpoint:
    nodes: list[Node] = list(slices.merged.nodes)
    items = []
    for entry in in_order(table):
        index = _node(entry, slices, nodes)
        if index is not None:
            items.append((entry.name, table.paths.get(entry.name, (entry.name,)), index))
    root, flat = nested(items, nodes)
    if flat:
        message = f"{len(flat)} names have paths that lead nowhere; they stand under their flat names"
        damage.append(Damage("index-malformed", METADATA, message, {"names": len(flat), "first": [*flat[:20]]}))
    tables = [str(folder.path / name) for name in names]
    left = [str(folder.path / name) for name in folder.files if name.endswith(".tmp") and name not in names]
    extents = [Extent(name, Span(file, 0, Path(file).stat().st_size)) for name, file in zip(names, tables, strict=True)]
    return Checkpoint(
        path,
        NAME,
        tuple(nodes),
        root,
        slices.merged.storages,
        (*extents, *slices.merged.extents),
        (*table.globals, *slices.merged.globals),
        (*damage, *slices.merged.damage),
        (*tables, *slices.files, *left),
        table.nbytes + slices.nbytes,
        _facts(folder, table, slices),
    )


def _facts(folder: Folder, table: Table, slices: Slices) -> dict[str, Json]:
    """Counts of what makes up the checkpoint, and the files beside it that were not read."""
    read = {Path(file).name for file in slices.files}
    return {
        "layout": DCP,
        "entries": len(table.entries),
        "slices": len(table.places),
        "data_files": len(slices.files),
        "beside": [name for name in folder.files if name not in read and METADATA not in name],
    }


def _node(entry: Entry, slices: Slices, nodes: list[Node]) -> int | None:
    """The node that stands for an entry; None for a value whose bytes are not there."""
    if entry.dtype is None:
        return slices.root(entry.name, None)
    boxes = [box for box in entry.boxes if box.numel]
    alone = next((box for box in entry.boxes if box.shape == entry.shape), None)
    if alone is not None and len(boxes) < 2:
        whole = slices.root(entry.name, alone.start)
        if whole is not None and isinstance(nodes[whole], Tensor):
            return whole
    parts = []
    for box in boxes:
        index = slices.root(entry.name, box.start)
        node = None if index is None else nodes[index]
        if isinstance(node, Tensor) and node.shape == box.shape and node.dtype == entry.dtype and index is not None:
            parts.append((named(box.start), index))
    nodes.append(_whole(entry.dtype, entry.shape, tuple(parts)))
    return len(nodes) - 1


def _whole(dtype: DType, shape: tuple[int, ...], parts: tuple[tuple[str, int], ...]) -> Tensor:
    form = f"torch._utils._rebuild_tensor_{'v2' if dtype.name in _CLASSES else 'v3'}"
    return Tensor(dtype, shape, row_major(shape), 0, None, False, "chunked", form, parts)
