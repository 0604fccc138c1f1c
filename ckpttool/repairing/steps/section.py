"""One part of a checkpoint alone: the weights, the optimizer, an average, at the root as loaders expect them."""

from __future__ import annotations

from collections.abc import Sequence

from ckpttool.editing import Editor
from ckpttool.errors import UsageError, printable
from ckpttool.layout import Layout, Section
from ckpttool.model import Checkpoint
from ckpttool.plan import Step
from ckpttool.repairing.case import Case, Mended
from ckpttool.units import plural


def mend(case: Case) -> Mended:
    """Keep the named parts: one becomes the whole, several keep their keys. Raises ``UsageError`` for one not there."""
    checkpoint = case.draft.checkpoint
    names = case.wishes.sections or ("weights",)
    chosen = chosen_sections(checkpoint, case.layout, names)
    if any(section.index == checkpoint.root for section in chosen):
        return Mended(case.draft)
    editor = Editor(checkpoint, case.draft.contents)
    if len(chosen) == 1:
        editor.root = chosen[0].index
    else:
        editor.root = editor.mapping((section.key, section.index) for section in chosen)
    draft = editor.finish()
    keys = tuple(section.key for section in chosen)
    gone = sum(1 for _ in checkpoint.tensors()) - sum(1 for _ in draft.checkpoint.tensors())
    reason = f"only {', '.join(names)} is asked for: {plural(gone, 'other tensor')} left out"
    return Mended(draft, (Step("keep", keys, keys if len(chosen) > 1 else (), reason),))


def chosen_sections(checkpoint: Checkpoint, layout: Layout, names: Sequence[str]) -> list[Section]:
    """The outermost parts of these roles. Raises ``UsageError`` where there is no such part."""
    chosen = outermost([section for section in layout.sections if section.name in names])
    missing = [name for name in names if name not in {section.name for section in chosen}]
    if missing:
        have = ", ".join(dict.fromkeys(section.name for section in layout.sections)) or "none"
        raise UsageError(f"{printable(checkpoint.source)} – has no section '{missing[0]}'; it has {have}")
    return chosen


def outermost(sections: Sequence[Section]) -> list[Section]:
    """Sections that do not lie within another one of them."""
    paths = {section.path for section in sections}
    return [
        section
        for section in sections
        if not any(section.path[:length] in paths for length in range(len(section.path)))
    ]
