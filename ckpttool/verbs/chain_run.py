"""``migrate --chain``: from the version at which a checkpoint stands to another one, all steps in one write."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from ckpttool.draft import draft_of
from ckpttool.errors import UsageError, printable
from ckpttool.migration import RuleError
from ckpttool.migration.chains import HEAD, Chain, ChainError, Link, Turn, shown
from ckpttool.migration.code_steps import Code, rewrite_by
from ckpttool.migration.reach import Wishes
from ckpttool.migration.scopes import facts_of
from ckpttool.migration.target import Target
from ckpttool.migration.versions import changed_since, entry_at, standing, with_value, with_version
from ckpttool.model import Scalar
from ckpttool.plan import Plan, Step
from ckpttool.stamps import ROOMY, Stamp, stamps_of, with_stamps
from ckpttool.verbs.beside import Known, known_beside
from ckpttool.verbs.chain_folder import chain_in, code_of
from ckpttool.verbs.migrate_parts import Part, parts_of, planned, told_of
from ckpttool.verbs.migrate_rules import Setting
from ckpttool.verbs.reading import numbers
from ckpttool.verbs.writable import Writable
from ckpttool.version import __version__


@dataclass(frozen=True, slots=True)
class Journey:
    """What a user said: the folder, where from and where to, values that the rules ask for."""

    folder: str | os.PathLike[str]
    to: str = HEAD
    from_: str = ""
    settings: Mapping[str, Setting] | None = None
    force: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """A way along a chain as it is planned; no turns where the checkpoint is there already."""

    chain: Chain
    from_: str
    to: str
    turns: tuple[Turn, ...]
    plan: Plan
    notes: tuple[str, ...] = ()


def along(journey: Journey, found: Writable, wishes: Wishes, target: Target | None, wanted: str) -> Run:
    """The plan that leads a checkpoint along a chain, its record of steps included.

    ``wanted`` is the format that is to be written. Raises ``ChainError`` with the file of the
    step that cannot be taken, and why; whatever reading the chain and planning raise. Runs Python files of steps that
    are to be taken, and no others.
    """
    chain = chain_in(journey.folder)
    start, to = _start(journey, chain, found), chain.version(journey.to, "--to-version")
    turns = chain.way(start, to)
    stamps = stamps_of(found.checkpoint)
    notes = tuple(_stale(chain, stamps))
    if not turns:
        return Run(chain, start, to, (), _carried(found, [], wishes, target), notes)
    _refuse_unrecorded(journey, chain, found, to, wanted)
    taken = [_Taken(turn, _given(journey, turn, stamps)) for turn in turns]
    _check_settings(journey, taken)
    told = [_beside(one, found) for one in taken]
    taken = [replace(one, given={**more.values, **one.given}) for one, more in zip(taken, told, strict=True)]
    notes += tuple(dict.fromkeys(note for more in told for note in more.notes))
    if not journey.force:
        _refuse_changed(turns, stamps)
    parts = [part for one in taken for part in _parts(os.fspath(journey.folder), one)]
    plan = _carried(found, parts, wishes, target)
    if plan.foreign and not plan.steps and not journey.force:
        raise ChainError(
            f"{printable(found.checkpoint.source)} – the steps from version {shown(start)} to {shown(to)} are for "
            f"another checkpoint: {told_of(plan)}; --force records them as carried out"
        )
    noted = tuple(stamps)
    for one in taken:
        noted = turned(noted, _stamp(one))
    return Run(chain, start, to, turns, _recorded(plan, chain, start, to, noted), notes)


@dataclass(frozen=True, slots=True)
class _Taken:
    """A step that is to be taken, with its values."""

    turn: Turn
    given: dict[str, Setting]

    @property
    def link(self) -> Link:
        return self.turn.link


# --- where from ----------------------------------------------------------------------------------------------


def _start(journey: Journey, chain: Chain, found: Writable) -> str:
    """The version that the checkpoint has. Raises ``ChainError`` where nothing tells it, or two say different ones."""
    where = printable(found.checkpoint.source)
    here = standing(found.checkpoint, chain, journey.from_)
    said = {version for version in (here.recorded, here.noted) if version}
    if journey.from_ and (journey.force or not said or journey.from_ in said):
        return chain.version(journey.from_, "--from-version")
    if journey.from_:
        raise ChainError(
            f"{where} – {here.told_by} says version {shown(here.version)}, and --from-version {shown(journey.from_)}; "
            "--force takes your word"
        )
    if not here.agrees:
        raise ChainError(
            f"{where} – its value '{printable(chain.key)}' says version {shown(here.recorded)}, its note of migrations "
            f"{shown(here.noted)}: say which with --from-version"
        )
    if not here.version:
        raise ChainError(
            f"{where} – records no version: say it with --from-version, or once for all with 'unstamped' in "
            f"{printable(os.path.join(chain.where, 'chain.yaml'))}"  # noqa: PTH118 - the folder as it was written
        )
    return chain.version(here.version, f"{found.checkpoint.source}: {here.told_by}")


def _refuse_unrecorded(journey: Journey, chain: Chain, found: Writable, to: str, wanted: str) -> None:
    """Raise where the result could not tell its version."""
    kept = bool(chain.key) and entry_at(found.checkpoint, chain.key) is not None
    if wanted not in ROOMY and not kept and to != chain.unstamped and not journey.force:
        raise ChainError(
            f"{printable(found.checkpoint.source)} – {wanted} has no place to record version {shown(to)}; write "
            "another format with --as torch, name a value of the checkpoint as 'version' in chain.yaml, or say --force"
        )


# --- the steps -----------------------------------------------------------------------------------------------


def _given(journey: Journey, turn: Turn, stamps: Sequence[Stamp]) -> dict[str, Setting]:
    """The values for a step: those that were used on the way there, and what the user says now."""
    names = turn.link.rules.names if turn.link.rules is not None else frozenset()
    said = {name: value for name, value in (journey.settings or {}).items() if name in names}
    before = _stamp_of(turn.link, stamps) if turn.back else None
    return {**({} if before is None else {k: v for k, v in before.given if k in names}), **said}


def _beside(taken: _Taken, found: Writable) -> Known:
    """What a file beside the checkpoint tells a step's rules."""
    if taken.link.rules is None:
        return Known({})
    return known_beside(taken.link.rules, found.checkpoint, facts_of(found.checkpoint), taken.given)


