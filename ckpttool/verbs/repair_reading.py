"""Reading what is damaged: described as far as it goes, measured, healed where a proof is left."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from ckpttool.errors import CkpttoolError, printable
from ckpttool.formats import describe
from ckpttool.limits import Limits
from ckpttool.model import Checkpoint, Finding
from ckpttool.repairing.case import Loss, Wishes
from ckpttool.verbs.repair_broken import ZIPS, Broken, Progress, Task, as_read, hurt_of, judged
from ckpttool.verbs.repair_sealed import proved_by_seal, seal_beside

HEADERS = (
    "header-malformed", "header-ambiguous", "truncated", "over-limit", "byte-swapped-size", "storage-declaration",
    "invalid-shape", "storage-size", "unowned-bytes", "not-a-checkpoint", "header-mismatch", "pickle-malformed",
    "storage-table",
)  # fmt: skip
"""Findings that say that a header, where there is one, does not let the file be read."""

UNREAD = ("storage-size", "header-malformed", "invalid-shape", "storage-declaration", "header-ambiguous")
"""Findings about one entry of a safetensors header, after which it is not read."""

ODD = ("not-canonical", "trailing-bytes")
"""Warnings that need repair where the archive's checksum of checksums proves what torch wrote instead."""


def read_broken(
    path: str | os.PathLike[str],
    like: str | os.PathLike[str] | None,
    wishes: Wishes,
    limits: Limits,
    progress: Progress | None,
) -> Broken:
    """Describe, measure, heal. Raises ``CkpttoolError`` for what is no checkpoint, ``Unreadable``."""
    donor = None if like is None else _donor(like, limits)
    return read_task(Task(os.fspath(path), donor, wishes, limits, progress))


def read_task(task: Task) -> Broken:
    """The same, for a file of a set too: what a manifest beside the checkpoint or in it proves is proved."""
    return proved_by_seal(task, _read(task))


def _read(task: Task) -> Broken:
    from ckpttool.measure import measure

    seen = describe(task.path, task.limits, audit=True)
    hurt = hurt_of(judged(seen), seen)
    special = _by_format(task, seen, hurt) if hurt else None
    if special is not None:
        return special
    if (seen.format in ZIPS and not _is_legible(hurt)) or seen.kind:
        return _opened(task, seen, hurt)
    measures = replace(measure(seen, progress=task.progress), seal=seal_beside(seen, task.path))
    findings = judged(seen, measures)
    hurt = hurt_of(findings, seen)
    special = _by_format(task, seen, hurt) if hurt and seen.format not in ZIPS else None
    if special is not None:
        return special
    whole = as_read(task, seen, hurt, measures=measures, missing=tuple(_unread(seen, hurt)))
    if seen.format not in ZIPS:
        return whole
    if not _is_legible(hurt):
        return _opened(task, seen, hurt)
    odd = tuple(f for f in findings if f.name in ODD)
    if odd:
        again = _opened(task, seen, odd)
        if again.restored is not None and again.restored.identified:
            return again
    return whole


def _by_format(task: Task, seen: Checkpoint, hurt: tuple[Finding, ...]) -> Broken | None:
    """What the format has ways of its own for; None where it has none, or needs none."""
    if seen.format == "sharded":
        from ckpttool.verbs.repair_shards import read_shards

        return read_shards(task, seen, hurt, read_task)
    if seen.format == "dcp":
        from ckpttool.verbs.repair_folders import read_folder

        return read_folder(task, seen, hurt)
    if seen.format in ZIPS or Path(task.path).is_dir() or "://" in task.path:
        return None
    if not any(finding.name in HEADERS for finding in hurt):
        return None
    from ckpttool.verbs.repair_headers import read_rebuilt

    return read_rebuilt(task, hurt)


def _opened(task: Task, seen: Checkpoint, hurt: tuple[Finding, ...]) -> Broken:
    from ckpttool.verbs.repair_archive import read_archive

    return read_archive(task, seen, hurt)


def _is_legible(hurt: Sequence[Finding]) -> bool:
    """Whether all that hurts is how records are called: the directory leads to each of them all the same."""
    return all(finding.name == "bad-record-name" for finding in hurt)


def _unread(checkpoint: Checkpoint, hurt: Sequence[Finding]) -> Iterator[Loss]:
    """Tensors that a header names and does not describe so that they can be read."""
    if checkpoint.format != "safetensors":
        return
    have = {entry.key for entry, _ in checkpoint.tensors()} | {"header", "__metadata__"}
    for finding in hurt:
        if finding.name in UNREAD and finding.where not in have:
            yield Loss(finding.where, finding.message, 0)


def _donor(path: str | os.PathLike[str], limits: Limits) -> Checkpoint:
    found = describe(path, limits)
    where = printable(os.fspath(path))
    if found.kind or found.root is None:
        raise CkpttoolError(f"{where} – this is no checkpoint that could stand in for another")
    damage = [one for one in found.damage if one.rule in ("truncated", "directory-damaged", "pickle-malformed")]
    if damage:
        raise CkpttoolError(f"{where} – is damaged itself: {damage[0].message}; name a sound one")
    return found
