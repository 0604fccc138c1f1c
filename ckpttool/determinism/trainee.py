"""A training in this very process, for tests: what it has to be able to do, and one life of it, recorded.

A life stands for a process: it begins with generators that nobody seeded, has them to itself while it steps, and ends
without a word. Fields have the names that traces have, so that the same comparison and diagnosis serve both.
"""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from ckpttool.determinism.leaves import FLOATS, Leaves, digest, leaves_of, number_of
from ckpttool.determinism.trace import COMPONENTS, Step

STEPS = {"ids": "data", "batch": "data", "inputs": "data"}
"""Names in what a step returns that mean a component of another name."""


class Trainee(Protocol):
    """A training that can be stopped after any step. What builds it also seeds it, as a script's first lines do.

    ``state()`` is optional: a mapping of everything that lasts, by name. Without it the attributes are looked at:
    modules, optimizers, schedulers, scalers, generators, whatever has a ``state_dict``, tensors, arrays and plain
    values. Optional too: ``evaluate()``, which must change nothing, and ``change_workers(number)``.
    """

    def step(self) -> object:
        """Train one step. What it returns is compared as well: a loss, or a mapping like ``{"loss": …, "ids": …}``."""

    def save(self, path: Path) -> object:
        """Write a checkpoint to a path where nothing is yet: a file or a folder."""

    def load(self, path: Path) -> object:
        """Go on from a checkpoint, in a trainee that was just built."""


Factory: TypeAlias = Callable[[], Trainee]
Fields: TypeAlias = dict[str, Leaves]


class Life:
    """One trainee from its making to its end. ``number`` tells one life's unseeded generators from another's."""

    def __init__(self, factory: Factory, number: int) -> None:
        self._world = World(number)
        self.done = 0
        with self._world.entered():
            self.trainee = factory()

    def load(self, path: Path, step: int) -> None:
        """Go on from what was saved after a step."""
        with self._world.entered():
            self.trainee.load(path)
        self.done = step

    def save(self, path: Path) -> None:
        """Write a checkpoint."""
        with self._world.entered():
            self.trainee.save(path)

    def call(self, name: str, *arguments: object) -> None:
        """Call one of the optional methods."""
        with self._world.entered():
            getattr(self.trainee, name)(*arguments)

    def state(self) -> Fields:
        """All that lasts, by field, the generators among it."""
        with self._world.entered():
            return {**state_fields(self.trainee), **generators()}

    def step(self) -> Fields:
        """Train one step: what it told, and the state that it left."""
        with self._world.entered():
            told = _told(self.trainee.step())
            found = {**told, **gradient_fields(self.trainee), **state_fields(self.trainee), **generators()}
        self.done += 1
        return found


def recorded(number: int, fields: Fields) -> Step:
    """A step's fields as a line of a trace has them."""
    loss = fields.get("loss", {}).get("")
    single = loss is not None and len(loss.data) == FLOATS.get(loss.kind, -1)
    value = number_of(loss.kind, loss.data) if single and loss is not None else None
    return Step(number, {name: digest(leaves) for name, leaves in fields.items()}, value)


# --- generators --------------------------------------------------------------------------------------------


class World:
    """The global generators of one process, kept apart from those of the process that this really is."""

    def __init__(self, number: int) -> None:
        outside = _read()
        seed = 0x5EED_0000 + number
        random.seed(seed)
        for module in _seeding():
            module(seed)
        self._inside = _read()
        _write(outside)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Within, the global generators are this world's; outside they are as they were."""
        outside = _read()
        _write(self._inside)
        try:
            yield
        finally:
            self._inside = _read()
            _write(outside)


def _seeding() -> list[Callable[[int], object]]:
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    return [*([] if numpy is None else [numpy.random.seed]), *([] if torch is None else [torch.manual_seed])]


def _read() -> dict[str, Any]:
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    found: dict[str, Any] = {"python": random.getstate()}
    if numpy is not None:
        found["numpy"] = numpy.random.get_state()
    if torch is not None:
        found["torch"] = torch.get_rng_state()
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            found["cuda"] = torch.cuda.get_rng_state_all()
    return found


