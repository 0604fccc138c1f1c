"""Where a target is told: a checkpoint, a file of keys, or a model that the user names."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping as MappingABC
from typing import TypeAlias

from ckpttool.dtypes import DTYPES
from ckpttool.errors import Unreadable, UsageError, printable
from ckpttool.migration.target import Target, target_of
from ckpttool.model import Checkpoint, Mapping, Node, Tensor, Value
from ckpttool.profiles import lay_out
from ckpttool.source import LocalFile

SCHEMA = b'"ckpttool.keys/'
LARGEST = 1 << 28
"""Bytes of a file of keys that are read."""

HEAD = 4096
"""Bytes in which a file of keys names its schema."""

Branch: TypeAlias = "dict[str, Branch | Tensor]"


def is_keys(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a file of keys as ``inspect --keys`` writes them."""
    try:
        head = _read(os.fspath(path), HEAD)
    except Unreadable:
        return False
    return head.lstrip()[:1] == b"{" and SCHEMA in head


def keys_target(path: str | os.PathLike[str]) -> Target:
    """The target that a file of keys tells: the weights among them.

    Raises ``Unreadable``, and ``UsageError`` for a file that holds no keys.
    """
    checkpoint = keys_checkpoint(path)
    return target_of(checkpoint, lay_out(checkpoint), printable(os.fspath(path)))


def keys_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """The tree of a file of keys, tensors without content."""
    name = os.fspath(path)
    try:
        listed = json.loads(_read(name, LARGEST))["keys"]
        tree: Branch = {}
        for one in listed:
            _put(tree, one)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        why = "holds no keys as 'ckpttool inspect --keys' writes them"
        raise UsageError(f"{printable(name)} – {why}") from error
    nodes: list[Node] = []
    root = _grown(tree, nodes)
    return Checkpoint(name, "keys", tuple(nodes), root)


def _read(name: str, most: int) -> bytes:
    """The first bytes of a regular file. Raises ``Unreadable`` for all else, without waiting for it."""
    file = LocalFile(name)
    try:
        return file.read(0, most)
    finally:
        file.close()


def _put(tree: Branch, one: MappingABC[str, object]) -> None:
    """Add a key to the tree at its path. Raises ``ValueError`` and its like for what is none."""
    path, sizes = one.get("path", [one["key"]]), one["shape"]
    if not isinstance(path, list) or not path or not all(isinstance(step, str) for step in path):
        raise ValueError("not a path")
    if not isinstance(sizes, list) or not all(type(size) is int and size >= 0 for size in sizes):
        raise ValueError("not a shape")
    dtype = DTYPES[str(one.get("dtype", "float32"))]
    branch = tree
    for step in path[:-1]:
        inner = branch.setdefault(step, {})
        if isinstance(inner, Tensor):
            raise ValueError("a tensor inside a tensor")
        branch = inner
    stride = [1] * len(sizes)
    for at in range(len(sizes) - 2, -1, -1):
        stride[at] = stride[at + 1] * max(1, sizes[at + 1])
    branch[path[-1]] = Tensor(dtype, tuple(sizes), tuple(stride), 0, None)


def _grown(tree: Branch, nodes: list[Node]) -> int:
    """The tree as nodes, children first; the index of its root."""
    keys, values = [], []
    for step, below in tree.items():
        nodes.append(Value(step))
        keys.append(len(nodes) - 1)
        if isinstance(below, Tensor):
            nodes.append(below)
            values.append(len(nodes) - 1)
        else:
            values.append(_grown(below, nodes))
    nodes.append(Mapping("dict", tuple(keys), tuple(values)))
    return len(nodes) - 1
