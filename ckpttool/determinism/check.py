"""The check: two baselines, then branches that are killed and resumed, compared step by step with the first."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeAlias

from ckpttool.determinism.comparing import Departure, boundary, departure, steps_of, unseeded, without
from ckpttool.determinism.cuts import Cut, choose
from ckpttool.determinism.diagnosis import Case, Cause, diagnose
from ckpttool.determinism.orders import Orders
from ckpttool.determinism.running import Command, Ran
from ckpttool.determinism.trace import Process, Save, Step

Status: TypeAlias = Literal[
    "exact", "diverged", "not-reproducible", "command-failed", "recovery-failed", "no-power"
]
Say = Callable[[str], None]

POWER = ("optimizer", "rng", "buffers", "lr")
TRANSPLANTS = ("params", "buffers", "optimizer", "lr", "scheduler", "scaler", "ema", "rng")


@dataclass(frozen=True, slots=True)
class Branch:
    """One interrupted run: where it was cut, how its parts ended, where it departs and why."""

    cut: Cut
    ran: tuple[Ran, ...] = ()
    steps: dict[int, Step] = field(default_factory=dict, hash=False)
    departure: Departure | None = None
    causes: tuple[Cause, ...] = ()
    boundary: tuple[str, ...] = ()
    failure: str = ""
    proof: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the check found. ``message`` says it in a sentence; ``lines`` are the last ones of a command that failed."""

    status: Status
    message: str
    reference: dict[int, Step] = field(default_factory=dict, hash=False)
    saves: tuple[Save, ...] = ()
    branches: tuple[Branch, ...] = ()
    departure: Departure | None = None
    causes: tuple[Cause, ...] = ()
    not_exercised: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()
    unseeded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Wishes:
    """What was asked for."""

    steps: int
    cuts: int = 6
    jobs: int = 1
    seed: int = 0
    power: bool = True
    prove: bool = True
    torn: bool = True


def check(command: Command, wishes: Wishes, work: Path, say: Say = lambda _: None) -> Verdict:
    """Run, kill, resume and compare; ``work`` keeps all traces and outputs. Every child is gone at the end.

    Costs two whole runs of ``steps`` steps, and one run for each cut; with ``power`` and ``prove`` a few more.
    """
    say("baseline")
    first = _baseline(command, wishes, work / "baseline")
    if isinstance(first, Verdict):
        return first
    reference, saves = steps_of(first.trace), _saves(first.trace)
    say("baseline again")
    second = _baseline(command, wishes, work / "again")
    if isinstance(second, Verdict):
        return second
    loose = unseeded(reference, steps_of(second.trace))
    reference = without(reference, loose)
    if (odd := departure(reference, steps_of(second.trace))) is not None:
        names = ", ".join(odd.fields[:4])
        text = f"two uninterrupted runs differ at step {odd.step} in {names}: nothing can be said of resumes"
        return Verdict("not-reproducible", text, reference, saves, departure=odd)
    cuts = choose(reference, saves, wishes.cuts, wishes.seed)
    if not cuts:
        text = (
            f"nothing was saved before step {wishes.steps}"
            if not saves
            else "no step lies between a save and the end"
        )
        return Verdict("recovery-failed", f"{text}: there is nothing to resume from", reference, saves)
    branches = _branches(command, wishes, work, reference, saves, cuts, say)
    found = Verdict("exact", "", reference, saves, tuple(branches), unseeded=tuple(sorted(loose)))
    return _judged(command, wishes, work, found, say)


def _baseline(command: Command, wishes: Wishes, work: Path) -> Ran | Verdict:
    ran = command.run(work / "out", Orders(work / "trace", kill_at=wishes.steps))
    if ran.timed_out:
        return Verdict(
            "command-failed", f"the command did not end within {command.timeout:.0f} s", lines=ran.lines
        )
    if not ran.was_killed_as_ordered and ran.status != 0:
        return Verdict("command-failed", f"the command failed with exit status {ran.status}", lines=ran.lines)
    if not steps_of(ran.trace):
        text = "no optimizer step was seen: does the command train with torch, in this interpreter?"
        return Verdict("command-failed", text, lines=ran.lines)
    return ran


