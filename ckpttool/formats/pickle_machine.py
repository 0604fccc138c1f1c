"""The pickle machine: it interprets an explicit list of opcodes and can neither import nor call.

What a pickle asks for becomes data (``formats.stack``). The machine is total: it ends within its limits for
any bytes, reports where and why it stopped, and keeps what it had. It does not subclass ``pickle.Unpickler``,
whose C code reserves memory from numbers in the file before any limit of ours could act.

Source: CPython ``Lib/pickle.py`` and ``Lib/pickletools.py`` (protocols 0 to 5).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ckpttool.formats.stack import BytesAt, CallOf, DictOf, ListOf, Named
from ckpttool.limits import DEFAULT, Limits

Reducer = Callable[[tuple[Any, ...]], Any]
"""Turns a known call's arguments into a value; returns ``NOT_MINE`` where they do not fit its schema."""

NOT_MINE: Any = object()

TEXT_BYTES = 64 << 20
"""Bytes of one value that protocol 0 spells as a line of text: arrays too, one character for each byte."""

INLINE_BYTES = 1024
"""Byte strings above this length are left in the file."""

FEW = 16
"""Arguments that no call is charged for."""

COPIES = 4
"""How often a file may be copied into the arguments of its calls; writers need each item once."""

MEMO_SLACK = 65_536
"""Memo slots that may be skipped: writers number them in order."""

_u16 = struct.Struct("<H").unpack_from
_i32 = struct.Struct("<i").unpack_from
_u32 = struct.Struct("<I").unpack_from
_u64 = struct.Struct("<Q").unpack_from
_f64 = struct.Struct(">d").unpack_from


@dataclass(frozen=True, slots=True)
class Problem:
    """Something a pickle should not do: a rule's name, the byte offset in the buffer and the reason."""

    rule: str
    offset: int
    message: str


class _Stop(Exception):
    """The STOP opcode."""


class _Bad(Exception):
    """The stream cannot be followed further."""

    def __init__(self, message: str, rule: str = "pickle-malformed") -> None:
        super().__init__(message)
        self.rule = rule


class _Short(_Bad):
    """The data end where the stream goes on."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run produced. ``root`` is None unless ``complete``; ``end`` is just past the last opcode.

    ``cut`` says that the run stopped because the data ended before the stream did.
    """

    root: Any
    complete: bool
    end: int
    protocol: int
    names: dict[tuple[str, str], Named]
    problems: list[Problem]
    foreign_opcodes: dict[str, int]
    cut: bool = False


