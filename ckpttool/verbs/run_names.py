"""What the names of a run's checkpoints say: how far training was, and which files are one checkpoint. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

UNITS = ("step", "iteration", "checkpoint", "epoch", "number")
"""What a name may count, the finest first; a ``checkpoint`` is numbered by any of the others."""


def _counter(words: str) -> re.Pattern[str]:
    return re.compile(rf"(?:^|[^a-z])(?:{words})[-_=.]?0*(\d+)(?!\d)")


_PATTERNS = (
    _counter("global[-_]?step|step|steps"),
    _counter("ba|iter|iteration|iters|update|updates"),
    _counter("checkpoint|ckpt"),
    _counter("ep|epoch|epochs"),
)
_BATCH = _counter("batch")
"""In the name of a folder that is a setting; in that of a file it counts."""

_FAIRSEQ = re.compile(r"^checkpoint_\d+_0*(\d+)\.")
"""The epoch and the number of updates. Source: fairseq 0.12 ``checkpoint_utils.save_checkpoint``."""

_PLAIN = re.compile(r"(?:^|[-_.=])0*(\d+)(?=$|[-_.])")

_PART = re.compile(
    r"(?<![a-z0-9])(?:mp_rank_\d+(?:_\d+)*|(?:tp|pp|dp|ep)?_?(?:rank|shard|worker)[-_]?\d+)|-\d{5}-of-\d{5}|"
    r"(?<=^consolidated\.)\d+",
    re.IGNORECASE,
)
"""What tells the parts of one checkpoint apart: ranks, shards, LLaMA's model-parallel parts."""

_NUMBER = re.compile(r"\d+(?:\.\d+)?")


@dataclass(frozen=True, slots=True)
class Named:
    """What the name of a checkpoint's file or folder, relative to the run's folder, says.

    ``counts`` are pairs of a unit's index in ``UNITS`` and a number, the finest unit first; empty where the name
    counts nothing. ``place`` is the file or folder that has the number: all below it is one checkpoint, with
    ``member`` the name in it. ``series`` is what its siblings have in common: the folder, and the name without its
    numbers. ``ranked`` says that ``place`` stands for several files, one for each rank.
    """

    counts: tuple[tuple[int, int], ...]
    place: str
    member: str
    series: tuple[str, str]
    ranked: bool = False


def named(inside: str) -> Named:
    """Read a path relative to the run's folder, with ``/`` between its parts."""
    parts = inside.split("/")
    for at in reversed(range(len(parts))):
        last = at == len(parts) - 1
        counts = _counts(_PART.sub("", parts[at].lower()), last)
        if counts:
            return _at(parts, at, counts)
    plain = _PLAIN.findall(_PART.sub("", parts[-1].lower()))
    counts = ((len(_PATTERNS), int(plain[-1])),) if plain else ()
    return _at(parts, len(parts) - 1, counts)


def _counts(name: str, is_file: bool) -> tuple[tuple[int, int], ...]:
    found = []
    for unit, pattern in enumerate(_PATTERNS):
        numbers = pattern.findall(name)
        if unit == 1 and not numbers:
            numbers = _FAIRSEQ.findall(name) or (_BATCH.findall(name) if is_file else [])
        if numbers:
            found.append((unit, int(numbers[-1])))
    return tuple(found)


def _at(parts: Sequence[str], at: int, counts: tuple[tuple[int, int], ...]) -> Named:
    folder, name, rest = parts[:at], parts[at], parts[at + 1 :]
    shared = name if rest else _PART.sub("*", name)
    series = "/".join(folder) or ".", _NUMBER.sub("*", shared) if counts else shared
    ranked = shared != name
    member = "".join(_PART.findall(name)) if ranked else "/".join(rest)
    return Named(counts, "/".join([*folder, shared]), member, series, ranked)


def counted(name: str) -> tuple[int, int]:
    """The finest that a name counts, as the unit's index and the number; ``(-1, -1)`` where it has no number.

    Of several places in a path the innermost counts.
    """
    counts = named(name).counts
    return counts[0] if counts else (-1, -1)


def lacking(members: Collection[str], all_members: Mapping[str, int], others: int) -> tuple[str, ...]:
    """The parts that more than half of the others have, and this one has not although it has their like.

    ``all_members`` counts each part over all siblings. A rank that is missing is a gap; a file of another kind, which
    the last checkpoint of a run may do without, is not.
    """
    kinds = {_PART.sub("*", member) for member in members}
    return tuple(
        sorted(
            member
            for member, count in all_members.items()
            if 2 * count > others and member not in members and _PART.sub("*", member) in kinds
        )
    )
