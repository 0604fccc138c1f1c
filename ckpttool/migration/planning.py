"""From a rewriting of names to a plan for the whole checkpoint: weights, twins, optimizers, ``_metadata``. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field, replace

from ckpttool.draft import Content, Draft, Made
from ckpttool.editing import Editor
from ckpttool.errors import printable
from ckpttool.frozen import dataclass
from ckpttool.layout import Layout
from ckpttool.migration.alignment import Trains
from ckpttool.migration.errors import MigrationError
from ckpttool.migration.following import Moved, follow_optimizers
from ckpttool.migration.listed import follow_lists, holds_lists
from ckpttool.migration.modules import move_metadata
from ckpttool.migration.moments import Read
from ckpttool.migration.ordering import ordered
from ckpttool.migration.products import Product, carry_out
from ckpttool.migration.reach import Wishes, apart, is_container, once, weight_scopes
from ckpttool.migration.reducing import reduced
from ckpttool.migration.round_trip import Rewrite
from ckpttool.migration.scopes import Scope, facts_of, names_of, prefix_of, scope_at, without_prefix
from ckpttool.migration.steps import metadata_steps, reordering, returning_steps, untied, weight_steps
from ckpttool.migration.target import Target
from ckpttool.migration.towards import fitted
from ckpttool.migration.twins import move_keyed
from ckpttool.migration.workshop import Workshop
from ckpttool.model import Checkpoint, Scalar, Tensor
from ckpttool.plan import Plan, Step
from ckpttool.rewriting import Names, Rewriting, RuleUse


@dataclass(slots=True)
class _Notebook:
    """What a plan tells, gathered while it is made."""

    steps: list[Step] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    uses: list[RuleUse] = field(default_factory=list)
    untouched: list[str] = field(default_factory=list)
    repeats: bool = False
    foreign: bool | None = None
    made: list[tuple[Scope, Names, Rewriting]] = field(default_factory=list)


def plan(
    checkpoint: Checkpoint,
    layout: Layout,
    rewrite: Rewrite,
    *,
    wishes: Wishes | None = None,
    target: Target | None = None,
    trains: Trains | None = None,
    read: Read | None = None,
    contents: Sequence[Content] | None = None,
    back: Rewrite | None = None,
) -> Plan:
    """What becomes of a whole checkpoint whose weights are rewritten. Nothing is read but descriptors.

    ``rewrite`` is asked once for each state dict. ``target`` checks every key and shape of the result and gives its
    order. ``trains`` tells parameters from buffers; ``read`` gives the bytes of a counter, where parameters are
    merged. ``contents`` are those of a draft that an earlier plan led to. ``back`` undoes ``rewrite``: what it
    would not give again is a step that says so. Raises ``MigrationError``; what ``rewrite`` raises passes through.
    Linear in the tree.
    """
    wishes = wishes or Wishes()
    shop = Workshop(Editor(checkpoint, contents))
    book = _Notebook()
    facts = facts_of(checkpoint)
    scopes = weight_scopes(checkpoint, layout, wishes)
    if target is not None and len(scopes) > 1:
        listed = ", ".join(printable(".".join(scope.path)) for scope in scopes)
        raise MigrationError(
            f"{printable(checkpoint.source)} – has several models, {listed}: name one with --under KEY"
        )
    moves = [(scope, _move(shop, scope, rewrite, facts, target, book)) for scope in scopes]
    if not wishes.whole:
        _move_twins(shop, layout, scopes, rewrite, facts, target, wishes, book)
        _follow(Moved(shop, layout, moves, target), wishes, trains or _any_float, read, book)
        _move_keyed(shop, layout, moves, wishes, book)
    if back is not None:
        book.steps += [step for one in book.made for step in returning_steps(*one, back, target is not None)]
    draft = shop.editor.finish()
    return Plan(
        tuple(book.steps),
        draft,
        tuple(book.uses),
        tuple(book.untouched),
        tuple(dict.fromkeys(book.notes)),
        _changed(draft),
        book.repeats,
        bool(book.foreign),
    )


def _any_float(name: str, tensor: Tensor) -> bool:
    return tensor.dtype.kind in ("float", "complex")


# --- state dicts -------------------------------------------------------------------------------------------


def _move(
    shop: Workshop,
    scope: Scope,
    rewrite: Rewrite,
    facts: dict[str, Scalar],
    target: Target | None,
    book: _Notebook,
    twin: bool = False,
) -> list[Product]:
    names = replace(
        names_of(shop.editor.original, scope, facts), contents=lambda name: shop.content(scope.named[name].index, name)
    )
    asked = reduced(rewrite(names), names)
    known = [item.name for item in names.items]
    rewriting = ordered(known, asked) if target is None else _in_order(scope, asked, names, target)
    products = carry_out(shop, scope, rewriting)
    pairs = [(p.name, leaf.name or "") for p in products if not p.tied for leaf in p.sources]
    added = [p.name for p in products if not p.sources or p.tied]
    modules = move_metadata(shop.editor, scope, pairs, added, known)
    book.steps += weight_steps(scope, rewriting, products)
    book.steps += reordering(scope, asked, rewriting, known, target is not None)
    book.steps += metadata_steps(scope, modules)
    book.steps += untied(shop, scope, products)
    if not twin:
        book.made.append((scope, names, rewriting))
        book.notes += rewriting.notes
        book.uses = _summed(book.uses, rewriting.rules)
        book.untouched += [scope.key(name) for name in rewriting.untouched]
        book.repeats = book.repeats or rewriting.repeats
        book.foreign = book.foreign is not False and rewriting.foreign
    return products


def _in_order(scope: Scope, rewriting: Rewriting, names: Names, target: Target) -> Rewriting:
    """The outputs in the target's order. Raises ``MigrationError`` with every key and shape that does not agree."""
    fit = fitted(rewriting, names, target)
    if not fit.complete:
        where = printable(".".join(scope.path) or scope.role)
        raise MigrationError(f"{where} – does not become {printable(target.name)}: {'; '.join(fit.problems)}")
    return fit.rewriting


