"""Whether an index and its shards agree: keys, sizes, counts, names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence as SequenceABC
from pathlib import Path

from ckpttool.errors import printable
from ckpttool.frozen import dataclass
from ckpttool.model import Damage, Json, Node, Tensor
from ckpttool.units import plural, size

_COUNTED = re.compile(r"(.*?)(\d{5})-of-(\d{5})(.*)", re.DOTALL | re.ASCII)
_SHOWN = 5
_KEPT = 100


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard that was read: its keys with their (key, value) nodes, and the file's size.

    ``sizes`` gives each tensor's bytes and its storage, since ties are counted once by some writers.
    ``whole`` is False where its tree could not be read, so that a missing key says nothing.
    """

    name: str
    keys: dict[str, tuple[int, int]]
    sizes: dict[str, tuple[int, int | None]]
    file_bytes: int
    whole: bool = True


def size_of(nodes: tuple[Node, ...], index: int) -> tuple[int, int | None]:
    """The bytes of a tensor's logical content and its storage; nothing for anything else."""
    node = nodes[index]
    return (node.nbytes, node.storage) if isinstance(node, Tensor) else (0, None)


def judge(weight_map: dict[str, str], shards: SequenceABC[Shard], total: int | None) -> Iterator[Damage]:
    """What the index and the shards that were read disagree about."""
    yield from _lacking(weight_map, shards)
    yield from _unlisted(weight_map, shards)
    yield from _doubled(shards)
    complete = {shard.name for shard in shards if shard.whole} == set(weight_map.values())
    if total is not None and complete:
        yield from _total_size(weight_map, shards, total)


def _lacking(weight_map: dict[str, str], shards: SequenceABC[Shard]) -> Iterator[Damage]:
    expected: dict[str, list[str]] = {}
    for key, name in weight_map.items():
        expected.setdefault(name, []).append(key)
    for shard in shards:
        keys = expected.get(shard.name, [])
        gone = [key for key in keys if key not in shard.keys]
        if gone and shard.whole:
            message = f"{len(gone)} of {plural(len(keys), 'key')} of the index are not in the shard: {_some(gone)}"
            yield Damage("key-not-in-shard", shard.name, message, _facts(gone))


def _unlisted(weight_map: dict[str, str], shards: SequenceABC[Shard]) -> Iterator[Damage]:
    for shard in shards:
        new = [key for key in shard.keys if key not in weight_map]
        if new:
            message = f"{len(new)} of {plural(len(shard.keys), 'key')} are not in the index: {_some(new)}"
            yield Damage("key-not-in-index", shard.name, message, _facts(new))


def _doubled(shards: SequenceABC[Shard]) -> Iterator[Damage]:
    first: dict[str, str] = {}
    again: dict[tuple[str, str], list[str]] = {}
    for shard in shards:
        for key in shard.keys:
            if first.setdefault(key, shard.name) != shard.name:
                again.setdefault((first[key], shard.name), []).append(key)
    for (one, other), keys in again.items():
        message = f"{plural(len(keys), 'key')} in {printable(one)!r} too: {_some(keys)}"
        yield Damage("duplicate-shard-key", other, message, _facts(keys))


def _total_size(weight_map: dict[str, str], shards: SequenceABC[Shard], total: int) -> Iterator[Damage]:
    listed = [shard.sizes[key] for shard in shards for key in shard.keys if weight_map.get(key) == shard.name]
    have = sum(nbytes for nbytes, _ in listed)
    ties = {place: nbytes for nbytes, place in sorted(listed, key=_first) if place is not None}
    once = sum(ties.values()) + sum(nbytes for nbytes, place in listed if place is None)
    if total in (have, once):
        return
    files = sum(shard.file_bytes for shard in shards)
    note = "; it is the sum of the file sizes instead" if total == files else ""
    message = f"total_size is {total} ({size(total)}), and the tensors take {have} bytes ({size(have)}){note}"
    facts: dict[str, Json] = {"recorded": total, "tensors": have, "files": files}
    yield Damage("total-size", "metadata.total_size", message, facts)


# --- names -----------------------------------------------------------------------------------------------


def judge_names(folder: Path, names: SequenceABC[str]) -> Iterator[Damage]:
    """What the ``-of-N`` in the names says about the set, and which files of the folder it leaves out."""
    counted = [match for match in map(_COUNTED.fullmatch, names) if match]
    if not counted:
        return
    yield from _counts(counted)
    families = {(match[1], match[4]) for match in counted}
    beside = [name for name in _listing(folder) if name not in names]
    for name in beside:
        match = _COUNTED.fullmatch(name)
        if match and (match[1], match[4]) in families:
            message = "a shard that the index does not mention"
            yield Damage("unreferenced-shard", name, message, hint="it may belong to another save of this model")


def _counts(counted: SequenceABC[re.Match[str]]) -> Iterator[Damage]:
    for family in sorted({(match[1], match[4]) for match in counted}):
        members = [match for match in counted if (match[1], match[4]) == family]
        totals = sorted({int(match[3]) for match in members})
        where = f"{family[0]}…{family[1]}"
        if len(totals) > 1:
            shown = " and ".join(map(str, totals[:_SHOWN]))
            yield Damage("shard-count", where, f"the names count {shown} shards", {"counts": [*totals[:_KEPT]]})
            continue
        numbers = {int(match[2]) for match in members}
        first = 0 if 0 in numbers else 1
        gone = [n for n in range(first, min(totals[0], 100_000) + first) if n not in numbers]
        if gone or len(numbers) > totals[0]:
            message = f"the names say {totals[0]} shards, and the index has {len(numbers)}"
            facts: dict[str, Json] = {"needs": totals[0], "have": len(numbers), "missing": [*gone[:_KEPT]]}
            yield Damage("shard-count", where, message, facts)


def _first(pair: tuple[int, int | None]) -> int:
    return pair[0]


def _listing(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir())
    except OSError:
        return []


def _some(keys: SequenceABC[str]) -> str:
    shown = ", ".join(repr(printable(key[:200])) for key in keys[:_SHOWN])
    return shown if len(keys) <= _SHOWN else f"{shown} and {len(keys) - _SHOWN} more"


def _facts(keys: SequenceABC[str]) -> dict[str, Json]:
    return {"count": len(keys), "keys": [*keys[:_KEPT]]}
