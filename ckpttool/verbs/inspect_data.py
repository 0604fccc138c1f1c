"""The JSON object of ``inspect``. Pure; the keys are the command line's contract."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from ckpttool.errors import printable
from ckpttool.layout import Layout
from ckpttool.measures import Statistics
from ckpttool.model import Checkpoint, Json
from ckpttool.verbs.inventory import Inventory, Item, storage_name


def inspect_data(
    checkpoint: Checkpoint, layout: Layout, found: Inventory, numbers: Mapping[int, Statistics] | None
) -> dict[str, Json]:
    """Everything that ``inspect`` knows."""
    totals = Counter(item.section for item in found.items)
    listed: list[Json] = [
        {"name": name, "bytes": found.owned.get(name, 0), "tensors": total} for name, total in totals.items()
    ]
    if found.whole:
        listed.append({"name": "unreachable", "bytes": found.unreachable, "tensors": 0})
    return {
        "path": printable(checkpoint.source),
        "format": checkpoint.format,
        "kind": checkpoint.kind or None,
        "bytes": checkpoint.nbytes,
        "writer": _writer_data(layout),
        "layout": _layout_data(layout),
        "parameters": found.parameters,
        "sections": listed,
        "ties": [list(group) for group in found.ties],
        "metadata": dict(checkpoint.metadata),
        "damage": [
            {"rule": d.rule, "where": d.where, "message": d.message, "facts": dict(d.facts), "hint": d.hint}
            for d in checkpoint.damage
        ],
        "tensors": [_tensor_data(checkpoint, item, numbers) for item in found.items],
    }


def _tensor_data(checkpoint: Checkpoint, item: Item, numbers: Mapping[int, Statistics] | None) -> Json:
    data: dict[str, Json] = {
        "key": item.key,
        "path": list(item.path),
        "dtype": item.tensor.dtype.name,
        "shape": list(item.tensor.shape),
        "bytes": item.nbytes,
        "storage": storage_name(checkpoint, item),
        "section": item.section,
    }
    if numbers is not None:
        one = numbers.get(item.index)
        data["stats"] = None if one is None else _statistics_data(one)
    return data


def _statistics_data(one: Statistics) -> Json:
    return {
        "numel": one.numel,
        "nan": one.nan,
        "inf": one.inf,
        "zeros": one.zeros,
        "min": one.minimum,
        "max": one.maximum,
        "mean": one.mean,
        "std": one.std,
        "histogram": list(one.histogram),
    }


def _writer_data(layout: Layout) -> Json:
    writer = layout.writer
    if writer is None:
        return None
    return {
        "framework": writer.framework,
        "version": writer.version,
        "confidence": writer.confidence,
        "clues": list(writer.clues),
    }


def _layout_data(layout: Layout) -> Json:
    ready = layout.readiness
    return {
        "sections": [
            {"name": s.name, "key": s.key, "path": list(s.path), "confidence": s.confidence} for s in layout.sections
        ],
        "optimizers": [
            {"key": o.key, "path": list(o.path), "kind": o.kind, "named": o.named, "slots": len(o.slots)}
            for o in layout.optimizers
        ],
        "readiness": {"level": ready.level, "has": list(ready.has), "lacks": list(ready.lacks), "next": ready.next},
    }
