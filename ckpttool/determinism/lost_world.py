"""The rule on another number of processes: a weaker promise, and whether that one is kept. Pure."""

from __future__ import annotations

import struct

from ckpttool.determinism.cases import Case, Cause, many
from ckpttool.determinism.cuts import samples_of

FIELD = "environment.world_size"


def world(case: Case) -> Cause | None:
    """As many processes saved, others go on: the samples of every step are compared over all of them."""
    if FIELD not in case.boundary or case.start is None:
        return None
    was, now = (int(p.environment.get("world_size") or 1) for p in (case.start, case.resumed))
    text = f"{many(was, 'process', 'processes')} saved, {now} {'goes' if now == 1 else 'go'} on"
    step = _first_other_samples(case)
    if step is not None:
        mine, theirs = (samples_of(run[step]) if step in run else () for run in (case.branch, case.reference))
        left, more = len(set(theirs) - set(mine)), len(set(mine) - set(theirs))
        message = f"{text}, and step {step} trained other samples: {left} of it are missing, {more} are not of it"
        remedy = "save the position in samples over all processes, and share every global batch among those there are"
        return Cause("world-size-data", "data", message, f"{was} and {now} processes, step {step}", remedy)
    step = case.departure.step
    rest = [name for name in case.boundary if name != FIELD]
    state = "state exact at the boundary" if not rest else "the state is another one too"
    if not any(name == "params" for one in case.reference.values() for name in one.fields):
        state += " (tensors that are spread over processes are cut otherwise now, and were not compared)"
    known = any(name.startswith("data") for name in case.fields(step))
    same = "the same samples in every step" if known else "samples not recorded"
    message = (
        f"{text}: sums are formed in another order. The weaker promise: {state}, {same}, "
        f"numbers drift from step {step} on{_apart(case, step)}"
    )
    remedy = f"for equal bits go on with {many(was, 'process', 'processes')}; with another number ask for --level data"
    return Cause("world-size-changed", "environment", message, f"world_size was {was}, is {now}", remedy)


def _first_other_samples(case: Case) -> int | None:
    """The first step whose samples, over all processes, are not those of the uninterrupted run."""
    for number in sorted(case.reference.keys() & case.branch.keys()):
        mine, theirs = (run[number].fields.get("data.samples") for run in (case.branch, case.reference))
        if mine != theirs:
            return number
    return None


def _apart(case: Case, step: int) -> str:
    """How far the losses of a step are apart, in numbers of single precision."""
    losses = [run[step].loss if step in run else None for run in (case.reference, case.branch)]
    if None in losses:
        return ""
    one, two = (_place(loss) for loss in losses if loss is not None)
    return f" (its loss by {abs(one - two)} ulp)"


def _place(number: float) -> int:
    """A number's place among those of single precision."""
    (bits,) = struct.unpack("<i", struct.pack("<f", number))
    return int(bits) if bits >= 0 else -(int(bits) & 0x7FFFFFFF)
