"""An archive that was zipped anew, or never again after it was unzipped, as torch itself writes it."""

from __future__ import annotations

from collections.abc import Iterator

from ckpttool.model import Checkpoint
from ckpttool.plan import Step
from ckpttool.repairing.case import Case, Mended
from ckpttool.units import plural

ALIGNMENT = 64


def mend(case: Case) -> Mended:
    """Say how the archive differs from torch's own form; writing it is what mends it."""
    return Mended(case.draft, tuple(Step("repack", (), (), reason) for reason in _odds(case.draft.checkpoint)))


def _odds(checkpoint: Checkpoint) -> Iterator[str]:
    if checkpoint.format != "torch-zip":
        return
    if checkpoint.metadata.get("unzipped"):
        yield f"a folder of {plural(len(checkpoint.files), 'file')}: written as one archive"
        return
    deflated = sum(extent.method != "stored" for extent in checkpoint.extents)
    if deflated:
        yield f"{plural(deflated, 'record')} compressed: written as they are, so that they can be mapped into memory"
    astray = sum(
        s.span is not None and s.nbytes > 0 and s.span.start % ALIGNMENT != 0 and s.record != ""
        for s in checkpoint.storages
        if not s.key.startswith("ndarray ")
    )
    if astray and not deflated and checkpoint.metadata.get("storage_alignment") in (None, str(ALIGNMENT)):
        yield f"{plural(astray, 'storage')} not aligned to {ALIGNMENT} bytes"
    prefix = checkpoint.metadata.get("prefix")
    if isinstance(prefix, str) and (not prefix or "/" in prefix):
        yield f"the records lie {'under ' + prefix if prefix else 'in no folder'}, where torch has one folder for all"
