"""What a state dict carries beside its tensors: ``_metadata``, module by module. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ckpttool.comparing.plain_tree import Key, Plain, label, plain_tree
from ckpttool.comparing.values import Edited, compare
from ckpttool.layout import Layout, Section
from ckpttool.model import Checkpoint, Mapping


def metadata_edits(
    a: tuple[Checkpoint, Layout], b: tuple[Checkpoint, Layout], prefixes: Iterable[tuple[str, str]]
) -> Iterator[Edited]:
    """What differs of ``_metadata``, wrappers' prefixes taken off; state dicts of one path or role are compared."""
    taken = list(prefixes)
    for ours, theirs in _couples(list(_carriers(*a)), list(_carriers(*b))):
        left = _stripped(_state(a[0], ours), [prefix for prefix, _ in taken])
        right = _stripped(_state(b[0], theirs), [prefix for _, prefix in taken])
        yield from compare(left, right, theirs.path)


def _carriers(checkpoint: Checkpoint, layout: Layout) -> Iterator[Section]:
    for section in layout.sections:
        node = checkpoint.nodes[section.index] if section.index >= 0 else None
        if section.name in ("weights", "ema") and isinstance(node, Mapping):
            yield section


def _couples(a: list[Section], b: list[Section]) -> Iterator[tuple[Section, Section]]:
    """Sections of equal path; else of one role where either side has just one of it."""
    by_path = {section.path: section for section in b}
    rest = [section for section in a if section.path not in by_path]
    for section in a:
        if section.path in by_path:
            yield section, by_path.pop(section.path)
    for section in rest:
        same_role = [other for other in by_path.values() if other.name == section.name]
        if len(same_role) == 1 and sum(other.name == section.name for other in rest) == 1:
            yield section, same_role[0]


def _state(checkpoint: Checkpoint, section: Section) -> dict[Key, Plain]:
    node = checkpoint.nodes[section.index]
    if not isinstance(node, Mapping) or node.state is None:
        return {}
    found = plain_tree(checkpoint, node.state)
    return found if isinstance(found, dict) else {"state": found}


def _stripped(state: dict[Key, Plain], prefixes: list[str]) -> dict[Key, Plain]:
    """Modules' names without wrappers, so that a wrapper is one change and not one more for each module."""
    words = {word for prefix in prefixes for word in prefix.split(".") if word}
    modules = state.get("_metadata")
    if not words or not isinstance(modules, dict):
        return state
    short: dict[Key, Plain] = {}
    for key, value in modules.items():
        short[".".join(word for word in label(key).split(".") if word not in words)] = value
    return {**state, "_metadata": short}
