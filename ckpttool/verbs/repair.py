"""``repair``: what can be got back of a damaged checkpoint, planned first, then written; the input is never touched."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ckpttool.draft import Draft
from ckpttool.errors import CkpttoolError, UsageError, printable
from ckpttool.limits import DEFAULT, Limits
from ckpttool.profiles import lay_out
from ckpttool.repairing.case import Case, Filling, Verdict, Wishes
from ckpttool.repairing.steps import mend_all
from ckpttool.repairing.tensors import worth_by_key
from ckpttool.report import Report
from ckpttool.stamps import Stamp, digest_of, stamps_of, with_stamps
from ckpttool.units import plural
from ckpttool.verbs.repair_broken import UNSOUND, Broken
from ckpttool.verbs.repair_equal import equal_storages
from ckpttool.verbs.repair_reading import read_broken
from ckpttool.verbs.repair_report import Result, report
from ckpttool.verbs.repair_unzipped import read_unzipped, unzipped_at
from ckpttool.writing.apply import Written, apply
from ckpttool.writing.chunked import gathered
from ckpttool.writing.outputs import format_for
from ckpttool.writing.restoring import Restored, restore

MADE_UP = ("zero", "nan")
"""What ``fill`` may say instead of a checkpoint's path."""

STAMP = "repair:"
"""How the digest of a note begins that is about a repair."""


def repair(
    path: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    like: str | os.PathLike[str] | None = None,
    fill: str | os.PathLike[str] = "",
    fix_bit: bool = False,
    include_unproved: bool = False,
    sanitize: bool = False,
    extract_weights: bool = False,
    compact: bool = False,
    sections: Sequence[str] = (),
    recrc: bool = False,
    repack: bool = False,
    reindex: bool = False,
    dedupe: bool = False,
    force: bool = False,
    format: str | None = None,  # noqa: A002 - the word that users say
    progress: Callable[[int, int], None] | None = None,
    limits: Limits = DEFAULT,
) -> Report:
    """Get back what is left of a damaged checkpoint; nothing in it is imported or run, and it is opened read-only.

    Without ``output`` the plan is all. Tensors that are whole and proved by a checksum are kept; so are whole ones of
    formats that have no checksums. What is partly or wholly lost is left out, or completed by ``fill``: ``zero``,
    ``nan`` or the path of a checkpoint. ``include_unproved`` also keeps whole tensors that nothing proves or that their
    checksum contradicts. ``like`` is another checkpoint of the same run, which names what lost its names. ``fix_bit``
    turns single flipped bits back where a checksum says which. A sound file is left as it is, and nothing is written.
    The other wishes are repairs of their own, see ``ckpttool.repairing.steps``. ``force`` replaces a file.

    The exit code is ``OK`` where nothing is lost, ``FINDINGS`` where something is. Raises ``CkpttoolError`` where
    nothing can be got back, ``Unreadable``, ``WriteFailed``. Reads everything once, and once more to write it.
    """
    wishes = Wishes(
        include_unproved, _filling(fill), fix_bit, sanitize, extract_weights, compact, tuple(sections), recrc,
        repack, reindex, dedupe,
    )  # fmt: skip
    if reindex:
        from ckpttool.verbs.repair_index import reindex as index_of_shards

        return index_of_shards(path, output, force=force, limits=limits)
    _refuse_own(path, output)
    donor = like or (None if fill in ("", *MADE_UP) else fill)
    home = unzipped_at(path) if repack else None
    broken = read_unzipped(home, limits, progress) if home else read_broken(path, donor, wishes, limits, progress)
    draft = Draft(broken.checkpoint, broken.contents)
    layout = lay_out(broken.checkpoint)
    unsound = {f.where: f.message for f in broken.hurt if f.name in UNSOUND}
    case = Case(draft, layout, broken.measures, broken.proofs, wishes, broken.donor, unsound, equal_storages)
    verdict = mend_all(case, lay_out)
    verdict = replace(verdict, lost=(*broken.missing, *verdict.lost))
    _refuse_nothing(broken, verdict)
    idle = not (broken.hurt or verdict.steps)
    written = None
    if output is not None and not idle:
        written = _written(broken, verdict, output, format, force, progress)
    return report(Result(broken, verdict, written, os.fspath(output or ""), wishes, idle))


def _refuse_nothing(broken: Broken, verdict: Verdict) -> None:
    """Raise where no tensor is left of a damaged file."""
    kept = verdict.draft.checkpoint
    plain = kept.format == "pickle" and len(kept.nodes) > 1  # plain data alone are worth having
    if not broken.hurt or plain or next(iter(kept.tensors()), None) is not None:
        return
    where, first = printable(broken.checkpoint.source), broken.hurt[0]
    ways = [] if broken.donor is not None else ["another checkpoint of the same run may help: --like GOOD"]
    worths = worth_by_key(broken.checkpoint, broken.proofs).values()
    states = Counter(proof.state for proof in worths)
    if states["partial"]:
        ways.append(f"--fill zero keeps what is there of {plural(states['partial'], 'tensor')}")
    unproved = states["unproved"] + states["damaged"]
    if unproved:
        ways.append(f"--include-unproved keeps {plural(unproved, 'tensor')} that nothing proves")
    raise CkpttoolError("; ".join((f"{where} – no tensor can be got back: {first.message}", *ways)))


def _filling(fill: str | os.PathLike[str]) -> Filling:
    text = os.fspath(fill)
    if text in ("", "zero", "nan"):
        return "" if not text else "zero" if text == "zero" else "nan"
    return "donor"


def _refuse_own(path: str | os.PathLike[str], output: str | os.PathLike[str] | None) -> None:
    """Raise where the output is the input: what may be wrong is not written over the only copy."""
    if output is None or "://" in os.fspath(path) or not Path(output).exists():
        return
    if Path(path).exists() and Path(path).samefile(output):
        raise UsageError(
            f"{printable(os.fspath(output))} – is the damaged file itself, which repair never touches; name another "
            "file with -o"
        )


def _is_torchs(found: Restored) -> bool:
    """Whether an archive's records are such as torch writes: with a version, and no name that leads elsewhere."""
    names = {name for name, _, _ in found.records}
    return "version" in names and not any(step in ("", ".", "..") for name in names for step in name.split("/"))


def _written(
    broken: Broken,
    verdict: Verdict,
    output: str | os.PathLike[str],
    wanted: str | None,
    force: bool,
    progress: Callable[[int, int], None] | None,
) -> Written:
    if verdict.draft.checkpoint.root is None:
        raise CkpttoolError(f"{printable(broken.checkpoint.source)} – nothing can be got back of it")
    where = os.fspath(output)
    fmt = format_for(where, wanted, broken.checkpoint.format)
    if broken.restored is not None and not verdict.steps and fmt == "torch" and _is_torchs(broken.restored):
        return restore(broken.restored, where, overwrite=force, progress=progress)
    about = f"repaired: {len(verdict.kept)} tensors kept, {len(verdict.lost)} lost or completed"
    what = [[step.op, *step.old, step.reason] for step in verdict.steps]
    stamp = Stamp(STAMP + digest_of(repr(what), {}), False, about)
    draft = with_stamps(gathered(verdict.draft), (*stamps_of(broken.checkpoint), stamp))
    return apply(draft, where, format=fmt, overwrite=force, backup=False, progress=progress)