def _check_settings(journey: Journey, taken: Sequence[_Taken]) -> None:
    known = sorted({name for one in taken if one.link.rules is not None for name in one.link.rules.names})
    for name in journey.settings or {}:
        if name not in known:
            listed = ", ".join(known) or "none"
            raise UsageError(f"--set {printable(name)} – no step on the way asks for it; they ask for {listed}")


def _refuse_changed(turns: Sequence[Turn], stamps: Sequence[Stamp]) -> None:
    """Going back by other rules than those that led there would not lead back."""
    for turn in turns:
        stamp = _stamp_of(turn.link, stamps)
        if turn.back and stamp is not None and stamp.digest != turn.link.digest:
            raise ChainError(
                f"{turn.link.text} – the file has changed since the step was carried out{_on(stamp)}, so its way back "
                "is another one; restore the file, or say --force"
            )


def _stale(chain: Chain, stamps: Sequence[Stamp]) -> Iterator[str]:
    for link, stamp in changed_since(chain, stamps):
        yield f"{link.text} – the file has changed since the step was carried out{_on(stamp)}"


def _on(stamp: Stamp) -> str:
    return f" ({printable(stamp.when)})" if stamp.when else ""


def _stamp_of(link: Link, stamps: Sequence[Stamp]) -> Stamp | None:
    here = (link.from_, link.to)
    return next((s for s in reversed(stamps) if (s.from_, s.to) == here and not s.back), None)


def _parts(folder: str, taken: _Taken) -> Iterator[Part]:
    """The parts of a step. Raises ``ChainError`` where it has no way back."""
    rules = taken.link.rules
    if rules is None:
        yield _named(taken.turn, _code_part(code_of(folder, taken.turn)))
        return
    try:
        rules = rules.inverse() if taken.turn.back else rules
    except RuleError as error:
        raise ChainError(f"{taken.link.text}: the step cannot be taken back – {error}") from error
    for part in parts_of(rules, taken.given):
        yield _named(taken.turn, part)


def _code_part(code: Code) -> Part:
    edits: dict[str, Scalar] = {}
    return Part(
        lambda names: rewrite_by(code, names, numbers, edits),
        code.scope == "tree",
        None,
        lambda plan: _edited(plan, edits, code.where),
    )


def _edited(plan: Plan, edits: Mapping[str, Scalar], where: str) -> Plan:
    for key, value in edits.items():
        entry = entry_at(plan.draft.checkpoint, key)
        if entry is None or getattr(entry.node, "value", None) != value:
            step = Step("edit", (key,), (key,), f"{where}: set to {value!r}")
            plan = replace(plan, draft=with_value(plan.draft, key, value), steps=(*plan.steps, step))
    return plan


def _named(turn: Turn, part: Part) -> Part:
    """The part, whose errors name the step."""
    old, new = turn.versions
    return replace(part, where=turn.link.where, step=f"step {shown(old)} → {shown(new)}")


# --- the plan ------------------------------------------------------------------------------------------------


def _carried(found: Writable, parts: Sequence[Part], wishes: Wishes, target: Target | None) -> Plan:
    if not parts:
        return Plan((), draft_of(found.checkpoint))
    return planned(found, parts, wishes, target)


def _stamp(taken: _Taken) -> Stamp:
    link = taken.link
    return Stamp(
        link.digest,
        taken.turn.back,
        link.about,
        link.name,
        link.from_,
        link.to,
        _now(),
        __version__,
        tuple(sorted(taken.given.items())),
    )


def _now() -> str:
    """The time of the record; ``SOURCE_DATE_EPOCH`` makes outputs reproducible (reproducible-builds.org)."""
    fixed = os.environ.get("SOURCE_DATE_EPOCH", "")
    moment = datetime.fromtimestamp(int(fixed), UTC) if fixed.isdecimal() else datetime.now(UTC)
    return moment.isoformat(timespec="seconds")


def turned(stamps: tuple[Stamp, ...], new: Stamp) -> tuple[Stamp, ...]:
    """The record after one more step; going back takes the step that is undone off."""
    last = stamps[-1] if stamps else None
    if new.back and last is not None and not last.back and (last.from_, last.to) == (new.from_, new.to):
        return stamps[:-1]
    return (*stamps, new)


def _recorded(plan: Plan, chain: Chain, start: str, to: str, stamps: Sequence[Stamp]) -> Plan:
    """The plan whose result tells its version."""
    plan = replace(plan, draft=with_stamps(plan.draft, stamps))
    if not chain.key or entry_at(plan.draft.checkpoint, chain.key) is None:
        return plan
    step = Step("edit", (chain.key,), (chain.key,), f"version {shown(start)} → {shown(to)}")
    return replace(plan, draft=with_version(plan.draft, chain.key, to), steps=(*plan.steps, step))
