"""Faults of one process among several."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ckpttool.trainer.data import Chosen, Plan, Position
from ckpttool.trainer.distributed import first, rank, world
from ckpttool.trainer.faults.optimizer import moments
from ckpttool.trainer.faults.registry import fault, need
from ckpttool.trainer.state import TrainState, generators, restore_generators, seed_everything


@fault("rank-rng-copied", "R2", "rng", "+0")
def _rank_rng_copied(state: TrainState) -> None:
    """The first process's generators are restored in all: everywhere the same dropout."""
    need(world() > 1, "other processes (torchrun, --parallel ddp)")
    restore_generators(first(generators()))


@fault("rank-rng-lost", "R2 T2", "rng", "+0")
def _rank_rng_lost(state: TrainState) -> None:
    """Only the first process's generators were saved; the others seed theirs anew."""
    need(world() > 1, "other processes (torchrun, --parallel ddp)")
    if rank():
        seed_everything(state.config.seed + rank())


@fault("rank-moments-lost", "O2 T2", "optimizer", "+1")
def _rank_moments_lost(state: TrainState) -> None:
    """Only the first process's piece of the moments was saved: of each tensor some rows have theirs, the rest zero."""
    need(world() > 1 and state.config.parallel == "fsdp2", "pieces of moments (torchrun, --parallel fsdp2)")
    if rank():
        for moment in moments(state):
            moment.to_local().zero_()


@fault("rank-order-copied", "D12", "batch ids", "+0", "order")
def _rank_order_copied(plan: Plan, at: Position) -> Iterator[Chosen]:
    """A sampler that does not know its process: all train on the first one's samples, and the others are never seen."""
    need(plan.world > 1, "other processes (torchrun, --parallel ddp)")
    return replace(plan, rank=0).batches_from(at)
