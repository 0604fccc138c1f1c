"""Plain pickles: what ``pickle.dump`` wrote, alone or several in a row (detectron2's zoo, StyleGAN, RNG states)."""

from __future__ import annotations

from ckpttool.formats import torch_legacy
from ckpttool.formats.pickle_machine import Machine
from ckpttool.formats.pickled import Reading, lift_arrays, note_globals, read_pickle
from ckpttool.limits import Limits
from ckpttool.model import Checkpoint, Extent, Span
from ckpttool.source import Source

NAME = "pickle"

_TEXT_STARTS = frozenset(b"(]}clIFSVNKJMLG)")
_SMALL = 1 << 20


def sniff(source: Source) -> bool:
    """Whether the file starts with a pickle protocol, or is one of protocol 0 or 1 that ends as it should."""
    if torch_legacy.sniff(source):
        return False
    head = source.read(0, 2)
    if len(head) == 2 and head[0] == 0x80:
        return 2 <= head[1] <= 5 or _runs(source)
    return bool(head) and head[0] in _TEXT_STARTS and _runs(source)


def _runs(source: Source) -> bool:
    outcome = Machine(source.read(0, _SMALL), limits=Limits(operations=200_000)).run()
    return outcome.complete and outcome.end > 2


def read(source: Source, limits: Limits) -> Checkpoint:
    """Describe the first pickle's tree; the globals of every pickle in the file are gathered."""
    reading = Reading(source.name, limits)
    size = min(source.size, limits.pickle_bytes)
    data = source.window(0, source.size)
    tree = read_pickle(reading, data, "pickle")
    end = tree.outcome.end
    if tree.outcome.cut:
        message = f"the pickle ends early, at byte {source.size}"
        reading.report("truncated", f"byte {source.size}", message, "fetch the file again")
    count = 1
    while tree.outcome.complete and end < size and count < 1000:
        after = Machine(data, end, limits=limits).run()
        note_globals(reading, after.names, f"pickle {count + 1}")
        if not after.complete:
            break
        count, end = count + 1, after.end
    if tree.outcome.complete and end < source.size:
        reading.report(
            "trailing-bytes",
            f"byte {end}",
            f"{source.size - end} bytes follow the last pickle",
            bytes=source.size - end,
        )
    nodes, storages = lift_arrays(reading, tuple(reading.storages), "pickle")
    return Checkpoint(
        source.name,
        NAME,
        nodes,
        tree.root,
        storages,
        (Extent("pickle", Span(source.name, 0, end)),),
        tuple(reading.globals),
        tuple(reading.damage),
        (source.name,),
        source.size,
        {"protocol": tree.outcome.protocol, "pickles": count, "crc_recorded": False},
    )
