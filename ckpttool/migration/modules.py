"""``_metadata`` of a state dict: the recorded version of each module follows the module. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping as MappingABC, Sequence
from dataclasses import replace

from ckpttool.editing import Editor
from ckpttool.frozen import dataclass
from ckpttool.migration.module_moves import Pairs, dropped_modules, moved_modules
from ckpttool.migration.scopes import Scope, metadata_at
from ckpttool.model import Checkpoint, Mapping, Value
from ckpttool.tree import fields, key_text

Names = Sequence[str]


@dataclass(frozen=True, slots=True)
class ModuleMoves:
    """Modules as ``(old, new)`` where they differ, ``new`` empty for one that is gone.

    ``lost`` are those whose record the way back would not restore, but for plain ones whose keys are all dropped;
    ``reordered`` says that it would list them otherwise.
    """

    changes: tuple[tuple[str, str], ...] = ()
    lost: tuple[str, ...] = ()
    reordered: bool = False


def move_metadata(
    editor: Editor, scope: Scope, pairs: Pairs, added: Sequence[str], known: Sequence[str]
) -> ModuleMoves:
    """Rename the modules of ``_metadata`` as the keys are; ``added`` are keys that come from none of the ``known``.

    A container that the renaming brings about is recorded as torch records any new module, with version 1.
    """
    at = metadata_at(editor.original, scope.index)
    node = None if at is None else editor.original.nodes[at]
    if at is None or not isinstance(node, Mapping):
        return ModuleMoves()
    full = [(scope.prefix + new, scope.prefix + old) for new, old in pairs]
    extra = [scope.prefix + name for name in added]
    old = [key_text(editor.original.nodes[key]) for key in node.keys]
    new = moved_modules(old, full, extra, [scope.prefix + name for name in known])
    if [name for name, _ in new] == old and all(source == name for name, source in new):
        return ModuleMoves()
    places = dict(zip(old, range(len(old)), strict=True))
    keys, values = [], []
    for name, source in new:
        kept = source is not None and name == source
        keys.append(node.keys[places[name]] if kept else editor.value(name))
        values.append(_recorded(editor, None if source is None else node.values[places[source]], kept))
    editor.replace(at, replace(node, keys=tuple(keys), values=tuple(values)))
    said = {name: version_at(editor.original, node.values[place]) for name, place in places.items()}
    lost, reordered = _unreturned(said, new, (full, extra, [scope.prefix + name for name in known]))
    return ModuleMoves(tuple(_differences(old, new)), lost, reordered)


def _unreturned(
    said: MappingABC[str, str], new: Sequence[tuple[str, str | None]], moves: tuple[Pairs, Names, Names]
) -> tuple[tuple[str, ...], bool]:
    """The modules whose records the way back does not restore; whether it lists the others in another order."""
    pairs, added, known = moves
    order = {name: place for place, name in enumerate(known)}
    back = [(old, key) for key, old in sorted(pairs, key=lambda pair: order[pair[1]])]
    made = [name for name, _ in new]
    record = {name: "1" if source is None else said[source] for name, source in new}
    ways = moved_modules(made, back, (), list(dict.fromkeys([*(key for key, _ in pairs), *added])))
    returned = {name: "1" if source is None else record[source] for name, source in ways}
    dropped = dropped_modules(said, pairs, known)
    lost = [
        name
        for name, version in said.items()
        if returned.get(name) != version and (version != "1" or name not in dropped)
    ]
    return tuple(lost), list(returned) != [name for name in said if name in returned]


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


def version_at(checkpoint: Checkpoint, index: int) -> str:
    """What is recorded of a module in one word: its version, or that there is more than one."""
    known = fields(checkpoint, index)
    version = checkpoint.nodes[known["version"]] if "version" in known else None
    return repr(version.value) if isinstance(version, Value) and len(known) == 1 else f"{sorted(known)} at {index}"
