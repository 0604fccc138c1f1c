"""What a checkpoint's tree is made of: sections, and which optimizer state belongs to which parameter."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Literal, TypeAlias

from ckpttool.frozen import dataclass
from ckpttool.model import Checkpoint, Mapping, Tensor
from ckpttool.tree import lookup

Confidence: TypeAlias = Literal["confirmed", "inferred"]
SectionName: TypeAlias = Literal[
    "weights", "optimizer", "scheduler", "scaler", "ema", "rng", "data", "counters", "config", "other"
]


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the tree that plays one role: where it stands and the node that roots it."""

    name: SectionName
    path: tuple[str, ...]
    index: int
    confidence: Confidence = "inferred"

    @property
    def key(self) -> str:
        return ".".join(self.path)


@dataclass(frozen=True, slots=True)
class Slot:
    """One parameter's place in an optimizer: its id there, its name if recovered, its state's tensors.

    ``state`` pairs a moment's name (``exp_avg``) with a node index (tensor or value); ``shape`` is what the
    moments say the parameter's shape is, None if no moment has it. ``group`` is the index of its group.
    ``name`` is the key inside the weights' section; ``parameter`` the node of that tensor, None if not there.
    """

    ident: str
    group: int
    name: str | None
    confidence: Confidence
    shape: tuple[int, ...] | None
    state: tuple[tuple[str, int], ...]
    parameter: int | None = None


@dataclass(frozen=True, slots=True)
class Optimizer:
    """One optimizer's state dict, aligned with the weights.

    ``kind`` is the class told by its fingerprint (``AdamW``, ``SGD``, …; ``Adam/AdamW`` where it cannot be told).
    ``named`` says how slots got their names: ``param_names``, ``fqn`` (keys are names), ``shapes`` (aligned by
    shape) or ``none``. ``orphans`` are state ids that no group lists; ``stateless`` ids have no state.
    """

    path: tuple[str, ...]
    index: int
    kind: str
    named: Literal["param_names", "fqn", "shapes", "none"]
    slots: tuple[Slot, ...]
    orphans: tuple[str, ...] = ()
    stateless: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return ".".join(self.path)


@dataclass(frozen=True, slots=True)
class Writer:
    """The framework that wrote a checkpoint. ``clues`` are the keys or files that say so.

    ``never`` names the parts that this framework does not save, whatever its settings.
    """

    framework: str
    version: str | None
    confidence: Confidence
    clues: tuple[str, ...] = ()
    never: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Readiness:
    """What a resume finds here. ``has`` and ``lacks`` name parts (``optimizer``, ``rng``, ``data position``, …).

    ``level`` is the highest that holds. ``blockers`` are the parts without which ``resumable`` (``exact``) fails.
    ``next`` says in words at which step or epoch training continues, empty where it cannot be told.
    """

    level: Literal["none", "weights-only", "resumable", "exact"]
    has: tuple[str, ...]
    lacks: tuple[str, ...]
    next: str = ""


@dataclass(frozen=True, slots=True)
class Layout:
    """The roles found in one checkpoint's tree. Built once by ``profiles.lay_out`` and used by every verb.

    ``parameters`` are the model's trainable tensors in its own order, ties once, as ``(key inside the weights'
    section, node index)``; ``ordered`` is False where the file does not keep that order (safetensors sorts).
    ``rng`` lists generator states as ``(kind, node index)``, kinds being ``python``, ``numpy``, ``torch`` and
    ``cuda``. ``notes`` are what the writer's habits mean for this very file.
    """

    sections: tuple[Section, ...] = ()
    optimizers: tuple[Optimizer, ...] = ()
    writer: Writer | None = None
    readiness: Readiness = Readiness("none", (), ())
    parameters: tuple[tuple[str, int], ...] = ()
    ordered: bool = True
    rng: tuple[tuple[str, int], ...] = ()
    notes: tuple[str, ...] = ()

    def section_of(self, path: tuple[str, ...]) -> SectionName:
        """The section that a path belongs to: the deepest one whose path starts it; ``other`` if none."""
        best: Section | None = None
        for section in self.sections:
            deeper = best is None or len(section.path) >= len(best.path)
            if deeper and path[: len(section.path)] == section.path:
                best = section
        return "other" if best is None else best.name


def nested(checkpoint: Checkpoint, sections: Sequence[Section]) -> list[Section]:
    """Sections of one role, with those that make up a nested state dict as the dict around them.

    ``{"model": {"encoder": {…}, "decoder": {…}}}`` is one model in two dicts. The root is never one: what stands
    there side by side are models of their own. Linear in the sections and in the keys around them.
    """
    inside: dict[tuple[str, ...], set[int]] = {}
    for section in sections:
        inside.setdefault(section.path[:-1], set()).add(section.index)
    whole = {above: _whole(checkpoint, above, those) for above, those in inside.items()}
    found: dict[int, Section] = {}
    for at, section in enumerate(sections):
        above = section.path[:-1]
        index = whole[above] if section.path else None
        one = section if index is None else replace(section, path=above, index=index)
        found.setdefault(-at - 1 if index is None else index, one)
    return list(found.values())


def _whole(checkpoint: Checkpoint, path: tuple[str, ...], sections: Collection[int]) -> int | None:
    """The dict at a path, if it holds these sections and tensors, and nothing else."""
    index = lookup(checkpoint, checkpoint.root, *path) if path else None
    node = None if index is None else checkpoint.nodes[index]
    if not isinstance(node, Mapping):
        return None
    only = all(value in sections or isinstance(checkpoint.nodes[value], Tensor) for value in node.values)
    return index if only else None
