"""The words that the pickle machine and its opcodes share: bounds, operand readers, how a run ends."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from ckpttool.frozen import dataclass

NOT_MINE: Any = object()

Reducer = Callable[[tuple[Any, ...]], Any]
"""Turns a known call's arguments into a value; returns ``NOT_MINE`` where they do not fit its schema."""

Recogniser = Callable[[list[Any], "bytes | memoryview", int, dict[int, Any], int], "tuple[int, int] | None"]
"""Takes the stack at a MARK, the data and where they go on, the memo and the number of operations left.

Does what some of the operations after it do, and returns where they end and how many they are; or returns None, and
then nothing has happened.
"""

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

u16 = struct.Struct("<H").unpack_from
i32 = struct.Struct("<i").unpack_from
u32 = struct.Struct("<I").unpack_from
u64 = struct.Struct("<Q").unpack_from
f64 = struct.Struct(">d").unpack_from


def nothing_known(stack: list[Any], data: bytes | memoryview, at: int, memo: dict[int, Any], left: int) -> None:
    """The recogniser that leaves everything to the machine."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something a pickle should not do: a rule's name, the byte offset in the buffer and the reason."""

    rule: str
    offset: int
    message: str


class Stopped(Exception):
    """The STOP opcode."""


class Malformed(Exception):
    """The stream cannot be followed further."""

    def __init__(self, message: str, rule: str = "pickle-malformed") -> None:
        super().__init__(message)
        self.rule = rule


class CutShort(Malformed):
    """The data end where the stream goes on."""
