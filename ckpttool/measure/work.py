"""Doing one work unit, the fastest way at hand: compiled where that was built, else with NumPy."""

from __future__ import annotations

from ckpttool.errors import Unreadable
from ckpttool.measure import native
from ckpttool.measure.outcome import Outcome
from ckpttool.measure.plan import Sweep, Unit


def run(unit: Unit) -> Outcome:
    """Do a unit's work. What cannot be read is missing from the outcome; nothing is raised for it."""
    try:
        found = native.sweep(unit) if isinstance(unit, Sweep) else None
        if found is not None:
            return found
        # Loading NumPy takes longer than verifying a small checkpoint, and mostly nothing needs it.
        from ckpttool.measure import sweep

        return sweep.sweep(unit) if isinstance(unit, Sweep) else sweep.gather(unit)
    except Unreadable as error:
        return Outcome(unit.place.source, nbytes=unit.nbytes, failure=error.why)
