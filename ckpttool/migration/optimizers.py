"""Moving an optimizer with its parameters: states, ids, names and groups, as the new one's ``load_state_dict`` asks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping as MappingABC, Sequence
from dataclasses import replace

from ckpttool.errors import printable
from ckpttool.layout import Optimizer, Slot
from ckpttool.migration.groups import Member
from ckpttool.migration.moments import Read
from ckpttool.migration.seats import Seat, Ties, everyone, is_same, seated
from ckpttool.migration.workshop import Workshop, operations
from ckpttool.model import Mapping, Sequence as SequenceNode
from ckpttool.plan import Step
from ckpttool.tree import fields, items, key_text

Seats = Sequence[Sequence[Seat]]


def move_optimizer(
    shop: Workshop, optimizer: Optimizer, groups: Sequence[Sequence[Member]], ties: Ties, read: Read | None
) -> tuple[list[Step], list[str]]:
    """Put the members of each group, with their states, into the tree; the steps, and notes for people.

    Raises ``MigrationError`` where merged parameters' counters disagree.
    """
    seats = seated(shop, optimizer, groups, ties, read)
    if is_same(shop, optimizer, seats):
        return [], []
    steps = list(_steps(shop, optimizer, seats))
    _write_groups(shop, optimizer, seats)
    _write_state(shop, optimizer, seats)
    return steps, list(_notes(optimizer, seats))


# --- writing ---------------------------------------------------------------------------------------------


def _write_groups(shop: Workshop, optimizer: Optimizer, seats: Seats) -> None:
    editor = shop.editor
    listed = items(editor.original, fields(editor.original, optimizer.index)["param_groups"])
    for at, group in zip(listed, seats, strict=False):
        node = editor.nodes[at]
        if not isinstance(node, Mapping):
            continue
        lists = {"params": [_key(shop, optimizer, seat.ident) for seat in group]}
        if optimizer.named == "param_names":
            lists["param_names"] = [editor.value(seat.name) for seat in group]
        values = tuple(
            _listed(shop, value, lists.get(key_text(editor.nodes[key])))
            for key, value in zip(node.keys, node.values, strict=True)
        )
        editor.replace(at, replace(node, values=values))


def _listed(shop: Workshop, index: int, members: list[int] | None) -> int:
    node = shop.editor.nodes[index]
    if members is None or not isinstance(node, SequenceNode):
        return index
    return shop.editor.put(replace(node, items=tuple(members)))


def _key(shop: Workshop, optimizer: Optimizer, ident: str) -> int:
    numbered = optimizer.named != "fqn" and ident.removeprefix("-").isdecimal()
    return shop.editor.value(int(ident) if numbered else ident)


def _write_state(shop: Workshop, optimizer: Optimizer, seats: Seats) -> None:
    """States in the order in which they stood; what no group lists stays, out of the way of new numbers."""
    editor = shop.editor
    at = fields(editor.original, optimizer.index)["state"]
    node = editor.nodes[at]
    assert isinstance(node, Mapping)
    before = {key_text(editor.nodes[key]): place for place, key in enumerate(node.keys)}
    rows: list[tuple[int, int, int]] = []
    for seat in everyone(seats):
        if seat.state.index is not None:
            places = [before[slot.ident] for slot in seat.member.slots if slot.ident in before]
            rows.append((min(places, default=len(before)), _key(shop, optimizer, seat.ident), seat.state.index))
    taken = {seat.ident for seat in everyone(seats)}
    free = 1 + max((int(ident) for ident in [*taken, *before] if ident.isdecimal()), default=-1)
    for place in (before[orphan] for orphan in optimizer.orphans):
        key = node.keys[place]
        if key_text(editor.nodes[key]) in taken:
            key, free = editor.value(free), free + 1
        rows.append((place, key, node.values[place]))
    rows.sort(key=lambda row: row[0])
    editor.replace(at, replace(node, keys=tuple(k for _, k, _ in rows), values=tuple(v for _, _, v in rows)))


# --- telling ---------------------------------------------------------------------------------------------


def _steps(shop: Workshop, optimizer: Optimizer, seats: Seats) -> Iterator[Step]:
    original = shop.editor.original
    states = fields(original, fields(original, optimizer.index)["state"])
    for seat in everyone(seats):
        old = tuple(
            f"{_entry(optimizer, slot.ident)}.{name}"
            for slot in seat.member.slots
            for name in fields(original, states.get(slot.ident))
        )
        computed = _computed(shop, seat, states)
        yield from _seat_steps(optimizer, seat, old, tuple(_new_keys(shop, optimizer, seat)), computed)
    used = {slot.ident for seat in everyone(seats) for slot in seat.member.slots}
    for slot in optimizer.slots:
        if slot.ident not in used:
            yield _left(optimizer, slot, [*fields(original, states.get(slot.ident))])
    place = (".".join([*optimizer.path, "param_groups"]),)
    moved = [seat.ident for seat in everyone(seats)] != [slot.ident for slot in optimizer.slots]
    what = "ids" if moved and optimizer.named != "fqn" else "names"
    yield Step("groups", place, place, f"{what} follow the parameters")


def _computed(shop: Workshop, seat: Seat, states: MappingABC[str, int]) -> bool:
    """Whether some of the state is other content than before: a cast parameter's moments are not."""
    original = shop.editor.original
    kept = {at for slot in seat.member.slots for at in fields(original, states.get(slot.ident)).values()}
    node = None if seat.state.index is None else shop.editor.nodes[seat.state.index]
    return isinstance(node, Mapping) and not kept.issuperset(node.values)


def _seat_steps(
    optimizer: Optimizer, seat: Seat, old: tuple[str, ...], new: tuple[str, ...], computed: bool
) -> Iterator[Step]:
    product = seat.member.product
    same = old == new and not computed and bool(seat.member.slots)
    if product is None or (same and not seat.state.lossy):
        return
    if not seat.member.slots:
        state = "the state that Adagrad starts from" if new else "no state"
        why = f"'{product.name}' is new: it goes into {seat.member.why}, with {state}"
        yield Step("add", (), new or (_entry(optimizer, seat.ident),), why)
        return
    done = "+".join(operations(product.expression)) if computed else ""
    op = done or ("rename" if optimizer.named == "fqn" else "renumber")
    if seat.state.lossy:
        yield Step("drop", old, new, f"state of '{product.name}'", seat.state.lossy)
    elif old or new:
        yield Step(op, old, new, f"state of '{product.name}'")


def _left(optimizer: Optimizer, slot: Slot, names: Sequence[str]) -> Step:
    entry = _entry(optimizer, slot.ident)
    old = tuple(f"{entry}.{name}" for name in names) or (entry,)
    why = f"'{slot.name or slot.ident}' is no parameter of the result"
    return Step("drop", old, (), why, "the parameter's state is not kept" if names else "")


def _new_keys(shop: Workshop, optimizer: Optimizer, seat: Seat) -> Iterator[str]:
    node = None if seat.state.index is None else shop.editor.nodes[seat.state.index]
    for key in node.keys if isinstance(node, Mapping) else ():
        yield f"{_entry(optimizer, seat.ident)}.{key_text(shop.editor.nodes[key])}"


def _entry(optimizer: Optimizer, ident: str) -> str:
    return ".".join([*optimizer.path, "state", ident])


def _notes(optimizer: Optimizer, seats: Seats) -> Iterator[str]:
    where = printable(optimizer.key)
    for number, group in enumerate(seats):
        if not group and any(slot.group == number for slot in optimizer.slots):
            yield f"{where} – group {number} has no parameter left"
