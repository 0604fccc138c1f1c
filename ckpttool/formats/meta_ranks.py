"""Which parts a model-parallel Llama of Meta should have, by those that it has. Pure.

Source: meta-llama/llama ``generation.py`` (``Llama.build``): rank n loads the n-th of ``consolidated.*.pth``, and there
are as many as ranks. Nothing in them says how many.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from ckpttool.model import Damage
from ckpttool.units import plural

_PART = re.compile(r"consolidated\.(\d{1,5})\.pth")


def missing_parts(names: Iterable[str]) -> Iterator[Damage]:
    """The parts below the highest number that are not there; those above it nothing tells of."""
    found = {int(match[1]): name for name in names if (match := _PART.fullmatch(name))}
    gone = [rank for rank in range(max(found, default=-1) + 1) if rank not in found]
    if gone:
        message = (
            f"not there: the parts' numbers say {plural(max(found) + 1, 'rank')}, and {len(found)} of their files are "
            "here"
        )
        yield Damage(
            "missing-shard",
            f"consolidated.{gone[0]:02}.pth",
            message,
            {"ranks": max(found) + 1, "missing": [*gone[:20]]},
        )