class Machine:
    """One run over one pickle in ``data``, from ``start``.

    ``reducers`` maps a global to what its call means; ``persistent`` turns a persistent id into a value.
    Cost: about 0.3 µs an opcode. Raises nothing for bad input.
    """

    def __init__(
        self,
        data: bytes | memoryview,
        start: int = 0,
        *,
        reducers: dict[tuple[str, str], Reducer] | None = None,
        persistent: Callable[[Any], Any] | None = None,
        limits: Limits = DEFAULT,
        names: dict[tuple[str, str], Named] | None = None,
    ) -> None:
        self.data = data
        self.pos = start
        self.limits = limits
        self.reducers = reducers or {}
        self.persistent = persistent
        self.names: dict[tuple[str, str], Named] = {} if names is None else names
        self.problems: list[Problem] = []
        self.foreign: dict[str, int] = {}
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.protocol = 0
        self.in_frame = False
        self.copied = 0
        self.cut = False

    # --- running ---------------------------------------------------------------------------------------

    def run(self) -> Outcome:
        """Interpret until STOP, the end of the data, an impossible opcode or a limit."""
        try:
            self._loop()
        except _Stop:
            return self._outcome(self._result())
        except _Bad as error:
            self.cut = isinstance(error, _Short)
            self._report(error.rule, str(error))
        except KeyError as error:
            self._report("pickle-malformed", f"memo slot {error} is read and was never written")
        except struct.error:
            self._ends_early()
        except IndexError:
            if self.pos >= len(self.data):
                self._ends_early()
            else:
                self._report("pickle-malformed", "an opcode finds too few values on the stack")
        except (UnicodeDecodeError, ValueError, OverflowError) as error:
            self._report("pickle-malformed", f"operand cannot be decoded: {error}"[:200])
        return self._outcome(NOT_MINE)

    def _loop(self) -> None:
        data, handlers = self.data, _HANDLERS
        for _ in range(self.limits.operations):
            at = self.pos
            self.pos = at + 1
            handlers[data[at]](self)
        raise _Bad(f"more than {self.limits.operations} operations", "over-limit")

    def _result(self) -> Any:
        if not self.stack:
            self._report("pickle-malformed", "STOP on an empty stack")
            return NOT_MINE
        if len(self.stack) > 1 or self.marks:
            left = len(self.stack) - 1 + len(self.marks)
            self._report("pickle-odd", f"{left} values are left on the stack at STOP")
        return self.stack[-1]

    def _outcome(self, root: Any) -> Outcome:
        complete = root is not NOT_MINE
        end = min(self.pos, len(self.data))
        kept = root if complete else None
        return Outcome(kept, complete, end, self.protocol, self.names, self.problems, self.foreign, self.cut)

    def _ends_early(self) -> None:
        self.cut = True
        self._report("pickle-malformed", f"the pickle ends early, at byte {len(self.data)}, without STOP")

    def _report(self, rule: str, message: str) -> None:
        if len(self.problems) < 100:
            self.problems.append(Problem(rule, self.pos, message))

    def _foreign(self, opcode: str) -> None:
        self.foreign.setdefault(opcode, self.pos - 1)

    # --- operands --------------------------------------------------------------------------------------

    def _take(self, nbytes: int) -> bytes | memoryview:
        start = self.pos
        stop = start + nbytes
        if nbytes < 0:
            raise _Bad(f"an operand of {nbytes} bytes")
        if stop > len(self.data):
            raise _Short(f"an operand of {nbytes} bytes, and {len(self.data) - start} are left")
        self.pos = stop
        return self.data[start:stop]

    def _line(self) -> str:
        return self._text(self.limits.line_bytes).decode("utf-8", "surrogateescape")

    def _text(self, most: int) -> bytes:
        """The bytes up to the next newline, of which protocol 0 makes a value's text."""
        window = 4096
        while True:
            text = bytes(self.data[self.pos : self.pos + min(window, most)])
            length = text.find(b"\n")
            if length >= 0:
                self.pos += length + 1
                return text[:length]
            if len(text) < min(window, most):
                raise _Short(f"a text operand without a newline within {len(text)} bytes")
            if window >= most:
                raise _Bad(f"a text operand without a newline within {len(text)} bytes")
            window *= 2

    def _byte(self) -> int:
        value = self.data[self.pos]
        self.pos += 1
        return value

    def _uint4(self) -> int:
        value: int = _u32(self.data, self.pos)[0]
        self.pos += 4
        return value

    def _uint8(self) -> int:
        value: int = _u64(self.data, self.pos)[0]
        self.pos += 8
        return value

    def _pop_mark(self) -> list[Any]:
        if not self.marks:
            raise _Bad("an opcode needs a mark, and there is none")
        items = self.stack
        self.stack = self.marks.pop()
        return items

    # --- globals and calls -----------------------------------------------------------------------------

    def _named(self, module: Any, name: Any, at: int) -> Named:
        if type(module) is not str or type(name) is not str:
            raise _Bad("a global whose module or name is not a string", "pickle-type-confusion")
        found = self.names.get((module, name))
        if found is None:
            found = self.names[module, name] = Named(module, name, at)
        found.mentions += 1
        return found

    def _call(self, how: str, target: Any, args: Any) -> Any:
        if type(target) is not Named:
            raise _Bad(f"{how} of something that is not a global", "pickle-type-confusion")
        target.calls += 1
        if type(args) is not tuple:
            raise _Bad(f"{how} with arguments that are not a tuple", "pickle-type-confusion")
        self._charge(args)
        reducer = self.reducers.get((target.module, target.name)) if how == "REDUCE" else None
        if reducer is not None:
            value = reducer(args)
            if value is not NOT_MINE:
                return value
        target.odd_calls += 1
        target.largest = max(target.largest, _largest(args))
        return CallOf(how, target, args)

    def _charge(self, args: tuple[Any, ...]) -> None:
        # A memoized container may be the argument of every call of the file, and each call copies it.
        first = args[0] if args else None
        inner = first.items if type(first) is ListOf else first.flat if type(first) is DictOf else ()
        if len(args) + len(inner) > FEW:
            self.copied += len(args) + len(inner)
            if self.copied > COPIES * len(self.data):
                raise _Bad(f"calls with {self.copied} arguments in {len(self.data)} bytes", "over-limit")

    def _persist(self, pid: Any) -> Any:
        value = NOT_MINE if self.persistent is None else self.persistent(pid)
        if value is NOT_MINE:
            return CallOf("PERSID", self._named("", "persistent_load", self.pos - 1), (pid,))
        return value


