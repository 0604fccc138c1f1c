"""A rewriting carried out on one state dict: every key of the result with its node, and what it came from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ckpttool.errors import printable
from ckpttool.expressions import Expression, Leaf as Input
from ckpttool.frozen import dataclass
from ckpttool.migration.containers import Entry, rebuild
from ckpttool.migration.errors import MigrationError
from ckpttool.migration.scopes import Leaf, Scope
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


def carry_out(shop: Workshop, scope: Scope, rewriting: Rewriting) -> list[Product]:
    """Make the result's tensors and put them into the state dict; the keys of the result in its order.

    Raises ``MigrationError`` where an operation does not fit.
    """
    ties = {tie.name: tie for tie in rewriting.ties}
    own = list(_made(shop, scope, [output for output in rewriting.outputs if output.name not in ties]))
    made = _with_ties(shop, scope, rewriting, own)
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


def _with_ties(shop: Workshop, scope: Scope, rewriting: Rewriting, own: Sequence[Product]) -> list[Product]:
    """The keys of the result in order, those among them that share another one's storage."""
    by_name = {product.name: product for product in own}
    order = dict.fromkeys(output.name for output in rewriting.outputs)
    for tie in rewriting.ties:
        to = by_name.get(tie.to)
        if to is None:
            raise MigrationError(
                f"{printable(scope.key(tie.name))} – is to be tied to '{printable(tie.to)}', which is no key of the "
                "result"
            )
        by_name[tie.name] = Product(
            tie.name, _twin(shop, scope, tie.name, to), to.expression, to.sources, tie.rules, tied=tie.to
        )
        order.setdefault(tie.name)
    return [by_name[name] for name in order]


def _twin(shop: Workshop, scope: Scope, name: str, to: Product) -> int:
    """A node that looks at the same elements: the key's own where it does so already."""
    leaf = scope.named.get(name)
    if leaf is not None and shop.place(leaf.index) == shop.place(to.index):
        return leaf.index
    node = shop.tensor(to.index)
    return to.index if node is None or node.call is not None else shop.editor.put(node)
