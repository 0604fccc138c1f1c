"""Several processes, one run: how they start, agree, share gradients, and come by one state that is the same in all.

``torchrun --nproc-per-node 2 -m ckpttool.trainer --parallel ddp --out run``. Every function here does nothing in a run
of one process. Where there are several, all of them have to call it: who does not keeps the others waiting.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from ckpttool import CkpttoolError, UsageError
from ckpttool.trainer.config import Config

T = TypeVar("T")


@contextmanager
def processes(config: Config) -> Iterator[None]:
    """Join the processes that ``torchrun`` started; ``--parallel`` without it is a group of one."""
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if config.parallel != "none":
        store, number, count = _meeting_place()
        dist.init_process_group("gloo", store=store, rank=number, world_size=count)
    elif started > 1:
        text = f"{started} processes were started, and parallel = none: each would train on its own"
        raise UsageError(f"{text}; say --parallel ddp or --parallel fsdp2")
    yield
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()  # after an error it may wait for ever: the command just ends


def _meeting_place() -> tuple[dist.Store, int, int]:
    """Where processes leave their addresses, which of them this is, of how many."""
    if "RANK" not in os.environ:
        return dist.HashStore(), 0, 1
    store, number, count = next(rendezvous("env://"))
    if os.environ.get("GROUP_WORLD_SIZE") == "1":
        # torchrun's store outlives its restarts, and the addresses of processes that were killed still stand in it.
        store = dist.PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    return store, number, count


def rank() -> int:
    """Which of the processes this is, counted from 0. The first one writes, decides and speaks."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


# --- agreeing ----------------------------------------------------------------------------------------------------


def gathered(value: T) -> list[T]:
    """Every process's value, by rank, in all."""
    held: list[Any] = [value] * world()
    if world() > 1:
        dist.all_gather_object(held, value)
    return held


def first(value: T) -> T:
    """The first process's value, in all."""
    return gathered(value if rank() == 0 else None)[0]  # type: ignore[return-value]


def most(*numbers: int) -> list[int]:
    """The largest that any process has of each number."""
    return [max(column) for column in zip(*gathered(numbers), strict=True)]


def mean(number: float) -> float:
    """The mean over all processes."""
    return sum(gathered(number)) / world()


def in_first(act: Callable[[], T]) -> T | None:
    """Do something in the first process alone; the others wait, and get None. What it raises, all raise."""
    done, wrong = None, None
    if rank() == 0:
        try:
            done = act()
        except CkpttoolError as error:
            wrong = error
    wrong = first(wrong)
    if wrong is not None:
        raise wrong
    return done


# --- sharing the work ----------------------------------------------------------------------------------------------


def sharded(model: nn.Module, config: Config) -> nn.Module:
    """The model with its parameters spread over the processes, layer by layer, if that is asked for (FSDP2)."""
    if config.parallel == "fsdp2":
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh("cpu", (world(),))
        for layer in getattr(model, "layers", ()):
            fully_shard(layer, mesh=mesh, reshard_after_forward=True)
        fully_shard(model, mesh=mesh, reshard_after_forward=True)  # the rest, tied weights in one group
    return model


def replicated(model: nn.Module, config: Config) -> nn.Module:
    """What computes: the model itself, or in a wrapper that adds gradients up (DDP)."""
    return DistributedDataParallel(model) if config.parallel == "ddp" else model


@contextmanager
def sharing(forward: nn.Module, *, last: bool) -> Iterator[None]:
    """Gradients go to the other processes in the last micro-batch of a step alone."""
    if hasattr(forward, "set_requires_gradient_sync"):  # FSDP2
        forward.set_requires_gradient_sync(last)
    with forward.no_sync() if isinstance(forward, DistributedDataParallel) and not last else nullcontext():
        yield


def same_buffers(model: nn.Module) -> None:
    """Batch norm's running statistics are the first process's, as in DDP; every step ends with the same in all."""
    if world() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


# --- one state ----------------------------------------------------------------------------------------------------


def whole(tree: Any, known: dict[tuple[Any, ...], Tensor] | None = None) -> Any:
    """The same containers with every sharded tensor whole, in every process; tied ones stay tied."""
    if not dist.is_initialized():
        return tree
    from torch.distributed.tensor import DTensor

    known = {} if known is None else known
    if isinstance(tree, (dict, list)):
        made = copy.copy(tree)  # state dicts have attributes
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            made[key] = whole(value, known)
        return made
    if not isinstance(tree, DTensor):
        return tree
    piece = tree.to_local()
    place = (piece.untyped_storage()._cdata, piece.storage_offset(), tree.shape)
    if place not in known:
        known[place] = tree.full_tensor()
    return known[place]


def piece_of(tensor: Any, like: Tensor | None) -> Any:
    """This process's piece of a whole tensor that belongs to a sharded one; anything else as it is."""
    if not dist.is_initialized():
        return tensor
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(like, DTensor) or isinstance(tensor, DTensor) or getattr(tensor, "shape", None) != like.shape:
        return tensor
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)


def pieces(state: dict[str, Any], model: nn.Module) -> dict[str, Any]:
    """A model's state dict, as whole as it was saved, as pieces for this process."""
    mine = model.state_dict()
    return {name: piece_of(value, mine.get(name)) for name, value in state.items()}
