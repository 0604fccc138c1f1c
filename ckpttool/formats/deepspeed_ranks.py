"""Which files a DeepSpeed checkpoint should have, by those that it has. Pure.

Source: DeepSpeed 0.19 ``engine.py`` (``_get_zero_ckpt_name``): each data-parallel rank writes its part of the
optimizer's state, for each model-parallel rank.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from ckpttool.model import Checkpoint, Damage
from ckpttool.tree import lookup, number
from ckpttool.units import plural

_PART = re.compile(r"(.*zero_pp_rank_)(\d+)(_mp_rank_(\d+)\w*_states\.pt)")


def missing_ranks(names: Iterable[str], world: int | None) -> Iterator[Damage]:
    """The parts of ranks that are not there: every rank below ``world``, or below the highest one that is there.

    Several kinds of files (model, optimizer) and model-parallel ranks are looked at each on its own.
    """
    found: dict[tuple[str, str], set[int]] = {}
    for name in names:
        match = _PART.fullmatch(name)
        if match:
            found.setdefault((match[1], match[3]), set()).add(int(match[2]))
    highest = max((max(ranks) for ranks in found.values()), default=-1)
    wanted = max(highest + 1, world or 0)
    for (before, after), ranks in sorted(found.items()):
        gone = [rank for rank in range(min(wanted, 1 << 16)) if rank not in ranks]
        if gone:
            where = f"{before}{gone[0]}{after}"
            said = "dp_world_size says" if world == wanted else "the ranks' numbers say"
            message = f"not there: {said} {plural(wanted, 'rank')}, and {len(ranks)} of their files are here"
            yield Damage("missing-shard", where, message, {"ranks": wanted, "missing": [*gone[:20]]})


def world_size(parts: Iterable[Checkpoint]) -> int | None:
    """The number of data-parallel ranks that the model's file records."""
    for part in parts:
        size = number(part, lookup(part, part.root, "dp_world_size"))
        if isinstance(size, int) and 0 < size <= 1 << 16:
            return size
    return None
