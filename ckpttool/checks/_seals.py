"""What the rules on seals share: the files that are not what they were, and whether by damage or by a rewrite."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ckpttool.checks import rules
from ckpttool.checks._content import contradicted, expected_bytes
from ckpttool.manifest import FileSeal, Sealed, TensorSeal
from ckpttool.rules import Context


@dataclass(frozen=True, slots=True)
class Altered:
    """A sealed file that is not what it was. ``why`` says what tells damage from a rewrite, or that nothing does."""

    file: FileSeal
    nbytes: int
    blocks: tuple[int, ...]
    kind: Literal["damaged", "edited"]
    why: str


def seal_of(context: Context) -> Sealed | None:
    """The manifest that could be read, and what was found beside it."""
    seal = None if context.measures is None else context.measures.seal
    return seal if seal is not None and seal.manifest is not None else None


def altered(context: Context) -> Iterator[Altered]:
    """Every sealed file that is there and not what it was."""
    seal = seal_of(context)
    if seal is None or seal.manifest is None:
        return
    for file in seal.manifest.files:
        gone = file.name not in seal.lengths
        if not gone and (file.name not in seal.intact or (seal.inside and not seal.same_tensors)):
            now = seal.blocks.get(file.name, ())
            kind, why = _judged(context, seal, file)
            yield Altered(file, seal.lengths[file.name], _other(file.blocks, now), kind, why)


def _other(before: tuple[str, ...], now: tuple[str, ...]) -> tuple[int, ...]:
    """The numbers of the blocks that are not what they were; those behind a file's end count."""
    longest = max(len(before), len(now))
    pairs = ((before[i : i + 1], now[i : i + 1]) for i in range(longest))
    return tuple(i for i, (old, new) in enumerate(pairs) if old != new)


def _judged(context: Context, seal: Sealed, file: FileSeal) -> tuple[Literal["damaged", "edited"], str]:
    """Damage does not keep checksums right, does not change a header so that it still fits, and leaves the time."""
    own = [e for e in context.checkpoint.extents if seal.inside or _is(seal, e.span.source, file.name)]
    if any(e.name in contradicted(context) for e in own):
        return "damaged", "the file's own checksum does not agree either"
    if _untidy(context):
        return "damaged", "its container is not as a writer leaves it"
    if own and all(e.checksum is not None or not e.span.nbytes for e in own) and _read(context):
        return "edited", "its own checksums agree with its content, as a rewritten file's do"
    if file.name not in seal.touched and not seal.inside:
        return "damaged", "the time of its last writing did not move"
    if _off_by_a_bit(seal):
        return "damaged", "names of tensors differ in one bit"
    if seal.lengths[file.name] != file.nbytes or _other_tensors(seal):
        return "edited", "its header describes other tensors, and fits"
    changed, same = tensors_changed(seal)
    if len(changed) > 1 and len(changed) >= same:
        return "edited", "most of its tensors differ, and its header fits, as in a file that was written anew"
    return "damaged", "an edit would look the same: the format has no checksum of its own"


def _untidy(context: Context) -> bool:
    """Whether the reader met anything that a fresh file does not have."""
    known = rules()
    met = [known[d.rule] for d in context.checkpoint.damage if d.rule in known]
    return any(rule.code.startswith("CK1") and rule.severity != "info" for rule in met)


def _is(seal: Sealed, source: str, name: str) -> bool:
    return seal.paths.get(source) == name


def _read(context: Context) -> bool:
    """Whether every extent was read whole: what was cut is no rewrite."""
    spans = {} if context.measures is None else context.measures.spans
    return all(
        e.name in spans and spans[e.name].read >= expected_bytes(e) for e in context.checkpoint.extents if e.span.nbytes
    )


def _other_tensors(seal: Sealed) -> bool:
    """Whether names, types or shapes are others than those that were sealed."""
    before = () if seal.manifest is None else seal.manifest.tensors
    return {(t.key, t.dtype, t.shape) for t in before} != {(t.key, t.dtype, t.shape) for t in seal.tensors.values()}


def _off_by_a_bit(seal: Sealed) -> bool:
    """Whether tensors have other names than they had, which differ in a single bit each."""
    before = {t.key: t for t in (() if seal.manifest is None else seal.manifest.tensors)}
    gone = [before[key] for key in before.keys() - seal.tensors.keys()]
    come = [seal.tensors[key] for key in seal.tensors.keys() - before.keys()]
    if not gone or len(gone) != len(come) or len(gone) > 32:  # one string may name a tensor in several dicts
        return False
    return all(any(_is_nearly(old, new) for new in come) for old in gone)


def _is_nearly(old: TensorSeal, new: TensorSeal) -> bool:
    left, right = old.key.encode(), new.key.encode()
    same = (old.dtype, old.shape, old.digest) == (new.dtype, new.shape, new.digest)
    return same and len(left) == len(right) and _bits(left, right) == 1


def _bits(left: bytes, right: bytes) -> int:
    return (int.from_bytes(left) ^ int.from_bytes(right)).bit_count()


def tensors_changed(seal: Sealed) -> tuple[list[str], int]:
    """The keys of sealed tensors whose content is another now or that are gone, and how many are what they were."""
    before = () if seal.manifest is None else seal.manifest.tensors
    changed = [t.key for t in before if seal.tensors.get(t.key) != t]
    return changed, len(before) - len(changed)


def message(seal: Sealed, found: Altered) -> str:
    """What differs, in numbers, and what that says."""
    sealed = max(1, len(found.file.blocks))
    text = f"{len(found.blocks)} of {sealed} blocks of {found.file.block} bytes are not as sealed"
    if seal.inside:
        text = f"{found.file.name} {'is not' if found.blocks else 'is'} as sealed"
    elif found.nbytes != found.file.nbytes:
        text = f"{found.nbytes} bytes, and {found.file.nbytes} were sealed; {text}"
    changed, same = tensors_changed(seal)
    if changed:
        text += f"; {len(changed)} of {len(changed) + same} tensors differ, {changed[0]} first"
    elif same:
        text += f"; all {same} tensors are as sealed"
    return f"{text}; {found.why}"
