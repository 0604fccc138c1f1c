"""Whether a checkpoint of a run is complete, told from itself and from its siblings. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal, TypeAlias

from ckpttool.verbs.verify_target import Target

State: TypeAlias = Literal["complete", "partial", "damaged", "in progress", "unreadable", "not a checkpoint"]

_GAPS = frozenset(
    "truncated missing-record missing-shard key-not-in-shard storage-missing unfinished-save shard-count "
    "sealed-file-missing unreadable-part zero3-placeholders".split()
)
"""Rules whose findings mean that something which was to be saved is not there."""


def states(targets: Sequence[Target]) -> list[tuple[State, tuple[str, ...]]]:
    """For each target whether it is complete, and what it lacks.

    A part that more than half of the run's other checkpoints of the same writer have is expected of each.
    """
    usual = _usual(targets)
    return [_state(target, usual.get(_kin(target), frozenset())) for target in targets]


def _state(target: Target, usual: frozenset[str]) -> tuple[State, tuple[str, ...]]:
    if target.checkpoint is None:
        return "unreadable", (target.error,)
    if target.checkpoint.kind:
        return "not a checkpoint", (target.checkpoint.kind,)
    gaps = [f"{f.where}: {f.message}" for f in target.findings if f.name in _GAPS and f.severity == "error"]
    lacks = [part for part in target.layout.readiness.lacks if part in usual]
    if any(f.name == "in-progress" for f in target.findings):
        return "in progress", (*gaps, *lacks)
    if gaps or lacks:
        return "partial", (*gaps, *lacks)
    damaged = target.verdict is not None and target.verdict.integrity == "damaged"
    return ("damaged" if damaged else "complete"), ()


def _usual(targets: Sequence[Target]) -> dict[object, frozenset[str]]:
    """By kin the parts that more than half of them have; of two neither outvotes the other."""
    found: dict[object, Counter[str]] = {}
    sizes: Counter[object] = Counter()
    for target in targets:
        sizes[_kin(target)] += 1
        found.setdefault(_kin(target), Counter()).update(target.layout.readiness.has)
    return {
        kin: frozenset(part for part, count in parts.items() if 2 * count > sizes[kin]) for kin, parts in found.items()
    }


def _kin(target: Target) -> object:
    """What checkpoints of one run have in common."""
    if target.checkpoint is None:
        return None
    writer = target.layout.writer
    return target.checkpoint.format, None if writer is None else writer.framework
