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
from typing import Any, TypeAlias

from ckpttool.errors import WriteFailed, printable
from ckpttool.formats import pickle_spelling as spell
from ckpttool.formats.numpy_arrays import FORM as NUMPY
from ckpttool.formats.numpy_spelling import respelled
from ckpttool.formats.torch_spelling import DENSE, raw_range, rebuild, spelled_storages
from ckpttool.model import Blob, Call, Checkpoint, Global, Mapping, Node, Sequence, Span, Tensor, Value
from ckpttool.source import Source, open_source

ENTRIES = 64
"""How often a tuple may be begun before it is finished: once for each container on a way back to it."""

EXTENSION = "copyreg extension"
"""The module of names that a pickle gives by number."""

PARAMETER = "torch._utils._rebuild_parameter"

Step: TypeAlias = "int | bytes | Callable[[], object]"
"""A node to write, bytes as they are, or what remains to be done once those before it stand."""


def emit(
    checkpoint: Checkpoint, *, legacy: bool = False, arrays: MappingABC[int, bytes] | None = None
) -> bytes:
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
        self._renumber = renumber
        self.mentioned: dict[int, int] = {}
        self._checkpoint = checkpoint
        self._nodes: list[Node] = list(checkpoint.nodes)
        self._legacy = legacy
        self._arrays = arrays or {}
        self._spelled = spelled_storages(checkpoint)
        self._protocol = 4 if any(map(_is_unlined, checkpoint.nodes)) else 2
        self._builtins = "__builtin__" if self._protocol == 2 else "builtins"
        self._out: list[bytes] = [b"\x80" + bytes([self._protocol])]
        self._stack: list[Step] = []
        self._memo: dict[int, int] = {}
        self._slots = 0
        self._texts: dict[str, int] = {}
        self._names: dict[tuple[str, str], int] = {}
        self._keys: dict[int, int] = {}
        self._entries: dict[int, int] = {}
        self._sources: dict[str, Source] = {}
        self._handlers: dict[type, Callable[[int, Any], None]] = {
            Value: self._value, Blob: self._blob, Global: self._name_node, Mapping: self._mapping,
            Sequence: self._sequence, Call: self._call, Tensor: self._tensor,
        }  # fmt: skip

    def run(self) -> bytes:
        """The pickle; to be called once."""
        if self._checkpoint.root is None:
            raise WriteFailed(self._checkpoint.source, "there is no tree to write")
        try:
            self._write(self._checkpoint.root)
        finally:
            for source in self._sources.values():
                source.close()
        self._out.append(spell.STOP)
        return b"".join(self._out)

    def _write(self, root: int) -> None:
        out, stack, memo, nodes, handlers = self._out, self._stack, self._memo, self._nodes, self._handlers
        stack.append(root)
        while stack:
            step = stack.pop()
            if type(step) is int:
                slot = memo.get(step)
                if slot is None:
                    node = nodes[step]
                    handlers[type(node)](step, node)
                else:
                    out.append(spell.get(slot))
            elif type(step) is bytes:
                out.append(step)
            else:
                step()  # type: ignore[operator]

    # --- the memo --------------------------------------------------------------------------------------

    def _put(self) -> int:
        """Memoize the top of the stack, for no node in particular."""
        slot = self._slots
        self._out.append(spell.put(slot))
        self._slots = slot + 1
        return slot

    def _memoize(self, *indices: int) -> None:
        slot = self._put()
        for index in indices:
            self._memo[index] = slot

    def _then(self, *steps: Step) -> None:
        self._stack.extend(reversed(steps))

    def _text(self, value: str) -> int:
        """A string, or where it stands already; its slot."""
        slot = self._texts.get(value)
        if slot is None:
            self._out.append(spell.text(value))
            slot = self._texts[value] = self._put()
        else:
            self._out.append(spell.get(slot))
        return slot

    def _fresh(self, value: str) -> None:
        """A string that CPython would have as an object of its own: all but those of one character."""
        if len(value) == 1 and value < "\u0100":
            self._text(value)
        else:
            self._out.append(spell.text(value))
            self._put()

    def _named(self, module: str, name: str) -> None:
        slot = self._names.get((module, name))
        if slot is not None:
            self._out.append(spell.get(slot))
        elif module == EXTENSION and name.isdecimal():
            self._out.append(spell.extension(int(name)))
        else:
            if _needs_stack(module, name):
                self._text(module)
                self._text(name)
                self._out.append(b"\x93")
            else:
                self._out.append(spell.name(module, name))
            self._names[module, name] = self._put()

    def _enter(self, index: int) -> None:
        """Count what is begun and not finished: a loop through such values alone has no end."""
        count = self._entries[index] = self._entries.get(index, 0) + 1
        if count > ENTRIES:
            why = f"node {index} holds itself in a way that no pickle can build"
            raise WriteFailed(self._checkpoint.source, why)

    # --- plain values ----------------------------------------------------------------------------------

    def _value(self, index: int, node: Value) -> None:
        value = node.value
        if node.call is not None:
            self._call(index, self._nodes[node.call], node.call)  # type: ignore[arg-type]
        elif isinstance(value, str):
            self._memo[index] = self._text(value)
        elif value is None or isinstance(value, bool):
            self._out.append(spell.constant(value))
        elif isinstance(value, int):
            self._out.append(spell.integer(value))
        elif isinstance(value, float):
            self._out.append(spell.real(value))
        elif isinstance(value, complex):
            self._named(self._builtins, "complex")
            self._out += [spell.real(value.real), spell.real(value.imag), spell.closing(2)]
            self._put()
            self._out.append(spell.REDUCE)
            self._memoize(index)
        else:
            self._bytes(index, value)

    def _bytes(self, index: int, data: bytes) -> None:
        """Protocol 2 has no bytes: they are the text with the same code points, encoded when it is loaded."""
        if data:
            self._named("_codecs", "encode")
            self._fresh(data.decode("latin-1"))
            self._text("latin1")
            self._out.append(spell.closing(2))
            self._put()
        else:
            self._named(self._builtins, "bytes")
            self._out.append(spell.EMPTY_TUPLE)
        self._out.append(spell.REDUCE)
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

    def _name_node(self, index: int, node: Global) -> None:
        self._named(node.module, node.name)

    # --- containers ------------------------------------------------------------------------------------

    def _sequence(self, index: int, node: Sequence) -> None:
        rest = self._state(node.state)
        if node.kind == "tuple":
            self._tuple(index, node.items)
        elif node.kind == "list":
            self._out.append(spell.EMPTY_LIST)
            self._memoize(index)
            self._then(*_appended(node.items, exact=True), *rest)
        elif node.kind == "deque":
            self._named("collections", "deque")
            self._out += [spell.EMPTY_TUPLE, spell.REDUCE]
            self._memoize(index)
            self._then(*_appended(node.items, exact=False), *rest)
        elif node.kind in ("set", "frozenset"):
            self._enter(index)
            self._named(self._builtins, node.kind)
            self._out.append(spell.EMPTY_LIST)
            self._put()
            self._then(*_appended(node.items, exact=True), *self._single(index, rest))
        else:
            raise WriteFailed(self._checkpoint.source, f"a pickle has no container of kind '{node.kind}'")

    def _tuple(self, index: int, items: tuple[int, ...]) -> None:
        if not items:
            self._out.append(spell.EMPTY_TUPLE)
            return
        self._enter(index)
        mark = (spell.MARK,) if len(items) > 3 else ()
        self._then(*mark, *items, partial(self._close_tuple, index, len(items)))

    def _close_tuple(self, index: int, length: int) -> None:
        slot = self._memo.get(index)
        if slot is not None:  # one of its own items has written it meanwhile
            self._out.append((spell.POP * length if length <= 3 else spell.POP_MARK) + spell.get(slot))
            return
        self._out.append(spell.closing(length))
        self._memoize(index)

    def _single(self, index: int, rest: tuple[Step, ...]) -> tuple[Step, ...]:
        """The end of a call with one argument, which stands on the stack."""
        return (spell.closing(1), self._put, spell.REDUCE, partial(self._built, (index,), rest))

    def _mapping(self, index: int, node: Mapping) -> None:
        rest = self._state(node.state)
        if node.kind == "dict":
            self._out.append(spell.EMPTY_DICT)
            self._memoize(index)
            self._then(*_set(node.keys, node.values, exact=True), *rest)
        elif node.kind == "OrderedDict":
            self._named("collections", "OrderedDict")
            self._out += [spell.EMPTY_TUPLE, spell.REDUCE]
            self._memoize(index)
            self._then(*_set(node.keys, node.values, exact=False), *rest)
        elif node.kind == "defaultdict":
            self._named("collections", "defaultdict")
            self._enter(index)
            done = partial(self._built, (index,), (*_set(node.keys, node.values, exact=False), *rest))
            self._then(*self._arguments(node.extra), spell.REDUCE, done)
        elif node.kind == "Counter":
            self._named("collections", "Counter")
            self._enter(index)
            self._out.append(spell.EMPTY_DICT)
            self._put()
            self._then(*_set(node.keys, node.values, exact=True), *self._single(index, rest))
        else:
            raise WriteFailed(self._checkpoint.source, f"a pickle has no container of kind '{node.kind}'")

    def _state(self, state: int | None) -> tuple[Step, ...]:
        return () if state is None else (state, spell.BUILD)

    # --- calls -----------------------------------------------------------------------------------------

    def _call(self, index: int, node: Call, *aliases: int) -> None:
        """A call in the operation that the file had. ``aliases`` are nodes that stand for it."""
        self._enter(index)
        rest = (
            *_appended(node.items, exact=False),
            *_set(node.keys, node.values, exact=False),
            *self._state(node.state),
        )
        self._then(*self._operation(node), partial(self._built, (index, *aliases), rest))

    def _operation(self, node: Call) -> tuple[Step, ...]:
        target = partial(self._named, node.module, node.name)
        if node.how == "REDUCE":
            return (target, *self._arguments(node.args), spell.REDUCE)
        if node.how == "NEWOBJ":
            return (target, *self._arguments(node.args), spell.NEWOBJ)
        if node.how == "NEWOBJ_EX":
            return (target, *self._arguments(node.args[:-1]), node.args[-1], spell.NEWOBJ_EX)
        if node.how == "OBJ":
            return (spell.MARK, target, *node.args, spell.OBJ)
        if node.how == "INST":
            # The same two lines as GLOBAL, behind another opcode.
            return (spell.MARK, *node.args, b"i" + spell.name(node.module, node.name)[1:])
        if node.how == "PERSID":
            return (*node.args, spell.PERSID)
        raise WriteFailed(self._checkpoint.source, f"a pickle has no operation '{node.how}'")

    def _arguments(self, args: tuple[int, ...]) -> tuple[Step, ...]:
        if not args:
            return (spell.EMPTY_TUPLE,)
        mark = (spell.MARK,) if len(args) > 3 else ()
        return (*mark, *args, spell.closing(len(args)), self._put)

    def _built(self, indices: tuple[int, ...], rest: tuple[Step, ...]) -> None:
        slot = self._memo.get(indices[0])
        if slot is not None:
            self._out.append(spell.POP + spell.get(slot))
            return
        self._memoize(*indices)
        self._then(*rest)

    # --- tensors ---------------------------------------------------------------------------------------

    def _tensor(self, index: int, node: Tensor) -> None:
        if node.form == NUMPY:
            self._array(index, node)
        elif node.form == "storage" and node.storage is not None:
            self._persistent(node.storage, raw_range(node, self._checkpoint.storages[node.storage]))
        elif node.call is not None:
            self._call(index, self._nodes[node.call], node.call)  # type: ignore[arg-type]
        elif node.storage is not None and node.form in DENSE:
            self._dense(node, node.requires_grad)
            self._memoize(index)
        elif node.storage is not None and node.form == PARAMETER:
            self._parameter(index, node)
        else:
            why = f"a tensor of layout '{node.layout}' lacks the call that rebuilds it by {printable(node.form)}"
            raise WriteFailed(self._checkpoint.source, why)

    def _dense(self, node: Tensor, requires_grad: bool) -> None:
        assert node.storage is not None
        out, storage = self._out, self._spelled[node.storage]
        function = rebuild(node, storage).rpartition(".")[2]
        self._named("torch._utils", function)
        out.append(spell.MARK)
        self._persistent(node.storage)
        out.append(spell.integer(node.offset))
        for sizes in (node.shape, node.stride):
            out.append(spell.integers(sizes))
            if sizes:
                self._put()
        if function != "_rebuild_tensor":
            out.append(spell.constant(requires_grad))
            self._hooks()
        if storage.untyped:
            self._named("torch", node.dtype.name)
        out.append(spell.TUPLE)
        self._put()
        out.append(spell.REDUCE)

    def _hooks(self) -> None:
        self._named("collections", "OrderedDict")
        self._out += [spell.EMPTY_TUPLE, spell.REDUCE]
        self._put()

    def _parameter(self, index: int, node: Tensor) -> None:
        """A Parameter whose fields say everything."""
        self._named("torch._utils", "_rebuild_parameter")
        self._dense(node, requires_grad=False)
        self._put()
        self._out.append(spell.constant(node.requires_grad))
        self._hooks()
        self._out.append(spell.closing(3))
        self._put()
        self._out.append(spell.REDUCE)
        self._memoize(index)

    def _persistent(self, index: int, view: tuple[int, int] | None = None) -> None:
        """A storage's persistent id. torch makes its key once, and once for each mention before 1.6."""
        storage, spelled = self._checkpoint.storages[index], self._spelled[index]
        self.mentioned.setdefault(index, len(self.mentioned))
        self._out.append(spell.MARK)
        self._text("storage")
        self._named(spelled.module, spelled.cls)
        key = self._key(index)
        if ":" in storage.device:
            self._fresh(storage.device)
        else:
            self._text(storage.device)
        self._out.append(spell.integer(spelled.numel))
        if self._legacy:
            self._view(key, view)
        elif view is not None:
            why = f"storage '{printable(storage.key)}' stands in the tree in part, which is for torch before 1.6"
            raise WriteFailed(self._checkpoint.source, why)
        self._out.append(spell.TUPLE)
        self._put()
        self._out.append(spell.PERSID)

    def _key(self, index: int) -> str:
        """A storage's key, written."""
        key = str(self.mentioned[index]) if self._renumber else self._checkpoint.storages[index].key
        if index in self._keys and not self._legacy:
            self._out.append(spell.get(self._keys[index]))
        else:
            self._out.append(spell.text(key))
            self._keys[index] = self._put()
        return key

    def _view(self, key: str, view: tuple[int, int] | None) -> None:
        """``(key, offset, size)`` of a part of a storage, in elements."""
        if view is None:
            self._out.append(spell.NONE)
            return
        self._text(f"{key} [{view[0]}:{view[0] + view[1]}]")
        self._out += [spell.integer(view[0]), spell.integer(view[1]), spell.closing(3)]
        self._put()

    def _array(self, index: int, node: Tensor) -> None:
        """A numpy array as the file spells it, or anew where it has become another one."""
        assert node.storage is not None
        call = respelled(self._nodes, node, self._checkpoint.storages[node.storage], self._arrays, self._read)
        self._call(index, self._nodes[call], call)  # type: ignore[arg-type]


