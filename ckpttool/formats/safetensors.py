"""safetensors: a header of JSON, then the tensors' bytes without gaps, overlaps or checksums.

Strict where the format's own text is strict, and at least as strict as the library. Source: safetensors 0.8
``README.md`` (Format) and ``safetensors/src/tensor.rs`` (``Metadata::validate``).
"""

from __future__ import annotations

from ckpttool.errors import printable
from ckpttool.formats.safetensors_entries import Entry, lay_out, read_entries
from ckpttool.formats.strict_json import Parsed, parse
from ckpttool.frozen import dataclass
from ckpttool.limits import Limits
from ckpttool.manifest import INSIDE_KEY
from ckpttool.model import Checkpoint, Damage, Extent, Json, Mapping, Node, Span, Storage, Tensor, Value
from ckpttool.source import Source

NAME = "safetensors"
HEADER_BYTES = 100_000_000
"""The library's own bound on the header's length."""

_SPACE = b" \t\r\n"
_TEXT = frozenset(range(32, 127)) | set(_SPACE)
_OTHER_MAGICS = (b"PK\x03\x04", b"\x1f\x8b", b"\x80\x02", b"\x89HDF", b"GGUF", b"\x93NUMPY")


def sniff(source: Source) -> bool:
    """Whether a JSON object follows a binary length, or the name says so and the start says nothing else."""
    head = source.read(0, 72)
    if len(head) < 9 or all(byte in _TEXT for byte in head[:8]):
        return False
    if _opens_header(head[8:]):
        return True
    named = source.name.lower().endswith(".safetensors")
    return named and any(head) and not head.startswith(_OTHER_MAGICS)


def _opens_header(text: bytes) -> bool:
    opening = text.removeprefix(b"\xef\xbb\xbf").lstrip(_SPACE)
    return opening[:1] == b"{" and opening[1:].lstrip(_SPACE)[:1] in (b'"', b"}")


@dataclass(frozen=True, slots=True)
class _Header:
    """The header's bytes without the eight of its length; ``stop`` is where the tensors' bytes begin."""

    text: bytes
    stop: int
    damage: tuple[Damage, ...] = ()


def read(source: Source, limits: Limits) -> Checkpoint:
    """Describe a safetensors file; total. Reads the header alone, about 5 µs a tensor."""
    header, problem = _read_header(source, limits)
    if header is None:
        return Checkpoint(source.name, NAME, damage=problem, files=(source.name,), nbytes=source.size)
    parsed = parse(header.text)
    damage = [*problem, *_judge_text(header, parsed, source)]
    extents = [Extent("header", Span(source.name, 0, header.stop))]
    metadata: dict[str, Json] = {"crc_recorded": False}
    entries: list[Entry] = []
    if isinstance(parsed.value, dict):
        kept, odd = _read_metadata(parsed.value)
        if kept.pop(INSIDE_KEY, None) is not None:
            metadata["sealed_inside"] = True
        metadata["metadata"] = kept
        entries, bad = read_entries(parsed.value)
        damage += [*odd, *bad, *lay_out(entries, header.stop, source, whole=not bad)]
    nodes, storages = build(entries, header.stop, source, extents)
    return Checkpoint(
        source.name, NAME, nodes, 0 if nodes else None, storages, tuple(extents),
        damage=tuple(damage), files=(source.name,), nbytes=source.size, metadata=metadata,
    )  # fmt: skip


# --- the header ------------------------------------------------------------------------------------------


def _read_header(source: Source, limits: Limits) -> tuple[_Header | None, tuple[Damage, ...]]:
    prefix = source.read(0, 8)
    if len(prefix) < 8:
        message = f"the file has {len(prefix)} bytes, and the header's length alone takes 8"
        return None, (Damage("truncated", "header", message, {"needs": 8, "have": len(prefix)}),)
    length = int.from_bytes(prefix, "little")
    bound = min(HEADER_BYTES, limits.json_bytes)
    if length <= bound and 8 + length <= source.size:
        return _Header(source.read(8, length), 8 + length), ()
    swapped = _swapped(source, prefix, bound)
    if swapped is not None:
        return swapped, swapped.damage
    return None, (_bad_length(length, source.size, bound),)


