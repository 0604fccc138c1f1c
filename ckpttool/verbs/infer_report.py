"""The report of ``infer``: its data, and what people read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ckpttool.errors import ExitCode, printable
from ckpttool.folding import fold
from ckpttool.migration.inference import Inference, Link, Question
from ckpttool.migration.templates import Move, shapes
from ckpttool.model import Json
from ckpttool.report import Block, Report, Table, Text
from ckpttool.units import count, plural
from ckpttool.verbs.diff_sides import Target as Side

SHOWN = 40
"""Rows of the table; the file of rules has all."""


def report(
    found: Inference | None,
    old: str,
    new: str,
    *,
    read: bool = False,
    unusable: Sequence[Side] = (),
) -> Report:
    """What was found as a report; without it, why nothing could be."""
    head: dict[str, Json] = {"old": old, "new": new}
    title = Text(f"{old} → {new}", "title")
    if found is None:
        told = [Text(f"{side.name} – {printable(_why(side))}", "bad") for side in unusable]
        empty: dict[str, Json] = {"rules": [], "pairs": [], "ambiguous": []}
        return Report("infer", {**head, **empty}, (title, *told), ExitCode.IMPOSSIBLE)
    code = ExitCode.OK if found.complete else ExitCode.FINDINGS
    return Report("infer", {**head, **_data(found)}, (title, *_blocks(found, read)), code)


def _why(side: Side) -> str:
    told = "; ".join(one.message for one in side.errors) or "there is no tree"
    return f"{told}; run ckpttool verify"


# --- data --------------------------------------------------------------------------------------------------------


def _data(found: Inference) -> dict[str, Json]:
    rules: list[Json] = [{"rule": one.text, "hits": one.hits} for one in found.rewriting.rules]
    return {
        "rules": rules,
        "pairs": [pair for link in found.links for pair in _pairs(link)],
        "ambiguous": [
            {"to": [*one.new], "candidates": [*one.candidates], "why": one.why, "rules": [*one.rules]}
            for one in found.questions
        ],
        "missing": [*found.missing],
        "unused": [*found.unused],
        "notes": [*found.notes],
        "text": found.rules,
    }


def _pairs(link: Link) -> Iterator[Json]:
    """One for each old and new key: a split and a concatenation have one for each part."""
    for old in link.old:
        for new in link.new:
            yield {
                "from": old,
                "to": new,
                "confidence": link.confidence,
                "score": link.score,
                "op": operation(link),
                "why": link.why,
            }


def operation(link: Link) -> str:
    """What happens to the content: ``transpose``, ``split``, ``transpose, reshape``; empty for nothing."""
    turned = "" if not link.axes else "transpose" if link.axes == (1, 0) else "permute"
    return ", ".join(name for name in (turned, "" if link.op is None else link.op.name) if name)


# --- text --------------------------------------------------------------------------------------------------------


def _blocks(found: Inference, read: bool) -> Iterator[Block]:
    yield Text(_verdict(found), "good" if found.certain else "warning" if found.complete else "bad")
    rows = [row for links in _kinds(found.links).values() for row in _rows(links)]
    if rows:
        some = rows[:SHOWN]
        title = f"{count(len(some))} of {count(len(rows))}" if len(some) < len(rows) else ""
        yield Table(("old → new", "keys", "sure", "because"), tuple(some), "lrll", title)
    same = sum(link.old == link.new and link.plain for link in found.links)
    if same:
        yield Text(f"{plural(same, 'key')} {'keeps its name' if same == 1 else 'keep their names'}", "dim")
    for question in found.questions:
        yield from _question(question)
    yield from _listed("nothing leads to", found.missing, "bad")
    yield from _listed("leads nowhere, so the rules drop it", found.unused, "plain")
    yield from (Text(printable(note)) for note in found.notes)
    yield Text(
        "coverage: names, forms and contents"
        if read
        else "coverage: names and forms; contents were not compared",
        "dim",
    )


def _verdict(found: Inference) -> str:
    keys = sum(len(link.new) for link in found.links)
    sure = sum(len(link.new) for link in found.links if link.confidence == "certain")
    asked = sum(len(one.new) for one in found.questions)
    parts = [f"{plural(keys, 'key')} found: {count(sure)} certain, {count(keys - sure)} likely"]
    parts += [f"{count(asked)} to be asked about"] if asked else []
    parts += [f"{count(len(found.missing))} without a source"] if found.missing else []
    return "; ".join(parts)


def _kinds(links: Sequence[Link]) -> Mapping[tuple[str, str, str], list[Link]]:
    """Links that say the same in the same way, but those that change nothing and are certain."""
    groups: dict[tuple[str, str, str], list[Link]] = {}
    for link in links:
        if link.old != link.new or not link.plain or link.confidence != "certain":
            score = "certain" if link.confidence == "certain" else f"{link.score:.1f}"
            groups.setdefault((operation(link), score, _short(link.why)), []).append(link)
    return groups


def _short(why: str) -> str:
    """A reason without its numbers."""
    return why.partition(" (correlation")[0]


def _rows(links: Sequence[Link]) -> Iterator[tuple[str, str, str, str]]:
    known = {Move(link.old, link.new): link for link in links}
    for shape in shapes(list(known)):
        some = [known[move] for move in shape.moves]
        lowest = min(link.score for link in some)
        told = ", ".join(text for text in (operation(some[0]), _short(some[0].why)) if text)
        sure = "certain" if some[0].confidence == "certain" else f"{lowest:.2f}"
        old, new = " + ".join(shape.old), " + ".join(shape.new)
        text = old if old == new else f"{old} → {new}"
        yield printable(text), count(sum(len(link.new) for link in some)), sure, told


def _question(one: Question) -> Iterator[Block]:
    new, old = (" ".join(f.text for f in fold((k, None) for k in keys)) for keys in (one.new, one.candidates))
    yield Text(f"asked: which become {new}?", "warning")
    yield Text(f"one of {old} – {one.why}; answer with --rules, for instance:")
    for line in one.rules:
        yield Text(f"  {printable(line)}")


def _listed(what: str, keys: Sequence[str], style: str) -> Iterator[Block]:
    if keys:
        folded = [one.text for one in fold((key, None) for key in keys)]
        more = f" and {count(len(folded) - 12)} more" if len(folded) > 12 else ""
        text = f"{what}: {', '.join(folded[:12])}{more}"
        yield Text(printable(text), "bad" if style == "bad" else "plain")
