"""What a person should know of rules that did nothing: never reached, held back by a guard, or without any key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from ckpttool.errors import printable
from ckpttool.migration.compiled import Compiled
from ckpttool.migration.matching import compile_pattern
from ckpttool.migration.patterns import Capture, Pattern, PatternFault
from ckpttool.migration.rule_errors import listed, nearest_of, templates
from ckpttool.migration.stage_items import Context, Index, Item, Tally


def stage_notes(stage: Sequence[Compiled], items: Mapping[str, Item], context: Context, tally: Tally) -> Iterator[str]:
    """One note for each rule of a stage that decided nothing, unless it is optional; ``tally`` learns of them too."""
    idle = [rule for rule in stage if not tally.hits[rule.number]]
    if not idle:
        return
    index = Index(idle)
    matched: dict[int, list[str]] = {}
    for name in items:
        for claim in index.claims(name, None):
            matched.setdefault(claim.rule.number, []).append(name)
    known = templates(items)
    for rule in idle:
        names = matched.get(rule.number, [])
        if names:
            tally.met.add(rule.number)
        elif rule.matchers and rule.role != "strip" and not rule.rule.optional:
            tally.lonely.add(rule.number)
        note = _unreached(rule, names, stage, items, context) if names else _unfired(rule, known)
        if note:
            yield f"{printable(rule.rule.where)} – {rule.rule.text}: {note}"


def _unreached(
    rule: Compiled, matched: list[str], stage: Sequence[Compiled], items: Mapping[str, Item], context: Context
) -> str:
    """Which earlier rule takes its keys; or that its guard does not hold."""
    around = context.around(items)
    index = Index([rule])
    held = [name for name in matched if next(index.claims(name, around), None) is not None]
    if not held:
        return "" if rule.rule.optional else f"its guard does not hold for any of {_keys(matched)}"
    if rule.role == "extra" or rule.rule.kind in ("cast", "reshape", "pad", "expand"):
        return ""
    takes = [other for other in stage if other.role == "name" and other.number != rule.number]
    if rule.role == "content":
        takes = [other for other in takes if other.rule.kind == "drop"]
    earlier = Index(takes)
    takers = Counter(
        claim.rule.number for name in held for claim in [next(earlier.claims(name, around), None)] if claim
    )
    if not takers:
        return ""
    first = next(other for other in stage if other.number == takers.most_common(1)[0][0])
    return (
        f"is never reached: {printable(first.rule.where)}, {first.rule.text}, decides {_keys(held)} first;"
        " put the narrower rule before the wider one"
    )


def _unfired(rule: Compiled, known: Mapping[str, str]) -> str:
    if rule.rule.optional or (not rule.matchers and rule.role == "extra"):
        return ""
    if rule.role == "strip":
        return "no key has such a segment"
    if any(_spelt(pattern, known) for pattern in rule.patterns):
        return "no key matches; a name of one letter stands for digits, a longer one for any segment"
    near = nearest_of(rule.rule.sources[0], known) if rule.rule.sources and not rule.rule.regex else ()
    return "no key matches" + (f"; nearest: {listed(near)}" if near else "")


def _keys(names: list[str]) -> str:
    return f"its {len(names):,} keys" if len(names) > 1 else listed(names)


def _spelt(pattern: Pattern, known: Mapping[str, str]) -> bool:
    """Whether names would match if digits could be letters."""
    if not any(capture.kind == "digits" for capture in pattern.captures):
        return False
    segments = tuple(
        tuple(replace(p, kind="word") if isinstance(p, Capture) and p.kind == "digits" else p for p in segment)
        for segment in pattern.segments
    )
    try:
        matcher = compile_pattern(replace(pattern, segments=segments), {}, frozenset())
    except PatternFault:
        return False
    return any(matcher.match(name) is not None for name in known.values())
