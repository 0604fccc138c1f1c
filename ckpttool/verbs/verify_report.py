"""The report of ``verify``: JSON for scripts, blocks for people, one exit code. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ckpttool.checks import rules
from ckpttool.errors import ExitCode, printable
from ckpttool.model import Checkpoint, Finding, Json
from ckpttool.report import Block, Facts, Findings, Report, Subject, Table, Text
from ckpttool.units import plural, short_count, size
from ckpttool.verbs.completeness import State, states
from ckpttool.verbs.findings import RANK
from ckpttool.verbs.inventory import items, parameters
from ckpttool.verbs.verdict import Verdict
from ckpttool.verbs.verify_target import Target, Wishes


def report(targets: Sequence[Target], wishes: Wishes) -> Report:
    """The report on several targets: the JSON of the contract, blocks for people, the exit code."""
    subjects = tuple(_subject(t, wishes) for t in targets)
    code = max((_exit_code(t, wishes) for t in targets), default=ExitCode.IMPOSSIBLE)
    blocks = [block for target in targets for block in _blocks(target)]
    labels = states(targets)
    if len(targets) > 1:
        blocks += [_labels(targets, labels), _tally(targets, subjects)]
    used = {f.name for target in targets for f in target.findings}
    pages = tuple(rule for rule in rules().values() if rule.name in used)
    data: dict[str, Json] = {"targets": [_labelled(t, label) for t, label in zip(targets, labels, strict=True)]}
    return Report("verify", data, tuple(blocks), code, subjects, wishes.fail_on, pages)


def _labelled(target: Target, label: tuple[State, tuple[str, ...]]) -> Json:
    state, lacks = label
    found: list[Json] = [*lacks]
    return {**_json(target), "state": state, "incomplete": found}


def _labels(targets: Sequence[Target], labels: Sequence[tuple[State, tuple[str, ...]]]) -> Table:
    """One line for each checkpoint: complete or partial, and what is missing."""
    rows = tuple(
        (printable(target.path), state, "unreadable" if target.verdict is None else target.verdict.name, _first(lacks))
        for target, (state, lacks) in zip(targets, labels, strict=True)
    )
    return Table(("checkpoint", "state", "verdict", "missing"), rows)


def _first(lacks: Sequence[str]) -> str:
    more = f" and {len(lacks) - 3} more" if len(lacks) > 3 else ""
    return "; ".join(printable(text) for text in lacks[:3]) + more


def _exit_code(target: Target, wishes: Wishes) -> ExitCode:
    if target.error:
        return ExitCode.IMPOSSIBLE
    if wishes.fail_on != "never" and any(RANK[f.severity] <= RANK[wishes.fail_on] for f in target.findings):
        return ExitCode.FINDINGS
    unmet = any(f.name == "requirement-not-met" for f in target.findings)
    return ExitCode.FINDINGS if unmet else ExitCode.OK


def _subject(target: Target, wishes: Wishes) -> Subject:
    verdict = "unreadable" if target.verdict is None else target.verdict.name
    return Subject(target.path, verdict, target.findings, _exit_code(target, wishes) != ExitCode.OK, target.error)


def _json(target: Target) -> dict[str, Json]:
    if target.checkpoint is None or target.verdict is None or target.coverage is None:
        return {
            "path": target.path,
            "format": None,
            "writer": None,
            "verdict": None,
            "error": target.error,
            "findings": [],
        }
    writer = target.layout.writer
    found = items(target.checkpoint, target.layout)
    return {
        "path": target.path,
        "format": target.checkpoint.format,
        "writer": None
        if writer is None
        else {"framework": writer.framework, "version": writer.version, "confidence": writer.confidence},
        "verdict": target.verdict.name,
        "integrity": target.verdict.integrity,
        "safety": target.verdict.safety,
        "readiness": target.verdict.readiness,
        "missing": list(target.layout.readiness.lacks),
        "next": target.layout.readiness.next or None,
        "bytes": target.checkpoint.nbytes,
        "tensors": target.coverage.tensors,
        "parameters": parameters(found),
        "coverage": target.coverage.json,
        "findings": [_finding_json(f) for f in target.findings],
    }


def _finding_json(found: Finding) -> Json:
    return {
        "code": found.code,
        "name": found.name,
        "severity": found.severity,
        "where": found.where,
        "message": found.message,
        "facts": dict(found.facts),
        "hint": found.hint or None,
    }


def _blocks(target: Target) -> list[Block]:
    title = Text(printable(target.path), "title")
    if target.checkpoint is None or target.verdict is None or target.coverage is None:
        return [title, Text(f"could not be checked: {target.error}", "bad")]
    name = target.verdict.name
    good = name not in ("not-a-checkpoint", "damaged", "unsafe")
    blocks: list[Block] = [
        title,
        Text(name, "good" if good else "bad"),
        Facts(_facts(target, target.checkpoint, target.verdict)),
    ]
    if target.findings:
        here = printable(target.checkpoint.source)
        blocks.append(Findings(tuple(replace(f, where="") if f.where == here else f for f in target.findings)))
    return [*blocks, Text(f"coverage: {target.coverage.text}", "dim")]


def _facts(target: Target, checkpoint: Checkpoint, verdict: Verdict) -> tuple[tuple[str, str], ...]:
    if checkpoint.kind:
        return (("this is", checkpoint.kind), ("size", size(checkpoint.nbytes)))
    writer = target.layout.writer
    by = "" if writer is None else f"{writer.framework} {writer.version or ''}".strip() + f" ({writer.confidence})"
    found = items(checkpoint, target.layout)
    tensors = 0 if target.coverage is None else target.coverage.tensors
    rows = (
        ("format", checkpoint.format),
        ("written by", printable(by)),
        (
            "size",
            f"{size(checkpoint.nbytes)}, {plural(tensors, 'tensor')}, {short_count(parameters(found))} parameters",
        ),
        ("integrity", verdict.integrity),
        ("safety", verdict.safety),
        ("readiness", verdict.readiness),
        ("continues", target.layout.readiness.next),
        ("lacks", ", ".join(target.layout.readiness.lacks)),
    )
    return tuple((label, text) for label, text in rows if text)


def _tally(targets: Sequence[Target], subjects: Sequence[Subject]) -> Text:
    failed = sum(s.failed for s in subjects)
    verdicts: dict[str, int] = {}
    for subject in subjects:
        verdicts[subject.verdict] = verdicts.get(subject.verdict, 0) + 1
    parts = ", ".join(f"{count} {name}" for name, count in verdicts.items())
    text = f"{plural(len(targets), 'target')}: {parts}" + (f"; {failed} failed" if failed else "")
    return Text(text, "bad" if failed else "good")
