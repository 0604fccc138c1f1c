"""Putting keys into a state dict's containers: flat or nested, each of its kind, in the order of the result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping as MappingABC, Sequence
from dataclasses import field, replace

from ckpttool.editing import Editor
from ckpttool.errors import printable
from ckpttool.frozen import dataclass
from ckpttool.migration.errors import MigrationError
from ckpttool.migration.scopes import Leaf, Path, Scope
from ckpttool.model import Mapping
from ckpttool.tree import key_text


@dataclass(frozen=True, slots=True)
class Entry:
    """A key of the result: its whole name in the scope, prefix included, its node, and the leaf that it comes from."""

    name: str
    index: int
    source: Leaf | None


@dataclass(slots=True)
class _Box:
    """A container in the making: keys with nodes, or with the path of a container below."""

    items: dict[str, tuple[int | None, int | Path]] = field(default_factory=dict)
    like: Path = ()


def rebuild(editor: Editor, scope: Scope, entries: Sequence[Entry]) -> None:
    """Give a state dict these keys in this order. What is not a key of it stays where it was.

    A new key lands in the deepest container whose path starts its name, else in a new container that takes the
    place of its source's, else at the top. Raises ``MigrationError`` where a pickled module has no such place.
    """
    whole = list(_with_fixed(scope, entries))
    if scope.modules:
        _rebuild_modules(editor, scope, whole)
        return
    boxes: dict[Path, _Box] = {(): _Box()}
    known = {".".join(path): path for path in scope.containers if path}
    for entry in whole:
        path, key_node = _place(entry, known)
        box = _opened(boxes, path[:-1], entry)
        if path[-1] in box.items:
            raise MigrationError(f"{printable(scope.key(entry.name))} – two keys of the result have this name")
        box.items[path[-1]] = (key_node, entry.index)
    if scope.role == "other" and not scope.path:
        for path, box in boxes.items():
            _settle(editor, box, scope.containers.get(path))
    made: dict[Path, int] = {}
    for path in sorted(boxes, key=len, reverse=True):
        _close(editor, scope, boxes, path, made)


def _with_fixed(scope: Scope, entries: Iterable[Entry]) -> Iterable[Entry]:
    """The entries, and between them what rules did not see, each behind what stood before it."""
    places = {leaf.path: i for i, leaf in enumerate(scope.leaves)}
    fixed = [(i, leaf) for i, leaf in enumerate(scope.leaves) if leaf.name is None]
    fixed.reverse()
    for entry in entries:
        at = -1 if entry.source is None else places[entry.source.path]
        while fixed and fixed[-1][0] < at:
            yield _kept(fixed.pop()[1])
        yield entry
    yield from (_kept(leaf) for _, leaf in reversed(fixed))


def _kept(leaf: Leaf) -> Entry:
    return Entry(".".join(leaf.path), leaf.index, leaf)


def _place(entry: Entry, known: MappingABC[str, Path]) -> tuple[Path, int | None]:
    """The segments of an entry's path, and the node of its last key where that one stays."""
    source = entry.source
    if source is not None and entry.name == ".".join(source.path):
        return source.path, source.key
    path = _segments(entry.name, () if source is None else source.path, known)
    same = source is not None and path[-1] == source.path[-1]
    return path, source.key if same and source is not None else None


def _segments(name: str, source: Path, known: MappingABC[str, Path]) -> Path:
    words = name.split(".")
    one = _one_changed(name, source)
    for cut in range(len(words) - 1, 0, -1):
        path = known.get(".".join(words[:cut]))
        if path is not None and (one is None or len(path) > _shared(path, one)):
            return (*path, ".".join(words[cut:]))
    if one is not None and len(one) > 1:
        return one
    if len(source) > 1 and name.endswith("." + source[-1]):
        return (*_segments(name[: -len(source[-1]) - 1], source[:-1], known), source[-1])
    if len(source) > 1 and len(source) == len(words) and not any("." in step for step in source):
        return tuple(words)
    return (name,)


