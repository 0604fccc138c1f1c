"""``diff``: what changed between two checkpoints of any two formats."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from ckpttool.changes import Change, Pairing, Tolerance
from ckpttool.comparing.attributes import metadata_edits
from ckpttool.comparing.optimizers import Twins, handled, optimizer_changes, pair_states, state_keys, twins
from ckpttool.comparing.plain_tree import Plain, plain_tree
from ckpttool.comparing.tensors import tensor_changes
from ckpttool.comparing.values import Edited, compare, reorderings
from ckpttool.errors import UsageError
from ckpttool.limits import DEFAULT, Limits
from ckpttool.model import Entry, Json, Tensor
from ckpttool.pairing import pair
from ckpttool.report import Report
from ckpttool.units import plural
from ckpttool.verbs.diff_content import Contents, Outcomes, Reading, blob_digest, outcomes, unread
from ckpttool.verbs.diff_report import report
from ckpttool.verbs.diff_result import Coverage, Result
from ckpttool.verbs.diff_sides import UNORDERED, Comparable, Target, selects, side_of, target
from ckpttool.verbs.inventory import Item, Selection

if TYPE_CHECKING:
    from ckpttool.measure.running import Progress

BITWISE = Tolerance()


def diff(
    a: Comparable,
    b: Comparable,
    *,
    tolerance: Tolerance = BITWISE,
    only: Sequence[str] = (),
    ignore: Sequence[str] = (),
    sections: Sequence[str] = (),
    quick: bool = False,
    infer: bool = True,
    top: int = 20,
    everything: bool = False,
    executor: Executor | None = None,
    jobs: int | None = None,
    progress: Progress | None = None,
    limits: Limits = DEFAULT,
) -> Report:
    """What changed from ``a`` to ``b``; nothing in them is imported or run.

    Each is a path or URL, a state dict or module of this process, or a ``Checkpoint`` (with its source). What is
    within ``tolerance`` counts as equal, by default nothing but equal bits. ``only``, ``ignore`` and ``sections``
    select keys. ``quick`` believes recorded checksums and reads next to nothing; ``infer=False`` pairs only what
    is sure. The report's table shows ``top`` tensors, or all with ``everything``; its data has all.

    Reads both sides once where they are equal. Exit code ``OK`` for equal, ``FINDINGS`` for different,
    ``IMPOSSIBLE`` where a side is damaged or no checkpoint or not all could be compared. Raises ``Unreadable``,
    and ``UsageError`` for a selection that matches nothing.
    """
    if quick and not tolerance.bitwise:
        raise UsageError("recorded checksums know no tolerance: leave out --quick, or --atol, --rtol and --ulp")
    selection = Selection(tuple(only), tuple(ignore), tuple(sections))
    one, other = target(a, "a", selection, limits), target(b, "b", selection, limits)
    ours = {source.name: source for source in one.sources}
    if any(ours.get(source.name, source) is not source for source in other.sources):
        raise UsageError("two sources in memory have one name: give describe_state a name for each")
    if not (one.usable and other.usable):
        return report(Result(one, other), top=top, everything=everything)
    with _threads(executor, jobs) as chosen:
        result = _compared(one, other, selection, Reading(tolerance, chosen, progress, quick), infer)
    return report(result, top=top, everything=everything)


def _threads(executor: Executor | None, jobs: int | None) -> AbstractContextManager[Executor | None]:
    if executor is not None or not jobs:
        return nullcontext(executor)
    return ThreadPoolExecutor(jobs, thread_name_prefix="diff")


def _compared(a: Target, b: Target, selection: Selection, reading: Reading, infer: bool) -> Result:
    pairing, known = _paired(a, b, reading, infer)
    found = outcomes(a, b, pairing, reading)
    ordered = a.layout.ordered and b.layout.ordered and not _unordered(a, b)
    changes = tensor_changes(a.checkpoint, b.checkpoint, pairing, found, ordered)
    values, edits = _values(a, b, known, pairing)
    changes += [one for one in values if selects(selection, one.section, one.key)]
    changes += _edits(edits, a, b, selection)
    coverage = _coverage(a, b, pairing, found, selection, reading.quick)
    if not (a.items or b.items or changes or coverage.values or selection.everything):
        raise UsageError(_no_match(a, b, selection))
    deltas = {} if reading.quick else _deltas(a, b, changes, pairing)
    return Result(a, b, tuple(changes), pairing, coverage, reading.tolerance, deltas)


def _coverage(a: Target, b: Target, pairing: Pairing, found: Outcomes, selection: Selection, quick: bool) -> Coverage:
    compared = [found[key] for p in pairing.pairs if (key := (p.a.index, p.b.index)) in found]
    within = [one.difference.max_abs for one in compared if one.difference and one.close]
    return Coverage(
        tensors_a=len(a.items),
        tensors_b=len(b.items),
        pairs=len(pairing.pairs),
        compared=sum(not one.why for one in compared),
        equal=sum(one.equal is True for one in compared),
        close=sum(one.equal is False and one.close for one in compared),
        unread=tuple(unread(found, pairing.pairs)),
        values=sum(1 for entry in b.checkpoint.entries() if _is_value(entry, b, selection)),
        as_saved=quick,
        whole=selection.everything,
        beyond_format=tuple(_limits(a, b)),
        largest=max(within, default=0.0),
    )


def _is_value(entry: Entry, side: Target, selection: Selection) -> bool:
    if isinstance(entry.node, Tensor):
        return False
    return selection.everything or selects(selection, side.layout.section_of(entry.path), entry.key)


def _deltas(a: Target, b: Target, changes: Sequence[Change], pairing: Pairing) -> dict[int, int]:
    """A sample of the weights' changed elements by size, for the picture."""
    keys = {one.key for one in changes if one.difference and one.section == "weights"}
    pairs = [(p.a.index, p.b.index) for p in pairing.pairs if p.b.key in keys]
    if not pairs:
        return {}
    from ckpttool.measure.magnitudes import magnitudes

    return magnitudes(a.checkpoint, b.checkpoint, pairs, sources=(*a.sources, *b.sources))


