"""From pairs and measured differences to changes of tensors: every kind that applies, the first names it. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from ckpttool.changes import KINDS, Change, Difference, Kind, Pair, Pairing, Side
from ckpttool.comparing.grouping import ROT
from ckpttool.comparing.sharing import out_of_order, retied
from ckpttool.frozen import dataclass
from ckpttool.model import Checkpoint, Json, Tensor
from ckpttool.units import count, plural

HEADS = 4
"""Different prefixes that are told apart; more of them are one change."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What comparing two tensors' content came to. ``equal`` is None where it could not be compared: ``why``.

    ``close`` holds where all elements are equal or within the tolerance. ``agreed`` says that both files record
    one and the same checksum for the content.
    """

    equal: bool | None
    close: bool
    difference: Difference | None = None
    why: str = ""
    agreed: bool = False
    note: str = ""


EQUAL = Outcome(True, True)


def tensor_changes(
    a: Checkpoint, b: Checkpoint, pairing: Pairing, outcomes: Mapping[tuple[int, int], Outcome], ordered: bool
) -> list[Change]:
    """Every change of tensors, in b's order, removed ones after it. Linear, but for sorting.

    ``outcomes`` are by node indices; a pair without one is not compared. ``ordered``: both files keep the order
    of keys. What is equal, or differs within the tolerance alone, is no change.
    """
    heads = _heads(pairing.pairs)
    ties = retied(a, b, pairing.pairs)
    changes = list(_relocated(pairing.pairs, heads))
    for place, pair in enumerate(pairing.pairs):
        outcome = outcomes.get((pair.a.index, pair.b.index))
        change = _of_pair(a, b, pair, outcome, _head(pair) in heads, ties.get(place))
        if change is not None:
            changes.append(change)
    changes += [_alone(a, side, "removed") for side in pairing.only_a]
    changes += [_alone(b, side, "added") for side in pairing.only_b]
    if ordered:
        changes += _reordered(b, pairing.pairs)
    return changes


def _of_pair(
    a: Checkpoint,
    b: Checkpoint,
    pair: Pair,
    outcome: Outcome | None,
    relocated: bool,
    tie: tuple[list[str], list[str]] | None,
) -> Change | None:
    before, after = _tensor(a, pair.a), _tensor(b, pair.b)
    kinds: set[Kind] = set()
    if pair.a.key != pair.b.key and not relocated and pair.how != "parameter":
        same_name = pair.how == "name" and pair.a.section != pair.b.section
        kinds |= set() if same_name else {"renamed"}
    if pair.a.section != pair.b.section and not relocated:
        kinds.add("moved")
    if before.dtype != after.dtype or not (before.layout == after.layout or (before.dense and after.dense)):
        kinds.add("retyped")
    if before.shape != after.shape:
        kinds.add("reshaped")
    if outcome is not None and outcome.equal is False and not outcome.close:
        kinds.add("rewritten")
    if tie is not None:
        kinds.add("retied")
    if not kinds:
        return None
    facts: dict[str, Json] = {"how": pair.how}
    if tie is not None:
        facts |= {"tied_before": [*tie[0]], "tied_after": [*tie[1]]}
    told = tuple(kind for kind in KINDS if kind in kinds)
    return Change(
        told[0],
        told,
        pair.b.key,
        pair.a.key if pair.a.key != pair.b.key else None,
        pair.b.section,
        _described(pair.a, before),
        _described(pair.b, after),
        outcome.difference if outcome is not None and "rewritten" in kinds else None,
        pair.score,
        _note(pair, outcome, tie),
        facts,
    )


def _note(pair: Pair, outcome: Outcome | None, tie: tuple[list[str], list[str]] | None) -> str:
    notes = []
    if pair.how in ("split", "concat"):
        notes.append("split: a part of what it was" if pair.how == "split" else "joined from parts")
    elif pair.how == "inferred":
        notes.append(f"paired by shape, order and name, score {pair.score:.2f}")
    if tie is not None:
        notes.append(_tie_note(*tie))
    if outcome is not None and outcome.note:
        notes.append(outcome.note)
    if outcome is not None and outcome.agreed and outcome.equal is False:
        notes.append(f"{ROT}: the recorded checksums are the same")
    return "; ".join(notes)


def _tie_note(before: list[str], after: list[str]) -> str:
    gone, new = [k for k in before if k not in after], [k for k in after if k not in before]
    told = [f"no longer shares memory with {_names(gone)}"] if gone else []
    told += [f"now shares memory with {_names(new)}"] if new else []
    return ", ".join(told) or "shares memory with others than before"


def _names(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


def _alone(checkpoint: Checkpoint, side: Side, kind: Kind) -> Change:
    described = _described(side, _tensor(checkpoint, side))
    before, after = (described, None) if kind == "removed" else (None, described)
    return Change(kind, (kind,), side.key, None, side.section, before, after)


def _tensor(checkpoint: Checkpoint, side: Side) -> Tensor:
    node = checkpoint.nodes[side.index]
    assert isinstance(node, Tensor)
    return node


def _described(side: Side, tensor: Tensor) -> Json:
    found: dict[str, Json] = {
        "dtype": tensor.dtype.name,
        "shape": [*tensor.shape],
        "path": [*side.path],
        "section": side.section,
    }
    return found if tensor.dense else {**found, "layout": tensor.layout}


# --- one prefix is one change --------------------------------------------------------------------------


def _head(pair: Pair) -> tuple[str, str]:
    """What is left of both keys in front of their common end."""
    if pair.how not in ("name", "prefix") or pair.a.key == pair.b.key:
        return "", ""
    ours, theirs = pair.a.key.split("."), pair.b.key.split(".")
    same = 0
    while same < min(len(ours), len(theirs)) and ours[-1 - same] == theirs[-1 - same]:
        same += 1
    return ".".join(ours[: len(ours) - same]), ".".join(theirs[: len(theirs) - same])


def _heads(pairs: Sequence[Pair]) -> set[tuple[str, str]]:
    """The prefixes that several keys have in common."""
    found = Counter(_head(pair) for pair in pairs)
    del found["", ""]
    return set(found) if len(found) > HEADS else {head for head, number in found.items() if number > 1}


def _relocated(pairs: Sequence[Pair], heads: set[tuple[str, str]]) -> Iterator[Change]:
    """A change for each prefix, or one for all where there are many."""
    groups: dict[tuple[str, str, str, str], list[Pair]] = {}
    many = len(heads) > HEADS
    for pair in pairs:
        head = _head(pair)
        if head in heads:
            place = ("", "") if many else head
            groups.setdefault((*place, pair.a.section, pair.b.section), []).append(pair)
    for (ours, theirs, section, other), group in groups.items():
        kind: Kind = "renamed" if section == other else "moved"
        score = min(pair.score for pair in group)
        yield Change(
            kind,
            (kind,),
            _star(theirs),
            _star(ours),
            other,
            {"prefix": ours, "section": section},
            {"prefix": theirs, "section": other},
            None,
            score,
            _moved_note(ours, theirs, len(group), many),
            {"how": "prefix", "count": len(group), "keys": [group[0].a.key, group[0].b.key]},
        )


def _star(head: str) -> str:
    return f"{head}.*" if head else "*"


def _moved_note(ours: str, theirs: str, number: int, many: bool) -> str:
    keys = plural(number, "key")
    if many:
        return f"{keys} with other wrappers in their names"
    if ours and theirs:
        return f"{keys}: prefix {ours}. is now {theirs}."
    return f"{keys}: prefix {theirs}. added" if theirs else f"{keys}: prefix {ours}. taken off"


# --- order ---------------------------------------------------------------------------------------------


def _reordered(b: Checkpoint, pairs: Sequence[Pair]) -> Iterator[Change]:
    """One change for each mapping whose keys stand in another order."""
    places = {entry.path: place for place, (entry, _) in enumerate(b.tensors())}
    rows: dict[tuple[str, str], list[int]] = {}
    sections: dict[tuple[str, str], str] = {}
    for pair in pairs:
        if pair.how in ("split", "concat", "parameter"):
            continue
        parents = ".".join(pair.a.path[:-1]), ".".join(pair.b.path[:-1])
        rows.setdefault(parents, []).append(places.get(pair.b.path, 0))
        sections[parents] = pair.b.section
    for parents, (moved, total) in out_of_order(rows).items():
        ours, theirs = parents
        note = f"{plural(moved, 'key')} of {count(total)} in another place"
        facts: dict[str, Json] = {"moved": moved, "keys": total}
        old = _star(ours) if ours != theirs else None
        yield Change("reordered", ("reordered",), _star(theirs), old, sections[parents], note=note, facts=facts)
