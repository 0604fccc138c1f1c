"""Every tensor as a spot in a picture: where it sits, how much it changed; and layers as lines. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby

from ckpttool.changes import Change, Difference
from ckpttool.comparing.places import folded, kind_of, layer_of
from ckpttool.frozen import dataclass
from ckpttool.units import plural

MOST_ROWS = 48
"""Layers, or runs of unchanged ones, that a picture shows."""


@dataclass(frozen=True, slots=True)
class Spot:
    """A tensor in the picture: its key and place, its elements, its change if there is one.

    ``size`` is how much it changed, 0 to 2; 0 for not at all, NaN for a change that has no size.
    """

    key: str
    layer: str
    kind: str
    numel: int
    change: Change | None
    size: float


def spots(changes: Sequence[Change], tensors: Iterable[tuple[str, str, int]]) -> dict[str, list[Spot]]:
    """Every tensor of b and every removed one of a, by section."""
    by_key = {change.key: change for change in changes if change.kind not in ("removed", "edited")}
    gone = [change for change in changes if change.kind == "removed" and not _is_value(change)]
    found: dict[str, list[Spot]] = {}
    for key, section, numel in tensors:
        found.setdefault(section, []).append(_spot(key, numel, by_key.get(key)))
    for change in gone:
        found.setdefault(change.section, []).append(_spot(change.key, 0, change))
    return found


def lines(chosen: Sequence[Spot]) -> Iterator[tuple[str, list[Spot]]]:
    """Layers in the file's order with their tensors; runs of unchanged ones, and what is too much, folded."""
    layers: dict[str, list[Spot]] = {}
    for spot in chosen:
        layers.setdefault(spot.layer, []).append(spot)
    changed = {name for name, inside in layers.items() if any(spot.change for spot in inside)}
    hidden = changed - _largest({name: layers[name] for name in changed})
    seen = (name for name in layers if name not in hidden)
    for moved, run in groupby(seen, changed.__contains__):
        names = list(run)
        if moved:
            yield from ((name, layers[name]) for name in names)
        else:
            yield _short(names), [spot for name in names for spot in layers[name]]
    if hidden:
        words = plural(len(hidden), "layer that changed less", "layers that changed less")
        yield words, [spot for name in layers if name in hidden for spot in layers[name]]


def _largest(layers: Mapping[str, Sequence[Spot]]) -> set[str]:
    """The layers that changed most, at most ``MOST_ROWS``; a change without a size counts as the largest."""
    weight = {
        name: max(math.inf if math.isnan(spot.size) else spot.size for spot in inside)
        for name, inside in layers.items()
    }
    return set(sorted(weight, key=lambda name: -weight[name])[:MOST_ROWS])


def _short(names: Sequence[str]) -> str:
    if len(names) == 1:
        return names[0]
    text = folded(list(names))
    return text if len(text) <= 60 else plural(len(names), "unchanged layer")


def mean(inside: Sequence[Spot]) -> float:
    """Root of the mean square of how much elements changed; unchanged tensors count as 0."""
    sized = [spot for spot in inside if not math.isnan(spot.size)]
    numel = sum(spot.numel for spot in sized)
    return math.sqrt(math.fsum(spot.numel * spot.size**2 for spot in sized) / numel) if numel else 0.0


def _spot(key: str, numel: int, change: Change | None) -> Spot:
    return Spot(key, layer_of(key), kind_of(key), numel, change, _size(change))


def _size(change: Change | None) -> float:
    if change is None:
        return 0.0
    difference = change.difference
    if difference is not None and difference.relative and not appeared(difference):
        return difference.relative
    return 0.0 if set(change.kinds) <= {"renamed", "moved", "retied", "reordered"} else math.nan


def appeared(difference: Difference) -> bool:
    """Whether the change has no finite size: NaN or infinity came or went."""
    return bool(difference.new_nan or difference.lost_nan or difference.new_inf or difference.lost_inf)


def _is_value(change: Change) -> bool:
    """Whether a change is about a plain value, which has no shape."""
    described = change.before if change.after is None else change.after
    return not (isinstance(described, dict) and "shape" in described)
