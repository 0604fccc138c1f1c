"""Writes down what a training process does, through torch's own global hooks: no line of the script changes.

Parameters get their names from the root module of the forward pass; a batch belongs to the step that consumes it.
Everything is a digest (XXH3-128 over name, type, shape and bytes) or a float as exact hex. Off unless
``CKPTTOOL_TRACE_DIR`` is set.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.optimizer import register_optimizer_step_post_hook

from ckpttool.determinism import digesting
from ckpttool.determinism.digesting import generators
from ckpttool.determinism.events import Pen, Window
from ckpttool.determinism.importing import when_imported
from ckpttool.determinism.orders import Orders
from ckpttool.determinism.surgery import break_part, read_parts, transplant
from ckpttool.determinism.trace import SCHEMA

ORDINARY = 3
"""First steps between which everything is looked at: what moves there moves without a save or an evaluation too."""

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
    """One process's trace. What hooks cannot see a script names: ``watching.Recorder``."""

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
        self.watched: weakref.WeakSet[nn.Module] = weakref.WeakSet()  # roots that a script named
        self.extra: dict[str, Any] = {}  # what a script named itself
        self.ignored: set[str] = set()
        self.batch: list[str] = []  # digests of what went into training forwards since the last step
        self.aside: list[str] = []  # and into forwards in evaluation mode that keep gradients
        self.rows: list[str] = []
        self.ids: list[str] = []  # what a script said of its samples
        self.given_rows: list[str] = []
        self.losses: list[float] = []
        self.before: dict[str, str] = {}  # generators and settings at the first training forward since the last step
        self.after: dict[str, str] = {}  # weights and generators as the last step left them
        self.evaluations = 0  # forward passes without gradients since the last step
        self.window = Window(orders)
        self.inner = 0  # saves and loads that are open: what they call is part of them
        self.started = False  # the first training forward has come
        self.pen = Pen(orders.folder, self.rank)
        self.pen.first("start", schema=SCHEMA, rank=self.rank, pid=os.getpid(), environment=environment())

    # --- what a script says itself: watching.Recorder -------------------------------------------------------

    def step(self, number: int | None = None, *, ids: object = None, loss: float | None = None) -> None:
        """Say which samples the step that comes consumes, and its loss; both join its line."""
        if ids is not None:
            self.ids.append(digesting.of_value(ids))
            self.given_rows.append(digesting.rows_of(ids))
        if loss is not None:
            self.losses.append(float(loss))

    # --- hooks ---------------------------------------------------------------------------------------------

    def hook(self) -> None:
        """Put the hooks in place."""
        register_optimizer_step_post_hook(self.after_step)
        _wrap(nn.Module, "__call__", self.around_call)
        _wrap(Tensor, "backward", self.around_backward)
        _wrap(torch, "save", self.around_save)
        _wrap(torch, "load", self.around_load)
        for owner in (torch, torch.random):
            _wrap(owner, "manual_seed", functools.partial(self.around_seed, "seeded"))
            _wrap(owner, "set_rng_state", functools.partial(self.around_seed, "restored"))
        _wrap(LRScheduler, "__init__", functools.partial(self.around_init, self.schedulers))
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau  # which does not call its parent's
        _wrap(plateau, "__init__", functools.partial(self.around_init, self.schedulers))
        _wrap(torch.amp.GradScaler, "__init__", functools.partial(self.around_init, self.scalers))
        _wrap(torch.optim.Optimizer, "__init__", functools.partial(self.around_init, self.optimizers))
        from torch.optim.swa_utils import AveragedModel

        _wrap(AveragedModel, "__init__", functools.partial(self.around_init, self.averages))
        sys.addaudithook(self.on_event)
        when_imported("safetensors.torch", self.hook_safetensors)
        when_imported("torch.distributed.checkpoint", self.hook_distributed)

    def hook_safetensors(self, module: Any) -> None:
        """The same for a library that saves by itself."""
        _wrap(module, "save_file", self.around_save)
        _wrap(module, "load_file", self.around_load)

    def hook_distributed(self, module: Any) -> None:
        """The same for torch's own sharded checkpoints, whose load fills what it is given."""
        for name in ("save", "async_save"):
            _wrap(module, name, self.around_sharded_save)
        _wrap(module, "load", self.around_sharded_load)

    def around_init(self, kept: Any, call: Callable[..., Any], thing: Any, *args: Any, **kwargs: Any) -> Any:
        found = call(thing, *args, **kwargs)
        kept.add(thing)
        return found

    def around_call(self, call: Callable[..., Any], module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if self.depth == 0 and not torch.compiler.is_compiling():
            self.root_called(module, args, kwargs)
        self.depth += 1
        try:
            return call(module, *args, **kwargs)
        finally:
            self.depth -= 1

    def root_called(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """An outermost forward pass begins: of training, or of something else."""
        if self.watched and module not in self.watched:
            named = (root for root in self.watched if any(part is module for part in root.modules()))
            module = next(named, module)
        if torch.is_grad_enabled() and any(p.requires_grad for p in module.parameters()):
            self.before_forward(module, (args, kwargs))
        else:
            self.evaluations += 1

    def before_forward(self, module: nn.Module, given: Any) -> None:
        """A training forward of a root module begins: what goes in, and the generators."""
        is_new = module not in self.roots
        self.roots.add(module)
        if is_new and not self.done:
            self.first_forward()
        if not self.before:
            self.before = generators() | self.settings()
            self.between()
        if module.training:
            self.batch.append(digesting.of_value(given))
            self.rows.append(digesting.rows_of(given))
        else:
            self.aside.append(digesting.of_value(given))

    def first_forward(self) -> None:
        """The state that the first step starts from: what a resume restored. Orders to change it are obeyed here."""
        known = generators()
        tensors = dict(self.each_tensor(gradients=False))
        self.write(
            "state",
            step=self.base,
            fields=self.state_fields() | self.settings() | known,
            tensors=tensors,
            modules=self.modules(),
            environment=environment(),
        )
        if self.orders.first:
            self.picture("first")
        if self.started:
            return
        self.started = True
        if self.orders.transplant:
            transplant(self, self.orders.transplant, self.orders.parts)
        elif self.orders.drop:
            break_part(self, self.orders.drop)

    def around_backward(self, call: Callable[..., Any], tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        self.losses.append(_number(tensor))
        return call(tensor, *args, **kwargs)

    def around_seed(self, how: str, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        found = call(*args, **kwargs)
        if not self.started and not self.inner:
            self.write("generator", how=how, digest=digesting.of_tensor(torch.get_rng_state()))
        return found

    def after_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """An optimizer has stepped: one line, and the end of the process if that was ordered."""
        self.optimizers.add(optimizer)
        self.done += 1
        number = self.base + self.done
        gradients = [(name, digesting.of_tensor(grad)) for name, grad in self.gradients()]
        state = self.state_fields()
        now = generators()
        fields = {
            "data": _joined(self.batch or self.aside),
            **({"data.ids": _joined(self.ids)} if self.ids else {}),
            "loss": _joined([loss.hex() for loss in self.losses]),
            "gradients": digesting.of_group(gradients),
            **state,
            **(self.before or (now | self.settings())),
        }
        loss = sum(self.losses) / len(self.losses) if self.losses else None
        facts: dict[str, Any] = {
            "rows": "".join(self.given_rows or self.rows),
            "graded": len(gradients),
            "micro": len(self.losses),
        }
        if self.orders.full:
            facts["tensors"] = dict(self.each_tensor())
        self.write("step", step=number, fields=fields, loss=loss, **facts)
        self.batch, self.aside, self.rows, self.ids, self.given_rows = [], [], [], [], []
        self.losses, self.before = [], {}
        self.after, self.evaluations = state | now, 0
        if number in self.orders.snapshots:
            self.picture(str(number))
        self.obey(number)

    def between(self) -> None:
        """What moved since the last step, where something was saved or evaluated; of generators in any case."""
        saves = self.window.close(self.write)
        if not self.after:
            return
        moved = [name for name, digest in self.after.items() if name in self.before and self.before[name] != digest]
        if saves or self.evaluations or self.done <= ORDINARY:
            now = self.state_fields()
            moved += [name for name in now if now[name] != self.after.get(name, now[name])]
        if moved or saves or self.evaluations:
            facts = {"saves": saves, "evaluations": self.evaluations, "moved": moved}
            self.write("between", step=self.base + self.done, **facts)
        self.after = {}

    def obey(self, number: int) -> None:
        """End, where a kill was ordered for this step."""
        orders = self.orders
        if orders.last is not None and number >= orders.last:
            self.end(f"ended after step {number}")
        if orders.kill_at is None or number < orders.kill_at or not orders.means(self.rank):
            return
        if orders.signal == signal.SIGKILL:
            self.end(f"killed after step {number}")
        orders.kill_at = None
        self.write("signalled", step=number, signal=orders.signal)
        watch = threading.Timer(orders.grace, self.end, [f"killed {orders.grace:g} s after the signal"])
        watch.daemon = True
        watch.start()
        os.kill(os.getpid(), orders.signal)

    # --- saves and loads -----------------------------------------------------------------------------------

    def around_save(self, call: Callable[..., Any], obj: Any, target: Any, *args: Any, **kwargs: Any) -> Any:
        return self.saved(obj, _path_of(target), functools.partial(call, obj, target, *args, **kwargs))

    def around_sharded_save(self, call: Callable[..., Any], state: Any, *args: Any, **kwargs: Any) -> Any:
        path = str(kwargs.get("checkpoint_id") or (args[0] if args else "") or "")
        return self.saved(state, path, functools.partial(call, state, *args, **kwargs))

    def saved(self, obj: Any, path: str, call: Callable[[], Any]) -> Any:
        """Save; before it the digests of what is saved and of what lives, after it that it was done."""
        if self.inner:
            return call()
        leaves = digesting.leaves(obj, self.ignored)
        facts = {"digest": digesting.of_group(leaves.items()), "parts": digesting.parts_of(leaves), "leaves": leaves}
        live = dict(self.each_tensor(gradients=False))
        number = self.window.open(self.write)
        self.write("save", step=self.base + self.done, save=number, path=path, live=live, **facts)
        self.inner += 1
        try:
            with self.window.strike(self):
                found = call()
        finally:
            self.inner -= 1
        self.write("saved", save=number, size=_size(path) or digesting.nbytes(obj))
        return found

    def around_load(self, call: Callable[..., Any], source: Any, *args: Any, **kwargs: Any) -> Any:
        self.inner += 1
        try:
            found = call(source, *args, **kwargs)
        finally:
            self.inner -= 1
        if not self.inner:
            self.loaded(found, _path_of(source))
        return found

    def around_sharded_load(self, call: Callable[..., Any], state: Any, *args: Any, **kwargs: Any) -> Any:
        self.inner += 1
        try:
            found = call(state, *args, **kwargs)
        finally:
            self.inner -= 1
        self.loaded(state, str(kwargs.get("checkpoint_id") or (args[0] if args else "") or ""))
        return found

    def loaded(self, obj: Any, path: str) -> None:
        """Something was loaded: if it is a save that is known, this process goes on from its step."""
        leaves = digesting.leaves(obj, self.ignored)
        facts = {"digest": digesting.of_group(leaves.items()), "parts": digesting.parts_of(leaves)}
        step = self.orders.step_of(facts)
        if step is not None and not self.done:
            self.base = max(self.base, step)
        self.write("load", step=self.base, base=self.base if step is not None else None, path=path[:400], **facts)

    def on_event(self, event: str, args: Any) -> None:
        """Count the file events of a save; the ordered one is the last thing that happens."""
        if self.window.number and self.window.event(event, args):
            self.end(f"killed inside save {self.window.number}")

    # --- what is written -----------------------------------------------------------------------------------

    def state_fields(self) -> dict[str, str]:
        """Digests of everything that a step changes and the next one starts from."""
        tensors = {"params": _group(self.parameters()), "buffers": _group(self.buffers())}
        return tensors | self.optimizer_fields()

    def settings(self) -> dict[str, str]:
        """Digests of what scripts move between two steps: rates, schedules, scalers, averages, what they named."""
        groups = [group for optimizer in _in_order(self.optimizers) for group in optimizer.param_groups]
        fields = {"lr": _joined([_hex(group["lr"]) for group in groups])}
        for name, things in (("scheduler", self.schedulers), ("scaler", self.scalers)):
            states = [thing.state_dict() for thing in _in_order(things)]
            if any(states):
                fields[name] = digesting.of_value(states)
        averages = [(f"{i}.{n}", t) for i, m in enumerate(_in_order(self.averages)) for n, t in m.state_dict().items()]
        if averages:
            fields["ema"] = _group(averages)
        return fields | {
            name: digesting.of_group(self.extra_leaves(name, part).items()) for name, part in self.extra.items()
        }

    def extra_leaves(self, name: str, part: Any) -> dict[str, str]:
        found = digesting.leaves({name: _state_of(part)}, self.ignored)
        return {key: digest for key, digest in found.items() if key not in self.ignored}

    def optimizer_state(self) -> Iterator[tuple[str, str, Any]]:
        """Kind, parameter's name and value of every entry."""
        names = {id(p): name for name, p in self.parameters()}
        for number, optimizer in enumerate(_in_order(self.optimizers)):
            for place, p in enumerate(p for group in optimizer.param_groups for p in group["params"]):
                for key, value in optimizer.state.get(p, {}).items():
                    yield str(key), names.get(id(p), f"{number}.{place}"), value

    def optimizer_fields(self) -> dict[str, str]:
        """One digest for each kind of state, over all parameters by name, and one for the settings of groups."""
        found: dict[str, list[tuple[str, str]]] = {}
        for key, name, value in self.optimizer_state():
            found.setdefault(key, []).append((name, digesting.of_value(value)))
        fields = {f"optimizer.{key}": digesting.of_group(values) for key, values in sorted(found.items())}
        return {**fields, "optimizer.settings": digesting.of_group(self.group_settings())}

    def group_settings(self) -> list[tuple[str, str]]:
        """What the groups of parameters say beside their rates, as text."""
        return [
            (f"{number}.{place}.{key}", type(value).__name__ if key == "lr" else _text(value))
            for number, optimizer in enumerate(_in_order(self.optimizers))
            for place, group in enumerate(optimizer.param_groups)
            for key, value in group.items()
            if key not in ("params", "initial_lr", "param_names")
        ]

    def parameters(self) -> list[tuple[str, Tensor]]:
        """Named parameters of all roots; those of later roots have the root's number before their names."""
        found: dict[int, tuple[str, Tensor]] = {}
        for number, root in enumerate(_in_order(self.roots)):
            for name, p in root.named_parameters():
                found.setdefault(id(p), (_bare(name) if not number else f"{number}/{_bare(name)}", p))
        return list(found.values())

    def buffers(self) -> list[tuple[str, Tensor]]:
        return [
            (_bare(name) if not number else f"{number}/{_bare(name)}", b)
            for number, root in enumerate(_in_order(self.roots))
            for name, b in root.named_buffers()
        ]

    def gradients(self) -> list[tuple[str, Tensor]]:
        return [(name, p.grad) for name, p in self.parameters() if p.grad is not None]

    def live_tensors(self, *, gradients: bool = True) -> Iterator[tuple[str, Any]]:
        """Everything that lasts by name: of components, then of parameters."""
        kinds = [("params", self.parameters()), ("buffers", self.buffers())]
        for kind, tensors in [*kinds, *([("gradients", self.gradients())] if gradients else [])]:
            yield from ((f"{kind}.{name}", tensor) for name, tensor in tensors)
        yield from ((f"optimizer.{key}.{name}", value) for key, name, value in self.optimizer_state())

    def each_tensor(self, *, gradients: bool = True) -> Iterator[tuple[str, str]]:
        """Digests of single tensors, and of what a script named, where one is looked at closely."""
        for name, value in self.live_tensors(gradients=gradients):
            yield name, digesting.of_value(value)
        for key, text in self.group_settings():
            yield f"optimizer.settings.{key}", text
        for kind, things in (("scheduler", self.schedulers), ("scaler", self.scalers), ("ema", self.averages)):
            states = [thing.state_dict() for thing in _in_order(things)]
            if any(states):
                yield from digesting.leaves({kind: {str(i): state for i, state in enumerate(states)}}).items()
        for name, part in self.extra.items():
            yield from self.extra_leaves(name, part).items()

    def modules(self) -> dict[str, str]:
        """Every module's settings and mode as text: what no state dict has."""
        found = {}
        for root in _in_order(self.roots):
            for name, module in root.named_modules():
                mode = ", compiled" if getattr(module, "_compiled_call_impl", None) is not None else ""
                mode += "" if module.training else ", in evaluation mode"
                found[_bare(name)] = f"{type(module).__name__}({module.extra_repr()}){mode}"
        return found

    def picture(self, name: str) -> None:
        """The state as files: for transplants, and as plain bytes, for a look at single elements."""
        folder = self.orders.folder
        self.inner += 1
        if not self.rank:
            _original(torch, "save")(read_parts(self), str(folder / f"snapshot-{name}.pt"))
        tensors = [(key, *digesting.raw(value)) for key, value in self.live_tensors() if isinstance(value, Tensor)]
        head = [(key, kind, shape, len(data)) for key, kind, shape, data in tensors]
        with (folder / f"tensors-{self.rank}-{name}.bin").open("wb") as file:
            file.write(json.dumps(head).encode() + b"\n")
            file.writelines(data for *_, data in tensors)
        self.inner -= 1

    def write(self, kind: str, **facts: Any) -> None:
        """One line, out of the process before anything else happens."""
        self.pen.write(kind, **facts)

    def end(self, why: str) -> None:
        """Write the last line and die."""
        self.write("end", why=why)
        os.kill(os.getpid(), signal.SIGKILL)
        signal.pause()


def environment() -> dict[str, str]:
    """What bits depend on beside the state."""
    return {
        "python": platform.python_version(), "torch": str(torch.__version__), "machine": platform.machine(),
        "isa": torch.backends.cpu.get_cpu_capability(), "threads": str(torch.get_num_threads()),
        "mkldnn": str(torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled)),
        "deterministic": str(torch.are_deterministic_algorithms_enabled()),
        "world_size": os.environ.get("WORLD_SIZE", "1"),
    }  # fmt: skip


# --- small things --------------------------------------------------------------------------------------------------

_ORIGINALS: dict[tuple[int, str], Any] = {}


def _wrap(owner: Any, name: str, around: Callable[..., Any]) -> None:
    """Replace a function by one that hands it to ``around``; the original stays reachable."""
    original = getattr(owner, name, None)
    if original is None:
        return
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


def _group(tensors: list[tuple[str, Tensor]]) -> str:
    return digesting.of_group((name, digesting.of_tensor(tensor)) for name, tensor in tensors)


def _joined(items: list[str]) -> str:
    return items[0] if len(items) == 1 else digesting.of_value("|".join(items)) if items else ""


def _number(tensor: Tensor) -> float:
    return float(tensor.detach()) if tensor.numel() == 1 else float(tensor.detach().sum())


def _hex(value: Any) -> str:
    return float(value).hex()


def _text(value: Any) -> str:
    if isinstance(value, Tensor):
        return digesting.of_tensor(value)
    return repr(tuple(value)) if isinstance(value, (list, tuple)) else repr(value)


def _state_of(part: Any) -> Any:
    if hasattr(part, "state_dict"):
        return part.state_dict()
    return part() if callable(part) else part


def _path_of(target: Any) -> str:
    found = target if isinstance(target, (str, os.PathLike)) else getattr(target, "name", "")
    return os.fspath(found) if isinstance(found, (str, os.PathLike)) else ""


def _size(path: str) -> int | None:
    try:
        return os.stat(path).st_size if path else None  # noqa: PTH116 - no object is made while a script saves
    except OSError:
        return None
