"""Parts of a live training state taken out, put in or broken: the proof of what was lost, and of what would be seen."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ckpttool.determinism.recorder import Recorder

State = dict[str, Any]

PARTS = ("params", "buffers", "optimizer", "lr", "scheduler", "scaler", "ema", "rng")
"""What can be transplanted from a snapshot."""


def read_parts(recorder: Recorder) -> State:
    """A snapshot of everything that lasts, by name."""
    from ckpttool.determinism.recorder import _in_order

    names = {id(p): name for name, p in recorder.parameters()}
    optimizers = [
        {names.get(id(p), str(i)): _copied(o.state.get(p, {})) for i, p in enumerate(_params(o))}
        for o in _in_order(recorder.optimizers)
    ]
    return {
        "params": {name: p.detach().clone() for name, p in recorder.parameters()},
        "buffers": {name: b.detach().clone() for name, b in recorder.buffers()},
        "optimizer": optimizers,
        "lr": [[group["lr"] for group in o.param_groups] for o in _in_order(recorder.optimizers)],
        "scheduler": [s.state_dict() for s in _in_order(recorder.schedulers)],
        "scaler": [s.state_dict() for s in _in_order(recorder.scalers)],
        "ema": [m.state_dict() for m in _in_order(recorder.averages)],
        "rng": {"python": random.getstate(), "torch": torch.get_rng_state(), "numpy": _numpy_state()},
    }


def _copied(state: State) -> State:
    return {k: v.detach().clone() if isinstance(v, Tensor) else v for k, v in state.items()}


def _params(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _numpy_state() -> Any:
    numpy = sys.modules.get("numpy")
    return None if numpy is None else numpy.random.get_state()


def transplant(recorder: Recorder, snapshot: str, parts: tuple[str, ...]) -> None:
    """Replace parts of the live state by those of a snapshot that this tool wrote itself."""
    from ckpttool.determinism.recorder import _original

    saved = _original(torch, "load")(snapshot, weights_only=False)  # our own file, from this very check
    for part in parts:
        _PUT[part](recorder, saved[part])


@torch.no_grad()
def _put_tensors(live: list[tuple[str, Tensor]], saved: State) -> None:
    for name, tensor in live:
        if name in saved and saved[name].shape == tensor.shape:
            tensor.copy_(saved[name])


def _put_optimizer(recorder: Recorder, saved: list[State]) -> None:
    from ckpttool.determinism.recorder import _in_order

    names = {id(p): name for name, p in recorder.parameters()}
    for optimizer, states in zip(_in_order(recorder.optimizers), saved, strict=False):
        for i, p in enumerate(_params(optimizer)):
            state = states.get(names.get(id(p), str(i)))
            if state:
                optimizer.state[p] = _copied(state)


def _put_lr(recorder: Recorder, saved: list[list[float]]) -> None:
    from ckpttool.determinism.recorder import _in_order

    for optimizer, rates in zip(_in_order(recorder.optimizers), saved, strict=False):
        for group, rate in zip(optimizer.param_groups, rates, strict=False):
            group["lr"] = rate


def _put_states(things: Callable[[Recorder], Any]) -> Callable[[Recorder, list[State]], None]:
    def put(recorder: Recorder, saved: list[State]) -> None:
        from ckpttool.determinism.recorder import _in_order

        for thing, state in zip(_in_order(things(recorder)), saved, strict=False):
            thing.load_state_dict(state)

    return put


def _put_rng(recorder: Recorder, saved: State) -> None:
    random.setstate(saved["python"])
    torch.set_rng_state(saved["torch"])
    numpy = sys.modules.get("numpy")
    if numpy is not None and saved["numpy"] is not None:
        numpy.random.set_state(saved["numpy"])


_PUT: dict[str, Callable[[Recorder, Any], None]] = {
    "params": lambda r, saved: _put_tensors(r.parameters(), saved),
    "buffers": lambda r, saved: _put_tensors(r.buffers(), saved),
    "optimizer": _put_optimizer,
    "lr": _put_lr,
    "scheduler": _put_states(lambda r: r.schedulers),
    "scaler": _put_states(lambda r: r.scalers),
    "ema": _put_states(lambda r: r.averages),
    "rng": _put_rng,
}


# --- breaking ------------------------------------------------------------------------------------------------


def break_part(recorder: Recorder, part: str) -> None:
    """Lose a part on purpose, to see whether this training would show it."""
    _BREAK[part](recorder)


def _lose_optimizer(recorder: Recorder) -> None:
    for optimizer in recorder.optimizers:
        optimizer.state.clear()


def _lose_rng(recorder: Recorder) -> None:
    random.seed(271828)
    torch.manual_seed(271828)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(271828)


@torch.no_grad()
def _lose_buffers(recorder: Recorder) -> None:
    for _, buffer in recorder.buffers():
        buffer.zero_()


def _lose_lr(recorder: Recorder) -> None:
    for optimizer in recorder.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["lr"] * 1.5


_BREAK: dict[str, Callable[[Recorder], None]] = {
    "optimizer": _lose_optimizer,
    "rng": _lose_rng,
    "buffers": _lose_buffers,
    "lr": _lose_lr,
}
BREAKABLE = tuple(_BREAK)
