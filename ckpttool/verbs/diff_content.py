"""The content of two checkpoints compared, pair by pair, reading only what nothing else settles."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import field, replace
from typing import TYPE_CHECKING, Literal

from ckpttool.changes import Difference, Pair, Pairing, Tolerance
from ckpttool.comparing.plain_tree import plain_tree
from ckpttool.comparing.recorded import recorded
from ckpttool.comparing.tensors import EQUAL, Outcome
from ckpttool.frozen import dataclass
from ckpttool.model import Checkpoint, Span, Tensor
from ckpttool.source import open_source
from ckpttool.verbs.diff_sides import Target, with_slices

if TYPE_CHECKING:
    from ckpttool.measure.running import Progress

QUICK = 16 << 20
"""Bytes of tensors without recorded checksums that ``quick`` reads all the same."""

BLOCK = 1 << 22

Outcomes = dict[tuple[int, int], Outcome]
Parts = list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Reading:
    """How content is read: the tolerance, the executor, where progress is told; ``quick`` believes checksums."""

    tolerance: Tolerance = field(default_factory=Tolerance)
    executor: Executor | None = None
    progress: Progress | None = None
    quick: bool = False


class Contents:
    """Answers of equal or unequal content, for pairing: digests of tensors and of slices of them."""

    def __init__(self, a: Target, b: Target, reading: Reading) -> None:
        self.sides = {"a": a, "b": b}
        self.reading = reading

    def digests(self, side: Literal["a", "b"], indices: Sequence[int]) -> Mapping[int, str]:
        """Digests by node index; in quick mode what the file records in place of them."""
        target = self.sides[side]
        if not self.reading.quick:
            return self._read(target, target.checkpoint, indices)
        return {index: repr(found) for index, found in recorded(target.checkpoint, indices).items()}

    def slices(self, side: Literal["a", "b"], index: int, dim: int, cuts: Sequence[tuple[int, int]]) -> list[str]:
        """Digests of ``[start, stop)`` along ``dim``; none where the tensor cannot be read."""
        target = self.sides[side]
        whole = _tensor(target.checkpoint, index)
        if whole.layout != "strided" or len(whole.stride) != len(whole.shape):
            return []
        checkpoint, parts = with_slices(target.checkpoint, index, dim, cuts)
        found = self._read(target, checkpoint, parts)
        return [found[part] for part in parts] if len(found) == len(parts) else []

    def _read(self, target: Target, checkpoint: Checkpoint, indices: Sequence[int]) -> dict[int, str]:
        from ckpttool.measure.digests import digests

        return digests(checkpoint, indices, executor=self.reading.executor, sources=target.sources)


def blob_digest(target: Target, span: Span) -> str:
    """The digest of a byte string that was left in its file; reads it once."""
    known = {source.name: source for source in target.sources}
    source = known.get(span.source) or open_source(span.source)
    made = hashlib.blake2b(digest_size=16)
    try:
        for start in range(span.start, span.stop, BLOCK):
            made.update(source.read(start, min(BLOCK, span.stop - start)))
    finally:
        if span.source not in known:
            source.close()
    return made.hexdigest()


def outcomes(a: Target, b: Target, pairing: Pairing, reading: Reading) -> Outcomes:
    """What comparing each pair came to, by node indices; pairs of other shapes are left out unless they are equal.

    Reads both sides of what neither pairing nor, with ``quick``, recorded checksums settle.
    """
    pairs = {(pair.a.index, pair.b.index): pair for pair in pairing.pairs}
    found: Outcomes = {}
    parts: dict[tuple[int, int], Parts] = {}
    other_shape: list[tuple[int, int]] = []
    for key, pair in pairs.items():
        ours, theirs = _tensor(a.checkpoint, key[0]), _tensor(b.checkpoint, key[1])
        if _settled(pair, ours, theirs):
            found[key] = EQUAL
        elif ours.shape != theirs.shape:
            if ours.numel == theirs.numel and ours.dtype == theirs.dtype:
                other_shape.append(key)
        else:
            compared = _parts(a.checkpoint, b.checkpoint, key)
            if isinstance(compared, Outcome):
                found[key] = compared
            else:
                parts[key] = compared
    if reading.quick:
        found |= _as_saved(a, b, parts)
    else:
        found |= _same_bytes(a, b, other_shape, reading)
    found |= _measured(a, b, {key: listed for key, listed in parts.items() if key not in found}, reading)
    return found


def _tensor(checkpoint: Checkpoint, index: int) -> Tensor:
    node = checkpoint.nodes[index]
    assert isinstance(node, Tensor)
    return node


def _settled(pair: Pair, ours: Tensor, theirs: Tensor) -> bool:
    """Whether the way in which they were paired proves equal content."""
    if pair.how in ("split", "concat"):
        return True
    return pair.how == "content" and ours.dtype == theirs.dtype


def _parts(a: Checkpoint, b: Checkpoint, pair: tuple[int, int]) -> Parts | Outcome:
    """The strided tensors to compare for a pair, or what comes of it without any."""
    found: Parts = []
    stack = [pair]
    for _ in range(1000):  # hostile files nest parts in parts without end
        if not stack:
            return found or EQUAL
        i, j = stack.pop()
        ours, theirs = a.nodes[i], b.nodes[j]
        if not isinstance(ours, Tensor) or not isinstance(theirs, Tensor):
            if plain_tree(a, i) != plain_tree(b, j):
                return Outcome(False, False, note="what it is made of differs")
            continue
        if "chunked" in (ours.layout, theirs.layout) and ours.dense and theirs.dense:
            found += [(i, j)] if ours.numel else []
            continue
        names = [name for name, _ in ours.parts], [name for name, _ in theirs.parts]
        if ours.layout != theirs.layout or names[0] != names[1]:
            return Outcome(None, False, why=f"{ours.layout} against {theirs.layout}")
        if (ours.storage is None) is not (theirs.storage is None):
            return Outcome(None, False, why="one side has no content")
        if ours.shape != theirs.shape:
            return Outcome(False, False, note="parts of other sizes")
        if ours.storage is not None and ours.numel:
            found.append((i, j))
        stack.extend((x, y) for (_, x), (_, y) in zip(ours.parts, theirs.parts, strict=True))
    return Outcome(None, False, why="too many parts")


def _as_saved(a: Target, b: Target, parts: Mapping[tuple[int, int], Parts]) -> Outcomes:
    """Equality and difference as recorded checksums have them; the rest only where it is little."""
    ours = recorded(a.checkpoint, (i for listed in parts.values() for i, _ in listed))
    theirs = recorded(b.checkpoint, (j for listed in parts.values() for _, j in listed))
    found: Outcomes = {}
    rest: list[tuple[int, int]] = []
    for key, listed in parts.items():
        known = [(ours[i], theirs[j]) for i, j in listed if i in ours and j in theirs]
        # Of other types or algorithms the records say nothing about equal values.
        alike = [(x, y) for x, y in known if (x[0], *x[2:]) == (y[0], *y[2:])]
        if len(alike) < len(listed):
            rest.append(key)
        elif all(x == y for x, y in alike):
            found[key] = EQUAL
        else:
            found[key] = Outcome(False, False, note="recorded checksums differ")
    little = sum(_nbytes(a.checkpoint, parts[key]) + _nbytes(b.checkpoint, parts[key], 1) for key in rest) <= QUICK
    if not little:
        found |= {key: Outcome(None, False, why="no comparable checksums are recorded") for key in rest}
    return found


def _nbytes(checkpoint: Checkpoint, listed: Iterable[tuple[int, int]], side: int = 0) -> int:
    return sum(_tensor(checkpoint, pair[side]).nbytes for pair in listed)


def _same_bytes(a: Target, b: Target, pairs: list[tuple[int, int]], reading: Reading) -> Outcomes:
    """Pairs of one size and type in another shape: whether the content is the same."""
    if not pairs:
        return {}
    contents = Contents(a, b, reading)
    ours = contents.digests("a", [i for i, _ in pairs])
    theirs = contents.digests("b", [j for _, j in pairs])
    found: Outcomes = {}
    for i, j in pairs:
        if i in ours and j in theirs:
            same = ours[i] == theirs[j]
            found[i, j] = replace(EQUAL, note="same content") if same else Outcome(False, False, note="")
    return found


def _measured(
    a: Target, b: Target, parts: Mapping[tuple[int, int], Parts], reading: Reading
) -> Iterable[tuple[tuple[int, int], Outcome]]:
    if not parts:
        return {}.items()
    from ckpttool.measure.difference import differences

    measured = differences(
        a.checkpoint,
        b.checkpoint,
        list(dict.fromkeys(pair for listed in parts.values() for pair in listed)),
        tolerance=reading.tolerance,
        executor=reading.executor,
        progress=reading.progress,
        sources=(*a.sources, *b.sources),
    )
    changed = [pair for pair, found in measured.items() if found.changed]
    ours = recorded(a.checkpoint, (i for i, _ in changed))
    theirs = recorded(b.checkpoint, (j for _, j in changed))
    agreed = {(i, j) for i, j in changed if i in ours and ours[i] == theirs.get(j)}
    return {
        key: _outcome([measured[pair] for pair in listed], any(pair in agreed for pair in listed))
        for key, listed in parts.items()
    }.items()


def _outcome(found: Sequence[Difference], agreed: bool) -> Outcome:
    """The parts' differences as one: that of the part with most changed elements stands for all."""
    most = max(found, key=lambda one: (one.changed, one.numel))
    complete = all(one.compared == one.numel for one in found)
    equal = not any(one.changed for one in found)
    if equal and not complete:
        seen, numel = sum(one.compared for one in found), sum(one.numel for one in found)
        return Outcome(None, False, why=f"only {seen:,} of {numel:,} elements could be compared")
    if equal:
        return EQUAL
    close = all(not one.beyond for one in found) and complete
    return Outcome(False, close, most, "" if complete else "a part could not be read", agreed)


def unread(outcomes: Mapping[tuple[int, int], Outcome], pairs: Iterable[Pair]) -> Iterator[tuple[str, str]]:
    """Keys of pairs whose content was not compared, or not wholly, and why."""
    for pair in pairs:
        outcome = outcomes.get((pair.a.index, pair.b.index))
        if outcome is not None and outcome.why:
            yield pair.b.key, outcome.why