def _largest(args: tuple[Any, ...]) -> int:
    """The largest integer among the arguments, tuples and lists one level down included."""
    largest = 0
    for arg in args[:64]:
        inner = arg.items if type(arg) is ListOf else arg
        for value in inner[:64] if type(inner) in (tuple, list) else (inner,):
            if type(value) is int:
                largest = max(largest, abs(value))
    return largest


# --- the opcodes ---------------------------------------------------------------------------------------
# One function each. The first block is what torch's own writer uses; functions of the second block note
# that ``torch.load(weights_only=True)`` would refuse the opcode.

Handler = Callable[[Machine], None]


def _mark(m: Machine) -> None:
    m.marks.append(m.stack)
    m.stack = []


def _stop(m: Machine) -> None:
    raise _Stop


def _proto(m: Machine) -> None:
    m.protocol = m._byte()
    if m.protocol > 5:
        m._report("pickle-odd", f"protocol {m.protocol}, and 5 is the highest there is")
    elif m.protocol != 2:
        m._foreign(f"PROTO {m.protocol}")


def _binunicode(m: Machine) -> None:
    data, pos = m.data, m.pos
    stop = pos + 4 + _u32(data, pos)[0]
    if stop > len(data):
        raise _Short(f"a string of {stop - pos - 4} bytes, and {len(data) - pos - 4} are left")
    m.pos = stop
    m.stack.append(str(data[pos + 4 : stop], "utf-8", "surrogatepass"))


def _binput(m: Machine) -> None:
    m.memo[m.data[m.pos]] = m.stack[-1]
    m.pos += 1


def _long_binput(m: Machine) -> None:
    index = _u32(m.data, m.pos)[0]
    m.pos += 4
    memo = m.memo
    if index > len(memo) + MEMO_SLACK:
        m._report("pickle-odd", f"memo slot {index} after {len(memo)} slots")
    memo[index] = m.stack[-1]


def _binget(m: Machine) -> None:
    m.stack.append(m.memo[m.data[m.pos]])
    m.pos += 1


def _long_binget(m: Machine) -> None:
    m.stack.append(m.memo[_u32(m.data, m.pos)[0]])
    m.pos += 4


def _binint(m: Machine) -> None:
    m.stack.append(_i32(m.data, m.pos)[0])
    m.pos += 4


def _binint1(m: Machine) -> None:
    m.stack.append(m.data[m.pos])
    m.pos += 1


def _binint2(m: Machine) -> None:
    m.stack.append(_u16(m.data, m.pos)[0])
    m.pos += 2


def _binfloat(m: Machine) -> None:
    m.stack.append(_f64(m.data, m.pos)[0])
    m.pos += 8


def _long1(m: Machine) -> None:
    m.stack.append(_long(m, m._byte(), torch_limit=15))


def _long(m: Machine, nbytes: int, torch_limit: int) -> int:
    if nbytes > m.limits.long_bytes:
        raise _Bad(f"an integer of {nbytes} bytes", "over-limit")
    if nbytes > torch_limit:
        m._report("pickle-odd", f"an integer of {nbytes} bytes")
    return int.from_bytes(m._take(nbytes), "little", signed=True)


