"""The report of ``infer``: its data, and what people read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ckpttool.errors import ExitCode, printable
from ckpttool.folding import fold
from ckpttool.migration.inference import Inference, Link, Question, Written
from ckpttool.model import Json
from ckpttool.report import Block, Report, Table, Text
from ckpttool.units import count, plural
from ckpttool.verbs.diff_sides import Target as Side

SHOWN = 40
"""Rows of the table; the file of rules has all."""


def report(found: Inference | None, old: str, new: str, *, read: bool = False, unusable: Sequence[Side] = ()) -> Report:
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
    rows = list(_rows(found))
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
        "coverage: names, forms and contents" if read else "coverage: names and forms; contents were not compared",
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


def _rows(found: Inference) -> Iterator[tuple[str, str, str, str]]:
    """A row for each rule but those that drop."""
    known = {name: link for link in found.links for name in link.old}
    renamed = {name for one in found.written for move in one.moves if one.rule.targets for name in move.old}
    for one in found.written:
        names = [name for move in one.moves for name in move.old]
        # What also has a new name is told beside that.
        if one.rule.kind != "drop" and (one.rule.targets or not renamed.issuperset(names)):
            yield _row(one, list(dict.fromkeys(known[name] for name in names)))


def _row(one: Written, links: Sequence[Link]) -> tuple[str, str, str, str]:
    old, new = " + ".join(one.rule.sources), " + ".join(one.rule.targets)
    sure = all(link.confidence == "certain" for link in links)
    told = list(dict.fromkeys(text for link in links for text in (operation(link), _short(link.why)) if text))
    lowest = min(link.score for link in links)
    keys = sum(len(link.new) for link in links)
    text = f"{old} → {new}" if new else old
    return printable(text), count(keys), "certain" if sure else f"{lowest:.2f}", printable(", ".join(told))


def _short(why: str) -> str:
    """A reason without its numbers."""
    return why.partition(" (correlation")[0]


def _question(one: Question) -> Iterator[Block]:
    new, old = (" ".join(f.text for f in fold((k, None) for k in keys)) for keys in (one.new, one.candidates))
    yield Text(printable(f"to be asked about: {new}"), "warning")
    yield Text(printable(f"may be: {old}"))
    yield Text(printable(f"{one.why}; one of these in --rules would tell:"))
    for line in one.rules:
        yield Text(f"  {printable(line)}")


def _listed(what: str, keys: Sequence[str], style: str) -> Iterator[Block]:
    if keys:
        folded = [one.text for one in fold((key, None) for key in keys)]
        more = f" and {count(len(folded) - 12)} more" if len(folded) > 12 else ""
        text = f"{what}: {', '.join(folded[:12])}{more}"
        yield Text(printable(text), "bad" if style == "bad" else "plain")
