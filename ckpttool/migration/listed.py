"""Tensors in a list, in the order of the parameters and without names: averages, and fp32 copies in wrapped optimizers.

Sources of the names: torch_ema ``ema.py`` and diffusers ``training_utils.py`` (averages); apex ``fp16_optimizer.py``,
Megatron-LM ``optimizer.py`` and DeepSpeed ``zero/stage_1_and_2.py``, ``fp16/fused_optimizer.py`` (fp32 copies).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from ckpttool.errors import printable
from ckpttool.expressions import Applied, Expression, Leaf as Input
from ckpttool.frozen import dataclass
from ckpttool.migration.alignment import Trains
from ckpttool.migration.errors import MigrationError
from ckpttool.migration.following import Followed, Moved
from ckpttool.migration.orders import Order, Orders
from ckpttool.migration.products import Product
from ckpttool.migration.reach import Wishes
from ckpttool.model import Checkpoint, Sequence as SequenceNode, Tensor
from ckpttool.ops import Cast
from ckpttool.plan import Step
from ckpttool.tree import children
from ckpttool.units import plural

AVERAGES = frozenset({"shadow_params", "collected_params", "temp_stored_params"})
MASTERS = frozenset({"fp32_from_fp16", "fp32_from_fp16_params"})
FLAT = frozenset({"fp32_groups_flat", "single_partition_of_fp32_groups"})
"""Lists of vectors over many parameters: they stay right while no parameter changes its content or place."""

LEVELS = 6
"""How deep in the tree lists are looked for; those that are known stand near its top."""


@dataclass(frozen=True, slots=True)
class Listing:
    """A list of tensors, or of lists of them: its place, and the nodes of the tensors."""

    path: tuple[str, ...]
    index: int
    nested: bool
    groups: tuple[tuple[int, ...], ...]

    @property
    def name(self) -> str:
        return next((step for step in reversed(self.path) if not step.isdecimal()), "")

    @property
    def key(self) -> str:
        return ".".join(self.path)


def follow_lists(moved: Moved, followed: Sequence[Followed], wishes: Wishes, trains: Trains) -> list[Step]:
    """Put the lists' tensors into the new order, through the parameters' expressions; the steps.

    A list follows where it has as many tensors, of the same shapes, as one order of the parameters. Raises
    ``MigrationError`` where a list that stands for parameters fits none, and one of those changes.
    """
    if wishes.under is not None or wishes.whole:
        return []
    steps = []
    orders = Orders(moved, followed, trains)
    for one in _listings(moved):
        known = _speaks_of_parameters(moved, one)
        if not wishes.wants("optimizer" if one.name in MASTERS | FLAT else "ema"):
            continue
        order = None if one.name in FLAT else _order(moved, one, orders)
        if order is None and known and not moved.numbered:
            raise MigrationError(_unmatched(one))
        if order is not None and _rewritten(moved, one, order):
            key = (f"{one.key}.*",)
            steps.append(Step("list", key, key, "its tensors stand in the order of the parameters"))
    return steps


def holds_lists(checkpoint: Checkpoint, index: int) -> bool:
    """Whether a part of the tree keeps tensors in lists."""
    return next(_found(checkpoint, (), index, set()), None) is not None


def _listings(moved: Moved) -> Iterator[Listing]:
    original = moved.shop.editor.original
    skipped = {scope.index for scope in moved.scopes} | {one.index for one in moved.layout.optimizers}
    if original.root is not None:
        yield from list(_found(original, (), original.root, skipped))


def _found(checkpoint: Checkpoint, path: tuple[str, ...], index: int, seen: set[int]) -> Iterator[Listing]:
    if index in seen or len(path) > LEVELS:
        return
    seen.add(index)
    node = checkpoint.nodes[index]
    groups = _groups(checkpoint, node) if isinstance(node, SequenceNode) else None
    if groups is not None and isinstance(node, SequenceNode):
        nested = not isinstance(checkpoint.nodes[node.items[0]], Tensor)
        yield Listing(path, index, nested, groups)
        return
    for step, child in children(checkpoint.nodes, node):
        yield from _found(checkpoint, path + step, child, seen)


def _groups(checkpoint: Checkpoint, node: SequenceNode) -> tuple[tuple[int, ...], ...] | None:
    """The tensors of a list, or of the lists in it; None where anything else is among them."""
    below = [checkpoint.nodes[i] for i in node.items]
    if below and all(isinstance(one, Tensor) for one in below):
        return (node.items,)
    lists = [one for one in below if isinstance(one, SequenceNode)]
    inner = [i for one in lists for i in one.items]
    if not inner or len(lists) < len(below):
        return None
    whole = all(isinstance(checkpoint.nodes[i], Tensor) for i in inner)
    return tuple(one.items for one in lists) if whole else None


def _speaks_of_parameters(moved: Moved, one: Listing) -> bool:
    return one.name in AVERAGES | MASTERS | FLAT or moved.layout.section_of(one.path) == "ema"


def _unmatched(one: Listing) -> str:
    count = sum(map(len, one.groups))
    return (
        f"{printable(one.key)} – holds {plural(count, 'tensor')} without names, which stand for parameters and cannot "
        "be matched with those of the weights: number, shapes or order leave more than one way or none; leave it as it "
        "is with --section weights"
    )


# --- which order -------------------------------------------------------------------------------------------


def _order(moved: Moved, one: Listing, orders: Orders) -> Order | None:
    """The order that a list is in; None where none fits, or several do that say different things."""
    found: list[Order] = []
    if not one.nested:
        found += orders.of_models
    if one.nested or one.name not in AVERAGES:
        found += orders.of_optimizers
    fitting = [order for order in found if _fits(moved, one, order)]
    return fitting[0] if fitting and all(order.old == fitting[0].old for order in fitting) else None


def _fits(moved: Moved, one: Listing, order: Order) -> bool:
    def shapes(groups: Sequence[Sequence[int]]) -> list[list[tuple[int, ...] | None]]:
        return [[t.shape if (t := moved.shop.tensor(at)) else None for at in group] for group in groups]

    return shapes(one.groups) == shapes(order.old)


# --- the new list ------------------------------------------------------------------------------------------


def _rewritten(moved: Moved, one: Listing, order: Order) -> bool:
    """Put the tensors into the new order; whether anything changed."""
    editor = moved.shop.editor
    place = dict(zip(_flat(order.old), _flat(one.groups), strict=True))
    given: set[int] = set()
    made = tuple(tuple(_tensor(moved, one, product, place, given) for product in group) for group in order.new)
    if made == one.groups:
        return False
    node = editor.nodes[one.index]
    assert isinstance(node, SequenceNode)
    if not one.nested:
        editor.replace(one.index, replace(node, items=made[0]))
        return True
    inner = [editor.nodes[at] for at in node.items]
    lists = [
        editor.put(replace(below, items=items))
        for below, items in zip(inner, made, strict=True)
        if isinstance(below, SequenceNode)
    ]
    editor.replace(one.index, replace(node, items=tuple(lists)))
    return True


def _flat(groups: Sequence[Sequence[int]]) -> list[int]:
    return [at for group in groups for at in group]


def _tensor(moved: Moved, one: Listing, product: Product, place: dict[int, int], given: set[int]) -> int:
    """The list's tensor for a parameter of the result."""
    shop, key = moved.shop, f"{one.key}.{product.name}"
    if product.new:
        return _fresh(moved, product, next(iter(place.values())), key)
    below = [place.get(leaf.index) for leaf in product.sources]
    if any(at is None for at in below):
        raise MigrationError(
            f"{printable(one.key)} – '{printable(product.name)}' is made of parameters that are in this list and "
            "others that are not; leave it as it is with --section weights"
        )
    bound = {leaf.name or "": at for leaf, at in zip(product.sources, below, strict=True) if at is not None}
    expression = _uncast(product.expression) if one.name in MASTERS else product.expression
    if not isinstance(expression, Input):
        return shop.make(expression, bound, None, key)
    at = bound[expression.name]
    if at in given:
        return shop.copy(at, key)
    given.add(at)
    return at


def _uncast(expression: Expression) -> Expression:
    """The expression without changes of element type: fp32 copies stay what they are."""
    if isinstance(expression, Input):
        return expression
    inputs = tuple(_uncast(part) for part in expression.inputs)
    return inputs[0] if isinstance(expression.op, Cast) else Applied(expression.op, inputs, expression.part)


def _fresh(moved: Moved, product: Product, like: int, key: str) -> int:
    """A new parameter's own values, in the list's element type."""
    shop = moved.shop
    own, other = shop.tensor(product.index), shop.tensor(like)
    if own is None or other is None or own.dtype == other.dtype:
        return shop.copy(product.index, key)
    return shop.make(Applied(Cast(other.dtype), (Input(key),)), {key: product.index}, like, key)
