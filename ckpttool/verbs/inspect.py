"""``inspect``: what is inside a checkpoint. Reads headers only, unless statistics are asked for."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Executor
from typing import Literal, TypeAlias

from ckpttool.errors import ExitCode, UsageError, printable
from ckpttool.formats import describe
from ckpttool.layout import Layout
from ckpttool.limits import DEFAULT, Limits
from ckpttool.measures import Statistics
from ckpttool.model import Checkpoint, Json
from ckpttool.profiles import lay_out
from ckpttool.report import Block, Deferred, Report, Table, Text, Tree
from ckpttool.units import count, plural, real, shape, sparkline
from ckpttool.verbs import inventory
from ckpttool.verbs.inspect_data import inspect_data
from ckpttool.verbs.inventory import Inventory, Item, Selection
from ckpttool.verbs.outline import outline
from ckpttool.verbs.summary import head, summary

View: TypeAlias = Literal["tree", "tensors", "stats"]

SPARK = 16
"""Bins of a histogram that a table shows."""

BATCH = 256 << 20
"""Bytes of tensors whose statistics are asked for at once."""


def inspect(
    path: str | os.PathLike[str],
    *,
    only: Sequence[str] = (),
    ignore: Sequence[str] = (),
    sections: Sequence[str] = (),
    views: Collection[View] = (),
    executor: Executor | None = None,
    progress: Callable[[int, int], None] | None = None,
    limits: Limits = DEFAULT,
) -> Report:
    """What the checkpoint at a path or URL holds; nothing in it is imported or run.

    ``only`` and ``ignore`` are globs over keys, ``sections`` names of sections. ``views`` replace the
    summary for people; the data has the tensors in any case, statistics if ``stats`` is a view. Raises
    ``Unreadable``, and ``UsageError`` where nothing matches. Reads headers only; with ``stats`` the chosen
    tensors' content too. Exit code ``FINDINGS``: not a checkpoint, or too damaged to show a tree.
    """
    checkpoint = describe(path, limits)
    layout = lay_out(checkpoint)
    selection = Selection(tuple(only), tuple(ignore), tuple(sections))
    found = inventory.take(checkpoint, layout, selection)
    if not found.items and not selection.everything:
        raise UsageError(_no_match(checkpoint, layout, selection))
    numbers = _statistics(checkpoint, found.items, executor, progress) if "stats" in views else None
    blocks = [*head(checkpoint, layout, found), *_views(checkpoint, found, views, numbers)]
    if not views and checkpoint.root is not None:
        blocks += summary(checkpoint, found)
    blocks += _damage(checkpoint)
    bad = bool(checkpoint.kind) or checkpoint.root is None
    return Report(
        "inspect",
        Deferred(lambda: inspect_data(checkpoint, layout, found, numbers)),
        tuple(blocks),
        ExitCode.FINDINGS if bad else ExitCode.OK,
    )


def keys(report: Report) -> dict[str, Json]:
    """What ``--keys`` writes of an ``inspect`` report: keys, shapes and dtypes, a target for others."""
    tensors = report.data["tensors"]
    wanted = ("key", "path", "dtype", "shape")
    listed: list[Json] = [
        {name: one[name] for name in wanted}
        for one in (tensors if isinstance(tensors, list) else [])
        if isinstance(one, dict)
    ]
    return {"schema": "ckpttool.keys/1", "path": report.data["path"], "keys": listed}


def _no_match(checkpoint: Checkpoint, layout: Layout, selection: Selection) -> str:
    have = inventory.items(checkpoint, layout)
    asked = [f"--only {glob!r}" for glob in selection.only]
    asked += [f"--ignore {glob!r}" for glob in selection.ignore]
    asked += [f"--section {name}" for name in selection.sections]
    example = f", such as '{printable(have[0].key)}'" if have else ""
    return f"no tensor is left by {' '.join(asked)}; the file has {plural(len(have), 'tensor')}{example}"


def _statistics(
    checkpoint: Checkpoint,
    found: Sequence[Item],
    executor: Executor | None,
    progress: Callable[[int, int], None] | None,
) -> dict[int, Statistics]:
    from ckpttool.measure import statistics

    sizes = {item.index: item.nbytes for item in found}
    total, done = sum(sizes.values()), 0
    numbers: dict[int, Statistics] = {}
    for batch in _batches(sizes):
        numbers.update(statistics(checkpoint, batch, executor=executor))
        done += sum(sizes[index] for index in batch)
        if progress is not None:
            progress(done, total)
    return numbers


def _batches(sizes: dict[int, int]) -> Iterator[list[int]]:
    """Indices in batches of about ``BATCH`` bytes, so that progress can be told between them."""
    batch: list[int] = []
    nbytes = 0
    for index, size in sizes.items():
        batch.append(index)
        nbytes += size
        if nbytes >= BATCH:
            yield batch
            batch, nbytes = [], 0
    if batch:
        yield batch


def _views(
    checkpoint: Checkpoint, found: Inventory, views: Collection[View], numbers: dict[int, Statistics] | None
) -> list[Block]:
    blocks: list[Block] = []
    if "tree" in views:
        chosen = {item.path for item in found.items}
        entries = [e for e in checkpoint.entries() if found.whole or e.path in chosen]
        blocks.append(Tree(outline(entries)))
    if "tensors" in views:
        blocks.append(_tensor_table(checkpoint, found.items))
    if numbers is not None:
        blocks.append(_statistics_table(found.items, numbers))
    return blocks


def _tensor_table(checkpoint: Checkpoint, found: Sequence[Item]) -> Table:
    rows = tuple(
        (
            item.key,
            item.tensor.dtype.name,
            shape(item.tensor.shape),
            count(item.nbytes),
            inventory.storage_name(checkpoint, item) or item.tensor.layout,
        )
        for item in found
    )
    return Table(("tensor", "dtype", "shape", "bytes", "storage"), rows, "lllrl")


def _statistics_table(found: Sequence[Item], numbers: dict[int, Statistics]) -> Table:
    columns = ("tensor", "min", "max", "mean", "std", "NaN", "inf", "zeros", "histogram")
    rows = tuple((item.key, *_statistics_cells(numbers.get(item.index))) for item in found)
    return Table(columns, rows, "lrrrrrrrl")


def _statistics_cells(one: Statistics | None) -> tuple[str, ...]:
    if one is None:
        return ("–", "–", "–", "–", "–", "–", "–", "not measured")
    values = [real(v) for v in (one.minimum, one.maximum, one.mean, one.std)]
    finite = one.numel - one.nan - one.inf > 0
    bins = sparkline(_rebinned(one.histogram)) if finite else ""
    return (*(values if finite else ["–"] * 4), str(one.nan), str(one.inf), str(one.zeros), bins)


def _rebinned(bins: tuple[int, ...]) -> tuple[int, ...]:
    """At most ``SPARK`` bins, neighbours added up."""
    step = max(1, -(-len(bins) // SPARK))
    return tuple(sum(bins[i : i + step]) for i in range(0, len(bins), step))


def _damage(checkpoint: Checkpoint) -> list[Block]:
    """What reading stumbled over, without judging it: that is what verify does."""
    if not checkpoint.damage:
        return []
    blocks: list[Block] = [Text("met while reading", "heading")]
    blocks += [
        Text(f"{one.rule} – {printable(one.where)} – {one.message}" if one.where else f"{one.rule} – {one.message}")
        for one in checkpoint.damage[:5]
    ]
    more = f"{count(len(checkpoint.damage) - 5)} more; " if len(checkpoint.damage) > 5 else ""
    blocks.append(Text(f"{more}run: ckpttool verify {shlex.quote(printable(checkpoint.source))}", "warning"))
    return blocks
