"""A state dict inside a checkpoint's tree: its keys as rules see them, and where each of them stands. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping as MappingABC
from dataclasses import replace
from functools import cached_property

from ckpttool.errors import printable
from ckpttool.expressions import Form
from ckpttool.frozen import dataclass
from ckpttool.migration.errors import MigrationError
from ckpttool.model import MAX_DEPTH, Call, Checkpoint, Mapping, Node, Scalar, Tensor, Value
from ckpttool.rewriting import Named, Names
from ckpttool.tree import child_named, fields, key_text

Path = tuple[str, ...]
Event = tuple[Path, int, int, int]

_MODULE = frozenset({"_parameters", "_modules"})
_HELD = ("_parameters", "_buffers", "_modules")

SAMPLE = 64
"""Names that a twin's prefix is looked for in; what is found is then tried on all."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """A key of a state dict: its name for rules, its segments, its node, and the mapping and key node that hold it.

    ``name`` is None for what rules do not see: other sections that stand in the same dict, and keys of a twin that
    lack its prefix (``n_averaged``).
    """

    name: str | None
    path: Path
    index: int
    home: int
    key: int


@dataclass(frozen=True)
class Scope:
    """A state dict: its role, its place, its leaves in order, and the node of each container by its path.

    ``prefix`` stands before every name and is left out of it. ``modules``: a pickled module holds the tensors.
    """

    role: str
    path: Path
    index: int
    leaves: tuple[Leaf, ...]
    containers: MappingABC[Path, int]
    prefix: str = ""
    modules: bool = False

    @cached_property
    def named(self) -> dict[str, Leaf]:
        """The leaves that rules see, by name."""
        return {leaf.name: leaf for leaf in self.leaves if leaf.name is not None}

    def key(self, name: str) -> str:
        """A name as ``inspect`` shows it."""
        return ".".join([*self.path, self.prefix + name])


def scope_at(checkpoint: Checkpoint, role: str, path: Path, index: int, apart: Collection[int] = ()) -> Scope:
    """The state dict at a node; ``apart`` are nodes that root sections of their own.

    Raises ``MigrationError`` where a key stands twice. Linear in the keys.
    """
    nodes = checkpoint.nodes
    leaves: list[Leaf] = []
    containers: dict[Path, int] = {(): index}
    opened = {index}
    modules = is_module(checkpoint, nodes[index])
    stack = _below(checkpoint, (), index)
    while stack:
        here, home, key, at = stack.pop()
        node = nodes[at]
        inner = at not in apart and at not in opened and len(here) < MAX_DEPTH
        module = inner and is_module(checkpoint, node)
        if module or (inner and isinstance(node, Mapping) and node.keys):
            opened.add(at)
            modules = modules or module
            containers[here] = at
            stack.extend(_below(checkpoint, here, at))
        else:
            leaves.append(Leaf(None if at in apart else ".".join(here), here, at, home, key))
    scope = Scope(role, path, index, tuple(leaves), containers, modules=modules)
    _refuse_doubles(scope)
    return scope


def _below(checkpoint: Checkpoint, path: Path, index: int) -> list[Event]:
    """A container's children, last first: path, the mapping that holds the child, its key's node, its own."""
    return list(reversed(list(_children(checkpoint, path, index))))


def _children(checkpoint: Checkpoint, path: Path, index: int) -> Iterator[Event]:
    node = checkpoint.nodes[index]
    if isinstance(node, Mapping):
        for key, value in zip(node.keys, node.values, strict=True):
            yield (*path, key_text(checkpoint.nodes[key])), index, key, value
    elif isinstance(node, Call):
        held = fields(checkpoint, node.state)
        for name in _HELD:
            if name in held and isinstance(checkpoint.nodes[held[name]], Mapping):
                yield from _children(checkpoint, path, held[name])


def is_module(checkpoint: Checkpoint, node: Node) -> bool:
    """Whether a call builds a pickled ``nn.Module``."""
    return isinstance(node, Call) and node.state is not None and fields(checkpoint, node.state).keys() >= _MODULE


def _refuse_doubles(scope: Scope) -> None:
    counted = Counter(leaf.name for leaf in scope.leaves if leaf.name is not None)
    name = next((name for name, times in counted.items() if times > 1), None)
    if name is not None:
        raise MigrationError(
            f"{printable(scope.key(name))} – {counted[name]} tensors have this key, so no rule can tell them apart; "
            "run ckpttool verify"
        )


# --- twins ---------------------------------------------------------------------------------------------


def prefix_of(names: Iterable[str], known: Collection[str]) -> str | None:
    """What stands before the names of a twin (``module.``), None unless most of them are known without it."""
    listed = list(names)
    found: Counter[str] = Counter()
    step = max(1, len(listed) // SAMPLE)
    for name in listed[::step]:
        words = name.split(".")
        cuts = (".".join(words[i:]) for i in range(len(words)))
        found.update(name[: len(name) - len(rest)] for rest in cuts if rest in known)
    if not found:
        return None
    prefix = min(found, key=lambda one: (-found[one], len(one)))
    hits = sum(name.startswith(prefix) and name[len(prefix) :] in known for name in listed)
    return prefix if 2 * hits >= len(listed) else None


def without_prefix(scope: Scope, prefix: str) -> Scope:
    """The scope with a prefix taken off its names; keys that lack it are no longer seen by rules."""
    if not prefix:
        return scope
    leaves = tuple(
        replace(leaf, name=leaf.name[len(prefix) :] if (leaf.name or "").startswith(prefix) else None)
        if leaf.name is not None
        else leaf
        for leaf in scope.leaves
    )
    return replace(scope, leaves=leaves, prefix=prefix)


# --- names ---------------------------------------------------------------------------------------------


def names_of(checkpoint: Checkpoint, scope: Scope, facts: MappingABC[str, Scalar]) -> Names:
    """The scope's keys with their forms; ``facts`` are the checkpoint's plain values."""
    items = tuple(Named(name, form_at(checkpoint, leaf.index)) for name, leaf in scope.named.items())
    return Names(items, facts, versions_of(checkpoint, scope))


def form_at(checkpoint: Checkpoint, index: int) -> Form | None:
    """A tensor's element type and shape; None for what is no tensor."""
    node = checkpoint.nodes[index]
    return Form(node.dtype, node.shape) if isinstance(node, Tensor) else None


def facts_of(checkpoint: Checkpoint) -> dict[str, Scalar]:
    """Every plain value of the tree by its key."""
    return {entry.key: entry.node.value for entry in checkpoint.entries() if isinstance(entry.node, Value)}


def metadata_at(checkpoint: Checkpoint, index: int) -> int | None:
    """The node of a state dict's ``_metadata``; None where it has none."""
    node = checkpoint.nodes[index]
    state = None if not isinstance(node, Mapping) or node.state is None else checkpoint.nodes[node.state]
    return child_named(checkpoint, state, "_metadata") if isinstance(state, Mapping) else None


def versions_of(checkpoint: Checkpoint, scope: Scope) -> dict[str, Scalar]:
    """The recorded version of each module, the scope's prefix left out."""
    found: dict[str, Scalar] = {}
    prefix = scope.prefix
    for module, at in fields(checkpoint, metadata_at(checkpoint, scope.index)).items():
        version = checkpoint.nodes[known] if (known := fields(checkpoint, at).get("version")) is not None else None
        if isinstance(version, Value) and (module + ".").startswith(prefix):
            found[module[len(prefix) :] if module + "." != prefix else ""] = version.value
    return found
