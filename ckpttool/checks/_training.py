"""What the judges of training state share: groups, sections, twins, read through the layout."""

from __future__ import annotations

from collections.abc import Iterator

from ckpttool.errors import printable
from ckpttool.layout import Optimizer, Section, SectionName, Slot
from ckpttool.model import Json, Mapping, Sequence, Tensor, Value
from ckpttool.rules import Context
from ckpttool.tree import fields, items, number, subtree_tensors

WRAPPERS = {
    "module": "DataParallel or DistributedDataParallel",
    "_orig_mod": "torch.compile",
    "_fsdp_wrapped_module": "FSDP",
    "_checkpoint_wrapped_module": "activation checkpointing",
    "_forward_module": "Lightning's strategies",
    "_module": "Opacus",
}
"""Segments that wrappers put into keys, and who does."""

SHOWN = 5
"""Names that one message lists."""


def bare(key: str) -> str:
    """A key without the segments that wrappers put in."""
    return ".".join(part for part in key.split(".") if part not in WRAPPERS)


def sections(context: Context, role: SectionName) -> list[Section]:
    """The sections that play one role, in the file's order."""
    return [s for s in context.layout.sections if s.name == role]


def group_fields(context: Context, optimizer: Optimizer) -> list[dict[str, int]]:
    """Each parameter group's keys."""
    checkpoint = context.checkpoint
    groups = items(checkpoint, fields(checkpoint, optimizer.index).get("param_groups"))
    return [fields(checkpoint, group) for group in groups]


def group_numbers(context: Context, optimizer: Optimizer, key: str) -> list[float] | None:
    """One number of every group; None if a group lacks it or keeps it as a tensor."""
    found = [number(context.checkpoint, group.get(key)) for group in group_fields(context, optimizer)]
    return [x for x in found if x is not None] if found and None not in found else None


def numbers(context: Context, index: int | None) -> list[float] | None:
    """A list of plain numbers; None for anything else."""
    found = [number(context.checkpoint, i) for i in items(context.checkpoint, index)]
    return [x for x in found if x is not None] if found and None not in found else None


def schedules(context: Context) -> list[tuple[str, dict[str, int]]]:
    """Each top-level schedule's key and fields; schedules inside a ``SequentialLR`` are not listed."""
    found: list[tuple[str, dict[str, int]]] = []
    for section in sections(context, "scheduler"):
        node = context.checkpoint.nodes[section.index]
        if isinstance(node, Mapping):
            found.append((section.key, fields(context.checkpoint, section.index)))
        elif isinstance(node, Sequence):
            found += [(f"{section.key}.{i}", fields(context.checkpoint, at)) for i, at in enumerate(node.items)]
    return [(key, known) for key, known in found if known]


def paired(context: Context) -> Iterator[tuple[str, dict[str, int], Optimizer]]:
    """Schedules with the optimizer that each drives, where there are as many of one as of the other."""
    listed = schedules(context)
    if len(listed) == len(context.layout.optimizers):
        for (key, known), optimizer in zip(listed, context.layout.optimizers, strict=True):
            yield key, known, optimizer


def close(left: float, right: float) -> bool:
    """Equal up to the rounding of a schedule's arithmetic."""
    return abs(left - right) <= 1e-9 + 1e-6 * max(abs(left), abs(right))


def slot_tensors(context: Context, slot: Slot) -> Iterator[tuple[str, int, Tensor]]:
    """A slot's tensors: name, node index, tensor."""
    for name, index in slot.state:
        node = context.checkpoint.nodes[index]
        if isinstance(node, Tensor):
            yield name, index, node


def parameter_of(context: Context, slot: Slot) -> Tensor | None:
    """The parameter that a slot belongs to, None if it is not known."""
    node = None if slot.parameter is None else context.checkpoint.nodes[slot.parameter]
    return node if isinstance(node, Tensor) else None


def tensors_in(context: Context, section: Section) -> dict[str, Tensor]:
    """A section's tensors by their key inside it; walked once for all rules that ask."""
    found = context.walked.get(section.index)
    if found is None:
        nodes = context.checkpoint.nodes
        below = subtree_tensors(context.checkpoint, section.index)
        found = {key: node for key, i in below.items() if isinstance(node := nodes[i], Tensor)}
        context.walked[section.index] = found
    return found


def value_of(context: Context, index: int) -> float | None:
    """The number at a node: plain, or a tensor of one element whose content was measured."""
    node = context.checkpoint.nodes[index]
    if isinstance(node, Value):
        return number(context.checkpoint, index)
    measured = None if context.measures is None else context.measures.tensors.get(index)
    if not isinstance(node, Tensor) or node.numel != 1 or measured is None or measured.nan or measured.inf:
        return None
    return measured.abs_max


def shape_text(shape: tuple[int, ...]) -> str:
    """A shape as people write it."""
    return f"[{', '.join(map(str, shape))}]"


def listing(names: list[str]) -> str:
    """The first names, and how many more there are."""
    shown = ", ".join(f"'{printable(name)}'" for name in names[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown} and {len(names) - SHOWN} more"


def json_list(names: list[str]) -> list[Json]:
    """The first hundred names, as facts hold them."""
    return list(names[:100])
