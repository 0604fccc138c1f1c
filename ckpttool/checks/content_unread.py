"""The content of some tensors could not be checked.

What: The bytes of a tensor or record were not looked at, or not all of them. The finding gives the reason.

Why: What was not read may be damaged: a clean report says nothing about it.

Cause: The file ends early, the disk or network failed while reading, a view does not fit its storage, or
the content is kept in a way that this tool does not read.

Remedy: If other findings explain it (`truncated`, `view-out-of-bounds`, `encrypted-record`), follow those.
If reading failed, look at the disk's or the share's health, copy the file elsewhere and verify the copy.
"""

from __future__ import annotations

from collections.abc import Iterator

from ckpttool.checks import judges
from ckpttool.checks._content import expected_bytes, listed, reached, shown
from ckpttool.checks._places import Fault
from ckpttool.errors import printable
from ckpttool.measures import Measures
from ckpttool.model import Damage
from ckpttool.rules import Context


@judges(__doc__, "CK408", "content-unread", "warning", content=True)
def content_unread(context: Context) -> Iterator[Damage]:
    """Tensors and records that were not read whole, one finding for each reason."""
    if context.measures is None:
        return
    yield from listed("content-unread", [*_tensors(context, context.measures), *_records(context)], "reasons")


def _tensors(context: Context, measures: Measures) -> Iterator[tuple[str, Fault]]:
    reasons: dict[str, list[str]] = {}
    left = dict(measures.unread)
    for path, index in reached(context.checkpoint) if left else ():
        if (why := left.pop(index, None)) is not None:
            reasons.setdefault(why, []).append(shown(path))
    for why, keys in reasons.items():
        others = len(keys) - 1
        whose = f"the content of this and {others} other tensors" if others else "its content"
        message = f"{whose} was not checked: {printable(why)}"
        yield keys[0], (message, {"tensors": len(keys), "first": list(keys[:20])})


def _records(context: Context) -> Iterator[tuple[str, Fault]]:
    assert context.measures is not None
    for extent in context.checkpoint.extents:
        found = context.measures.spans.get(extent.name)
        needs, have = expected_bytes(extent), 0 if found is None else found.read
        if have < needs:
            message = f"only {have} of its {needs} bytes could be read"
            yield printable(extent.name), (message, {"needs": needs, "have": have})