def _one_changed(name: str, source: Path) -> Path | None:
    """The source's path with one segment under another text, dots and all; None where more than one has changed."""
    for place, old in enumerate(source):
        head, tail = ".".join((*source[:place], "")), ".".join(("", *source[place + 1 :]))
        head, tail = (head if place else ""), (tail if place + 1 < len(source) else "")
        middle = name[len(head) : len(name) - len(tail)]
        if name == head + middle + tail and middle and middle != old and "" not in middle.split("."):
            return (*source[:place], middle, *source[place + 1 :])
    return None


def _shared(path: Path, other: Path) -> int:
    """How many leading segments two paths have in common."""
    pairs = zip(path, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(path), len(other)))


def _opened(boxes: dict[Path, _Box], path: Path, entry: Entry) -> _Box:
    """The container at a path; those around it are made where they are missing."""
    if path not in boxes:
        source = () if entry.source is None else entry.source.path
        above = _opened(boxes, path[:-1], entry)
        above.items.setdefault(path[-1], (None, path))
        boxes[path] = _Box(like=source[: len(path)])
    return boxes[path]


def _settle(editor: Editor, box: _Box, old: int | None) -> None:
    """Keys that a container of the tree had before stand as they stood, whichever was put in first."""
    node = None if old is None else editor.nodes[old]
    if isinstance(node, Mapping):
        places = {key_text(editor.nodes[key]): place for place, key in enumerate(node.keys)}
        known = sorted((key for key in box.items if key in places), key=places.__getitem__)
        order = iter(known)
        keys = [next(order) if key in places else key for key in box.items]
        box.items = {key: box.items[key] for key in keys}


def _close(editor: Editor, scope: Scope, boxes: MappingABC[Path, _Box], path: Path, made: dict[Path, int]) -> None:
    """Make the mapping of one container; those below are made already."""
    box = boxes[path]
    old = scope.containers.get(path)
    model = editor.nodes[scope.containers.get(box.like, scope.index) if old is None else old]
    assert isinstance(model, Mapping)
    spelled = {key_text(editor.nodes[key]): key for key in model.keys}
    keys, values = [], []
    for key, (key_node, target) in box.items.items():
        known = spelled.get(key) if key_node is None else key_node
        keys.append(editor.value(key) if known is None else known)
        values.append(target if isinstance(target, int) else made[target])
    whole = replace(model, keys=tuple(keys), values=tuple(values))
    if old is None:
        # Attributes (_metadata) go along with a container that has moved, and are not doubled for one that stays.
        moved = box.like and box.like not in boxes
        made[path] = editor.put(whole if moved else replace(whole, state=None))
    else:
        made[path] = old
        editor.replace(old, whole)


def _rebuild_modules(editor: Editor, scope: Scope, entries: Sequence[Entry]) -> None:
    """A pickled module keeps its submodules: keys may change inside each of them only."""
    homes: dict[int, list[tuple[int, int]]] = {leaf.home: [] for leaf in scope.leaves}
    by_parent = {leaf.path[:-1]: leaf.home for leaf in reversed(scope.leaves)}
    for entry in entries:
        parent, _, last = entry.name.rpartition(".")
        source = entry.source
        stays = source is not None and source.path[:-1] == tuple(parent.split(".") if parent else ())
        home = source.home if stays and source is not None else by_parent.get(tuple(parent.split(".")))
        if home is None:
            raise MigrationError(
                f"{printable(scope.key(entry.name))} – the checkpoint holds a pickled module, whose classes fix its "
                "submodules; save its state_dict() and migrate that"
            )
        same = source is not None and source.path[-1] == last
        homes[home].append((source.key if same and source is not None else editor.value(last), entry.index))
    for home, pairs in homes.items():
        node = editor.nodes[home]
        assert isinstance(node, Mapping)
        held = {leaf.key for leaf in scope.leaves if leaf.home == home}
        rest = [(k, v) for k, v in zip(node.keys, node.values, strict=True) if k not in held]
        keys, values = zip(*pairs, *rest, strict=True) if pairs or rest else ((), ())
        editor.replace(home, replace(node, keys=keys, values=values))
