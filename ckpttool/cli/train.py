"""``ckpttool train``."""

from __future__ import annotations

from ckpttool.trainer.options import command

__all__ = ["command"]
