"""Optimizers compared by parameter, not by position: whose state is whose, and what changed about it. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from ckpttool.changes import Change, Pair, Pairing, Side
from ckpttool.comparing.plain_tree import Key, Plain, plain_tree
from ckpttool.comparing.values import Edited, compare
from ckpttool.frozen import dataclass
from ckpttool.layout import Layout, Optimizer, Slot
from ckpttool.model import Checkpoint, Tensor
from ckpttool.tree import items, lookup
from ckpttool.units import plural


@dataclass(frozen=True, slots=True)
class Twins:
    """Two optimizers that stand for each other, and their slots of one parameter, in a's order."""

    a: Optimizer
    b: Optimizer
    slots: tuple[tuple[Slot, Slot], ...]


def twins(a: Layout, b: Layout, pairing: Pairing) -> list[Twins]:
    """Optimizers of equal key, else in order; slots by the tensors that were paired, by name, else by id."""
    parameters = {pair.a.index: pair.b.index for pair in pairing.pairs}
    return [Twins(ours, theirs, _slots(ours, theirs, parameters)) for ours, theirs in _couples(a, b)]


def _couples(a: Layout, b: Layout) -> Iterator[tuple[Optimizer, Optimizer]]:
    theirs = {one.path: one for one in b.optimizers}
    rest = []
    for one in a.optimizers:
        if one.path in theirs:
            yield one, theirs.pop(one.path)
        else:
            rest.append(one)
    yield from zip(rest, theirs.values(), strict=False)


def _slots(a: Optimizer, b: Optimizer, parameters: Mapping[int, int]) -> tuple[tuple[Slot, Slot], ...]:
    by_parameter = {slot.parameter: slot for slot in b.slots if slot.parameter is not None}
    by_name = {slot.name: slot for slot in b.slots if slot.name is not None}
    by_ident = {slot.ident: slot for slot in b.slots}
    found: dict[str, tuple[Slot, Slot]] = {}
    taken: set[str] = set()
    for slot in a.slots:
        other = None if slot.parameter is None else by_parameter.get(parameters.get(slot.parameter, -1))
        if other is None and slot.name is not None:
            other = by_name.get(slot.name)
        if other is None and (slot.name is None or not by_name):
            other = by_ident.get(slot.ident)
        if other is not None and other.ident not in taken:
            taken.add(other.ident)
            found[slot.ident] = slot, other
    return tuple(found.values())


def name_of(slot: Slot) -> str:
    """The parameter's name, or its number where it has none."""
    return slot.ident if slot.name is None else slot.name


def state_keys(layout: Layout) -> dict[int, tuple[Optimizer, Slot, str]]:
    """Every node that is state of a parameter: the optimizer, the slot and the moment's name."""
    return {
        index: (optimizer, slot, moment)
        for optimizer in layout.optimizers
        for slot in optimizer.slots
        for moment, index in slot.state
    }


def state_key(optimizer: Optimizer, slot: Slot, moment: str) -> str:
    """The key of a parameter's state: its name in place of its number, ``optimizer.state.fc.weight.exp_avg``."""
    return ".".join([*optimizer.path, "state", name_of(slot), moment])


def pair_states(states_a: Sequence[Side], states_b: Sequence[Side], known: Sequence[Twins], layout: Layout) -> Pairing:
    """State tensors paired by parameter and moment; ``layout`` is a's."""
    partner: dict[tuple[int, str], int] = {}
    for twin in known:
        for slot, other in twin.slots:
            theirs = dict(other.state)
            partner.update({(i, m): theirs[m] for m, i in slot.state if m in theirs})
    moments = {index: moment for index, (_, _, moment) in state_keys(layout).items()}
    # State that two parameters share stands under both, so one node may wait for several partners.
    waiting: dict[int, deque[Side]] = {}
    for side in states_b:
        waiting.setdefault(side.index, deque()).append(side)
    pairs, only_a = [], []
    for side in states_a:
        target = partner.get((side.index, moments[side.index]))
        theirs_left = None if target is None else waiting.get(target)
        if theirs_left:
            pairs.append(Pair(side, theirs_left.popleft(), "parameter"))
        else:
            only_a.append(side)
    only_b = [side for rest in waiting.values() for side in rest]
    return Pairing(tuple(pairs), tuple(only_a), tuple(only_b))


# --- what changed --------------------------------------------------------------------------------------


def optimizer_changes(a: Checkpoint, b: Checkpoint, known: Sequence[Twins]) -> tuple[list[Change], list[Edited]]:
    """Parameters in another order or group; and what differs of settings and of states that are no tensors."""
    changes: list[Change] = []
    edits: list[Edited] = []
    for twin in known:
        changes += _order(twin)
        edits += _kind(twin)
        edits += _settings(a, b, twin)
        edits += _groups(twin)
        edits += _states(a, b, twin)
    return changes, edits


