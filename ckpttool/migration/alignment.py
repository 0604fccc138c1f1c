"""Whose state is whose: each leaf of the weights with its slot in an optimizer, or why that cannot be told. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping as MappingABC, Sequence
from dataclasses import replace
from typing import TypeAlias

from ckpttool.errors import printable
from ckpttool.frozen import dataclass
from ckpttool.layout import Optimizer, Slot
from ckpttool.migration.scopes import Leaf, Scope
from ckpttool.model import Checkpoint, Tensor

Trains: TypeAlias = Callable[[str, Tensor], bool]
"""Whether a key of a state dict can be a parameter rather than a buffer."""


@dataclass(frozen=True, slots=True)
class Aligned:
    """An optimizer, and the slot of each leaf of the weights by the leaf's node, in the weights' order.

    ``why`` is empty where that is known, else it says in words what is missing. ``note`` is for people.
    """

    optimizer: Optimizer
    slots: MappingABC[int, Slot]
    why: str = ""
    note: str = ""


def align(
    checkpoint: Checkpoint,
    optimizer: Optimizer,
    scopes: Sequence[Scope],
    trains: Trains,
    assume_order: bool,
    ordered: bool = True,
) -> Aligned:
    """Find every leaf's slot: by what the optimizer records, by shapes, or by order where that is asked for.

    ``ordered`` is False where the file does not keep the model's order: there is none to assume then.
    """
    by_place = {place_of(checkpoint, s.parameter): s for s in reversed(optimizer.slots) if s.parameter is not None}
    if optimizer.named != "none" or not optimizer.slots:
        return Aligned(optimizer, dict(_slots(checkpoint, scopes, by_place)), note=_note(optimizer))
    models = [list(parameters(checkpoint, scope, trains)) for scope in scopes]
    fitting = [model for model in models if _fits(checkpoint, optimizer, model)]
    stateless = not any(slot.state for slot in optimizer.slots) and len({s.group for s in optimizer.slots}) == 1
    if len(fitting) == 1 and ((assume_order and ordered) or stateless):
        pairs = list(zip(fitting[0], optimizer.slots, strict=True))
        named = tuple(replace(slot, name=leaf.name, parameter=leaf.index) for leaf, slot in pairs)
        by_place = {place_of(checkpoint, slot.parameter): slot for slot in named}
        known = replace(optimizer, slots=named)
        return Aligned(known, dict(_slots(checkpoint, scopes, by_place)), note=_assumed(optimizer, stateless))
    why = _why(optimizer, models, len(fitting)) if ordered else _unordered(optimizer)
    return Aligned(optimizer, {}, why=why)


def parameters(checkpoint: Checkpoint, scope: Scope, trains: Trains) -> Iterator[Leaf]:
    """The leaves that an optimizer may hold, in order; of tied ones the first."""
    seen: set[object] = set()
    for name, leaf in scope.named.items():
        tensor = checkpoint.nodes[leaf.index]
        if isinstance(tensor, Tensor) and trains(name, tensor):
            place = place_of(checkpoint, leaf.index)
            if place not in seen:
                seen.add(place)
                yield leaf


def place_of(checkpoint: Checkpoint, index: int | None) -> object:
    """What nodes have in common that are one tensor."""
    node = None if index is None else checkpoint.nodes[index]
    if not isinstance(node, Tensor) or node.storage is None:
        return ("node", index)
    return (node.storage, node.offset, node.shape, node.stride)


def _slots(
    checkpoint: Checkpoint, scopes: Sequence[Scope], by_place: MappingABC[object, Slot]
) -> Iterator[tuple[int, Slot]]:
    for scope in scopes:
        for leaf in scope.named.values():
            slot = by_place.get(place_of(checkpoint, leaf.index))
            if slot is not None:
                yield leaf.index, slot


def _fits(checkpoint: Checkpoint, optimizer: Optimizer, model: Sequence[Leaf]) -> bool:
    if len(model) != len(optimizer.slots):
        return False
    nodes = [checkpoint.nodes[leaf.index] for leaf in model]
    return all(
        isinstance(node, Tensor) and slot.shape in (None, node.shape)
        for node, slot in zip(nodes, optimizer.slots, strict=True)
    )


def _note(optimizer: Optimizer) -> str:
    if optimizer.named != "shapes":
        return ""
    return (
        f"{printable(optimizer.key)} – records no names: its {len(optimizer.slots)} parameters are matched in the "
        "model's order, which every shape confirms"
    )


def _assumed(optimizer: Optimizer, stateless: bool) -> str:
    why = "it has no state" if stateless else "--assume-order"
    return f"{printable(optimizer.key)} – its parameters are taken to stand in the model's order ({why})"


def _unordered(optimizer: Optimizer) -> str:
    return (
        f"{printable(optimizer.key)} – records no names for its {len(optimizer.slots)} parameters, and safetensors "
        "sorts its keys: nothing tells in which order the model had them; give --to or --to-model with "
        "--assume-order if that model lists them in the same order, save param_names (torch 2.6 and later: pass "
        "named_parameters() to the optimizer), or leave it out with --section weights"
    )


def _why(optimizer: Optimizer, models: Sequence[Sequence[Leaf]], fitting: int) -> str:
    head = f"{printable(optimizer.key)} – records no names for its {len(optimizer.slots)} parameters, and "
    if fitting > 1:
        return head + f"{fitting} of the models have as many of the same shapes; leave it out with --section weights"
    sizes = " or ".join(str(len(model)) for model in models)
    if not fitting:
        return head + (
            f"they cannot be matched with the {sizes} of the weights: number, shapes or groups leave more than one "
            "way or none; save param_names (torch 2.6 and later: pass named_parameters() to the optimizer), or leave "
            "it out with --section weights"
        )
    return (
        head
        + "their shapes fit the weights in more than one way; give --assume-order if they stand in the model's order"
    )
