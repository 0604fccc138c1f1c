"""Rules that make keys without taking any away: add, tie, and slices under a name of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from ckpttool.errors import printable
from ckpttool.expressions import Applied, Expression, Form, Leaf, OpError
from ckpttool.migration.arithmetic import ArithmeticFault
from ckpttool.migration.compiled import Compiled, indexed
from ckpttool.migration.guards import Surroundings, holds
from ckpttool.migration.matching import Binding
from ckpttool.migration.new_tensors import indexed_expression, indexed_form, new_tensor
from ckpttool.migration.operations import content_op
from ckpttool.migration.rule_errors import listed, nearest
from ckpttool.migration.stage_items import Index, Item, Tally
from ckpttool.migration.stage_out import Emission


def add_extras(
    rules: Sequence[Compiled], items: Mapping[str, Item], around: Surroundings, out: Emission, tally: Tally
) -> None:
    """Run the extra rules of a stage, in order. Raises ``RuleError``."""
    for rule in rules:
        there: list[str] = []
        for name, binding in _matches(rule, items, around, out):
            target = rule.name(rule.targets[0], binding, name)
            if rule.rule.kind == "tie":
                tally.hits[rule.number] += _tie(rule, target, name, out)
            elif target in out.makers and out.makers[target][0] is None:
                there.append(target)
            else:
                tally.hits[rule.number] += 1
                out.insert(_made(rule, target, items.get(name)), rule, _beside(rule, name, out))
        if there:
            verb = "is" if len(there) == 1 else "are"
            tally.notes.append(f"{printable(rule.rule.where)} – {rule.rule.text}: {listed(there)} {verb} there already")


def _beside(rule: Compiled, name: str, out: Emission) -> str:
    """Where a slice stands: behind what its source became."""
    names = out.became.get(name, []) if rule.rule.kind == "slice" else []
    return names[-1] if names else ""


def _matches(
    rule: Compiled, items: Mapping[str, Item], around: Surroundings, out: Emission
) -> Iterator[tuple[str, Binding]]:
    """Each key that the rule looks at, with what the match knows; one empty match where it looks at none."""
    if not rule.matchers:
        if holds(rule.rule.when, None, "", {}, around):
            yield "", {}
        return
    index = Index([rule])
    found = [(name, claim.binding) for name in items for claim in index.claims(name, around)]
    if not found and rule.rule.kind == "tie":
        made = {name: item for name in out.makers if (item := out.item(name)) is not None}
        found = [(name, claim.binding) for name in made for claim in index.claims(name, around)]
    yield from found


def _made(rule: Compiled, target: str, source: Item | None) -> Item:
    """The new key."""
    try:
        if rule.rule.kind == "slice":
            return _sliced(rule, target, source)
        name = next((n for n in ("zeros_like", "ones_like", "copy", "like") if rule.rule.has(n)), "")
        index = indexed(str(rule.rule.option(name)))[1] if name else None
        form = source.form if source is not None else None
        if name and form is None:
            raise rule.fault("the rule looks at a tensor and this key holds none", source.name if source else "")
        if name == "copy" and source is not None and form is not None:
            expression, form = indexed_expression(index, source.expression, form)
            return Item(target, expression, form, (*source.rules, rule.number))
        op = new_tensor(rule, indexed_form(index, form) if name and form is not None else None)
        return Item(target, Applied(op, ()), op.forms(())[0], (rule.number,))
    except (OpError, ArithmeticFault) as fault:
        raise rule.fault(f"'{printable(target)}': {fault}") from None


def _sliced(rule: Compiled, target: str, source: Item | None) -> Item:
    if source is None or source.form is None:
        raise rule.fault("the rule cuts tensors and this key holds none", source.name if source else "")
    op = content_op(rule, source.form)
    expression: Expression = source.expression if op is None else Applied(op, (source.expression,))
    form: Form = source.form if op is None else op.forms((source.form,))[0]
    return Item(target, expression, form, (*source.rules, rule.number))


def _tie(rule: Compiled, target: str, name: str, out: Emission) -> int:
    """Let ``target`` share what ``name`` became; 1 where that changes something."""
    names = out.became.get(name) or [name]
    home = out.item(names[0])
    if len(names) != 1 or home is None:
        said = "is dropped" if home is None else f"becomes {listed(names)}"
        raise rule.fault(f"'{printable(name)}' {said}, so nothing can be tied to it", near=nearest(name, out.makers))
    if home.name == target:
        return 0
    old, new = out.item(target), rule.rule.option("new")
    if new is not None and bool(new) == (old is not None):
        raise rule.fault(f"'new' is {str(new).lower()}, and '{printable(target)}' {'is' if old else 'is not'} there")
    tied = replace(home, name=target, rules=(*home.rules, rule.number), tied=home.name, replaces="")
    if old is None:
        out.insert(tied, rule)
        return 1
    if old.tied == home.name:
        return 0
    replaced = old.expression.name if isinstance(old.expression, Leaf) else ""
    out.swap(replace(tied, replaces=replaced), rule)
    return 1
