"""Faults of the data stream: each gives what it yields after a resume."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from ckpttool.trainer.data import Chosen, Plan, Position
from ckpttool.trainer.faults.registry import fault
from ckpttool.trainer.tasks import TaskParts


@fault("data-restarted", "D1", "batch ids", "+0", "order")
def _data_restarted(plan: Plan, at: Position) -> Iterator[Chosen]:
    """The position is lost: the epoch starts again."""
    return plan.batches_from(Position(at.epoch, 0))


@fault("epoch-lost", "D2", "batch ids", "+0", "order")
def _epoch_lost(plan: Plan, at: Position) -> Iterator[Chosen]:
    """The epoch is lost: the order of epoch 0 comes again, and then those that follow it."""
    return plan.batches_from(Position(0, at.batch))


@fault("order-changed", "D3", "batch ids", "+0", "order")
def _order_changed(plan: Plan, at: Position) -> Iterator[Chosen]:
    """Another shuffle for the rest of the epoch: some samples come twice, some never."""
    yield from replace(plan, seed=plan.seed + 1).rest_of(at)
    yield from plan.batches_from(Position(at.epoch + 1, 0))


@fault("epoch-not-set", "D4", "batch ids", "+0", "order")
def _epoch_not_set(plan: Plan, at: Position) -> Iterator[Chosen]:
    """A loader that is built anew does not know its epoch until the next one; in epoch 0 nobody notices."""
    yield from plan.rest_of(Position(0, at.batch))
    yield from plan.batches_from(Position(at.epoch + 1, 0))


@fault("data-ahead", "D5", "batch ids", "+0", "order")
def _data_ahead(plan: Plan, at: Position) -> Iterator[Chosen]:
    """Batches that were fetched ahead count as used."""
    return islice(plan.batches_from(at), 2, None)


@fault("data-behind", "D5", "batch ids", "+0", "order")
def _data_behind(plan: Plan, at: Position) -> Iterator[Chosen]:
    """The last batch comes once more: the position was saved before it was advanced."""
    return plan.batches_from(
        Position(at.epoch, at.batch - 1) if at.batch else Position(max(0, at.epoch - 1), plan.batches - 1)
    )


@fault("epoch-cut-short", "D6", "batch ids", "+0", "order")
def _epoch_cut_short(plan: Plan, at: Position) -> Iterator[Chosen]:
    """The rest of the epoch is left out."""
    return plan.batches_from(Position(at.epoch + 1, 0))


@fault("augmentation-reseeded", "D8", "batch contents", "+0", "order")
def _augmentation_reseeded(plan: Plan, at: Position) -> Iterator[Chosen]:
    """The same samples, augmented by generators that start anew, as those of loader processes do."""
    return ([(epoch + 1_000_000, index) for epoch, index in chosen] for chosen in plan.batches_from(at))


@fault("stale-workers", "D9", "batch contents", "later", "order")
def _stale_workers(plan: Plan, at: Position) -> Iterator[Chosen]:
    """Loader processes that live on augment every epoch as the one in which they began."""
    return ([(at.epoch, index) for _, index in chosen] for chosen in plan.batches_from(at))


@fault("batch-size-changed", "D12", "batch ids", "+0", "order")
def _batch_size_changed(plan: Plan, at: Position) -> Iterator[Chosen]:
    """The position counts batches, and these have another size now."""
    return replace(plan, batch_size=max(1, plan.batch_size // 2)).batches_from(at)


@fault("shuffle-buffer-lost", "D13", "batch ids", "+0", "order")
def _shuffle_buffer_lost(plan: Plan, at: Position) -> Iterator[Chosen]:
    """The samples that stood in a stream's shuffle buffer are gone, those after them come at once."""
    following = plan.batches_from(at)
    buffer = [sample for chosen in islice(following, 4) for sample in chosen]
    kept = buffer[1::2]
    for chosen in following:
        kept += chosen
        yield [kept.pop(0) for _ in range(len(chosen))]


@fault("unsorted-files", "D14", "batch ids", "+0", "every order")
def _unsorted_files(plan: Plan, at: Position) -> Iterator[Chosen]:
    """Samples are listed in another order by every process: two uninterrupted runs differ already."""
    return replace(plan, seed=int.from_bytes(os.urandom(4), "little")).batches_from(at)


@fault("data-changed", "D15", "batch contents", "+0", "data")
def _data_changed(parts: TaskParts) -> None:
    """Samples on the disk are other ones than before, and nobody compares."""
    parts.train.inputs.copy_(parts.train.inputs.flip(0))
