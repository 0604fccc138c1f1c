"""Which promises are kept, one by one, and what each answer rests on. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from ckpttool.determinism.branches import Reference
from ckpttool.determinism.comparing import saves_of
from ckpttool.determinism.verdict import LEVELS, Branch, Level, LevelName, Wishes


def asked(wishes: Wishes) -> tuple[LevelName, ...]:
    """The levels that have to hold."""
    return LEVELS[: LEVELS.index(wishes.level) + 1]


def levels(branches: Sequence[Branch], reference: Reference, wishes: Wishes) -> tuple[Level, ...]:
    """All five, from the narrowest on."""
    ordinary = [b for b in branches if not b.is_about_recovery]
    restarts = sum(len(b.ran) - 1 for b in ordinary if not b.failure)
    steps = sum(len(b.steps) for b in ordinary)
    failed = [b for b in ordinary if b.failure]
    found = [
        _level("boundary", ordinary, failed, restarts, f"{_many(restarts, 'load')} compared with what was saved"),
        _level("data", ordinary, failed, steps, f"the batches of {_many(steps, 'step')}"),
        _level("trajectory", ordinary, failed, steps, f"every recorded part of {_many(steps, 'step')}"),
        _artifact(ordinary, failed, reference),
        _recovery(
            branches, wishes, exact=not any("trajectory" in b.broken or "boundary" in b.broken for b in ordinary)
        ),
    ]
    return tuple(found)


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _level(name: LevelName, branches: Sequence[Branch], failed: Sequence[Branch], amount: int, basis: str) -> Level:
    broken = [b for b in branches if name in b.broken]
    if broken:
        return Level(name, "broken", f"{_many(len(broken), 'interrupted run')} of {len(branches)}: {_first(broken)}")
    if not amount:
        why = "no resume came so far" if failed else "nothing was compared"
        return Level(name, "not exercised", why)
    return Level(name, "exact", basis)


def _first(broken: Sequence[Branch]) -> str:
    return str(min(broken, key=lambda b: (len(b.cut), b.cut)).kill)


def _artifact(ordinary: Sequence[Branch], failed: Sequence[Branch], reference: Reference) -> Level:
    mine = saves_of(reference.ran.trace)
    compared = 0
    for branch in ordinary:
        theirs = saves_of(p for r in branch.ran[1:] for p in r.trace)
        compared += len(mine.keys() & theirs.keys())
    last = max((step for step, _ in mine), default=0)
    reach = "the last one among them" if reference.whole and last else "the run's end was not looked at"
    return _level("artifact", ordinary, failed, compared, f"{_many(compared, 'checkpoint')} compared, {reach}")


def _recovery(branches: Sequence[Branch], wishes: Wishes, *, exact: bool) -> Level:
    """What any kill leaves can be gone on from. How exactly is for the levels before, where they are broken already."""
    tried = [b for b in branches if b.is_about_recovery]
    ordinary = [b for b in branches if not b.is_about_recovery and b.failure]
    broken = [b for b in tried if b.failure or (exact and b.broken)] + ordinary
    if broken:
        worst = broken[0]
        text = worst.failure or "goes on, and not as the uninterrupted run does"
        count = f"{_many(len(broken), 'kill')} of {len(tried) + len(ordinary)}"
        return Level("recovery", "broken", f"{count}: {worst.kill}: {text}")
    if not wishes.kills and not wishes.power_cuts:
        return Level("recovery", "not asked", "no kills inside saves were asked for")
    if not tried:
        return Level("recovery", "not exercised", "no save could be struck")
    counts = [(sum(b.kill.how == how for b in tried), text) for how, text in _KINDS]
    kinds = ", ".join(f"{count} {text}" for count, text in counts if count)
    return Level("recovery", "exact", f"{_many(len(tried), 'kill')}: {kinds}")


_KINDS = (
    ("byte", "at bytes of a file"),
    ("event", "at file events"),
    ("sigterm", "by SIGTERM"),
    ("again", "by SIGTERM twice"),
    ("early", "before the first save"),
    ("power", "by power cuts"),
)
