"""Files without checksums whose headers do not let them be read: made out again, by their layout or another file."""

from __future__ import annotations

from ckpttool.formats import plain_salvage
from ckpttool.model import Finding
from ckpttool.repairing.case import Loss
from ckpttool.source import open_source
from ckpttool.verbs.repair_broken import Broken, Task, as_read


def read_rebuilt(task: Task, hurt: tuple[Finding, ...]) -> Broken | None:
    """The file with a header that can be read; None where it does not need that, or nothing helps."""
    source = open_source(task.path)
    try:
        found = plain_salvage.rebuild(source, task.limits, task.donor)
    finally:
        source.close()
    if found is None:
        return None
    why = "its entry in the header is damaged" if found.checkpoint.format == "safetensors" else "it cannot be read"
    missing = tuple(Loss(name, why, 0) for name in found.lost)
    return as_read(task, found.checkpoint, hurt, notes=found.notes, tree=found.tree, missing=missing)
