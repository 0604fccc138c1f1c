"""From a list of keys to a target: the mapping, found and explained; or one that rules give, checked. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ckpttool.expressions import Applied, Expression, Form, Leaf, Op, OpError, form_of
from ckpttool.folding import fold
from ckpttool.frozen import dataclass
from ckpttool.migration.inference import Evidence, Inference, Link, Written
from ckpttool.migration.questions import ask
from ckpttool.migration.rule_comments import file_text
from ckpttool.migration.rule_errors import nearest
from ckpttool.migration.rule_writing import written
from ckpttool.migration.search import Search
from ckpttool.migration.target import Key, Target, items_of
from ckpttool.ops import Cast, Permute
from ckpttool.pairing.entries import One
from ckpttool.pairing.named import ones
from ckpttool.rewriting import Dropped, Names, Output, Rewriting, RuleUse
from ckpttool.units import plural, shape


def towards(
    names: Names,
    target: Target,
    evidence: Evidence | None = None,
    *,
    ordered: bool = True,
    cast: bool = False,
    about: str = "",
) -> Inference:
    """What leads from ``names`` to ``target``: pairs with their confidence, what has to be asked, and rules.

    Contents come first where ``evidence`` has them, then names, then form with order and likeness; ``Search`` states
    what is certain. ``ordered`` says that the order of ``names`` is the model's. Other element types are changed with
    ``cast`` and noted without. Keys that nothing leads to are left out of the rewriting, so that who needs them all
    asks ``complete``. The written rules were tried on every name. Reads what ``evidence`` reads; else linear but for
    names of one form, which are weighed against each other.
    """
    sides = ones(items_of(names.items)), ones(target.keys)
    search = Search(sides, evidence, target.ordered and ordered)
    search.run()
    questions = ask(search.rest, sides, evidence is not None)
    links = tuple(sorted(search.links, key=lambda link: target.order[link.new[0]]))
    asked = {name for one in questions for name in (*one.new, *one.candidates)}
    unused, missing = (tuple(one.side.key for one in side if one.side.key not in asked) for side in search.rest)
    forms = dict(items_of(names.items))
    casts = _casts(links, forms, target) if cast else {}
    rules = written(links, unused, [one.name for one in names.items], casts)
    return Inference(
        links,
        questions,
        missing,
        unused,
        tuple(_notes(links, forms, target, cast)),
        _rewriting(names, target, links, unused, rules, casts),
        file_text(rules, links, about or f"towards {target.name}", questions, missing),
        rules,
    )


def _casts(links: Sequence[Link], forms: Mapping[str, Form], target: Target) -> dict[str, Op]:
    """The change of element type that each old key needs."""
    return {
        old: Cast(wanted)
        for link in links
        for old in link.old
        if forms[old].dtype != (wanted := target.forms[link.new[0]].dtype)
    }


def _notes(links: Sequence[Link], forms: Mapping[str, Form], target: Target, cast: bool) -> list[str]:
    changes = Counter(
        (forms[old].dtype.name, target.forms[link.new[0]].dtype.name) for link in links for old in link.old
    )
    verb = "becomes" if cast else "stays as it is; --cast changes it"
    return [
        f"{plural(number, 'key')}: {before} here, {after} in the target: {verb}"
        for (before, after), number in changes.items()
        if before != after
    ]


# --- the rewriting -----------------------------------------------------------------------------------------------


def _rewriting(
    names: Names,
    target: Target,
    links: Sequence[Link],
    unused: Sequence[str],
    rules: Sequence[Written],
    casts: Mapping[str, Op],
) -> Rewriting:
    used: dict[str, list[int]] = defaultdict(list)
    for number, one in enumerate(rules):
        for move in one.moves:
            for name in move.old:
                used[name].append(number)
    outputs = [
        Output(new, _expression(link, part, casts), tuple(sorted({n for old in link.old for n in used[old]})))
        for link in links
        for part, new in enumerate(link.new)
    ]
    outputs.sort(key=lambda one: target.order[one.name])
    outputs += [Output(one.name, Leaf(one.name)) for one in names.items if one.form is None]
    uses = (RuleUse(one.rule.text, "inferred", sum(len(move.old) for move in one.moves)) for one in rules)
    spoken = {name for one in rules for move in one.moves for name in move.old}
    return Rewriting(
        tuple(outputs),
        tuple(Dropped(name, tuple(used[name])) for name in unused),
        (),
        tuple(uses),
        tuple(one.name for one in names.items if one.name not in spoken),
    )


def _expression(link: Link, part: int, casts: Mapping[str, Op]) -> Expression:
    inputs = tuple(_input(link, old, casts) for old in link.old)
    return inputs[0] if link.op is None else Applied(link.op, inputs, part)


def _input(link: Link, old: str, casts: Mapping[str, Op]) -> Expression:
    found: Expression = Leaf(old)
    if link.axes:
        found = Applied(Permute(link.axes), (found,))
    return Applied(casts[old], (found,)) if old in casts else found


# --- a rewriting that others made, held against a target ---------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fit:
    """How a rewriting fits a target, whose order its outputs then have.

    ``missing`` are the target's keys that it does not make, each with the nearest of those it makes in vain;
    ``unexpected`` those it makes in vain, each with the nearest missing ones; ``misshapen`` say both shapes;
    ``retyped`` both element types, which is no fault.
    """

    rewriting: Rewriting
    missing: tuple[tuple[str, tuple[str, ...]], ...] = ()
    unexpected: tuple[tuple[str, tuple[str, ...]], ...] = ()
    misshapen: tuple[tuple[str, str], ...] = ()
    retyped: tuple[tuple[str, str], ...] = ()

    @property
    def complete(self) -> bool:
        return not (self.missing or self.unexpected or self.misshapen)

    @property
    def problems(self) -> tuple[str, ...]:
        """Each fault as a sentence, keys folded."""
        found = [f"'{key}' has shape {told}" for key, told in self.misshapen]
        for keys, what in ((self.missing, "nothing makes"), (self.unexpected, "the target has no")):
            near = dict(keys)
            for folded in fold((key, len(near[key]) > 0) for key, _ in keys):
                first = next(iter(near[key] for key in near if near[key]), ()) if folded.mark else ()
                hint = f"; nearest: {', '.join(first)}" if first else ""
                found.append(f"{what} '{folded.text}'{hint}")
        return tuple(found)


def fitted(rewriting: Rewriting, names: Names, target: Target) -> Fit:
    """A rewriting with its outputs in the target's order, and every key and shape that does not agree."""
    forms = dict(items_of(names.items))
    plain = {one.name for one in names.items if one.form is None}
    made: dict[str, Form | None] = {one.name: _form(one.expression, forms, plain) for one in rewriting.outputs}
    made |= {tie.name: made.get(tie.to) for tie in rewriting.ties}
    tensors = {name for name, form in made.items() if form is not None}
    absent = [name for name, _ in target.keys if name not in made]
    extra = [name for name in made if name in tensors and name not in target.forms]
    both = [(name, made[name], form) for name, form in target.keys if made.get(name) is not None]
    order = sorted(rewriting.outputs, key=lambda one: target.order.get(one.name, len(target.keys)))
    return Fit(
        replace(rewriting, outputs=tuple(order)),
        tuple((name, nearest(name, extra)) for name in absent),
        tuple((name, nearest(name, absent)) for name in extra),
        tuple((n, f"{shape(x.shape)}, not {shape(y.shape)}") for n, x, y in both if x and x.shape != y.shape),
        tuple((n, f"{x.dtype.name}, not {y.dtype.name}") for n, x, y in both if x and x.dtype != y.dtype),
    )


def _form(expression: Expression, forms: dict[str, Form], plain: set[str]) -> Form | None:
    """The form that comes out; None for what is no tensor or does not fit, which planning tells."""
    if isinstance(expression, Leaf) and expression.name in plain:
        return None
    try:
        return form_of(expression, forms)
    except (OpError, KeyError):
        return None


__all__ = ["Fit", "Key", "One", "fitted", "towards"]
