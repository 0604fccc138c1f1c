"""``chain``: where checkpoints stand in a chain of migrations, what they went through, and whether they are behind."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ckpttool.errors import CkpttoolError, ExitCode, Unreadable, printable
from ckpttool.formats import describe
from ckpttool.formats.targets import find_targets
from ckpttool.limits import DEFAULT, Limits
from ckpttool.migration.chains import HEAD, Chain, Link, shown
from ckpttool.migration.versions import changed_since, standing
from ckpttool.model import Checkpoint, Json
from ckpttool.report import Block, Report, Subject, Table, Text
from ckpttool.stamps import Stamp, stamps_of
from ckpttool.units import plural
from ckpttool.verbs.chain_folder import chain_in

State: TypeAlias = Literal["current", "behind", "ahead", "unknown", "disagrees", "unversioned", "unreadable"]
"""Compared with the wanted version: there, before it, past it; a version that the chain lacks; two records that differ;
no version; no checkpoint that can be read."""

WORDS = {
    "current": "current",
    "unversioned": "tells no version",
    "unknown": "not of this chain",
    "disagrees": "its records disagree",
    "unreadable": "cannot be read",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where one checkpoint stands: its version and what told it, the steps that are missing, those changed since."""

    path: str
    state: State
    version: str = ""
    told_by: str = ""
    missing: tuple[Link, ...] = ()
    changed: tuple[tuple[Link, Stamp], ...] = ()
    error: str = ""

    @property
    def words(self) -> str:
        if self.state in ("behind", "ahead"):
            return f"{plural(len(self.missing), 'step')} {self.state}"
        return WORDS[self.state]


def chain_status(
    paths: Sequence[str | os.PathLike[str]],
    chain: str | os.PathLike[str],
    *,
    to_version: str = HEAD,
    limits: Limits = DEFAULT,
) -> Report:
    """Where checkpoints stand in the chain of a folder; of a run directory, each of its checkpoints.

    The exit code is 0 wherever they stand, 2 where one cannot be read. The data have ``head``, ``versions`` and
    ``targets``. Reads headers only, and runs nothing. Raises ``ChainError``, ``RuleError`` and ``Unreadable`` for the
    folder of the chain.
    """
    found, places = _places(paths, chain, to_version, limits)
    code = ExitCode.IMPOSSIBLE if any(one.state == "unreadable" for one in places) else ExitCode.OK
    return _report("chain-status", found, to_version, places, code, ())


def chain_check(
    paths: Sequence[str | os.PathLike[str]],
    chain: str | os.PathLike[str],
    *,
    to_version: str = HEAD,
    strict: bool = False,
    limits: Limits = DEFAULT,
) -> Report:
    """As ``chain_status``; the exit code is 1 where a checkpoint is not at the wanted version, by default the newest.

    With ``strict`` also where a step's file has changed since it was carried out.
    """
    found, places = _places(paths, chain, to_version, limits)
    failed = [one.path for one in places if one.state != "current" or (strict and one.changed)]
    code = ExitCode.FINDINGS if failed else ExitCode.OK
    if any(one.state == "unreadable" for one in places):
        code = ExitCode.IMPOSSIBLE
    return _report("chain-check", found, to_version, places, code, failed)


# --- looking ---------------------------------------------------------------------------------------------------


def _places(
    paths: Sequence[str | os.PathLike[str]], folder: str | os.PathLike[str], wanted: str, limits: Limits
) -> tuple[Chain, list[Place]]:
    chain = chain_in(folder)
    target = chain.version(wanted, "--to-version")
    return chain, [one for path in paths for one in _below(os.fspath(path), chain, target, limits)]


def _below(path: str, chain: Chain, wanted: str, limits: Limits) -> Iterator[Place]:
    try:
        names = find_targets(path)
    except Unreadable as error:
        yield Place(path, "unreadable", error=str(error))
        return
    if not names:
        yield Place(path, "unreadable", error=f"{printable(path)} – holds no checkpoint")
    for name in names:
        yield _place(name, chain, wanted, limits)


def _place(path: str, chain: Chain, wanted: str, limits: Limits) -> Place:
    try:
        checkpoint = _readable(path, limits)
    except CkpttoolError as error:
        return Place(path, "unreadable", error=str(error))
    here = standing(checkpoint, chain)
    changed = tuple(changed_since(chain, stamps_of(checkpoint)))
    state: State
    missing: tuple[Link, ...] = ()
    if not here.version:
        state = "unversioned"
    elif not here.agrees:
        state = "disagrees"
    elif here.version not in chain.versions:
        state = "unknown"
    else:
        way = chain.way(here.version, wanted)
        missing = tuple(turn.link for turn in way)
        state = "current" if not way else "ahead" if way[0].back else "behind"
    return Place(path, state, here.version, here.told_by, missing, changed)


