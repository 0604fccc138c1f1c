"""The file that ``torch.save`` wrote before torch 1.6: five pickles, then each storage after its element count.

It records no checksum. Types that came later (float8, uint16, …) are written as bytes whose tensors say their
type, as torch reads them since 2.3; what torch 2.13 itself makes of them it cannot read.
Source: torch 2.13 ``torch/serialization.py`` ``_legacy_save``, ``_legacy_load``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable

from ckpttool.draft import Draft
from ckpttool.errors import WriteFailed, printable
from ckpttool.formats import pickle_spelling as spell
from ckpttool.formats.pickle_emitter import Emitter
from ckpttool.formats.torch_legacy import MAGIC, NAME, PROTOCOL
from ckpttool.formats.torch_spelling import Spelled, spelled_storages
from ckpttool.stamps import KEY, note_of
from ckpttool.writing import torch_zip
from ckpttool.writing.arrays import changed_arrays
from ckpttool.writing.losses import Loss
from ckpttool.writing.order import Order, order_of
from ckpttool.writing.streams import Sink

SUFFIXES: tuple[str, ...] = ()
"""None of its own: it is asked for by name."""

SYSTEM = {"short": 2, "int": 4, "long": 4}
"""What torch writes on every platform, whatever the sizes there."""

__all__ = ["NAME", "SUFFIXES", "losses", "write"]


def write(draft: Draft, sink: Sink, *, progress: Callable[[int], None] | None = None) -> None:
    """Write a draft as torch did before 1.6. Deterministic; memory: the pickle, and the largest computed tensor.

    Storages are little-endian, as its loader reads them everywhere. ``progress`` is called with bytes
    written. Raises ``WriteFailed`` for storages whose bytes are not all there and for TorchScript archives,
    ``Unreadable``, ``OSError``.
    """
    torch_zip.refuse_code(draft)
    kept = torch_zip.keeps_keys(draft)
    emitter = Emitter(draft.checkpoint, legacy=True, arrays=changed_arrays(draft), renumber=not kept)
    pickled = emitter.run()
    storages, spelled = draft.checkpoint.storages, spelled_storages(draft.checkpoint, legacy=True)
    keys = {storages[i].key if kept else str(number): i for i, number in emitter.mentioned.items()}
    for part in (_integer(MAGIC), _integer(PROTOCOL), _system(), pickled, _key_list(sorted(keys))):
        sink.write(part)
    order = order_of(draft, emitter.mentioned, always_little=True)
    for key in sorted(keys):
        _write_storage(draft, sink, keys[key], spelled[keys[key]], order)
        if progress is not None:
            progress(draft.contents[keys[key]].nbytes)


def losses(draft: Draft) -> tuple[Loss, ...]:
    """What such a file does not carry: what an archive does not either, and checksums."""
    found = torch_zip.losses(draft)
    if note_of(draft.checkpoint.metadata):
        found += (Loss(KEY, "record of migrations", "the format has no place for it"),)
    if any(storage.checksum is not None for storage in draft.checkpoint.storages):
        found += (Loss("", "checksums", "the format records none", "form"),)
    return found


def _write_storage(draft: Draft, sink: Sink, index: int, spelled: Spelled, order: Order) -> None:
    content = draft.contents[index]
    if content.nbytes != draft.checkpoint.storages[index].nbytes:
        key, needs = printable(draft.checkpoint.storages[index].key), draft.checkpoint.storages[index].nbytes
        why = f"storage '{key}' has {content.nbytes} bytes and its tensors need {needs}: none after it could be found"
        raise WriteFailed(draft.checkpoint.source, why)
    sink.write(struct.pack("<q", spelled.numel))
    sink.put(content, swap=order.width(index))


# --- the small pickles -----------------------------------------------------------------------------------


def _pickle(*parts: bytes) -> bytes:
    return b"".join((b"\x80\x02", *parts, spell.STOP))


def _integer(value: int) -> bytes:
    return _pickle(spell.integer(value))


def _system() -> bytes:
    """``{protocol_version: 1001, little_endian: True, type_sizes: {…}}``."""
    sizes = [
        part
        for slot, (name, size) in enumerate(SYSTEM.items(), 5)
        for part in (spell.text(name), spell.put(slot), spell.integer(size))
    ]
    return _pickle(
        spell.EMPTY_DICT, spell.put(0), spell.MARK,
        spell.text("protocol_version"), spell.put(1), spell.integer(PROTOCOL),
        spell.text("little_endian"), spell.put(2), spell.TRUE,
        spell.text("type_sizes"), spell.put(3), spell.EMPTY_DICT, spell.put(4), spell.MARK, *sizes, spell.SETITEMS,
        spell.SETITEMS,
    )  # fmt: skip


def _key_list(keys: Iterable[str]) -> bytes:
    """The storages' keys as a list, in batches as CPython writes them."""
    found = list(keys)
    texts = [spell.text(key) + spell.put(slot) for slot, key in enumerate(found, 1)]
    parts = [spell.EMPTY_LIST, spell.put(0)]
    for start in range(0, len(texts), spell.BATCH):
        batch = texts[start : start + spell.BATCH]
        single = len(texts) == 1
        parts += [*batch, spell.APPEND] if single else [spell.MARK, *batch, spell.APPENDS]
    return _pickle(*parts)