def _swapped(source: Source, prefix: bytes, bound: int) -> _Header | None:
    """The header as a big-endian length would have it, if that makes sense."""
    length = int.from_bytes(prefix, "big")
    if not 2 <= length <= min(bound, source.size - 8):
        return None
    text = source.read(8, length)
    if not isinstance(parse(text).value, dict):
        return None
    little = int.from_bytes(prefix, "little")
    message = f"the header's length is stored big-endian: {length} bytes, read as {little}"
    facts: dict[str, Json] = {"big": length, "little": str(little)}
    return _Header(text, 8 + length, (Damage("byte-swapped-size", "header", message, facts),))


def _bad_length(length: int, size: int, bound: int) -> Damage:
    facts: dict[str, Json] = {"needs": str(length) if length >> 53 else length, "have": size - 8}
    if length > bound:
        message = f"the header claims {length} bytes; {bound} is the most there may be, and the file has {size}"
        return Damage("over-limit", "header", message, facts)
    message = f"the header claims {length} bytes, and {size - 8} follow: no tensor is intact"
    return Damage("truncated", "header", message, facts, "fetch the file again: it ends within its header")


def _judge_text(header: _Header, parsed: Parsed, source: Source) -> list[Damage]:
    found = [
        Damage("header-ambiguous", "header", f"the key {printable(key)!r} stands twice", {"key": key})
        for key in parsed.duplicates[:100]
    ]
    if parsed.error:
        found.append(Damage(parsed.rule, "header", parsed.error))
    elif not isinstance(parsed.value, dict):
        found.append(Damage("header-malformed", "header", "the header is JSON, but not an object"))
    elif not header.text.startswith(b"{"):
        found.append(Damage("header-malformed", "header", "the header does not begin with '{'"))
    if header.stop % 8 and not parsed.error:
        message = f"tensors begin at byte {header.stop}, not on a multiple of 8"
        found.append(Damage("header-odd", "header", message, {"offset": header.stop}))
    if header.text.rstrip(b" ") != header.text.rstrip(_SPACE) and not parsed.error:
        found.append(Damage("header-odd", "header", "the header is padded with other characters than spaces"))
    return found


def _read_metadata(header: dict[str, Json]) -> tuple[dict[str, Json], list[Damage]]:
    """The ``__metadata__`` entry: strings by name."""
    if "__metadata__" not in header:
        return {}, []
    found = header["__metadata__"]
    where = "__metadata__"
    if found is None:
        return {}, [Damage("header-odd", where, "the metadata is null instead of missing")]
    if not isinstance(found, dict):
        return {}, [Damage("header-malformed", where, "the metadata is not an object")]
    wrong = [key for key, value in found.items() if not isinstance(value, str)]
    kept: dict[str, Json] = {key: value for key, value in found.items() if isinstance(value, str)}
    if not wrong:
        return kept, []
    message = f"{len(wrong)} metadata values are not strings, the first under {printable(wrong[0])!r}"
    return kept, [Damage("header-malformed", where, message, {"keys": len(wrong)})]


# --- the tree --------------------------------------------------------------------------------------------


def build(
    entries: list[Entry], base: int, source: Source, extents: list[Extent]
) -> tuple[tuple[Node, ...], tuple[Storage, ...]]:
    """One mapping from names to tensors, in the file's order of keys; extents are added in place."""
    count = len(entries)
    keys = tuple(range(1, 2 * count + 1, 2))
    nodes: list[Node] = [Mapping("dict", keys, tuple(range(2, 2 * count + 2, 2)))]
    storages: list[Storage] = []
    where, size = source.name, source.size
    for index, entry in enumerate(entries):
        name, dtype, start, stop = entry.name, entry.dtype, base + entry.start, base + entry.stop
        # A tensor of which some bytes are left keeps its span: reading it comes out short.
        span = Span(where, start, stop) if stop <= size or start < size else None
        nodes.append(Value(name))
        nodes.append(Tensor(dtype, entry.shape, entry.stride, 0, index, False, "strided", NAME))
        storages.append(Storage(name, dtype, stop - start, span, None, "cpu", name))
        if span is not None:
            extents.append(Extent(name, span))
    return tuple(nodes), tuple(storages)
