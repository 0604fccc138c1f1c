"""The answer in sentences: what changed, of how many, where. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from ckpttool.changes import KINDS, Change
from ckpttool.folding import fold
from ckpttool.model import Json
from ckpttool.units import count, plural, real, shape

FEW = 3
"""Changes of one sort that are told one by one."""

DEPTH = 4
"""Segments of keys within which a common place is looked for."""

ROT = "bit rot"
"""How the note begins on content that differs although the files record one checksum for it."""

LONGEST = 90
"""Characters of folded names in a sentence."""


def sentences(changes: Sequence[Change], keys: Mapping[str, Sequence[str]]) -> list[str]:
    """What changed, most structural first. ``keys`` are the keys of b's tensors and of removed ones, by section."""
    told = [_relocated(change) for change in changes if _is_relocation(change)]
    groups: dict[tuple[str, tuple[str, ...]], list[Change]] = {}
    for change in changes:
        if change.kind != "edited" and not _is_relocation(change) and change.kind != "reordered":
            groups.setdefault((change.section, change.kinds), []).append(change)
    ranked = sorted(groups.items(), key=lambda one: KINDS.index(one[1][0].kind))
    for (section, kinds), group in ranked:
        told += _group(section, kinds, group, keys.get(section, ()))
    told += [f"{_code(change.key)}: {change.note}" for change in changes if change.kind == "reordered"]
    edited = [change for change in changes if change.kind == "edited"]
    if edited:
        total = sum(_several(change) for change in edited)
        some = ", ".join(value_text(change) for change in edited[:FEW])
        told.append(f"{plural(total, 'value')} edited: {some}{', …' if len(edited) > FEW else ''}")
    return told


def _is_relocation(change: Change) -> bool:
    return "count" in change.facts and change.facts.get("how") == "prefix"


def _relocated(change: Change) -> str:
    verb = f"moved to {change.section}," if change.kind == "moved" else "renamed to"
    return f"{_code(change.old_key or change.key)} {verb} {_code(change.key)}; {change.note}"


def _group(section: str, kinds: tuple[str, ...], group: Sequence[Change], keys: Sequence[str]) -> Iterator[str]:
    if len(group) <= FEW:
        yield from (_one(change) for change in group)
        return
    noun = "tensors" if section == "weights" else f"{section} tensors"
    total = len(keys)
    number = f"all {count(total)}" if len(group) == total else f"{count(len(group))} of {count(total)}"
    if kinds[0] in ("added", "removed"):
        number = count(len(group))
    told = Counter(_kinds(change) for change in group)
    kinds_text = next(iter(told)) if len(told) == 1 else " and ".join(kinds)
    yield f"{number} {noun} {kinds_text}{place([change.key for change in group], keys)}"


def _one(change: Change) -> str:
    note = f" ({change.note})" if change.note and ROT not in change.note else ""
    return f"{_code(change.key)} {_kinds(change)}{note}"


def _kinds(change: Change) -> str:
    """All kinds, with types and shapes before and after where those changed."""
    words: list[str] = []
    for kind in change.kinds:
        if kind in ("renamed", "moved") and change.old_key and not words:
            words.append(f"{kind} from {_code(change.old_key)}")
        elif kind == "retyped":
            words.append(f"retyped {_field(change.before, 'dtype')} → {_field(change.after, 'dtype')}")
        elif kind == "reshaped":
            words.append(f"reshaped {_field(change.before, 'shape')} → {_field(change.after, 'shape')}")
        elif kind in ("added", "removed"):
            side = change.after if kind == "added" else change.before
            words.append(f"{kind}, {_field(side, 'dtype')} {_field(side, 'shape')}")
        else:
            words.append(kind)
    return " and ".join(words)


def _field(side: Json, name: str) -> str:
    found = side.get(name) if isinstance(side, dict) else None
    if isinstance(found, list):
        return shape(tuple(n for n in found if isinstance(n, int)))
    return str(found)


def place(changed: Sequence[str], keys: Sequence[str]) -> str:
    """Where the changed keys lie, if that says more than "everywhere": ``, all in `layers.{8..11}```."""
    if len(set(changed)) >= len(set(keys)):
        return ""
    common = ""
    covered = len(keys)
    for depth in range(1, DEPTH + 1):
        heads = {_head(key, depth) for key in changed}
        inside = sum(_head(key, depth) in heads for key in keys)
        if "" in heads or inside >= covered:
            continue
        folds = fold((head, None) for head in sorted(heads, key=_natural))
        if len(folds) == 1 and len(folds[0].text) <= LONGEST:
            common, covered = folds[0].text, inside
    if common:
        return f", all in {_code(common)}"
    folds = fold((key, None) for key in sorted(set(changed), key=_natural))
    text = ", ".join(one.text for one in folds)
    return f": {_code(text)}" if len(folds) <= FEW and len(text) <= LONGEST else ""


def _head(key: str, depth: int) -> str:
    words = key.split(".")
    return ".".join(words[:depth]) if len(words) > depth else ""


def _natural(key: str) -> list[tuple[int, int, str]]:
    return [(0, int(word), "") if word.isdecimal() and len(word) < 19 else (1, 0, word) for word in key.split(".")]


def _several(change: Change) -> int:
    several = change.facts.get("several")
    return several if isinstance(several, int) else 1


def value_text(change: Change) -> str:
    """One edited value: ``epoch` 1 → 2``."""
    op = change.facts.get("op")
    if change.before is None and change.after is None and change.note:
        return f"{_code(change.key)} ({change.note})"
    if op == "added":
        return f"{_code(change.key)} added: {json_text(change.after)}"
    if op == "removed":
        return f"{_code(change.key)} removed: {json_text(change.before)}"
    if change.note and change.before == change.after:
        return f"{_code(change.key)} ({change.note})"
    return f"{_code(change.key)} {json_text(change.before)} → {json_text(change.after)}"


def json_text(value: Json) -> str:
    """A value as people read it, short."""
    if isinstance(value, float):
        return repr(value) if len(repr(value)) <= 8 else real(value)
    if isinstance(value, dict):
        text = ", ".join(f"{key}: {json_text(inner)}" for key, inner in value.items())
        text = f"{{{text}}}"
    elif isinstance(value, list):
        text = f"[{', '.join(map(json_text, value))}]"
    else:
        text = str(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _code(text: str) -> str:
    return f"`{text}`"


# --- order ---------------------------------------------------------------------------------------------


def amount(change: Change) -> float:
    """How much a tensor changed, for sorting: new NaN and infinities first, then shapes, then the share."""
    found = change.difference
    if found is not None and (found.new_nan or found.new_inf or found.lost_nan or found.lost_inf):
        return 5.0
    if change.kind in ("added", "removed"):
        return 4.0
    if "reshaped" in change.kinds:
        return 3.0
    if found is not None:
        # Of a generator's state no number means anything.
        return -0.5 if change.section == "rng" else found.relative
    return 2.5 if "rewritten" in change.kinds else -1.0


def by_amount(changes: Sequence[Change]) -> list[Change]:
    """Changes of tensors, those that changed most first; equals in their order."""
    shown = (c for c in changes if c.kind not in ("edited", "reordered") and not _is_relocation(c))
    return sorted(shown, key=lambda change: -amount(change))
