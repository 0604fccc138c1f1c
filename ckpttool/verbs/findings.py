"""From damage and judges to findings: each gets its rule's code and severity, in one place. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from ckpttool.checks import rules
from ckpttool.errors import printable
from ckpttool.model import Damage, Finding, Severity
from ckpttool.rules import Context, Rule

EXPLAINED = {
    "truncated": frozenset(
        {"storage-missing", "storage-size", "missing-record", "not-canonical", "view-out-of-bounds", "content-unread"}
    ),
    "not-a-checkpoint": frozenset({"not-resumable", "not-exact", "bad-record-name", "crc-not-recorded"}),
    "directory-damaged": frozenset({"not-canonical"}),
    "leading-bytes": frozenset({"not-canonical"}),
    "encrypted-record": frozenset({"not-canonical"}),
    "pickle-malformed": frozenset({"unreachable-storage"}),
    "missing-shard": frozenset({"storage-missing"}),
}
"""What a finding explains: those named here are left out beside it, since they say the same again."""

RANK: dict[Severity, int] = {"error": 0, "warning": 1, "info": 2}


def judge(
    context: Context, ignore: Collection[str] = (), only: Callable[[Rule], bool] | None = None
) -> tuple[Finding, ...]:
    """Every finding about a checkpoint, worst first, then by code and in the order of the file.

    ``ignore`` holds codes or names, case ignored. Content rules are asked only where content was measured.
    ``only`` says which of the rules are asked.
    """
    known = rules()
    damage: list[tuple[Rule, Damage]] = [(known[d.rule], d) for d in context.checkpoint.damage]
    for rule in known.values():
        if only is not None and not only(rule):
            continue
        if rule.judge is not None and (context.measures is not None or not rule.content):
            damage.extend((known[d.rule], d) for d in rule.judge(context))
    skip = {text.lower() for text in ignore} | explained(rule.name for rule, _ in damage)
    whole = printable(context.checkpoint.source)
    kept = [finding(rule, d, whole) for rule, d in damage if not {rule.code.lower(), rule.name} & skip]
    return tuple(sorted(dict.fromkeys(kept), key=lambda f: (RANK[f.severity], f.code)))


def explained(names: Iterable[str]) -> set[str]:
    """The rules that other findings make redundant."""
    return {name for cause in set(names) for name in EXPLAINED.get(cause, ())}


def finding(rule: Rule, damage: Damage, whole: str = "") -> Finding:
    """A damage with its rule's code, name and severity; ``whole`` is where, if it says no place of its own."""
    return Finding(
        rule.code, rule.name, rule.severity, damage.where or whole, damage.message, damage.facts, damage.hint
    )
