"""One stage: every rule looks at the names that the stage is given; the first name rule that matches decides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from ckpttool.errors import printable
from ckpttool.expressions import Applied, Expression, Form, OpError
from ckpttool.migration.arithmetic import ArithmeticFault
from ckpttool.migration.compiled import Compiled
from ckpttool.migration.guards import Surroundings
from ckpttool.migration.operations import content_op, joining_op, parting_op
from ckpttool.migration.rule_groups import Group, gather
from ckpttool.migration.stage_extras import add_extras
from ckpttool.migration.stage_items import Claim, Context, Index, Item, Tally
from ckpttool.migration.stage_out import Emission

Result = TypeVar("Result")


def run_stage(rules: Sequence[Compiled], items: Mapping[str, Item], context: Context, tally: Tally) -> dict[str, Item]:
    """The keys after the stage, in order. Raises ``RuleError``. Linear in names × the rules that can match them."""
    if rules and rules[0].kind.role == "strip":
        return _stripped(rules[0], items, tally)
    around = context.around(items)
    deciding = Index([rule for rule in rules if rule.role == "name"])
    changing = Index([rule for rule in rules if rule.role == "content"])
    claims = {name: claim for name in items if (claim := next(deciding.claims(name, around), None))}
    groups = gather(claims, items, tally)
    emission = Emission(items)
    for name, item in items.items():
        claim = claims.get(name)
        if claim is not None and claim.rule.rule.kind == "drop":
            tally.hits[claim.rule.number] += 1
            tally.dropped.append((item, claim.rule.number))
            continue
        prepared = _changed(item, changing, around, tally)
        _decide(prepared, claim, groups.get(name), emission, tally)
    add_extras([rule for rule in rules if rule.role == "extra"], items, around, emission, tally)
    return emission.finish()


def _stripped(rule: Compiled, items: Mapping[str, Item], tally: Tally) -> dict[str, Item]:
    """Names without their wrapper segments; a name that is nothing else stays."""
    words = frozenset(rule.rule.sources)
    emission = Emission(items)
    for name, item in items.items():
        bare = ".".join([segment for segment in name.split(".") if segment not in words])
        if not bare or bare == name:
            emission.put(item, None, name)
            continue
        tally.hits[rule.number] += 1
        emission.put(replace(item, name=bare, rules=(*item.rules, rule.number)), rule, name)
    return emission.finish()


def _changed(item: Item, index: Index, around: Surroundings, tally: Tally) -> Item:
    """The item after every content rule that matches its name, in order."""
    for claim in index.claims(item.name, around):
        rule = claim.rule
        form = tensor_form(rule, item)
        op = fitted(rule, (item.name,), lambda rule=rule, form=form: content_op(rule, form))  # type: ignore[misc]
        if op is None:
            continue
        tally.hits[rule.number] += 1
        item = replace(
            item,
            expression=Applied(op, (item.expression,)),
            form=op.forms((form,))[0],
            rules=(*item.rules, rule.number),
        )
    return item


def tensor_form(rule: Compiled, item: Item) -> Form:
    """The form of an item that must be a tensor."""
    if item.form is None:
        raise rule.fault("the rule changes tensors and this key holds none", item.name)
    return item.form


def fitted(rule: Compiled, keys: tuple[str, ...], make: Callable[[], Result]) -> Result:
    """What ``make`` gives; where an operation does not fit the tensors, an error of this rule."""
    try:
        return make()
    except (OpError, ArithmeticFault) as fault:
        named = ", ".join(f"'{printable(key)}'" for key in keys[:4])
        raise rule.fault(f"{named}: {fault}") from None


def _decide(item: Item, claim: Claim | None, group: Group | None, emission: Emission, tally: Tally) -> None:
    """Put what becomes of one item: itself, renamed, its parts, or the group that it is the last member of."""
    name = item.name
    if claim is None:
        emission.put(item, None, name)
        return
    rule = claim.rule
    tally.hits[rule.number] += 1
    numbers = (*item.rules, rule.number)
    item = Item(name, item.expression, item.form, numbers, item.tied, item.replaces)
    if group is not None:
        _join(item, rule, group, emission)
    elif rule.rule.kind in ("split", "unstack", "unfold"):
        _part(item, claim, emission)
    else:
        made = rule.name(rule.targets[0], claim.binding, name)
        emission.put(Item(made, item.expression, item.form, numbers, item.tied, item.replaces), rule, name)


def _join(item: Item, rule: Compiled, group: Group, emission: Emission) -> None:
    """A group takes the place of its first member, once its last one is at hand."""
    if not group.held:
        group.place = emission.reserve()
    group.held[item.name] = item
    if len(group.held) < len(group.members):
        return
    members = [group.held[name] for name in group.members]
    forms = tuple(tensor_form(rule, member) for member in members)
    op = fitted(rule, group.members, lambda: joining_op(rule, forms))
    form = fitted(rule, group.members, lambda: op.forms(forms)[0])
    expression: Expression = Applied(op, tuple(member.expression for member in members))
    numbers = tuple(dict.fromkeys(number for member in members for number in member.rules))
    emission.put(Item(group.target, expression, form, numbers), rule, *group.members, place=group.place)


def _part(item: Item, claim: Claim, emission: Emission) -> None:
    rule, form = claim.rule, tensor_form(claim.rule, item)
    op, count = fitted(rule, (item.name,), lambda: parting_op(rule, form))
    forms = op.forms((form,))
    for part in range(count):
        binding = {**claim.binding, rule.spread: str(part)} if rule.spread else claim.binding
        target = rule.targets[0 if rule.spread else part]
        made = Item(
            rule.name(target, binding, item.name), Applied(op, (item.expression,), part), forms[part], item.rules
        )
        emission.put(made, rule, item.name)