def _readable(path: str, limits: Limits) -> Checkpoint:
    checkpoint = describe(path, limits)
    where = printable(path)
    if checkpoint.kind:
        raise CkpttoolError(f"{where} – this is {checkpoint.kind}, not a checkpoint")
    if checkpoint.root is None:
        raise CkpttoolError(f"{where} – damaged: there is no tree in it; run ckpttool verify")
    return checkpoint


# --- telling ---------------------------------------------------------------------------------------------------


def _report(
    verb: str, chain: Chain, wanted: str, places: Sequence[Place], code: ExitCode, failed: Sequence[str]
) -> Report:
    data: dict[str, Json] = {
        "chain": chain.where,
        "head": chain.head,
        "wanted": chain.version(wanted),
        "versions": [*chain.versions],
        "targets": [_data(one) for one in places],
    }
    subjects = tuple(Subject(p.path, p.state, (), p.path in failed, p.error) for p in places)
    return Report(verb, data, tuple(_blocks(chain, chain.version(wanted), places)), code, subjects)


def _data(place: Place) -> Json:
    return {
        "path": place.path,
        "state": place.state,
        "version": place.version or None,
        "told_by": place.told_by or None,
        "missing": [_step(link) for link in place.missing],
        "changed": [{**_step(link), "when": stamp.when or None} for link, stamp in place.changed],
        "error": place.error or None,
    }


def _step(link: Link) -> dict[str, Json]:
    return {"step": link.name, "where": link.where, "from": link.from_, "to": link.to}


def _blocks(chain: Chain, wanted: str, places: Sequence[Place]) -> Iterator[Block]:
    steps = plural(len(chain.links), "step")
    yield Text(f"{printable(chain.where)}: {steps}, newest version {shown(chain.head)}", "title")
    counted = sum(one.state == "current" for one in places)
    whole = counted == len(places)
    words = f"{counted} of {plural(len(places), 'checkpoint')} at version {shown(wanted)}"
    yield Text(words, "good" if whole else "warning")
    rows = tuple((printable(one.path), printable(one.version) or "–", one.words, one.told_by or "–") for one in places)
    yield Table(("checkpoint", "version", "state", "told by"), rows, "llll")
    for one in places:
        if one.error:
            yield Text(one.error, "bad")
        for link, stamp in one.changed:
            when = f" on {printable(stamp.when)}" if stamp.when else ""
            words = f"{printable(one.path)} – {link.text} has changed since it was carried out{when}"
            yield Text(words, "warning")
    behind = next((one for one in places if one.state == "behind"), None)
    if behind is not None:
        folder = printable(chain.where)
        yield Text(f"run: ckpttool migrate {printable(behind.path)} --chain {folder} --in-place", "dim")
    if any(one.state == "unversioned" for one in places):
        yield Text(
            "a version is told by ckpttool migrate --from-version, or by 'version' and 'unstamped' in chain.yaml", "dim"
        )


# --- history ---------------------------------------------------------------------------------------------------


def chain_history(path: str | os.PathLike[str], *, limits: Limits = DEFAULT) -> Report:
    """The migrations that a checkpoint records, oldest first. Reads headers only.

    Raises ``Unreadable``, and ``CkpttoolError`` for what is no checkpoint.
    """
    name = os.fspath(path)
    checkpoint = _readable(name, limits)
    stamps = stamps_of(checkpoint)
    version = standing(checkpoint, None).version
    data: dict[str, Json] = {"path": name, "version": version or None, "migrations": [_noted(one) for one in stamps]}
    return Report("chain-history", data, tuple(_told(name, version, stamps)))


def _noted(stamp: Stamp) -> Json:
    return {
        "step": stamp.step or None,
        "about": stamp.about or None,
        "from": stamp.from_ or None,
        "to": stamp.to or None,
        "back": stamp.back,
        "when": stamp.when or None,
        "tool": stamp.tool or None,
        "digest": stamp.digest,
        "given": dict(stamp.given),
    }


def _told(name: str, version: str, stamps: Sequence[Stamp]) -> Iterator[Block]:
    yield Text(printable(name), "title")
    if not stamps:
        yield Text("records no migrations: none were carried out, or training has saved it again", "plain")
        return
    if version:
        yield Text(f"version {shown(version)}", "good")
    rows = tuple(tuple(printable(cell) for cell in _row(one)) for one in stamps)
    yield Table(("step", "from", "to", "when", "ckpttool", "digest", "about"), rows, "lllllll")


def _row(stamp: Stamp) -> tuple[str, ...]:
    old, new = (stamp.to, stamp.from_) if stamp.back else (stamp.from_, stamp.to)
    step = stamp.step or ("rules, back" if stamp.back else "rules")
    return (step, old or "–", new or "–", stamp.when or "–", stamp.tool or "–", stamp.digest[:12], stamp.about)
