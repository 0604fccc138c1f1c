"""The orders that parameters are known to have: a model's, an optimizer's; before a migration and after it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import cached_property

from ckpttool.frozen import dataclass
from ckpttool.migration.alignment import Trains, parameters
from ckpttool.migration.following import Followed, Moved
from ckpttool.migration.products import Product

HALVES = ("float16", "bfloat16")


@dataclass(frozen=True, slots=True)
class Order:
    """An order of parameters: the leaves of before, and the products of after, in one or more groups."""

    old: tuple[tuple[int, ...], ...]
    new: tuple[tuple[Product, ...], ...]


@dataclass(frozen=True)
class Orders:
    """The orders that parameters are known to have, found when they are first asked for."""

    moved: Moved
    followed: Sequence[Followed]
    trains: Trains

    @cached_property
    def of_models(self) -> list[Order]:
        return list(_of_models(self.moved, self.followed, self.trains))

    @cached_property
    def of_optimizers(self) -> list[Order]:
        return list(_of_optimizers(self.moved, self.followed))


def _of_models(moved: Moved, followed: Sequence[Followed], trains: Trains) -> Iterator[Order]:
    """The models' parameters in their order, all of them and the trained ones."""
    original = moved.shop.editor.original
    trained = {at for one in followed for at in one.aligned.slots}
    for (scope, products), whole in [(move, whole) for move in moved.moves for whole in (True, False)]:
        leaves = [leaf.index for leaf in parameters(original, scope, trains)]
        old = tuple(at for at in leaves if whole or at in trained)
        among = frozenset(old)
        mine = {id(product) for product in products}
        new = [p for p in moved.tensors if id(p) in mine and _belongs(moved, p, among, trains)]
        if moved.layout.ordered and old:
            yield Order((old,), (tuple(new),))


def _belongs(moved: Moved, product: Product, old: Collection[int], trains: Trains) -> bool:
    tensor = moved.shop.tensor(product.index)
    if product.new:
        return tensor is not None and not product.tied and trains(product.name, tensor)
    return any(leaf.index in old for leaf in product.sources)


def _of_optimizers(moved: Moved, followed: Sequence[Followed]) -> Iterator[Order]:
    """The parameters in the order of each optimizer's groups, all of them and those of half precision."""
    for one in followed:
        leaf_of = {slot.ident: at for at, slot in reversed(list(one.aligned.slots.items()))}
        slots = one.aligned.optimizer.slots
        if any(slot.ident not in leaf_of for slot in slots):
            continue
        listed = [
            tuple(leaf_of[slot.ident] for slot in slots if slot.group == number) for number in range(len(one.groups))
        ]
        products = [tuple(m.product for m in group if m.product is not None) for group in one.groups]
        yield Order(tuple(listed), tuple(products))
        halves = [tuple(at for at in group if _is_half(moved, at)) for group in listed]
        after = [tuple(p for p in group if _is_half(moved, p.index)) for group in products]
        if halves != listed:
            yield Order(tuple(halves), tuple(after))


def _is_half(moved: Moved, index: int) -> bool:
    tensor = moved.shop.tensor(index)
    return tensor is not None and tensor.dtype.name in HALVES
