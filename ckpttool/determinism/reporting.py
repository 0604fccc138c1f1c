"""The check's answer as a report: a sentence, the evidence, pictures, and the contract's JSON. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from ckpttool.determinism.pictures import pictures
from ckpttool.determinism.verdict import Branch, Detail, Verdict
from ckpttool.errors import ExitCode, printable
from ckpttool.model import Finding, Json, Severity
from ckpttool.report import Block, Facts, Report, Subject, Table, Text

CODES = {
    "exact": ExitCode.OK, "diverged": ExitCode.FINDINGS, "recovery-failed": ExitCode.FINDINGS,
    "not-reproducible": ExitCode.IMPOSSIBLE, "command-failed": ExitCode.IMPOSSIBLE, "no-power": ExitCode.IMPOSSIBLE,
}  # fmt: skip

CODE = "determinism"
"""What findings of this verb have in the place of a rule's code: causes are told by name."""

SHOWN = 8
"""Names of tensors that are told one by one."""


def report(found: Verdict, command: str, script: str = "", check: str = "") -> Report:
    """The report on one check. ``script`` is the file that annotations are pinned to; by default the command's.

    ``check`` is the command line that asked for it, up to the cuts: with it that is told which repeats what failed.
    """
    good = found.status == "exact"
    blocks: list[Block] = [
        Text(printable(command), "title"),
        Text(found.status, "good" if good else "bad"),
        Text(found.message),
    ]
    if found.causes:
        blocks.append(Facts((*_facts(found), *_again(found, command, check))))
    elif again := tuple(_again(found, command, check)):
        blocks.append(Facts(again))
    if found.levels:
        blocks.append(
            Table(("level", "", "what that rests on"), tuple((v.name, v.state, v.basis) for v in found.levels))
        )
    if found.branches:
        blocks.append(_table(found.branches))
    blocks += [*pictures(found), *_remarks(found)]
    if found.lines:
        blocks.append(Text("the command's last lines:", "heading"))
        blocks += [Text(printable(line), "dim") for line in found.lines]
    subjects = tuple(_subjects(found, command, script or script_of(command)))
    return Report(
        "determinism",
        _data(found) | {"reproduce": repeats(found, command, check) or None},
        tuple(blocks),
        CODES[found.status],
        subjects,
    )


def script_of(command: str) -> str:
    """The file that a command trains with, as far as its words say; else the whole command."""
    try:
        words = shlex.split(command)
    except ValueError:
        return command
    return next((word for word in words if word.endswith(".py")), command)


def _facts(found: Verdict) -> Iterator[tuple[str, str]]:
    assert found.departure is not None
    cause = found.causes[0]
    proof = next((b.proof for b in found.branches if b.proof), ())
    seen = found.departure.loss_step
    yield "component", cause.component
    yield "cause", cause.name
    yield "evidence", cause.evidence
    if found.detail is not None:
        yield from _closer(found.detail)
    yield ("proof", f"transplanting {{{', '.join(proof)}}} makes the steps exact" if proof else "none was found")
    yield "remedy", cause.remedy
    yield "in the loss", "never, in the steps that were looked at" if seen is None else f"from step {seen}"
    if found.departure.rank:
        yield "rank", str(found.departure.rank)
    if found.smallest:
        yield "smallest", found.smallest
    for other in found.causes[1:3]:
        yield "also", f"{other.name}: {other.message}"


def repeats(found: Verdict, command: str, check: str) -> str:
    """The command that tries the failing cut alone; nothing where that is a kill of another kind, or none."""
    starts = ((b, str(b.kill)) for b in found.branches if b.kill.how == "step" and (b.failure or b.departure))
    bad = next((b for b, kill in starts if found.message.startswith((f"{kill}:", f"{kill} and resumed"))), None)
    if bad is None or not check:
        return ""
    return f"{check} --cut {','.join(map(str, bad.cut))} --kills 0 -- {command}"


def _again(found: Verdict, command: str, check: str) -> Iterator[tuple[str, str]]:
    if text := repeats(found, command, check):
        yield "again", printable(text)


def _closer(found: Detail) -> Iterator[tuple[str, str]]:
    if found.element is not None:
        yield "element", f"{found.where}: {found.element}"
    if found.tensors:
        more = len(found.tensors) - SHOWN
        yield "tensors", ", ".join(found.tensors[:SHOWN]) + (f" and {more} more" if more > 0 else "")
    for text in found.equals:
        yield "equals", text


def _table(branches: tuple[Branch, ...]) -> Table:
    rows = tuple((f"{b.kill} ({b.kill.why})", outcome(b)) for b in branches)
    return Table(("interruption", "resumed run"), rows)


def outcome(found: Branch) -> str:
    """How a branch ended, in a few words."""
    if found.failure:
        return found.failure
    if found.departure is None:
        return "; ".join(["exact", *found.notes])
    return "; ".join(
        [f"departs at step {found.departure.step} in {', '.join(found.departure.fields[:3])}", *found.notes]
    )


