"""The repairs: one file each, found here by name, carried out in the order of their numbers.

A module of this package has ``ORDER``, an integer; ``wanted(wishes) -> bool``; and ``mend(case) -> Mended``, which is
pure: it looks at descriptors, measures and wishes, and edits the draft through ``editing.Editor``. Numbers in use:
100 salvage, 200 and on what makes loadable, 300 and on what is left out on request, 400 and on how it is stored.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Protocol, cast

from ckpttool.layout import Layout
from ckpttool.model import Checkpoint
from ckpttool.plan import Step
from ckpttool.repairing.case import Case, Loss, Mended, Verdict, Wishes
from ckpttool.repairing.origins import proofs_of
from ckpttool.repairing.tensors import worth_by_key


class Repair(Protocol):
    """What a module of this package offers."""

    ORDER: int

    def wanted(self, wishes: Wishes) -> bool: ...

    def mend(self, case: Case) -> Mended: ...


@cache
def repairs() -> tuple[Repair, ...]:
    """Every repair, in the order in which they are carried out."""
    found = [
        importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)
    ]
    return tuple(cast(Repair, module) for module in sorted(found, key=lambda module: module.ORDER))


def mend_all(case: Case, lay_out: Callable[[Checkpoint], Layout]) -> Verdict:
    """Carry out what is wanted, in order; each repair sees the draft and the roles that the last one left."""
    steps: tuple[Step, ...] = ()
    lost: tuple[Loss, ...] = ()
    notes: tuple[str, ...] = ()
    for repair in repairs():
        if not repair.wanted(case.wishes):
            continue
        done = repair.mend(case)
        if done.steps:
            case = replace(case, draft=done.draft, layout=lay_out(done.draft.checkpoint))
        steps, lost, notes = (*steps, *done.steps), (*lost, *done.lost), (*notes, *done.notes)
    kept = worth_by_key(case.draft.checkpoint, proofs_of(case.draft, case.proofs))
    return Verdict(case.draft, steps, lost, notes, kept)
