"""Calls that stand for plain data: containers, bytes, numbers. Each applies only where the arguments are exact."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ckpttool.formats.pickle_terms import NOT_MINE, Reducer
from ckpttool.formats.stack import BytesAt, CallOf, DictOf, ListOf, Named
from ckpttool.formats.stand_ins import sizes
from ckpttool.safety import standing


def _ordered_dict(args: tuple[Any, ...]) -> Any:
    """``OrderedDict()``, or ``OrderedDict([[key, value], …])`` as Python 2 wrote it."""
    result = DictOf("OrderedDict")
    if not args:
        return result
    if len(args) != 1 or type(args[0]) is not ListOf:
        return NOT_MINE
    for pair in args[0].items:
        both = pair.items if type(pair) is ListOf else pair
        if type(both) not in (list, tuple) or len(both) != 2:
            return NOT_MINE
        result.flat.extend(both)
    return result


def _counter(args: tuple[Any, ...]) -> Any:
    if len(args) == 1 and type(args[0]) is DictOf:
        result = DictOf("Counter")
        result.flat = list(args[0].flat)
        return result
    if len(args) == 1 and type(args[0]) is str:
        return CallOf("REDUCE", Named("collections", "Counter", 0), args)
    return NOT_MINE if args else DictOf("Counter")


def _default_dict(args: tuple[Any, ...]) -> Any:
    ok = not args or (len(args) == 1 and (args[0] is None or type(args[0]) is Named))
    return DictOf("defaultdict", args) if ok else NOT_MINE


def _collection(kind: str) -> Reducer:
    def reduce(args: tuple[Any, ...]) -> Any:
        if not args:
            return ListOf(kind, [])
        if type(args[0]) is not ListOf or (len(args) > 1 and kind != "deque"):
            return NOT_MINE
        return ListOf(kind, list(args[0].items)) if len(args) == 1 else NOT_MINE

    return reduce


def _encode(args: tuple[Any, ...]) -> Any:
    if len(args) != 2 or type(args[0]) is not str or args[1] not in ("latin1", "latin-1"):
        return NOT_MINE
    try:
        return args[0].encode("latin-1")
    except UnicodeEncodeError:
        return NOT_MINE


def _no_bytes(args: tuple[Any, ...]) -> Any:
    """``bytes()``: how protocols 0 to 2 write the empty byte string."""
    return NOT_MINE if args else b""


def _complex(args: tuple[Any, ...]) -> Any:
    return complex(*args) if len(args) == 2 and all(type(x) is float for x in args) else NOT_MINE


def _kept(module: str, name: str, fits: Callable[[tuple[Any, ...]], bool]) -> Reducer:
    """A call that stays a call in the tree and is what a writer of plain data makes of it."""
    target = Named(module, name, 0)

    def reduce(args: tuple[Any, ...]) -> Any:
        return CallOf("REDUCE", target, args) if fits(args) else NOT_MINE

    return reduce


def _one_text(args: tuple[Any, ...]) -> bool:
    return bool(args) and type(args[0]) is str and all(type(x) is int for x in args[1:])


def _bytes_of(args: tuple[Any, ...]) -> bool:
    if len(args) == 2:
        return type(args[0]) is str and args[1] in ("latin-1", "latin1")
    return not args or (len(args) == 1 and type(args[0]) in (bytes, BytesAt))


def _three_numbers(args: tuple[Any, ...]) -> bool:
    return len(args) == 3 and all(x is None or type(x) is int for x in args)


def _is_method_of_a_project(args: tuple[Any, ...]) -> bool:
    """``getattr(Class, 'name')``: how pickle spells a method, or a nested class, of a class that needs code."""
    if len(args) != 2 or type(args[0]) is not Named or type(args[1]) is not str:
        return False
    cls, name = args
    return name.isidentifier() and not name.startswith("_") and standing(cls.module, cls.name) == "needs-code"


CONTAINERS: dict[tuple[str, str], Reducer] = {
    ("builtins", "getattr"): _kept("builtins", "getattr", _is_method_of_a_project),
    ("__builtin__", "getattr"): _kept("__builtin__", "getattr", _is_method_of_a_project),
    ("torch", "Size"): _kept("torch", "Size", lambda args: len(args) == 1 and sizes(args[0]) is not None),
    ("torch", "device"): _kept("torch", "device", _one_text),
    ("torch.serialization", "_get_layout"): _kept("torch.serialization", "_get_layout", _one_text),
    ("builtins", "bytearray"): _kept("builtins", "bytearray", _bytes_of),
    ("__builtin__", "bytearray"): _kept("__builtin__", "bytearray", _bytes_of),
    ("builtins", "slice"): _kept("builtins", "slice", _three_numbers),
    ("builtins", "range"): _kept("builtins", "range", _three_numbers),
    ("collections", "OrderedDict"): _ordered_dict,
    ("collections", "Counter"): _counter,
    ("collections", "defaultdict"): _default_dict,
    ("collections", "deque"): _collection("deque"),
    ("builtins", "set"): _collection("set"),
    ("builtins", "frozenset"): _collection("frozenset"),
    ("__builtin__", "set"): _collection("set"),
    ("__builtin__", "frozenset"): _collection("frozenset"),
    ("_codecs", "encode"): _encode,
    ("builtins", "bytes"): _no_bytes,
    ("__builtin__", "bytes"): _no_bytes,
    ("builtins", "complex"): _complex,
    ("__builtin__", "complex"): _complex,
}
"""Calls that stand for plain data. Each applies only where the arguments are exactly what pickle writes."""
