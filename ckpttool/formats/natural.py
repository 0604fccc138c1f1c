"""The order in which people count: ``step-9`` before ``step-10``."""

from __future__ import annotations

import re

_DIGITS = re.compile(r"(\d+)", re.ASCII)


def natural(text: str) -> list[tuple[int, int, str]]:
    """A sort key that compares runs of digits as numbers."""
    parts = _DIGITS.split(text)
    # A run of thousands of digits is no number; int() would refuse it.
    return [(0, int(p), "") if i % 2 and len(p) <= 100 else (1, 0, p) for i, p in enumerate(parts)]
