"""Further runs once something was found: the smallest cut, its first element, what would be seen."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from ckpttool.determinism.branches import NEW_LEG, Lab
from ckpttool.determinism.comparing import STEPPED
from ckpttool.determinism.cuts import Kill
from ckpttool.determinism.leaves import Leaf, first_difference
from ckpttool.determinism.orders import Orders
from ckpttool.determinism.trace import Process, Step, component_of
from ckpttool.determinism.verdict import Branch, Detail

Say = Callable[[str], None]

POWER = ("optimizer", "rng", "buffers", "lr")
ALSO = ("scheduler", "scaler")
"""Parts that are broken on purpose where a training has them. Not averages: no training feels them."""

MOST_SHRINKS = 6
COUNTS = ("n_averaged", "num_batches_tracked")
"""Counters that are tensors: of several many are equal."""


# --- the smallest failing cut ------------------------------------------------------------------------------------


def smallest(lab: Lab, branches: Sequence[Branch], say: Say) -> tuple[tuple[Branch, ...], str]:
    """The branches with those that were run to find a smaller failing cut, and a sentence on what was found.

    Single cuts between the last that is known to be exact and the first that fails are halved.
    """
    found = list(branches)
    worst = _smallest_of(found)
    if worst is None:
        return tuple(found), ""
    if len(worst.cut) > 1:
        for step in worst.cut:
            if not any(b.cut == (step,) for b in found):
                found.append(_tried(lab, step, say))
        worst = _smallest_of(found) or worst
        if len(worst.cut) > 1:
            first, second = worst.cut[:2]
            return tuple(
                found
            ), f"one resume is exact; after step {first}, then {second}, the resume of a resume is not"
    low, saved = _start(lab), {b.cut[0] for b in found if _is_good(b)}
    for _ in range(MOST_SHRINKS):
        below = max((step for step in saved if step < worst.cut[0]), default=low - 1)
        if worst.cut[0] - below <= 1:
            break
        tried = _tried(lab, (below + worst.cut[0]) // 2, say)
        found.append(tried)
        if _is_bad(tried):
            worst = tried
        else:
            saved.add(tried.cut[0])
    good = max((step for step in saved if step < worst.cut[0]), default=None)
    end = "" if good is None else f"; killed after step {good} it is exact"
    return tuple(found), f"the smallest cut that fails: after step {worst.cut[0]}{end}"


def _tried(lab: Lab, step: int, say: Say) -> Branch:
    say(f"shrinking: after step {step}")
    return lab.branch(Kill((step,), "shrinking"))


def _start(lab: Lab) -> int:
    return min((s.number for s in lab.reference.saves if s.number), default=0) + 1


def _is_bad(branch: Branch) -> bool:
    return bool(branch.broken or branch.failure)


def _is_good(branch: Branch) -> bool:
    return len(branch.cut) == 1 and branch.kill.how == "step" and not _is_bad(branch)


def _smallest_of(branches: Sequence[Branch]) -> Branch | None:
    bad = [b for b in branches if b.kill.how == "step" and _is_bad(b)]
    return min(bad, key=lambda b: (len(b.cut), b.cut), default=None)


# --- pictures --------------------------------------------------------------------------------------------------------


def _pictures(lab: Lab, steps: tuple[int, ...]) -> Path:
    """A run of the reference that writes its state out after these steps; the folder."""
    place = lab.work / f"pictures-{'-'.join(map(str, steps))}"
    if not place.exists():
        orders = Orders(place / "trace", kill_at=max(steps), snapshots=steps)
        lab.launchers.run(lab.command, place / NEW_LEG, orders)
    return place / "trace"


# --- the smallest difference -----------------------------------------------------------------------------------------


def detail(lab: Lab, worst: Branch, say: Say) -> Detail | None:
    """Tensor by tensor at the first place where the two runs differ, then the first element, and what it equals."""
    found = worst.departure
    process = _resumed(worst)
    if found is None or process is None or process.base is None:
        return None
    at_load = _odd_at_load(lab, worst, process)
    if at_load:
        say("a closer look at what was loaded")
        where = f"right after the load of step {process.base}"
        return _looked(lab, worst, where, at_load, process.base, "first", _equals(lab, process, at_load))
    kinds = {component_of(name) for name in found.fields} & {"gradients", *STEPPED}
    if not kinds:
        return None
    say(f"a closer look at step {found.step}")
    return _looked(lab, worst, f"after step {found.step}", (), found.step, str(found.step), ())


def _resumed(branch: Branch) -> Process | None:
    rank = branch.departure.rank if branch.departure else 0
    mine = [p for r in branch.ran[1:] for p in r.trace if p.rank == rank and p.base is not None and p.state]
    return mine[-1] if mine else None


def _saved_live(lab: Lab, base: int) -> Mapping[str, str]:
    return next((s.live for s in reversed(lab.reference.saves) if s.number == base and s.live), {})


def _odd_at_load(lab: Lab, worst: Branch, process: Process) -> tuple[str, ...]:
    """The tensors that are not what they were when they were saved."""
    live = _saved_live(lab, process.base or 0)
    if not live or not worst.boundary or process.state is None:
        return ()
    now, kinds = process.state.tensors, {component_of(n) for n in worst.boundary}
    names = [n for n in dict.fromkeys([*live, *now]) if component_of(n) in kinds]
    return tuple(n for n in names if live.get(n) != now.get(n))


def _equals(lab: Lab, process: Process, names: Sequence[str]) -> tuple[str, ...]:
    """Whose saved content each of some tensors has, as sentences: another tensor's, or its own of another step."""
    assert process.state is not None
    found = []
    for name in names:
        digest = process.state.tensors.get(name, "")
        places = (
            [place for place in _places(lab, digest, process.base or 0) if _alike(name, place[1])] if digest else []
        )
        if places:
            number, other = places[0]
            step = "" if number == process.base else f" of step {number}"
            found.append(f"{name} equals the saved {other}{step}")
    return tuple(found[:8])


