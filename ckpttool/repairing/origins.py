"""What the bytes of a draft are worth: those of its storages that repairs have made are worth what they came from."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping

from ckpttool.draft import Content, Copied, Draft, Made
from ckpttool.model import Span, Storage
from ckpttool.repairing.case import Proof
from ckpttool.repairing.tensors import NONE, RANK


def proofs_of(draft: Draft, proofs: Mapping[Storage, Proof]) -> dict[Storage, Proof]:
    """The worth of every storage of a draft; what is made of several is worth the worst of them."""
    origins = _Origins(proofs)
    found: dict[Storage, Proof] = {}
    for storage, content in zip(draft.checkpoint.storages, draft.contents, strict=True):
        known = proofs.get(storage)
        found[storage] = origins.of(storage, content) if known is None else known
    return found


class _Origins:
    """The storages that were read, by where their bytes lie."""

    def __init__(self, proofs: Mapping[Storage, Proof]) -> None:
        self._inline = {s.inline: proof for s, proof in proofs.items() if s.inline is not None}
        self._spans: dict[str, list[tuple[int, int, Proof]]] = {}
        for storage, proof in proofs.items():
            if storage.span is not None:
                place = (storage.span.start, storage.span.stop, proof)
                self._spans.setdefault(storage.span.source, []).append(place)
        for places in self._spans.values():
            places.sort(key=lambda place: place[:2])

    def of(self, storage: Storage, content: Content) -> Proof:
        return max(self._parts(storage, content), key=lambda proof: RANK[proof.state], default=NONE)

    def _parts(self, storage: Storage, content: Content) -> Iterator[Proof]:
        if storage.inline is not None:
            yield self._inline.get(storage.inline, NONE)
        elif isinstance(content, Made):
            spans = [given.storage.span for given in content.inputs]
            yield from (self._at(span) for span in spans if span is not None)
        elif isinstance(content, Copied):
            yield from (self._at(span) for span in content.spans)

    def _at(self, span: Span) -> Proof:
        places = self._spans.get(span.source, [])
        at = bisect_right(places, span.start, key=lambda place: place[0])
        for start, stop, proof in reversed(places[max(0, at - 2) : at]):
            if start <= span.start and span.stop <= stop:
                return proof
        return NONE
