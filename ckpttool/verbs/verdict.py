"""One verdict from three axes: are the bytes right, is loading safe, can training resume. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ckpttool.checks import rules
from ckpttool.layout import Layout
from ckpttool.measures import Measures
from ckpttool.model import Checkpoint, Extent, Finding, Json, Tensor
from ckpttool.units import plural, size

VerdictName: TypeAlias = Literal["not-a-checkpoint", "damaged", "unsafe", "weights-only", "resumable", "exact"]
Integrity: TypeAlias = Literal["proved", "unprovable", "unchecked", "damaged"]
Safety: TypeAlias = Literal["plain", "needs-code", "unsafe"]
Ready: TypeAlias = Literal["weights-only", "resumable", "exact"]

LEVELS: tuple[Ready, ...] = ("weights-only", "resumable", "exact")
REQUIREMENTS: dict[str, Ready] = {"weights": "weights-only", "resumable": "resumable", "exact": "exact"}

_CODE = frozenset({"needs-code", "contains-code"})


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to say of one target; ``name`` is the first of the six that applies."""

    name: VerdictName
    integrity: Integrity
    safety: Safety
    readiness: Ready


@dataclass(frozen=True, slots=True)
class Coverage:
    """What was looked at, and what not and why. ``proved`` bytes agree with a checksum that the file records."""

    nbytes: int
    read: int
    proved: int
    tensors: int
    measured: int
    unchecked: tuple[tuple[str, str], ...]

    @property
    def json(self) -> dict[str, Json]:
        return {
            "bytes": self.nbytes,
            "bytes_read": self.read,
            "bytes_proved": self.proved,
            "tensors": self.tensors,
            "tensors_measured": self.measured,
            "unchecked": [{"what": what, "why": why} for what, why in self.unchecked],
        }

    @property
    def text(self) -> str:
        """One line for people."""
        line = f"{size(self.read)} of content read, {size(self.proved)} of it proved by checksum, "
        line += f"{size(max(0, self.nbytes - self.read))} of headers; "
        line += f"{self.measured} of {plural(self.tensors, 'tensor')} measured"
        return line + "".join(f"; not checked: {what} ({why})" for what, why in self.unchecked)


def reach(checkpoint: Checkpoint, layout: Layout, findings: Sequence[Finding], coverage: Coverage) -> Verdict:
    """The verdict on a checkpoint."""
    axes = {rules()[f.name].axis for f in findings if f.severity == "error"}
    broken = bool(axes & {"integrity", "hostile"})
    unsafe = bool(axes & {"safety", "hostile"})
    integrity: Integrity = "damaged" if broken else _integrity(coverage)
    code = any(f.name in _CODE for f in findings)
    safety: Safety = "unsafe" if unsafe else "needs-code" if code else "plain"
    level = layout.readiness.level
    ready: Ready = "weights-only" if level == "none" else level
    name: VerdictName = ready
    if checkpoint.kind:
        name = "not-a-checkpoint"
    elif broken:
        name = "damaged"
    elif unsafe:
        name = "unsafe"
    return Verdict(name, integrity, safety, ready)


def _integrity(coverage: Coverage) -> Integrity:
    if any(what == "content" for what, _ in coverage.unchecked):
        return "unchecked"
    return "proved" if not coverage.unchecked else "unprovable"


def cover(checkpoint: Checkpoint, measures: Measures | None) -> Coverage:
    """What a measuring pass (None: headers only) reached of a checkpoint."""
    tensors = {entry.index for entry, _ in checkpoint.tensors()}
    if measures is None:
        reason = f"not a checkpoint: {checkpoint.kind}" if checkpoint.kind else "headers only"
        return Coverage(checkpoint.nbytes, 0, 0, len(tensors), 0, (("content", reason),))
    unchecked: list[tuple[str, str]] = []
    sealed = frozenset[str]() if measures.seal is None else measures.seal.sources
    unproved = [e for e in checkpoint.extents if e.checksum is None and e.span.nbytes and e.span.source not in sealed]
    proved = sum(_content_bytes(e) for e in checkpoint.extents if _agrees(e, measures) or e.span.source in sealed)
    if unproved:
        nbytes = sum(e.span.nbytes for e in unproved)
        unchecked.append((f"the integrity of {size(nbytes)}", "no checksum is recorded for them"))
    missed = [index for index in tensors if index in measures.unread]
    if missed:
        why = measures.unread[missed[0]]
        unchecked.append((f"the content of {plural(len(missed), 'tensor')}", why))
    measured = sum(1 for index in tensors if _is_measured(checkpoint, index, measures))
    return Coverage(checkpoint.nbytes, measures.nbytes, proved, len(tensors), measured, tuple(unchecked))


def _agrees(extent: Extent, measures: Measures) -> bool:
    """Whether an extent's bytes are all there and have the checksum that the file records."""
    found = measures.spans.get(extent.name)
    if extent.checksum is None or found is None:
        return False
    return found.read == _content_bytes(extent) and found.crc32 == extent.checksum.value


def _content_bytes(extent: Extent) -> int:
    """Bytes of an extent's content, inflated where it is deflated."""
    return extent.span.nbytes if extent.size is None else extent.size


def _is_measured(checkpoint: Checkpoint, index: int, measures: Measures) -> bool:
    """Whether a tensor was looked at: itself, or every part of one that is made of others (sparse, DTensor)."""
    node = checkpoint.nodes[index]
    own = isinstance(node, Tensor) and (node.storage is not None or node.layout == "chunked")
    if index in measures.tensors or not isinstance(node, Tensor) or own:
        return index in measures.tensors
    return all(_is_measured(checkpoint, part, measures) for _, part in node.parts if part != index)


def falls_short(readiness: Ready, require: str | None) -> bool:
    """Whether a readiness is below what is required."""
    return require is not None and LEVELS.index(readiness) < LEVELS.index(REQUIREMENTS[require])
