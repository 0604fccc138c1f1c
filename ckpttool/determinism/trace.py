"""Traces: what a training process did, step by step, as digests. One JSON object to a line; small and versioned.

A trace is a folder: ``r0-1.jsonl`` is what process 1 of rank 0 wrote (processes are counted as they start). Lines:
``start`` (schema, environment), ``state`` (digests before the first training forward), ``step`` (digests after an
optimizer's step), ``save`` and ``load`` (digests of what was saved or loaded), ``end``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

SCHEMA = "ckpttool.trace/1"

COMPONENTS = (
    "data", "rng", "params", "buffers", "gradients", "optimizer", "lr", "scheduler", "scaler", "ema", "counters",
    "loss",
)  # fmt: skip
"""The parts of a step. A field is a component, or a component and a name (``rng.torch``, ``optimizer.exp_avg``)."""


@dataclass(frozen=True, slots=True)
class Step:
    """A step: its number in the run, the fields' digests, the loss as a float for people."""

    number: int
    fields: Mapping[str, str] = field(hash=False)
    loss: float | None = None
    tensors: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Save:
    """A save or a load: after which step, where, the digest of all of it and of each of its top-level parts."""

    number: int
    path: str
    digest: str
    parts: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Process:
    """What one process did. ``base`` is the step that it went on from, None where it loaded nothing that is known."""

    rank: int
    base: int | None
    environment: Mapping[str, str] = field(default_factory=dict, hash=False)
    state: Step | None = None
    steps: tuple[Step, ...] = ()
    saves: tuple[Save, ...] = ()
    loads: tuple[Save, ...] = ()
    ended: str = ""


class TraceError(ValueError):
    """A folder or a line that is no trace; the text says which and why."""


def read_trace(folder: Path) -> tuple[Process, ...]:
    """The processes of a trace in the order in which they started. A last line that was cut off is left out.

    Raises ``TraceError`` for a folder without traces, and for a version that is not known.
    """
    files = sorted(folder.glob("r*-*.jsonl"), key=_order)
    if not files:
        raise TraceError(f"{folder} – no trace here: no optimizer step was seen")
    return tuple(_process(path) for path in files)


def _order(path: Path) -> tuple[int, int]:
    rank, _, number = path.stem[1:].partition("-")
    return (int(number), int(rank)) if rank.isdecimal() and number.isdecimal() else (0, 0)


def _process(path: Path) -> Process:
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    if not lines or lines[0].get("schema") != SCHEMA:
        raise TraceError(f"{path} – not a trace of version {SCHEMA}")
    kinds: dict[str, list[dict[str, object]]] = {}
    for line in lines:
        kinds.setdefault(str(line.get("kind")), []).append(line)
    head = lines[0]
    bases = [int(line["base"]) for line in lines if isinstance(line.get("base"), int)]
    states = [_step(line) for line in kinds.get("state", [])]
    return Process(
        int(head.get("rank", 0)),
        bases[-1] if bases else None,
        {str(k): str(v) for k, v in head.get("environment", {}).items()},
        states[0] if states else None,
        tuple(_step(line) for line in kinds.get("step", [])),
        tuple(_save(line) for line in kinds.get("save", [])),
        tuple(_save(line) for line in kinds.get("load", [])),
        str(kinds["end"][-1].get("why", "")) if "end" in kinds else "",
    )


def _step(line: Mapping[str, object]) -> Step:
    fields, tensors, loss = line.get("fields"), line.get("tensors"), line.get("loss")
    return Step(
        int(str(line.get("step", 0))),
        {str(k): str(v) for k, v in fields.items()} if isinstance(fields, dict) else {},
        float(loss) if isinstance(loss, (int, float)) else None,
        {str(k): str(v) for k, v in tensors.items()} if isinstance(tensors, dict) else {},
    )


def _save(line: Mapping[str, object]) -> Save:
    parts = line.get("parts")
    found = {str(k): str(v) for k, v in parts.items()} if isinstance(parts, dict) else {}
    return Save(int(str(line.get("step", 0))), str(line.get("path", "")), str(line.get("digest", "")), found)


def component_of(name: str) -> str:
    """The component that a field belongs to."""
    return name.partition(".")[0]
