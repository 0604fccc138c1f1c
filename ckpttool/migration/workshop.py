"""Making the tensors of a migrated checkpoint: kept, copied or computed, with wrappers and ties as they were."""

from __future__ import annotations

import math
from collections.abc import Mapping as MappingABC
from dataclasses import replace
from typing import TypeAlias

from ckpttool.draft import Content, Copied, Held, Input, Made
from ckpttool.dtypes import BYTE, STORAGE_CLASSES, DType
from ckpttool.editing import Editor
from ckpttool.errors import printable
from ckpttool.expressions import Applied, Expression, Form, Leaf, OpError, form_of, leaves
from ckpttool.migration.errors import MigrationError
from ckpttool.migration.grounding import at_hand, grounded, is_grounded
from ckpttool.model import Call, Storage, Tensor

Signature: TypeAlias = "tuple[object, ...]"

PARAMETERS = ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state")
"""Calls around a tensor that carry no content of their own."""

_PLAIN = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3")
_V2, _V3 = _PLAIN[1:]
_FORMLESS = ("safetensors", "torch-tar")
"""How readers call the form of a tensor that no function rebuilds: plain ones too."""
_TYPED = {dtype for name, dtype in STORAGE_CLASSES.items() if "Untyped" not in name and dtype.kind != "quantized"}
"""Element types that torch has a storage class for; all others lie in untyped storages."""


