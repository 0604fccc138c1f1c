"""What of a checkpoint would load into a model with given keys, and which change of names would load most. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ckpttool.frozen import dataclass

SAMPLE = 2000
"""Keys that vote for a change of prefix; the winners are then tried on all."""

VOTES = 50
"""Targets of equal ending and shape that one key may vote for."""

TRIED = 6
"""Changes of prefix that are tried on all keys."""


@dataclass(frozen=True, slots=True)
class Named:
    """One tensor of either side: its key and shape."""

    key: str
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Fit:
    """What fits after taking prefix ``strip`` off the checkpoint's keys and putting ``add`` before the rest.

    ``loaded`` are the targets' keys that a tensor of equal shape fills, ``misshapen`` those whose name fits and
    whose shape does not, ``missing`` those that nothing has; ``unexpected`` are the checkpoint's own keys left.
    ``parameters`` counts elements that load, of ``total`` in the target.
    """

    strip: str
    add: str
    loaded: tuple[str, ...]
    misshapen: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    parameters: int
    total: int

    @property
    def share(self) -> float:
        """Part of the target's parameters that load, 0 to 1; 1 where the target has none."""
        return self.parameters / self.total if self.total else 1.0

    @property
    def complete(self) -> bool:
        return not (self.misshapen or self.missing or self.unexpected)


def fit(have: Sequence[Named], want: Sequence[Named], strip: str = "", add: str = "") -> Fit:
    """What loads under one change of prefix; keys without the prefix keep their names."""
    renamed = {renamed_key(one.key, strip, add): one for one in have}
    loaded = [one for one in want if one.key in renamed and renamed[one.key].shape == one.shape]
    misshapen = [one.key for one in want if one.key in renamed and renamed[one.key].shape != one.shape]
    wanted = {one.key for one in want}
    return Fit(
        strip,
        add,
        tuple(one.key for one in loaded),
        tuple(misshapen),
        tuple(one.key for one in want if one.key not in renamed),
        tuple(one.key for key, one in renamed.items() if key not in wanted),
        sum(one.numel for one in loaded),
        sum(one.numel for one in want),
    )


def renamed_key(key: str, strip: str, add: str) -> str:
    """The key with ``strip`` taken off and ``add`` put on; as it is where it does not begin with ``strip``."""
    return add + key[len(strip) :] if key.startswith(strip) else key


def best_fit(have: Sequence[Named], want: Sequence[Named]) -> Fit:
    """The change of prefix under which most parameters load; no change where none is better. Linear in keys."""
    plain = fit(have, want)
    tried = [fit(have, want, strip, add) for strip, add in _candidates(have, want)]
    return max([plain, *tried], key=lambda one: (one.parameters, len(one.loaded)))


def _candidates(have: Sequence[Named], want: Sequence[Named]) -> Iterator[tuple[str, str]]:
    """The prefixes that most parameters vote for."""
    ends: dict[object, list[Named]] = {}
    for one in want:
        ends.setdefault(_end(one), []).append(one)
    step = len(have) // SAMPLE + 1
    votes: Counter[tuple[str, str]] = Counter()
    for one in have[::step]:
        for other in ends.get(_end(one), [])[:VOTES]:
            votes[_prefixes(one.key, other.key)] += one.numel + 1
    yield from (pair for pair, _ in votes.most_common(TRIED) if pair != ("", ""))


def _end(one: Named) -> object:
    return one.key.rpartition(".")[2], one.shape


def _prefixes(key: str, other: str) -> tuple[str, str]:
    """What stands before the common end of two keys."""
    ours, theirs = key.split("."), other.split(".")
    same = 0
    while same < min(len(ours), len(theirs)) and ours[-1 - same] == theirs[-1 - same]:
        same += 1
    return _dotted(ours[: len(ours) - same]), _dotted(theirs[: len(theirs) - same])


def _dotted(words: Iterable[str]) -> str:
    return "".join(f"{word}." for word in words)


def named(keys: Mapping[str, tuple[int, ...]]) -> list[Named]:
    """Keys with shapes as tensors."""
    return [Named(key, shape) for key, shape in keys.items()]
