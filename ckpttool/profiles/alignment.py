"""Which slot of an optimizer belongs to which parameter, told by the sequence of shapes.

An optimizer numbers its parameters in the order in which it was given them, group after group; nearly always
that is the model's order, split by a rule (decay or not) that keeps the order within each group. So the groups
are merged along the model's parameters. Where two groups could take the next one, nothing is claimed.
"""

from __future__ import annotations

from collections.abc import Sequence

from ckpttool.layout import Optimizer, Slot
from ckpttool.profiles.optimizers import RawOptimizer, Shape

Parameters = Sequence[tuple[str, int, Shape]]
"""Key inside the weights' section, node index and shape of each parameter, in the model's order."""

MAX_GROUPS = 64
"""Groups that are merged along the model; the work is their number times the parameters'."""

_WRAPPERS = frozenset(
    {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module", "_module"}
)


def align(
    raw: RawOptimizer, models: Sequence[Parameters], ordered: bool, nested: Sequence[Parameters] = ()
) -> Optimizer:
    """Name the slots: as recorded, by the keys themselves, by shapes, or not at all.

    ``nested`` are models that several of ``models`` are parts of: asked where none of the parts fits alone.
    """
    if raw.recorded or raw.keyed:
        known = _by_name([*models, *nested])
        slots = tuple(_look_up(slot, known) for slot in raw.slots)
        return _finished(raw, "param_names" if raw.recorded else "fqn", slots)
    fits = _fits(raw, models, ordered) or _fits(raw, nested, ordered)
    # Two models that both fit say nothing, unless they are one model saved twice.
    if not fits or any([key for key, _ in fit] != [key for key, _ in fits[0]] for fit in fits[1:]):
        return _finished(raw, "none", raw.slots)
    pairs = zip(raw.slots, fits[0], strict=True)
    return _finished(raw, "shapes", tuple([_named(slot, key, at) for slot, (key, at) in pairs]))


def _fits(raw: RawOptimizer, models: Sequence[Parameters], ordered: bool) -> list[list[tuple[str, int]]]:
    return [names for model in models if ordered and (names := _by_shapes(raw, model)) is not None]


def _named(slot: Slot, key: str | None, at: int | None) -> Slot:
    # dataclasses.replace costs three times as much, and there are as many slots as parameters.
    return Slot(slot.ident, slot.group, key, slot.confidence, slot.shape, slot.state, at)


def _finished(raw: RawOptimizer, named: str, slots: tuple[Slot, ...]) -> Optimizer:
    return Optimizer(raw.path, raw.index, raw.kind, named, slots, raw.orphans, raw.stateless)  # type: ignore[arg-type]


def bare(key: str) -> str:
    """A key without the segments that wrappers (DDP, compile, FSDP) put in."""
    return ".".join(part for part in key.split(".") if part not in _WRAPPERS)


def _by_name(models: Sequence[Parameters]) -> dict[str, int]:
    known: dict[str, int] = {}
    for model in reversed(models):
        known.update((bare(key), at) for key, at, _ in model)
        known.update((key, at) for key, at, _ in model)
    return known


def _look_up(slot: Slot, known: dict[str, int]) -> Slot:
    name = slot.name or ""
    found = known.get(name)
    return _named(slot, slot.name, known.get(bare(name)) if found is None else found)


def _by_shapes(raw: RawOptimizer, model: Parameters) -> list[tuple[str, int]] | None:
    """For each slot in turn the parameter's key and node; None unless exactly one way fits."""
    if not any(slot.shape is not None for slot in raw.slots) or len(raw.slots) > len(model):
        return None
    if len(raw.slots) == len(model):
        straight = all(slot.shape in (None, shape) for slot, (_, _, shape) in zip(raw.slots, model, strict=True))
        if raw.groups == 1 or _one_each(raw):
            return [(key, at) for key, at, _ in model] if straight else None
        return _merge(raw, model) if raw.groups <= MAX_GROUPS else None
    return _embed(raw, model) if raw.groups == 1 else None


def _one_each(raw: RawOptimizer) -> bool:
    return raw.groups == len(raw.slots)


def _merge(raw: RawOptimizer, model: Parameters) -> list[tuple[str, int]] | None:
    """Deal the model's parameters out to the groups, each in its own order."""
    queues: dict[int, list[int]] = {}
    for i, slot in enumerate(raw.slots):
        queues.setdefault(slot.group, []).append(i)
    heads = dict.fromkeys(queues, 0)
    dealt: dict[int, tuple[str, int]] = {}
    for key, at, shape in model:
        takers = [g for g, q in queues.items() if heads[g] < len(q) and raw.slots[q[heads[g]]].shape in (None, shape)]
        if len(takers) != 1:
            return None
        group = takers[0]
        dealt[queues[group][heads[group]]] = (key, at)
        heads[group] += 1
    return [dealt[i] for i in range(len(raw.slots))]


def _embed(raw: RawOptimizer, model: Parameters) -> list[tuple[str, int]] | None:
    """Find the slots among more tensors (frozen, buffers): unique if first and last way agree."""
    first = _greedy([slot.shape for slot in raw.slots], [shape for _, _, shape in model])
    last = _greedy([slot.shape for slot in reversed(raw.slots)], [shape for _, _, shape in reversed(model)])
    if first is None or last is None:
        return None
    mirrored = [len(model) - 1 - i for i in reversed(last)]
    return [model[i][:2] for i in first] if first == mirrored else None


def _greedy(wanted: Sequence[Shape | None], shapes: Sequence[Shape]) -> list[int] | None:
    places: list[int] = []
    at = 0
    for shape in wanted:
        while at < len(shapes) and shape not in (None, shapes[at]):
            at += 1
        if at == len(shapes):
            return None
        places.append(at)
        at += 1
    return places