def _write(states: Mapping[str, Any]) -> None:
    random.setstate(states["python"])
    if "numpy" in states:
        sys.modules["numpy"].random.set_state(states["numpy"])
    if "torch" in states:
        sys.modules["torch"].set_rng_state(states["torch"])
    if "cuda" in states:
        sys.modules["torch"].cuda.set_rng_state_all(states["cuda"])


def generators() -> Fields:
    """The states of the global generators."""
    return {f"rng.{name}": leaves_of(state) for name, state in _read().items()}


# --- what lasts --------------------------------------------------------------------------------------------


def state_fields(trainee: Trainee) -> Fields:
    """Everything that a trainee says, or shows, to be its state."""
    parts = _parts(trainee)
    names = {
        id(p): f"{own}.{name}" for own, part in parts.items() if _is_module(part) for name, p in part.named_parameters()
    }
    found: dict[str, dict[str, Any]] = {}
    for name, part in parts.items():
        for field, leaves in _fields(name, part, names):
            found.setdefault(field, {}).update(leaves)
    return {field: dict(leaves) for field, leaves in found.items()}


def _parts(trainee: Trainee) -> dict[str, Any]:
    told = getattr(trainee, "state", None)
    found = told() if callable(told) else vars(trainee)
    return {str(name): part for name, part in dict(found).items()}


def _fields(name: str, part: Any, names: Mapping[int, str]) -> Iterator[tuple[str, Leaves]]:
    """One part as fields: what torch's own kinds of things hold, by kind; the rest under its own name."""
    kind = _kind(part)
    if kind == "module":
        yield "params", {f"{name}.{key}": leaf for key, leaf in _tensors(part.named_parameters())}
        yield "buffers", {f"{name}.{key}": leaf for key, leaf in _tensors(part.named_buffers())}
    elif kind == "optimizer":
        yield from _optimizer(part, names)
    elif kind:
        yield (f"rng.{name}" if kind == "rng" else kind), leaves_of(part, name)
    else:
        yield _field_of(name), leaves_of(part)


def _tensors(named: Any) -> Iterator[tuple[str, Any]]:
    for name, tensor in named:
        yield name, leaves_of(tensor)[""]


def _optimizer(optimizer: Any, names: Mapping[int, str]) -> Iterator[tuple[str, Leaves]]:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for place, parameter in enumerate(parameters):
        for key, value in optimizer.state.get(parameter, {}).items():
            yield f"optimizer.{key}", leaves_of(value, names.get(id(parameter), str(place)))
    yield "lr", leaves_of([group["lr"] for group in optimizer.param_groups])


def _kind(part: Any) -> str:
    """What a thing of torch is; empty for all others."""
    torch = sys.modules.get("torch")
    if torch is None:
        return ""
    if isinstance(part, torch.Generator):
        return "rng"
    averages = sys.modules.get("torch.optim.swa_utils")
    if averages is not None and isinstance(part, averages.AveragedModel):
        return "ema"
    kinds = (
        (torch.nn.Module, "module"), (torch.optim.Optimizer, "optimizer"), (torch.amp.GradScaler, "scaler"),
        (torch.optim.lr_scheduler.LRScheduler, "scheduler"),
    )  # fmt: skip
    return next((kind for known, kind in kinds if isinstance(part, known)), "")


def _is_module(part: Any) -> bool:
    return _kind(part) == "module"


def _field_of(name: str) -> str:
    """The field of a part that a trainee names itself: a component's own name, else a counter."""
    return name if _component(name) in COMPONENTS else f"counters.{name}"


def gradient_fields(trainee: Trainee) -> Fields:
    """The gradients that are there."""
    modules = {name: part for name, part in _parts(trainee).items() if _is_module(part)}
    found = {
        f"{name}.{key}": leaves_of(p.grad)[""]
        for name, module in modules.items()
        for key, p in module.named_parameters()
        if p.grad is not None
    }
    return {"gradients": found} if found else {}


def _told(told: object) -> Fields:
    """What a step returned."""
    if told is None:
        return {}
    if not isinstance(told, Mapping):
        return {"loss": leaves_of(told)}
    found: Fields = {}
    for name, value in told.items():
        field = STEPS.get(str(name), str(name))
        field = field if _component(field) in COMPONENTS else f"loss.{field}"
        found[field] = {**found.get(field, {}), **leaves_of(value, "" if field == name else str(name))}
    return found


def _component(name: str) -> str:
    return name.partition(".")[0]
