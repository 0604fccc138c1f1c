"""What damage has left: whole tensors stay, the rest is left out or completed, optimizer state stays consistent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from ckpttool.draft import Copied
from ckpttool.dtypes import DType
from ckpttool.editing import Editor
from ckpttool.frozen import dataclass
from ckpttool.model import Checkpoint, Storage, Tensor
from ckpttool.plan import Step
from ckpttool.repairing.case import Case, Loss, Mended, Proof, Wishes
from ckpttool.repairing.filling import filled, from_donor
from ckpttool.repairing.removing import orphaned, remove, take_aside
from ckpttool.repairing.tensors import chunked_in, missing_of, worth

FRESH = "its optimizer state begins afresh: part of it, or its parameter, is lost"
SPARED = "whole, but its optimizer cannot use it: part of that state, or its parameter, is lost"


def mend(case: Case) -> Mended:
    """Leave out what is not whole or not proved, or complete it where asked."""
    checkpoint = case.draft.checkpoint
    bad = dict(_condemned(checkpoint, case))
    if not bad:
        return Mended(case.draft, notes=tuple(_unproved_notes(case)))
    editor = Editor(checkpoint, case.draft.contents)
    made = _filled(case, editor, bad) if case.wishes.fill else {}
    replaced = _replaced(case, editor, bad)
    gone = {
        index
        for index in bad
        if index not in replaced and not _is_complete(checkpoint, index, case.proofs, case.wishes, made)
    }
    stale = orphaned(checkpoint, case.layout, gone)
    remove(editor, gone)
    aside = take_aside(editor, stale)
    left = {index: key for index, key in stale.items() if index not in aside}
    lost = tuple(_losses(checkpoint, case, bad, gone, made, left, replaced))
    steps = (
        *_steps(lost),
        *(Step("drop", (key,), (), FRESH, FRESH) for key in left.values()),
        *(Step("set-aside", (stale[index],), (key,), SPARED) for index, key in aside.items()),
    )
    return Mended(editor.finish(), steps, lost, tuple(_unproved_notes(case)))


# --- what cannot stay ------------------------------------------------------------------------------------------


def _condemned(checkpoint: Checkpoint, case: Case) -> Iterator[tuple[int, Proof]]:
    """Nodes of tensors that the output may not hold as they are."""
    seen: set[int] = set()
    for entry, _ in checkpoint.tensors():
        if entry.index in seen:
            continue
        seen.add(entry.index)
        proof = worth(checkpoint, entry.index, case.proofs)
        if not acceptable(proof, case.wishes):
            yield entry.index, proof


def acceptable(proof: Proof, wishes: Wishes) -> bool:
    """Whether a tensor of this worth goes into the output as it is."""
    if proof.state in ("proved", "unprovable"):
        return True
    return wishes.include_unproved and proof.state in ("unproved", "damaged")


def _unproved_notes(case: Case) -> Iterator[str]:
    if any(proof.state == "unprovable" for proof in case.proofs.values()):
        yield (
            "the file has no checksums: tensors are kept where they are whole, and nothing proves that they are "
            "what was written"
        )


# --- what is completed -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Views:
    """The tensors that look into one storage."""

    keys: tuple[tuple[str, Tensor], ...]

    @property
    def dtype(self) -> DType | None:
        found = {tensor.dtype for _, tensor in self.keys}
        return next(iter(found)) if len(found) == 1 else None


def _filled(case: Case, editor: Editor, bad: Mapping[int, Proof]) -> dict[int, str]:
    """Give storages that are not whole a made-up content; in words with what, by storage."""
    checkpoint, how = case.draft.checkpoint, case.wishes.fill
    made: dict[int, str] = {}
    for index, views in _views(checkpoint, bad).items():
        storage = checkpoint.storages[index]
        proof = case.proofs.get(storage)
        if proof is None or acceptable(proof, case.wishes):
            continue
        if how == "donor":
            content = None if case.donor is None else from_donor(storage, proof, views.keys, case.donor)
            words = "" if case.donor is None else f"the tensor of {case.donor.source}"
        else:
            content, words = filled(storage, proof, how, views.dtype)
        if content is not None:
            editor.contents[index] = content
            made[index] = words
    return made


def _replaced(case: Case, editor: Editor, bad: Mapping[int, Proof]) -> dict[int, str]:
    """Give tensors of which no chunk is left a whole content; in words with what, by node."""
    checkpoint, how = case.draft.checkpoint, case.wishes.fill
    given = {} if case.donor is None else {entry.key: tensor for entry, tensor in case.donor.tensors()}
    made: dict[int, str] = {}
    for entry, tensor in checkpoint.tensors() if how else ():
        if entry.index not in bad or tensor.layout != "chunked" or tensor.parts or entry.index in made:
            continue
        dense = replace(tensor, layout="strided", offset=0)
        storage = Storage("", tensor.dtype, tensor.nbytes)
        other = given.get(entry.key)
        if how != "donor":
            content, words = filled(storage, bad[entry.index], how, tensor.dtype)
        elif case.donor is not None and other is not None and other.storage is not None:
            storage = case.donor.storages[other.storage]
            if (other.dtype, other.shape, other.stride, other.offset) != (
                dense.dtype, dense.shape, dense.stride, dense.offset,
            ) or storage.span is None:  # fmt: skip
                continue
            content, words = Copied((storage.span,), storage.checksum), f"the tensor of {case.donor.source}"
        else:
            continue
        editor.replace(entry.index, replace(dense, storage=editor.storage(storage, content)))
        made[entry.index] = words
    return made


def _views(checkpoint: Checkpoint, bad: Mapping[int, Proof]) -> dict[int, _Views]:
    found: dict[int, list[tuple[str, Tensor]]] = {}
    for entry, top in checkpoint.tensors():
        if entry.index not in bad:
            continue
        for tensor in _with_parts(checkpoint, top):
            if tensor.storage is not None:
                found.setdefault(tensor.storage, []).append((entry.key, tensor))
    return {index: _Views(tuple(views)) for index, views in found.items()}


def _with_parts(checkpoint: Checkpoint, tensor: Tensor) -> Iterator[Tensor]:
    stack, seen = [tensor], set[int]()
    while stack:
        top = stack.pop()
        yield top
        for _, index in top.parts:
            node = checkpoint.nodes[index]
            if index not in seen and isinstance(node, Tensor):
                seen.add(index)
                stack.append(node)


def _is_complete(
    checkpoint: Checkpoint, index: int, proofs: Mapping[Storage, Proof], wishes: Wishes, made: Mapping[int, str]
) -> bool:
    node = checkpoint.nodes[index]
    assert isinstance(node, Tensor)
    for tensor in _with_parts(checkpoint, node):
        if tensor.layout == "chunked" and chunked_in(tensor, checkpoint) < tensor.numel:
            return False
        if tensor.storage is None or tensor.storage in made:
            continue
        proof = proofs.get(checkpoint.storages[tensor.storage])
        if proof is not None and not acceptable(proof, wishes):
            return False
    return True


# --- what is told ----------------------------------------------------------------------------------------------


def _losses(
    checkpoint: Checkpoint,
    case: Case,
    bad: Mapping[int, Proof],
    gone: set[int],
    made: Mapping[int, str],
    stale: Mapping[int, str],
    replaced: Mapping[int, str],
) -> Iterator[Loss]:
    under = tuple(f"{key}." for key in stale.values())
    for entry, tensor in checkpoint.tensors():
        proof = bad.get(entry.index)
        if proof is not None:
            words = "" if entry.index in gone else _with_what(checkpoint, tensor, made)
            words = replaced.get(entry.index, words)
            yield Loss(entry.key, proof.reason, tensor.numel, missing_of(checkpoint, tensor, proof), words)
        elif under and entry.key.startswith(under):
            yield Loss(entry.key, FRESH, tensor.numel)


def _with_what(checkpoint: Checkpoint, tensor: Tensor, made: Mapping[int, str]) -> str:
    words = [made.get(part.storage, "") for part in _with_parts(checkpoint, tensor) if part.storage is not None]
    return next((one for one in words if one), "")


def _steps(lost: tuple[Loss, ...]) -> Iterator[Step]:
    for loss in lost:
        if loss.reason is FRESH:
            continue
        if loss.filled:
            yield Step("fill", (loss.key,), (loss.key,), f"{loss.reason}; completed with {loss.filled}", loss.reason)
        else:
            yield Step("drop", (loss.key,), (), loss.reason, loss.reason)
