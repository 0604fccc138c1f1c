"""``migrate``: a whole checkpoint carried to other names, shapes and layouts; planned first, then written."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ckpttool.errors import CkpttoolError, UsageError, printable
from ckpttool.expressions import OpError
from ckpttool.limits import DEFAULT, Limits
from ckpttool.migration import RuleError, RuleFile, dump
from ckpttool.migration.chains import HEAD
from ckpttool.migration.reach import Wishes
from ckpttool.migration.scopes import facts_of
from ckpttool.plan import Plan
from ckpttool.report import Report
from ckpttool.stamps import ROOMY, Stamp, digest_of, stamped, stamps_of, with_stamps
from ckpttool.verbs.beside import fate, known_beside
from ckpttool.verbs.chain_run import Journey, along
from ckpttool.verbs.migrate_parts import parts_of, planned, told_of
from ckpttool.verbs.migrate_report import Result, report
from ckpttool.verbs.migrate_rules import Asked, Setting, rules_of, target_asked
from ckpttool.verbs.writable import Writable, destination_of, writable
from ckpttool.writing.apply import Written, apply
from ckpttool.writing.outputs import Format, format_for
from ckpttool.writing.sharded import size_of

NAMES = {"torch": "torch-zip", "safetensors": "safetensors"}
"""What the writers that keep a record of migrations are called as formats."""


FORGETFUL = ("torch-legacy",)
"""Formats that this tool writes without a record: such a file may have been migrated. None else can, but by others."""


@dataclass(frozen=True, slots=True)
class _Way:
    """The rules, and which way they go."""

    rules: RuleFile
    digest: str
    back: bool


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
    chain: str | os.PathLike[str] | None = None,
    to_version: str = "",
    from_version: str = "",
    dry_run: bool = False,
    in_place: bool = False,
    backup: bool | None = None,
    verify: bool = False,
    format: str | None = None,  # noqa: A002 - the word that users say
    max_shard_size: str | int | None = None,
    under: str | None = None,
    sections: Sequence[str] = (),
    assume_order: bool = False,
    cast: bool = False,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
    limits: Limits = DEFAULT,
) -> Report:
    """Carry a checkpoint over by rules, a preset, a chain or towards a target; nothing in it is imported or run.

    ``rules`` is a file, ``preset`` one that ships with the tool, ``to`` a checkpoint or a file of keys, ``to_model`` a
    factory ``package.module:factory`` of yours, which is imported and called. Rules with a target are checked against
    it, key by key, and take its order; a target alone is enough where the way to it is certain. ``settings`` are
    values that the rules ask for. ``reverse`` goes the way back.

    ``chain`` is a folder of migrations: every step from the checkpoint's version to ``to_version`` (by default the
    newest) is carried out in one write, forth or back; ``from_version`` says where a checkpoint stands that does not
    tell. Python files of steps that are taken are run, being yours.

    Weights, their averages, optimizer state, ``_metadata`` and what else goes by their names move together, or only
    ``sections``; ``under`` names another dict than the weights. ``assume_order`` takes an optimizer's parameters to
    stand in the model's order where nothing tells. ``dry_run`` writes nothing. ``force`` replaces a file that is
    there, and repeats rules that would match once more. The rest is as in ``convert``.

    Shards become shards of at most ``max_shard_size``, and a folder of files (a Trainer's) such a folder, where
    ``output`` is a new folder: what does not change in it is copied.

    The report's data has ``plan``, ``rules``, ``unmatched``, ``written``. Raises ``CkpttoolError``: what cannot be
    done, and what to do or to run next. Costs a copy; memory is that of the largest tensor that changes.
    """
    planned_only = dry_run and output is None
    most = size_of(max_shard_size) if isinstance(max_shard_size, str) else max_shard_size
    destination = path if planned_only else destination_of("migrate", path, output, in_place)
    found = writable(path, limits)
    asked = Asked(rules, preset, to, to_model, under, cast, limits)
    wishes = Wishes(tuple(sections), under, assume_order)
    wanted = format_for(destination, format, found.checkpoint.format)
    if chain is None:
        if to_version or from_version:
            raise UsageError("--to-version and --from-version speak of a chain: give --chain DIR")
        result = _by_rules(path, found, asked, settings or {}, reverse, wishes, wanted, force)
    else:
        journey = Journey(chain, to_version or HEAD, from_version, settings, force)
        result = _along(found, asked, reverse, journey, wishes, wanted)
    written = None
    if not dry_run and not (in_place and not result.moves):
        written = _written(result.plan, destination, wanted, force or in_place, backup, verify, most, progress)
    changed = bool(result.plan.steps)
    kept = fate(path, found.checkpoint, wanted == "folder", changed) if destination != path else ()
    notes = (*found.notes, *result.notes, *kept)
    shown = "" if planned_only else os.fspath(destination)
    return report(replace(result, written=written, destination=shown, notes=notes))


def _by_rules(
    path: str | os.PathLike[str],
    found: Writable,
    asked: Asked,
    settings: Mapping[str, Setting],
    reverse: bool,
    wishes: Wishes,
    wanted: Format,
    force: bool,
) -> Result:
    chosen = rules_of(asked, path, found)
    stamps = stamps_of(found.checkpoint)
    settings = {**_given(chosen.rules, reverse, stamps), **settings}
    known = known_beside(chosen.rules, found.checkpoint, facts_of(found.checkpoint), settings)
    settings = {**known.values, **settings}
    way = _way(chosen.rules, settings, reverse)
    plan = planned(found, parts_of(way.rules, settings), wishes, chosen.target)
    if plan.foreign and not plan.steps:
        raise CkpttoolError(f"{printable(os.fspath(path))} – the rules are for another checkpoint: {told_of(plan)}")
    if plan.steps and plan.repeats and not force:
        _refuse_repeat(path, found, way, wanted, stamps)
    if plan.steps:
        stamp = Stamp(way.digest, way.back, way.rules.about, given=tuple(sorted(settings.items())))
        plan = replace(plan, draft=with_stamps(plan.draft, stamped(stamps, stamp)))
    target = chosen.target.name if chosen.target is not None else ""
    if target and not plan.steps:
        plan = replace(plan, notes=())  # that rules find nothing is no wonder where all is as it should be
    notes = (*chosen.notes, *known.notes, *(_one_way(chosen.rules) if plan.steps and plan.lossless else ()))
    return Result(found.checkpoint, plan, notes=notes, target=target)


def _one_way(rules: RuleFile) -> Iterator[str]:
    """Why rules that lose nothing have no way back all the same, before anyone asks for it."""
    try:
        rules.inverse()
    except RuleError as error:
        yield f"no way back: {error}"


def _given(rules: RuleFile, reverse: bool, stamps: Sequence[Stamp]) -> dict[str, Setting]:
    """The values with which these rules were carried out the other way, last of all; none where that is not so."""
    last = stamps[-1] if stamps and stamps[-1].back != reverse else None
    values = {} if last is None else dict(last.given)
    return values if last is not None and digest_of(dump(rules), values) == last.digest else {}


def _along(found: Writable, asked: Asked, reverse: bool, journey: Journey, wishes: Wishes, wanted: Format) -> Result:
    if asked.rules is not None or asked.preset or reverse:
        word = "--rules" if asked.rules is not None else "--preset" if asked.preset else "--reverse"
        raise UsageError(f"--chain and {word} are two ways to say the rules: --to-version says where a chain leads")
    run = along(journey, found, wishes, target_asked(asked), NAMES.get(wanted, wanted))
    return Result(found.checkpoint, run.plan, notes=run.notes, run=run)


def _way(rules: RuleFile, settings: Mapping[str, Setting], reverse: bool) -> _Way:
    digest = digest_of(dump(rules), settings)
    return _Way(rules.inverse() if reverse else rules, digest, reverse)


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
    formats = {NAMES.get(wanted, wanted), *{found.checkpoint.format}.intersection(FORGETFUL)}
    homeless = sorted(name for name in formats if name not in ROOMY)
    if homeless:
        other = "" if found.checkpoint.format in homeless else " write another format with --as torch,"
        raise CkpttoolError(
            f"{where} – {again}, and {homeless[0]} has no place to record that they were carried out; give the rules a "
            f"guard (when: …),{other} or say --force where they were not"
        )


def _written(
    plan: Plan,
    destination: str | os.PathLike[str],
    wanted: Format,
    overwrite: bool,
    backup: bool | None,
    verify: bool,
    max_shard_size: int | None,
    progress: Callable[[int, int], None] | None,
) -> Written:
    try:
        return apply(
            plan.draft,
            destination,
            format=wanted,
            overwrite=overwrite,
            backup=backup,
            verify=verify,
            max_shard_size=max_shard_size,
            progress=progress,
        )
    except OpError as error:
        raise CkpttoolError(f"{printable(os.fspath(destination))} – not written: {error}") from error