def _saves(trace: Sequence[Process]) -> tuple[Save, ...]:
    return tuple(save for process in trace if process.rank == 0 for save in process.saves)


def _known(saves: Sequence[Save]) -> dict[str, int]:
    known = {}
    for save in saves:
        known.update(dict.fromkeys([save.digest, *save.parts.values()], save.number))
        known[save.digest] = save.number
    return _telling(known, saves)


def _telling(known: dict[str, int], saves: Sequence[Save]) -> dict[str, int]:
    """Digests that only one step's saves have: a configuration that never changes says nothing."""
    places: dict[str, set[int]] = {}
    for save in saves:
        for digest in (save.digest, *save.parts.values()):
            places.setdefault(digest, set()).add(save.number)
    return {digest: step for digest, step in known.items() if len(places.get(digest, ())) == 1}


# --- branches --------------------------------------------------------------------------------------------------


def _branches(
    command: Command, wishes: Wishes, work: Path, reference: dict[int, Step], saves: Sequence[Save],
    cuts: Sequence[Cut], say: Say,
) -> list[Branch]:  # fmt: skip
    done: list[Branch] = []
    with ThreadPoolExecutor(wishes.jobs) as pool:
        futures = [
            pool.submit(
                branch, command, wishes, work / f"cut-{'-'.join(map(str, cut))}", reference, saves, cut
            )
            for cut in cuts
        ]
        for number, future in enumerate(futures, 1):
            done.append(future.result())
            say(f"cut {number} of {len(cuts)}: after step {' and '.join(map(str, done[-1].cut))}")
    return done


def branch(
    command: Command, wishes: Wishes, work: Path, reference: dict[int, Step], saves: Sequence[Save], cut: Cut,
    orders: Orders | None = None,
) -> Branch:  # fmt: skip
    """Kill after each step of the cut, resume, and go on to the last step."""
    base = Orders(work / "trace") if orders is None else replace(orders, folder=work / "trace")
    ran: list[Ran] = []
    own: list[Save] = list(saves)
    for place, stop in enumerate((*cut, wishes.steps)):
        final = place == len(cut)
        now = (
            replace(base, kill_at=stop, known=_known(own))
            if final
            else Orders(work / "trace", kill_at=stop, known=_known(own))
        )
        last = next((s.path for s in reversed(_saves([p for r in ran for p in r.trace])) if s.path), "")
        ran.append(command.run(work / "out", now, resumed=place > 0, last=last))
        if ran[-1].timed_out:
            return Branch(
                cut, tuple(ran), failure=f"the resumed command did not end within {command.timeout:.0f} s"
            )
        if ran[-1].status != 0 and not ran[-1].was_killed_as_ordered:
            return Branch(
                cut, tuple(ran), failure=f"the resumed command failed with exit status {ran[-1].status}"
            )
    return _compared(cut, tuple(ran), reference)


def _compared(cut: Cut, ran: tuple[Ran, ...], reference: dict[int, Step]) -> Branch:
    resumed = [p for r in ran[1:] for p in r.trace if p.rank == 0]
    if not resumed or not any(p.steps for p in resumed):
        return Branch(cut, ran, failure="the resumed command took no step")
    saved = any(save.number for p in ran[0].trace for save in p.saves)
    if saved and any(p.base is None for p in resumed if p.steps):
        return Branch(
            cut,
            ran,
            failure="the resumed command loaded nothing that had been saved: it started from the beginning",
        )
    steps = steps_of(p for r in ran for p in r.trace)
    found = departure(reference, steps)
    if found is None:
        return Branch(cut, ran, steps)
    process = next((p for p in resumed if any(s.number >= found.step for s in p.steps)), resumed[-1])
    lost = boundary(reference, process)
    case = Case(reference, steps, process, found, lost, len(cut) > 1)
    return Branch(cut, ran, steps, found, diagnose(case), lost)


# --- the verdict -----------------------------------------------------------------------------------------------


