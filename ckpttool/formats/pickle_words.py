"""What a pickle says twice it says once: bytes as they are written, memo slots, strings and names."""

from __future__ import annotations

from ckpttool.formats import pickle_spelling as spell
from ckpttool.model import Call, Global, Node

EXTENSION = "copyreg extension"
"""The module of names that a pickle gives by number."""


class Words:
    """The output of one pickle, in pieces, and the slots of its memo that have been written so far."""

    def __init__(self, protocol: int) -> None:
        self.out: list[bytes] = [b"\x80" + bytes([protocol])]
        self.slots = 0
        self.texts: dict[str, int] = {}
        self.names: dict[tuple[str, str], int] = {}
        self.builtins = "__builtin__" if protocol < 3 else "builtins"

    def put(self) -> int:
        """Memoize the top of the stack; its slot."""
        slot = self.slots
        self.out.append(spell.put(slot))
        self.slots = slot + 1
        return slot

    def say(self, *words: bytes) -> None:
        """Write operations as they are."""
        self.out += words

    def text(self, value: str) -> int:
        """Write a string, or where it stands already; its slot."""
        slot = self.texts.get(value)
        if slot is None:
            self.out.append(spell.text(value))
            slot = self.texts[value] = self.put()
        else:
            self.out.append(spell.get(slot))
        return slot

    def fresh(self, value: str) -> None:
        """Write a string that CPython would have as an object of its own: all but those of one character."""
        if len(value) == 1 and value < "\u0100":
            self.text(value)
        else:
            self.out.append(spell.text(value))
            self.put()

    def named(self, module: str, name: str) -> None:
        """Write a global, or where it stands already."""
        slot = self.names.get((module, name))
        if slot is not None:
            self.out.append(spell.get(slot))
        elif module == EXTENSION and name.isdecimal():
            self.out.append(spell.extension(int(name)))
        else:
            if _needs_stack(module, name):
                self.text(module)
                self.text(name)
                self.out.append(spell.STACK_GLOBAL)
            else:
                self.out.append(spell.name(module, name))
            self.names[module, name] = self.put()

    def empty_call(self, module: str, name: str) -> None:
        """Write a call without arguments, not memoized."""
        self.named(module, name)
        self.out += (spell.EMPTY_TUPLE, spell.REDUCE)

    def reduced(self, length: int) -> None:
        """Write what ends a call whose ``length`` arguments, four or more behind a MARK, are on the stack."""
        self.out.append(spell.closing(length))
        self.put()
        self.out.append(spell.REDUCE)


def needs_protocol_4(node: Node) -> bool:
    """Whether a node has a name that two lines do not spell."""
    return isinstance(node, (Global, Call)) and _needs_stack(node.module, node.name)


def _needs_stack(module: str, name: str) -> bool:
    """A path of attributes, or a newline."""
    return "." in name or "\n" in name or "\n" in module
