"""Which module of the result takes which module's record, told by the keys that have moved. Pure names."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

Pairs = Sequence[tuple[str, str]]
"""Keys of the result, each with a key that it comes from; one that has several stands there as often."""

Chain = list[str]
"""Modules that stand in one another, outer ones first."""


def moved_modules(
    old: Sequence[str], pairs: Pairs, added: Sequence[str] = (), known: Sequence[str] = ()
) -> list[tuple[str, str | None]]:
    """The modules of the result in order, each with the module whose record it takes; None for a new container.

    ``old`` are the recorded ones, ``added`` keys that come from none of the ``known``, which are all that there were.
    A module none of whose keys leads anywhere is gone. One without keys goes along with what it stands in; where that
    is taken apart, with what stands around it. Linear in the keys times their depth.
    """
    needed = _ancestors([new for new, _ in pairs] + list(added))
    before = _ancestors([*known, *(source for _, source in pairs)])
    alive = _ancestors(source for _, source in pairs)
    same = dict(_same(pairs))
    places = {old: new for new, old in same.items()}
    targets: dict[str, list[str]] = {}
    sources = _sources(pairs, same)
    for new in needed:
        if new in sources:
            targets.setdefault(sources[new], []).append(new)
    free = needed.keys() - {name for names in targets.values() for name in names}
    found: dict[str, str | None] = {}
    for module in old:
        if module in before:
            names = targets.get(module) or ([module] if module in free else [])
        else:
            names = _followed(module, places, before, alive)
        for name in names:
            found.setdefault(name, module)
    complete = before.keys() <= {*old, ""}
    return list(_with_new(found, needed) if complete else found.items())


def dropped_modules(modules: Iterable[str], pairs: Pairs, known: Sequence[str]) -> set[str]:
    """Those that are gone because no key of them leads anywhere, or of what they stand in."""
    before = _ancestors([*known, *(source for _, source in pairs)])
    alive = _ancestors(source for _, source in pairs)
    nearest = ((name, next((one for one in (name, *above_of(name)) if one in before), "")) for name in modules)
    return {name for name, home in nearest if home in before and home not in alive}


def _followed(module: str, places: Mapping[str, str], before: Collection[str], alive: Collection[str]) -> list[str]:
    """Where a module without keys goes: below what has become of the module that it stands in."""
    for above in above_of(module):
        if above in places:
            return [_joined(places[above], module[len(above) :].lstrip("."))]
        if above in before and above not in alive:
            return []
    return [module]


# --- which module is which ------------------------------------------------------------------------------------


def _sources(pairs: Pairs, same: Mapping[str, str]) -> dict[str, str]:
    """New module -> old module: by keys of their own, then the ``same`` ones, then up along both paths."""
    found: dict[str, str] = {}
    weak: dict[str, str] = {}
    for new, old in pairs:
        (home, _, last), (old_home, _, old_last) = new.rpartition("."), old.rpartition(".")
        if not home and same.get("") != old_home:
            continue  # a model's own record does not go to a module that leaves a key to it
        if last == old_last or home == old_home:
            found.setdefault(home, old_home)
        elif home.count(".") == old_home.count("."):
            weak.setdefault(home, old_home)
    found = {**same, **found}
    around = ((homes, _upwards(*homes)) for homes in dict.fromkeys(_homes(pairs)))
    known = (pair for (new, old), above in around if found.get(new) == old for pair in above)
    _add_free(found, [*known, *weak.items()])
    if pairs:
        found.setdefault("", "")
    return found


def _homes(pairs: Pairs) -> Iterator[tuple[str, str]]:
    """The modules that the two keys of each pair stand in."""
    return ((new.rpartition(".")[0], old.rpartition(".")[0]) for new, old in pairs)


def _add_free(found: dict[str, str], more: Iterable[tuple[str, str]]) -> None:
    """Take pairs in of which neither side is in one already."""
    used = set(found.values())
    for left, right in more:
        if left not in found and right not in used:
            found[left] = right
            used.add(right)


def _same(pairs: Pairs) -> Iterator[tuple[str, str]]:
    """Modules over the very same keys before and after: new, old."""
    numbers: dict[str, int] = {}
    for _, old in pairs:
        numbers.setdefault(old, len(numbers))
    there = _chains((new, numbers[old]) for new, old in pairs)
    here = _chains(numbers.items())
    made = {name for chain in there.values() for name in chain}
    known = {name for chain in here.values() for name in chain}
    for keys, chain in there.items():
        # A module that there is before and after over different keys is not another one as well.
        ours = [name for name in chain if name in here.get(keys, ()) or name not in known]
        theirs = [name for name in here.get(keys, ()) if name in chain or name not in made]
        if _nested(ours) and _nested(theirs):
            yield from _aligned(ours, theirs)


def _chains(keys: Iterable[tuple[str, int]]) -> dict[frozenset[int], Chain]:
    """The modules over each set of keys, outer ones first."""
    held: dict[str, set[int]] = {}
    for name, number in keys:
        for module in above_of(name):
            held.setdefault(module, set()).add(number)
    found: dict[frozenset[int], Chain] = {}
    for module in sorted(held, key=_depth):
        found.setdefault(frozenset(held[module]), []).append(module)
    return found


def _nested(chain: Chain) -> bool:
    return all(not outer or inner.startswith(f"{outer}.") for outer, inner in pairwise(chain))


def _aligned(new: Chain, old: Chain) -> Iterator[tuple[str, str]]:
    """Pairs from the innermost on; a module that keeps its whole name is its own, but for the root."""
    while new and old:
        if new[-1] and new[-1] in old:
            old = old[: old.index(new[-1]) + 1]
        elif old[-1] and old[-1] in new:
            new = new[: new.index(old[-1]) + 1]
        yield new[-1], old[-1]
        new, old = new[:-1], old[:-1]


def _upwards(new: str, old: str) -> Iterator[tuple[str, str]]:
    """The modules around a pair: while names agree or both are as deep; then what both paths begin with."""
    left, right = new.split(".") if new else [], old.split(".") if old else []
    equal_depth = len(left) == len(right)
    i, j = len(left), len(right)
    while i > 1 and j > 1 and (equal_depth or left[i - 1] == right[j - 1]):
        i, j = i - 1, j - 1
        yield ".".join(left[:i]), ".".join(right[:j])
    for k in range(1, min(len(left), len(right))):
        if left[:k] == right[:k]:
            yield ".".join(left[:k]), ".".join(right[:k])


# --- order ----------------------------------------------------------------------------------------------------


def _with_new(found: Mapping[str, str | None], needed: Mapping[str, None]) -> Iterator[tuple[str, str | None]]:
    """The modules, and those that the renaming brings about: each before what stands in it, else behind what stands
    before it among the keys.
    """
    fresh = {name for name in needed if name not in found}
    behind = _anchored(needed, fresh)
    waiting: list[tuple[str, str]] = []
    for name, source in found.items():
        inside = [above for above in reversed(list(above_of(name))) if above in fresh]
        ready = [new for new, fence in waiting if name in needed or not _within(name, fence)]
        for new in dict.fromkeys([*ready, *inside]):
            if new in fresh:
                fresh.remove(new)
                yield new, None
        yield name, source
        waiting = [one for one in [*waiting, *behind.get(name, ())] if one[0] in fresh]
    yield from ((new, None) for new in needed if new in fresh)


def _anchored(needed: Mapping[str, None], fresh: Collection[str]) -> dict[str, list[tuple[str, str]]]:
    """New modules by the one that stands before them among the keys, each with the module that it stands behind.

    Modules without keys (an activation) stand in that one before the new one begins.
    """
    behind: dict[str, list[tuple[str, str]]] = {}
    anchor = ""
    for name in needed:
        if name in fresh:
            behind.setdefault(anchor, []).append((name, _sibling(name, anchor)))
        else:
            anchor = name
    return behind


def _sibling(name: str, anchor: str) -> str:
    """The module around ``anchor`` that stands beside ``name``; ``anchor`` itself where it stands around it."""
    words = anchor.split(".")
    for k in range(1, len(words) + 1):
        module = ".".join(words[:k])
        if not _within(name, module):
            return module
    return anchor


def _within(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.") or not module


# --- names ----------------------------------------------------------------------------------------------------


def above_of(name: str) -> Iterator[str]:
    """The modules around one, nearest first, the root last."""
    words = name.split(".") if name else []
    for i in range(len(words) - 1, -1, -1):
        yield ".".join(words[:i])


def _depth(name: str) -> int:
    return name.count(".") + 1 if name else 0


def _ancestors(keys: Iterable[str]) -> dict[str, None]:
    """Every module around these keys, outer ones first."""
    found: dict[str, None] = {}
    for key in keys:
        for module in reversed(list(above_of(key))):
            found[module] = None
    return found


def _joined(*parts: str) -> str:
    return ".".join(part for part in parts if part)
