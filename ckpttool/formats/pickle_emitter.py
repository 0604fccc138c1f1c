"""The pickle machine's twin: a tree written back as the pickle that ``torch.save`` would make of it.

Nothing that the tree names is imported. Containers and calls are spelled, memoized and cut into batches as
CPython's C pickler does it, storages and tensors as torch does. So for a file of ``torch.save`` the bytes are the
same, but for what the tree does not keep:

- Equal strings are one node, and are written once; CPython writes each *object* once. Keys of an optimizer's
  or EMA's dict that were built anew stand twice in a file of torch's, and once here. Storage keys and device
  tags with an index are the objects that torch makes, so they agree.
- Arguments that stand twice as one object (a tuple of sizes handed to two calls) are written twice.
- Backward hooks are always an empty OrderedDict; the source text that torch before 1.6 put beside classes is gone.
- Storages of a pickle that Python 2, another pickler or another protocol than 2 wrote are spelled anew.

Source: CPython 3.11 ``Modules/_pickle.c``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping as MappingABC
from functools import partial
from typing import Any

from ckpttool.errors import WriteFailed, printable
from ckpttool.formats import pickle_spelling as spell
from ckpttool.formats.numpy_arrays import FORM as NUMPY
from ckpttool.formats.numpy_spelling import respelled
from ckpttool.formats.pickle_batches import Step, appended, set_items
from ckpttool.formats.pickle_words import Words, needs_protocol_4
from ckpttool.formats.torch_spelling import RAW, is_dense
from ckpttool.formats.torch_words import TorchWords
from ckpttool.model import Blob, Call, Checkpoint, Global, Mapping, Node, Sequence, Span, Tensor, Value
from ckpttool.source import Source, open_source

ENTRIES = 64
"""How often a tuple may be begun before it is finished: once for each container on a way back to it."""

PARAMETER = "torch._utils._rebuild_parameter"


def emit(checkpoint: Checkpoint, *, legacy: bool = False, arrays: MappingABC[int, bytes] | None = None) -> bytes:
    """The tree as a pickle of protocol 2; deterministic, linear, without recursion.

    Storage keys and devices are those of ``checkpoint.storages``. ``legacy`` adds the sixth item that persistent
    ids had before torch 1.6. ``arrays`` are new contents of numpy arrays, by storage. Byte strings left in files
    are read from there. Names that protocol 2 cannot spell (of nested classes) make it protocol 4. Raises
    ``WriteFailed`` for a tree that no pickle can hold, and ``Unreadable``.
    """
    return Emitter(checkpoint, legacy=legacy, arrays=arrays).run()


class Emitter:
    """One run. ``mentioned`` are the storages that the pickle refers to, numbered by first mention.

    With ``renumber`` these numbers stand in place of the storages' keys.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        legacy: bool = False,
        arrays: MappingABC[int, bytes] | None = None,
        renumber: bool = False,
    ) -> None:
        self._checkpoint = checkpoint
        self._nodes: list[Node] = list(checkpoint.nodes)
        self._arrays = arrays or {}
        self._words = Words(4 if any(map(needs_protocol_4, checkpoint.nodes)) else 2)
        self._torch = TorchWords(checkpoint, self._words, legacy=legacy, renumber=renumber)
        self._stack: list[Step] = []
        self._memo: dict[int, int] = {}
        self._entries: dict[int, int] = {}
        self._sources: dict[str, Source] = {}
        said = {(use.module, use.name) for use in checkpoint.globals}
        self._says_bytes = bool(said & {("builtins", "bytes"), ("__builtin__", "bytes")})
        self._handlers: dict[type, Callable[[int, Any], None]] = {
            Value: self._value, Blob: self._blob, Global: self._global, Mapping: self._mapping,
            Sequence: self._sequence, Call: self._call, Tensor: self._tensor,
        }  # fmt: skip

    @property
    def mentioned(self) -> dict[int, int]:
        """The storages, each with its number."""
        return self._torch.mentioned

    def run(self) -> bytes:
        """The pickle; to be called once."""
        if self._checkpoint.root is None:
            raise WriteFailed(self._checkpoint.source, "there is no tree to write")
        try:
            self._write(self._checkpoint.root)
        finally:
            for source in self._sources.values():
                source.close()
        self._words.say(spell.STOP)
        return b"".join(self._words.out)

    def _write(self, root: int) -> None:
        out, stack, memo, nodes, handlers = (self._words.out, self._stack, self._memo, self._nodes, self._handlers)
        stack.append(root)
        while stack:
            step = stack.pop()
            if isinstance(step, int):
                slot = memo.get(step)
                if slot is None:
                    node = nodes[step]
                    handlers[type(node)](step, node)
                else:
                    out.append(spell.get(slot))
            elif isinstance(step, bytes):
                out.append(step)
            else:
                step()

    def _then(self, *steps: Step) -> None:
        self._stack.extend(reversed(steps))

    def _memoize(self, *indices: int) -> None:
        slot = self._words.put()
        for index in indices:
            self._memo[index] = slot

    def _enter(self, index: int) -> None:
        """Count what is begun and not finished: a loop through such values alone has no end."""
        count = self._entries[index] = self._entries.get(index, 0) + 1
        if count > ENTRIES:
            raise self._failed(f"node {index} holds itself in a way that no pickle can build")

    def _failed(self, why: str) -> WriteFailed:
        return WriteFailed(self._checkpoint.source, why)

    # --- plain values ------------------------------------------------------------------------------------

    def _value(self, index: int, node: Value) -> None:
        value = node.value
        if node.call is not None:
            self._called(index, node.call)
        elif isinstance(value, str):
            self._memo[index] = self._words.text(value)
        elif value is None or isinstance(value, bool):
            self._words.say(spell.constant(value))
        elif isinstance(value, int):
            self._words.say(spell.integer(value))
        elif isinstance(value, float):
            self._words.say(spell.real(value))
        elif isinstance(value, complex):
            self._words.named(self._words.builtins, "complex")
            self._words.say(spell.real(value.real), spell.real(value.imag))
            self._words.reduced(2)
            self._memoize(index)
        else:
            self._bytes(index, value)

    def _bytes(self, index: int, data: bytes) -> None:
        """Protocol 2 has no bytes: they are the text with the same code points, encoded when it is loaded.

        CPython calls ``bytes`` for none at all, which ``torch.load`` refuses with ``weights_only``: so it is only
        said again where the source says it.
        """
        if data or not self._says_bytes:
            self._words.named("_codecs", "encode")
            self._words.fresh(data.decode("latin-1"))
            self._words.text("latin1")
            self._words.reduced(2)
        else:
            self._words.empty_call(self._words.builtins, "bytes")
        self._memoize(index)

    def _blob(self, index: int, node: Blob) -> None:
        self._bytes(index, self._read(node.span))

    def _read(self, span: Span) -> bytes:
        if span.source not in self._sources:
            self._sources[span.source] = open_source(span.source)
        data = self._sources[span.source].read(span.start, span.nbytes)
        if len(data) != span.nbytes:
            why = f"{len(data)} of {span.nbytes} bytes are left at byte {span.start}"
            raise WriteFailed(span.source, why)
        return data

    def _global(self, index: int, node: Global) -> None:
        self._words.named(node.module, node.name)

    # --- containers --------------------------------------------------------------------------------------

    def _sequence(self, index: int, node: Sequence) -> None:
        rest = _state(node.state)
        if node.kind == "tuple":
            self._tuple(index, node.items)
        elif node.kind == "list":
            self._words.say(spell.EMPTY_LIST)
            self._memoize(index)
            self._then(*appended(node.items, exact=True), *rest)
        elif node.kind == "deque":
            self._words.empty_call("collections", "deque")
            self._memoize(index)
            self._then(*appended(node.items, exact=False), *rest)
        elif node.kind in ("set", "frozenset"):
            self._enter(index)
            self._words.named(self._words.builtins, node.kind)
            self._words.say(spell.EMPTY_LIST)
            self._words.put()
            self._then(*appended(node.items, exact=True), partial(self._reduce_one, index, rest))
        else:
            raise self._failed(f"a pickle has no container of kind '{printable(node.kind)}'")

    def _tuple(self, index: int, items: tuple[int, ...]) -> None:
        if not items:
            self._words.say(spell.EMPTY_TUPLE)
            return
        self._enter(index)
        mark = (spell.MARK,) if len(items) > 3 else ()
        self._then(*mark, *items, partial(self._close_tuple, index, len(items)))

    def _close_tuple(self, index: int, length: int) -> None:
        slot = self._memo.get(index)
        if slot is not None:  # one of its own items has written it meanwhile
            self._words.say(spell.POP * length if length <= 3 else spell.POP_MARK, spell.get(slot))
            return
        self._words.say(spell.closing(length))
        self._memoize(index)

    def _reduce_one(self, index: int, rest: tuple[Step, ...]) -> None:
        """End a call with one argument, which stands on the stack."""
        self._words.reduced(1)
        self._built((index,), rest)

    def _mapping(self, index: int, node: Mapping) -> None:
        plain = node.kind in ("dict", "Counter")
        filled = set_items(node.keys, node.values, exact=plain)
        rest = _state(node.state)
        if node.kind == "dict":
            self._words.say(spell.EMPTY_DICT)
            self._memoize(index)
            self._then(*filled, *rest)
        elif node.kind == "OrderedDict":
            self._words.empty_call("collections", "OrderedDict")
            self._memoize(index)
            self._then(*filled, *rest)
        elif node.kind == "defaultdict":
            self._enter(index)
            self._words.named("collections", "defaultdict")
            self._then(*self._arguments(node.extra), spell.REDUCE, partial(self._built, (index,), (*filled, *rest)))
        elif node.kind == "Counter":
            self._enter(index)
            self._words.named("collections", "Counter")
            self._words.say(spell.EMPTY_DICT)
            self._words.put()
            self._then(*filled, partial(self._reduce_one, index, rest))
        else:
            raise self._failed(f"a pickle has no container of kind '{printable(node.kind)}'")

    # --- calls -------------------------------------------------------------------------------------------

    def _called(self, index: int, call: int) -> None:
        """Write the call that a tensor or a value stands for."""
        node = self._nodes[call]
        if not isinstance(node, Call):
            raise self._failed(f"node {call} is no call")
        self._call(index, node, call)

    def _call(self, index: int, node: Call, *aliases: int) -> None:
        """A call in the operation that the file had. ``aliases`` are nodes that stand for it."""
        self._enter(index)
        rest = (
            *appended(node.items, exact=False),
            *set_items(node.keys, node.values, exact=False),
            *_state(node.state),
        )
        self._then(*self._operation(node), partial(self._built, (index, *aliases), rest))

    def _operation(self, node: Call) -> tuple[Step, ...]:
        target = partial(self._words.named, node.module, node.name)
        if node.how == "REDUCE":
            return (target, *self._arguments(node.args), spell.REDUCE)
        if node.how == "NEWOBJ":
            return (target, *self._arguments(node.args), spell.NEWOBJ)
        if node.how == "NEWOBJ_EX":
            return (target, *self._arguments(node.args[:-1]), node.args[-1], spell.NEWOBJ_EX)
        if node.how == "OBJ":
            return (spell.MARK, target, *node.args, spell.OBJ)
        if node.how == "INST":
            return (spell.MARK, *node.args, spell.instance(node.module, node.name))
        if node.how == "PERSID":
            return (*node.args, spell.PERSID)
        raise self._failed(f"a pickle has no operation '{printable(node.how)}'")

    def _arguments(self, args: tuple[int, ...]) -> tuple[Step, ...]:
        if not args:
            return (spell.EMPTY_TUPLE,)
        mark = (spell.MARK,) if len(args) > 3 else ()
        return (*mark, *args, spell.closing(len(args)), self._words.put)

    def _built(self, indices: tuple[int, ...], rest: tuple[Step, ...]) -> None:
        slot = self._memo.get(indices[0])
        if slot is not None:  # one of its own arguments has written it meanwhile
            self._words.say(spell.POP, spell.get(slot))
            return
        self._memoize(*indices)
        self._then(*rest)

    # --- tensors -----------------------------------------------------------------------------------------

    def _tensor(self, index: int, node: Tensor) -> None:
        if node.form == NUMPY:
            self._array(index, node)
        elif node.form == RAW and node.storage is not None:
            self._torch.storage(node)
        elif node.call is not None:
            self._called(index, node.call)
        elif is_dense(node):
            if node.form == PARAMETER:
                self._torch.parameter(node)
            else:
                self._torch.dense(node, requires_grad=node.requires_grad)
            self._memoize(index)
        else:
            form = printable(node.form)
            raise self._failed(f"a {printable(node.layout)} tensor lacks the call that rebuilds it, {form}")

    def _array(self, index: int, node: Tensor) -> None:
        """A numpy array as the file spells it, or anew where it has become another one."""
        assert node.storage is not None
        storage = self._checkpoint.storages[node.storage]
        self._called(index, respelled(self._nodes, node, storage, self._arrays, self._read))


def _state(state: int | None) -> tuple[Step, ...]:
    return () if state is None else (state, spell.BUILD)
