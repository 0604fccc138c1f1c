"""A Hypothesis state machine: training, saves, crashes and resumes in any order equal one plain run."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import ClassVar

from hypothesis import HealthCheck, Phase, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from ckpttool.determinism.comparing import departure
from ckpttool.determinism.in_process import Finding, Level, Proof, Reference, not_restored
from ckpttool.determinism.trainee import Factory, Fields, Life, recorded
from ckpttool.testing.resume import explain

MOVES = 16
"""Moves of one sequence at most: what fails after more of them fails after fewer."""


class ResumeMachine(RuleBasedStateMachine):
    """Steps, saves, crashes and resumes in any order. Set ``factory``, and take ``TestCase`` as a test.

    Rules: ``train`` some steps, ``save``, ``crash`` (what was not saved is lost; a fresh trainee loads the newest
    checkpoint, or starts anew where there is none), ``resume_older`` from any checkpoint, and where the trainee has
    them ``evaluate`` and ``change_workers``. Throughout, every step equals the one of the same number in an
    uninterrupted run, and what is loaded is what was saved (``level="trajectory"`` leaves that out). A failure is
    shrunk to the shortest sequence that still shows it. Costs two runs of ``steps`` steps once, then at most ``steps``
    steps between two crashes.
    """

    factory: ClassVar[Factory]
    steps: ClassVar[int] = 12
    level: ClassVar[Level] = "boundary"
    _references: ClassVar[dict[object, Reference]] = {}

    def __init__(self) -> None:
        super().__init__()
        made = type(self).factory
        key = (type(self), made)
        if key not in self._references:
            self._references[key] = Reference(made, self.steps)
        self.reference = self._references[key]
        if self.reference.odd is not None:
            found = Finding("not-reproducible", (), self.reference.odd)
            raise AssertionError(explain(Proof(self.steps, (), self.reference.steps, (found,))))
        self.folder = Path(tempfile.mkdtemp(prefix="ckpttool-resume-"))
        self.saved: list[tuple[Path, int, Fields]] = []
        self.life: Life = self.reference.life()
        self.cuts: tuple[int, ...] = ()

    def teardown(self) -> None:
        """Remove the checkpoints."""
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder, ignore_errors=True)

    @rule(count=st.integers(1, 4))
    def train(self, count: int) -> None:
        """Take steps, each equal to the one of the uninterrupted run; at its end there is nothing left to do."""
        for _ in range(min(count, self.steps - self.life.done)):
            number = self.life.done + 1
            odd = departure(self.reference.steps, {number: recorded(number, self.life.step())})
            if odd is not None:
                self._fail(f"step {number} is not that of the uninterrupted run", odd.fields)

    @precondition(lambda self: self.life.done > 0)
    @rule()
    def save(self) -> None:
        """Write a checkpoint."""
        path = self.folder / f"{len(self.saved)}-step-{self.life.done}.pt"
        was = self.life.state()
        self.life.save(path)
        self.saved.append((path, self.life.done, was))

    @rule()
    def crash(self) -> None:
        """Lose the process, and go on from the newest checkpoint in a new one."""
        self._resume(len(self.saved) - 1)

    @precondition(lambda self: len(self.saved) > 1)
    @rule(data=st.data())
    def resume_older(self, data: st.DataObject) -> None:
        """Lose the process, and go on from any checkpoint: the newest was deleted, say."""
        self._resume(data.draw(st.integers(0, len(self.saved) - 1), "checkpoint"))

    def _resume(self, place: int) -> None:
        self.life = self.reference.life()
        if place < 0:
            return
        path, step, was = self.saved[place]
        self.life.load(path, step)
        self.cuts = (*self.cuts, step)
        lost = not_restored(self.reference, was, self.life.state())
        if lost and self.level == "boundary":
            self._fail(f"what was loaded is not what was saved after step {step}", lost)

    def _fail(self, text: str, fields: tuple[str, ...]) -> None:
        past = f" (resumed from step {', then '.join(map(str, self.cuts))})" if self.cuts else ""
        raise AssertionError(f"{text}{past}: {', '.join(fields)}")

    @precondition(lambda self: callable(getattr(self.life.trainee, "evaluate", None)))
    @rule()
    def evaluate(self) -> None:
        """Evaluate; this must not be seen in what follows."""
        self.life.call("evaluate")

    @precondition(lambda self: callable(getattr(self.life.trainee, "change_workers", None)))
    @rule(number=st.integers(0, 3))
    def change_workers(self, number: int) -> None:
        """Go on with another number of workers; this must not be seen in what follows."""
        self.life.call("change_workers", number)


def check_resume_machine(factory: Factory, *, steps: int = 12, examples: int | None = None, moves: int = MOVES) -> None:
    """Run a ``ResumeMachine`` on trainees of a factory; ``examples`` sequences (default: the profile's) of ``moves``.

    Raises ``AssertionError`` for the shortest sequence of steps, saves, crashes and resumes that is not exact.
    """
    machine = type("Machine", (ResumeMachine,), {"factory": staticmethod(factory), "steps": steps})
    chosen = settings(
        deadline=None,
        suppress_health_check=list(HealthCheck),
        stateful_step_count=moves,
        # Explaining which moves do not matter costs more runs than finding and shrinking them.
        phases=[phase for phase in Phase if phase != Phase.explain],
    )
    if examples is not None:
        chosen = settings(chosen, max_examples=examples)
    run_state_machine_as_test(machine, settings=chosen)