def _constant(value: Any) -> Handler:
    def push(m: Machine) -> None:
        m.stack.append(value)

    return push


def _empty_list(m: Machine) -> None:
    m.stack.append(ListOf("list", []))


def _empty_dict(m: Machine) -> None:
    m.stack.append(DictOf("dict"))


def _tuple(m: Machine) -> None:
    items = tuple(m._pop_mark())
    m.stack.append(items)


def _tuple1(m: Machine) -> None:
    m.stack[-1] = (m.stack[-1],)


def _tuple2(m: Machine) -> None:
    stack = m.stack
    last = stack.pop()
    stack[-1] = (stack[-1], last)


def _tuple3(m: Machine) -> None:
    stack = m.stack
    last = stack.pop()
    middle = stack.pop()
    stack[-1] = (stack[-1], middle, last)


def _global(m: Machine) -> None:
    at = m.pos - 1
    module = m._line()
    m.stack.append(m._named(module, m._line(), at))


def _reduce(m: Machine) -> None:
    stack = m.stack
    args = stack.pop()
    stack[-1] = m._call("REDUCE", stack[-1], args)


def _newobj(m: Machine) -> None:
    args = m.stack.pop()
    m.stack[-1] = m._call("NEWOBJ", m.stack[-1], args)


def _binpersid(m: Machine) -> None:
    m.stack[-1] = m._persist(m.stack[-1])


def _build(m: Machine) -> None:
    state = m.stack.pop()
    target = m.stack[-1]
    if not isinstance(target, (DictOf, ListOf, CallOf)):
        m._report("pickle-type-confusion", "BUILD on a value that has no state")
        return
    if target.state is not None:
        m._report("pickle-odd", "BUILD twice on one object")
    if isinstance(target, DictOf) and not _harmless_state(state):
        m._report("build-hazard", f"BUILD replaces attributes of a {target.kind}")
    target.state = state


def _harmless_state(state: Any) -> bool:
    # What torch writes on an OrderedDict is its ``_metadata``; a data name of the user's own is fine too.
    # A dunder or the name of a method would change how the container behaves.
    if not isinstance(state, DictOf):
        return False
    return all(type(k) is str and not k.startswith("__") and k not in _DICT_NAMES for k in state.flat[::2])


_DICT_NAMES = frozenset(dir(dict)) | {"move_to_end", "popitem"}


def _setitem(m: Machine) -> None:
    value = m.stack.pop()
    key = m.stack.pop()
    _flat_of(m, m.stack[-1]).extend((key, value))


def _setitems(m: Machine) -> None:
    pairs = m._pop_mark()
    if len(pairs) % 2:
        raise _Bad("SETITEMS with a key that has no value")
    _flat_of(m, m.stack[-1]).extend(pairs)


def _flat_of(m: Machine, target: Any) -> list[Any]:
    if isinstance(target, DictOf) or _is_container_object(target):
        flat: list[Any] = target.flat
        return flat
    raise _Bad("SETITEM on something that is not a mapping", "pickle-type-confusion")


def _is_container_object(target: Any) -> bool:
    """Whether the result of a call may be a dict or list of a user's own; what torch or numpy builds is neither."""
    return isinstance(target, CallOf) and target.target.module.partition(".")[0] not in _NO_CONTAINERS


_NO_CONTAINERS = frozenset({"torch", "numpy", "_codecs"})


def _append(m: Machine) -> None:
    value = m.stack.pop()
    _items_of(m, m.stack[-1]).append(value)


def _appends(m: Machine) -> None:
    values = m._pop_mark()
    _items_of(m, m.stack[-1]).extend(values)


def _items_of(m: Machine, target: Any) -> list[Any]:
    if isinstance(target, ListOf) or _is_container_object(target):
        items: list[Any] = target.items
        return items
    raise _Bad("APPEND on something that is not a list", "pickle-type-confusion")


# --- opcodes that torch's weights_only loader refuses ----------------------------------------------------


