"""Another checkpoint's tree over the payloads of an archive that has lost its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import SequenceMatcher

from ckpttool.formats.natural import natural
from ckpttool.formats.torch_zip import NAME
from ckpttool.model import Checkpoint, Checksum, Extent, Span, Storage


def adopted(donor: Checkpoint, found: Checkpoint, prefix: str) -> Checkpoint:
    """The donor's tree over the payloads of a file that has lost its own.

    Storages are matched by key and size; where the sizes say that the donor was saved in another order, by the order
    in which the sizes agree, and what is left by size where only one payload has it.
    """
    extents = {extent.name: extent for extent in found.extents}
    keys = _keys(donor, {k: _size(e) for k, e in _payloads(extents, prefix).items()})
    storages = tuple(
        _taken(storage, extents.get(f"{prefix}data/{keys.get(storage.key, storage.key)}"), prefix)
        for storage in donor.storages
    )
    return replace(
        found,
        format=NAME if donor.format not in ("torch-zip",) else donor.format,
        nodes=donor.nodes,
        root=donor.root,
        storages=storages,
        globals=donor.globals,
    )


def _payloads(extents: Mapping[str, Extent], prefix: str) -> dict[str, Extent]:
    home = f"{prefix}data/"
    return {name.removeprefix(home): one for name, one in extents.items() if name.startswith(home)}


def _size(extent: Extent) -> int:
    return extent.span.nbytes if extent.size is None else extent.size


def _keys(donor: Checkpoint, sizes: Mapping[str, int]) -> dict[str, str]:
    """Which key each of the donor's storages has here; empty where all have their own."""
    wanted = [s for s in donor.storages if s.inline is None]
    # A payload that is cut off is shorter than it should be, and stays where it is.
    if all(sizes.get(s.key, s.nbytes) <= s.nbytes for s in wanted) and _mostly(wanted, sizes):
        return {}
    here = sorted(sizes, key=natural)
    blocks = SequenceMatcher(
        None, [s.nbytes for s in wanted], [sizes[key] for key in here], autojunk=False
    ).get_matching_blocks()
    homes = {wanted[a + i].key: here[b + i] for a, b, count in blocks for i in range(count)}
    taken = set(homes.values())
    left = [s for s in wanted if s.key not in homes]
    for storage in left:
        same = [key for key in here if key not in taken and sizes[key] == storage.nbytes]
        if len(same) == 1 and sum(s.nbytes == storage.nbytes for s in left) == 1:
            homes[storage.key] = same[0]
    return {**{s.key: "" for s in wanted}, **homes}


def _mostly(wanted: Sequence[Storage], sizes: Mapping[str, int]) -> bool:
    """Whether hardly any payload is shorter than the donor's of the same key: those that are cut off are few."""
    shorter = sum(sizes.get(s.key, s.nbytes) < s.nbytes for s in wanted)
    return shorter <= max(1, len(wanted) // 100)


def _taken(storage: Storage, extent: Extent | None, prefix: str) -> Storage:
    record = f"{prefix}data/{storage.key}" if extent is None else extent.name
    bare = replace(storage, span=None, checksum=None, record=record)
    if storage.inline is not None or extent is None:
        return storage if storage.inline is not None else bare
    whole = extent.span.nbytes if extent.size is None else extent.size
    fits = whole == storage.nbytes or (whole < storage.nbytes and extent.checksum is None)
    if not fits:
        return bare
    checksum: Checksum | None = extent.checksum
    return replace(bare, span=Span(extent.span.source, extent.span.start, extent.span.stop), checksum=checksum)
