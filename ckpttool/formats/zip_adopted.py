"""Another checkpoint's tree over the payloads of an archive that has lost its own."""

from __future__ import annotations

from dataclasses import replace

from ckpttool.formats.torch_zip import NAME
from ckpttool.model import Checkpoint, Checksum, Extent, Span, Storage


def adopted(donor: Checkpoint, found: Checkpoint, prefix: str) -> Checkpoint:
    """The donor's tree over the payloads of a file that has lost its own: storages matched by key and size."""
    extents = {extent.name: extent for extent in found.extents}
    storages = tuple(
        _taken(storage, extents.get(f"{prefix}data/{storage.key}"), prefix) for storage in donor.storages
    )
    return replace(
        found,
        format=NAME if donor.format not in ("torch-zip",) else donor.format,
        nodes=donor.nodes,
        root=donor.root,
        storages=storages,
        globals=donor.globals,
    )


def _taken(storage: Storage, extent: Extent | None, prefix: str) -> Storage:
    record = f"{prefix}data/{storage.key}"
    bare = replace(storage, span=None, checksum=None, record=record)
    if storage.inline is not None or extent is None:
        return storage if storage.inline is not None else bare
    whole = extent.span.nbytes if extent.size is None else extent.size
    fits = whole == storage.nbytes or (whole < storage.nbytes and extent.checksum is None)
    if not fits:
        return bare
    checksum: Checksum | None = extent.checksum
    return replace(
        bare, span=Span(extent.span.source, extent.span.start, extent.span.stop), checksum=checksum
    )
