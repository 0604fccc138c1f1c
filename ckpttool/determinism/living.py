"""What lives in a training process and outlasts a step, by the names and digests that comparisons use."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ckpttool.determinism import digesting
from ckpttool.determinism.things import Things

WRAPPERS = ("module.", "_orig_mod.", "_forward_module.", "_fsdp_wrapped_module.")
"""What wrappers put before a parameter's name."""

WRAPPING = ("DistributedDataParallel", "OptimizedModule")
"""Modules that add nothing to what they wrap but gradients of other processes, or compiled code."""

UNTOLD = ("params", "initial_lr", "param_names")
"""Entries of a group of parameters that are no settings."""


class Living:
    """The state of a training process: found by hooks in torch's own kinds, or named by the script.

    ``roots`` are modules whose forward pass nobody else's contains; those in ``watched`` a script named. ``extra`` are
    other parts that it named, ``ignored`` values that are right to differ. ``stepped`` are parameters of the optimizer
    that stepped last: gradients of others (a GAN's other half) are left from before, and say nothing of this step.
    """

    def __init__(self) -> None:
        self.roots: Things[nn.Module] = Things()
        self.watched: Things[nn.Module] = Things()
        self.optimizers: Things[torch.optim.Optimizer] = Things()
        self.schedulers: Things[Any] = Things()
        self.scalers: Things[Any] = Things()
        self.averages: Things[nn.Module] = Things()
        self.extra: dict[str, Any] = {}
        self.ignored: set[str] = set()
        self.stepped: frozenset[int] = frozenset()

    def root_of(self, module: nn.Module) -> nn.Module:
        """The root that a module belongs to: itself, unless a script named one that contains it."""
        if module in self.watched:
            return module
        return next((root for root in self.watched if any(part is module for part in root.modules())), module)

    # --- single tensors, by name --------------------------------------------------------------------------------------

    def parameters(self) -> list[tuple[str, Tensor]]:
        """Of all roots, each tensor once; those of later roots have the root's number before their names."""
        found: dict[int, tuple[str, Tensor]] = {}
        for number, root in enumerate(self.roots):
            for name, p in root.named_parameters():
                found.setdefault(id(p), (_numbered(number, name), p))
        return list(found.values())

    def buffers(self) -> list[tuple[str, Tensor]]:
        return [(_numbered(number, n), b) for number, root in enumerate(self.roots) for n, b in root.named_buffers()]

    def gradients(self) -> list[tuple[str, Tensor]]:
        """Of the parameters that the last step moved; of all, where none of them has a name here."""
        found = [(name, p) for name, p in self.parameters() if p.grad is not None]
        own = [(name, p) for name, p in found if id(p) in self.stepped]
        return [(name, p.grad) for name, p in own or found if p.grad is not None]

    def optimizer_state(self) -> Iterator[tuple[str, str, Any]]:
        """Kind, parameter's name and value of every entry."""
        names = {id(p): name for name, p in self.parameters()}
        for number, optimizer in enumerate(self.optimizers):
            for place, p in enumerate(p for group in optimizer.param_groups for p in group["params"]):
                for key, value in optimizer.state.get(p, {}).items():
                    yield str(key), names.get(id(p), f"{number}.{place}"), value

    def group_settings(self) -> list[tuple[str, str]]:
        """What the groups of parameters say beside their rates, as text."""
        return [
            (f"{number}.{place}.{key}", type(value).__name__ if key == "lr" else _text(value))
            for number, optimizer in enumerate(self.optimizers)
            for place, group in enumerate(optimizer.param_groups)
            for key, value in group.items()
            if key not in UNTOLD
        ]

    def tensors(self, *, gradients: bool = True) -> Iterator[tuple[str, Any]]:
        """Everything that lasts by name: of components, then of parameters."""
        kinds = [("params", self.parameters()), ("buffers", self.buffers())]
        for kind, tensors in [*kinds, *([("gradients", self.gradients())] if gradients else [])]:
            yield from ((f"{kind}.{name}", tensor) for name, tensor in tensors)
        yield from ((f"optimizer.{key}.{name}", value) for key, name, value in self.optimizer_state())

    def each_digest(self, *, gradients: bool = True) -> Iterator[tuple[str, str]]:
        """Digests of single tensors, and of what a script named, where one is looked at closely."""
        for name, value in self.tensors(gradients=gradients):
            yield name, digesting.of_value(value)
        for key, text in self.group_settings():
            yield f"optimizer.settings.{key}", text
        for kind, things in (("scheduler", self.schedulers), ("scaler", self.scalers), ("ema", self.averages)):
            states = [thing.state_dict() for thing in things]
            if any(states):
                yield from digesting.leaves({kind: {str(i): state for i, state in enumerate(states)}}).items()
        for name, part in self.extra.items():
            yield from self._extra(name, part).items()

    # --- fields -------------------------------------------------------------------------------------------------------

    def state_fields(self) -> dict[str, str]:
        """Digests of everything that a step changes and the next one starts from."""
        tensors = {"params": _group(self.parameters()), "buffers": _group(self.buffers())}
        return tensors | self._optimizer_fields()

    def settings(self) -> dict[str, str]:
        """Digests of what scripts move between two steps: rates, schedules, scalers, averages, what they named."""
        rates = [float(group["lr"]).hex() for optimizer in self.optimizers for group in optimizer.param_groups]
        fields = {"lr": digesting.joined(rates)}
        for name, things in (("scheduler", self.schedulers), ("scaler", self.scalers)):
            states = [thing.state_dict() for thing in things]
            if any(states):
                fields[name] = digesting.of_value(states)
        averages = [(f"{i}.{n}", t) for i, m in enumerate(self.averages) for n, t in m.state_dict().items()]
        if averages:
            fields["ema"] = _group(averages)
        return fields | {name: digesting.of_group(self._extra(name, part).items()) for name, part in self.extra.items()}

    def _optimizer_fields(self) -> dict[str, str]:
        """One digest for each kind of state, over all parameters by name, and one for the settings of groups."""
        found: dict[str, list[tuple[str, str]]] = {}
        for key, name, value in self.optimizer_state():
            found.setdefault(key, []).append((name, digesting.of_value(value)))
        fields = {f"optimizer.{key}": digesting.of_group(values) for key, values in sorted(found.items())}
        return {**fields, "optimizer.settings": digesting.of_group(self.group_settings())}

    def _extra(self, name: str, part: Any) -> dict[str, str]:
        found = digesting.leaves({name: state_of(part)}, self.ignored)
        return {key: digest for key, digest in found.items() if key not in self.ignored}

    def modules(self) -> dict[str, str]:
        """Every module's settings and mode as text: what no state dict has."""
        found = {}
        for root in self.roots:
            for name, module in root.named_modules():
                if type(module).__name__ in WRAPPING:
                    continue
                bare = _bare(f"{name}.").removesuffix(".")
                is_compiled = not bare and type(root).__name__ == "OptimizedModule"
                is_compiled |= getattr(module, "_compiled_call_impl", None) is not None
                mode = ", compiled" if is_compiled else ""
                mode += "" if module.training else ", in evaluation mode"
                found[bare] = f"{type(module).__name__}({module.extra_repr()}){mode}"
        return found


