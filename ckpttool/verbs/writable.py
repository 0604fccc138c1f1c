"""A checkpoint that something is to be made of: described, refused where it is damaged, cut down to a section."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence

from ckpttool.checks import rules
from ckpttool.draft import Draft, draft_of
from ckpttool.editing import Editor
from ckpttool.errors import CkpttoolError, UsageError, printable
from ckpttool.formats import collector_paused, describe
from ckpttool.formats.folders import DEEPSPEED
from ckpttool.frozen import dataclass
from ckpttool.layout import Layout
from ckpttool.limits import DEFAULT, Limits
from ckpttool.model import Checkpoint, Finding
from ckpttool.profiles import lay_out
from ckpttool.repairing.steps.section import chosen_sections
from ckpttool.rules import Context, Rule
from ckpttool.units import plural
from ckpttool.verbs.findings import EXPLAINED, judge
from ckpttool.writing.chunked import gathered

LOST = ("integrity", "hostile")
"""What an error may say about a file's bytes: they are not what was written, or nobody knows which ones are."""


@dataclass(frozen=True, slots=True)
class Writable:
    """A sound checkpoint, its roles, and what whoever loads it should know."""

    checkpoint: Checkpoint
    layout: Layout
    notes: tuple[str, ...] = ()


@collector_paused()
def writable(path: str | os.PathLike[str], limits: Limits = DEFAULT) -> Writable:
    """Describe a checkpoint that is to be written in another form; nothing in it is imported or run.

    Raises ``CkpttoolError`` where it is damaged or no checkpoint, ``Unreadable``. Reads headers only: that the
    content is what was written is for ``verify`` to say.
    """
    checkpoint = describe(path, limits)
    where = printable(os.fspath(path))
    if checkpoint.kind:
        raise CkpttoolError(f"{where} – this is {checkpoint.kind}, not a checkpoint")
    layout = lay_out(checkpoint)
    known = {rule.code: rule for rule in rules().values()}
    found = judge(Context(checkpoint, layout), only=_matters)
    errors = [one for one in found if one.severity == "error"]
    damage = [f for f in errors if known[f.code].axis in LOST]
    if damage or checkpoint.root is None:
        raise CkpttoolError(_damaged(where, damage))
    unsafe = [f for f in errors if known[f.code].axis == "safety"]
    return Writable(checkpoint, layout, (*_unsafe(unsafe), *_flat(checkpoint)))


def _matters(rule: Rule) -> bool:
    """Whether a rule may say that bytes are lost or that loading is unsafe, or why another one says so."""
    return rule.axis in (*LOST, "safety") or rule.name in EXPLAINED


def _damaged(where: str, damage: Sequence[Finding]) -> str:
    said = f"{damage[0].where}: {damage[0].message}" if damage else "there is no tree in it"
    more = f", and {plural(len(damage) - 1, 'more error')}" if len(damage) > 1 else ""
    return f"{where} – damaged: {said}{more}; run: ckpttool verify {shlex.quote(where)}"


def _unsafe(findings: Sequence[Finding]) -> list[str]:
    if not findings:
        return []
    more = f", and {plural(len(findings) - 1, 'more finding')}" if len(findings) > 1 else ""
    return [f"unsafe to load: {findings[0].message}{more}; nothing of it was run here"]


def _flat(checkpoint: Checkpoint) -> list[str]:
    """What to know of weights that stand in other files once more, where no key can reach them."""
    if checkpoint.metadata.get("layout") != DEEPSPEED:
        return []
    said = (
        "DeepSpeed keeps the exact weights and their moments as flat vectors, a part for each rank: they are written "
        "as they are, or refused where that would leave them wrong; zero_to_fp32.py in the folder above makes one file "
        "of whole float32 weights, from which migrate and convert go on"
    )
    return [said]


def destination_of(
    verb: str, path: str | os.PathLike[str], output: str | os.PathLike[str] | None, in_place: bool
) -> str | os.PathLike[str]:
    """Where a verb writes: the output, or the file itself. Raises ``UsageError`` unless one of the two is meant."""
    if (output is None) is not in_place:
        raise UsageError(f"{verb} writes to -o DST, or in place with --in-place: give one of the two")
    if output is None and "://" in os.fspath(path):
        raise UsageError("a URL is not replaced in place; name a file with -o")
    return path if output is None else output


def sections_of(found: Writable, names: Sequence[str]) -> Draft:
    """The parts of these roles alone; all of it without names. One part becomes the whole, several keep their keys.

    Raises ``UsageError`` where there is no such part.
    """
    draft = gathered(draft_of(found.checkpoint))
    if not names:
        whole = draft.checkpoint is found.checkpoint
        return draft if whole else Editor(draft.checkpoint, draft.contents).finish()
    chosen = chosen_sections(found.checkpoint, found.layout, names)
    editor = Editor(draft.checkpoint, draft.contents)
    if len(chosen) == 1:
        editor.root = chosen[0].index
    else:
        editor.root = editor.mapping((section.key, section.index) for section in chosen)
    return editor.finish()
