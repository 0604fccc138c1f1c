"""What follows the weights by parameter: optimizers, each parameter's state to its new place."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from ckpttool.frozen import dataclass
from ckpttool.layout import Layout
from ckpttool.migration.adopting import adopted
from ckpttool.migration.alignment import Aligned, Trains, align
from ckpttool.migration.errors import MigrationError
from ckpttool.migration.groups import Member, members
from ckpttool.migration.moments import Read
from ckpttool.migration.optimizers import move_optimizer
from ckpttool.migration.products import Product
from ckpttool.migration.reach import Wishes
from ckpttool.migration.scopes import Scope
from ckpttool.migration.target import Target
from ckpttool.migration.workshop import Workshop
from ckpttool.plan import Step


@dataclass(frozen=True)
class Moved:
    """The weights after a migration: each state dict with the keys of its result."""

    shop: Workshop
    layout: Layout
    moves: Sequence[tuple[Scope, list[Product]]]
    target: Target | None = None

    @cached_property
    def scopes(self) -> list[Scope]:
        return [scope for scope, _ in self.moves]

    @cached_property
    def rearranged(self) -> bool:
        """Whether a parameter has another name, content or place than before."""
        now = [(p.name, p.index) for _, products in self.moves for p in products if self.shop.tensor(p.index)]
        return now != [
            (name, leaf.index)
            for scope in self.scopes
            for name, leaf in scope.named.items()
            if self.shop.tensor(leaf.index)
        ]

    @cached_property
    def numbered(self) -> bool:
        """Whether every tensor has kept its content and its place in the order: ids without names then still fit."""
        now = [p.index for _, products in self.moves for p in products if self.shop.tensor(p.index)]
        return now == [
            leaf.index for scope in self.scopes for leaf in scope.named.values() if self.shop.tensor(leaf.index)
        ]

    @cached_property
    def ties(self) -> dict[object, list[Product]]:
        """All keys of each tensor of the result, by its place."""
        found: dict[object, list[Product]] = {}
        for _, products in self.moves:
            for product in products:
                if self.shop.tensor(product.index) is not None:
                    found.setdefault(self.shop.place(product.index), []).append(product)
        return found

    @cached_property
    def tensors(self) -> list[Product]:
        """The tensors of the result in order, ties once: the target's order where it has one."""
        first = {name: at for at, name in enumerate(self.target.parameters if self.target else ())}
        chosen = [min(group, key=lambda p: first.get(p.name, len(first))) for group in self.ties.values()]
        return sorted(chosen, key=lambda p: first.get(p.name, len(first))) if first else chosen


@dataclass(frozen=True, slots=True)
class Followed:
    """An optimizer with the members of each of its groups in the new order."""

    aligned: Aligned
    groups: list[list[Member]]


@dataclass(frozen=True, slots=True)
class Following:
    """What became of the optimizers; those that could not be matched are not among ``followed``."""

    steps: list[Step]
    notes: list[str]
    followed: list[Followed]


def follow_optimizers(moved: Moved, wishes: Wishes, trains: Trains, read: Read | None) -> Following:
    """Move every optimizer's state with its parameters.

    Raises ``MigrationError`` where whose state is whose cannot be told, and that would matter.
    """
    found = Following([], [], [])
    if not wishes.wants("optimizer"):
        return found
    shop, told = moved.shop, () if moved.target is None else moved.target.groups
    aligned = [
        align(shop.editor.original, one, moved.scopes, trains, wishes.assume_order, moved.layout.ordered)
        for one in moved.layout.optimizers
    ]
    added = adopted(shop, aligned, moved.tensors, trains, moved.target)
    for number, one in enumerate(aligned):
        if one.why and not moved.numbered:
            raise MigrationError(one.why)
        if one.why or not one.optimizer.slots:
            continue
        groups = members(one.optimizer, moved.tensors, one.slots, added.get(number, {}), told)
        steps, notes = move_optimizer(shop, one.optimizer, groups, moved.ties, read)
        found.steps.extend(steps)
        found.notes.extend([*notes, *([one.note] if one.note and steps else [])])
        found.followed.append(Followed(one, groups))
    return found