def _summed(known: Sequence[RuleUse], more: Sequence[RuleUse]) -> list[RuleUse]:
    """The uses of the same rules on several state dicts, added up."""
    if len(known) != len(more):
        return [*known, *more] if not known else list(known)
    return [replace(a, hits=a.hits + b.hits, lossy=a.lossy or b.lossy) for a, b in zip(known, more, strict=True)]


def _move_twins(
    shop: Workshop,
    layout: Layout,
    scopes: Sequence[Scope],
    rewrite: Rewrite,
    facts: dict[str, Scalar],
    target: Target | None,
    wishes: Wishes,
    book: _Notebook,
) -> None:
    """Averages of the weights under the same names, with or without a prefix of their own."""
    original = shop.editor.original
    done = {scope.index for scope in scopes}
    sections = [s for s in once([s for s in layout.sections if s.name == "ema"]) if s.index not in done]
    for section in sections if wishes.under is None and wishes.wants("ema") else []:
        if section.index < 0 or not is_container(original, section.index):
            continue
        scope = scope_at(original, "ema", section.path, section.index, apart(layout, section))
        fits = [(prefix, s) for s in scopes if (prefix := prefix_of(scope.named, s.named)) is not None]
        if not fits and holds_lists(original, section.index):
            continue
        if not fits:
            book.notes.append(f"{printable(section.key)} – has none of the weights' names and is left as it is")
            continue
        scope = without_prefix(scope, fits[0][0])
        whole = scope.named.keys() >= fits[0][1].named.keys()
        _move(shop, scope, rewrite, facts, target if whole else None, book, twin=True)


# --- what follows the weights --------------------------------------------------------------------------------


def _follow(moved: Moved, wishes: Wishes, trains: Trains, read: Read | None, book: _Notebook) -> None:
    """Optimizers, and lists of tensors that stand in the order of the parameters."""
    if not moved.rearranged:
        return
    found = follow_optimizers(moved, wishes, trains, read)
    book.steps += found.steps
    book.notes += found.notes
    book.steps += follow_lists(moved, found.followed, wishes, trains)


def _move_keyed(
    shop: Workshop, layout: Layout, moves: Sequence[tuple[Scope, list[Product]]], wishes: Wishes, book: _Notebook
) -> None:
    if wishes.under is None and not wishes.sections:
        for scope, products in moves:
            book.steps += move_keyed(shop, layout, scope, products)


def _changed(draft: Draft) -> tuple[str, ...]:
    """Keys of the result whose bytes are computed."""
    made = {i for i, content in enumerate(draft.contents) if isinstance(content, Made)}
    return tuple(entry.key for entry, tensor in draft.checkpoint.tensors() if tensor.storage in made)