def _frame(m: Machine) -> None:
    nbytes = m._uint8()
    if nbytes > len(m.data) - m.pos:
        raise _Short(f"a frame of {nbytes} bytes, and {len(m.data) - m.pos} are left")
    if m.in_frame:
        raise _Bad("a frame inside a frame")
    m.in_frame = True
    _run_frame(m, m.pos + nbytes)
    m.in_frame = False


def _run_frame(m: Machine, end: int) -> None:
    """Interpret a frame's operations: one that crosses its end is read differently by load and loads."""
    data, limit = m.data, m.limits.operations
    while m.pos < end:
        at = m.pos
        m.pos = at + 1
        _HANDLERS[data[at]](m)
        if m.pos > end:
            m._report("pickle-malformed", f"an operand crosses the end of its frame at byte {end}")
        limit -= 1
        if limit < 0:
            raise _Bad(f"more than {m.limits.operations} operations", "over-limit")


def _memoize(m: Machine) -> None:
    m.memo[len(m.memo)] = m.stack[-1]


def _stack_global(m: Machine) -> None:
    name = m.stack.pop()
    module = m.stack.pop()
    m.stack.append(m._named(module, name, m.pos - 1))


def _inst(m: Machine) -> None:
    m._foreign("INST")
    at = m.pos - 1
    module = m._line()
    target = m._named(module, m._line(), at)
    args = tuple(m._pop_mark())
    m.stack.append(m._call("INST", target, args))


def _obj(m: Machine) -> None:
    m._foreign("OBJ")
    items = m._pop_mark()
    if not items:
        raise _Bad("OBJ without a class")
    m.stack.append(m._call("OBJ", items[0], tuple(items[1:])))


def _newobj_ex(m: Machine) -> None:
    kwargs = m.stack.pop()
    args = m.stack.pop()
    if type(args) is not tuple:
        raise _Bad("NEWOBJ_EX with arguments that are not a tuple", "pickle-type-confusion")
    m.stack[-1] = m._call("NEWOBJ_EX", m.stack[-1], (*args, kwargs))


def _ext(width: int) -> Handler:
    def push(m: Machine) -> None:
        m._foreign("EXT")
        at = m.pos - 1
        code = int.from_bytes(m._take(width), "little")
        m.stack.append(m._named("copyreg extension", str(code), at))

    return push


def _persid(m: Machine) -> None:
    m._foreign("PERSID")
    m.stack.append(m._persist(m._line()))


def _pop(m: Machine) -> None:
    m._foreign("POP")
    if m.stack:
        m.stack.pop()
    else:
        m._pop_mark()


def _pop_mark_op(m: Machine) -> None:
    m._foreign("POP_MARK")
    m._pop_mark()


def _dup(m: Machine) -> None:
    m._foreign("DUP")
    m.stack.append(m.stack[-1])


def _text_int(m: Machine) -> None:
    line = m._line()
    if line in ("00", "01"):
        m.stack.append(line == "01")
    else:
        m.stack.append(_decimal(line))


def _text_long(m: Machine) -> None:
    m.stack.append(_decimal(m._line().removesuffix("L")))


def _decimal(text: str) -> int:
    if len(text) > 640:
        raise _Bad(f"an integer of {len(text)} digits", "over-limit")
    return int(text)


def _text_float(m: Machine) -> None:
    m.stack.append(float(m._line()))


def _text_string(m: Machine) -> None:
    line = m._text(TEXT_BYTES)
    if len(line) < 2 or line[0] != line[-1] or line[:1] not in (b"'", b'"'):
        raise _Bad("a STRING operand without quotes")
    m.stack.append(line[1:-1].decode("unicode_escape"))


def _text_unicode(m: Machine) -> None:
    m.stack.append(m._text(TEXT_BYTES).decode("raw_unicode_escape"))


def _short_binstring(m: Machine) -> None:
    m.stack.append(str(m._take(m._byte()), "latin-1"))


def _binstring(m: Machine) -> None:
    m.stack.append(str(m._take(_i32(m._take(4), 0)[0]), "latin-1"))


