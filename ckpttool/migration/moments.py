"""The state of one parameter: carried as it is, through the parameter's expression, or left behind with a reason."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import TypeAlias

from ckpttool.draft import Input
from ckpttool.errors import printable
from ckpttool.expressions import Expression, Form, Leaf
from ckpttool.frozen import dataclass
from ckpttool.layout import Optimizer
from ckpttool.migration.errors import MigrationError
from ckpttool.migration.grounding import at_hand
from ckpttool.migration.groups import Member
from ckpttool.migration.workshop import Workshop, operations
from ckpttool.model import Mapping, Tensor, Value
from ckpttool.ops import for_moments
from ckpttool.tree import key_text

Read: TypeAlias = Callable[[Input], bytes]
"""The row-major bytes of a small tensor."""

SCALARS = frozenset({"step", "eta", "mu", "mu_product"})
"""States of torch's optimizers that count or scale, also where the parameter itself has one element."""

MATRIXWISE = frozenset({"Muon"})
"""Optimizers whose step looks at a matrix as a whole: after a change of rows or axes their state is another one's."""

FACTORED = frozenset(
    "row_var col_var exp_avg_row exp_avg_col exp_avg_sq_row exp_avg_sq_col projector GG Q preconditioner "
    "qmap1 qmap2 absmax1 absmax2 old_dirs".split()
)
"""Parts of states that speak of rows, columns, blocks or all parameters at once, whatever their shapes happen to be."""


@dataclass(frozen=True, slots=True)
class State:
    """One parameter's new state: the node, None for none; ``lossy`` says what was left behind and why."""

    index: int | None = None
    lossy: str = ""


class Moments:
    """Makes the states of one optimizer's parameters. A state is handed on once; whoever comes next gets a copy."""

    def __init__(self, shop: Workshop, optimizer: Optimizer, states: dict[str, int], read: Read | None) -> None:
        self.shop = shop
        self.optimizer = optimizer
        self.states = states
        self.read = read
        self._given: set[str] = set()

    def of(self, member: Member) -> State:
        """The state of a member of a group. Raises ``MigrationError`` where merged counters disagree."""
        idents = [slot.ident for slot in member.slots]
        having = [ident for ident in idents if ident in self.states]
        if member.product is None or isinstance(member.product.expression, Leaf):
            return State(self._whole(having[0])) if having else State()
        if not having:
            return State()
        if len(having) < len(idents):
            return State(None, "only some of the merged parameters have state, so it is left behind")
        return self._through(member, idents)

    def _whole(self, ident: str) -> int:
        """A state as it is; a copy if it has been handed on."""
        index = self.states[ident]
        node = self.shop.editor.nodes[index]
        if ident not in self._given or not isinstance(node, Mapping):
            self._given.add(ident)
            return index
        values = tuple(self._copy(value, key_text(self.shop.editor.nodes[key])) for key, value in _items(node))
        return self.shop.editor.put(Mapping(node.kind, node.keys, values, None, node.extra))

    def _copy(self, index: int, name: str) -> int:
        return self.shop.copy(index, name) if self.shop.bare(index) is not None else index

    def _through(self, member: Member, idents: Sequence[str]) -> State:
        """State that goes through the parameter's expression, item by item."""
        assert member.product is not None
        expression = for_moments(member.product.expression)
        words = ", ".join(operations(member.product.expression))
        if expression is None:
            return State(None, f"moments cannot follow through {words}, so the state starts anew")
        if isinstance(expression, Leaf):
            return State(self._whole(idents[0]))
        if self.optimizer.kind in MATRIXWISE:
            why = f"{self.optimizer.kind} makes its step of whole matrices, and {words} makes others of them"
            return State(None, f"{why}: the state starts anew")
        nodes = [self.shop.editor.nodes[self.states[ident]] for ident in idents]
        tables = [node for node in nodes if isinstance(node, Mapping)]
        listed = [[key_text(self.shop.editor.nodes[key]) for key in table.keys] for table in tables]
        if len(tables) < len(nodes) or any(set(keys) != set(listed[0]) for keys in listed):
            return State(None, "the merged parameters' states hold different things, so they are left behind")
        found: list[int] = []
        for name in listed[0]:
            if name in FACTORED:
                return State(None, f"'{printable(name)}' cannot follow through {words}, so the state starts anew")
            below = [table.values[keys.index(name)] for table, keys in zip(tables, listed, strict=True)]
            made = self._item(member, expression, name, below)
            if made is None:
                why = f"'{printable(name)}' has not the parameter's shape and cannot follow through {words}"
                return State(None, f"{why}, so the state starts anew")
            found.append(made)
        self._given.update(idents)
        first = tables[0]
        return State(self.shop.editor.put(Mapping(first.kind, first.keys, tuple(found), None, first.extra)))

    def _item(self, member: Member, expression: Expression, name: str, below: Sequence[int]) -> int | None:
        """One moment or counter of the new state; None where it is neither."""
        assert member.product is not None
        tensors = [self.shop.tensor(index) for index in below]
        shapes = [t.shape if (t := self.shop.tensor(leaf.index)) else None for leaf in member.product.sources]
        single = all(t is None or t.numel == 1 for t in tensors)
        if single and (
            name in SCALARS or all(t is None or t.shape != shape for t, shape in zip(tensors, shapes, strict=True))
        ):
            self._agree(member, name, below)
            slot = member.slots[0].ident
            return self._copy(below[0], name) if slot in self._given else below[0]
        if any(t is None or t.shape != shape for t, shape in zip(tensors, shapes, strict=True)):
            return None
        bound = {leaf.name or "": index for leaf, index in zip(member.product.sources, below, strict=True)}
        return self.shop.make(expression, bound, None, f"{self.optimizer.key}.state.{member.product.name}.{name}")

    def _agree(self, member: Member, name: str, below: Sequence[int]) -> None:
        """Raise ``MigrationError`` unless a counter of merged parameters is the same for all of them."""
        contents = {self._content(index) for index in below}
        if len(contents) > 1:
            assert member.product is not None
            shown = " and ".join(sorted(_spelled(kind, data) for kind, data in contents))
            raise MigrationError(
                f"{printable(self.optimizer.key)} – '{printable(member.product.name)}' is merged from parameters whose "
                f"'{printable(name)}' differs: {shown}; leave the optimizer out with --section weights"
            )

    def _content(self, index: int) -> tuple[str, object]:
        node = self.shop.editor.nodes[index]
        if isinstance(node, Value):
            return type(node.value).__name__, repr(node.value)
        tensor = self.shop.bare(index)
        if tensor is None or tensor.storage is None or self.read is None:
            return "node", self.shop.place(index)
        editor = self.shop.editor
        one = Input("", tensor, editor.storages[tensor.storage])
        return tensor.dtype.name, self.read(at_hand(one, editor.contents[tensor.storage]))


def _items(node: Mapping) -> list[tuple[int, int]]:
    return list(zip(node.keys, node.values, strict=True))


def _spelled(kind: str, data: object) -> str:
    code = {"float32": "<f", "float64": "<d", "int64": "<q", "int32": "<i"}.get(kind)
    if isinstance(data, bytes) and code is not None and len(data) == struct.calcsize(code):
        return f"{struct.unpack(code, data)[0]:g}"
    return data if isinstance(data, str) else kind


def zeros(form: Form) -> bytes:
    """The bytes of a tensor of zeros."""
    return bytes(Tensor(form.dtype, form.shape, (), 0, None).nbytes)
