"""Objects of the standard library as text: paths, dates, numbers, identifiers. Nothing is constructed from a name."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence as SequenceABC
from datetime import timedelta
from pathlib import PurePosixPath, PureWindowsPath

from ckpttool.model import Call, Mapping, Node, Scalar, Sequence, Value

Nodes = SequenceABC[Node]

_POSIX = ("Path", "PosixPath", "PurePath", "PurePosixPath")
_WINDOWS = ("WindowsPath", "PureWindowsPath")


def text_of(nodes: Nodes, module: str, node: Call) -> str | None:
    """How an object reads, where it is one of those known here and has the arguments that pickle gives it.

    Dates and times come in ISO 8601, paths and numbers as ``str`` would say them.
    """
    reader = _READERS.get((module, node.name))
    if reader is None:
        return None
    try:
        return reader(nodes, node)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def plain(nodes: Nodes, index: int) -> Scalar:
    """The plain value of a node. Raises ``TypeError`` for any other node."""
    node = nodes[index]
    if not isinstance(node, Value):
        raise TypeError(type(node).__name__)
    return node.value


def _texts(nodes: Nodes, node: Call) -> list[str]:
    found = [plain(nodes, index) for index in node.args]
    if not all(isinstance(part, str) for part in found):
        raise TypeError("a part that is no text")
    return [part for part in found if isinstance(part, str)]


def _posix(nodes: Nodes, node: Call) -> str:
    return str(PurePosixPath(*_texts(nodes, node)))


def _windows(nodes: Nodes, node: Call) -> str:
    return str(PureWindowsPath(*_texts(nodes, node)))


def _one_text(nodes: Nodes, node: Call) -> str:
    (text,) = _texts(nodes, node)
    return text


# --- dates and times ---------------------------------------------------------------------------------------


def _packed(nodes: Nodes, node: Call, length: int) -> bytes:
    """The bytes of a date's or time's state; Python 2 wrote them as text."""
    state = plain(nodes, node.args[0])
    data = state.encode("latin-1") if isinstance(state, str) else state
    if not isinstance(data, bytes) or len(data) != length:
        raise ValueError("not a packed date")
    return data


def _date(nodes: Nodes, node: Call) -> str:
    return _day(_packed(nodes, node, 4))


def _day(data: bytes) -> str:
    # The month's top bit says that a time is the second one of its name (PEP 495).
    return f"{data[0] << 8 | data[1]:04d}-{data[2] & 127:02d}-{data[3]:02d}"


def _time(nodes: Nodes, node: Call) -> str:
    data = _packed(nodes, node, 6)
    return _clock(bytes([data[0] & 127]) + data[1:]) + _zone(nodes, node)


def _clock(data: bytes) -> str:
    micro = int.from_bytes(data[3:6], "big")
    return f"{data[0]:02d}:{data[1]:02d}:{data[2]:02d}" + (f".{micro:06d}" if micro else "")


def _moment(nodes: Nodes, node: Call) -> str:
    data = _packed(nodes, node, 10)
    return f"{_day(data[:4])}T{_clock(data[4:])}{_zone(nodes, node)}"


def _zone(nodes: Nodes, node: Call) -> str:
    """The offset of a ``timezone``; zones of other classes are rules, which text does not hold."""
    zone = nodes[node.args[1]] if len(node.args) > 1 else None
    return _offset(nodes, zone) if isinstance(zone, Call) and zone.name == "timezone" else ""


def _offset(nodes: Nodes, zone: Call) -> str:
    delta = nodes[zone.args[0]]
    if not isinstance(delta, Call) or delta.name != "timedelta":
        raise TypeError("an offset that is no timedelta")
    minutes = int(_delta(nodes, delta).total_seconds()) // 60
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"


def _delta(nodes: Nodes, node: Call) -> timedelta:
    found = [plain(nodes, index) for index in node.args]
    return timedelta(*[part for part in found if isinstance(part, int)])


def _duration(nodes: Nodes, node: Call) -> str:
    return str(_delta(nodes, node))


# --- others ------------------------------------------------------------------------------------------------


def _uuid(nodes: Nodes, node: Call) -> str:
    state = None if node.state is None else nodes[node.state]
    if not isinstance(state, Mapping):
        raise TypeError("a UUID without its number")
    for key, value in zip(state.keys, state.values, strict=True):
        number = plain(nodes, value) if plain(nodes, key) == "int" else None
        if isinstance(number, int):
            return str(uuid.UUID(int=number))
    raise ValueError("a UUID without its number")


def _fraction(nodes: Nodes, node: Call) -> str:
    parts = [plain(nodes, index) for index in node.args]
    return "/".join(str(part) for part in parts)


_READERS: dict[tuple[str, str], Callable[[Nodes, Call], str]] = {
    **{("pathlib", name): _posix for name in _POSIX},
    **{("pathlib", name): _windows for name in _WINDOWS},
    ("datetime", "date"): _date,
    ("datetime", "time"): _time,
    ("datetime", "datetime"): _moment,
    ("datetime", "timedelta"): _duration,
    ("datetime", "timezone"): _offset,
    ("decimal", "Decimal"): _one_text,
    ("fractions", "Fraction"): _fraction,
    ("uuid", "UUID"): _uuid,
}


def pairs_of(nodes: Nodes, node: Node | None) -> list[tuple[int, int]] | None:
    """Key and value nodes of an object's state: a dict, or a pair of dicts where the class has slots."""
    if isinstance(node, Mapping):
        return list(zip(node.keys, node.values, strict=True))
    if isinstance(node, Sequence) and node.kind == "tuple" and len(node.items) == 2:
        parts = [nodes[index] for index in node.items]
        if all(isinstance(p, Mapping) or (isinstance(p, Value) and p.value is None) for p in parts):
            return [pair for part in parts if isinstance(part, Mapping)
                    for pair in zip(part.keys, part.values, strict=True)]  # fmt: skip
    return None
