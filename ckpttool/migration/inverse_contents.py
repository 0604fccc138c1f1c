"""How rules that change a tensor's content are undone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeAlias

from ckpttool.dtypes import DTYPES, DType, dtype_of
from ckpttool.migration.arithmetic import parse_term, term_text, variables
from ckpttool.migration.rule_nouns import Option, Rule
from ckpttool.migration.rule_values import SIZE

Options: TypeAlias = "Mapping[str, Option]"


class OneWay(Exception):
    """A rule that cannot be undone; the text says why."""


def refuse_sizes(value: Option) -> None:
    """Raise ``OneWay`` for arithmetic with ``d0``, which is another tensor's size on the way back."""
    for term in value if isinstance(value, tuple) else (value,):
        if uses_sizes(term):
            raise OneWay(f"'{term}' is a size of the old tensor; give it as a number or a given value")


def uses_sizes(size: Option) -> bool:
    """Whether a term speaks of the tensor's own sizes."""
    return isinstance(size, str) and any(SIZE.fullmatch(name) for name in variables(parse_term(size)))


def _slice(rule: Rule, options: Options) -> list[Rule]:
    if not rule.targets:
        raise OneWay("rows outside of the slice are not kept")
    return [replace(rule, kind="drop", sources=rule.targets, targets=(), options=(), regex=False)]


def _same(rule: Rule, options: Options) -> list[Rule]:
    return [rule]


def _permute(rule: Rule, options: Options) -> list[Rule]:
    axes = _wholes(options["axes"])
    order = [axis % len(axes) for axis in axes]
    back = {**options, "axes": tuple(order.index(i) for i in range(len(order)))}
    view = options.get("view")
    if isinstance(view, tuple):
        if len(view) != len(order):
            raise OneWay(f"'view' has {len(view)} dimensions and 'axes' {len(order)}")
        back["view"] = tuple(view[axis] for axis in order)
    if "shape" in options:
        refuse_sizes((*_terms(view), *_terms(options["shape"]), *_terms(options.get("from"))))
        if "from" not in options:
            raise OneWay("the shape that it had is not said: say from, as in from: [64, 32]")
        back["shape"], back["from"] = options["from"], options["shape"]
    return [replace(rule, options=tuple(back.items()))]


def _reshape(rule: Rule, options: Options) -> list[Rule]:
    old, new = _terms(options.get("from")), _terms(options["shape"])
    if "from" not in options:
        raise OneWay("the shape that it had is not said: say from, as in from: [64, 1, 1]")
    return [replace(rule, options=(("shape", _seen_from(new, old)), ("from", _own(new))))]


def _seen_from(other: tuple[Option, ...], shape: tuple[Option, ...]) -> tuple[Option, ...]:
    """A shape in the sizes of the other one, where they have the same size."""
    found: list[Option] = []
    for size in shape:
        if uses_sizes(size) and size not in other:
            raise OneWay(f"'{size}' cannot be told from the other shape")
        found.append(f"d{other.index(size)}" if uses_sizes(size) else size)
    return tuple(found)


def _own(shape: tuple[Option, ...]) -> tuple[Option, ...]:
    """A shape in its own sizes: ``d0`` for the first one, unless it is a number."""
    return tuple(f"d{place}" if uses_sizes(size) else size for place, size in enumerate(shape))


def _squeeze(rule: Rule, options: Options) -> list[Rule]:
    return [replace(rule, kind="unsqueeze" if rule.kind == "squeeze" else "squeeze")]


def _roll(rule: Rule, options: Options) -> list[Rule]:
    shift = options["shift"]
    back = -shift if isinstance(shift, int) else term_text(parse_term(f"-({shift})"))
    return [replace(rule, options=tuple({**options, "shift": back}.items()))]


def _reorder(rule: Rule, options: Options) -> list[Rule]:
    indices = _wholes(options["indices"])
    order = [index % len(indices) for index in indices]
    if sorted(order) != list(range(len(order))):
        raise OneWay("'indices' is not each row once")
    back = tuple(order.index(i) for i in range(len(order)))
    return [replace(rule, options=tuple({**options, "indices": back}.items()))]


def _cast(rule: Rule, options: Options) -> list[Rule]:
    old = options.get("from")
    if old is None:
        raise OneWay("the element type that it had is not said, and may have been wider")
    if not _holds(_dtype(options["dtype"]), _dtype(old)):
        raise OneWay(f"{options['dtype']} does not hold every {old}: numbers are rounded")
    return [replace(rule, options=(("dtype", old),))]


def _pad(rule: Rule, options: Options) -> list[Rule]:
    if "from" not in options:
        raise OneWay("the size that it had is not said: say from, as in from: 50257")
    refuse_sizes(options["from"])
    return [replace(rule, kind="slice", options=(("dim", options.get("dim", 0)), ("stop", options["from"])))]


def _dtype(value: Option) -> DType:
    return dtype_of(str(value)) or DTYPES["float32"]


def _holds(wide: DType, narrow: DType) -> bool:
    """Whether every number of one element type is a number of the other."""
    if wide.kind == narrow.kind == "float":
        return wide.exponent >= narrow.exponent and wide.mantissa >= narrow.mantissa
    return wide.kind == narrow.kind and wide.kind in ("int", "uint", "complex") and wide.bits >= narrow.bits


def _wholes(value: Option) -> tuple[int, ...]:
    found = tuple(part for part in value if isinstance(part, int)) if isinstance(value, tuple) else ()
    if not found:
        raise OneWay("the list is empty")
    return found


def _terms(value: Option) -> tuple[Option, ...]:
    return value if isinstance(value, tuple) else ()


UNDO_CONTENT: dict[str, Callable[[Rule, Options], list[Rule]]] = {
    "slice": _slice,
    "transpose": _same,
    "permute": _permute,
    "reshape": _reshape,
    "squeeze": _squeeze,
    "unsqueeze": _squeeze,
    "roll": _roll,
    "reorder": _reorder,
    "cast": _cast,
    "pad": _pad,
}
"""By kind; kinds that are not here lose something."""
