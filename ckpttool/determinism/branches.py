"""Runs of a training command that are killed and resumed, held against the uninterrupted one."""

from __future__ import annotations

import shutil
import signal
from dataclasses import dataclass, replace
from pathlib import Path

from ckpttool.determinism.cuts import Kill
from ckpttool.determinism.disk import Loss, loss_of
from ckpttool.determinism.holding import compared
from ckpttool.determinism.orders import Orders
from ckpttool.determinism.reference import Reference, known_of, saves_in
from ckpttool.determinism.running import Command, Launchers, Ran
from ckpttool.determinism.verdict import Branch, Wishes

NEW_LEG = "out"

__all__ = ["NEW_LEG", "Lab", "Reference"]


@dataclass(frozen=True, slots=True)
class Lab:
    """Where branches are run: the command, what was asked for, the folder, the run that all are compared with."""

    launchers: Launchers
    command: Command
    wishes: Wishes
    work: Path
    reference: Reference

    def branch(self, kill: Kill, name: str = "", final: Orders | None = None) -> Branch:
        """Interrupt as planned, resume, go on to the last step, compare. ``final`` are orders for the last part."""
        folder = self.work / (name or kill.name)
        try:
            return self._branch(kill, folder, final)
        finally:
            if self.wishes.tidy:
                shutil.rmtree(folder / NEW_LEG, ignore_errors=True)

    def _branch(self, kill: Kill, folder: Path, final: Orders | None) -> Branch:
        ran: list[Ran] = []
        lost = Loss()
        for place in range(len(kill.cut) + 1):
            trace = [*self.reference.ran.trace, *(p for r in ran for p in r.trace)]
            is_last = place == len(kill.cut)
            orders = self._final(final) if is_last else self._deadly(kill, place)
            orders = replace(orders, folder=folder / "trace", known=known_of(trace))
            done = [save for save in saves_in(p for r in ran for p in r.trace) if save.complete and save.path]
            last = next((s.path for s in reversed(done) if Path(s.path).exists()), "")
            resumed = place > 0 and (bool(last) or not any("{last}" in word for word in self.command.resume))
            ran.append(self.launchers.run(self.command, folder / NEW_LEG, orders, resumed=resumed, last=last))
            if failure := _failure(ran[-1], self.command.timeout, kill, is_last=is_last, first=place == 0):
                refused = place > 0 and not any(p.steps for p in ran[-1].trace) and not ran[-1].timed_out
                found = Branch(kill.cut, tuple(ran), failure=failure, kill=kill, refused=refused, broken=("recovery",))
                return _with_loss(found, lost)
            if kill.how == "power" and not is_last:
                lost = _cut_power(ran[-1])
        return _with_loss(compared(kill, tuple(ran), self.reference, self.wishes), lost)

    def _final(self, given: Orders | None) -> Orders:
        return replace(given or Orders(self.work), kill_at=self.wishes.steps)

    def _deadly(self, kill: Kill, place: int) -> Orders:
        """The orders that make a part of a branch end as planned; at the last step in any case."""
        base = Orders(self.work, last=self.wishes.steps)
        match kill.how:
            case "event":
                return replace(base, kill_in_save=kill.save, event=kill.place)
            case "byte":
                return replace(base, torn=kill.save, torn_at=kill.place)
            case "sigterm":
                return replace(base, kill_at=kill.cut[place], signal=signal.SIGTERM, grace=self.wishes.grace)
            case "again":
                once = replace(base, kill_at=kill.cut[place], signal=signal.SIGTERM, grace=self.wishes.grace)
                return replace(once, again=kill.place)
            case "power":
                return replace(base, kill_at=kill.cut[place], disk=True)
            case "rank":
                return replace(base, kill_at=kill.cut[place], only_rank=kill.place)
        return replace(base, kill_at=kill.cut[place])


def _cut_power(ran: Ran) -> Loss:
    """Take back what the processes of a run had not flushed to the disk; what that was."""
    losses = [loss_of(process.disk).there() for process in ran.trace]
    for loss in losses:
        loss.take()
    return Loss(tuple(p for loss in losses for p in loss.files), tuple(r for loss in losses for r in loss.renames))


def _with_loss(found: Branch, lost: Loss) -> Branch:
    """A branch that tells what a power cut had taken."""
    if not lost:
        return found
    if not found.failure:
        return replace(found, notes=(*found.notes, str(lost)))
    saved = max((save.number for save in saves_in(found.ran[0].trace) if save.complete), default=0)
    return replace(found, failure=f"{lost}, which costs the checkpoint of step {saved}: {found.failure}")


def _failure(ran: Ran, timeout: float, kill: Kill, *, is_last: bool, first: bool) -> str:
    """What went wrong with a part of a branch, as a sentence; empty where it ended as it should."""
    what = "the command" if first else "the resumed command"
    if ran.timed_out:
        return f"{what} did not end within {timeout:g} s"
    died = ran.was_killed_as_ordered or any(p.signalled is not None for p in ran.trace)
    if ran.status != 0 and not died:
        return f"{what} {ran.end}"
    if not first and not any(p.steps for p in ran.trace) and not died:
        return f"{what} took no step"
    return ""
