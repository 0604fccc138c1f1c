"""pytest: the fixture ``resume_check`` and ``--resume-cuts N``. Where neither is used, nothing is imported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pytest

if TYPE_CHECKING:
    from ckpttool.determinism.cuts import Cut
    from ckpttool.determinism.in_process import Level
    from ckpttool.determinism.trainee import Factory

CUTS = 6
"""Interruptions that are tried where neither the test nor the command line says how many."""

ResumeCheck: TypeAlias = Callable[..., None]


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--resume-cuts N``: how many interruptions each ``resume_check`` tries; 0 skips those tests."""
    group = parser.getgroup("ckpttool")
    group.addoption(
        "--resume-cuts",
        type=_count,
        metavar="N",
        help="Interruptions that each resume_check tries, beside those that a test names; 0 skips these tests.",
    )
    group.addoption(
        "--resume-seed", type=int, default=0, metavar="N", help="Of the interruptions that are drawn at random."
    )


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError(text)
    return number


@pytest.fixture
def resume_check(request: pytest.FixtureRequest, tmp_path: Path) -> ResumeCheck:
    """Fail unless a training that is interrupted and resumed equals one that is not, step by step, bit for bit.

    ``resume_check(factory, steps=20)`` for a ``Trainee`` in this process (``ckpttool.testing.assert_resume_exact``), or
    ``resume_check([sys.executable, "train.py", "--out", "{out}"], steps=60)`` for a command, which is killed for real
    (``ckpttool determinism check``). ``cuts`` is a number or a list of steps; ``--resume-cuts N`` replaces a number and
    adds to a list. Checkpoints, and a command's traces, stay in the test's own folder.
    """
    wanted: int | None = request.config.getoption("resume_cuts")
    seed: int = request.config.getoption("resume_seed")
    if wanted == 0:
        pytest.skip("--resume-cuts 0")
    folder = tmp_path / "resume"

    def check(
        training: Factory | Sequence[str],
        *,
        steps: int,
        cuts: int | Sequence[int | Cut] = CUTS,
        level: Level = "boundary",
        resume: Sequence[str] = (),
    ) -> None:
        __tracebackhide__ = True
        if callable(training):
            _in_process(training, folder, steps, cuts, wanted, seed, level)
        else:
            _command(training, folder, steps, cuts if wanted is None else wanted, seed, resume)

    return check


def _in_process(
    factory: Factory, folder: Path, steps: int, cuts: int | Sequence[int | Cut], wanted: int | None, seed: int,
    level: Level,
) -> None:  # fmt: skip
    __tracebackhide__ = True
    from ckpttool.determinism.in_process import choose_cuts
    from ckpttool.testing.resume import assert_resume_exact

    if wanted is not None:
        named = () if isinstance(cuts, int) else cuts
        cuts = [*named, *choose_cuts(steps, wanted, seed)]
    assert_resume_exact(factory, steps=steps, cuts=cuts, seed=seed, level=level, folder=folder)


def _command(
    words: Sequence[str], folder: Path, steps: int, cuts: int | Sequence[int | Cut], seed: int, resume: Sequence[str]
) -> None:  # fmt: skip
    __tracebackhide__ = True
    from ckpttool.determinism.check import Wishes, check
    from ckpttool.determinism.reporting import report
    from ckpttool.determinism.running import Command
    from ckpttool.render import render

    if not isinstance(cuts, int):
        raise pytest.UsageError("a command's cuts are a number: which steps can be resumed is seen from its saves")
    found = check(Command(tuple(words), tuple(resume)), Wishes(steps, cuts, seed=seed, power=False), folder)
    if found.status != "exact":
        pytest.fail(render(report(found, " ".join(words)), "text", width=100), pytrace=False)
