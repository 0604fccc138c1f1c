"""Every tensor that comes into a training step from outside, whatever loader it came from, and in its place another.

That is: the tensors among the arguments of the outermost forward passes, and those that meet the graph between such a
pass and the backward pass, as targets, masks and weights do. Nothing is overwritten: the script's own tensors, which
may be views of a whole data set, stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ckpttool.determinism.batches import Batches, Keeping, Replaying, Unfit, name_of
from ckpttool.determinism.gathering import Gathered
from ckpttool.determinism.orders import Orders

Exchange = Callable[[Tensor], Tensor]


def inflow_of(orders: Orders, rank: int, complain: Callable[..., None]) -> Inflow | None:
    """What this process is to do with what comes in; None where that is nothing."""
    if orders.batches:
        orders.folder.mkdir(parents=True, exist_ok=True)
        return Inflow(Keeping(orders.folder / name_of(rank), orders.batches), orders.start, 0, complain)
    if "data" in orders.parts:
        return Inflow(Replaying(Path(orders.transplant) / name_of(rank)), orders.start, orders.start, complain)
    return None


class Inflow(TorchFunctionMode):
    """Hands what comes into each step after ``start`` to ``batches``, and the step what that gives back.

    ``step`` is the one that this process goes on from. ``complain(why=…)`` is called once where there is no exchange;
    after that everything passes as it is.
    """

    def __init__(self, batches: Batches, start: int, step: int, complain: Callable[..., None]) -> None:
        super().__init__()
        self.batches, self.start, self.step, self.complain = batches, start, step, complain
        self.is_open = False  # between a training forward pass and its backward pass
        self.is_within = False  # in a training forward pass
        self.is_over = False

    def forward(self, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """A training forward pass begins; the arguments that it is to have. What happens within is its own affair."""
        self.close()
        if self.step < self.start:
            return args, kwargs
        self.is_within = True
        found: tuple[Any, Any] = self._exchanged((args, kwargs))
        return found

    def after_forward(self) -> None:
        """An outermost call is over: if it was a training forward pass, targets are next."""
        if self.is_within and not self.is_over:
            self.is_within, self.is_open = False, True
            self.__enter__()

    def close(self) -> None:
        """The loss is complete."""
        if self.is_open and torch.overrides._get_current_function_mode() is self:
            self.__exit__(None, None, None)
            self.is_open = False

    def ends(self, gathered: Gathered) -> None:
        """A step was taken."""
        self.close()
        self.step += 1
        if self.step > self.start:
            self._tried(lambda: self.batches.ends(self.step, gathered), None)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Exchange what has no gradient where it meets what has one."""
        kwargs = kwargs or {}
        needs = {tensor.requires_grad for tensor in tensors_in((args, kwargs))}
        if len(needs) == 2 and self.is_open and not self.is_over:
            kept = 1 if changes_its_first(func) else 0
            more, kwargs = self._exchanged((args[kept:], kwargs))
            args = (*args[:kept], *more)
        return func(*args, **kwargs)

    def _exchanged(self, given: Any) -> Any:
        return self._tried(lambda: mapped(given, self._passed), given)

    def _passed(self, tensor: Tensor) -> Tensor:
        return tensor if tensor.requires_grad or type(tensor) is not Tensor else self.batches.passes(tensor)

    def _tried(self, exchange: Callable[[], Any], otherwise: Any) -> Any:
        if self.is_over:
            return otherwise
        try:
            return exchange()
        except (Unfit, OSError, RuntimeError) as error:
            self.is_over = True
            self.complain(why=str(error))
            return otherwise


def changes_its_first(func: Any) -> bool:
    """Whether a function of torch writes to its first argument: ``add_``, ``__setitem__``, ``__iadd__``."""
    name = str(getattr(func, "__name__", ""))
    return (name.endswith("_") and not name.endswith("__")) or name == "__setitem__" or name in _IN_PLACE


_IN_PLACE = frozenset(f"__i{name}__" for name in "add sub mul truediv floordiv mod pow and or xor".split())


def tensors_in(value: Any) -> Iterator[Tensor]:
    """All tensors in plain containers."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from tensors_in(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from tensors_in(part)


def mapped(value: Any, exchange: Exchange) -> Any:
    """The same containers with every tensor exchanged; what nothing was exchanged in is the thing itself."""
    if isinstance(value, Tensor):
        return exchange(value)
    if isinstance(value, Mapping):
        found = {key: mapped(part, exchange) for key, part in value.items()}
        return value if _same(found.values(), value.values()) else _refilled(value, found)
    if isinstance(value, (list, tuple)):
        parts = [mapped(part, exchange) for part in value]
        if _same(parts, value):
            return value
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def _same(one: Any, two: Any) -> bool:
    return all(a is b for a, b in zip(one, two, strict=True))


def _refilled(value: Any, found: dict[Any, Any]) -> Any:
    filled = copy(value)
    for key, part in found.items():
        filled[key] = part
    return filled
