"""Does interrupted, then resumed equal uninterrupted? Recorded, compared, and the cause named.

>>> from ckpttool.determinism import Recorder
>>> Recorder.from_env()  # where nothing is recorded: does nothing, and loads nothing  # doctest: +SKIP

Names are loaded when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ckpttool.determinism.trainee import Trainee as Trainee
    from ckpttool.determinism.watching import Recorder as Recorder

_HOMES = {"Recorder": "ckpttool.determinism.watching", "Trainee": "ckpttool.determinism.trainee"}

__all__ = ["Recorder", "Trainee"]


def __getattr__(name: str) -> object:
    """Load a public name from where it lives (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