def _judged(command: Command, wishes: Wishes, work: Path, found: Verdict, say: Say) -> Verdict:
    failed = [b for b in found.branches if b.failure]
    if failed:
        first = min(failed, key=lambda b: b.cut)
        text = f"killed after step {_text(first.cut)}: {first.failure}"
        return replace(
            found, status="recovery-failed", message=text, lines=first.ran[-1].lines if first.ran else ()
        )
    departed = [b for b in found.branches if b.departure is not None]
    if departed:
        return _diverged(command, wishes, work, found, min(departed, key=lambda b: (len(b.cut), b.cut)), say)
    silent = _power(command, wishes, work, found, say) if wishes.power else ()
    text = f"exact: {len(found.branches)} interrupted runs equal the uninterrupted one, step by step, bit for bit"
    if silent and set(silent) >= set(POWER):
        return replace(
            found,
            status="no-power",
            message="no loss of any part would show in this training",
            not_exercised=silent,
        )
    return replace(found, message=text, not_exercised=silent)


def _diverged(
    command: Command, wishes: Wishes, work: Path, found: Verdict, worst: Branch, say: Say
) -> Verdict:
    proof = _proof(command, wishes, work, found, worst, say) if wishes.prove else ()
    worst = replace(worst, proof=proof)
    branches = tuple(worst if b.cut == worst.cut else b for b in found.branches)
    assert worst.departure is not None
    text = f"killed after step {_text(worst.cut)} and resumed, the run departs at step {worst.departure.step}"
    text += f": {worst.causes[0].message}"
    return replace(
        found,
        status="diverged",
        message=text,
        branches=branches,
        departure=worst.departure,
        causes=worst.causes,
    )


def _proof(
    command: Command, wishes: Wishes, work: Path, found: Verdict, worst: Branch, say: Say
) -> tuple[str, ...]:
    """The parts whose transplant from the uninterrupted run makes the resumed one exact; empty where none does."""
    base = next((p.base for r in reversed(worst.ran) for p in r.trace if p.base), None)
    if base is None or len(worst.cut) > 1:
        return ()
    source = work / "snapshot"
    command.run(source / "out", Orders(source / "trace", kill_at=base, snapshots=(base,)))
    snapshot = source / "trace" / f"snapshot-{base}.pt"
    if not snapshot.exists():
        return ()
    guesses = dict.fromkeys(
        [worst.causes[0].component, *(n.partition(".")[0] for n in worst.boundary), "rng", "optimizer"]
    )
    for part in [g for g in guesses if g in TRANSPLANTS]:
        say(f"proof: {part} transplanted")
        orders = Orders(work, transplant=str(snapshot), parts=(part,))
        tried = branch(
            command, wishes, work / f"with-{part}", found.reference, found.saves, worst.cut, orders
        )
        if not tried.failure and (tried.departure is None or set(tried.departure.fields) <= {"samples"}):
            return (part,)
    return ()


def _power(command: Command, wishes: Wishes, work: Path, found: Verdict, say: Say) -> tuple[str, ...]:
    """The parts whose loss after a resume would change nothing that is recorded of the later steps."""
    cut = found.branches[0].cut[:1]
    silent = []
    for part in POWER:
        say(f"power: {part} broken on purpose")
        tried = branch(
            command,
            wishes,
            work / f"without-{part}",
            found.reference,
            found.saves,
            cut,
            Orders(work, drop=part),
        )
        if not tried.failure and (tried.departure is None or _only(part, tried)):
            silent.append(part)
    return tuple(silent)


def _only(part: str, tried: Branch) -> bool:
    """Whether nothing but the broken part itself is ever different: training does not feel it."""
    assert tried.departure is not None
    return (
        all(name.partition(".")[0] == part for name in tried.departure.fields)
        and tried.departure.loss_step is None
    )


def _text(cut: Cut) -> str:
    return " and ".join(map(str, cut))


def work_folder(keep: str | None) -> tuple[Path, Callable[[], None]]:
    """Where a check works, and what clears it up: nothing, where the folder was named."""
    if keep:
        place = Path(keep)
        place.mkdir(parents=True, exist_ok=True)
        return place, lambda: None
    place = Path(tempfile.mkdtemp(prefix="ckpttool-determinism-"))
    return place, lambda: shutil.rmtree(place, ignore_errors=True)
