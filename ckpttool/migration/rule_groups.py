"""Rules that join several keys into one: which keys belong together, and which are missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from ckpttool.errors import printable
from ckpttool.frozen import dataclass
from ckpttool.migration.arithmetic import ArithmeticFault
from ckpttool.migration.compiled import Compiled
from ckpttool.migration.matching import Binding, write
from ckpttool.migration.rule_errors import RuleError, listed, nearest
from ckpttool.migration.stage_items import Claim, Item, Tally


@dataclass
class Group:
    """Keys that become one, in the order in which they are joined. ``held`` are those already at hand."""

    target: str
    members: tuple[str, ...]
    held: dict[str, Item] = field(default_factory=dict)
    place: int = 0


Members = dict[tuple[str, ...], str]


@dataclass
class _Found:
    """Members by source, each by the values of its gathered captures."""

    rule: Compiled
    binding: Binding
    sources: list[Members]


def gather(claims: Mapping[str, Claim], items: Mapping[str, Item], tally: Tally) -> dict[str, Group]:
    """The group of each name that a joining rule claims. Raises ``RuleError`` for a group that lacks a member."""
    found: dict[tuple[int, tuple[str, ...]], _Found] = {}
    for name, claim in claims.items():
        rule = claim.rule
        if rule.kind.many == "sources":
            key = (rule.number, tuple(claim.binding[capture] for capture in rule.shared))
            group = found.setdefault(key, _Found(rule, claim.binding, [{} for _ in rule.matchers]))
            counted = tuple(claim.binding[capture] for capture in rule.gathered[claim.source])
            group.sources[claim.source][counted] = name
    return {name: group for one in found.values() for group in [_checked(one, claims, items)] for name in group.members}


def _checked(found: _Found, claims: Mapping[str, Claim], items: Mapping[str, Item]) -> Group:
    rule = found.rule
    for place, members in enumerate(found.sources):
        if not members:
            binding = {**found.binding}
            raise _missing(found, place, binding, claims, items)
        if rule.gathered[place]:
            alike = [
                one for keys, one in zip(rule.gathered, found.sources, strict=True) if keys == rule.gathered[place]
            ]
            expected = _expected({value for one in alike for value in one})
            for value in sorted(expected - members.keys(), key=_order):
                binding = {**found.binding, **dict(zip(rule.gathered[place], value, strict=True))}
                raise _missing(found, place, binding, claims, items)
    names = [members[value] for members in found.sources for value in sorted(members, key=_order)]
    target = rule.name(rule.targets[0], found.binding, names[0])
    if len(set(names)) != len(names):
        raise rule.fault(f"a key would be joined with itself: {listed(names)}")
    return Group(target, tuple(names))


def _expected(have: set[tuple[str, ...]]) -> set[tuple[str, ...]]:
    """What members there must be: all that any source has, and numbers from 0 up without a gap."""
    if not all(len(value) == 1 and value[0].isdecimal() for value in have):
        return have
    numbers = {int(value[0]) for value in have}
    first_gap = next(n for n in range(len(numbers) + 1) if n not in numbers)
    return have | ({(str(first_gap),)} if first_gap < len(numbers) else set())


def _order(value: tuple[str, ...]) -> tuple[tuple[int, str], ...]:
    return tuple((int(part), "") if part.isdecimal() else (0, part) for part in value)


def _missing(
    found: _Found, place: int, binding: Binding, claims: Mapping[str, Claim], items: Mapping[str, Item]
) -> RuleError:
    """The error that names the key which is not there, or which another rule takes."""
    rule = found.rule
    have = [name for members in found.sources for name in members.values()]
    try:
        name = write(rule.patterns[place], binding, rule.numbers)
    except (KeyError, ArithmeticFault):
        name = rule.rule.sources[place]
    said = f"{listed(have)} {'is' if len(have) == 1 else 'are'} there and '{printable(name)}'"
    if name in items:
        taken = claims.get(name)
        other = f": {printable(taken.rule.rule.where)} decides it" if taken is not None else ": its guard does not hold"
        return rule.fault(f"{said} cannot be joined with {'it' if len(have) == 1 else 'them'}{other}")
    return RuleError(
        rule.rule.where, f"{said} is missing", rule=rule.rule.text, keys=(*have, name), near=nearest(name, items)
    )
