"""For tests, ours and yours: strategies that make checkpoints, faults that break them, a suite for formats.

- ``ckpttool.testing.strategies``: Hypothesis strategies, from dtypes to whole checkpoints.
- ``ckpttool.testing.faults``: every known way to break a checkpoint, each with its rule.
- ``ckpttool.testing.conformance``: what every format reader has to keep, as a base class for tests.
- ``ckpttool.testing.samples``, ``writers``, ``plain``, ``edit``: sound files without torch, and their making.
- ``assert_checkpoints_equal``: an assertion whose failure message says what changed.
- ``assert_resume_exact``, ``ResumeMachine``, ``check_resume_machine``: a training that is interrupted and resumed
  equals one that is not. Loaded when they are first used: the machine needs Hypothesis.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ckpttool.testing.assertions import assert_checkpoints_equal

if TYPE_CHECKING:
    from ckpttool.testing.resume import assert_resume_exact as assert_resume_exact
    from ckpttool.testing.resume_machine import (
        ResumeMachine as ResumeMachine,
        check_resume_machine as check_resume_machine,
    )

_HOMES = {
    "ResumeMachine": "ckpttool.testing.resume_machine",
    "assert_resume_exact": "ckpttool.testing.resume",
    "check_resume_machine": "ckpttool.testing.resume_machine",
}

__all__ = ["ResumeMachine", "assert_checkpoints_equal", "assert_resume_exact", "check_resume_machine"]


def __getattr__(name: str) -> object:
    """Load a public name from where it lives (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
