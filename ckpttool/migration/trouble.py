"""The error of a plan: what cannot be done to this checkpoint, and why."""

from __future__ import annotations

from ckpttool.errors import CkpttoolError


class MigrationError(CkpttoolError):
    """A migration cannot be planned: the message names the keys concerned, and what to do or to run next."""
