"""A set of shards, each repaired for itself; what the index puts into shards that are gone is missing by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from ckpttool.draft import Content
from ckpttool.errors import CkpttoolError, Unreadable
from ckpttool.formats import describe, sharded
from ckpttool.measures import Measures
from ckpttool.model import Checkpoint, Finding
from ckpttool.repairing.case import Loss, Proof
from ckpttool.verbs.repair_broken import Broken, Task, as_read
from ckpttool.verbs.repair_healing import Healing


def read_shards(task: Task, seen: Checkpoint, hurt: tuple[Finding, ...], read: Callable[[Task], Broken]) -> Broken:
    """Read every shard as the damaged file that it may be, and put them together. Reads each once, damaged ones twice.

    Of ``--like GOOD.index.json`` the shard of the same name stands in for each.
    """
    index = sharded.read_index(seen.source, task.limits)
    parts: dict[str, Broken] = {}
    hopeless: dict[str, str] = {}

    def member(path: str) -> Checkpoint:
        name = Path(path).name
        try:
            parts[name] = read(_of_member(task, path))
        except Unreadable:
            raise
        except CkpttoolError as error:
            hopeless[name] = str(error)
            parts[name] = as_read(task, describe(path, task.limits), ())
        return parts[name].checkpoint

    whole = sharded.read_path(seen.source, task.limits, member)
    # The shards' storages stand one after the other, as the shards were read.
    own = [one for part in parts.values() if not part.checkpoint.kind for one in _storages(part)]
    contents = tuple(content for content, _ in own)
    proofs = {storage: proof for storage, (_, proof) in zip(whole.storages, own, strict=True)}
    notes = tuple(dict.fromkeys(f"{name}: {note}" for name, part in parts.items() for note in part.notes))
    return Broken(
        whole,
        Measures(),
        contents,
        proofs,
        hurt,
        task.donor,
        notes,
        _together(parts),
        tree="donor" if any(part.tree == "donor" for part in parts.values()) else "own",
        missing=(*_missing(whole, index, hopeless), *(one for part in parts.values() for one in part.missing)),
    )


def _of_member(task: Task, path: str) -> Task:
    donor = task.donor
    if donor is not None and donor.format == "sharded":
        twin = Path(donor.source).with_name(Path(path).name)
        donor = describe(twin, task.limits) if twin.is_file() else None
    return replace(task, path=path, donor=donor)


def _storages(part: Broken) -> Iterator[tuple[Content, Proof]]:
    """Where the bytes of each storage of a shard come from now, and what they are worth."""
    for content, storage in zip(part.contents, part.checkpoint.storages, strict=True):
        yield content, part.proofs.get(storage, Proof("proved"))


def _together(parts: dict[str, Broken]) -> Healing:
    """What was had back in all shards, by record and shard."""
    contents, reasons, curable = {}, {}, {}
    for name, part in parts.items():
        contents.update({f"{name}: {record}": one for record, one in part.healing.contents.items()})
        reasons.update({f"{name}: {record}": why for record, why in part.healing.reasons.items()})
        curable.update({f"{name}: {record}": bit for record, bit in part.healing.curable.items()})
    return Healing(contents, reasons, curable)


def _missing(whole: Checkpoint, index: sharded.Index, hopeless: dict[str, str]) -> Iterator[Loss]:
    have = {entry.path[0] for entry, _ in whole.tensors() if entry.path}
    for key, shard in index.weight_map.items():
        if key not in have:
            why = hopeless.get(shard, f"its shard {shard} is not there or cannot be read")
            yield Loss(key, why, 0)
