"""Everything that is no tensor: configs, counters, nested values, unknown objects. Pure.

The general comparison is deepdiff's. By itself it calls NaN unequal to NaN and 0.0 equal to -0.0, skips keys that
begin with two underscores, and overflows the stack on deep values; so it gets bounded trees whose leaves are text
(``plain_tree``), an operator that compares those, and only the parts that differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ckpttool.comparing.plain_tree import KIND, Atom, Hollow, Key, OtherKey, Plain, label
from ckpttool.comparing.sharing import moved_ahead
from ckpttool.frozen import dataclass
from ckpttool.model import Json

CROWD = 12
"""Edits below one container beyond which they are told as one."""

MOST = 4
"""Entries of an added or removed container that are shown."""


@dataclass(frozen=True, slots=True)
class Edited:
    """One value that differs: where, what it was and what it is. ``op`` is ``changed``, ``added`` or ``removed``.

    ``several`` counts the differences that were folded into this one; of a long list those of its items.
    """

    path: tuple[str, ...]
    op: str
    before: Json
    after: Json
    several: int = 1
    note: str = ""


class _Atoms:
    """Compares leaves as they are, and keeps deepdiff from looking into them."""

    def match(self, level: Any) -> bool:
        return isinstance(level.t1, Atom) and isinstance(level.t2, Atom)

    def give_up_diffing(self, level: Any, diff_instance: Any) -> bool:
        if level.t1 != level.t2:
            diff_instance.custom_report_result("edited", level)
        return True

    def normalize_value_for_hashing(self, parent: Any, obj: Any) -> Any:
        return obj


def compare(a: Plain, b: Plain, path: tuple[str, ...] = ()) -> list[Edited]:
    """What differs between two plain trees, by path; crowds below one container folded into one."""
    if a == b:
        return []
    a, b = _differing(a, b)
    # How items of two lists are aligned depends on the direction where several ways are as good: there is one.
    forward = repr(a) <= repr(b)
    edits = _edits(a, b, path) if forward else [_turned(edit) for edit in _edits(b, a, path)]
    return _folded(sorted(edits, key=lambda e: tuple(map(_natural, e.path))))


def _edits(a: Plain, b: Plain, path: tuple[str, ...]) -> list[Edited]:
    from deepdiff import DeepDiff

    found = DeepDiff(
        {"": a},
        {"": b},
        view="tree",
        custom_operators=[_Atoms()],
        ignore_private_variables=False,
        threshold_to_diff_deeper=0,
        cache_size=0,
    )
    levels = [level for group in found.values() for level in group]
    return [_edited(level, path) for level in levels if not _only_tensors(level)]


def _turned(edit: Edited) -> Edited:
    """The same edit seen from the other side."""
    op = {"added": "removed", "removed": "added"}.get(edit.op, edit.op)
    return replace(edit, op=op, before=edit.after, after=edit.before)


def reorderings(a: Plain, b: Plain, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], int, int]]:
    """Dicts whose common keys stand in another order: path, keys that moved, keys in common."""
    stack = [(path, a, b)]
    while stack:
        here, x, y = stack.pop()
        if not (isinstance(x, dict) and isinstance(y, dict)):
            continue
        common = [key for key in x if key in y]
        if x.get(KIND) not in ("kind set", "kind frozenset"):
            places = {key: place for place, key in enumerate(y)}
            moved = moved_ahead([places[key] for key in common])
            if moved:
                yield here, moved, len(common)
        stack.extend(((*here, label(key)), x[key], y[key]) for key in reversed(common))


def _natural(step: str) -> tuple[int, int, str]:
    return (0, int(step), "") if step.isdecimal() and len(step) < 19 else (1, 0, step)


def _differing(a: Plain, b: Plain) -> tuple[Plain, Plain]:
    """Both without the entries of dicts that are equal: what is left is small, however large the file."""
    top: tuple[dict[Key, Plain], dict[Key, Plain]] = ({"": a}, {"": b})
    stack = [top]
    while stack:
        left, right = stack.pop()
        for mine, other in ((left, right), (right, left)):
            for key in [key for key in mine if key not in other and isinstance(mine[key], Hollow)]:
                del mine[key]
        for key in [key for key in left if key in right]:
            x, y = left[key], right[key]
            if x == y:
                # What an object is stays: it tells its parts from those of a dict.
                del left[key], right[key]
            elif isinstance(x, dict) and isinstance(y, dict):
                left[key], right[key] = copies = dict(x), dict(y)
                stack.append(copies)
    return top[0][""], top[1][""]


def _only_tensors(level: Any) -> bool:
    """Whether an item of a list that came or went holds nothing but tensors."""
    return any(isinstance(side, Hollow) for side in (level.t1, level.t2)) and str(level.report_type).endswith(
        ("_added", "_removed")
    )


def _edited(level: Any, path: tuple[str, ...]) -> Edited:
    steps: list[Key] = [str(step) if isinstance(step, int) else step for step in level.path(output_format="list")]
    kind = bool(steps) and isinstance(steps[-1], OtherKey) and steps[-1].kind == "kind"
    where = (*path, *(text for step in steps[1:] if (text := label(step))))
    op = {"added": "added", "removed": "removed"}.get(str(level.report_type).rsplit("_", 1)[-1], "changed")
    before = None if op == "added" else summary(level.t1)
    after = None if op == "removed" else summary(level.t2)
    several, note = _difference(level.t1, level.t2) if op == "changed" else (1, "")
    return Edited(where, op, before, after, several, "the kind of object" if kind and op == "changed" else note)


def _difference(a: Plain, b: Plain) -> tuple[int, str]:
    """How many items of two long lists differ."""
    if not (isinstance(a, Atom) and isinstance(b, Atom) and a.items and b.items):
        return 1, ""
    common = min(len(a.items), len(b.items))
    differing = sum(x != y for x, y in zip(a.items, b.items, strict=False))
    if len(a.items) == len(b.items):
        return max(1, differing), f"{differing:,} of {common:,} values differ"
    same = "the first" if not differing else f"{common - differing:,} of the first"
    return max(1, differing), f"{len(a.items):,} → {len(b.items):,} values, {same} {common:,} equal"


def summary(value: Plain) -> Json:
    """A value as JSON, cut to what can be read."""
    if isinstance(value, Atom):
        return value.shown
    if isinstance(value, Hollow):
        return "(tensors)"
    if isinstance(value, list):
        head: list[Json] = [_brief(item) for item in value[:MOST]]
        return [*head, *(["…"] if len(value) > MOST else [])]
    entries = [(key, item) for key, item in value.items() if key is not KIND and not isinstance(item, Hollow)]
    kind = value.get(KIND)
    if isinstance(kind, Atom) and kind.shown == "tuple":
        return summary([item for _, item in entries])
    found: dict[str, Json] = {"(kind)": kind.shown} if isinstance(kind, Atom) else {}
    found.update((label(key), _brief(item)) for key, item in entries[:MOST])
    if len(entries) > MOST:
        found["…"] = f"{len(entries) - MOST:,} more"
    return found


def _brief(value: Plain) -> Json:
    if isinstance(value, Atom):
        return value.shown
    return f"[{len(value)}]" if isinstance(value, list) else f"{{{len(value)}}}"


def _folded(edits: list[Edited]) -> list[Edited]:
    """Crowds of edits below one container as one, the innermost container first."""
    groups: dict[tuple[str, ...], list[Edited]] = {}
    for edit in edits:
        groups.setdefault(edit.path[:-1], []).append(edit)
    return [one for parent, group in groups.items() for one in _crowd(parent, group)]


def _crowd(parent: tuple[str, ...], group: list[Edited]) -> Iterator[Edited]:
    if len(group) <= CROWD or not parent:
        yield from group
        return
    ops = {edit.op for edit in group}
    op = ops.pop() if len(ops) == 1 else "changed"
    names = ", ".join(edit.path[-1] for edit in group[:MOST])
    yield Edited(parent, op, None, None, sum(e.several for e in group), f"{len(group):,} entries {op}: {names}, …")