def _paired(a: Target, b: Target, reading: Reading, infer: bool) -> tuple[Pairing, list[Twins]]:
    """Every tensor's partner: state of optimizers by parameter, the rest by name and content."""
    states_a, rest_a = _split(a)
    states_b, rest_b = _split(b)
    contents = Contents(a, b, reading)
    pairing = pair(
        a.checkpoint,
        b.checkpoint,
        a.layout,
        b.layout,
        rest_a,
        rest_b,
        contents.digests,
        slices=None if reading.quick else contents.slices,
        infer=infer,
    )
    known = twins(a.layout, b.layout, pairing)
    states = pair_states([side_of(i) for i in states_a], [side_of(i) for i in states_b], known, a.layout)
    return Pairing(
        pairing.pairs + states.pairs, pairing.only_a + states.only_a, pairing.only_b + states.only_b, pairing.prefixes
    ), known


def _split(side: Target) -> tuple[list[Item], list[Item]]:
    """State of parameters, and all other tensors."""
    states = state_keys(side.layout)
    return [i for i in side.items if i.index in states], [i for i in side.items if i.index not in states]


def _unordered(a: Target, b: Target) -> bool:
    return a.checkpoint.format in UNORDERED or b.checkpoint.format in UNORDERED


# --- values --------------------------------------------------------------------------------------------


def _values(a: Target, b: Target, known: list[Twins], pairing: Pairing) -> tuple[list[Change], list[Edited]]:
    changes, edits = optimizer_changes(a.checkpoint, b.checkpoint, known)
    ours = _plain(a, handled(a.checkpoint, [twin.a for twin in known]))
    theirs = _plain(b, handled(b.checkpoint, [twin.b for twin in known]))
    edits += compare(ours, theirs)
    if not _unordered(a, b):
        prefixes = pairing.prefixes
        edits += metadata_edits((a.checkpoint, a.layout), (b.checkpoint, b.layout), prefixes)
        changes += [_reordered(b, *found) for found in reorderings(ours, theirs)]
    return changes, edits


def _plain(side: Target, skip: set[int]) -> Plain:
    root = side.checkpoint.root
    assert root is not None
    return plain_tree(side.checkpoint, root, lambda span: blob_digest(side, span), skip)


def _reordered(b: Target, path: tuple[str, ...], moved: int, total: int) -> Change:
    key = ".".join([*path, "*"])
    note = f"{plural(moved, 'key')} of {total:,} in another place"
    facts: dict[str, Json] = {"moved": moved, "keys": total, "path": [*path]}
    return Change("reordered", ("reordered",), key, None, b.layout.section_of(path), note=note, facts=facts)


def _edits(edits: Iterable[Edited], a: Target, b: Target, selection: Selection) -> Iterator[Change]:
    for edit in edits:
        key = ".".join(edit.path) or "(root)"
        section = (a if edit.op == "removed" else b).layout.section_of(edit.path)
        if selects(selection, section, key):
            yield Change(
                "edited",
                ("edited",),
                key,
                None,
                section,
                edit.before,
                edit.after,
                note=edit.note,
                facts={"op": edit.op, "several": edit.several, "path": [*edit.path]},
            )


def _limits(a: Target, b: Target) -> Iterator[str]:
    """What one side's format cannot hold, so that it says nothing about it."""
    for side in (a, b):
        if side.checkpoint.format in UNORDERED and a.checkpoint.format != b.checkpoint.format:
            yield f"order of keys and _metadata: {side.checkpoint.format} files have none"


def _no_match(a: Target, b: Target, selection: Selection) -> str:
    whole = [target(side.checkpoint, "", Selection()) for side in (a, b)]
    keys = [item.key for side in whole for item in side.items]
    asked = [f"--only {glob!r}" for glob in selection.only] + [f"--ignore {glob!r}" for glob in selection.ignore]
    asked += [f"--section {name}" for name in selection.sections]
    example = f", such as '{keys[0]}'" if keys else ""
    return f"nothing is left by {' '.join(asked)}; the two have {plural(len(keys), 'tensor')}{example}"


__all__ = ["BITWISE", "diff"]
