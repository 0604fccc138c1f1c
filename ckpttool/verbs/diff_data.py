"""The JSON object of ``diff``. Pure; the keys are the command line's contract."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ckpttool.changes import KINDS, Change, Difference
from ckpttool.model import Json
from ckpttool.verbs.diff_result import Result
from ckpttool.verbs.diff_sides import Target


def diff_data(result: Result) -> dict[str, Json]:
    """Everything that ``diff`` knows, as the contract has it."""
    counted = Counter(change.kind for change in result.changes)
    return {
        "a": _side(result.a),
        "b": _side(result.b),
        "identical": result.identical,
        "close": result.close,
        "coverage": result.coverage.json,
        "summary": {kind: counted[kind] for kind in KINDS if counted[kind]},
        "tolerance": {"atol": result.tolerance.atol, "rtol": result.tolerance.rtol, "ulp": result.tolerance.ulp},
        "changes": [_change(change) for change in result.changes],
        "metadata": [*_metadata(result)],
    }


def _side(side: Target) -> Json:
    return {
        "path": side.name,
        "format": side.checkpoint.format,
        "kind": side.checkpoint.kind or None,
        "bytes": side.checkpoint.nbytes,
        "tensors": len(side.items),
        "damage": [{"rule": one.rule, "where": one.where, "message": one.message} for one in side.errors],
    }


def _change(change: Change) -> Json:
    found = change.difference
    return {
        "kind": change.kind,
        "kinds": [*change.kinds],
        "key": change.key,
        "old_key": change.old_key,
        "section": change.section,
        "before": change.before,
        "after": change.after,
        "stats": None if found is None else _stats(found),
        "score": change.score,
        "note": change.note or None,
        "facts": dict(change.facts),
    }


def _stats(found: Difference) -> Json:
    return {
        "max_abs": found.max_abs,
        "mean_abs": found.mean_abs,
        "max_rel": found.max_rel,
        "rms": found.rms,
        "cosine": found.cosine,
        "changed": found.changed,
        "numel": found.numel,
        "max_ulp": found.max_ulp,
        "beyond": found.beyond,
        "compared": found.compared,
        "relative": found.relative,
        "first": found.first,
        "new_nan": found.new_nan,
        "lost_nan": found.lost_nan,
        "new_inf": found.new_inf,
        "lost_inf": found.lost_inf,
    }


def _metadata(result: Result) -> Iterator[Json]:
    """What the containers record of themselves, where it differs: no difference of what they hold."""
    a, b = result.a.checkpoint, result.b.checkpoint
    if a.format != b.format:
        yield {"name": "format", "before": a.format, "after": b.format}
    for name in dict.fromkeys([*a.metadata, *b.metadata]):
        if a.metadata.get(name) != b.metadata.get(name):
            yield {"name": name, "before": a.metadata.get(name), "after": b.metadata.get(name)}
    writers = [None if side.layout.writer is None else side.layout.writer.framework for side in (result.a, result.b)]
    if writers[0] != writers[1]:
        yield {"name": "writer", "before": writers[0], "after": writers[1]}
