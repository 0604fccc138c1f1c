"""Traits of live tensors, and plain values as text: recorded where a resume begins and where something is saved.

Whether a narrower type would hold a tensor is mostly settled by its first thousand numbers, and whether it has zeros
by some thousands all over it; only where that leaves it open the whole tensor is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from ckpttool.determinism.living import Living, state_of
from ckpttool.determinism.traits import NARROW, Rows, Trait

TOLD = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
"""Types whose tensors have traits; narrower ones have few operations."""

HEAD = 1024
"""Numbers that are tried before all are."""

SAMPLE = 4096
"""Numbers, evenly spread, of which one has to be zero before all zeros are counted."""

BLOCK = 1 << 20
"""Numbers that are tried at a time, so that no copy of a large tensor is made."""

MOST = 1000
"""Names that are told of what was not read, and plain values."""

SHORT, LONG = 4, 60
"""Members of a list, and characters, that are still told as text."""


def told(living: Living) -> dict[str, dict[str, Any]]:
    """What the lines of a state and of a save have beside digests: traits of tensors, plain values as text."""
    return {"traits": traits_of(living.tensors(gradients=False)), "values": dict(islice(_values(living), MOST))}


def _values(living: Living) -> Iterator[tuple[str, str]]:
    rates = [group["lr"] for optimizer in living.optimizers for group in optimizer.param_groups]
    yield from ((f"lr.{number}", repr(float(rate))) for number, rate in enumerate(rates))
    for kind, things in (("scheduler", living.schedulers), ("scaler", living.scalers), ("ema", living.averages)):
        for number, thing in enumerate(things):
            yield from plain_values(f"{kind}.{number}", thing)
    for name, part in living.extra.items():
        yield from (pair for pair in plain_values(name, state_of(part)) if pair[0] not in living.ignored)


def traits_of(tensors: Iterable[tuple[str, Any]]) -> dict[str, dict[str, object]]:
    """The facts of each tensor of floating-point numbers by name."""
    found = ((name, trait_of(tensor)) for name, tensor in tensors if isinstance(tensor, Tensor))
    return {name: trait.facts() for name, trait in found if trait is not None}


@torch.no_grad()
def trait_of(tensor: Tensor) -> Trait | None:
    """What is told of a tensor; None of one without floating-point numbers."""
    local = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    if local.dtype not in TOLD or local.layout is not torch.strided or local.device.type == "meta":
        return None
    if not (count := local.numel()) or not local.ndim:
        return None
    flat = local.reshape(-1)
    zero = _zeros(flat)
    is_wide = local.dtype in (torch.float32, torch.float64) and zero < count
    fits = tuple(kind for kind in NARROW if is_wide and _fits(flat, getattr(torch, kind)))
    rows = _zero_rows(flat.view(len(local), -1)) if zero < count and zero * len(local) >= count else None
    return Trait(str(local.dtype).removeprefix("torch."), count, zero, fits, rows, _piece(tensor))


def _zeros(flat: Tensor) -> int:
    sample = flat[:: max(1, len(flat) // SAMPLE) | 1]  # an odd step meets every column
    return len(flat) - int(torch.count_nonzero(flat)) if int(torch.count_nonzero(sample)) < len(sample) else 0


def _fits(flat: Tensor, kind: torch.dtype) -> bool:
    blocks = (flat[start : start + BLOCK] for start in range(0, len(flat), BLOCK))
    return _survives(flat[:HEAD], kind) and all(_survives(block, kind) for block in blocks)


def _survives(numbers: Tensor, kind: torch.dtype) -> bool:
    return bool(torch.equal(numbers, numbers.to(kind).to(numbers.dtype)))


def _zero_rows(table: Tensor) -> Rows | None:
    places = torch.nonzero((table == 0).all(1)).flatten().tolist()
    if not places or places[-1] - places[0] + 1 != len(places):
        return None
    return places[0], places[-1] + 1, len(table)


def _piece(tensor: Any) -> Rows | None:
    """The rows of a distributed tensor that lie here; None where all do."""
    if not hasattr(tensor, "to_local") or tensor.to_local().shape == tensor.shape:
        return None
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset  # the public face has none

    shape, offset = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
    return int(offset[0]), int(offset[0] + shape[0]), int(tensor.shape[0])


def unread(state: Mapping[str, Any], path: str) -> list[str]:
    """Names in a distributed checkpoint that a load into this template did not ask for; none where that is unclear."""
    from torch.distributed.checkpoint import FileSystemReader
    from torch.distributed.checkpoint._nested_dict import flatten_state_dict  # as the load itself makes names

    try:
        known = FileSystemReader(path).read_metadata().state_dict_metadata
        asked, _ = flatten_state_dict({key: state_of(part) for key, part in state.items()})
    except Exception:  # of another kind of storage, or a state that torch alone understands
        return []
    return [name for name in known if name not in asked][:MOST]


def plain_values(name: str, value: object, depth: int = 8) -> Iterator[tuple[str, str]]:
    """Numbers, flags and short texts in nested containers, by their paths."""
    if hasattr(value, "state_dict") and not isinstance(value, type):
        value = value.state_dict()
    if isinstance(value, Mapping) and depth:
        for key, part in value.items():
            yield from plain_values(f"{name}.{key}", part, depth - 1)
    elif isinstance(value, (list, tuple)) and 0 < len(value) <= SHORT and all(map(_is_plain, value)):
        yield name, repr(value)[:LONG]
    elif isinstance(value, (list, tuple)) and depth and any(isinstance(part, (Mapping, list, tuple)) for part in value):
        for place, part in enumerate(value[:LONG]):
            yield from plain_values(f"{name}.{place}", part, depth - 1)
    elif _is_plain(value):
        yield name, repr(value)[:LONG]


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, (bool, int, float, str))