# --- batches ---------------------------------------------------------------------------------------------


def _appended(items: tuple[int, ...], *, exact: bool) -> list[Step]:
    """Items appended; ``exact`` for a list's own, of which a last single one is written in a batch too."""
    steps: list[Step] = []
    for start in range(0, len(items), spell.BATCH):
        batch = items[start : start + spell.BATCH]
        if len(batch) == 1 and not (exact and start):
            steps += [batch[0], spell.APPEND]
        else:
            steps += [spell.MARK, *batch, spell.APPENDS]
    return steps


def _set(keys: tuple[int, ...], values: tuple[int, ...], *, exact: bool) -> list[Step]:
    """Items set; ``exact`` for a dict's own, which end with an empty batch where the last one was full."""
    steps: list[Step] = []
    count = len(keys)
    for start in range(0, count, spell.BATCH):
        stop = min(start + spell.BATCH, count)
        pairs = [i for pair in zip(keys[start:stop], values[start:stop], strict=True) for i in pair]
        if len(pairs) == 2 and not (exact and start):
            steps += [*pairs, spell.SETITEM]
        else:
            steps += [spell.MARK, *pairs, spell.SETITEMS]
    if exact and count and count % spell.BATCH == 0:
        steps += [spell.MARK, spell.SETITEMS]
    return steps


# --- names -----------------------------------------------------------------------------------------------


def _is_unlined(node: Node) -> bool:
    return isinstance(node, (Global, Call)) and _needs_stack(node.module, node.name)


def _needs_stack(module: str, name: str) -> bool:
    """Whether two lines do not spell a name: a path of attributes, or a newline in it."""
    return "." in name or "\n" in name or "\n" in module
