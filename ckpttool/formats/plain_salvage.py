"""Files without checksums whose headers are damaged: what their layout still tells.

A safetensors header is text, and its offsets follow on one another: where an entry is damaged its neighbours say where
its bytes lie, and another file of the run what they are. Pickles have modules of their own.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace

from ckpttool.formats import bare_salvage, legacy_salvage, safetensors, torch_legacy
from ckpttool.formats.safetensors_entries import Entry, read_entries
from ckpttool.formats.strict_json import parse
from ckpttool.frozen import dataclass
from ckpttool.limits import Limits
from ckpttool.model import Checkpoint, Extent, Json, Span
from ckpttool.source import Source
from ckpttool.units import plural

_ENTRY = re.compile(
    rb'"((?:[^"\\]|\\.)*)":\{"dtype":"([A-Z0-9_]+)","shape":\[([0-9,]*)\],"data_offsets":\[([0-9]+),([0-9]+)\]\}'
)
"""An entry as safetensors writes it."""

_ALIGNED = 8


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A checkpoint whose header was made out. ``lost`` are names whose entries cannot be read; ``notes`` say how."""

    checkpoint: Checkpoint
    lost: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    tree: str = "own"


def rebuild(source: Source, limits: Limits, like: Checkpoint | None) -> Rebuilt | None:
    """A file whose header does not let it be read, read all the same; None where nothing helps. Headers only."""
    old = legacy_salvage.read_again(source, limits, like) if _is_old(source, like) else None
    if old is not None:
        return Rebuilt(old.checkpoint, old.lost, old.notes, old.tree)
    found = _safetensors(source, limits, like)
    if found is not None:
        return found
    started = bare_salvage.read_started(source, limits)
    if started is None:
        return None
    note = f"the pickle cannot be read from byte {started[1]} on: what it had built by then is kept"
    return Rebuilt(started[0], (f"what the pickle holds behind byte {started[1]}",), (note,))


def _is_old(source: Source, like: Checkpoint | None) -> bool:
    """Whether this may be a file of torch before 1.6: it begins nearly as each of them does, or the donor is one."""
    want = torch_legacy.OPENING
    same = sum(a == b for a, b in zip(want, source.read(0, len(want)), strict=False))
    return same * 2 >= len(want) or (like is not None and like.format == torch_legacy.NAME)


# --- safetensors ----------------------------------------------------------------------------------------------


def _safetensors(source: Source, limits: Limits, like: Checkpoint | None) -> Rebuilt | None:
    head = source.read(8, min(source.size, safetensors.HEADER_BYTES, limits.json_bytes))
    if not _looks_like(head):
        return _adopted(source, like)
    stop = _end_of_text(head)
    parsed = parse(head[:stop]) if stop else None
    if parsed is not None and isinstance(parsed.value, dict) and not parsed.error:
        entries, bad = read_entries(parsed.value)
        base = _base(source, entries, stop) if entries else 0
        if entries and not bad:
            wrong = base != 8 + int.from_bytes(source.read(0, 8), "little")
            return _built(source, entries, base, (), "the length of the header is put right") if wrong else None
    entries = [entry for match in _ENTRY.finditer(head) if (entry := _entry(match)) is not None]
    if not entries:
        return _adopted(source, like)
    entries.sort(key=lambda entry: (entry.start, entry.stop))
    last = max(match.end() for match in _ENTRY.finditer(head))
    base = _base(source, entries, last + 1)
    given, lost = _in_holes(source, entries, base, like)
    notes = ["entries of the header that cannot be read are left out; the others are as they stand"]
    if given:
        taken = plural(len(given), "entry", "entries")
        notes.append(f"{taken} taken from the other checkpoint, where a place is left")
    return _built(source, [*entries, *given], base, lost, *notes)


def _looks_like(head: bytes) -> bool:
    return b'"dtype":"' in head[: 1 << 16] and b'"data_offsets":[' in head[: 1 << 16]


