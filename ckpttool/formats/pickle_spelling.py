"""How pickle spells what has no parts: numbers, strings, memo slots, small tuples of numbers.

Protocol 2, as CPython's C pickler chooses among its spellings. Source: CPython 3.11 ``Modules/_pickle.c``.
"""

from __future__ import annotations

import struct
from functools import lru_cache

MARK, STOP, NONE, TRUE, FALSE = b"(", b".", b"N", b"\x88", b"\x89"
EMPTY_TUPLE, EMPTY_LIST, EMPTY_DICT = b")", b"]", b"}"
TUPLE, REDUCE, NEWOBJ, NEWOBJ_EX, OBJ, BUILD = b"t", b"R", b"\x81", b"\x92", b"o", b"b"
APPEND, APPENDS, SETITEM, SETITEMS = b"a", b"e", b"s", b"u"
POP, POP_MARK, PERSID, STACK_GLOBAL = b"0", b"1", b"Q", b"\x93"

BATCH = 1000
"""Items that one APPENDS or SETITEMS takes."""

_U16, _I32, _U32, _F64 = (struct.Struct(code).pack for code in ("<H", "<i", "<I", ">d"))
_SHORT_TUPLES = {1: b"\x85", 2: b"\x86", 3: b"\x87"}
_SMALL = tuple(b"K" + bytes([value]) for value in range(256))
_SHORT_GETS = tuple(b"h" + bytes([slot]) for slot in range(256))
_SHORT_PUTS = tuple(b"q" + bytes([slot]) for slot in range(256))


def put(slot: int) -> bytes:
    """Write the top of the stack to a memo slot."""
    return _SHORT_PUTS[slot] if slot < 256 else b"r" + _U32(slot)


def get(slot: int) -> bytes:
    """Push what a memo slot holds."""
    return _SHORT_GETS[slot] if slot < 256 else b"j" + _U32(slot)


def integer(value: int) -> bytes:
    """An int of any size, in the shortest spelling."""
    if 0 <= value < 256:
        return _SMALL[value]
    if 0 <= value < 65_536:
        return b"M" + _U16(value)
    if -(1 << 31) <= value < 1 << 31:
        return b"J" + _I32(value)
    data = value.to_bytes((value.bit_length() >> 3) + 1, "little", signed=True)
    if value < 0 and len(data) > 1 and data[-1] == 0xFF and data[-2] & 0x80:
        data = data[:-1]
    return (b"\x8a" + bytes([len(data)]) if len(data) < 256 else b"\x8b" + _I32(len(data))) + data


def real(value: float) -> bytes:
    """A float, every bit of it: the payload of a NaN and the sign of a zero too."""
    return b"G" + _F64(value)


def text(value: str) -> bytes:
    """A string; lone surrogates as CPython writes them."""
    data = value.encode("utf-8", "surrogatepass")
    return b"X" + _U32(len(data)) + data


def constant(value: bool | None) -> bytes:
    """None, True or False."""
    return NONE if value is None else TRUE if value else FALSE


def name(module: str, attribute: str) -> bytes:
    """A global: two lines."""
    return b"c" + f"{module}\n{attribute}\n".encode("utf-8", "surrogateescape")


def instance(module: str, attribute: str) -> bytes:
    """A class by name, called with what stands behind the MARK (protocol 0)."""
    return b"i" + name(module, attribute)[1:]


def extension(code: int) -> bytes:
    """A global by its number in ``copyreg``'s registry."""
    if code < 256:
        return b"\x82" + bytes([code])
    return b"\x83" + _U16(code) if code < 65_536 else b"\x84" + _U32(code)


def closing(length: int) -> bytes:
    """What makes a tuple of the ``length`` values above it; from four on they stand behind a MARK."""
    return _SHORT_TUPLES.get(length, TUPLE)


@lru_cache(4096)
def integers(values: tuple[int, ...]) -> bytes:
    """A tuple of ints without the PUT that follows it, but for the empty tuple."""
    if not values:
        return EMPTY_TUPLE
    mark = MARK if len(values) > 3 else b""
    return mark + b"".join([integer(value) for value in values]) + closing(len(values))
