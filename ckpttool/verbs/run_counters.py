"""How far training was, by the counters that a checkpoint holds."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ckpttool.errors import CkpttoolError
from ckpttool.formats import describe
from ckpttool.profiles import lay_out
from ckpttool.tree import number

_COARSE = ("epoch",)


def counts_inside(targets: Sequence[str]) -> dict[str, int]:
    """The whole numbers of a checkpoint's counters by their last key, steps before epochs; empty for a bad file.

    Costs reading the headers.
    """
    found: dict[str, int] = {}
    for target in targets:
        try:
            checkpoint = describe(target)
            sections = [s for s in lay_out(checkpoint).sections if s.name == "counters" and s.path]
        except CkpttoolError:
            continue
        for section in sections:
            value = number(checkpoint, section.index)
            if value is not None and math.isfinite(value) and value >= 0 and value == int(value):
                found.setdefault(section.path[-1], int(value))
    return dict(sorted(found.items(), key=lambda item: any(word in item[0] for word in _COARSE)))
