"""Traces: what a training process did, step by step, as digests. One JSON object to a line; small and versioned.

A trace is a folder: ``r0-1.jsonl`` is what process 1 of rank 0 wrote (processes are counted as they start). Lines:
``start`` (schema, environment), ``generator`` (seeded or restored before the first step), ``state`` (digests before
the first training forward), ``step`` (digests after an optimizer's step), ``between`` (what moved until the next one),
``save`` (digests of what is about to be saved), ``saved`` (it was), ``files`` (what happened to files since), ``load``,
``signalled``, ``batches`` (why they are not exchanged), ``disk`` (what the last save did to files),
``end``. docs/reference/traces.md has every key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ckpttool.determinism.traits import Trait

SCHEMA = "ckpttool.trace/1"

COMPONENTS = (
    "data", "rng", "params", "buffers", "gradients", "optimizer", "lr", "scheduler", "scaler", "ema", "counters",
    "loss", "artifact",
)  # fmt: skip
"""The parts of a step. A field is a component, or a component and a name (``rng.torch``, ``optimizer.exp_avg``)."""


@dataclass(frozen=True, slots=True)
class Step:
    """A step: its number in the run, the fields' digests, the loss as a float for people.

    ``rows`` has eight hex digits for each sample, ``contents`` the same of what is in it, where the script says which
    samples they are; ``graded`` is how many parameters got a gradient, ``micro`` how many batches these are from.
    Of the state before the first step also traits of its tensors, and its plain values as text.
    """

    number: int
    fields: Mapping[str, str] = field(hash=False)
    loss: float | None = None
    tensors: Mapping[str, str] = field(default_factory=dict, hash=False)
    rows: str = ""
    graded: int | None = None
    micro: int | None = None
    contents: str = ""
    traits: Mapping[str, Trait] = field(default_factory=dict, hash=False)
    values: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Save:
    """A save or a load: after which step, where, the digest of all of it and of each of its top-level parts.

    Of a save also: which one of its process it is, the digests of its single values and of the live state by name,
    whether it came to its end, the file's bytes, what happened to files from its beginning to the next step, traits of
    the live tensors, plain values as text. Of a load also the names in the checkpoint that nothing asked for, where
    the format tells.
    """

    number: int
    path: str
    digest: str
    parts: Mapping[str, str] = field(default_factory=dict, hash=False)
    ordinal: int = 0
    leaves: Mapping[str, str] = field(default_factory=dict, hash=False)
    live: Mapping[str, str] = field(default_factory=dict, hash=False)
    complete: bool = True
    size: int | None = None
    events: tuple[tuple[str, str], ...] = ()
    traits: Mapping[str, Trait] = field(default_factory=dict, hash=False)
    values: Mapping[str, str] = field(default_factory=dict, hash=False)
    unread: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Between:
    """What was moved after a step and before the next, and how much was saved and evaluated there."""

    number: int
    saves: int
    evaluations: int
    moved: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Process:
    """What one process did. ``base`` is the step that it went on from, None where it loaded nothing that is known.

    ``modules`` are settings and modes of modules before the first step; ``seeds`` and ``restored`` the digests of
    torch's generator after it was seeded or restored before then; ``signalled`` is the step at which it was told
    to end.
    """

    rank: int
    base: int | None
    environment: Mapping[str, str] = field(default_factory=dict, hash=False)
    state: Step | None = None
    steps: tuple[Step, ...] = ()
    saves: tuple[Save, ...] = ()
    loads: tuple[Save, ...] = ()
    ended: str = ""
    modules: Mapping[str, str] = field(default_factory=dict, hash=False)
    seeds: tuple[str, ...] = ()
    restored: tuple[str, ...] = ()
    between: tuple[Between, ...] = ()
    signalled: int | None = None
    signals: int = 0
    batches: str = ""
    disk: tuple[tuple[str, ...], ...] = ()


def steps_in(processes: Iterable[Process]) -> int:
    """The last step that a trace reaches."""
    return max((step.number for process in processes for step in process.steps), default=0)


def component_of(name: str) -> str:
    """The component that a field belongs to."""
    return name.partition(".")[0]
