"""What a migration leads to: the keys, forms, ties and order of a model's state dict, wherever they were told. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

from ckpttool.errors import printable
from ckpttool.expressions import Form
from ckpttool.frozen import dataclass
from ckpttool.layout import Layout
from ckpttool.migration.errors import MigrationError
from ckpttool.migration.reach import Wishes, weight_scopes
from ckpttool.migration.scopes import Scope
from ckpttool.model import Checkpoint, Tensor
from ckpttool.rewriting import Named

Key = tuple[str, Form]


@dataclass(frozen=True)
class Target:
    """A state dict as it should become: its keys in order with their forms, and what is known of them.

    ``parameters`` are the keys that an optimizer may hold, ties once, in the model's own order; ``ordered`` is False
    where that order is not known. ``ties`` are groups of keys over one storage, the first being the one among
    ``parameters``. ``groups`` are the parameters of each optimizer group in its order, empty where none is known.
    ``name`` is where it was told.
    """

    name: str
    keys: tuple[Key, ...]
    parameters: tuple[str, ...] = ()
    ties: tuple[tuple[str, ...], ...] = ()
    groups: tuple[tuple[str, ...], ...] = ()
    ordered: bool = True

    @cached_property
    def forms(self) -> dict[str, Form]:
        """The form of each key."""
        return dict(self.keys)

    @cached_property
    def order(self) -> dict[str, int]:
        """The place of each key."""
        return {name: at for at, (name, _) in enumerate(self.keys)}

    @property
    def buffers(self) -> tuple[str, ...]:
        """Keys that are no parameters and share no parameter's storage."""
        trained = {*self.parameters, *(key for tie in self.ties if tie[0] in self.parameters for key in tie)}
        return tuple(name for name, _ in self.keys if name not in trained)


def target_of(checkpoint: Checkpoint, layout: Layout, name: str = "") -> Target:
    """The weights of a described checkpoint as a target. Raises ``MigrationError`` where it has none.

    The order of parameters is the file's, but for formats that sort their keys. Linear in the keys.
    """
    scope = weights_of(checkpoint, layout)
    known = {index for _, index in layout.parameters}
    places = {leaf.index: key for key, leaf in reversed(scope.named.items())}
    tensors = [(key, checkpoint.nodes[leaf.index]) for key, leaf in scope.named.items()]
    keys = tuple((key, Form(t.dtype, t.shape)) for key, t in tensors if isinstance(t, Tensor))
    trained = [places[index] for _, index in layout.parameters if index in places]
    groups = [_group(checkpoint, layout, places, at) for at in _group_numbers(layout)] if known else []
    return Target(
        name or checkpoint.source,
        keys,
        tuple(dict.fromkeys(trained)),
        ties_of((key, t) for key, t in tensors if isinstance(t, Tensor)),
        tuple(groups) if all(groups) else (),
        layout.ordered,
    )


def weights_of(checkpoint: Checkpoint, layout: Layout) -> Scope:
    """The state dict with most tensors among the weights. Raises ``MigrationError`` where there is none."""
    if not any(section.name == "weights" for section in layout.sections):
        raise MigrationError(
            f"{printable(checkpoint.source)} – has no weights; run ckpttool inspect to see what it holds"
        )
    return max(weight_scopes(checkpoint, layout, Wishes()), key=lambda scope: len(scope.named))


def ties_of(tensors: Iterable[tuple[str, Tensor]]) -> tuple[tuple[str, ...], ...]:
    """Groups of keys that look at the very same elements, in order."""
    groups: dict[object, list[str]] = {}
    for key, tensor in tensors:
        if tensor.storage is not None and tensor.numel:
            place = (tensor.storage, tensor.offset, tensor.shape, tensor.stride)
            groups.setdefault(place, []).append(key)
    return tuple(tuple(keys) for keys in groups.values() if len(keys) > 1)


def _group_numbers(layout: Layout) -> range:
    slots = layout.optimizers[0].slots if len(layout.optimizers) == 1 else ()
    return range(1 + max((slot.group for slot in slots), default=-1))


def _group(checkpoint: Checkpoint, layout: Layout, places: dict[int, str], number: int) -> tuple[str, ...]:
    """The keys of one group's parameters; nothing where one of them is not sure."""
    slots = [slot for slot in layout.optimizers[0].slots if slot.group == number]
    found = [places.get(slot.parameter, "") if slot.parameter is not None else "" for slot in slots]
    sure = all(found) and all(slot.confidence == "confirmed" for slot in slots)
    return tuple(found) if sure else ()


def items_of(named: Sequence[Named]) -> list[Key]:
    """The keys that are tensors."""
    return [(one.name, one.form) for one in named if one.form is not None]
