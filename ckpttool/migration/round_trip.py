"""Whether rules and their inverse agree on a checkpoint: patterns that are undone one by one may still overlap."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from ckpttool.expressions import Form, form_of
from ckpttool.frozen import dataclass
from ckpttool.migration.ordering import ordered
from ckpttool.migration.reducing import reduced
from ckpttool.migration.rewrite import rewrite
from ckpttool.migration.rule_nouns import RuleFile, Setting
from ckpttool.rewriting import Named, Names, Output, Rewriting

Rewrite: TypeAlias = Callable[[Names], Rewriting]
"""What rules make of names."""


def names_after(rewriting: Rewriting, names: Names) -> Names:
    """The names of the result with their forms; facts and versions are those of the input."""
    forms = {named.name: named.form for named in names.items if named.form is not None}
    return Names(
        tuple(Named(output.name, _form(output, forms)) for output in rewriting.outputs), names.facts, names.versions
    )


@dataclass(frozen=True, slots=True)
class WayBack:
    """What a way back does not give: names in their old form; ``reordered``: whether it gives the others otherwise."""

    missing: tuple[str, ...] = ()
    reordered: bool = False


def unreturned(
    there: RuleFile, back: RuleFile, names: Names, settings: Mapping[str, Setting] | None = None
) -> tuple[str, ...]:
    """The names that do not come back as themselves when ``back`` follows ``there``; none where all is well.

    A name returns in its old form, made of itself, of what it was joined with meanwhile, or of nothing where ``back``
    restores what ``there`` drops. Names that only come up on the way back are listed too. Raises ``RuleError``.
    """
    first = rewrite(there, names, settings)
    return _missing(names, first, rewrite(back, names_after(first, names), settings))


def way_back(names: Names, made: Rewriting, back: Rewrite) -> WayBack:
    """Where a way back would lead from a result. Keys that were dropped are not asked about.

    Raises what ``back`` raises. Costs as much as the way there.
    """
    after = names_after(made, names)
    returned = ordered([one.name for one in after.items], reduced(back(after), after))
    dropped = {one.name for one in made.dropped}
    missing = tuple(name for name in _missing(names, made, returned) if name not in dropped)
    there = [one.name for one in names.items if one.name not in dropped and one.name not in missing]
    known = frozenset(there)
    here = [output.name for output in returned.outputs if output.name in known]
    return WayBack(missing, here != there)


def _missing(names: Names, first: Rewriting, second: Rewriting) -> tuple[str, ...]:
    origins = {output.name: output.inputs for output in first.outputs}
    forms = {named.name: named.form for named in names.items}
    after = {named.name: named.form for named in names_after(second, names_after(first, names)).items}
    returned = {
        output.name
        for output in second.outputs
        if output.name in ({name for step in output.inputs for name in origins[step]} or {output.name})
        and output.name in forms
        and after[output.name] == forms[output.name]
    }
    return tuple(name for name in {**forms, **after} if name not in returned)


def _form(output: Output, forms: dict[str, Form]) -> Form | None:
    return form_of(output.expression, forms) if all(one in forms for one in output.inputs) else None
