"""``migrate``: a whole checkpoint carried to other names, shapes and layouts; planned first, then written."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from ckpttool.errors import CkpttoolError, UsageError, printable
from ckpttool.limits import DEFAULT, Limits
from ckpttool.migration import RuleFile, dump, rewrite
from ckpttool.migration.planning import plan
from ckpttool.migration.reach import Wishes
from ckpttool.migration.stamps import ROOMY, Stamp, digest_of, stamped, stamps_of, with_stamps
from ckpttool.migration.target import Target
from ckpttool.plan import Plan
from ckpttool.profiles import lay_out
from ckpttool.profiles.parameters import is_buffer
from ckpttool.report import Report
from ckpttool.verbs.migrate_report import Result, report
from ckpttool.verbs.migrate_rules import Asked, Setting, rules_of
from ckpttool.verbs.reading import counter
from ckpttool.verbs.writable import Writable, writable
from ckpttool.writing.apply import Written, apply
from ckpttool.writing.outputs import Format, format_for

NAMES = {"torch": "torch-zip", "safetensors": "safetensors"}
"""What the writers that keep a record of migrations are called as formats."""


@dataclass(frozen=True, slots=True)
class _Way:
    """The rules, which way they go, and what they lead to."""

    rules: RuleFile
    digest: str
    back: bool
    target: Target | None


def migrate(
    path: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    rules: str | os.PathLike[str] | None = None,
    preset: str = "",
    to: str | os.PathLike[str] | None = None,
    to_model: str = "",
    settings: Mapping[str, Setting] | None = None,
    reverse: bool = False,
    dry_run: bool = False,
    in_place: bool = False,
    backup: bool | None = None,
    verify: bool = False,
    format: str | None = None,  # noqa: A002 - the word that users say
    under: str | None = None,
    sections: Sequence[str] = (),
    assume_order: bool = False,
    cast: bool = False,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
    limits: Limits = DEFAULT,
) -> Report:
    """Carry a checkpoint over by rules, a preset or towards a target; nothing in it is imported or run.

    ``rules`` is a file, ``preset`` one that ships with the tool, ``to`` a checkpoint or a file of keys, ``to_model`` a
    factory ``package.module:factory`` of yours, which is imported and called. Rules with a target are checked against
    it, key by key, and take its order; a target alone is enough where the way to it is certain. ``settings`` are
    values that the rules ask for. ``reverse`` goes the way back.

    Weights, their averages, optimizer state, ``_metadata`` and what else goes by their names move together, or only
    ``sections``; ``under`` names another dict than the weights. ``assume_order`` takes an optimizer's parameters to
    stand in the model's order where nothing tells. ``dry_run`` writes nothing. ``force`` replaces a file that is
    there, and repeats rules that would match once more. The rest is as in ``convert``.

    The report's data has ``plan``, ``rules``, ``unmatched``, ``written``. Raises ``CkpttoolError``: what cannot be
    done, and what to do or to run next. Costs a copy; memory is that of the largest tensor that changes.
    """
    planned_only = dry_run and output is None
    destination = path if planned_only else _destination(path, output, in_place)
    found = writable(path, limits)
    asked = Asked(rules, preset, to, to_model, under, cast, limits)
    chosen = rules_of(asked, path, found)
    way = _way(chosen.rules, chosen.target, settings or {}, reverse)
    wishes = Wishes(tuple(sections), under, assume_order)
    planned = _planned(found, way, wishes, settings or {})
    wanted = format_for(destination, format, found.checkpoint.format)
    stamps = stamps_of(found.checkpoint)
    if planned.steps and planned.repeats and not force:
        _refuse_repeat(path, found, way, wanted, stamps)
    if planned.steps:
        stamp = Stamp(way.digest, way.back, way.rules.about)
        planned = replace(planned, draft=with_stamps(planned.draft, stamped(stamps, stamp)))
    written = None
    if not dry_run and not (in_place and not planned.steps):
        written = _written(planned, destination, wanted, force or in_place, backup, verify, progress)
    notes = (*found.notes, *chosen.notes)
    return report(
        Result(found.checkpoint, planned, written, "" if planned_only else os.fspath(destination), notes)
    )


def _destination(
    path: str | os.PathLike[str], output: str | os.PathLike[str] | None, in_place: bool
) -> str | os.PathLike[str]:
    if (output is None) is not in_place:
        raise UsageError("migrate writes to -o DST, or in place with --in-place: give one of the two")
    if output is None and "://" in os.fspath(path):
        raise UsageError("a URL is not replaced in place; name a file with -o")
    return path if output is None else output


def _way(rules: RuleFile, target: Target | None, settings: Mapping[str, Setting], reverse: bool) -> _Way:
    digest = digest_of(dump(rules), settings)
    return _Way(rules.inverse() if reverse else rules, digest, reverse, target)


# --- the plan --------------------------------------------------------------------------------------------------


def _planned(found: Writable, way: _Way, wishes: Wishes, settings: Mapping[str, Setting]) -> Plan:
    """One plan for all of the rules: parts that speak of weights and parts that speak of the tree, in turn."""
    parts = way.rules.scopes() or (way.rules,)
    whole: Plan | None = None
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        checkpoint = found.checkpoint if whole is None else whole.draft.checkpoint
        one = plan(
            checkpoint,
            found.layout if whole is None else lay_out(checkpoint),
            lambda names, part=part: rewrite(part, names, settings),  # type: ignore[misc]
            wishes=replace(wishes, whole=part.scope == "tree"),
            target=way.target if last else None,
            trains=lambda name, tensor: not is_buffer(name, tensor),
            read=counter,
            contents=None if whole is None else whole.draft.contents,
        )
        whole = one if whole is None else _both(whole, one)
    assert whole is not None
    return whole


def _both(first: Plan, second: Plan) -> Plan:
    return replace(
        second,
        steps=first.steps + second.steps,
        rules=first.rules + second.rules,
        notes=first.notes + second.notes,
        unmatched=tuple(key for key in second.unmatched if key in set(first.unmatched)) or second.unmatched,
        repeats=first.repeats or second.repeats,
    )


def _refuse_repeat(
    path: str | os.PathLike[str], found: Writable, way: _Way, wanted: Format, stamps: Sequence[Stamp]
) -> None:
    """Raise unless it is known that rules which match their own result have not been carried out yet."""
    where = printable(os.fspath(path))
    again = "the rules would match their own result once more"
    if stamps and (stamps[-1].digest, stamps[-1].back) == (way.digest, way.back):
        raise CkpttoolError(
            f"{where} – already migrated: it records these rules as its last migration, and {again}; nothing was "
            "written (--force repeats them)"
        )
    formats = {found.checkpoint.format, NAMES.get(wanted, wanted)}
    homeless = sorted(name for name in formats if name not in ROOMY)
    if homeless:
        other = "" if found.checkpoint.format in homeless else " write another format with --as torch,"
        raise CkpttoolError(
            f"{where} – {again}, and {homeless[0]} has no place to record that they were carried out; give the rules a "
            f"guard (when: …),{other} or say --force where they were not"
        )


def _written(
    planned: Plan,
    destination: str | os.PathLike[str],
    wanted: Format,
    overwrite: bool,
    backup: bool | None,
    verify: bool,
    progress: Callable[[int, int], None] | None,
) -> Written:
    return apply(
        planned.draft,
        destination,
        format=wanted,
        overwrite=overwrite,
        backup=backup,
        verify=verify,
        progress=progress,
    )