def _alike(name: str, other: str) -> bool:
    """Whether an equal value says something: two tensors, or the same thing at another time; not two small numbers."""
    tensors = ("params", "buffers", "optimizer", "ema")
    if component_of(name) in tensors:
        return component_of(other) in tensors and name.rpartition(".")[2] not in COUNTS
    return name == other


def _places(lab: Lab, digest: str, base: int) -> Iterator[tuple[int, str]]:
    """The steps and names under which a digest was saved, those of the right step first."""
    for save in sorted(lab.reference.saves, key=lambda s: s.number != base):
        yield from ((save.number, name) for name, saved in save.live.items() if saved == digest)


def _looked(
    lab: Lab, worst: Branch, where: str, names: tuple[str, ...], step: int, picture: str, equals: tuple[str, ...]
) -> Detail:  # fmt: skip
    """Two pictures of the state, compared by their bytes."""
    rank = worst.departure.rank if worst.departure else 0
    mine = _read(_pictures(lab, (step,)) / f"tensors-{rank}-{step}.bin")
    orders = Orders(lab.work, first=True, snapshots=(step,))
    again = lab.branch(worst.kill, "closer", orders)
    theirs = _read(lab.work / "closer" / "trace" / f"tensors-{rank}-{picture}.bin")
    if not mine or not theirs or again.failure:
        return Detail(where, names, None, equals)
    shown = [n for n in (names or mine) if n in mine or n in theirs]
    if picture == "first":
        shown = [n for n in shown if component_of(n) != "gradients"]
    odd = tuple(n for n in dict.fromkeys([*shown, *(theirs if not names else ())]) if mine.get(n) != theirs.get(n))
    order = {"gradients": 0, "optimizer": 1, "params": 2, "buffers": 3}
    ranked = sorted(odd, key=lambda n: order.get(component_of(n), 9))
    element = first_difference({n: mine[n] for n in ranked if n in mine}, {n: theirs[n] for n in ranked if n in theirs})
    return Detail(where, tuple(ranked) or names, element, equals)


def _read(path: Path) -> dict[str, Leaf]:
    """The tensors of a picture that a recorder made; none where it made none."""
    try:
        with path.open("rb") as file:
            head = json.loads(file.readline())
            return {name: Leaf(kind, tuple(shape), file.read(size)) for name, kind, shape, size in head}
    except (OSError, ValueError):
        return {}


# --- power -----------------------------------------------------------------------------------------------------------


def power(lab: Lab, branches: Sequence[Branch], say: Say) -> tuple[str, ...]:
    """The parts whose loss after a resume would change nothing that is recorded of the later steps."""
    kill = next((b.kill for b in branches if len(b.cut) == 1 and b.kill.how == "step"), None)
    if kill is None:
        return ()
    fields = {component_of(name) for step in lab.reference.steps.values() for name in step.fields}
    silent = []
    for part in (*POWER, *(name for name in ALSO if name in fields)):
        say(f"power: {part} broken on purpose")
        tried = lab.branch(kill, f"without-{part}", Orders(lab.work, drop=part))
        if not tried.failure and ("trajectory" not in tried.broken or _only(part, tried, lab.reference.steps)):
            silent.append(part)
    return tuple(silent)


def _only(part: str, tried: Branch, reference: Mapping[int, Step]) -> bool:
    """Whether nothing but the broken part itself is ever different: training does not feel it."""
    for number in reference.keys() & tried.steps.keys():
        mine, theirs = reference[number].fields, tried.steps[number].fields
        if any(component_of(n) != part for n in mine if theirs.get(n) != mine[n]):
            return False
    return True