def _end_of_text(head: bytes) -> int:
    """Where the JSON object at the start ends; 0 if it does not."""
    limit = head.rfind(b"}", 0, (head.rfind(b'"data_offsets"') + 200) if b'"data_offsets"' in head else 0) + 1
    try:
        _, stop = json.JSONDecoder().raw_decode(head[:limit].decode("utf-8"))
    except (ValueError, RecursionError):
        return 0
    return int(stop)


def _base(source: Source, entries: list[Entry], stop: int) -> int:
    """Where the tensors begin: as the file says where that is possible, else behind the text and its padding."""
    said = 8 + int.from_bytes(source.read(0, 8), "little")
    behind = 8 + stop
    padded = -(-behind // _ALIGNED) * _ALIGNED
    if said == behind or (said % _ALIGNED == 0 and behind <= said <= padded + 64):
        return said
    whole = source.size - max(entry.stop for entry in entries)
    return whole if whole == behind else padded


def _entry(match: re.Match[bytes]) -> Entry | None:
    try:
        name = json.loads(b'"' + match[1] + b'"')
    except ValueError:
        return None
    sizes: list[Json] = [int(text) for text in match[3].split(b",") if text]
    offsets: list[Json] = [int(match[4]), int(match[5])]
    entries, _ = read_entries({name: {"dtype": match[2].decode(), "shape": sizes, "data_offsets": offsets}})
    return entries[0] if entries else None


def _in_holes(
    source: Source, entries: list[Entry], base: int, like: Checkpoint | None
) -> tuple[list[Entry], tuple[str, ...]]:
    """Ranges that no entry owns: the other checkpoint's tensor there, or a loss without a name."""
    names = {entry.name for entry in entries}
    known = _entries_of(like)
    given: list[Entry] = []
    lost: list[str] = []
    at = 0
    for start, stop in [*((e.start, e.stop) for e in entries), (source.size - base, source.size - base)]:
        if start > at:
            inside = [e for e in known if at <= e.start and e.stop <= start and e.name not in names]
            given += inside
            covered = sum(e.stop - e.start for e in inside)
            if covered < start - at:
                lost.append(f"a tensor at bytes {base + at} to {base + start} whose name cannot be read")
        at = max(at, stop)
    return given, tuple(lost)


def _entries_of(like: Checkpoint | None) -> list[Entry]:
    """The other checkpoint's entries with offsets from its header's end."""
    if like is None or like.format != safetensors.NAME:
        return []
    base = next((extent.span.stop for extent in like.extents if extent.name == "header"), 0)
    found = []
    for entry, tensor in like.tensors():
        span = None if tensor.storage is None else like.storages[tensor.storage].span
        if span is not None:
            start, stop = span.start - base, span.stop - base
            found.append(Entry(entry.path[0], tensor.dtype, tensor.shape, tensor.stride, start, stop))
    return found


def _built(source: Source, entries: list[Entry], base: int, lost: tuple[str, ...], *notes: str) -> Rebuilt:
    extents = [Extent("header", Span(source.name, 0, base))]
    kept = sorted(entries, key=lambda entry: entry.name)
    nodes, storages = safetensors.build(kept, base, source, extents)
    made = Checkpoint(
        source.name, safetensors.NAME, nodes, 0, storages, tuple(extents), files=(source.name,),
        nbytes=source.size, metadata={"crc_recorded": False},
    )  # fmt: skip
    return Rebuilt(made, lost, notes)


def _adopted(source: Source, like: Checkpoint | None) -> Rebuilt | None:
    """The other checkpoint's header over this file's bytes, if they are as many."""
    entries = _entries_of(like)
    if not entries or like is None or source.size != like.nbytes:
        return None
    base = next(extent.span.stop for extent in like.extents if extent.name == "header")
    found = _built(source, entries, base, (), f"names, types and shapes are those of {like.source}")
    metadata = {**found.checkpoint.metadata, "metadata": like.metadata.get("metadata", {})}
    return replace(found, checkpoint=replace(found.checkpoint, metadata=metadata), tree="donor")
