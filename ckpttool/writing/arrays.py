"""numpy arrays that a pickle spells out: their new bytes, where a draft changes them."""

from __future__ import annotations

from ckpttool.draft import Content, Copied, Draft, Held, Made, content_of
from ckpttool.formats.numpy_arrays import FORM
from ckpttool.model import Tensor
from ckpttool.writing.order import order_of
from ckpttool.writing.streams import Sink


def changed_arrays(draft: Draft) -> dict[int, bytes]:
    """The little-endian contents, by storage, of arrays whose bytes are no longer those of the pickle."""
    found: dict[int, bytes] = {}
    for node in draft.checkpoint.nodes:
        if isinstance(node, Tensor) and node.form == FORM and node.storage is not None:
            storage, content = draft.checkpoint.storages[node.storage], draft.contents[node.storage]
            if not _same(content, content_of(storage)):
                found[node.storage] = _little(draft, node.storage)
    return found


def _same(content: Content, original: Content) -> bool:
    if isinstance(content, Copied) and isinstance(original, Copied):
        return content.spans == original.spans
    return isinstance(content, Held) and content == original and bool(content.data or not content.nbytes)


def _little(draft: Draft, index: int) -> bytes:
    import io

    content = draft.contents[index]
    swap = 0 if isinstance(content, Made) else order_of(draft, [index], always_little=True).width(index)
    file = io.BytesIO()
    with Sink(file) as sink:
        sink.put(content, swap=swap)
    return file.getvalue()
