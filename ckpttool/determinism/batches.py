"""What the steps of a run consumed, as a file: written by an uninterrupted run, put in place of a resumed one's own.

A file has one entry for each step: a line of JSON (its number, what the script said of its samples, the type, shape
and size of each tensor), then the tensors' bytes. It is read as it was written, a step at a time, so neither side holds
more than one step.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from ckpttool import units
from ckpttool.determinism import digesting
from ckpttool.determinism.gathering import Gathered


def name_of(rank: int) -> str:
    """The file of a rank's batches."""
    return f"batches-{rank}.bin"


class Unfit(Exception):
    """Batches that cannot be written, or put in place; the text says why."""


class Batches(Protocol):
    """One side of an exchange of batches: tensors pass through it in the order in which a step consumes them."""

    def passes(self, tensor: Tensor) -> Tensor:
        """A tensor that a step consumes: itself, or what is to be consumed instead. Raises ``Unfit``."""

    def ends(self, step: int, gathered: Gathered) -> None:
        """A step was taken; what the script said of its samples is exchanged too. Raises ``Unfit``."""


class Keeping:
    """Writes batches down; of more than ``limit`` bytes in all nothing is left."""

    def __init__(self, path: Path, limit: int) -> None:
        self.path, self.limit = path, limit
        self.entries: list[tuple[str, tuple[int, ...], bytes]] = []
        self.total = 0

    def passes(self, tensor: Tensor) -> Tensor:
        self.total += tensor.numel() * tensor.element_size()
        if self.total > self.limit:
            self.path.unlink(missing_ok=True)
            raise Unfit(f"the batches take more than {units.size(self.limit)}")
        self.entries.append(digesting.raw(tensor))
        return tensor

    def ends(self, step: int, gathered: Gathered) -> None:
        told = {"step": step, "ids": gathered.ids, "rows": gathered.told_rows}
        head = {**told, "tensors": [(kind, shape, len(data)) for kind, shape, data in self.entries]}
        with self.path.open("ab") as file:
            file.write(json.dumps(head).encode() + b"\n")
            file.writelines(data for *_, data in self.entries)
        self.entries = []


class Replaying:
    """Hands out what another run kept, tensor by tensor."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = 0  # of the entry that comes, in the file
        self.place = 0  # of the tensor that comes, in its entry

    @functools.cached_property
    def entry(self) -> dict[str, Any]:
        """What the step that comes consumed; nothing after the last."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            found: dict[str, Any] = {"step": None, "tensors": [], **json.loads(file.readline() or "{}")}
            found["tensors"] = [(kind, shape, file.read(size)) for kind, shape, size in found["tensors"]]
            self.offset = file.tell()
        return found

    def passes(self, tensor: Tensor) -> Tensor:
        if self.place >= len(self.entry["tensors"]):
            raise Unfit("a step consumes more tensors than the uninterrupted run's")
        kind, shape, data = self.entry["tensors"][self.place]
        self.place += 1
        if kind != str(tensor.dtype).removeprefix("torch."):
            raise Unfit(f"a step consumes {tensor.dtype}, and the uninterrupted run's {kind}")
        found = torch.empty(shape, dtype=tensor.dtype)
        if data:
            found = torch.frombuffer(bytearray(data), dtype=tensor.dtype).reshape(shape)
        if found.shape != tensor.shape:
            return found.to(tensor.device)
        return torch.empty_like(tensor).copy_(found)  # as the script laid it out: kernels may sum in that order

    def ends(self, step: int, gathered: Gathered) -> None:
        if self.entry["step"] != step or self.place != len(self.entry["tensors"]):
            raise Unfit(f"step {step} consumes fewer tensors than the uninterrupted run's")
        gathered.ids, gathered.told_rows = self.entry["ids"], self.entry["rows"]
        del self.entry
        self.place = 0
