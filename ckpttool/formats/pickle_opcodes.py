"""The opcodes that torch's own writer uses, one function each: what a machine does for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from ckpttool.formats.pickle_terms import CutShort, Malformed, Stopped, f64, i32, u16, u32
from ckpttool.formats.stack import CallOf, DictOf, ListOf

if TYPE_CHECKING:
    from ckpttool.formats.pickle_machine import Machine

Handler: TypeAlias = "Callable[[Machine], None]"


def _mark(m: Machine) -> None:
    m.marks.append(m.stack)
    m.stack = []


def _stop(m: Machine) -> None:
    raise Stopped


def _proto(m: Machine) -> None:
    m.protocol = m._byte()
    if m.protocol > 5:
        m._report("pickle-odd", f"protocol {m.protocol}, and 5 is the highest there is")
    elif m.protocol != 2:
        m._foreign(f"PROTO {m.protocol}")


def _binunicode(m: Machine) -> None:
    data, pos = m.data, m.pos
    stop = pos + 4 + u32(data, pos)[0]
    if stop > len(data):
        raise CutShort(f"a string of {stop - pos - 4} bytes, and {len(data) - pos - 4} are left")
    m.pos = stop
    m.stack.append(str(data[pos + 4 : stop], "utf-8", "surrogatepass"))


def _binput(m: Machine) -> None:
    m.memo[m.data[m.pos]] = m.stack[-1]
    m.pos += 1


def _long_binput(m: Machine) -> None:
    m.memo[u32(m.data, m.pos)[0]] = m.stack[-1]
    m.pos += 4


def _binget(m: Machine) -> None:
    m.stack.append(m.memo[m.data[m.pos]])
    m.pos += 1


def _long_binget(m: Machine) -> None:
    m.stack.append(m.memo[u32(m.data, m.pos)[0]])
    m.pos += 4


def _binint(m: Machine) -> None:
    m.stack.append(i32(m.data, m.pos)[0])
    m.pos += 4


def _binint1(m: Machine) -> None:
    m.stack.append(m.data[m.pos])
    m.pos += 1


def _binint2(m: Machine) -> None:
    m.stack.append(u16(m.data, m.pos)[0])
    m.pos += 2


def _binfloat(m: Machine) -> None:
    m.stack.append(f64(m.data, m.pos)[0])
    m.pos += 8


def _long1(m: Machine) -> None:
    m.stack.append(long_operand(m, m._byte(), torch_limit=15))


def long_operand(m: Machine, nbytes: int, torch_limit: int) -> int:
    """An integer of ``nbytes`` bytes; what no writer of checkpoints needs is reported."""
    if nbytes > m.limits.long_bytes:
        raise Malformed(f"an integer of {nbytes} bytes", "over-limit")
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
    _check_key(m, key)


def _setitems(m: Machine) -> None:
    pairs = m._pop_mark()
    if len(pairs) % 2:
        raise Malformed("SETITEMS with a key that has no value")
    _flat_of(m, m.stack[-1]).extend(pairs)
    for key in pairs[::2]:
        if type(key) is tuple:
            _check_key(m, key)


def _check_key(m: Machine, key: Any) -> None:
    """A loader hashes a key the moment it is set, even in a dict that is thrown away afterwards."""
    left = m.limits.key_leaves
    stack = [key]
    while stack and left > 0:
        top = stack.pop()
        left -= 1
        if type(top) is tuple:
            stack.extend(top[:left])
    if stack:
        m._report(
            "hash-bomb", f"a dict key unfolds to more than {m.limits.key_leaves} values: hashing it may never end"
        )


def _flat_of(m: Machine, target: Any) -> list[Any]:
    if isinstance(target, DictOf) or _is_container_object(target):
        flat: list[Any] = target.flat
        return flat
    raise Malformed("SETITEM on something that is not a mapping", "pickle-type-confusion")


def _is_container_object(target: Any) -> bool:
    """Whether the result of a call may be a dict or list of a user's own; what torch or numpy builds is neither."""
    return isinstance(target, CallOf) and target.target.module.partition(".")[0] not in _NO_CONTAINERS


_NO_CONTAINERS = frozenset({"torch", "numpy", "_codecs"})


def _append(m: Machine) -> None:
    value = m.stack.pop()
    _items_of(m, m.stack[-1]).append(value)


def appends(m: Machine) -> None:
    """APPENDS, and ADDITEMS of protocol 4."""
    values = m._pop_mark()
    _items_of(m, m.stack[-1]).extend(values)


def _items_of(m: Machine, target: Any) -> list[Any]:
    if isinstance(target, ListOf) or _is_container_object(target):
        items: list[Any] = target.items
        return items
    raise Malformed("APPEND on something that is not a list", "pickle-type-confusion")


TORCH: dict[str, Handler] = {
    "(": _mark,
    ".": _stop,
    "J": _binint,
    "K": _binint1,
    "M": _binint2,
    "N": _constant(None),
    "Q": _binpersid,
    "R": _reduce,
    "X": _binunicode,
    "a": _append,
    "b": _build,
    "c": _global,
    "}": _empty_dict,
    "e": appends,
    "h": _binget,
    "j": _long_binget,
    "]": _empty_list,
    "q": _binput,
    "r": _long_binput,
    "s": _setitem,
    "t": _tuple,
    ")": _constant(()),
    "u": _setitems,
    "G": _binfloat,
    "\x80": _proto,
    "\x81": _newobj,
    "\x85": _tuple1,
    "\x86": _tuple2,
    "\x87": _tuple3,
    "\x88": _constant(True),
    "\x89": _constant(False),
    "\x8a": _long1,
}
"""Protocol 2 as ``torch.save`` writes it, and ``torch.load(weights_only=True)`` reads it."""