def _short_binunicode(m: Machine) -> None:
    m.stack.append(str(m._take(m._byte()), "utf-8", "surrogatepass"))


def _binunicode8(m: Machine) -> None:
    m.stack.append(str(m._take(m._uint8()), "utf-8", "surrogatepass"))


def _bytes_operand(m: Machine, nbytes: int) -> None:
    start = m.pos
    data = m._take(nbytes)
    m.stack.append(bytes(data) if nbytes <= INLINE_BYTES else BytesAt(start, start + nbytes))


def _short_binbytes(m: Machine) -> None:
    _bytes_operand(m, m._byte())


def _binbytes(m: Machine) -> None:
    _bytes_operand(m, m._uint4())


def _binbytes8(m: Machine) -> None:
    _bytes_operand(m, m._uint8())


def _long4(m: Machine) -> None:
    m._foreign("LONG4")
    m.stack.append(_long(m, _i32(m._take(4), 0)[0], torch_limit=15))


def _list(m: Machine) -> None:
    items = m._pop_mark()
    m.stack.append(ListOf("list", items))


def _dict(m: Machine) -> None:
    pairs = m._pop_mark()
    if len(pairs) % 2:
        raise _Bad("DICT with a key that has no value")
    value = DictOf("dict")
    value.flat = pairs
    m.stack.append(value)


def _empty_set(m: Machine) -> None:
    m.stack.append(ListOf("set", []))


def _frozenset(m: Machine) -> None:
    items = m._pop_mark()
    m.stack.append(ListOf("frozenset", items))


def _additems(m: Machine) -> None:
    _appends(m)


def _text_put(m: Machine) -> None:
    index = _decimal(m._line())
    if index > len(m.memo) + MEMO_SLACK:
        m._report("pickle-odd", f"memo slot {index} after {len(m.memo)} slots")
    m.memo[index] = m.stack[-1]


def _text_get(m: Machine) -> None:
    m.stack.append(m.memo[_decimal(m._line())])


def _next_buffer(m: Machine) -> None:
    raise _Bad("a buffer outside of the file (NEXT_BUFFER)", "pickle-type-confusion")


def _unknown(m: Machine) -> None:
    raise _Bad(f"byte 0x{m.data[m.pos - 1]:02x} is not an opcode")


_OPCODES: dict[str, Handler] = {
    "(": _mark, ".": _stop, "0": _pop, "1": _pop_mark_op, "2": _dup, "F": _text_float, "I": _text_int,
    "J": _binint, "K": _binint1, "L": _text_long, "M": _binint2, "N": _constant(None), "P": _persid,
    "Q": _binpersid, "R": _reduce, "S": _text_string, "T": _binstring, "U": _short_binstring,
    "V": _text_unicode, "X": _binunicode, "a": _append, "b": _build, "c": _global, "d": _dict,
    "}": _empty_dict, "e": _appends, "g": _text_get, "h": _binget, "i": _inst, "j": _long_binget, "l": _list,
    "]": _empty_list, "o": _obj, "p": _text_put, "q": _binput, "r": _long_binput, "s": _setitem, "t": _tuple,
    ")": _constant(()), "u": _setitems, "G": _binfloat, "\x80": _proto, "\x81": _newobj, "\x82": _ext(1),
    "\x83": _ext(2), "\x84": _ext(4), "\x85": _tuple1, "\x86": _tuple2, "\x87": _tuple3,
    "\x88": _constant(True), "\x89": _constant(False), "\x8a": _long1, "\x8b": _long4, "B": _binbytes,
    "C": _short_binbytes, "\x8c": _short_binunicode, "\x8d": _binunicode8, "\x8e": _binbytes8,
    "\x8f": _empty_set, "\x90": _additems, "\x91": _frozenset, "\x92": _newobj_ex, "\x93": _stack_global,
    "\x94": _memoize, "\x95": _frame, "\x96": _binbytes8, "\x97": _next_buffer, "\x98": _next_buffer,
}  # fmt: skip

_HANDLERS: tuple[Handler, ...] = tuple(_OPCODES.get(chr(code), _unknown) for code in range(256))
