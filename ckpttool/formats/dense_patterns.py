"""How ``torch.save`` spells a dense tensor, as regular expressions over opcodes, and what the operands in them mean."""

from __future__ import annotations

import re

_GET, _INT = rb"(h.|j.{4})", rb"(?:K.|M..|J.{4})"
_SIZE = rb"(\)|" + _INT + rb"\x85|" + _INT + rb"{2}\x86|" + _INT + rb"{3}\x87|\(" + _INT + rb"{4,64}t)"


def _arguments(put: bytes, view: bytes) -> bytes:
    """A tensor's arguments from behind their MARK to REDUCE.

    Every alternative begins with an opcode of its own, so there is one way to match and no searching.
    """
    key = rb"X([\x01-\x14])\0\0\0([0-9]{1,20})"
    storage = rb"\(" + _GET + _GET + key + put + _GET + rb"(" + _INT + rb")" + view + rb"t" + put + rb"Q"
    sizes = rb"(" + _INT + rb")" + _SIZE + put + _SIZE + put
    return storage + sizes + rb"([\x88\x89])" + _GET + rb"\)R" + put + rb"t" + put + rb"R"


_WIDE = rb"(r.{4})"

ONE = re.compile(_arguments(rb"(q.|r.{4}|)", rb"(N?)"), re.DOTALL)
"""The arguments of one tensor: 18 groups, six of which are memo slots that may be left out."""

NEXT = re.compile(_arguments(_WIDE, b"") + _WIDE + rb"X(.{4})([ -~]{0,250}?)" + _WIDE + _GET + rb"(?=\(\()", re.DOTALL)
"""The arguments of one tensor of a long state dict, then the next one's name up to its MARK: 21 groups.

The name is the shortest that fits, and it counts only if it is as long as its length says.
"""

PLAIN = 15
"""Operations of the arguments beside those of sizes, strides and memo slots, and the None of a view."""

_INTEGER = re.compile(_INT, re.DOTALL)


class Numbers(dict[bytes, int]):
    """What an operation's operand means; each spelling is decoded once."""

    def __missing__(self, spelled: bytes) -> int:
        number = int.from_bytes(spelled[1:], "little", signed=spelled[:1] == b"J")
        self[spelled] = number
        return number


class Sizes(dict[bytes, tuple[tuple[int, ...], int]]):
    """A tuple of integers and the number of operations that make it; each spelling is decoded once."""

    def __missing__(self, spelled: bytes) -> tuple[tuple[int, ...], int]:
        found = [int.from_bytes(one[1:], "little", signed=one[:1] == b"J") for one in _INTEGER.findall(spelled)]
        marked = spelled[:1] == b"("
        self[spelled] = made = tuple(found), len(found) + 1 + marked
        return made
