"""Rules on the right samples with other contents: augmentation, loaders that live on, data that was changed. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ckpttool.determinism.cases import Case, Cause, listed
from ckpttool.determinism.cuts import epochs, samples_of
from ckpttool.determinism.trace import Step

SEEDED = "draw augmentation from a generator of each sample's own, seeded by seed, epoch and index"


def contents(case: Case, step: int) -> Cause:
    """The right samples with other contents; what these are in other epochs tells why."""
    odd = listed(case.differs("data"))
    text = f"step {step} trained the right samples with other contents"
    starts = epochs(case.reference)
    known = _by_epoch(case, starts)
    mine = dict(pairs(case.branch.get(step)))
    if step > case.base + 1 and step in starts:
        old = _as_in(known, mine)
        told = f": those of the epoch that began at step {old}" if old is not None else ""
        message = f"{text}{told}, and only from the next epoch on: loader processes that live on kept the epoch"
        remedy = "tell the loader's processes their epoch, or start them anew with each (persistent_workers=False)"
        return Cause("data-contents-stale", "data", message, odd, remedy)
    if mine and _is_constant(known):
        before = {sample: content for one in known.values() for sample, content in one.items()}
        changed = sum(before.get(sample, content) != content for sample, content in mine.items())
        others = set(before.values())
        swapped = sum(content in others and before.get(sample) != content for sample, content in mine.items())
        whose = f", {swapped} of them those of other samples" if swapped else ""
        message = (
            f"{text} ({changed} of {len(mine)}{whose}), though none is augmented: a sample is the same in every epoch. "
            "The data is not what the checkpoint was trained on"
        )
        remedy = "bring the data back; save a digest of it in the checkpoint, and compare that on a resume"
        return Cause("data-replaced", "data", message, odd, remedy)
    message = f"{text}: augmentation draws otherwise, or the data was changed"
    if mine and known:
        message = f"{text}, that no epoch has had: augmentation draws from generators that start anew"
    return Cause("data-contents", "data", message, odd, SEEDED)


def pairs(step: Step | None) -> Iterator[tuple[str, str]]:
    """Each sample of a step with the digest of its content, where both are recorded."""
    if step is not None and step.contents and len(step.contents) == len(step.rows):
        yield from zip(samples_of(step), samples_of(Step(step.number, {}, rows=step.contents)), strict=True)


def _by_epoch(case: Case, starts: list[int]) -> dict[int, dict[str, str]]:
    """What each sample was in each epoch of the uninterrupted run, by the step with which the epoch began."""
    found: dict[int, dict[str, str]] = {}
    for run in (case.reference, *(peer.reference for peer in case.peers)):
        for number, step in run.items():
            began = max((s for s in starts if s <= number), default=1)
            found.setdefault(began, {}).update(pairs(step))
    return {began: one for began, one in found.items() if one}


def _as_in(known: Mapping[int, Mapping[str, str]], mine: Mapping[str, str]) -> int | None:
    """The epoch in which all of these samples that it had were as they are now."""
    for began, one in known.items():
        shared = mine.keys() & one.keys()
        if 2 * len(shared) >= len(mine) > 0 and all(mine[sample] == one[sample] for sample in shared):
            return began
    return None


def _is_constant(known: Mapping[int, Mapping[str, str]]) -> bool:
    """Whether samples that several epochs had were the same in each: nothing augments them."""
    epochs_of: dict[str, list[str]] = {}
    for one in known.values():
        for sample, content in one.items():
            epochs_of.setdefault(sample, []).append(content)
    several = [found for found in epochs_of.values() if len(found) > 1]
    return bool(several) and all(len(set(found)) == 1 for found in several)
