"""The check: two baselines, then branches that are killed and resumed, compared step by step with the first."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from ckpttool.determinism.attribution import Proof, proof
from ckpttool.determinism.branches import NEW_LEG, Lab, Reference
from ckpttool.determinism.comparing import Departure, departure, earliest, saves_of, steps_of, unlike, unseeded, without
from ckpttool.determinism.cuts import Kill, plan
from ckpttool.determinism.levels import asked, levels
from ckpttool.determinism.orders import Orders
from ckpttool.determinism.proving import POWER, detail, power, smallest
from ckpttool.determinism.running import Command, Launchers, Ran
from ckpttool.determinism.transparency import beside, rhythm
from ckpttool.determinism.verdict import Branch, Detail, Level, Status, Verdict, Wishes
from ckpttool.errors import UsageError, printable

Say = Callable[[str], None]

__all__ = [
    "Branch", "Detail", "Level", "Status", "Verdict", "Wishes", "baseline", "check", "reference_of", "work_folder",
]  # fmt: skip


def check(
    command: Command, wishes: Wishes, work: Path, say: Say = lambda _: None, *, launchers: Launchers | None = None,
    reference: Reference | None = None,
) -> Verdict:  # fmt: skip
    """Run, kill, resume and compare; ``work`` keeps all traces and outputs. Every child is gone at the end.

    Costs two whole runs of ``steps`` steps, and one run for each cut and kill; with ``power`` and ``prove`` a few
    more. ``launchers`` and ``reference`` may be those of an earlier check of the same command.
    """
    with Launchers() if launchers is None else nullcontext(launchers) as helpers:
        if reference is None:
            found = reference_of(helpers, command, wishes, work, say)
            if isinstance(found, Verdict):
                return found
            command, reference = found
        return _checked(Lab(helpers, command, wishes, work, reference), say)


def _checked(lab: Lab, say: Say) -> Verdict:
    wishes, reference = lab.wishes, lab.reference
    known = Verdict(
        "exact", "", reference.steps, reference.saves, unseeded=tuple(sorted(reference.loose)),
        ranks=len(reference.ranks), notes=_notes(reference),
    )  # fmt: skip
    if (odd := beside(reference)) is not None:
        return replace(known, status="diverged", message=odd[1].message, departure=odd[0], causes=(odd[1],))
    if (odd := rhythm(lab, say)) is not None:
        return replace(known, status="diverged", message=odd[1].message, departure=odd[0], causes=(odd[1],))
    kills = plan(
        reference.steps, reference.saves, reference.between, cuts=wishes.cuts, kills=wishes.kills,
        ranks=len(reference.ranks), seed=wishes.seed, power_cuts=wishes.power_cuts,
        at=wishes.at,
    )  # fmt: skip
    if not kills:
        text = (
            f"nothing was saved before step {reference.last} by torch.save, safetensors or torch's DCP"
            if not reference.saves
            else "no step lies between a save and the end"
        )
        return replace(known, status="recovery-failed", message=f"{text}: there is nothing to resume from")
    return _judged(lab, replace(known, branches=tuple(_branches(lab, kills, say))), say)


def _notes(reference: Reference) -> tuple[str, ...]:
    left = reference.ran.left if reference.whole else 0
    return (f"the command left {left} of its processes behind; they were ended",) if left else ()


# --- baselines -------------------------------------------------------------------------------------------------


def reference_of(
    launchers: Launchers, command: Command, wishes: Wishes, work: Path, say: Say = lambda _: None
) -> tuple[Command, Reference] | Verdict:
    """The uninterrupted run, proved reproducible by a second one, and how the command is best run.

    The second starts from nothing, as the user would start it: so it also proves that forked runs are like it.
    """
    say("baseline")
    first = baseline(launchers, command, wishes, work / "baseline")
    if isinstance(first, Verdict):
        return first
    say("baseline again")
    plain = replace(command, fork=False)
    second = baseline(launchers, plain, wishes, work / "again")
    if isinstance(second, Verdict):
        return second
    found, odd = _agreed(first, second)
    if odd is not None and command.fork:
        say("baseline once more, without forks")
        third = baseline(launchers, plain, wishes, work / "once-more")
        if isinstance(third, Verdict):
            return third
        command = plain
        found, odd = _agreed(second, third)
    if odd is None:
        return command, found
    names = ", ".join(odd.fields[:4])
    text = f"two uninterrupted runs differ at step {odd.step} in {names}: nothing can be said of resumes"
    return Verdict("not-reproducible", text, found.steps, found.saves, departure=odd, ranks=len(found.ranks))


def _agreed(first: Ran, second: Ran) -> tuple[Reference, Departure | None]:
    """What two uninterrupted runs have in common, and where they depart if they do."""
    ranks = sorted({p.rank for p in first.trace if p.steps})
    one, two = ({rank: steps_of(ran.trace, rank) for rank in ranks} for ran in (first, second))
    loose = frozenset(name for rank in ranks for name in unseeded(one[rank], two[rank]))
    mine = {rank: without(one[rank], loose) for rank in ranks}
    theirs = {rank: without(two[rank], loose) for rank in ranks}
    saved, again = saves_of(first.trace), saves_of(second.trace)
    leaves = {n for place in saved.keys() & again.keys() for n in unlike(saved[place].leaves, again[place].leaves)}
    found = Reference(first, loose, frozenset(leaves), mine)
    departures = [replace(d, rank=r) for r in ranks if (d := departure(mine[r], theirs[r])) is not None]
    if not departures and (a := max(mine[0], default=0)) != (b := max(theirs[0], default=0)):
        departures.append(Departure(min(a, b) + 1, ("counters.steps",), None))
    return found, earliest(departures)


def baseline(launchers: Launchers, command: Command, wishes: Wishes, work: Path) -> Ran | Verdict:
    """One uninterrupted run, or why there is none."""
    ran = launchers.run(command, work / NEW_LEG, Orders(work / "trace", kill_at=wishes.steps))
    if ran.timed_out:
        silent = "" if ran.lines else ", and printed nothing"
        text = f"the command did not end within {command.timeout:g} s{silent}: fewer --steps, or a longer --timeout?"
        return Verdict("command-failed", text, lines=ran.lines)
    if not ran.was_killed_as_ordered and ran.status != 0:
        return Verdict("command-failed", f"the command {ran.end}", lines=ran.lines)
    if not any(p.rank == 0 and p.steps for p in ran.trace):
        text = "no optimizer step was seen: does the command train with torch, by a Python that takes PYTHONPATH?"
        return Verdict("command-failed", text, lines=ran.lines)
    return ran


# --- branches --------------------------------------------------------------------------------------------------


def _branches(lab: Lab, kills: Sequence[Kill], say: Say) -> list[Branch]:
    done: list[Branch] = []
    with ThreadPoolExecutor(lab.wishes.jobs) as pool:
        futures = [pool.submit(lab.branch, kill) for kill in kills]
        try:
            for number, future in enumerate(futures, 1):
                done.append(future.result())
                say(f"{number} of {len(kills)}: {done[-1].kill} ({done[-1].kill.why})")
        except BaseException:  # Ctrl-C: what runs is ended, what waits is not begun
            pool.shutdown(wait=False, cancel_futures=True)
            lab.launchers.close()
            raise
    return done


# --- the verdict -----------------------------------------------------------------------------------------------


def _judged(lab: Lab, found: Verdict, say: Say) -> Verdict:
    wanted = set(asked(lab.wishes))
    ordinary = [b for b in found.branches if not b.is_about_recovery]
    failed = [b for b in ordinary if b.failure]
    if failed:
        first = min(failed, key=lambda b: b.cut)
        asks = first.failure.endswith("from the beginning") and not lab.command.resume
        hint = "; if it takes its checkpoint by an option, name that in --resume-arg" if asks else ""
        return _with_levels(lab, replace(
            found, status="recovery-failed", message=f"{first.kill}: {first.failure}{hint}", lines=_last_lines(first),
        ))  # fmt: skip
    if any(wanted & set(b.broken) for b in ordinary):
        return _diverged(lab, found, say)
    if "recovery" in wanted and (bad := [b for b in found.branches if b.is_about_recovery and (b.failure or b.broken)]):
        return _with_levels(lab, _unrecovered(found, bad))
    silent = power(lab, found.branches, say) if lab.wishes.power else ()
    found = _with_levels(lab, replace(found, message=_kept(ordinary, lab.wishes), not_exercised=silent))
    if silent and set(silent) >= set(POWER):
        return replace(found, status="no-power", message="no loss of any part would show in this training")
    return found


def _kept(ordinary: Sequence[Branch], wishes: Wishes) -> str:
    """What holds, in a sentence; and what does not, where it was not asked for."""
    runs = f"{len(ordinary)} interrupted run{'s equal' if len(ordinary) != 1 else ' equals'}"
    wider = [b for b in ordinary if b.broken]
    if not wider:
        return f"exact: {runs} the uninterrupted one, step by step, bit for bit"
    names = ", ".join(dict.fromkeys(name for b in wider for name in b.broken))
    why = next((b.causes[0].message for b in wider if b.causes), "")
    asked_for = " and ".join(asked(wishes))
    return f"exact as far as asked: {runs} the uninterrupted one in {asked_for}; broken beyond that: {names}: {why}"


def _with_levels(lab: Lab, found: Verdict) -> Verdict:
    return replace(found, levels=levels(found.branches, lab.reference, lab.wishes))


def _last_lines(branch: Branch) -> tuple[str, ...]:
    return branch.ran[-1].lines if branch.ran else ()


def _unrecovered(found: Verdict, bad: Sequence[Branch]) -> Verdict:
    """Of several the worst: training that goes on silently and otherwise, then work that is lost, then a refusal."""
    worst = min(bad, key=lambda b: (bool(b.failure), b.refused, b.cut))
    if worst.failure:
        text = f"{worst.kill}: {worst.failure}"
    else:
        assert worst.departure is not None
        cause = worst.causes[0].message if worst.causes else ", ".join(worst.departure.fields[:3])
        text = f"{worst.kill}, the run goes on and departs at step {worst.departure.step}: {cause}"
    return replace(
        found, status="recovery-failed", message=text, lines=_last_lines(worst), departure=worst.departure,
        causes=worst.causes,
    )  # fmt: skip


def _diverged(lab: Lab, found: Verdict, say: Say) -> Verdict:
    wanted = set(asked(lab.wishes))
    branches, sentence = smallest(lab, found.branches, say) if lab.wishes.shrink else (found.branches, "")
    bad = [b for b in branches if not b.is_about_recovery and wanted & set(b.broken) and b.departure is not None]
    worst = min(bad, key=lambda b: (b.kill.how != "step", len(b.cut), b.cut))
    closer = detail(lab, worst, say) if lab.wishes.prove else None
    proved = proof(lab, worst, say) if lab.wishes.prove else Proof()
    shown = _of_a_second_resume(replace(worst, proof=proved.parts), branches)
    assert worst.departure is not None
    rank = f" of rank {worst.departure.rank}" if worst.departure.rank else ""
    why = shown.causes[0].message
    text = f"{worst.kill} and resumed, the run departs at step {worst.departure.step}{rank}: {why}"
    return _with_levels(lab, replace(
        found, status="diverged", message=text, branches=tuple(shown if b is worst else b for b in branches),
        departure=worst.departure, causes=shown.causes, detail=closer, smallest=sentence,
        notes=(*found.notes, *filter(None, [proved.remark])),
    ))  # fmt: skip


def _of_a_second_resume(worst: Branch, branches: Sequence[Branch]) -> Branch:
    """The same branch; where single resumes are exact, and this one of a resume is not, that comes first."""
    single = [b for b in branches if b.kill.how == "step" and len(b.cut) == 1]
    if len(worst.cut) < 2 or not single or any(b.broken or b.failure for b in single):
        return worst
    why = worst.causes[0]
    message = f"one resume is exact, and the resume of a resume is not: {why.message}"
    return replace(worst, causes=(replace(why, name="second-resume", message=message), *worst.causes))


def work_folder(keep: str | None) -> tuple[Path, Callable[[], None]]:
    """Where a check works, and what clears it up: nothing, where the folder was named.

    Raises ``UsageError`` for a folder with something in it: a run would go on from the checkpoints of an earlier check.
    """
    if keep:
        place = Path(keep).absolute()
        place.mkdir(parents=True, exist_ok=True)
        if any(place.iterdir()):
            raise UsageError(f"{printable(keep)} – there is something in it already: name a folder of its own")
        return place, lambda: None
    place = Path(tempfile.mkdtemp(prefix="ckpttool-determinism-"))
    return place, lambda: shutil.rmtree(place, ignore_errors=True)