def handled(checkpoint: Checkpoint, optimizers: Sequence[Optimizer]) -> set[int]:
    """Nodes that ``optimizer_changes`` looks after, so that nobody else need do it."""
    steps = ("state", "param_groups")
    found = (lookup(checkpoint, one.index, step) for one in optimizers for step in steps)
    return {index for index in found if index is not None}


def _order(twin: Twins) -> Iterator[Change]:
    """Parameters whose place is another one: torch loads by place, whatever the names."""
    place = {slot.ident: number for number, slot in enumerate(twin.b.slots)}
    places = [place[other.ident] for _, other in twin.slots]
    ranks = {number: rank for rank, number in enumerate(sorted(places))}
    moved = [slot for rank, (slot, other) in enumerate(twin.slots) if ranks[place[other.ident]] != rank]
    if not moved:
        return
    who = "two parameters" if len(moved) == 2 else plural(len(moved), "parameter")
    verb = "swapped" if len(moved) == 2 else "mixed up"
    note = f"{who} changed order: their moments would be {verb} by loading one in place of the other"
    key = ".".join([*twin.b.path, "param_groups"])
    names = [name_of(slot) for slot in moved]
    yield Change(
        "reordered",
        ("reordered",),
        key,
        None,
        "optimizer",
        note=note,
        facts={"parameters": [*names[:100]], "moved": len(moved)},
    )


def _kind(twin: Twins) -> Iterator[Edited]:
    if twin.a.kind != twin.b.kind:
        yield Edited(twin.b.path, "changed", twin.a.kind, twin.b.kind, note="the optimizer's class, by its settings")


def _settings(a: Checkpoint, b: Checkpoint, twin: Twins) -> Iterator[Edited]:
    """Hyper-parameters, group by group."""
    ours = items(a, lookup(a, twin.a.index, "param_groups"))
    theirs = items(b, lookup(b, twin.b.index, "param_groups"))
    where = (*twin.b.path, "param_groups")
    if len(ours) != len(theirs):
        yield Edited(where, "changed", f"{len(ours)} groups", f"{len(theirs)} groups")
    for number, (x, y) in enumerate(zip(ours, theirs, strict=False)):
        left = plain_tree(a, x, skip=_listings(a, x))
        right = plain_tree(b, y, skip=_listings(b, y))
        yield from compare(left, right, (*where, str(number)))


def _listings(checkpoint: Checkpoint, group: int) -> set[int]:
    found = (lookup(checkpoint, group, name) for name in ("params", "param_names"))
    return {index for index in found if index is not None}


def _groups(twin: Twins) -> Iterator[Edited]:
    """Parameters that moved to another group, came or went."""
    where = (*twin.b.path, "param_groups")
    moves: dict[tuple[int, int], list[str]] = {}
    for slot, other in twin.slots:
        if slot.group != other.group:
            moves.setdefault((slot.group, other.group), []).append(name_of(other))
    for (old, new), names in moves.items():
        note = f"{plural(len(names), 'parameter')} moved to another group: {_some(names)}"
        yield Edited(where, "changed", f"group {old}", f"group {new}", len(names), note)
    gone = {slot.ident for slot in twin.a.slots} - {slot.ident for slot, _ in twin.slots}
    new_ones = {slot.ident for slot in twin.b.slots} - {other.ident for _, other in twin.slots}
    for op, optimizer, idents in (("removed", twin.a, gone), ("added", twin.b, new_ones)):
        names = [name_of(slot) for slot in optimizer.slots if slot.ident in idents]
        if names:
            note = f"{plural(len(names), 'parameter')} {op}: {_some(names)}"
            yield Edited((*where, "params"), op, None, None, len(names), note)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", …" if len(names) > 4 else "")


def _states(a: Checkpoint, b: Checkpoint, twin: Twins) -> Iterator[Edited]:
    """States that are no tensors, such as the step counts of older torch; one and the same change told once."""
    groups: dict[tuple[str, str, str], list[tuple[str, Edited]]] = {}
    for slot, other in twin.slots:
        ours, theirs = _values(a, slot), _values(b, other)
        for moment in dict.fromkeys([*ours, *theirs]):
            left: dict[Key, Plain] = {moment: plain_tree(a, ours[moment])} if moment in ours else {}
            right: dict[Key, Plain] = {moment: plain_tree(b, theirs[moment])} if moment in theirs else {}
            for edit in compare(left, right):
                mark = ".".join(edit.path), repr(edit.before), repr(edit.after)
                groups.setdefault(mark, []).append((name_of(other), edit))
    for group in groups.values():
        name, edit = group[0]
        where = (*twin.b.path, "state", name if len(group) == 1 else "*", *edit.path)
        note = "" if len(group) == 1 else f"{plural(len(group), 'parameter')}: {_some([n for n, _ in group])}"
        yield replace(edit, path=where, several=len(group), note=edit.note or note)


def _values(checkpoint: Checkpoint, slot: Slot) -> dict[str, int]:
    return {moment: index for moment, index in slot.state if not isinstance(checkpoint.nodes[index], Tensor)}
