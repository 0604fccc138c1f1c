"""What stops a migration."""

from __future__ import annotations

from ckpttool.errors import CkpttoolError


class MigrationError(CkpttoolError):
    """A migration cannot be planned on this checkpoint: the text says where, what is wrong and what to run next."""
