"""Frozen dataclasses that are cheap to make, for the few that exist once for every tensor."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any, TypeVar

Class = TypeVar("Class")


def quick(cls: type[Class]) -> type[Class]:
    """Give a frozen, slotted dataclass an ``__init__`` that fills its slots directly; nothing else changes.

    The one that ``dataclass`` makes looks ``object.__setattr__`` up for every field, and takes three to four
    times as long (Python 3.11). Fields with a ``default_factory`` are not supported: ``TypeError``.
    """
    names: dict[str, Any] = {}
    heads, sets = [], []
    for field in fields(cls):  # type: ignore[arg-type]
        if field.default_factory is not MISSING or not field.init:
            raise TypeError(f"{cls.__name__}.{field.name} has no plain default")
        names[f"_set_{field.name}"] = getattr(cls, field.name).__set__
        has_default = field.default is not MISSING
        if has_default:
            names[f"_default_{field.name}"] = field.default
        heads.append(f"{field.name}=_default_{field.name}" if has_default else field.name)
        sets.append(f"    _set_{field.name}(self, {field.name})")
    made: dict[str, Any] = {}
    exec("\n".join([f"def __init__(self, {', '.join(heads)}):", *sets]), names, made)  # noqa: S102 - field names only
    quickly = made["__init__"]
    quickly.__qualname__ = f"{cls.__qualname__}.__init__"
    quickly.__annotations__ = dict(cls.__init__.__annotations__)
    cls.__init__ = quickly  # type: ignore[method-assign]
    return cls
