"""Which group of an optimizer each parameter of the result belongs to, and in which order. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping as MappingABC, Sequence

from ckpttool.errors import printable
from ckpttool.frozen import dataclass
from ckpttool.layout import Optimizer, Slot
from ckpttool.migration.errors import MigrationError
from ckpttool.migration.products import Product


@dataclass(frozen=True, slots=True)
class Member:
    """A parameter of a group: a product with the slots of what it came from, or a slot that no rule can see."""

    slots: tuple[Slot, ...]
    product: Product | None = None
    why: str = ""


def members(
    optimizer: Optimizer,
    products: Sequence[Product],
    slots: MappingABC[int, Slot],
    added: MappingABC[int, tuple[int, str]],
    told: Sequence[Sequence[str]] = (),
) -> list[list[Member]]:
    """The members of each group in the new order. ``slots`` are known by the leaves' nodes, in the leaves' order.

    ``products`` are the parameters of the result in order; ``added`` has group and reason of new ones by their place
    there. ``told`` are the names in each of the target's groups, where it has as many. Raises ``MigrationError``
    where parameters of different groups, or of none, are merged.
    """
    count = 1 + max((slot.group for slot in optimizer.slots), default=-1)
    wanted = _wanted(told, count)
    order = {slot.ident: at for at, slot in enumerate(optimizer.slots)}
    straight = _straight(order, slots)
    groups: list[list[tuple[tuple[int, int], Member]]] = [[] for _ in range(count)]
    last = [-1] * count
    for at, product in enumerate(products):
        found = tuple(slots[leaf.index] for leaf in product.sources if leaf.index in slots)
        why = ""
        if at in added:
            group, why = added[at]
            place = last[group]
        elif found:
            if product.name not in wanted:
                _refuse_mixture(optimizer, product, found)
            group = found[0].group
            place = at if straight.get(group, True) else min(order[slot.ident] for slot in found)
        else:
            continue
        group, place = wanted.get(product.name, (group, place))
        last[group] = place
        groups[group].append(((place, at), Member(found, product, why)))
    ranked = [[member for _, member in sorted(group, key=lambda pair: pair[0])] for group in groups]
    return _with_strangers(optimizer, ranked, slots)


def _wanted(told: Sequence[Sequence[str]], count: int) -> dict[str, tuple[int, int]]:
    """Group and place of each name, if the target has as many groups."""
    if len(told) != count:
        return {}
    return {name: (group, place) for group, names in enumerate(told) for place, name in enumerate(names)}


def _straight(order: MappingABC[str, int], slots: MappingABC[int, Slot]) -> dict[int, bool]:
    """For each group whether its parameters stood in the order of the weights: then so they do in the result."""
    places: dict[int, list[int]] = {}
    for ident, group in dict.fromkeys((slot.ident, slot.group) for slot in slots.values()):
        places.setdefault(group, []).append(order[ident])
    return {group: at == sorted(at) for group, at in places.items()}


def _refuse_mixture(optimizer: Optimizer, product: Product, found: Sequence[Slot]) -> None:
    groups = sorted({slot.group for slot in found})
    if len(groups) > 1:
        raise MigrationError(
            f"{printable(optimizer.key)} – '{printable(product.name)}' is merged from parameters of groups "
            f"{' and '.join(map(str, groups))}, whose settings differ; put them into one group first, or leave the "
            "optimizer out with --section weights"
        )
    if len(found) < len(product.sources):
        raise MigrationError(
            f"{printable(optimizer.key)} – '{printable(product.name)}' is merged from {len(found)} trained and "
            f"{len(product.sources) - len(found)} frozen parameters: it can be neither; leave the optimizer out with "
            "--section weights"
        )


def _with_strangers(
    optimizer: Optimizer, groups: list[list[Member]], slots: MappingABC[int, Slot]
) -> list[list[Member]]:
    """Slots whose parameter is not among the weights stay in their group, behind what they stood behind."""
    known = {slot.ident for slot in slots.values()}
    for group, listed in enumerate(groups):
        before: set[str] = set()
        for slot in (one for one in optimizer.slots if one.group == group):
            if slot.ident in known:
                before.add(slot.ident)
                continue
            behind = [i for i, m in enumerate(listed) if any(s.ident in before for s in m.slots)]
            listed.insert(behind[-1] + 1 if behind else 0, Member((slot,)))
            before.add(slot.ident)
    return groups


def adopt(
    name: str, shape: tuple[int, ...], known: Sequence[tuple[str, tuple[int, ...], int] | None], at: int
) -> tuple[int, str] | None:
    """The group for a new parameter and why; None if no parameter around it is in any.

    ``known`` has name, shape and group of each parameter of the result, None where it has none; ``at`` is the new
    one's place. Parameters of the same last name and rank decide where they agree, as groups with and without weight
    decay are told apart by them; else the nearest parameter before it does, else the nearest behind.
    """
    present = [one for one in known if one is not None]
    groups = {group for _, _, group in present}
    if not groups:
        return None
    if len(groups) == 1:
        return groups.pop(), "the only group"
    last = name.rpartition(".")[2]
    alike = Counter(g for n, s, g in present if n.rpartition(".")[2] == last and len(s) == len(shape))
    if len(alike) == 1:
        return next(iter(alike)), f"the group of every other '{printable(last)}' of {len(shape)} dimensions"
    for one in [*reversed(known[:at]), *known[at:]]:
        if one is not None:
            return one[2], f"the group of its neighbour '{printable(one[0])}'"
    return None
