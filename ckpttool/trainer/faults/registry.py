"""What a fault is, how one registers, and when it strikes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from ckpttool import CheckpointStore, UsageError
from ckpttool.trainer.data import Chosen, Plan, Position
from ckpttool.trainer.state import TrainState
from ckpttool.trainer.tasks import TaskParts


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault: what it stands for, when it strikes, what differs first, when the loss does, and what it does."""

    name: str
    causes: str
    first: str
    loss: str
    when: str
    act: Callable[..., Any]


FAULTS: dict[str, Fault] = {}


def fault(
    name: str, causes: str, first: str, loss: str, when: str = "resume"
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the decorated function; the first line of its docstring says what it is like."""

    def register(act: Callable[..., Any]) -> Callable[..., Any]:
        FAULTS[name] = Fault(name, causes, first, loss, when, act)
        return act

    return register


class Faults:
    """The faults that were asked for, ready to strike. Raises ``UsageError`` for a name that is none."""

    def __init__(self, names: str) -> None:
        self.names = [name.strip() for name in names.split(",") if name.strip()]
        for name in self.names:
            if name not in FAULTS:
                near = get_close_matches(name, FAULTS, 1)
                hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(FAULTS)}"
                raise UsageError(f"inject – no fault is called '{name}'; {hint}")
        self.ignore_checkpoints = "checkpoints-ignored" in self.names
        self.resumed = False

    def after_resume(self, state: TrainState, parts: TaskParts) -> None:
        """Strike at what was just restored, or at the start of a run that was not."""
        self.resumed = state.counters.resumes > 0
        if self.resumed:
            self.strike("restart", state)
        self.strike("start", state)
        if self.resumed:
            self.strike("resume", state)
            self.strike("data", parts)
        if state.counters.resumes > 1:
            self.strike("second resume", state)

    def order(self, plan: Plan, at: Position) -> Iterator[Chosen]:
        """What the data stream yields from a position on."""
        for found in self._found("order"):
            if self.resumed:
                return iter(found.act(plan, at))
        for found in self._found("every order"):
            return iter(found.act(plan, at))
        return plan.batches_from(at)

    def micro_step(self, state: TrainState) -> None:
        """Once, after the first micro-batch that follows a resume."""
        if self.resumed:
            self.strike("micro-step", state)
            self.resumed = False

    def after_save(self, store: CheckpointStore) -> None:
        """Strike at what was just written."""
        self.strike("saved", store)

    def strike(self, when: str, target: object) -> None:
        """All that strike at this time do."""
        for found in self._found(when):
            found.act(target)

    def _found(self, when: str) -> list[Fault]:
        return [FAULTS[name] for name in self.names if FAULTS[name].when == when]


def need(there: object, what: str) -> None:
    """Raise ``UsageError`` where a run has nothing that a fault could break: it would look harmless."""
    if not there:
        raise UsageError(f"inject – this run has no {what}, so the fault would break nothing")
