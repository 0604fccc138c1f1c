"""What is done to the weights, said step by step. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ckpttool.expressions import Leaf as Input, is_bijective
from ckpttool.migration.errors import MigrationError
from ckpttool.migration.modules import ModuleMoves
from ckpttool.migration.ordering import comes_back
from ckpttool.migration.products import Product
from ckpttool.migration.round_trip import Rewrite, way_back
from ckpttool.migration.scopes import Scope
from ckpttool.migration.workshop import Workshop, operations
from ckpttool.plan import Step
from ckpttool.rewriting import Names, Rewriting


def weight_steps(scope: Scope, rewriting: Rewriting, products: Sequence[Product]) -> Iterator[Step]:
    """One step for each key that becomes another one, is tied, added or dropped."""
    for product in products:
        if product.moved:
            yield _step(scope, rewriting, product)
    for dropped in rewriting.dropped:
        key = scope.key(dropped.name)
        yield Step("drop", (key,), (), _reason(rewriting, dropped.rules), "its content is not kept")


def reordering(scope: Scope, asked: Rewriting, made: Rewriting, names: Sequence[str], target: bool) -> Iterator[Step]:
    """The step that puts keys into another order than the rules gave, or into one that has no way back."""
    moved = [one.name for one in made.outputs] != [one.name for one in asked.outputs]
    lost = not target and not comes_back(names, made)
    if moved or lost:
        where = (".".join([*scope.path, "*"]),)
        why = "keys take the order of the target" if target else "keys of one module stand together"
        lossy = "tensors that stood apart become one: the way back lists them side by side" if lost else ""
        yield Step("reorder", where, where, why, lossy)


def metadata_steps(scope: Scope, modules: ModuleMoves) -> Iterator[Step]:
    """One step for each module whose record moves or is gone, and for what the way back would not restore."""
    base = ".".join([*scope.path, "_metadata"])
    why = "recorded versions follow modules"
    told = set()
    for old, new in modules.changes:
        lossy = "its recorded version has no place" if old in modules.lost and old not in told else ""
        told.add(old)
        made = (f"{base}.{new}",) if new else ()
        yield Step("metadata", (f"{base}.{old}",), made, why, lossy)
    for old in modules.lost:
        if old not in told:
            yield Step("metadata", (f"{base}.{old}",), (), why, "its recorded version has no place")
    if modules.reordered:
        lossy = "the way back lists modules in another order"
        yield Step("metadata", (f"{base}.*",), (f"{base}.*",), why, lossy)


def returning_steps(scope: Scope, names: Names, made: Rewriting, back: Rewrite, target: bool) -> Iterator[Step]:
    """What the way back would not give, though no rule says that it is lost; a ``target``'s order is none of that."""
    if not made.changes:
        return
    whole = (".".join([*scope.path, "*"]),)
    try:
        found = way_back(names, made, back)
    except MigrationError as error:
        yield Step("way-back", whole, (), "the rules cannot be followed back from their result", str(error))
        return
    known = {one.name for one in names.items}
    for name in found.missing:
        key, why = (scope.key(name),), "rules meet on the way back"
        if name in known:
            yield Step("way-back", key, (), why, "the way back does not give this key as it was")
        else:
            yield Step("way-back", (), key, why, "the way back gives this key as well")
    if found.reordered and not target:
        why = "rules join or part tensors"
        yield Step("reorder", whole, whole, why, "the way back lists keys in another order")


def _step(scope: Scope, rewriting: Rewriting, product: Product) -> Step:
    old = tuple(dict.fromkeys(scope.key(leaf.name or "") for leaf in product.sources))
    new = (scope.key(product.name),)
    reason = _reason(rewriting, product.rules)
    if product.tied:
        return Step("tie", (scope.key(product.tied),), new, reason)
    if product.new:
        return Step("add", (), new, reason)
    words = list(operations(product.expression))
    if len(product.sources) != 1 or product.sources[0].name != product.name:
        words += [] if words and words[-1] in ("split", "concat", "stack", "unstack") else ["rename"]
    return Step("+".join(words), old, new, reason, _lossy(rewriting, product))


def _lossy(rewriting: Rewriting, product: Product) -> str:
    said = [lossy for number in product.rules if (lossy := rewriting.rules[number].lossy)]
    if said or product.rules or isinstance(product.expression, Input) or is_bijective(product.expression):
        return "; ".join(dict.fromkeys(said))
    return "values are computed anew, and the old ones cannot be had back from them"


def _reason(rewriting: Rewriting, rules: Sequence[int]) -> str:
    uses = [rewriting.rules[number] for number in rules]
    return "; ".join(f"{use.where}: {use.text}" for use in uses)


def untied(shop: Workshop, scope: Scope, products: Sequence[Product]) -> Iterator[Step]:
    """A step for each tensor that shared another one's elements and no longer does."""
    before: dict[object, Product] = {}
    for product in products:
        if len(product.sources) != 1 or product.tied or shop.tensor(product.index) is None:
            continue
        first = before.setdefault(shop.place(product.sources[0].index), product)
        if first is not product and shop.place(first.index) != shop.place(product.index):
            old = (scope.key(first.sources[0].name or ""), scope.key(product.sources[0].name or ""))
            # A part of a split tensor, or a second use of one key, was never a tensor of its own.
            if old[0] != old[1]:
                new = (scope.key(first.name), scope.key(product.name))
                yield Step("untie", old, new, "what was done to them differs", "that they were one tensor")
