"""The blocks of ``inspect`` that say at a glance what a checkpoint is. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from ckpttool.errors import printable
from ckpttool.folding import fold
from ckpttool.layout import Layout
from ckpttool.model import Checkpoint, Value
from ckpttool.report import Bars, Block, Facts, Table, Text
from ckpttool.tree import children
from ckpttool.units import count, plural, shape, short_count, size
from ckpttool.verbs.inventory import Inventory, Item
from ckpttool.verbs.outline import describe_leaf

ROWS = 40
"""Folded lines of a summary."""

VALUES = 12
GROUPS = 8


def head(checkpoint: Checkpoint, layout: Layout, found: Inventory) -> list[Block]:
    """The path, and the facts that every view begins with."""
    rows = [
        ("format", _format(checkpoint)),
        ("size", _size(checkpoint)),
        ("written by", _writer(layout)),
        ("readiness", _readiness(layout) if checkpoint.root is not None else ""),
        ("continues", layout.readiness.next),
        ("lacks", ", ".join(layout.readiness.lacks) if checkpoint.root is not None else ""),
        ("tensors", _tensors(found) if checkpoint.root is not None else ""),
        ("optimizer", "; ".join(f"{o.kind} at {printable(o.key)}" for o in layout.optimizers)),
    ]
    title = Text(printable(checkpoint.source), "title")
    return [title, Facts(tuple((label, value) for label, value in rows if value))]


def summary(checkpoint: Checkpoint, found: Inventory) -> list[Block]:
    """Bytes by section, types, plain values, ties, folded keys."""
    return [
        *_sections(found),
        *_dtypes(found.items),
        *(_values(checkpoint) if found.whole else []),
        *_ties(found.ties),
        *_folded(found.items),
    ]


def _format(checkpoint: Checkpoint) -> str:
    if checkpoint.kind:
        return f"not a checkpoint: {checkpoint.kind}"
    return checkpoint.format


def _size(checkpoint: Checkpoint) -> str:
    text = size(checkpoint.nbytes)
    if checkpoint.nbytes >= 1000:
        text += f" ({plural(checkpoint.nbytes, 'byte')})"
    return text + (f" in {plural(len(checkpoint.files), 'file')}" if len(checkpoint.files) > 1 else "")


def _writer(layout: Layout) -> str:
    writer = layout.writer
    if writer is None:
        return ""
    version = f" {writer.version}" if writer.version else ""
    return printable(f"{writer.framework}{version} ({writer.confidence})")


def _readiness(layout: Layout) -> str:
    ready = layout.readiness
    held = f"; has {', '.join(ready.has)}" if ready.has else ""
    return f"{ready.level}{held}"


def _tensors(found: Inventory) -> str:
    elements = found.parameters
    if not elements:
        return count(len(found.items))
    # Models are named by their millions; below that the exact number reads well by itself.
    named = f"{short_count(elements)} parameters ({count(elements)})"
    return f"{count(len(found.items))}, {named if elements >= 10**6 else plural(elements, 'parameter')}"


def _sections(found: Inventory) -> list[Block]:
    owned, unreachable = found.owned, found.unreachable
    totals = Counter(item.section for item in found.items)
    rows = [
        (name, float(owned.get(name, 0)), f"{size(owned.get(name, 0))}, {plural(totals[name], 'tensor')}")
        for name in totals
    ]
    if found.whole and unreachable:
        rows.append(("unreachable", float(unreachable), f"{size(unreachable)}, in storages but in no tensor"))
    return [Bars(tuple(rows), "bytes by section")] if rows else []


def _dtypes(found: Sequence[Item]) -> list[Block]:
    totals: Counter[str] = Counter()
    nbytes: Counter[str] = Counter()
    for item in found:
        totals[item.tensor.dtype.name] += 1
        nbytes[item.tensor.dtype.name] += item.nbytes
    rows = tuple(
        (name, float(number), f"{plural(number, 'tensor')}, {size(nbytes[name])}")
        for name, number in totals.most_common()
    )
    return [Bars(rows, "types")] if rows else []


def _values(checkpoint: Checkpoint) -> list[Block]:
    """Plain values near the root: epochs, steps, scores, versions."""
    nodes = checkpoint.nodes
    below = () if checkpoint.root is None else children(nodes, nodes[checkpoint.root])
    near = [(".".join(step), index) for step, index in below if type(nodes[index]) is Value]
    rows = [(printable(key), describe_leaf(nodes[index])) for key, index in near[:VALUES]]
    if len(near) > VALUES:
        rows.append(("…", f"{plural(len(near) - VALUES, 'more value')}: --tree shows all"))
    return [Text("values", "heading"), Facts(tuple(rows))] if rows else []


def _ties(groups: Sequence[Sequence[str]]) -> list[Block]:
    if not groups:
        return []
    lines = [" = ".join(map(printable, keys)) for keys in groups[:GROUPS]]
    if len(groups) > GROUPS:
        lines.append(f"… {plural(len(groups) - GROUPS, 'more group')}: --json lists all")
    return [Text("tied, stored once", "heading"), Text("\n".join(lines))]


def _folded(found: Sequence[Item]) -> list[Block]:
    folds = fold(_marked(found))
    rows = [
        (
            one.text,
            one.mark[0],
            one.mark[1],
            f"{count(one.count)} × {size(one.mark[2])}" if one.count > 1 else size(one.mark[2]),
        )
        for one in folds[:ROWS]
    ]
    blocks: list[Block] = []
    if rows:
        blocks.append(Table(("tensors", "dtype", "shape", "bytes"), tuple(rows), "lllr"))
    if len(folds) > ROWS:
        blocks.append(Text(f"… {plural(len(folds) - ROWS, 'more line')}: --tensors lists every tensor", "dim"))
    return blocks


def _marked(found: Sequence[Item]) -> Iterator[tuple[str, tuple[str, str, int]]]:
    """Keys with what they must share to stand on one line."""
    shapes: dict[tuple[int, ...], str] = {}  # few, however many tensors there are
    for item in found:
        tensor = item.tensor
        text = shapes.get(tensor.shape)
        if text is None:
            text = shapes[tensor.shape] = shape(tensor.shape)
        layout = "" if tensor.layout == "strided" else f" {tensor.layout}"
        yield item.key, (tensor.dtype.name, text + layout, item.nbytes)
