"""Writes down what a training process does, through torch's own global hooks: no line of the script changes.

Parameters get their names from the root module of the forward pass; a batch belongs to the step that consumes it.
Everything is a digest (XXH3-128 over name, type, shape and bytes) or a float as exact hex. Off unless
``CKPTTOOL_TRACE_DIR`` is set.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import platform
import random
import signal
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import xxhash
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.optimizer import register_optimizer_step_post_hook

from ckpttool.determinism.orders import Orders
from ckpttool.determinism.surgery import break_part, read_parts, transplant
from ckpttool.determinism.trace import SCHEMA

_INSTALLED: list[Recorder] = []


def install() -> Recorder | None:
    """Start recording in this process, once; None where no trace is asked for."""
    if _INSTALLED:
        return _INSTALLED[0]
    orders = Orders.from_environment()
    if orders is None:
        return None
    recorder = Recorder(orders)
    recorder.hook()
    _INSTALLED.append(recorder)
    return recorder


class Recorder:
    """One process's trace. Use ``from_env`` in a script that wants to name what hooks cannot see."""

    def __init__(self, orders: Orders) -> None:
        self.orders = orders
        self.rank = int(os.environ.get("RANK", "0"))
        self.base = 0  # the step that this process went on from
        self.done = 0  # steps of this process
        self.depth = 0  # forward calls that are open
        self.roots: weakref.WeakSet[nn.Module] = weakref.WeakSet()
        self.schedulers: weakref.WeakSet[Any] = weakref.WeakSet()
        self.scalers: weakref.WeakSet[Any] = weakref.WeakSet()
        self.optimizers: weakref.WeakSet[torch.optim.Optimizer] = weakref.WeakSet()
        self.averages: weakref.WeakSet[nn.Module] = weakref.WeakSet()
        self.extra: dict[str, Any] = {}  # what a script named itself
        self.batch: list[str] = []  # digests of what went into training forwards since the last step
        self.losses: list[float] = []
        self.before: dict[
            str, str
        ] = {}  # generators and settings at the first training forward since the last step
        self.saves = 0
        self.saving = False
        self.started = False  # the first training forward has come
        self.file = _open(orders.folder, self.rank)
        self.write("start", schema=SCHEMA, rank=self.rank, pid=os.getpid(), environment=environment())

    # --- three lines in a script -----------------------------------------------------------------------------

    @classmethod
    def from_env(cls, **parts: Any) -> Recorder | Silent:
        """The recorder of this process with parts that hooks cannot see: ``ema=``, ``scaler=``, ``counters=``, ….

        A part is a module, anything with ``state_dict()``, or a function without arguments that gives plain data.
        Where no trace is asked for, something that does nothing and costs nothing.
        """
        recorder = install()
        if recorder is None:
            return Silent()
        recorder.extra.update(parts)
        return recorder

    def step(self, number: int | None = None, *, ids: object = None, loss: float | None = None) -> None:
        """Say which samples the step that just ended consumed, and its loss; both join the next line."""
        if ids is not None:
            self.batch.append(_plain_digest(ids))
        if loss is not None:
            self.losses.append(float(loss))

    # --- hooks ---------------------------------------------------------------------------------------------

    def hook(self) -> None:
        """Put the hooks in place."""
        register_optimizer_step_post_hook(self.after_step)
        _wrap(nn.Module, "__call__", self.around_call)
        _wrap(Tensor, "backward", self.around_backward)
        _wrap(torch.autograd, "backward", self.around_autograd)
        _wrap(torch, "save", self.around_save)
        _wrap(torch, "load", self.around_load)
        _wrap(LRScheduler, "__init__", functools.partial(self.around_init, self.schedulers))
        _wrap(torch.amp.GradScaler, "__init__", functools.partial(self.around_init, self.scalers))
        _wrap(torch.optim.Optimizer, "__init__", functools.partial(self.around_init, self.optimizers))
        from torch.optim.swa_utils import AveragedModel

        _wrap(AveragedModel, "__init__", functools.partial(self.around_init, self.averages))
        sys.addaudithook(self.on_event)
        for name in ("safetensors.torch",):
            if name in sys.modules:
                self.hook_safetensors(sys.modules[name])

    def hook_safetensors(self, module: Any) -> None:
        """The same for a library that saves by itself."""
        _wrap(module, "save_file", self.around_save)
        _wrap(module, "load_file", self.around_load)

    def around_init(self, kept: Any, call: Callable[..., Any], thing: Any, *args: Any, **kwargs: Any) -> Any:
        found = call(thing, *args, **kwargs)
        kept.add(thing)
        return found

    def around_call(self, call: Callable[..., Any], module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if self.depth == 0 and module.training and torch.is_grad_enabled() and self._trains(module):
            self.before_forward(module, args, kwargs)
        self.depth += 1
        try:
            return call(module, *args, **kwargs)
        finally:
            self.depth -= 1

    def before_forward(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """A training forward of a root module begins: what goes in, and the generators."""
        self.roots.add(module)
        if not self.started:
            self.started = True
            self.first_forward()
        if not self.before:
            self.before = generators() | self.settings()
        self.batch.append(_plain_digest((args, kwargs)))

    def first_forward(self) -> None:
        """The state that the first step starts from: what a resume restored. Orders to change it are obeyed here."""
        self.write("state", step=self.base, fields=self.state_fields() | generators())
        if self.orders.transplant:
            transplant(self, self.orders.transplant, self.orders.parts)
        elif self.orders.drop:
            break_part(self, self.orders.drop)

    def around_backward(self, call: Callable[..., Any], tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        self.losses.append(_number(tensor))
        return call(tensor, *args, **kwargs)

    def around_autograd(self, call: Callable[..., Any], tensors: Any, *args: Any, **kwargs: Any) -> Any:
        return call(tensors, *args, **kwargs)

    def after_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """An optimizer has stepped: one line, and the end of the process if that was ordered."""
        self.optimizers.add(optimizer)
        self.done += 1
        number = self.base + self.done
        fields = {
            "data": _joined(self.batch),
            "loss": _joined([loss.hex() for loss in self.losses]),
            "gradients": _digest(self.gradients()),
            **self.state_fields(),
            **self.before,
        }
        loss = sum(self.losses) / len(self.losses) if self.losses else None
        tensors = dict(self.each_tensor()) if self.orders.full else {}
        self.write("step", step=number, fields=fields, loss=loss, tensors=tensors)
        self.batch, self.losses, self.before = [], [], {}
        if number in self.orders.snapshots:
            _original(torch, "save")(read_parts(self), str(self.orders.folder / f"snapshot-{number}.pt"))
        if (
            self.orders.kill_at is not None
            and number >= self.orders.kill_at
            and self.rank in self.orders.ranks(self.rank)
        ):
            self.end(f"killed after step {number}")

    # --- saves and loads -----------------------------------------------------------------------------------

    def around_save(self, call: Callable[..., Any], obj: Any, target: Any, *args: Any, **kwargs: Any) -> Any:
        if self.saving:
            return call(obj, target, *args, **kwargs)
        self.saves += 1
        path = (
            os.fspath(target)
            if isinstance(target, (str, os.PathLike))
            else str(getattr(target, "name", "") or "")
        )
        self.write("save", step=self.base + self.done, path=str(path), **_object_digests(obj))
        self.saving = True
        try:
            found = call(obj, target, *args, **kwargs)
        finally:
            self.saving = False
        if self.orders.torn == self.saves:
            self.tear(path)
        return found

    def tear(self, path: str) -> None:
        """Cut what was just written at a byte, as a power failure does, and end."""
        if path and Path(path).is_file():
            size = Path(path).stat().st_size
            os.truncate(path, int(size * self.orders.torn_share))
        self.end(f"torn during save {self.saves}")

    def around_load(self, call: Callable[..., Any], source: Any, *args: Any, **kwargs: Any) -> Any:
        found = call(source, *args, **kwargs)
        if not self.saving:
            digests = _object_digests(found)
            step = self.orders.step_of(digests)
            if step is not None and not self.done:
                self.base = max(self.base, step)
            self.write(
                "load",
                step=self.base,
                base=self.base if step is not None else None,
                path=str(source)[:400],
                **digests,
            )
        return found

    def on_event(self, event: str, args: Any) -> None:
        """Count the file events of a save; the ordered one is the last thing that happens."""
        if (
            self.saving
            and self.orders.kill_in_save == self.saves
            and event in ("open", "os.rename", "os.remove", "os.mkdir")
        ):
            self.orders.events -= 1
            if self.orders.events <= 0:
                self.end(f"killed inside save {self.saves}")

    # --- what is written -----------------------------------------------------------------------------------

    def state_fields(self) -> dict[str, str]:
        """Digests of everything that a step changes and the next one starts from."""
        tensors = {"params": _digest(self.parameters()), "buffers": _digest(self.buffers())}
        return {**tensors, **self.optimizer_fields(), **self.settings()}

    def settings(self) -> dict[str, str]:
        """Digests of what scripts move between two steps: rates, schedules, scalers, averages, what they named."""
        groups = [group for optimizer in _in_order(self.optimizers) for group in optimizer.param_groups]
        fields = {"lr": _joined([_hex(group["lr"]) for group in groups])}
        for name, things in (("scheduler", self.schedulers), ("scaler", self.scalers)):
            states = [thing.state_dict() for thing in _in_order(things)]
            if any(states):
                fields[name] = _plain_digest(states)
        averages = [
            (f"{i}.{n}", t) for i, m in enumerate(_in_order(self.averages)) for n, t in m.state_dict().items()
        ]
        if averages:
            fields["ema"] = _digest(averages)
        return fields | {name: _plain_digest(_state_of(part)) for name, part in self.extra.items()}

    def optimizer_fields(self) -> dict[str, str]:
        """One digest for each kind of state, over all parameters by name."""
        names = {id(p): name for name, p in self.parameters()}
        found: dict[str, list[tuple[str, Any]]] = {}
        for number, optimizer in enumerate(_in_order(self.optimizers)):
            for place, p in enumerate(p for group in optimizer.param_groups for p in group["params"]):
                for key, value in optimizer.state.get(p, {}).items():
                    found.setdefault(key, []).append((names.get(id(p), f"{number}.{place}"), value))
        return {f"optimizer.{key}": _mixed(values) for key, values in sorted(found.items())}

    def parameters(self) -> list[tuple[str, Tensor]]:
        """Named parameters of all roots, then of optimizers what no root has."""
        found: dict[int, tuple[str, Tensor]] = {}
        for root in _in_order(self.roots):
            for name, p in root.named_parameters():
                found.setdefault(id(p), (_bare(name), p))
        return list(found.values())

    def buffers(self) -> list[tuple[str, Tensor]]:
        return [(_bare(name), b) for root in _in_order(self.roots) for name, b in root.named_buffers()]

    def gradients(self) -> list[tuple[str, Tensor]]:
        return [(name, p.grad) for name, p in self.parameters() if p.grad is not None]

    def each_tensor(self) -> Iterator[tuple[str, str]]:
        """Digests of single tensors, for the step that is looked at closely."""
        for kind, tensors in (
            ("params", self.parameters()),
            ("buffers", self.buffers()),
            ("gradients", self.gradients()),
        ):
            for name, tensor in tensors:
                yield f"{kind}.{name}", _digest([(name, tensor)])

    def write(self, kind: str, **facts: Any) -> None:
        """One line, out of the process before anything else happens."""
        os.write(self.file, (json.dumps({"kind": kind, **facts}) + "\n").encode())

    def end(self, why: str) -> None:
        """Write the last line and die, by the signal that was ordered."""
        self.write("end", why=why)
        os.kill(os.getpid(), self.orders.signal)
        if self.orders.signal == signal.SIGKILL:
            signal.pause()
        self.orders.kill_at = None

    def _trains(self, module: nn.Module) -> bool:
        return next((True for p in module.parameters() if p.requires_grad), False)


class Silent:
    """Stands for a recorder where nothing is recorded."""

    def step(self, number: int | None = None, *, ids: object = None, loss: float | None = None) -> None:
        """Do nothing."""


# --- digests -------------------------------------------------------------------------------------------------------


def _digest(tensors: Any) -> str:
    total = xxhash.xxh3_128()
    for name, tensor in tensors:
        _add(total, name, tensor)
    return total.hexdigest()


def _add(total: Any, name: str, tensor: Tensor) -> None:
    local = tensor.detach()
    local = local.to_local() if hasattr(local, "to_local") else local
    total.update(f"{name}|{local.dtype}|{tuple(local.shape)}|".encode())
    if local.layout is torch.strided and local.numel():
        total.update(local.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())


def _mixed(values: list[tuple[str, Any]]) -> str:
    total = xxhash.xxh3_128()
    for name, value in values:
        if isinstance(value, Tensor):
            _add(total, name, value)
        else:
            total.update(f"{name}|{value!r}".encode())
    return total.hexdigest()


def _plain_digest(value: Any) -> str:
    """Over any nesting of containers, tensors, arrays and plain values; of other objects only their type."""
    total = xxhash.xxh3_128()
    stack = [("", value)]
    while stack:
        name, item = stack.pop()
        if isinstance(item, Tensor):
            _add(total, name, item)
        elif isinstance(item, Mapping):
            total.update(f"{name}{{{len(item)}".encode())
            stack.extend((f"{name}.{key}", item[key]) for key in reversed(list(item)))
        elif isinstance(item, (list, tuple)):
            total.update(f"{name}[{len(item)}".encode())
            stack.extend((f"{name}.{i}", part) for i, part in reversed(list(enumerate(item))))
        elif hasattr(item, "tobytes"):
            total.update(
                f"{name}|{getattr(item, 'dtype', '')}|{getattr(item, 'shape', '')}|".encode() + item.tobytes()
            )
        elif isinstance(item, float):
            total.update(f"{name}={item.hex()}".encode())
        elif item is None or isinstance(item, (bool, int, str, bytes, complex)):
            total.update(f"{name}={item!r}".encode())
        else:
            total.update(f"{name}:{type(item).__qualname__}".encode())
    return total.hexdigest()


def _object_digests(obj: Any) -> dict[str, Any]:
    parts = (
        {str(k): _plain_digest(v) for k, v in obj.items()}
        if isinstance(obj, Mapping) and len(obj) <= 256
        else {}
    )
    return {"digest": _plain_digest(obj), "parts": parts}


def _joined(items: list[str]) -> str:
    return (
        items[0]
        if len(items) == 1
        else xxhash.xxh3_128("|".join(items).encode()).hexdigest()
        if items
        else ""
    )


def generators() -> dict[str, str]:
    """Digests of the states of all global generators."""
    found = {
        "rng.python": _plain_digest(random.getstate()),
        "rng.torch": _plain_digest(torch.get_rng_state()),
    }
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        found["rng.numpy"] = _plain_digest(numpy.random.get_state())
    if torch.cuda.is_available():
        found["rng.cuda"] = _plain_digest(torch.cuda.get_rng_state_all())
    return found


def environment() -> dict[str, str]:
    """What bits depend on beside the state."""
    return {
        "python": platform.python_version(), "torch": str(torch.__version__), "machine": platform.machine(),
        "isa": torch.backends.cpu.get_cpu_capability(), "threads": str(torch.get_num_threads()),
        "world_size": os.environ.get("WORLD_SIZE", "1"),
    }  # fmt: skip


# --- small things --------------------------------------------------------------------------------------------------

_ORIGINALS: dict[tuple[int, str], Any] = {}


def _wrap(owner: Any, name: str, around: Callable[..., Any]) -> None:
    """Replace a function by one that hands it to ``around``; the original stays reachable."""
    original = getattr(owner, name)
    _ORIGINALS[id(owner), name] = original

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return around(original, *args, **kwargs)

    setattr(owner, name, wrapped)


def _original(owner: Any, name: str) -> Any:
    return _ORIGINALS[id(owner), name]


def _in_order(things: Any) -> list[Any]:
    """Weakly held things in the order in which they were met."""
    return sorted(things, key=lambda thing: _MET.setdefault(id(thing), len(_MET)))


_MET: dict[int, int] = {}


def _bare(name: str) -> str:
    """A parameter's name without what wrappers put before it."""
    for wrapper in ("module.", "_orig_mod.", "_forward_module.", "_fsdp_wrapped_module."):
        name = name.replace(wrapper, "") if wrapper.startswith("_") else name.removeprefix(wrapper)
    return name


def _number(tensor: Tensor) -> float:
    return float(tensor.detach()) if tensor.numel() == 1 else float(tensor.detach().sum())


def _hex(value: Any) -> str:
    return float(value).hex()


def _state_of(part: Any) -> Any:
    if hasattr(part, "state_dict"):
        return part.state_dict()
    return part() if callable(part) else part


def _open(folder: Path, rank: int) -> int:
    """A new file for this process: the next number of its rank."""
    folder.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        with contextlib.suppress(FileExistsError):
            return os.open(
                folder / f"r{rank}-{number}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644
            )
        number += 1
