"""Other dicts whose keys are names of the weights: they follow where every one of their keys is. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from ckpttool.expressions import Leaf as Input
from ckpttool.layout import Layout
from ckpttool.migration.products import Product
from ckpttool.migration.scopes import Scope
from ckpttool.migration.workshop import Workshop, operations
from ckpttool.model import Mapping, Value
from ckpttool.ops import for_moments
from ckpttool.plan import Step
from ckpttool.tree import children

Path = tuple[str, ...]

FOLLOWED = frozenset({"other", "config", "counters", "data"})
"""Sections in which dicts may be keyed by the weights' names; the others have readers of their own."""


def move_keyed(shop: Workshop, layout: Layout, scope: Scope, products: Sequence[Product]) -> list[Step]:
    """Rename the keys of every dict that has at least two, all of them names of the weights.

    Its tensors of the weights' shapes go through the weights' expressions. A dict in which a value cannot follow is
    left as it is.
    """
    if all(not product.moved for product in products):
        return []
    steps = []
    for path, index, node in list(_keyed(shop, layout, scope)):
        made = _moved(shop, scope, node, products)
        if made is not None and made != node:
            shop.editor.replace(index, made)
            key = ".".join([*path, "*"])
            steps.append(Step("rename", (key,), (key,), "its keys are names of the weights"))
    return steps


def _keyed(shop: Workshop, layout: Layout, scope: Scope) -> Iterator[tuple[Path, int, Mapping]]:
    original = shop.editor.original
    skip = {section.index for section in layout.sections if section.name not in FOLLOWED} | {scope.index}
    assert original.root is not None
    seen = set(skip)
    stack: list[tuple[Path, int]] = [((), original.root)]
    while stack:
        path, index = stack.pop()
        node = original.nodes[index]
        if index in seen:
            continue
        seen.add(index)
        if isinstance(node, Mapping) and len(node.keys) > 1 and _all_names(shop, node, scope):
            yield path, index, node
            continue
        stack.extend((path + step, child) for step, child in reversed(children(original.nodes, node)))


def _all_names(shop: Workshop, node: Mapping, scope: Scope) -> bool:
    keys = [shop.editor.original.nodes[key] for key in node.keys]
    return all(isinstance(key, Value) and isinstance(key.value, str) and key.value in scope.named for key in keys)


def _moved(shop: Workshop, scope: Scope, node: Mapping, products: Sequence[Product]) -> Mapping | None:
    editor = shop.editor
    held = dict(zip((_text(shop, key) for key in node.keys), zip(node.keys, node.values, strict=True), strict=True))
    keys, values, used = [], [], set[str]()
    for product in products:
        names = [leaf.name or "" for leaf in product.sources]
        if not names or any(name not in held for name in names):
            if any(name in held for name in names):
                return None
            continue
        value = _value(shop, scope, product, [held[name][1] for name in names], used)
        if value is None:
            return None
        used.update(names)
        keys.append(held[names[0]][0] if product.name == names[0] else editor.value(product.name))
        values.append(value)
    return replace(node, keys=tuple(keys), values=tuple(values))


def _value(shop: Workshop, scope: Scope, product: Product, below: Sequence[int], used: set[str]) -> int | None:
    """What stands under a key of the result; None where that cannot be told."""
    names = [leaf.name or "" for leaf in product.sources]
    shapes = [t.shape if (t := shop.tensor(leaf.index)) else None for leaf in product.sources]
    tensors = [shop.bare(index) for index in below]
    expression = for_moments(product.expression)
    if isinstance(expression, Input) or all(tensor is None for tensor in tensors):
        if len({shop.place(index) for index in below}) > 1:
            return None
        return shop.copy(below[0], names[0]) if names[0] in used and tensors[0] is not None else below[0]
    if expression is None or any(t is None or t.shape != s for t, s in zip(tensors, shapes, strict=True)):
        return None
    return shop.make(expression, dict(zip(names, below, strict=True)), None, scope.key(product.name))


def _text(shop: Workshop, key: int) -> str:
    node = shop.editor.original.nodes[key]
    return str(node.value) if isinstance(node, Value) else ""


__all__ = ["move_keyed", "operations"]
