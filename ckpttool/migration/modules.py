"""``_metadata`` of a state dict: the recorded version of each module follows the module. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping as MappingABC, Sequence
from dataclasses import replace

from ckpttool.editing import Editor
from ckpttool.migration.scopes import Scope, metadata_at
from ckpttool.model import Checkpoint, Mapping, Value
from ckpttool.tree import fields, key_text

Pairs = Sequence[tuple[str, str]]
"""Keys of the result with the key that each comes from."""


def move_metadata(
    editor: Editor, scope: Scope, pairs: Pairs, added: Sequence[str], known: Sequence[str]
) -> list[tuple[str, str]]:
    """Rename the modules of ``_metadata`` as the keys are; ``added`` are keys that come from none of the ``known``.

    Gives modules as ``(old, new)`` where they differ, ``new`` empty for one that is gone. A container that the
    renaming brings about is recorded as torch records any new module, with version 1.
    """
    at = metadata_at(editor.original, scope.index)
    node = None if at is None else editor.original.nodes[at]
    if at is None or not isinstance(node, Mapping):
        return []
    full = [(scope.prefix + new, scope.prefix + old) for new, old in pairs]
    extra = [scope.prefix + name for name in added]
    old = [key_text(editor.original.nodes[key]) for key in node.keys]
    new = moved_modules(old, full, extra, [scope.prefix + name for name in known])
    if [name for name, _ in new] == old and all(source == name for name, source in new):
        return []
    places = dict(zip(old, range(len(old)), strict=True))
    keys, values = [], []
    for name, source in new:
        kept = source is not None and name == source
        keys.append(node.keys[places[name]] if kept else editor.value(name))
        values.append(_recorded(editor, None if source is None else node.values[places[source]], kept))
    editor.replace(at, replace(node, keys=tuple(keys), values=tuple(values)))
    return list(_differences(old, new))


def _recorded(editor: Editor, index: int | None, kept: bool) -> int:
    if index is None:
        return editor.mapping([("version", editor.value(1))])
    return index if kept else editor.put(editor.original.nodes[index])


def _differences(old: Sequence[str], new: Sequence[tuple[str, str | None]]) -> Iterator[tuple[str, str]]:
    targets: dict[str, list[str]] = {}
    for name, source in new:
        if source is not None:
            targets.setdefault(source, []).append(name)
    there = {name for name, _ in new}
    for name in old:
        # A module that stands in the result anyway, for another one's sake, is not gone.
        for target in targets.get(name, [name] if name in there else [""]):
            if target != name:
                yield name, target


def lost_versions(checkpoint: Checkpoint, scope: Scope, changes: Sequence[tuple[str, str]]) -> list[str]:
    """Modules that are gone although something other than version 1 was recorded for them, and only for them."""
    recorded = fields(checkpoint, metadata_at(checkpoint, scope.index))
    kept = {version_at(checkpoint, recorded[old]) for old, new in changes if new}
    gone = [(old, version_at(checkpoint, recorded[old])) for old, new in changes if not new]
    return [old for old, version in gone if version != "1" and version not in kept]


def version_at(checkpoint: Checkpoint, index: int) -> str:
    """What is recorded of a module in one word: its version, or that there is more than one."""
    known = fields(checkpoint, index)
    version = checkpoint.nodes[known["version"]] if "version" in known else None
    return (
        repr(version.value)
        if isinstance(version, Value) and len(known) == 1
        else f"{sorted(known)} at {index}"
    )


def moved_modules(
    old: Sequence[str], pairs: Pairs, added: Sequence[str] = (), known: Sequence[str] = ()
) -> list[tuple[str, str | None]]:
    """The modules of the result in order, each with the module whose record it takes; None for a new container.

    ``known`` are all keys that there were: a module none of whose keys leads anywhere is gone.
    """
    needed = _ancestors([new for new, _ in pairs] + list(added))
    before = _ancestors([*known, *(source for _, source in pairs)])
    source_of = _sources(pairs)
    targets: dict[str, list[str]] = {}
    for new in needed:
        if new in source_of:
            targets.setdefault(source_of[new], []).append(new)
    found: dict[str, str | None] = {}
    for module in old:
        for name in _targets(module, targets, before, needed):
            found.setdefault(name, module)
    complete = before.keys() <= {*old, ""}
    return list(_with_new(found, needed) if complete else found.items())


def _with_new(
    found: MappingABC[str, str | None], needed: MappingABC[str, None]
) -> Iterator[tuple[str, str | None]]:
    """The modules, and those that the renaming brings about, each behind what stands before it among the keys."""
    behind: dict[str, list[str]] = {}
    anchor = ""
    for name in needed:
        if name in found:
            anchor = name
        else:
            behind.setdefault(anchor, []).append(name)
    waiting: list[str] = []
    anchor = ""
    for name, source in found.items():
        # Modules without keys (an activation) belong to the module that they stand in.
        if waiting and (name in needed or not name.startswith(anchor + ".")):
            yield from ((new, None) for new in waiting)
            waiting = []
        yield name, source
        if name in behind:
            waiting, anchor = behind.pop(name), name
    yield from ((new, None) for new in [*waiting, *(n for rest in behind.values() for n in rest)])


def _targets(
    module: str,
    targets: MappingABC[str, list[str]],
    before: MappingABC[str, None],
    needed: MappingABC[str, None],
) -> list[str]:
    """What becomes of a module: its namesakes; for one without keys, the place below what it stood in."""
    if module in targets:
        return targets[module]
    if module in before:
        return [module] if module in needed and module not in {n for t in targets.values() for n in t} else []
    for above in _above(module):
        if above in targets:
            return [_joined(name, module[len(above) :].lstrip(".")) for name in targets[above][:1]]
        if above in before:
            break
    return [module] if not module or _above_stays(module, before, needed) else []


def _above_stays(module: str, before: MappingABC[str, None], needed: MappingABC[str, None]) -> bool:
    nearest = next((above for above in _above(module) if above in before), "")
    return nearest in needed or nearest == ""


def _sources(pairs: Pairs) -> dict[str, str]:
    """New module -> old module: first where a key kept its last segment, then up along both paths."""
    sure: dict[str, str] = {}
    weak: dict[str, str] = {}
    for new, old in pairs:
        (new_home, _, new_last), (old_home, _, old_last) = new.rpartition("."), old.rpartition(".")
        if new_last == old_last or new_home == old_home:
            for left, right in _upwards(new_home, old_home):
                sure.setdefault(left, right)
        elif new_home.count(".") == old_home.count("."):
            weak.setdefault(new_home, old_home)
    for left, right in weak.items():
        if left not in sure and right not in sure.values():
            sure[left] = right
    return sure


def _upwards(new: str, old: str) -> Iterator[tuple[str, str]]:
    """A pair of modules and those around them: step by step while the names agree or both are as deep."""
    left, right = new.split(".") if new else [], old.split(".") if old else []
    equal_depth = len(left) == len(right)
    i, j = len(left), len(right)
    yield new, old
    while i > 0 and j > 0 and (equal_depth or left[i - 1] == right[j - 1]):
        i, j = i - 1, j - 1
        if i and j:
            yield ".".join(left[:i]), ".".join(right[:j])
    for k in range(max(min(len(left), len(right)) - 1, 0) + 1):
        if left[:k] == right[:k] and (k == 0 or (k < len(left) and k < len(right))):
            yield ".".join(left[:k]), ".".join(right[:k])


def _above(name: str) -> Iterator[str]:
    """The modules around one, nearest first, the root last."""
    words = name.split(".") if name else []
    for i in range(len(words) - 1, -1, -1):
        yield ".".join(words[:i])


def _ancestors(keys: Iterable[str]) -> dict[str, None]:
    """Every module around these keys, outer ones first."""
    found: dict[str, None] = {}
    for key in keys:
        for module in reversed(list(_above(key))):
            found[module] = None
    return found


def _joined(*parts: str) -> str:
    return ".".join(part for part in parts if part)
