"""The opcodes of the other protocols: most make ``torch.load(weights_only=True)`` refuse the file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ckpttool.formats.pickle_opcodes import Handler, appends, long_operand
from ckpttool.formats.pickle_terms import INLINE_BYTES, TEXT_BYTES, CutShort, Malformed, i32
from ckpttool.formats.stack import BytesAt, DictOf, ListOf

if TYPE_CHECKING:
    from ckpttool.formats.pickle_machine import Machine


def _frame(m: Machine) -> None:
    nbytes = m._uint8()
    if nbytes > len(m.data) - m.pos:
        raise CutShort(f"a frame of {nbytes} bytes, and {len(m.data) - m.pos} are left")
    if m.in_frame:
        raise Malformed("a frame inside a frame")
    m.in_frame = True
    m._framed(m.pos + nbytes)
    m.in_frame = False


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
        raise Malformed("OBJ without a class")
    m.stack.append(m._call("OBJ", items[0], tuple(items[1:])))


def _newobj_ex(m: Machine) -> None:
    kwargs = m.stack.pop()
    args = m.stack.pop()
    if type(args) is not tuple:
        raise Malformed("NEWOBJ_EX with arguments that are not a tuple", "pickle-type-confusion")
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
        raise Malformed(f"an integer of {len(text)} digits", "over-limit")
    return int(text)


def _text_float(m: Machine) -> None:
    m.stack.append(float(m._line()))


def _text_string(m: Machine) -> None:
    line = m._text(TEXT_BYTES)
    if len(line) < 2 or line[0] != line[-1] or line[:1] not in (b"'", b'"'):
        raise Malformed("a STRING operand without quotes")
    m.stack.append(line[1:-1].decode("unicode_escape"))


def _text_unicode(m: Machine) -> None:
    m.stack.append(m._text(TEXT_BYTES).decode("raw_unicode_escape"))


def _short_binstring(m: Machine) -> None:
    m.stack.append(str(m._take(m._byte()), "latin-1"))


def _binstring(m: Machine) -> None:
    m.stack.append(str(m._take(i32(m._take(4), 0)[0]), "latin-1"))


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
    m.stack.append(long_operand(m, i32(m._take(4), 0)[0], torch_limit=15))


def _list(m: Machine) -> None:
    items = m._pop_mark()
    m.stack.append(ListOf("list", items))


def _dict(m: Machine) -> None:
    pairs = m._pop_mark()
    if len(pairs) % 2:
        raise Malformed("DICT with a key that has no value")
    value = DictOf("dict")
    value.flat = pairs
    m.stack.append(value)


def _empty_set(m: Machine) -> None:
    m.stack.append(ListOf("set", []))


def _frozenset(m: Machine) -> None:
    items = m._pop_mark()
    m.stack.append(ListOf("frozenset", items))


def _additems(m: Machine) -> None:
    appends(m)


def _text_put(m: Machine) -> None:
    m.memo[_decimal(m._line())] = m.stack[-1]


def _text_get(m: Machine) -> None:
    m.stack.append(m.memo[_decimal(m._line())])


def _next_buffer(m: Machine) -> None:
    raise Malformed("a buffer outside of the file (NEXT_BUFFER)", "pickle-type-confusion")


def unknown(m: Machine) -> None:
    """A byte that is no opcode."""
    raise Malformed(f"byte 0x{m.data[m.pos - 1]:02x} is not an opcode")


OTHER: dict[str, Handler] = {
    "0": _pop,
    "1": _pop_mark_op,
    "2": _dup,
    "F": _text_float,
    "I": _text_int,
    "L": _text_long,
    "P": _persid,
    "S": _text_string,
    "T": _binstring,
    "U": _short_binstring,
    "V": _text_unicode,
    "d": _dict,
    "g": _text_get,
    "i": _inst,
    "l": _list,
    "o": _obj,
    "p": _text_put,
    "\x82": _ext(1),
    "\x83": _ext(2),
    "\x84": _ext(4),
    "\x8b": _long4,
    "B": _binbytes,
    "C": _short_binbytes,
    "\x8c": _short_binunicode,
    "\x8d": _binunicode8,
    "\x8e": _binbytes8,
    "\x8f": _empty_set,
    "\x90": _additems,
    "\x91": _frozenset,
    "\x92": _newobj_ex,
    "\x93": _stack_global,
    "\x94": _memoize,
    "\x95": _frame,
    "\x96": _binbytes8,
    "\x97": _next_buffer,
    "\x98": _next_buffer,
}
"""Protocols 0, 1, 3, 4 and 5, and what protocol 2 has beyond torch's needs."""
