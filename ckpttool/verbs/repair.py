"""``repair``: what can be got back of a damaged checkpoint, planned first, then written; the input is never touched."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ckpttool.checks import rules
from ckpttool.draft import draft_of
from ckpttool.errors import CkpttoolError, UsageError, printable
from ckpttool.limits import DEFAULT, Limits
from ckpttool.migration.stamps import Stamp, digest_of, stamps_of, with_stamps
from ckpttool.model import Finding
from ckpttool.profiles import lay_out
from ckpttool.repairing.case import Case, Filling, Verdict, Wishes
from ckpttool.repairing.proof import prove
from ckpttool.repairing.steps import mend_all
from ckpttool.report import Report
from ckpttool.rules import Context
from ckpttool.verbs.findings import judge
from ckpttool.verbs.repair_reading import Broken, read_broken
from ckpttool.verbs.repair_report import Result, report
from ckpttool.writing.apply import Written, apply
from ckpttool.writing.outputs import format_for

MADE_UP = ("zero", "nan")
"""What ``fill`` may say instead of a checkpoint's path."""

HURT = ("integrity", "hostile")
"""What an error says of a file that needs repair: its bytes are not what was written, or can be read in two ways."""

UNSOUND = ("sparse-index", "nested-bounds")
"""Findings about a tensor whose parts are whole, and which no loader can put together."""

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
        repack, reindex,
    )  # fmt: skip
    _refuse_own(path, output)
    broken = read_broken(path, like or (None if fill in ("", *MADE_UP) else fill), limits, progress)
    layout = lay_out(broken.checkpoint)
    hurt = hurt_of(judge(Context(broken.checkpoint, layout, broken.measures)))
    proofs = prove(broken.checkpoint, broken.measures)
    unsound = {f.where: f.message for f in hurt if f.name in UNSOUND}
    case = Case(draft_of(broken.checkpoint), layout, broken.measures, proofs, wishes, broken.donor, unsound)
    verdict = mend_all(case, lay_out)
    idle = not (hurt or verdict.steps)
    written = None
    if output is not None and not idle:
        written = _written(broken, verdict, output, format, force, progress)
    return report(Result(broken, verdict, hurt, written, os.fspath(output or ""), wishes, idle))


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


def hurt_of(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """The findings that say that a file needs repair."""
    known = {rule.code: rule for rule in rules().values()}
    return tuple(f for f in findings if f.severity == "error" and known[f.code].axis in HURT)


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
    about = f"repaired: {len(verdict.kept)} tensors kept, {len(verdict.lost)} lost or completed"
    what = [[step.op, *step.old, step.reason] for step in verdict.steps]
    stamp = Stamp(STAMP + digest_of(repr(what), {}), False, about)
    draft = with_stamps(verdict.draft, (*stamps_of(broken.checkpoint), stamp))
    fmt = format_for(output, wanted, broken.checkpoint.format)
    return replace(
        apply(draft, output, format=fmt, overwrite=force, backup=False, progress=progress),
        path=os.fspath(output),
    )
