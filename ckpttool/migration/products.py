"""A rewriting carried out on one state dict: every key of the result with its node, and what it came from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ckpttool.errors import printable
from ckpttool.expressions import Expression, Leaf as Input
from ckpttool.migration.containers import Entry, rebuild
from ckpttool.migration.scopes import Leaf, Scope
from ckpttool.migration.trouble import MigrationError
from ckpttool.migration.workshop import Workshop, is_new
from ckpttool.rewriting import Output, Rewriting


@dataclass(frozen=True, slots=True)
class Product:
    """A key of the result: its node, the expression and the leaves that its content comes from, and the rules.

    ``tied`` is the key whose storage it shares by a rule. A new tensor has no leaves.
    """

    name: str
    index: int
    expression: Expression
    sources: tuple[Leaf, ...]
    rules: tuple[int, ...] = ()
    tied: str = ""

    @property
    def new(self) -> bool:
        return is_new(self.expression)

    @property
    def moved(self) -> bool:
        """Whether the key or its content is another one than before."""
        return bool(self.tied) or self.expression != Input(self.name)


def carry_out(
    shop: Workshop, scope: Scope, rewriting: Rewriting, order: Sequence[str] | None = None
) -> list[Product]:
    """Make the result's tensors and put them into the state dict; the keys of the result in its order.

    ``order`` is the target's, where there is one. Raises ``MigrationError`` where an operation does not fit.
    """
    made = list(_made(shop, scope, rewriting.outputs))
    made = _with_ties(shop, scope, rewriting, made)
    if order is not None:
        places = {name: at for at, name in enumerate(order)}
        made.sort(key=lambda product: places.get(product.name, len(places)))
    if _is_same(scope, made):
        return made
    entries = [Entry(scope.prefix + p.name, p.index, p.sources[0] if p.sources else None) for p in made]
    rebuild(shop.editor, scope, entries)
    return made


def _is_same(scope: Scope, made: Sequence[Product]) -> bool:
    return [(p.name, p.index) for p in made] == [(name, leaf.index) for name, leaf in scope.named.items()]


def _made(shop: Workshop, scope: Scope, outputs: Iterable[Output]) -> Iterator[Product]:
    taken: set[str] = set()
    near: int | None = next((leaf.index for leaf in scope.leaves if shop.tensor(leaf.index)), None)
    for output in outputs:
        sources = tuple(_source(scope, name, output) for name in output.inputs)
        if isinstance(output.expression, Input):
            index = sources[0].index
            if output.expression.name in taken:
                index = shop.copy(index, scope.key(output.name))
            taken.add(output.expression.name)
        else:
            bound = {name: leaf.index for name, leaf in zip(output.inputs, sources, strict=True)}
            new = is_new(output.expression)
            index = shop.make(output.expression, bound, near, scope.key(output.name))
            sources = () if new else sources
        near = index if shop.tensor(index) else near
        yield Product(output.name, index, output.expression, sources, output.rules)


def _source(scope: Scope, name: str, output: Output) -> Leaf:
    if name not in scope.named:
        raise MigrationError(
            f"{printable(scope.key(output.name))} – is to be made from {printable(name)}, which the checkpoint lacks"
        )
    return scope.named[name]


def _with_ties(shop: Workshop, scope: Scope, rewriting: Rewriting, made: list[Product]) -> list[Product]:
    """Ties stand where a key of their name stood, else right behind the key that they are tied to."""
    by_name = {product.name: product for product in made}
    for tie in rewriting.ties:
        to = by_name.get(tie.to)
        if to is None:
            raise MigrationError(
                f"{printable(scope.key(tie.name))} – is to be tied to '{printable(tie.to)}', which is no key of the "
                "result"
            )
        node = shop.tensor(to.index)
        index = to.index if node is None or node.call is not None else shop.editor.put(node)
        product = Product(tie.name, index, to.expression, to.sources, tie.rules, tied=tie.to)
        old = by_name.get(tie.name)
        if old is not None:
            made[made.index(old)] = product
        else:
            made.insert(_place(scope, made, tie.name, to), product)
        by_name[tie.name] = product
    return made


def _place(scope: Scope, made: Sequence[Product], name: str, to: Product) -> int:
    leaf = scope.named.get(name)
    if leaf is None:
        return made.index(to) + 1
    places = {one.path: at for at, one in enumerate(scope.leaves)}
    at = places[leaf.path]
    before = [
        i for i, one in enumerate(made) if one.sources and not one.tied and places[one.sources[0].path] < at
    ]
    return before[-1] + 1 if before else 0
