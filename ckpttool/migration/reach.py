"""Which state dicts of a checkpoint a migration is about. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from ckpttool.errors import printable
from ckpttool.frozen import dataclass
from ckpttool.layout import Layout, Section, nested
from ckpttool.migration.errors import MigrationError
from ckpttool.migration.scopes import Scope, scope_at
from ckpttool.model import Call, Checkpoint, Mapping, Sequence as SequenceNode
from ckpttool.tree import children


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a user asked for beside the rules.

    ``sections`` limits what moves (all where empty); ``under`` is the key of the state dict to migrate where the
    weights are not meant; ``whole`` makes every key of the tree one that rules see; ``assume_order`` takes an
    optimizer's parameters to stand in the model's order.
    """

    sections: tuple[str, ...] = ()
    under: str | None = None
    assume_order: bool = False
    whole: bool = False

    def wants(self, section: str) -> bool:
        return not self.sections or section in self.sections


def weight_scopes(checkpoint: Checkpoint, layout: Layout, wishes: Wishes) -> list[Scope]:
    """The state dicts that rules are for. Raises ``MigrationError`` where there is none."""
    if checkpoint.root is None:
        raise MigrationError(f"{printable(checkpoint.source)} – holds no tree; run ckpttool verify")
    if wishes.whole:
        return [scope_at(checkpoint, "other", (), checkpoint.root)]
    if wishes.under is not None:
        return [_under(checkpoint, layout, wishes.under)]
    found = nested(checkpoint, [s for s in layout.sections if s.name == "weights" and s.index >= 0])
    scopes = [scope_at(checkpoint, "weights", s.path, s.index, apart(layout, s)) for s in once(found)]
    kept = [scope for scope in scopes if is_container(checkpoint, scope.index) and scope.named]
    if not kept:
        raise MigrationError(
            f"{printable(checkpoint.source)} – has no section of weights; run ckpttool inspect to see what it holds, "
            "and name a state dict with --under KEY"
        )
    return kept


def _under(checkpoint: Checkpoint, layout: Layout, key: str) -> Scope:
    wanted = key.strip(".")
    for path, index in _containers(checkpoint):
        if ".".join(path) == wanted:
            role = layout.section_of(path) if path else "weights"
            apart = [s.index for s in layout.sections if s.path != path and s.path[: len(path)] == path]
            return scope_at(checkpoint, role, path, index, apart)
    raise MigrationError(f"{printable(key)} – no dict stands there; run ckpttool inspect --tree to see the keys")


def _containers(checkpoint: Checkpoint) -> Iterator[tuple[tuple[str, ...], int]]:
    assert checkpoint.root is not None
    seen: set[int] = set()
    stack: list[tuple[tuple[str, ...], int]] = [((), checkpoint.root)]
    while stack:
        path, index = stack.pop()
        node = checkpoint.nodes[index]
        if isinstance(node, (Mapping, Call)):
            yield path, index
        if index not in seen and isinstance(node, (Mapping, Call, SequenceNode)):
            seen.add(index)
            below = children(checkpoint.nodes, node)
            stack.extend((path + step, child) for step, child in reversed(below))


def is_container(checkpoint: Checkpoint, index: int) -> bool:
    """Whether a node can hold a state dict."""
    return isinstance(checkpoint.nodes[index], (Mapping, Call))


def apart(layout: Layout, section: Section) -> Collection[int]:
    """Nodes of other sections that stand inside this one."""
    return {s.index for s in layout.sections if len(s.path) > len(section.path) and s.name != "weights"}


def once(sections: Sequence[Section]) -> list[Section]:
    """Sections of one node are one: a state dict saved under two names is edited once."""
    return list({section.index: section for section in reversed(sections)}.values())[::-1]
