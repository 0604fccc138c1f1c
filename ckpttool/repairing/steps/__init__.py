"""The repairs: one file each, carried out in the order of the table below; only those that are wanted are loaded.

A module of this package has ``mend(case) -> Mended``, which is pure: it looks at descriptors, measures and wishes, and
edits the draft through ``editing.Editor``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Protocol, cast

from ckpttool.layout import Layout
from ckpttool.model import Checkpoint
from ckpttool.plan import Step
from ckpttool.repairing.case import Case, Loss, Mended, Verdict, Wishes
from ckpttool.repairing.origins import proofs_of
from ckpttool.repairing.tensors import worth_by_key


class Repair(Protocol):
    """What a module of this package offers."""

    def mend(self, case: Case) -> Mended: ...


REPAIRS: Mapping[str, Callable[[Wishes], object]] = {
    # What damage left, always.
    "salvage": lambda wishes: True,
    "fitting": lambda wishes: True,
    # What makes loadable.
    "extract": lambda wishes: wishes.extract_weights,
    "sanitize": lambda wishes: wishes.sanitize,
    # What is left out on request; the weights' extraction names the weights.
    "section": lambda wishes: wishes.sections or wishes.extract_weights,
    # How it is stored.
    "compact": lambda wishes: wishes.compact,
    "dedupe": lambda wishes: wishes.dedupe,
    "recrc": lambda wishes: wishes.recrc,
    "repack": lambda wishes: wishes.repack,
}
"""Every repair by its module's name, in the order in which they are carried out, and when it is wanted."""


def repairs(wishes: Wishes) -> Iterator[Repair]:
    """The repairs that are wanted, in their order."""
    for name, is_wanted in REPAIRS.items():
        if is_wanted(wishes):
            yield cast(Repair, importlib.import_module(f"{__name__}.{name}"))


def mend_all(case: Case, lay_out: Callable[[Checkpoint], Layout]) -> Verdict:
    """Carry out what is wanted, in order; each repair sees the draft and the roles that the last one left."""
    steps: tuple[Step, ...] = ()
    lost: tuple[Loss, ...] = ()
    notes: tuple[str, ...] = ()
    for repair in repairs(case.wishes):
        done = repair.mend(case)
        if done.steps:
            case = replace(case, draft=done.draft, layout=lay_out(done.draft.checkpoint))
        steps, lost, notes = (*steps, *done.steps), (*lost, *done.lost), (*notes, *done.notes)
    kept = worth_by_key(case.draft.checkpoint, proofs_of(case.draft, case.proofs))
    return Verdict(case.draft, steps, lost, notes, kept)
