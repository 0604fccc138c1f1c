"""Several rewritings as one plan, each from what the one before it leads to: one write carries all of them out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from ckpttool.draft import draft_of
from ckpttool.errors import CkpttoolError, printable
from ckpttool.formats import collector_paused
from ckpttool.layout import Layout
from ckpttool.migration import RuleFile, rewrite
from ckpttool.migration.errors import MigrationError
from ckpttool.migration.planning import plan
from ckpttool.migration.reach import Wishes, weight_scopes
from ckpttool.migration.round_trip import Rewrite
from ckpttool.migration.scopes import facts_of, names_of
from ckpttool.migration.target import Target
from ckpttool.model import Checkpoint
from ckpttool.plan import Plan
from ckpttool.profiles import lay_out
from ckpttool.profiles.parameters import is_buffer
from ckpttool.units import plural
from ckpttool.verbs.migrate_rules import Setting
from ckpttool.verbs.reading import counter
from ckpttool.verbs.writable import Writable
from ckpttool.writing.chunked import gathered

NOTES = 4
"""Lines about rules that an error has at most."""

Settings: TypeAlias = "Mapping[str, Setting]"


@dataclass(frozen=True, slots=True)
class Part:
    """A rewriting of state dicts, or of the ``whole`` tree; ``then`` is what else it does to the plan.

    ``back`` undoes it, None where nothing does. ``where`` and ``step`` name a step of a chain in what goes wrong; both
    empty where there is none.
    """

    rewrite: Rewrite
    whole: bool = False
    back: Rewrite | None = None
    then: Callable[[Plan], Plan] | None = None
    where: str = ""
    step: str = ""


def parts_of(rules: RuleFile, settings: Settings) -> tuple[Part, ...]:
    """The parts of a file of rules: those that speak of weights and those that speak of the tree, in turn."""
    return tuple(_part(one, settings) for one in rules.scopes() or (rules,))


def _part(rules: RuleFile, settings: Settings) -> Part:
    return Part(_rewrite(rules, settings), rules.scope == "tree", _back(rules, settings))


def _rewrite(rules: RuleFile, settings: Settings) -> Rewrite:
    return lambda names: rewrite(rules, names, settings)


def _back(rules: RuleFile, settings: Settings) -> Rewrite | None:
    try:
        return _rewrite(rules.inverse(), settings)
    except MigrationError:
        return None


@collector_paused()
def planned(found: Writable, parts: Sequence[Part], wishes: Wishes, target: Target | None) -> Plan:
    """One plan for all parts; ``target`` checks the last one. Raises what planning and the rewritings raise."""
    whole: Plan | None = None
    for number, part in enumerate(parts):
        try:
            one = _one(found, part, whole, wishes, target if number == len(parts) - 1 else None)
        except CkpttoolError as error:
            if not part.step:
                raise
            raise MigrationError(_told(part, str(error))) from error
        whole = one if whole is None else _both(whole, one)
    assert whole is not None
    return whole


def _one(found: Writable, part: Part, before: Plan | None, wishes: Wishes, target: Target | None) -> Plan:
    draft = gathered(draft_of(found.checkpoint), runs=False) if before is None else before.draft
    checkpoint = draft.checkpoint
    layout = found.layout if before is None else lay_out(checkpoint)
    if target is not None and target.ordered and wishes.assume_order and not layout.ordered:
        layout = lay_out(checkpoint, _order(checkpoint, layout, part, wishes, target))
    one = plan(
        checkpoint,
        layout,
        part.rewrite,
        wishes=replace(wishes, whole=part.whole),
        target=target,
        trains=lambda name, tensor: not is_buffer(name, tensor),
        read=counter,
        contents=draft.contents,
        back=part.back,
    )
    return one if part.then is None else part.then(one)


def _order(checkpoint: Checkpoint, layout: Layout, part: Part, wishes: Wishes, target: Target) -> tuple[str, ...]:
    """The parameters' keys in the order that the target has them in, for files that sort their keys."""
    scope = max(weight_scopes(checkpoint, layout, wishes), key=lambda one: len(one.named))
    names = names_of(checkpoint, scope, facts_of(checkpoint))
    made = {output.name: output for output in part.rewrite(names).outputs}
    listed = (source for name in target.parameters if name in made for source in made[name].inputs)
    return tuple(dict.fromkeys(listed))


def told_of(plan: Plan) -> str:
    """What a plan notes of rules that find nothing to do, with the nearest keys; the first lines of it."""
    more = f"; and {plural(len(plan.notes) - NOTES, 'more rule')}" if len(plan.notes) > NOTES else ""
    return "; ".join(plan.notes[:NOTES]) + more


def _told(part: Part, said: str) -> str:
    """An error with the file and the step, each once."""
    where = printable(part.where)
    if said.startswith(where):
        return f"{said} ({part.step})"
    return f"{where}, {part.step}: {said}"


def _both(first: Plan, second: Plan) -> Plan:
    known = set(first.unmatched)
    return replace(
        second,
        steps=first.steps + second.steps,
        rules=first.rules + second.rules,
        notes=first.notes + second.notes,
        unmatched=tuple(key for key in second.unmatched if key in known),
        repeats=first.repeats or second.repeats,
        foreign=first.foreign and second.foreign,
    )
