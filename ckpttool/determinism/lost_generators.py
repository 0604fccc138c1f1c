"""Rules on generators that stand elsewhere, while batches agree. Pure."""

from __future__ import annotations

from ckpttool.determinism.cases import Case, Cause, listed
from ckpttool.determinism.comparing import located

LAST = "restore the generators as the very last thing before the loop, after loaders and iterators are made"
ALL = "save the states of random, numpy and torch, and restore them as the very last thing before the loop"
EACH = "save the generators of every process, and restore each one's own"


def generators(case: Case) -> Cause | None:
    """Batches agree and generators do not."""
    odd = case.differs("rng")
    if not odd or case.differs("data"):
        return None
    kinds = ", ".join(name.partition(".")[2] for name in odd)
    if (cause := _of_another_rank(case, odd, kinds)) is not None:
        return cause
    if (cause := _seeded(case, odd, kinds)) is not None:
        return cause
    step = case.departure.step
    if step > case.base + 1:
        message = f"the generators of {kinds} agree until step {step - 1}: something between two steps draws otherwise"
        remedy = "look at what is done before that step: a save, an evaluation"
        return Cause("rng-drifts", "rng", message, kinds, remedy)
    return _drawn(case, odd, kinds) or _lost(case, kinds)


def _of_another_rank(case: Case, odd: tuple[str, ...], kinds: str) -> Cause | None:
    """Two processes that drew each for itself draw the same after the resume."""
    step, rank = case.departure.step, case.departure.rank
    now = [case.fields(step).get(name) for name in odd]
    for peer in case.peers:
        theirs, before = peer.branch.get(step), peer.reference.get(step)
        if theirs is None or before is None or now != [theirs.fields.get(name) for name in odd]:
            continue
        if all(before.fields.get(n) != case.reference[step].fields.get(n) for n in odd if step in case.reference):
            message = f"the generators of rank {rank} ({kinds}) equal those of rank {peer.rank}, and did not before"
            return Cause("rank-rng-copied", "rng", message, f"{kinds} of ranks {rank} and {peer.rank}", EACH)
    return None


def _seeded(case: Case, odd: tuple[str, ...], kinds: str) -> Cause | None:
    """Generators that stand where a seed has put them, or where they stood at the very first step."""
    state, start = case.resumed.state, case.start
    now = "" if state is None else state.fields.get("rng.torch", "")
    seen = located(case.reference, case.fields(case.departure.step).get(odd[0], ""), odd[0])
    anew = "rng.torch" in odd and now in case.resumed.seeds and now not in case.resumed.restored
    again = bool(seen and seen[0] == 1) or (anew and start is not None and now in start.seeds)
    if not anew and not again:
        return None
    right = [peer.rank for peer in case.peers if not _odd_in(case, peer.rank, odd)]
    if anew and right:
        rank = case.departure.rank
        message = (
            f"the generators of rank {rank} ({kinds}) were seeded anew, and those of rank {listed(right)} restored"
        )
        return Cause("rank-rng-lost", "rng", message, kinds, EACH)
    if again:
        message = (
            f"the generators of {kinds} stand where the run began: the seed was set again after the restore, or "
            "instead of it, and the draws of step 1 come again"
        )
        return Cause("rng-reseeded", "rng", message, kinds, "seed first, restore the generators last")
    message = f"the generators of {kinds} stand right after a seed was set that is not the one the run began with"
    return Cause("rng-seeded-anew", "rng", message, kinds, ALL)


def _odd_in(case: Case, rank: int, names: tuple[str, ...]) -> bool:
    """Whether these generators are not right in another process, at the same step."""
    peer = next(p for p in case.peers if p.rank == rank)
    theirs, before = peer.branch.get(case.departure.step), peer.reference.get(case.departure.step)
    return theirs is None or before is None or any(theirs.fields.get(n) != before.fields.get(n) for n in names)


def _drawn(case: Case, odd: tuple[str, ...], kinds: str) -> Cause | None:
    """Restored as they were saved, and drawn from since."""
    state = case.resumed.state
    now = "" if state is None else state.fields.get("rng.torch", "")
    saved = set(case.saved.leaves.values()) if case.saved is not None else set()
    right = [digest for digest in case.resumed.restored if digest in saved]
    if "rng.torch" not in odd or not right or now in right:
        return None
    message = (
        f"the generator of torch was restored as it was saved after step {case.base}, "
        "and drawn from before the first step"
    )
    return Cause("rng-drawn", "rng", message, kinds, LAST)


def _lost(case: Case, kinds: str) -> Cause:
    message = (
        f"the generators of {kinds} are not where they were after step {case.base}: "
        "not saved, not restored, or drawn from before the first step"
    )
    return Cause("rng-lost", "rng", message, kinds, ALL)
