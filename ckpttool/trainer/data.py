"""Batches in an order that is a function of seed and epoch: the loader's whole state is two integers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ckpttool import UsageError
from ckpttool.trainer.config import Config
from ckpttool.trainer.signals import leave_to_parent
from ckpttool.trainer.tasks import TaskParts

Batch = tuple[Tensor, Tensor, Tensor]  # inputs, targets, indices of the samples
Chosen = list[tuple[int, int]]  # of one batch: the epoch whose augmentation it gets, and the sample's index


@dataclass(frozen=True, slots=True)
class Position:
    """Where the data stream stands: the next batch to be drawn. ``batch`` counts micro-batches of the epoch."""

    epoch: int = 0
    batch: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """The order of a run's batches: every process sees its slice of the same global batches."""

    samples: int
    batch_size: int  # over all processes
    seed: int
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if self.batch_size > self.samples or self.batch_size % self.world:
            text = f"batch_size = {self.batch_size}: at most the {self.samples} samples that there are"
            raise UsageError(f"{text}, and a multiple of the number of processes ({self.world})")

    @property
    def batches(self) -> int:
        """Batches in an epoch; a last one that is not full is left out."""
        return self.samples // self.batch_size

    def after(self, at: Position) -> Position:
        """The position of the batch that follows."""
        last = at.batch + 1 >= self.batches
        return Position(at.epoch + 1, 0) if last else Position(at.epoch, at.batch + 1)

    def batches_from(self, at: Position) -> Iterator[Chosen]:
        """What is in each batch from a position on, without an end."""
        return iter(StatefulOrder(self, at))

    def rest_of(self, at: Position) -> Iterator[Chosen]:
        """What is in each batch from a position to the end of its epoch."""
        generator = torch.Generator().manual_seed(mixed(self.seed, at.epoch))
        order = torch.randperm(self.samples, generator=generator).tolist()
        for batch in range(at.batch, self.batches):
            chosen = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield [(at.epoch, index) for index in chosen[self.rank :: self.world]]


class StatefulOrder:
    """A plan as a batch sampler that keeps its own place, for ``StatefulDataLoader`` of ``torchdata``."""

    def __init__(self, plan: Plan, at: Position) -> None:
        self.plan, self.at = plan, at

    def __iter__(self) -> Iterator[Chosen]:
        while True:
            for chosen in self.plan.rest_of(self.at):
                self.at = self.plan.after(self.at)
                yield chosen

    def state_dict(self) -> dict[str, int]:
        return asdict(self.at)

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.at = Position(**state)


class Samples(Dataset[Batch]):
    """A split's samples, augmented by a generator of their own: so any worker makes the same of one."""

    def __init__(self, parts: TaskParts, config: Config) -> None:
        self.examples = parts.train
        self.augment = parts.augment if config.augment else None
        self.seed = config.seed

    def __getitem__(self, at: tuple[int, int]) -> Batch:
        epoch, index = at
        sample = self.examples.inputs[index]
        if self.augment is not None:
            sample = self.augment(sample, torch.Generator().manual_seed(mixed(self.seed, epoch, index + 1)))
        return sample, self.examples.targets[index], torch.tensor(index)


def batches(parts: TaskParts, config: Config, order: Iterable[Chosen]) -> Iterator[Batch]:
    """The batches of a run in this order. Draws nothing from any global generator."""
    loader = DataLoader(
        Samples(parts, config),
        batch_sampler=order,
        num_workers=config.workers,
        worker_init_fn=leave_to_parent,
        generator=torch.Generator().manual_seed(config.seed),  # else workers' seeds come from the global one
    )
    return iter(loader)


def mixed(*numbers: int) -> int:
    """One seed from several numbers, by the splitmix64 mixer: neighbours are far apart."""
    state = 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) & (1 << 64) - 1
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & (1 << 64) - 1
        state = (state ^ state >> 27) * 0x94D049BB133111EB & (1 << 64) - 1
        state ^= state >> 31
    return state >> 1
