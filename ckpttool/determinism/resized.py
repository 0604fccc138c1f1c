"""Runs of different numbers of processes, made comparable: what all processes have in common, step by step. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from ckpttool.determinism.comparing import steps_of
from ckpttool.determinism.cuts import samples_of
from ckpttool.determinism.trace import Process, Step, component_of

OWN = ("data", "rng", "loss")
"""What each process has of its own, however many there are."""

SPREAD = ("params", "buffers", "gradients", "optimizer", "ema")
"""What each process holds a piece of, where tensors are spread over processes."""


def processes_in(part: Iterable[Process]) -> int:
    """How many processes train together, as they say themselves; 0 where none took a step."""
    return max((int(p.environment.get("world_size") or 1) for p in part if p.steps), default=0)


def is_spread(part: Iterable[Process]) -> bool:
    """Whether a process holds pieces of tensors alone."""
    states = [process.state for process in part if process.state is not None]
    return any(trait.piece is not None for state in states for trait in state.traits.values())


def in_common(ranks: Mapping[int, Mapping[int, Step]], *, spread: bool = False) -> dict[int, Step]:
    """One step for each that all ranks took: samples as one set, the mean of the losses, the first rank's state."""
    if not ranks:
        return {}
    shared = set.intersection(*(set(steps) for steps in ranks.values()))
    return {number: _together([ranks[rank][number] for rank in sorted(ranks)], spread) for number in sorted(shared)}


def of_parts(parts: Sequence[Sequence[Process]], *, spread: bool = False) -> dict[int, Step]:
    """The steps of a run that went on with another number of processes; of a step done twice the later counts."""
    found: dict[int, Step] = {}
    for part in parts:
        ranks = {process.rank for process in part if process.steps}
        found |= in_common({rank: steps_of(part, rank) for rank in ranks}, spread=spread)
    return found


def _together(steps: Sequence[Step], spread: bool) -> Step:
    left_out = (*OWN, *(SPREAD if spread else ()))
    fields = {name: digest for name, digest in steps[0].fields.items() if component_of(name) not in left_out}
    samples = sorted(sample for step in steps for sample in samples_of(step))
    if samples and all(step.rows for step in steps):
        fields["data.samples"] = hashlib.blake2b(" ".join(samples).encode(), digest_size=16).hexdigest()
    losses = [step.loss for step in steps if step.loss is not None]
    loss = sum(losses) / len(losses) if len(losses) == len(steps) else None
    if loss is not None:
        fields["loss"] = loss.hex()
    rows = "".join(step.rows for step in steps)
    return replace(steps[0], fields=fields, loss=loss, rows=rows, contents="", tensors={})
