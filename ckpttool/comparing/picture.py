"""Pictures of what changed: a bar for each layer, a map of layer by kind of tensor, a histogram. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from ckpttool.changes import Change
from ckpttool.comparing.spots import Spot, appeared, lines, mean, spots
from ckpttool.report import Bars, Block, Cell, HeatMap, Histogram
from ckpttool.units import count, plural

MOST_COLUMNS = 12
"""Kinds of tensors that a map tells apart; the rarest share one column."""

ORDER = ("embed", "norm", "qkv", "q", "k", "v", "o", "mlp", "conv")
"""Columns that come in the order in which data flows; others follow, the most frequent first, and the head."""

FAINTEST = -9
"""Power of ten, in %, that all smaller changes of tensors are counted with."""

MEANING = "rms of the change in % of the tensor's"


def pictures(
    changes: Sequence[Change], tensors: Iterable[tuple[str, str, int]], *, deltas: Mapping[int, int] | None = None
) -> tuple[Block, ...]:
    """The blocks that show what changed, none where no tensor did.

    ``tensors`` are all of b's as ``(key, section, numel)``, in the file's order, so that what stayed as it was is
    seen too; those that only a has come from ``changes``. Shown are the weights, or where they did not change
    the section that changed in most tensors. ``deltas`` counts changed elements by the power of ten below their
    absolute change in a sample of the weights; without it the histogram counts tensors. Linear in tensors.
    """
    everything = spots(changes, tensors)
    section = _section(everything)
    chosen = everything.get(section, [])
    if not any(spot.change for spot in chosen):
        return ()
    named = "" if section == "weights" else f" of {section}"
    blocks: list[Block] = [bars(chosen, f"change by layer{named} ({MEANING})")]
    if len({(spot.layer, spot.kind) for spot in chosen}) > 1:
        blocks.append(heat_map(chosen, f"largest change by layer and kind{named}"))
    blocks += [_elements(deltas)] if deltas else _tensors(chosen)
    return tuple(blocks)


def bars(chosen: Sequence[Spot], title: str = "") -> Bars:
    """A bar for each layer: the mean over its elements, as root of squares, of how much they changed.

    Layers without a change that follow each other share a line.
    """
    rows = []
    for name, inside in lines(chosen):
        size = mean(inside)
        rows.append((name, size, _said(inside, size)))
    return Bars(tuple(rows), title, parts=False)


def heat_map(chosen: Sequence[Spot], title: str = "") -> HeatMap:
    """Layers by kinds of tensors; a cell has the largest change among its tensors."""
    columns = _columns(chosen)
    rows, cells = [], []
    for name, inside in lines(chosen):
        groups: dict[str, list[Spot]] = {}
        for spot in inside:
            groups.setdefault(spot.kind if spot.kind in columns else "other", []).append(spot)
        rows.append(name)
        cells.append(tuple(_cell(name, column, groups.get(column)) for column in columns))
    return HeatMap(
        tuple(rows), columns, tuple(cells), title, MEANING, "unchanged", "added, removed, or changed without a size"
    )


def _section(everything: Mapping[str, Sequence[Spot]]) -> str:
    changed = {name: sum(spot.change is not None for spot in found) for name, found in everything.items()}
    return "weights" if changed.get("weights") else max(changed, key=lambda name: changed[name], default="")


def _said(inside: Sequence[Spot], size: float) -> str:
    changed = [spot for spot in inside if spot.change]
    if not changed:
        return f"unchanged: {plural(len(inside), 'tensor')}"
    every = "all " if len(inside) > 1 else ""
    part = every if len(changed) == len(inside) else f"{count(len(changed))} of "
    words = [f"{part}{plural(len(inside), 'tensor')}"]
    elements = sum(s.change.difference.changed for s in changed if s.change and s.change.difference)
    numel = sum(spot.numel for spot in inside)
    words += [f"{_percent(elements, numel)} of values"] if 0 < elements < numel else []
    unsized = Counter(_why(spot.change) for spot in changed if spot.change and math.isnan(spot.size))
    words += [f"{count(number)} {kind}" for kind, number in unsized.items()]
    return f"{_short(size)} %, {', '.join(words)}" if size else ", ".join(words)


def _short(size: float) -> str:
    return f"{100 * size:.3g}"


def _why(change: Change) -> str:
    """The change in a word, where it has no size."""
    return "with NaN or infinity" if change.difference and appeared(change.difference) else change.kind


def _percent(part: int, whole: int) -> str:
    """A share that is neither 0 % nor 100 %."""
    share = 100 * part / whole
    return "< 0.1 %" if share < 0.1 else f"{min(share, 99.9):.1f} %"


def _columns(chosen: Sequence[Spot]) -> tuple[str, ...]:
    frequent = Counter(spot.kind for spot in chosen)
    kinds = [kind for kind, _ in frequent.most_common()]
    if len(kinds) > MOST_COLUMNS:
        kinds = [kind for kind in kinds if kind != "other"][: MOST_COLUMNS - 1]
    flow = [kind for kind in ORDER if kind in kinds]
    strange = [kind for kind in kinds if kind not in (*ORDER, "head")]
    last = [kind for kind in ("head",) if kind in kinds]
    return (*flow, *strange, *last, *(["other"] if len(frequent) > MOST_COLUMNS else []))


def _cell(layer: str, column: str, inside: Sequence[Spot] | None) -> Cell | None:
    if not inside:
        return None
    changed = [spot for spot in inside if spot.change]
    sized = max((spot for spot in inside if not math.isnan(spot.size)), key=lambda s: s.size, default=None)
    if sized is not None and sized.size > 0:
        most = f"; most: {sized.key}, {_short(sized.size)} %"
        quantity, text = 100 * sized.size, f"{100 * sized.size:.2g}"
    elif any(math.isnan(spot.size) for spot in inside):
        first = next(spot for spot in inside if math.isnan(spot.size))
        quantity, text = math.nan, ""
        most = f"; {first.key}: {_why(first.change)}" if first.change else ""
    else:
        quantity, text, most = 0.0, "", ""
    return Cell(quantity, text, f"{layer} {column}: {len(changed)} of {plural(len(inside), 'tensor')} changed{most}")


def _tensors(chosen: Sequence[Spot]) -> list[Block]:
    """How many tensors changed how much, by powers of ten; only worth a picture where there are several."""
    sizes = [100 * spot.size for spot in chosen if spot.size > 0]
    if len(sizes) < 4:
        return []
    found = Counter(max(FAINTEST, math.floor(math.log10(size))) for size in sizes)
    bins = tuple((f"1e{p}", found[p], f"changed by {_range(p)}") for p in range(min(found), max(found) + 1))
    return [Histogram(bins, "tensors by how much they changed", MEANING)]


def _elements(deltas: Mapping[int, int]) -> Histogram:
    held = [power for power, number in deltas.items() if number]
    powers = range(min(held), max(held) + 1) if held else range(0)
    bins = tuple((f"1e{power}", deltas.get(power, 0), f"changed by {_range(power)}") for power in powers)
    return Histogram(bins, "elements of the weights by how much they changed", "absolute change, a sample")


def _range(power: int) -> str:
    return f"1e{power} to 1e{power + 1}"


__all__ = ["bars", "heat_map", "pictures"]