class Workshop:
    """Puts tensors into an editor. What has been computed once is not computed again: so tied tensors stay tied."""

    def __init__(self, editor: Editor) -> None:
        self.editor = editor
        self.computed: set[int] = set()
        self._storages: dict[Signature, int] = {}
        self._nodes: dict[Signature, int] = {}

    def tensor(self, index: int) -> Tensor | None:
        """The tensor at a node; None for anything else."""
        node = self.editor.nodes[index]
        return node if isinstance(node, Tensor) else None

    def place(self, index: int) -> Signature:
        """What two nodes have in common that are one tensor: tied, or the same node."""
        tensor = self.tensor(index)
        if tensor is None or tensor.storage is None:
            return ("node", index)
        return (tensor.storage, tensor.offset, tensor.shape, tensor.stride, tensor.dtype)

    def make(self, expression: Expression, bound: MappingABC[str, int], like: int | None, what: str) -> int:
        """The node of a tensor that an expression leads to; ``like`` is a tensor whose device a new one shares.

        ``what`` names the result in errors. Raises ``MigrationError`` where the operation does not fit.
        """
        if isinstance(expression, Leaf):
            return bound[expression.name]
        names = leaves(expression)
        wrapped = bound[names[0]] if names else None
        kept = (self._signature(expression, bound), wrapped)
        if kept not in self._nodes:
            inputs = tuple(self._input(name, bound[name], what) for name in names)
            try:
                form = form_of(expression, {one.name: Form(one.tensor.dtype, one.tensor.shape) for one in inputs})
            except OpError as error:
                raise MigrationError(f"{printable(what)} – {error}") from error
            storage = self._storage(kept[0], self._made(expression, inputs, form), like)
            self._nodes[kept] = self._wrapped(self._plain(form, storage, inputs), wrapped)
            self.computed.add(self._nodes[kept])
        return self._nodes[kept]

    def content(self, index: int, name: str) -> Made:
        """What a tensor's bytes are, for whoever reads them. Raises ``MigrationError`` where it is no plain tensor."""
        one = self._input(name, index, name)
        return self._made(Leaf(name), (one,), Form(one.tensor.dtype, one.tensor.shape))

    def copy(self, index: int, what: str) -> int:
        """A node of equal content and form that shares nothing with this one; for plain values the node itself."""
        if self.tensor(index) is None:
            return index
        one = self._input(what, index, what)
        assert one.tensor.storage is not None
        content: Content = self.editor.contents[one.tensor.storage]
        whole = one.tensor.contiguous and one.tensor.offset == 0 and one.tensor.nbytes == one.storage.nbytes
        if not whole or not isinstance(content, (Copied, Held)):
            content = self.content(index, what)
        storage = self.editor.storage(one.storage, content)
        shape = one.tensor.shape
        inner = replace(one.tensor, storage=storage, offset=0, stride=row_major(shape))
        return self._wrapped(inner, index)

    def fresh(self, form: Form, data: bytes, like: int | None) -> int:
        """A new tensor whose bytes are at hand."""
        storage = self.editor.storage(self._template(form.dtype, like), Held(data))
        return self.editor.put(
            Tensor(form.dtype, form.shape, row_major(form.shape), 0, storage, form=_form(form.dtype))
        )

    def _signature(self, expression: Expression, bound: MappingABC[str, int]) -> Signature:
        if isinstance(expression, Leaf):
            return self.place(bound[expression.name])
        inputs = tuple(self._signature(part, bound) for part in expression.inputs)
        return (expression.op, expression.part, inputs)

    def _made(self, expression: Expression, inputs: tuple[Input, ...], form: Form) -> Made:
        """The tensor over what lies in files, also where its inputs are yet to be computed."""
        places = [one.tensor.storage for one in inputs]
        contents = [self.editor.contents[place] for place in places if place is not None]
        if is_grounded(inputs, contents):
            return Made(expression, inputs, form)
        return Made(*grounded(expression, inputs, contents), form)

    def _input(self, name: str, index: int, what: str) -> Input:
        tensor = self.bare(index)
        if (
            tensor is None
            or tensor.storage is None
            or tensor.layout != "strided"
            or tensor.form not in (*_PLAIN, *_FORMLESS)
        ):
            kind = "no tensor" if (shown := self.tensor(index)) is None else _kind(shown)
            raise MigrationError(
                f"{printable(what)} – its input {printable(name)} is {kind}, which can be renamed or dropped and not "
                "computed with"
            )
        one = Input(name, tensor, self.editor.storages[tensor.storage])
        content = self.editor.contents[tensor.storage]
        return at_hand(one, content) if isinstance(content, Copied) and content.inflates_to is not None else one

    def bare(self, index: int) -> Tensor | None:
        """The tensor inside a ``Parameter``; None for what has more around it than that."""
        tensor = self.tensor(index)
        for _ in range(8):
            if tensor is None or tensor.form not in PARAMETERS:
                break
            inner = dict(tensor.parts).get("data")
            tensor = None if inner is None else self.tensor(inner)
        return tensor if tensor is None or tensor.call is None else None

    def _storage(self, signature: Signature, made: Made, like: int | None) -> int:
        if signature not in self._storages or not made.inputs:
            template = self._template(made.form.dtype, like)
            if made.inputs:
                first = made.inputs[0]
                same = first.tensor.dtype == made.form.dtype
                template = replace(first.storage, dtype=first.storage.dtype if same else _home(made.form.dtype))
            self._storages[signature] = self.editor.storage(template, made)
        return self._storages[signature]

    def _template(self, dtype: DType, like: int | None) -> Storage:
        tensor = None if like is None else self.tensor(like)
        if tensor is not None and tensor.storage is not None:
            return replace(self.editor.storages[tensor.storage], dtype=_home(dtype))
        first = next(iter(self.editor.original.storages), None)
        swapped = first is not None and first.swapped
        return Storage("0", _home(dtype), 0, swapped=swapped)

    def _plain(self, form: Form, storage: int, inputs: tuple[Input, ...]) -> Tensor:
        same = [one.tensor for one in inputs[:1] if one.tensor.dtype == form.dtype]
        spelled = same[0].form if same else _form(form.dtype)
        grad = bool(inputs) and inputs[0].tensor.requires_grad
        return Tensor(form.dtype, form.shape, row_major(form.shape), 0, storage, grad, form=spelled)

    def _wrapped(self, tensor: Tensor, like: int | None) -> int:
        """The tensor in the wrappers of another one: a ``Parameter`` stays one."""
        outer = None if like is None else self.tensor(like)
        if outer is None or outer.form not in PARAMETERS or outer.call is None:
            return self.editor.put(tensor)
        inner = self._wrapped(tensor, dict(outer.parts).get("data"))
        call = self.editor.nodes[outer.call]
        assert isinstance(call, Call)
        made = self.editor.put(replace(call, args=(inner, *call.args[1:])))
        shown = replace(tensor, requires_grad=outer.requires_grad, form=outer.form, parts=(("data", inner),), call=made)
        return self.editor.put(shown)


def row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides of a contiguous tensor."""
    return tuple(math.prod(max(size, 1) for size in shape[i + 1 :]) for i in range(len(shape)))


def _home(dtype: DType) -> DType:
    return dtype if dtype in _TYPED else BYTE


def _form(dtype: DType) -> str:
    return _V2 if dtype in _TYPED else _V3


def _kind(tensor: Tensor) -> str:
    if tensor.layout != "strided":
        return f"a {tensor.layout.replace('_', ' ')} tensor"
    return "a tensor without content" if tensor.storage is None else f"built by {printable(tensor.form)}"


# --- expressions in words --------------------------------------------------------------------------------

MAKES_NEW = frozenset({"fill", "fill-like", "arange"})
"""Operations that do not read their inputs' content: what they make is a new tensor."""


def is_new(expression: Expression) -> bool:
    """Whether a tensor is made from nothing: no content of the checkpoint goes into it."""
    return isinstance(expression, Applied) and (
        expression.op.name in MAKES_NEW or all(is_new(part) for part in expression.inputs)
    )


def operations(expression: Expression) -> tuple[str, ...]:
    """The names of the operations in an expression, innermost first, each once."""
    if isinstance(expression, Leaf):
        return ()
    inner = [name for part in expression.inputs for name in operations(part)]
    return tuple(dict.fromkeys([*inner, expression.op.name]))
