"""The report of ``repair``: what is intact, what is lost and why, what was written. For someone at 2 a.m."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from ckpttool.errors import ExitCode, printable
from ckpttool.folding import fold
from ckpttool.frozen import dataclass
from ckpttool.model import Json
from ckpttool.plan import Step
from ckpttool.repairing.case import Loss, Proof, State, Verdict, Wishes
from ckpttool.report import Block, Deferred, Details, Facts, Findings, Report, Table, Text
from ckpttool.units import count, plural, size
from ckpttool.verbs.repair_broken import Broken
from ckpttool.writing.apply import Written

ROWS = 40
"""Folded lines that people are shown; the data has all."""

WORDS: dict[State, str] = {
    "proved": "intact, proved by checksum",
    "unprovable": "whole, not provable: the file has no checksums",
    "unproved": "whole, unproved: the checksum is gone",
    "damaged": "damaged: the checksum disagrees",
    "partial": "partly lost",
    "lost": "lost",
}


@dataclass(frozen=True, slots=True)
class Result:
    """What a repair came to; ``written`` is None where nothing was, ``destination`` empty for a plan."""

    broken: Broken
    verdict: Verdict
    written: Written | None
    destination: str
    wishes: Wishes
    idle: bool


def report(result: Result) -> Report:
    """The result as a report; losses are findings."""
    lossy = result.verdict.lost or result.broken.tree != "own"
    code = ExitCode.FINDINGS if lossy else ExitCode.OK
    return Report("repair", Deferred(lambda: _data(result)), tuple(_blocks(result)), code)


# --- data ------------------------------------------------------------------------------------------------------


def _data(result: Result) -> dict[str, Json]:
    verdict, written = result.verdict, result.written
    return {
        "path": result.broken.checkpoint.source,
        "sound": result.idle,
        "recovered": [_recovered(key, proof) for key, proof in _kept(verdict).items()],
        "lost": [_lost(loss) for loss in verdict.lost],
        "plan": [
            {"op": s.op, "from": [*s.old], "to": [*s.new], "reason": s.reason, "lossy": s.lossy or None}
            for s in verdict.steps
        ],
        "damage": [
            {"code": f.code, "name": f.name, "where": f.where, "message": f.message} for f in result.broken.hurt
        ],
        "notes": [*result.broken.notes, *verdict.notes],
        "payload": _payload(result),
        "healed": [{"record": name, "how": how} for name, how in result.broken.healing.reasons.items()],
        "fixable": [
            {"record": name, "byte": at, "mistaken": odds}
            for name, (at, odds) in result.broken.healing.curable.items()
            if name not in result.broken.healing.reasons
        ],
        "as_written": _as_written(result),
        "written": None if written is None else written.path,
        "files": [] if written is None else [*written.files],
        "bytes": 0 if written is None else written.nbytes,
    }


def _as_written(result: Result) -> bool:
    """Whether the output is, or would be, the file as it was before the damage, bit for bit."""
    return result.broken.restored is not None and not result.verdict.steps


def _kept(verdict: Verdict) -> dict[str, Proof]:
    """The tensors of the output that are as they were: those that were completed are not."""
    made = {loss.key for loss in verdict.lost if loss.filled}
    return {key: proof for key, proof in verdict.kept.items() if key not in made}


def _recovered(key: str, proof: Proof) -> Json:
    """``by`` is what proves a tensor: its ``checksum``, or a ``manifest``; None where nothing does."""
    return {"key": key, "proof": proof.state, "by": (proof.by or "checksum") if proof.state == "proved" else None}


def _lost(loss: Loss) -> Json:
    return {
        "key": loss.key,
        "reason": loss.reason,
        "elements": loss.numel,
        "missing": loss.missing,
        "filled": loss.filled or None,
    }


def _payload(result: Result) -> Json:
    """Bytes of storages: all that the tree declares, and those of each worth."""
    checkpoint = result.broken.checkpoint
    found: Counter[str] = Counter()
    for storage in checkpoint.storages:
        found["bytes"] += storage.nbytes
    kept = result.verdict.draft
    found["proved"] = sum(s.nbytes for s, p in result.broken.proofs.items() if p.state == "proved")
    found["kept"] = sum(content.nbytes for content in kept.contents)
    return {**found}


# --- for people ------------------------------------------------------------------------------------------------


def _blocks(result: Result) -> Iterator[Block]:
    towards = f" → {printable(result.destination)}" if result.destination else ""
    yield Text(f"{printable(result.broken.checkpoint.source)}{towards}", "title")
    yield _verdict(result)
    if result.idle:
        return
    yield Facts(tuple(_counts(result)))
    yield from _healed(result)
    yield from (Text(printable(note), "warning") for note in (*result.broken.notes, *result.verdict.notes))
    yield from _tables(result.verdict.lost)
    rows = tuple(_step(step) for step in result.verdict.steps if step.reason and step.op not in ("drop", "fill"))
    if rows:
        yield Table(("step", "keys", "why"), rows[:ROWS], "lll", f"plan: {plural(len(rows), 'step')}")
    if result.broken.hurt:
        yield Details(f"what is damaged: {plural(len(result.broken.hurt), 'finding')}", (Findings(result.broken.hurt),))
    yield from _next(result)


def _healed(result: Result) -> Iterator[Block]:
    """What was had back, and what could be."""
    healing = result.broken.healing
    rows = [(printable(name), printable(how)) for name, how in healing.reasons.items()]
    if rows:
        title = f"had back: {plural(len(rows), 'record')}"
        yield Table(("record", "how"), tuple(rows[:ROWS]), "ll", title)
    left = [(name, *found) for name, found in healing.curable.items() if name not in healing.reasons]
    if left:
        lines = tuple((printable(name), count(at), f"{odds:.1g}") for name, at, odds in left[:ROWS])
        title = f"a single flipped bit would explain {plural(len(left), 'record')}: --fix-bit turns it back"
        yield Table(("record", "byte", "probability of a mistake"), lines, "lrr", title)


def _verdict(result: Result) -> Text:
    verdict = result.verdict
    if result.idle:
        return Text("nothing to repair: the file is sound; nothing was written", "good")
    done = "written" if result.written is not None else "can be got back"
    total = len({e.index for e, _ in result.broken.checkpoint.tensors()})
    kept = len({e.index for e, _ in verdict.draft.checkpoint.tensors()})
    words = f"{done}: {count(kept)} of {plural(total, 'tensor')}"
    if _as_written(result):
        return Text(f"{words}; the file is again what it was before the damage, bit for bit", "good")
    if not verdict.lost:
        return Text(f"{words}, nothing lost", "good")
    return Text(f"{words}, {count(len(verdict.lost))} lost or completed", "warning" if kept else "bad")


def _counts(result: Result) -> Iterator[tuple[str, str]]:
    kept = Counter((proof.state, proof.by) for proof in _kept(result.verdict).values())
    for state, words in WORDS.items():
        if kept[state, ""]:
            yield "kept", f"{plural(kept[state, ''], 'tensor')} {words}"
        if kept[state, "manifest"]:
            yield "kept", f"{plural(kept[state, 'manifest'], 'tensor')} intact, proved by manifest"
    declared = sum(storage.nbytes for storage in result.broken.checkpoint.storages)
    have = sum(content.nbytes for content in result.verdict.draft.contents)
    share = f" ({100 * have / declared:.1f} %)" if declared else ""
    yield "content", f"{size(have)} of {size(declared)}{share}"


def _step(step: Step) -> tuple[str, str, str]:
    """One line: what is done, to which keys, and why."""
    named = step.new or step.old
    folds = fold([(printable(key), ("",)) for key in named])
    more = f" and {count(len(folds) - 2)} more" if len(folds) > 2 else ""
    return step.op, ", ".join(one.text for one in folds[:2]) + more, printable(step.reason)


def _tables(lost: Sequence[Loss]) -> Iterator[Block]:
    left = [loss for loss in lost if not loss.filled]
    made = [loss for loss in lost if loss.filled]
    for title, some in (("left out", left), ("completed", made)):
        if not some:
            continue
        folds = fold([(printable(loss.key), (_missing(loss), printable(loss.filled or loss.reason))) for loss in some])
        rows = [(one.text, one.mark[0], one.mark[1]) for one in folds[:ROWS]]
        if len(folds) > ROWS:
            rows.append(("…", "", f"{count(len(folds) - ROWS)} more lines, --json has them all"))
        yield Table(("key", "elements", "why"), tuple(rows), "lrl", f"{title}: {plural(len(some), 'tensor')}")


def _missing(loss: Loss) -> str:
    if loss.missing is None:
        return f"? of {count(loss.numel)}"
    return "all" if loss.missing == loss.numel else f"{count(loss.missing)} of {count(loss.numel)}"


def _next(result: Result) -> Iterator[Block]:
    left = any(not loss.filled for loss in result.verdict.lost)
    if result.written is not None:
        rows = [("written", f"{printable(result.written.path)}, {size(result.written.nbytes)}, read back")]
        if left:
            rows.append(("next", "load it with strict=False, or complete it: --fill zero, nan or GOOD.pth"))
        yield Facts(tuple(rows))
    elif not result.destination:
        yield Text("this is the plan; -o DST writes it, and the damaged file stays as it is", "dim")
