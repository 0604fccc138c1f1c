"""torch's own functions, wrapped: each does what it always did, and the recorder hears of it."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.optim.swa_utils import AveragedModel

from ckpttool.determinism.importing import when_imported
from ckpttool.determinism.measuring import unread
from ckpttool.determinism.things import Things

if TYPE_CHECKING:
    from ckpttool.determinism.recorder import Recorder

Call = Callable[..., Any]

_ORIGINALS: dict[tuple[int, str], Any] = {}


class Hooks:
    """All hooks of a process. ``is_in_call``: a forward pass is open; ``inner`` counts saves and loads that are.

    What a save, a load or a forward pass calls is part of it, and is not told.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.is_in_call = False
        self.inner = 0

    def install(self) -> None:
        """Put the hooks in place, for as long as the process lives."""
        living = self.recorder.living
        register_optimizer_step_post_hook(self.recorder.after_step)
        _wrap(nn.Module, "__call__", self.around_call)
        _wrap(Tensor, "backward", self.around_backward)
        _wrap(torch, "save", self.around_save)
        _wrap(torch, "load", self.around_load)
        for owner in (torch, torch.random):
            _wrap(owner, "manual_seed", functools.partial(self.around_seed, "seeded"))
            _wrap(owner, "set_rng_state", functools.partial(self.around_seed, "restored"))
        made: tuple[tuple[type, Things[Any]], ...] = (
            (LRScheduler, living.schedulers),
            (ReduceLROnPlateau, living.schedulers),  # whose own does not call its parent's
            (torch.amp.GradScaler, living.scalers),
            (torch.optim.Optimizer, living.optimizers),
            (AveragedModel, living.averages),
        )
        for kind, things in made:
            _wrap(kind, "__init__", functools.partial(self.around_init, things))
        sys.addaudithook(self.recorder.on_event)
        when_imported("safetensors.torch", self.install_safetensors)
        when_imported("torch.distributed.checkpoint", self.install_distributed)

    def install_safetensors(self, module: Any) -> None:
        """The same for a library that saves by itself."""
        _wrap(module, "save_file", self.around_save)
        _wrap(module, "load_file", self.around_load)

    def install_distributed(self, module: Any) -> None:
        """The same for torch's own sharded checkpoints, whose load fills what it is given."""
        for name in ("save", "async_save"):
            _wrap(module, name, self.around_sharded_save)
        _wrap(module, "load", self.around_sharded_load)

    # --- training -----------------------------------------------------------------------------------------------------

    def around_init(self, kept: Things[Any], call: Call, thing: Any, *args: Any, **kwargs: Any) -> Any:
        found = call(thing, *args, **kwargs)
        kept.add(thing)
        return found

    def around_call(self, call: Call, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling() or self.is_in_call:
            return call(module, *args, **kwargs)
        args, kwargs = self.recorder.before_root(module, args, kwargs)
        self.is_in_call = True
        try:
            return call(module, *args, **kwargs)
        finally:
            self.is_in_call = False
            self.recorder.after_root()

    def around_backward(self, call: Call, tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        self.recorder.before_backward(_number(tensor))
        return call(tensor, *args, **kwargs)

    def around_seed(self, how: str, call: Call, *args: Any, **kwargs: Any) -> Any:
        found = call(*args, **kwargs)
        if not self.inner:
            self.recorder.seeded(how)
        return found

    # --- saves and loads ----------------------------------------------------------------------------------------------

    def around_save(self, call: Call, obj: Any, target: Any, *args: Any, **kwargs: Any) -> Any:
        return self._saving(obj, _path_of(target), functools.partial(call, obj, target, *args, **kwargs))

    def around_sharded_save(self, call: Call, state: Any, *args: Any, **kwargs: Any) -> Any:
        return self._saving(state, _checkpoint_id(args, kwargs), functools.partial(call, state, *args, **kwargs))

    def _saving(self, obj: Any, path: str, call: Callable[[], Any]) -> Any:
        if self.inner:
            return call()
        with self.recorder.saving(obj, path):
            return self._within(call)

    def around_load(self, call: Call, source: Any, *args: Any, **kwargs: Any) -> Any:
        found = self._within(functools.partial(call, source, *args, **kwargs))
        if not self.inner:
            self.recorder.loaded(found, _path_of(source))
        return found

    def around_sharded_load(self, call: Call, state: Any, *args: Any, **kwargs: Any) -> Any:
        found = self._within(functools.partial(call, state, *args, **kwargs))
        path = _checkpoint_id(args, kwargs)
        self.recorder.loaded(state, path, unread=self._within(lambda: unread(state, path)))
        return found

    def _within(self, call: Callable[[], Any]) -> Any:
        self.inner += 1
        try:
            return call()
        finally:
            self.inner -= 1


def original(owner: Any, name: str) -> Any:
    """A function as it was before it was wrapped."""
    return _ORIGINALS[id(owner), name]


def _wrap(owner: Any, name: str, around: Call) -> None:
    """Replace a function by one that hands it to ``around``; the original stays reachable."""
    found = getattr(owner, name, None)
    if found is None:
        return
    _ORIGINALS[id(owner), name] = found

    @functools.wraps(found)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return around(found, *args, **kwargs)

    setattr(owner, name, wrapped)


def _number(tensor: Tensor) -> float:
    return float(tensor.detach()) if tensor.numel() == 1 else float(tensor.detach().sum())


def _checkpoint_id(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    return str(kwargs.get("checkpoint_id") or (args[0] if args else "") or "")


def _path_of(target: Any) -> str:
    found = target if isinstance(target, (str, os.PathLike)) else getattr(target, "name", "")
    return os.fspath(found) if isinstance(found, (str, os.PathLike)) else ""
