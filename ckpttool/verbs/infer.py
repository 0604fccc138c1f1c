"""``infer``: the rules that lead from one checkpoint's names to those of another, or of a model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from ckpttool.errors import UsageError, printable
from ckpttool.formats import collector_paused
from ckpttool.limits import DEFAULT, Limits
from ckpttool.migration.inference import Evidence, Inference
from ckpttool.migration.scopes import Scope, facts_of, names_of
from ckpttool.migration.target import Target, target_of, weights_of
from ckpttool.migration.towards import towards
from ckpttool.report import Report
from ckpttool.verbs.diff_sides import Comparable, Target as Side, target
from ckpttool.verbs.infer_content import Contents, Held
from ckpttool.verbs.infer_report import report
from ckpttool.verbs.inventory import Selection
from ckpttool.verbs.models import model_target
from ckpttool.verbs.targets import is_keys, keys_target

if TYPE_CHECKING:
    from ckpttool.measure.running import Progress


@collector_paused()
def infer(
    old: Comparable,
    new: Comparable | None = None,
    *,
    model: str = "",
    content: bool = True,
    cast: bool = False,
    executor: Executor | None = None,
    jobs: int | None = None,
    progress: Progress | None = None,
    limits: Limits = DEFAULT,
) -> Report:
    """The rules that lead from ``old``'s weights to ``new``'s; nothing in either is imported or run.

    ``old`` is a path or URL, a state dict or module of this process, or a ``Checkpoint``; ``new`` the same, or a file
    of keys as ``inspect --keys`` writes it. ``model`` in its place names a factory, ``package.module:factory``, which
    is imported and called. Contents are compared where both sides have them, unless ``content`` is False: that reads
    both once. ``cast`` adds rules for other element types.

    The report's data has ``rules``, ``pairs``, ``ambiguous``, ``missing``, ``unused`` and ``text``, the rules as a
    file. Exit code ``OK`` where every key of ``new`` is led to, ``FINDINGS`` where some has to be asked about or
    nothing leads to it, ``IMPOSSIBLE`` where a side is damaged or no checkpoint. Raises ``Unreadable``, and
    ``UsageError`` where one of ``new`` and ``model`` is needed or either has no weights.
    """
    if (new is None) == (not model):
        raise UsageError("infer leads from OLD to NEW, or to a model with --to-model: give one of the two")
    source = target(old, "old", Selection(), limits)
    wanted = model_target(model) if model else _listed(new)
    side = None if wanted is not None else target(new, "new", Selection(), limits)
    unusable = [one for one in (source, side) if one is not None and (not one.usable or one.errors)]
    if unusable:
        return report(None, source.name, _name(side, wanted), unusable=unusable)
    scope = weights_of(source.checkpoint, source.layout)
    with _threads(executor, jobs) as chosen:
        evidence = _evidence(source, scope, side, chosen, progress) if content and side is not None else None
        found = _found(source, scope, side, wanted, evidence, cast)
    return report(found, source.name, _name(side, wanted), read=evidence is not None)


def evidence_of(
    source: Side, scope: Scope, goal: Side, executor: Executor | None = None, progress: Progress | None = None
) -> Evidence:
    """The contents of two described sides, for ``towards``: places count the tensors of their weights in order."""
    ours = _held(source, scope)
    theirs = _held(goal, weights_of(goal.checkpoint, goal.layout))
    return Contents(ours, theirs, executor, progress)


_evidence = evidence_of


def _held(side: Side, scope: Scope) -> Held:
    return Held(side.checkpoint, tuple(tensors_of(side, scope).values()), side.sources)


def tensors_of(side: Side, scope: Scope) -> dict[str, int]:
    """The tensors among a state dict's keys, and their nodes."""
    items = names_of(side.checkpoint, scope, {}).items
    return {one.name: scope.named[one.name].index for one in items if one.form is not None}


def _found(
    source: Side, scope: Scope, side: Side | None, wanted: Target | None, evidence: Evidence | None, cast: bool
) -> Inference:
    names = names_of(source.checkpoint, scope, facts_of(source.checkpoint))
    if wanted is None:
        assert side is not None
        wanted = target_of(side.checkpoint, side.layout, side.name)
    about = f"from {source.name} to {wanted.name}"
    return towards(names, wanted, evidence, ordered=source.layout.ordered, cast=cast, about=about)


def _listed(new: Comparable | None) -> Target | None:
    """The target that a file of keys tells; None for anything else."""
    if isinstance(new, (str, os.PathLike)) and is_keys(new):
        return keys_target(new)
    return None


def _name(side: Side | None, wanted: Target | None) -> str:
    if side is not None:
        return side.name
    return "" if wanted is None else printable(wanted.name)


def _threads(executor: Executor | None, jobs: int | None) -> AbstractContextManager[Executor | None]:
    if executor is not None or not jobs:
        return nullcontext(executor)
    return ThreadPoolExecutor(jobs, thread_name_prefix="infer")


def rules_text(found: Report) -> str:
    """The rules of a report as a file."""
    text = found.data.get("text")
    return text if isinstance(text, str) else ""


__all__: Sequence[str] = ["evidence_of", "infer", "rules_text", "tensors_of"]