def environment() -> dict[str, str]:
    """What bits depend on beside the state."""
    return {
        "python": platform.python_version(), "torch": str(torch.__version__), "machine": platform.machine(),
        "isa": torch.backends.cpu.get_cpu_capability(), "threads": str(torch.get_num_threads()),
        "mkldnn": str(torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled)),
        "deterministic": str(torch.are_deterministic_algorithms_enabled()),
        "world_size": os.environ.get("WORLD_SIZE", "1"),
    }  # fmt: skip


def has_gradients(optimizer: torch.optim.Optimizer) -> bool:
    """Whether any gradient is there, and not zero."""
    gradients = (p.grad for group in optimizer.param_groups for p in group["params"])
    return any(bool(grad.any()) for grad in gradients if grad is not None)


def _numbered(number: int, name: str) -> str:
    return f"{number}/{_bare(name)}" if number else _bare(name)


def _bare(name: str) -> str:
    """A parameter's name without what wrappers put before it."""
    for wrapper in WRAPPERS:
        name = name.replace(wrapper, "") if wrapper.startswith("_") else name.removeprefix(wrapper)
    return name


def _group(tensors: list[tuple[str, Tensor]]) -> str:
    return digesting.of_group((name, digesting.of_tensor(tensor)) for name, tensor in tensors)


def _text(value: Any) -> str:
    if isinstance(value, Tensor):
        return digesting.of_tensor(value)
    return repr(tuple(value)) if isinstance(value, (list, tuple)) else repr(value)


def state_of(part: Any) -> Any:
    """What a part that a script named holds: its state dict, what it gives when it is called, or itself."""
    if hasattr(part, "state_dict"):
        return part.state_dict()
    return part() if callable(part) else part
