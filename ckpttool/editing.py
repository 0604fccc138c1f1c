"""Editing a frozen tree: nodes are replaced or added, and what is no longer reached is left out at the end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ckpttool.draft import Content, Draft, contents_of
from ckpttool.model import Call, Checkpoint, Mapping, Node, Sequence, Storage, Tensor, Value


class Editor:
    """A draft under construction. Indices of the original's nodes and storages stay valid throughout.

    >>> editor = Editor(checkpoint)  # doctest: +SKIP
    >>> editor.replace(index, node)  # doctest: +SKIP
    >>> draft = editor.finish()  # doctest: +SKIP
    """

    def __init__(self, checkpoint: Checkpoint, contents: Iterable[Content] | None = None) -> None:
        self.original = checkpoint
        self.nodes: list[Node] = list(checkpoint.nodes)
        self.storages: list[Storage] = list(checkpoint.storages)
        self.contents: list[Content] = list(contents_of(checkpoint)) if contents is None else list(contents)
        self.root = checkpoint.root
        self._atoms: dict[tuple[type, str], int] = {}
        self._next_key = _first_free(checkpoint.storages)

    def put(self, node: Node) -> int:
        """Add a node; its index."""
        self.nodes.append(node)
        return len(self.nodes) - 1

    def value(self, value: None | bool | int | float | str) -> int:
        """The index of a plain value, each kept once."""
        key = (type(value), repr(value))
        if key not in self._atoms:
            self._atoms[key] = self.put(Value(value))
        return self._atoms[key]

    def replace(self, index: int, node: Node) -> None:
        """Put a node in the place of another: everyone who refers to it sees the new one."""
        self.nodes[index] = node

    def mapping(self, items: Iterable[tuple[str | int, int]], kind: str = "dict") -> int:
        """Add a dict of plain keys; its index."""
        pairs = list(items)
        return self.put(Mapping(kind, tuple(self.value(k) for k, _ in pairs), tuple(v for _, v in pairs)))

    def storage(self, like: Storage, content: Content) -> int:
        """Add a storage for new content, with a key of its own; element type and device are those of ``like``."""
        fresh = replace(
            like, key=self.fresh_key(), nbytes=content.nbytes, span=None, checksum=None,
            record="", inline=None,
        )  # fmt: skip
        self.storages.append(fresh)
        self.contents.append(content)
        return len(self.storages) - 1

    def fresh_key(self) -> str:
        """A storage's key that none has had."""
        self._next_key += 1
        return str(self._next_key - 1)

    def finish(self, **facts: object) -> Draft:
        """The draft of what the root reaches, nodes numbered as a reader numbers them. ``facts`` replace fields."""
        order = list(_reached(self.nodes, self.root))
        place = {old: new for new, old in enumerate(order)}
        used = sorted({n.storage for i in order if isinstance(n := self.nodes[i], Tensor) and n.storage is not None})
        home = {old: new for new, old in enumerate(used)}
        nodes = tuple(_moved(self.nodes[i], place, home) for i in order)
        changed = replace(
            self.original,
            nodes=nodes,
            root=None if self.root is None else place[self.root],
            storages=tuple(self.storages[i] for i in used),
        )
        return Draft(replace(changed, **facts), tuple(self.contents[i] for i in used))  # type: ignore[arg-type]


def _first_free(storages: Iterable[Storage]) -> int:
    return 1 + max((int(s.key) for s in storages if s.key.isdecimal()), default=-1)


def _reached(nodes: list[Node], root: int | None) -> Iterable[int]:
    """Parents before children, children in order, each node once."""
    seen: dict[int, None] = {}
    stack = [] if root is None else [root]
    while stack:
        index = stack.pop()
        if index not in seen:
            seen[index] = None
            node = nodes[index]
            if not _is_plain(node):
                stack.extend(reversed(below(node)))
    return seen


def _is_plain(node: Node) -> bool:
    """Whether a node is one that holds no others: most of a tree."""
    if isinstance(node, Value):
        return node.call is None
    return isinstance(node, Tensor) and node.call is None and not node.parts


def below(node: Node) -> list[int]:
    """Every index that a node holds, hidden ones (states, calls, components) included."""
    if isinstance(node, Mapping):
        pairs = [i for pair in zip(node.keys, node.values, strict=True) for i in pair]
        return [*pairs, *_some(node.state), *node.extra]
    if isinstance(node, Sequence):
        return [*node.items, *_some(node.state)]
    if isinstance(node, Call):
        pairs = [i for pair in zip(node.keys, node.values, strict=True) for i in pair]
        return [*node.args, *node.items, *pairs, *_some(node.state)]
    if isinstance(node, Tensor):
        return [*_some(node.call), *(part for _, part in node.parts)]
    return _some(node.call) if isinstance(node, Value) else []


def _some(index: int | None) -> list[int]:
    return [] if index is None else [index]


def _moved(node: Node, place: dict[int, int], home: dict[int, int]) -> Node:
    """A node with its indices renumbered."""

    def many(indices: tuple[int, ...]) -> tuple[int, ...]:
        return tuple([place[i] for i in indices])

    def one(index: int | None) -> int | None:
        return None if index is None else place[index]

    if _is_plain(node):
        if not isinstance(node, Tensor) or node.storage is None or home[node.storage] == node.storage:
            return node
        return replace(node, storage=home[node.storage])
    if isinstance(node, Mapping):
        return Mapping(node.kind, many(node.keys), many(node.values), one(node.state), many(node.extra))
    if isinstance(node, Sequence):
        return Sequence(node.kind, many(node.items), one(node.state))
    if isinstance(node, Call):
        return replace(
            node, args=many(node.args), state=one(node.state), items=many(node.items),
            keys=many(node.keys), values=many(node.values),
        )  # fmt: skip
    if isinstance(node, Tensor):
        storage = None if node.storage is None else home[node.storage]
        parts = tuple((name, place[i]) for name, i in node.parts)
        return replace(node, storage=storage, parts=parts, call=one(node.call))
    return replace(node, call=one(node.call)) if isinstance(node, Value) else node
