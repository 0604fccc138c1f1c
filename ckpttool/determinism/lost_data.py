"""Rules on batches that are not those of the uninterrupted run: where they belong says what was forgotten. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from ckpttool.determinism.cases import Case, Cause, listed, many
from ckpttool.determinism.comparing import located
from ckpttool.determinism.cuts import epochs, samples_of
from ckpttool.determinism.lost_contents import contents
from ckpttool.determinism.trace import Step

POSITION = "save the epoch and the position in it, and make the order a function of seed and epoch"
NEAR = 8
"""Batches by which a position is off when batches were counted wrong, rather than an epoch."""


def data(case: Case) -> Cause | None:
    """Other batches, of other samples or with other contents."""
    odd = case.differs("data")
    if not odd:
        return None
    step = case.departure.step
    if odd == ("data",) and "data.ids" in case.fields(step):
        return contents(case, step)
    field = "data.ids" if "data.ids" in odd else "data"
    digest = case.fields(step).get(field, "")
    if (cause := _of_another_rank(case, step, digest, field)) is not None:
        return cause
    seen = located(case.reference, digest, field)
    if seen:
        return _elsewhere(case, step, seen, field)
    return _mixture(case, step) or _unseen(case, step)


def _of_another_rank(case: Case, step: int, digest: str, field: str) -> Cause | None:
    """The very batch that another process has to train at this step."""
    owner = next((p.rank for p in case.peers if (s := p.reference.get(step)) and s.fields.get(field) == digest), None)
    if owner is None or not digest:
        return None
    rank = case.departure.rank
    count = len(samples_of(case.branch[step])) if step in case.branch else 0
    never = f"; {many(count, 'sample')} of its own are not trained in this step" if count else ""
    message = f"step {step}: rank {rank} trained the samples of rank {owner}{never}"
    remedy = "give the sampler its rank and the number of processes again after the resume, set_epoch included"
    return Cause("rank-data-copied", "data", message, f"the batch of rank {owner} at step {step}", remedy)


def _elsewhere(case: Case, step: int, seen: list[int], field: str) -> Cause:
    """The batch of another step: the beginning, the beginning of an epoch, an epoch further, a few batches off."""
    starts = epochs(case.reference)
    began = max((s for s in starts if s <= step), default=1)
    place = next((s for s in seen if s == began), next((s for s in seen if s in starts and s > step), None))
    place = place or min(seen, key=lambda s: abs(s - step))
    lag = place - step
    text = f"step {step} trained the batch of step {place} ({lag:+d})"
    evidence = f"step {place}"
    if (cause := _seeded_anew(case, step, seen, field)) is not None:
        return cause
    if place == began and lag:
        again = "the data start" if began == 1 else "the epoch starts"
        twice = _samples(case, began, step)
        more = f"; {many(twice, 'sample')} will be seen twice" if twice else ""
        message = f"{text}: {again} from the beginning again{more}"
        return Cause("data-restarted", "data", message, evidence, POSITION)
    if place in starts and lag > 1:
        left = _samples(case, step, place)
        more = f"; {many(left, 'sample')} will not be seen" if left else ""
        return Cause("epoch-cut-short", "data", f"{text}: the rest of the epoch is left out{more}", evidence, POSITION)
    if _whole_epochs(starts, began, step, place):
        return _earlier_epoch(case, step, f"{text}: an earlier epoch's order comes again", evidence, field)
    if abs(lag) > NEAR:
        message = f"{text}: the loader's position is not restored"
        return Cause("epoch-order-repeated", "data", message, evidence, POSITION)
    return _shifted(case, step, lag, text, evidence)


def _seeded_anew(case: Case, step: int, seen: list[int], field: str) -> Cause | None:
    """The batch of another step, and its generators too: what draws the order begins again."""
    odd = case.differs("rng")
    now = case.fields(step)
    places = [n for n in seen if n < step and all(now.get(name) == case.reference[n].fields.get(name) for name in odd)]
    if not odd or not places:
        return None
    place, kinds = places[0], ", ".join(name.partition(".")[2] for name in odd)
    message = (
        f"step {step} trained the batch of step {place} ({place - step:+d}), and the generators of {kinds} stand as "
        "they did there: batches are drawn from a generator that was seeded again and not restored"
    )
    remedy = "save the generators' states and restore them last, before the loader's iterator is made"
    return Cause("data-reseeded", "data", message, f"{field}, {', '.join(odd)} of step {place}", remedy)


def _earlier_epoch(case: Case, step: int, text: str, evidence: str, field: str) -> Cause:
    """The order of an earlier epoch: for good, or until the next epoch begins."""
    later = next((s for s in epochs(case.reference) if s > step and s in case.branch), None)
    if later is not None and case.fields(later).get(field) == case.reference[later].fields.get(field):
        message = (
            f"{text}, and from step {later} on it is right again: a loader that was made anew was not told its epoch"
        )
        remedy = "call set_epoch after the loader has been made, and before its batches are skipped"
        return Cause("epoch-not-set", "data", message, evidence, remedy)
    return Cause("epoch-order-repeated", "data", f"{text}, its number is not restored", evidence, POSITION)


def _shifted(case: Case, step: int, lag: int, text: str, evidence: str) -> Cause:
    """A few batches too far, or not far enough."""
    micro = case.reference[step].micro or 1
    count = many(abs(lag) * micro, "batch", "batches")
    if lag > 0:
        message = f"{text}: {count} left out; batches that were fetched ahead were counted as trained"
        remedy = "save the position of what was trained, not that of what the loader has fetched for its workers"
    else:
        message = f"{text}: {count} trained twice; the position was saved before it moved on"
        remedy = "move the position on before it is saved, with the step that trained the batch"
    return Cause("data-shifted", "data", message, evidence, remedy)


def _whole_epochs(starts: list[int], began: int, step: int, place: int) -> bool:
    """Whether a batch stands at the same place of an earlier epoch."""
    return place < began and any(place - start == step - began for start in (1, *starts) if start < began)


def _samples(case: Case, first: int, end: int) -> int:
    """How many samples the uninterrupted run trained in these steps, in all its processes."""
    runs = (case.reference, *(peer.reference for peer in case.peers))
    return sum(len(samples_of(run[n])) for run in runs for n in range(first, end) if n in run)


# --- samples that are known, in batches that are not -----------------------------------------------------------------


def _mixture(case: Case, step: int) -> Cause | None:
    """Another size, another order, another shuffle, or gaps."""
    mine, theirs = (samples_of(run[step]) if step in run else () for run in (case.branch, case.reference))
    if not mine or not theirs:
        return None
    if len(mine) != len(theirs):
        message = f"step {step} trained {len(mine)} samples, and the uninterrupted run {len(theirs)}"
        remedy = "keep the size of batches, or count samples, not batches, in the position that is saved"
        return Cause("batch-size-changed", "data", message, f"{len(mine)} and {len(theirs)} samples", remedy)
    if sorted(mine) == sorted(theirs):
        message = f"step {step} trained the right samples in another order"
        return Cause("data-order-changed", "data", message, "the same set", POSITION)
    everything = {sample for other in case.reference.values() for sample in samples_of(other)}
    if not set(mine) <= everything or case.differs("rng"):
        return None
    before = _trained(case.reference, step)
    again = sum(sample in before for sample in mine)
    if not again:
        return _gaps(case, step, mine)
    message = (
        f"step {step} trained another mixture of samples: same epoch, different shuffle; {again} of {len(mine)} had "
        "been trained in this epoch already"
    )
    remedy = "give the sampler a generator of its own, and save its state as it was at the epoch's start"
    return Cause("data-order-changed", "data", message, f"{again} of {len(mine)} samples", remedy)


def _gaps(case: Case, step: int, mine: tuple[str, ...]) -> Cause:
    """Samples that were to come later: those between were held back by a buffer that was lost."""
    places = {s: n for n in sorted(case.reference, reverse=True) if n >= step for s in samples_of(case.reference[n])}
    last = max((places[sample] for sample in mine if sample in places), default=step)
    trained = {s for n, one in case.branch.items() if n >= step for s in samples_of(one)}
    passed = [s for s, place in places.items() if place <= last and s not in trained]
    message = (
        f"step {step} trained samples that were to come up to step {last}, and {many(len(passed), 'sample')} before "
        "them never came: what a shuffle buffer held was lost"
    )
    remedy = "save what the stream's buffer holds, or its generator and the position at which it was filled"
    return Cause("data-buffer-lost", "data", message, f"{len(passed)} samples", remedy)


def _trained(reference: Mapping[int, Step], step: int) -> set[str]:
    """The samples that the uninterrupted run had trained in this epoch before a step."""
    began = max((s for s in epochs(reference) if s <= step), default=1)
    return {s for n in range(began, step) for s in samples_of(reference.get(n, Step(n, {})))}


def _unseen(case: Case, step: int) -> Cause:
    if case.differs("rng"):
        message = (
            f"step {step} trained a batch that the uninterrupted run never saw, and generators differ: "
            "order or augmentation are drawn from one that was not restored"
        )
        remedy = "give the sampler a generator of its own and save its state at the epoch's start"
        return Cause("data-order-rng", "data", message, listed(case.departure.fields), remedy)
    message = f"step {step} trained a batch that the uninterrupted run never saw"
    return Cause("data-changed", "data", message, listed(case.departure.fields), POSITION)
