"""What was lost: the fewest parts of the uninterrupted run that make a resumed one exact when they are put into it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ckpttool.determinism.branches import NEW_LEG, Lab
from ckpttool.determinism.comparing import ORDER
from ckpttool.determinism.orders import Orders
from ckpttool.determinism.trace import component_of
from ckpttool.determinism.verdict import Branch

Say = Callable[[str], None]
Parts = tuple[str, ...]

STATE = ("params", "buffers", "optimizer", "lr", "scheduler", "scaler", "ema", "rng")
TRANSPLANTS = (*STATE, "data")
"""What can be transplanted: parts of the state as the first step after a cut finds it, and what each step consumes."""

MOST_BYTES = 250_000_000
"""Of the batches of one rank that are kept on the disk."""

SINGLES = 3
"""Parts that are tried alone."""


@dataclass(frozen=True, slots=True)
class Proof:
    """The parts that explain a departure, none where none do; ``remark`` is why something could not be tried."""

    parts: Parts = ()
    remark: str = ""


def proof(lab: Lab, worst: Branch, say: Say) -> Proof:
    """The fewest parts whose transplant makes the steps of a branch exact.

    Costs one uninterrupted run, then one interrupted run for each set that is tried: at most about a dozen.
    """
    base = _base_of(worst)
    if base is None or len(worst.cut) > 1 or worst.kill.how != "step" or _is_of_the_process(worst):
        return Proof()
    guesses = guesses_of(worst)
    snapshots, remark = _prepared(lab, base, batches="data" in guesses, say=say)
    if not (snapshots / f"snapshot-0-{base}.pt").exists():
        return Proof()
    if remark:
        guesses = tuple(part for part in guesses if part != "data")

    def exact(parts: Parts) -> bool:
        say(f"proof: {', '.join(parts)} transplanted")
        orders = Orders(lab.work, transplant=str(snapshots), start=base, parts=parts)
        tried = lab.branch(worst.kill, f"with-{'-'.join(parts)}", orders)
        return not tried.failure and "trajectory" not in tried.broken

    return Proof(fewest(guesses, exact), remark)


def guesses_of(branch: Branch) -> Parts:
    """The parts that may explain a branch, the likeliest first: causes, what a load lost, what differs first."""
    causes = [cause.component for cause in branch.causes[:2]]
    odd = [component_of(n) for n in (branch.departure.fields if branch.departure else ())]
    names = [*causes, *(component_of(n) for n in branch.boundary), *odd]
    return tuple(name for name in dict.fromkeys(names) if name in TRANSPLANTS)


def fewest(guesses: Sequence[str], exact: Callable[[Parts], bool]) -> Parts:
    """The fewest of some parts that are exact together; none where all of them are not.

    First each of the likeliest alone, then all, then the first half of them in the order of cause and effect, and so
    on; of what is left those are dropped that are not needed.
    """
    tried = {(part,) for part in guesses[:SINGLES]}
    for part in guesses[:SINGLES]:
        if exact((part,)):
            return (part,)
    whole = tuple(guesses) if len(guesses) > 1 else STATE
    ordered = tuple(sorted(whole, key=lambda part: (part not in guesses[:2], ORDER.index(part))))
    if not exact(ordered):
        return ()
    low, high = int(ordered[:1] in tried), len(ordered)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if exact(ordered[:middle]) else (middle, high)
    ordered = ordered[:high]
    for part in ordered[:-1]:
        fewer = tuple(p for p in ordered if p != part)
        if fewer not in tried and exact(fewer):
            ordered = fewer
    return ordered


def _prepared(lab: Lab, base: int, *, batches: bool, say: Say) -> tuple[Path, str]:
    """An uninterrupted run that writes out its state before the next step, and what it consumes from then on.

    Its folder, and why there are no batches in it.
    """
    place = lab.work / f"kept-{base}"
    say("proof: the uninterrupted run once more" + (", its batches kept" if batches else ""))
    last = lab.wishes.steps if batches else base + 1  # the state is what the step after it finds
    orders = Orders(place / "trace", kill_at=last, snapshots=(base,), start=base, batches=batches * MOST_BYTES)
    ran = lab.launchers.run(lab.command, place / NEW_LEG, orders)
    why = next((process.batches for process in ran.trace if process.batches), "")
    return orders.folder, f"whether data explain it was not tried: {why}" if why else ""


def _is_of_the_process(branch: Branch) -> bool:
    """Whether the cause lies in what no part of the state can bring back: threads, versions, modes."""
    return bool(branch.causes) and branch.causes[0].component in ("environment", "modules")


def _base_of(branch: Branch) -> int | None:
    return next((p.base for r in reversed(branch.ran) for p in r.trace if p.base), None)
