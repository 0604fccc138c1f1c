"""Every parameter's place in the new optimizer: its group, its id, its name and its state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping as MappingABC, Sequence
from dataclasses import replace

from ckpttool.expressions import Applied, Form, Leaf as Input
from ckpttool.frozen import dataclass
from ckpttool.layout import Optimizer
from ckpttool.migration.groups import Member
from ckpttool.migration.moments import Moments, Read, State, zeros
from ckpttool.migration.products import Product
from ckpttool.migration.workshop import Workshop
from ckpttool.ops import Fill
from ckpttool.tree import fields, items, number

Ties = MappingABC[object, Sequence[Product]]
"""The keys of the result that are one tensor, by its place."""


@dataclass(frozen=True, slots=True)
class Seat:
    """A parameter's place: who sits there, under which id and recorded name, with which state."""

    member: Member
    ident: str
    name: str | None
    state: State


def seated(
    shop: Workshop, optimizer: Optimizer, groups: Sequence[Sequence[Member]], ties: Ties, read: Read | None
) -> list[list[Seat]]:
    """Seats for the members of each group. Raises ``MigrationError`` where merged counters disagree."""
    known = fields(shop.editor.original, optimizer.index)
    states = fields(shop.editor.original, known["state"])
    moments = Moments(shop, optimizer, states, read)
    whole = optimizer.kind == "LBFGS" and _rearranged(optimizer, groups)
    listed = [[_seat(shop, optimizer, member, ties, moments, whole) for member in group] for group in groups]
    if optimizer.kind == "Adagrad":
        listed = [[_with_start(shop, optimizer, seat, states) for seat in group] for group in listed]
    return _numbered(optimizer, listed)


def _rearranged(optimizer: Optimizer, groups: Sequence[Sequence[Member]]) -> bool:
    """Whether the flat vectors of an optimizer that sees all parameters as one no longer fit."""
    flat = [member for group in groups for member in group]
    plain = all(m.product is None or isinstance(m.product.expression, Input) for m in flat)
    return not plain or [[s.ident for s in m.slots] for m in flat] != [[s.ident] for s in optimizer.slots]


def _seat(shop: Workshop, optimizer: Optimizer, member: Member, ties: Ties, moments: Moments, whole: bool) -> Seat:
    state = moments.of(member)
    if whole and any(slot.state for slot in member.slots):
        state = State(None, "LBFGS keeps one vector over all parameters, which no longer fits: its state starts anew")
    old = member.slots[0] if member.slots else None
    ident = old.ident if old else ""
    if optimizer.named == "fqn" and member.product is not None:
        ident = _renamed(shop, member.product, ident or None, ties)
    name = old.name if old else None
    if optimizer.named == "param_names" and member.product is not None:
        name = _renamed(shop, member.product, name, ties)
    return Seat(member, ident, name if optimizer.named == "param_names" else None, state)


def _renamed(shop: Workshop, product: Product, old: str | None, ties: Ties) -> str:
    """The parameter's name as the optimizer spells names: with or without what wrappers put before it."""
    if old is None or not product.sources:
        return product.name
    # A tied parameter has several keys; the one that the optimizer goes by decides.
    same = (p for p in ties.get(shop.place(product.index), ()) if p.sources and p.sources[0].name == old)
    one = next(same, product)
    leaf = one.sources[0].name or ""
    if old == leaf:
        return one.name
    if leaf.endswith("." + old):
        return one.name.removeprefix(leaf[: -len(old)])
    return old[: -len(leaf)] + one.name if old.endswith("." + leaf) else one.name


def _numbered(optimizer: Optimizer, groups: list[list[Seat]]) -> list[list[Seat]]:
    """Ids as torch gives them, one after the other across groups, unless every parameter keeps its place."""
    if optimizer.named == "fqn" or _unmoved(optimizer, groups):
        return groups
    counted = iter(range(sum(map(len, groups))))
    return [[replace(seat, ident=str(next(counted))) for seat in group] for group in groups]


def _unmoved(optimizer: Optimizer, groups: Sequence[Sequence[Seat]]) -> bool:
    now = [(seat.ident, number_) for number_, group in enumerate(groups) for seat in group]
    return now == [(slot.ident, slot.group) for slot in optimizer.slots]


def is_same(shop: Workshop, optimizer: Optimizer, groups: Sequence[Sequence[Seat]]) -> bool:
    """Whether the optimizer needs no change at all."""
    states = fields(shop.editor.original, fields(shop.editor.original, optimizer.index)["state"])
    flat = [seat for group in groups for seat in group]
    names = [slot.name if optimizer.named == "param_names" else None for slot in optimizer.slots]
    return (
        _unmoved(optimizer, groups)
        and [seat.name for seat in flat] == names
        and all(seat.state.index == states.get(seat.ident) for seat in flat)
    )


def _with_start(shop: Workshop, optimizer: Optimizer, seat: Seat, states: MappingABC[str, int]) -> Seat:
    """Adagrad makes its state when it is made itself, and fails on a parameter without: so it gets a fresh one."""
    product, original = seat.member.product, shop.editor.original
    tensor = None if product is None else shop.tensor(product.index)
    model = next(({**found} for i in states.values() if {"step", "sum"} <= (found := fields(original, i)).keys()), None)
    if seat.state.index is not None or product is None or tensor is None or model is None:
        return seat
    groups = items(original, fields(original, optimizer.index)["param_groups"])
    start = number(original, fields(original, groups[0]).get("initial_accumulator_value")) or 0
    total = shop.make(Applied(Fill(tensor.shape, tensor.dtype, start), ()), {}, product.index, product.name)
    step = shop.tensor(model["step"])
    form = None if step is None else Form(step.dtype, step.shape)
    count = shop.editor.value(0) if form is None else shop.fresh(form, zeros(form), model["step"])
    index = shop.editor.mapping([("step", count), ("sum", total)])
    return replace(seat, state=replace(seat.state, index=index))


def everyone(groups: Sequence[Sequence[Seat]]) -> Iterator[Seat]:
    """The seats of all groups in order."""
    return (seat for group in groups for seat in group)
