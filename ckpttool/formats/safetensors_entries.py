"""The entries of a safetensors header: each judged by itself, then all of them as a layout of the file."""

from __future__ import annotations

from operator import attrgetter

from ckpttool.dtypes import SAFETENSORS, DType
from ckpttool.errors import printable
from ckpttool.frozen import dataclass
from ckpttool.model import Damage, Json
from ckpttool.source import Source

WORD = 1 << 64
"""The library counts in 64 bits and refuses products that do not fit."""

SHOWN = 100
"""Findings of one kind that are kept; the rest are counted."""

_FIELDS = {"dtype", "shape", "data_offsets"}


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor whose description holds together. Offsets count bytes from the header's end."""

    name: str
    dtype: DType
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    start: int
    stop: int


def read_entries(header: dict[str, Json]) -> tuple[list[Entry], list[Damage]]:
    """The tensors that can be read and what is wrong with the others, in the header's order."""
    entries: list[Entry] = []
    damage: list[Damage] = []
    forms: dict[tuple[str, tuple[int, ...]], _Form] = {}
    for name, info in header.items():
        if name == "__metadata__":
            continue
        entry = _read_entry(name, info, forms)
        if type(entry) is Entry:
            entries.append(entry)
            if isinstance(info, dict) and len(info) > len(_FIELDS):
                damage.append(_extra(name, info))
        elif isinstance(entry, Damage):
            damage.append(entry)
    return entries, damage


@dataclass(frozen=True, slots=True)
class _Form:
    """What a dtype and a shape come to; a model has few of them. ``nbits`` is None where 64 bits overflow."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    nbits: int | None


def _read_entry(name: str, info: Json, forms: dict[tuple[str, tuple[int, ...]], _Form]) -> Entry | Damage:
    if not isinstance(info, dict):
        return Damage("header-malformed", name, "described by something that is not an object")
    try:
        code, shape, offsets = info["dtype"], info["shape"], info["data_offsets"]
    except KeyError:
        lacks = ", ".join(sorted(_FIELDS - info.keys()))
        return Damage("header-malformed", name, f"the description lacks {lacks}")
    dtype = SAFETENSORS.get(code) if isinstance(code, str) else None
    if dtype is None:
        shown = printable(code[:40]) if isinstance(code, str) else type(code).__name__
        return Damage("storage-declaration", name, f"{shown!r} is no dtype of safetensors", {"dtype": shown})
    sizes = _integers(shape)
    if sizes is None or (sizes and min(sizes) < 0):
        return Damage("invalid-shape", name, f"the shape {_short(shape)} is not a list of counts")
    ends = _integers(offsets)
    if ends is None or len(ends) != 2:
        return Damage("header-malformed", name, f"data_offsets {_short(offsets)} are not two integers")
    form = forms.get((dtype.name, sizes))
    if form is None:
        form = forms[dtype.name, sizes] = _form(dtype, sizes)
    start, stop = ends
    if form.nbits == 8 * (stop - start) and 0 <= start <= stop < WORD:
        return Entry(name, dtype, form.shape, form.stride, start, stop)
    return _misfit(name, dtype, form, start, stop)


def _integers(values: Json) -> tuple[int, ...] | None:
    """A list of integers as a tuple; None for anything else, true and 1.0 included."""
    if not isinstance(values, list) or (values and set(map(type, values)) != {int}):
        return None
    return tuple(values)  # type: ignore[arg-type]


def _form(dtype: DType, shape: tuple[int, ...]) -> _Form:
    """Row-major strides and the bits of all elements; no product on the way may leave 64 bits."""
    numel = 1
    for size in shape:
        numel *= size
        if max(size, numel) >= WORD:
            return _Form(shape, (), None)
    step = 1
    strides: list[int] = []
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    nbits = numel * dtype.bits
    return _Form(shape, tuple(reversed(strides)), nbits if nbits < WORD else None)


def _misfit(name: str, dtype: DType, form: _Form, start: int, stop: int) -> Damage:
    shape = _short(list(form.shape))
    if form.nbits is None or not 0 <= start < WORD or not 0 <= stop < WORD:
        return Damage("header-ambiguous", name, f"the shape {shape} or the offsets {start} and {stop} overflow 64 bits")
    if start > stop:
        return Damage("header-malformed", name, f"its bytes begin at {start} and end before, at {stop}")
    needs = (form.nbits + 7) // 8
    message = f"{shape} of {dtype.name} take {needs} bytes, and data_offsets give {stop - start}"
    return Damage("storage-size", name, message, {"needs": needs, "have": stop - start})


def _extra(name: str, info: dict[str, Json]) -> Damage:
    extra = [printable(key[:40]) for key in info if key not in _FIELDS]
    return Damage("header-odd", name, f"the description has fields of its own: {', '.join(map(repr, extra[:5]))}")


# --- the layout ------------------------------------------------------------------------------------------


def lay_out(entries: list[Entry], base: int, source: Source, *, whole: bool) -> list[Damage]:
    """Overlaps, holes, missing and surplus bytes. ``whole`` says that every entry of the header is here.

    Without all entries a hole may belong to one that could not be read, so holes are not reported then.
    """
    damage: list[Damage] = []
    have = source.size - base
    end = 0
    for entry in sorted(entries, key=attrgetter("start", "stop")):
        if entry.start < end:
            message = f"it begins at byte {entry.start} of the data, and another tensor goes up to {end}"
            damage.append(Damage("header-ambiguous", entry.name, message))
        elif entry.start > end and whole:
            damage.append(_unowned(f"before {printable(entry.name)!r}", base + end, base + entry.start))
        end = max(end, entry.stop)
    if end > have:
        damage.append(_truncated(entries, end, have, source.size))
    elif end < have and whole:
        damage.append(_unowned("after the last tensor", base + end, source.size))
    return damage[:SHOWN] + _rest(damage)


def _unowned(where: str, start: int, stop: int) -> Damage:
    count = "1 byte belongs" if stop - start == 1 else f"{stop - start} bytes belong"
    message = f"{count} to no tensor, {where}; safetensors refuses such a file"
    return Damage("unowned-bytes", f"byte {start}", message, {"start": start, "stop": stop})


def _truncated(entries: list[Entry], needs: int, have: int, size: int) -> Damage:
    have = max(have, 0)
    lost = [e for e in entries if e.stop > have]
    first = min(lost, key=attrgetter("start", "stop"))
    complete = len(entries) - len(lost)
    message = (
        f"{needs - have} of {needs} bytes of tensors are missing: {complete} of {len(entries)} tensors "
        f"are complete, {printable(first.name)!r} is the first that is not"
    )
    facts: dict[str, Json] = {
        "needs": size - have + needs,
        "have": size,
        "complete": complete,
        "tensors": len(entries),
        "first": first.name,
    }
    return Damage("truncated", f"byte {size}", message, facts, "fetch or copy the file again")


def _rest(damage: list[Damage]) -> list[Damage]:
    more = len(damage) - SHOWN
    return [Damage("header-ambiguous", "header", f"{more} more problems of its layout")] if more > 0 else []


def _short(value: Json) -> str:
    text = printable(repr(value) if not isinstance(value, list) else repr(value[:8]))
    return text if len(text) <= 80 else text[:79] + "…"
