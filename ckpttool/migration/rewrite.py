"""Rules applied to names: every stage in turn, composed to one ``Rewriting``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ckpttool.expressions import Expression, Leaf, leaves
from ckpttool.migration.compiled import Compiled, compile_rule
from ckpttool.migration.losses import loss_of
from ckpttool.migration.matching import compile_pattern
from ckpttool.migration.patterns import Pattern, PatternFault
from ckpttool.migration.rule_errors import RuleError
from ckpttool.migration.rule_nouns import RuleFile, Setting
from ckpttool.migration.settings import settle
from ckpttool.migration.stage_items import Context, Item, Tally
from ckpttool.migration.stage_notes import stage_notes
from ckpttool.migration.stage_run import run_stage
from ckpttool.rewriting import Dropped, Named, Names, Output, Rewriting, RuleUse, Tied

Stages = list[tuple[Compiled, ...]]


def rewrite(rules: RuleFile, names: Names, settings: Mapping[str, Setting] | None = None) -> Rewriting:
    """What the rules make of these names. Pure; linear in names × the rules that can match them.

    ``settings`` override given values. ``outputs`` has every key of the result in its order, tied ones too, with the
    expression of the key that they share. Raises ``RuleError`` for rules that do not fit the names: two sources for
    one key, a member of a group that is missing, a tensor that an operation does not fit, a value not given.
    """
    values = settle(rules, names.facts, settings or {})
    stages = compiled_stages(rules, values)
    context = Context(names.facts, names.versions, values)
    start = {named.name: Item(named.name, Leaf(named.name), named.form) for named in names.items}
    tally = Tally()
    items = _run(stages, start, context, tally, notes=True)
    return _rewriting(rules, names, stages, items, tally, context)


def compiled_stages(rules: RuleFile, values: Mapping[str, Setting]) -> Stages:
    """The stages' rules made ready, numbered through the file."""
    stages: Stages = []
    number = 0
    for stage in rules.stages:
        stages.append(tuple(compile_rule(rule, number + i, values) for i, rule in enumerate(stage.rules)))
        number += len(stage.rules)
    return stages


def _run(
    stages: Stages, items: dict[str, Item], context: Context, tally: Tally, *, notes: bool = False
) -> dict[str, Item]:
    for stage in stages:
        after = run_stage(stage, items, context, tally)
        if notes:
            tally.notes.extend(stage_notes(stage, items, context, tally))
        items = after
    return items


def _rewriting(
    rules: RuleFile, names: Names, stages: Stages, items: dict[str, Item], tally: Tally, context: Context
) -> Rewriting:
    outputs = tuple(Output(item.name, item.expression, item.rules) for item in items.values())
    ties = tuple(
        Tied(item.name, item.tied, item.rules, item.replaces)
        for item in items.values()
        if item.tied in items and items[item.tied].expression == item.expression
    )
    kept = {name for output in outputs for name in output.inputs}
    idle = not tally.hits
    already = idle and bool(names.items) and _looks_migrated(stages, items)
    foreign = idle and not already and bool(tally.lonely) and not tally.met
    notes = [*_idle_notes(rules, already)] if idle and names.items else []
    notes += tally.notes if foreign or not idle else []
    return Rewriting(
        outputs,
        tuple(_dropped(names.items, kept, ties, tally)),
        ties,
        tuple(_uses(rules, tally, idle)),
        tuple(output.name for output in outputs if not output.rules),
        (*notes, *_part_notes(kept, tally, rules)),
        repeats=not idle and _repeats(stages, items, context),
        already=already,
        foreign=foreign,
    )


def _idle_notes(rules: RuleFile, already: bool) -> Iterator[str]:
    if already:
        yield f"{rules.where} – no rule matches, and the keys are called as the rules would call them: already migrated"
    else:
        yield f"{rules.where} – no rule matches any key; ckpttool inspect lists the keys that there are"


def _dropped(items: Sequence[Named], kept: set[str], ties: Sequence[Tied], tally: Tally) -> Iterator[Dropped]:
    by: dict[str, tuple[int, ...]] = {}
    for item, number in tally.dropped:
        for name in leaves(item.expression):
            by[name] = (*item.rules, number)
    replaced = {tie.replaces for tie in ties}
    for named in items:
        if named.name not in kept and named.name not in replaced:
            yield Dropped(named.name, by.get(named.name, ()))


def _part_notes(kept: set[str], tally: Tally, rules: RuleFile) -> Iterator[str]:
    """A part of a tensor that is dropped while the rest stays is easy to overlook."""
    for item, number in tally.dropped:
        if not isinstance(item.expression, Leaf) and any(name in kept for name in leaves(item.expression)):
            rule = rules.rules[number]
            yield f"{rule.where} – {rule.text}: a part of '{leaves(item.expression)[0]}' is dropped with it"


def _uses(rules: RuleFile, tally: Tally, idle: bool) -> Iterator[RuleUse]:
    for number, rule in enumerate(rules.rules):
        hits = tally.hits[number]
        yield RuleUse(rule.text, rule.where, hits, loss_of(rule) if hits else "")


def _looks_migrated(stages: Stages, items: Mapping[str, Item]) -> bool:
    """Whether some key is called as a rule would have called it."""
    for rule in (rule for stage in stages for rule in stage):
        # What a tie leads to is called so before it, unless the key is a new one.
        known = rule.rule.kind == "tie" and not rule.rule.option("new")
        for target in () if known else rule.targets:
            if isinstance(target, Pattern):
                try:
                    matcher = compile_pattern(target, rule.numbers, frozenset())
                except PatternFault:
                    continue
                if any(matcher.match(name) is not None for name in items):
                    return True
    return False


def _repeats(stages: Stages, items: Mapping[str, Item], context: Context) -> bool:
    """Whether the rules would change their own result: then only a stamp or a guard tells that they have run."""
    again = {name: Item(name, Leaf(name), item.form) for name, item in items.items()}
    tally = Tally()
    try:
        after = _run(stages, again, context, tally)
    except RuleError:
        return True
    return any(_differs(item.name, item.expression) and not item.tied for item in after.values()) or bool(tally.dropped)


def _differs(name: str, expression: Expression) -> bool:
    return expression != Leaf(name)
