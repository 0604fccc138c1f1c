"""Frozen dataclasses that are cheap to define and to make: the standard library's, built a tenth as expensively.

A command defines a hundred of them before it does anything, and ``dataclasses`` takes most of a millisecond for
each. Here only ``__init__`` is compiled, when the first instance is made; everything else is shared.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass
else:

    def dataclass(cls=None, /, *, frozen=False, slots=False, **more):
        """``dataclasses.dataclass``; with ``frozen`` and ``slots`` alone it is made here."""
        if cls is None:
            return lambda cls: dataclass(cls, frozen=frozen, slots=slots, **more)
        derived = any(hasattr(base, "__dataclass_fields__") for base in cls.__bases__)
        if not (frozen and slots) or more or derived or "__post_init__" in vars(cls):
            import dataclasses

            return dataclasses.dataclass(cls, frozen=frozen, slots=slots, **more)
        return _made(cls)


__all__ = ["dataclass"]

_MISSING: Any = object()
"""Stands for a default that a factory makes anew for each instance."""


class _Fields:
    """``__dataclass_fields__``, made when something asks: ``replace``, ``fields`` and their like."""

    def __init__(self, annotations: dict[str, Any], defaults: dict[str, Any]) -> None:
        self.annotations = annotations
        self.defaults = defaults

    def __get__(self, instance: object, owner: type) -> dict[str, Any]:
        import dataclasses

        body = {**self.defaults, "__annotations__": self.annotations, "__module__": owner.__module__}
        twin: type = type(owner.__name__, (), body)
        found: dict[str, Any] = vars(dataclasses.dataclass(twin))["__dataclass_fields__"]
        type.__setattr__(owner, "__dataclass_fields__", found)
        return found


def _of_class(annotation: object) -> bool:
    """Whether an annotation, as text, says that the name belongs to the class and is no field."""
    return isinstance(annotation, str) and annotation.partition("[")[0] in ("ClassVar", "typing.ClassVar")


def _made(cls: type) -> type:
    body = dict(vars(cls))
    annotations = {n: a for n, a in body.get("__annotations__", {}).items() if not _of_class(a)}
    defaults = {name: body.pop(name) for name in annotations if name in body}
    for name in ("__dict__", "__weakref__"):
        body.pop(name, None)
    names = tuple(annotations)
    compared = [name for name in names if _option(defaults, name, "compare")]
    # A field says for itself whether it is hashed, or is as it is compared.
    hashed = [name for name in names if _option(defaults, name, "hash", name in compared)]
    shown = [name for name in names if _option(defaults, name, "repr")]
    made: dict[str, Any] = {
        "__slots__": names,
        "__match_args__": names,
        "__dataclass_fields__": _Fields(annotations, defaults),
        "__init__": _first_init(names, defaults),
        "__repr__": _repr(shown),
        "__eq__": _eq(_getter(compared)),
        "__hash__": _hash(_getter(hashed)),
        "__setattr__": _refuse,
        "__delattr__": _refuse,
        "__getstate__": _getstate,
        "__setstate__": _setstate,
    }
    fresh = type(cls)(cls.__name__, cls.__bases__, {**made, **body})
    fresh.__qualname__ = cls.__qualname__
    return fresh


def _option(defaults: dict[str, Any], name: str, option: str, otherwise: bool = True) -> bool:
    """What ``field()`` says of a field, ``otherwise`` where it says nothing."""
    said = getattr(defaults.get(name), option, None) if _is_field(defaults.get(name)) else None
    return otherwise if said is None else bool(said)


def _is_field(value: object) -> bool:
    return type(value).__name__ == "Field" and type(value).__module__ == "dataclasses"


# --- making ----------------------------------------------------------------------------------------------


def _first_init(names: tuple[str, ...], defaults: dict[str, Any]) -> Callable[..., None]:
    """An ``__init__`` that puts the compiled one in its own place. That one fills slots directly.

    The one that ``dataclasses`` makes looks ``object.__setattr__`` up for every field, and takes three to four
    times as long (Python 3.11).
    """

    def __init__(self: Any, /, *args: Any, **fields: Any) -> None:  # noqa: N807 - it becomes a method
        cls = type(self)
        cls.__init__ = _compiled(cls, names, defaults)
        cls.__init__(self, *args, **fields)

    return __init__


def _compiled(cls: type, names: tuple[str, ...], defaults: dict[str, Any]) -> Callable[..., None]:
    known: dict[str, Any] = {"_missing": _MISSING}
    heads, sets = [], []
    for name in names:
        known[f"_set_{name}"] = getattr(cls, name).__set__
        value, head = name, name
        if name in defaults:
            default = defaults[name]
            head = f"{name}=_default_{name}"
            if _is_field(default):
                import dataclasses

                factory, default = default.default_factory, default.default
                if factory is not dataclasses.MISSING:
                    known[f"_factory_{name}"], default = factory, _MISSING
                    value = f"_factory_{name}() if {name} is _missing else {name}"
                elif default is dataclasses.MISSING:
                    head = name
            known[f"_default_{name}"] = default
        heads.append(head)
        sets.append(f"    _set_{name}(self, {value})")
    exec("\n".join([f"def __init__(self, {', '.join(heads)}):", *sets, "    return"]), known)  # noqa: S102 - field names only
    init: Callable[..., None] = known["__init__"]
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    return init


# --- the other methods -----------------------------------------------------------------------------------


def _getter(names: list[str]) -> Callable[[Any], Any]:
    """What gets the named fields as a tuple."""
    if len(names) > 1:
        return attrgetter(*names)
    return (lambda self: (getattr(self, names[0]),)) if names else lambda self: ()


def _eq(get: Callable[[Any], Any]) -> Callable[[Any, object], Any]:
    def __eq__(self: Any, other: object) -> Any:  # noqa: N807
        return get(self) == get(other) if other.__class__ is self.__class__ else NotImplemented

    return __eq__


def _hash(get: Callable[[Any], Any]) -> Callable[[Any], int]:
    def __hash__(self: Any) -> int:  # noqa: N807
        return hash(get(self))

    return __hash__


def _repr(names: list[str]) -> Callable[[Any], str]:
    def __repr__(self: Any) -> str:  # noqa: N807
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        return f"{type(self).__qualname__}({shown})"

    return __repr__


def _refuse(self: object, name: str, value: object = None) -> None:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _getstate(self: Any) -> list[Any]:
    return [getattr(self, name) for name in self.__slots__]


def _setstate(self: Any, state: list[Any]) -> None:
    for name, value in zip(self.__slots__, state, strict=True):
        object.__setattr__(self, name, value)