def _remarks(found: Verdict) -> Iterator[Block]:
    if found.not_exercised:
        names = ", ".join(found.not_exercised)
        text = f"not exercised: losing {names} would not show in this training, so nothing is proved of it"
        yield Text(text, "warning")
    if found.unseeded:
        names = ", ".join(name.partition(".")[2] for name in found.unseeded)
        text = f"left out: the generators of {names} are never seeded, and nothing that is recorded uses them"
        yield Text(text, "dim")
    for note in found.notes:
        yield Text(note, "dim")


# --- for machines ------------------------------------------------------------------------------------------


def _subjects(found: Verdict, command: str, script: str) -> Iterator[Subject]:
    """The uninterrupted run, then every interrupted one."""
    if CODES[found.status] == ExitCode.IMPOSSIBLE:
        last = "\n".join(found.lines)
        told = "\n".join(filter(None, (found.message, last)))
        yield Subject(script, found.status, (), failed=True, error=told, name=command)
        return
    whole = () if found.branches else tuple(_whole(found))
    yield Subject(
        script, found.status if whole else "reproducible", whole, bool(whole), name=f"{script}: uninterrupted"
    )
    gate = found.status != "exact"
    for branch in found.branches:
        bad = bool(branch.failure or branch.departure is not None)
        findings = tuple(_findings(branch, gate=gate)) if bad else ()
        verdict = "exact" if not bad else "recovery-failed" if branch.failure else "diverged"
        yield Subject(script, verdict, findings, bad and gate, name=f"{script}: {branch.kill}")


def _whole(found: Verdict) -> Iterator[Finding]:
    """What is wrong before anything was interrupted: saving changes the training, or nothing is saved."""
    cause = found.causes[0] if found.causes else None
    where = "" if found.departure is None else f"step {found.departure.step}"
    name, hint = (cause.name, cause.remedy) if cause else (found.status, "")
    yield Finding(CODE, name, "error", where, found.message, {}, hint)


def _findings(branch: Branch, *, gate: bool) -> Iterator[Finding]:
    """What is wrong with a branch; below the level that was asked for it is a remark."""
    severity: Severity = "error" if gate else "info"
    if branch.failure:
        yield Finding(CODE, "recovery-failed", severity, str(branch.kill), branch.failure)
        return
    assert branch.departure is not None
    where = f"step {branch.departure.step}, {', '.join(branch.departure.fields[:3])}"
    if not branch.causes:
        yield Finding(CODE, "diverged", severity, where, f"{branch.kill} and resumed, it is not what it was")
        return
    cause = branch.causes[0]
    yield Finding(CODE, cause.name, severity, where, f"{branch.kill} and resumed: {cause.message}", {}, cause.remedy)


def _data(found: Verdict) -> dict[str, Json]:
    return {
        "status": found.status, "message": found.message, "cuts": [_cut(b) for b in found.branches],
        "divergence": _divergence(found), "levels": [_level(v.name, v.state, v.basis) for v in found.levels],
        "smallest": found.smallest or None, "not_exercised": [*found.not_exercised], "unseeded": [*found.unseeded],
        "saves": [s.number for s in found.saves], "ranks": found.ranks, "notes": [*found.notes],
        "lines": [*found.lines],
    }  # fmt: skip


def _level(name: str, state: str, basis: str) -> Json:
    return {"name": name, "state": state, "basis": basis}


def _cut(branch: Branch) -> Json:
    return {
        "steps": [*branch.cut], "how": branch.kill.how, "why": branch.kill.why, "what": str(branch.kill),
        "exact": not branch.failure and branch.departure is None, "failure": branch.failure or None,
        "departs": None if branch.departure is None else branch.departure.step, "boundary": [*branch.boundary],
        "cause": branch.causes[0].name if branch.causes else None, "proof": [*branch.proof],
        "levels_broken": [*branch.broken], "notes": [*branch.notes],
    }  # fmt: skip


def _divergence(found: Verdict) -> Json:
    if found.departure is None:
        return None
    cause = found.causes[0] if found.causes else None
    return {
        "step": found.departure.step, "component": cause.component if cause else found.departure.component,
        "key": found.departure.fields[0] if found.departure.fields else "", "cause": cause.name if cause else None,
        "message": cause.message if cause else found.message, "remedy": cause.remedy if cause else None,
        "first_visible_in_loss": found.departure.loss_step, "fields": [*found.departure.fields],
        "rank": found.departure.rank, "detail": _detail(found.detail),
    }  # fmt: skip


def _detail(found: Detail | None) -> Json:
    if found is None:
        return None
    element: Json = None
    if found.element is not None:
        e = found.element
        element = {
            "key": e.name, "index": [*e.index], "uninterrupted": e.one, "resumed": e.two, "ulp": e.ulps,
            "changed": e.odd, "elements": e.total,
        }  # fmt: skip
    return {"where": found.where, "tensors": [*found.tensors], "element": element, "equals": [*found.equals]}
