"""Checkpoints that are folders, to which every process writes the pieces that it holds: torch's distributed format."""

from __future__ import annotations

import warnings
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint._nested_dict import unflatten_state_dict
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.tensor import DTensor

from ckpttool import CheckpointStore, WriteFailed
from ckpttool.trainer.distributed import first, in_first
from ckpttool.trainer.optim import State


def save_shards(store: CheckpointStore, captured: State, step: int, metric: float | None) -> None:
    """Save together: every process writes and flushes its file, then the first one publishes them all by one rename.

    What goes wrong in any process is a ``WriteFailed`` in all, and nothing was published.
    """
    with ExitStack() as publishing:
        begin = store.save_folder(step=step, metric=metric)
        folder = first(in_first(lambda: publishing.enter_context(begin)))
        try:
            with warnings.catch_warnings(action="ignore", category=UserWarning):  # that one process is alone
                dcp.save(captured, checkpoint_id=folder)
        except CheckpointException as error:
            why = "; ".join(f"process {rank}: {found[0]}" for rank, found in error.failures.items())
            raise WriteFailed(str(folder), why) from None
        in_first(publishing.close)


def load_shards(folder: Path, model: nn.Module) -> State:
    """What was captured, of sharded tensors the pieces that this process needs, however many had written them.

    torch unpickles what is in such a folder: let ``ckpttool`` verify first that it is data alone, as the store does.
    """
    saved = dcp.FileSystemReader(folder).read_metadata()
    live = dict(model.named_parameters(remove_duplicate=False))
    flat: State = {}
    for key, about in saved.state_dict_metadata.items():
        like = next((live[name] for name in saved.planner_data[key] if name in live), None)
        flat[key] = _room(about, like) if isinstance(about, TensorStorageMetadata) else None
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        dcp.load(flat, checkpoint_id=folder)
    tree: State = unflatten_state_dict(flat, saved.planner_data)
    tree.setdefault("scaler", {})  # a list of names has no place for a dict with nothing in it
    return tree


def _room(about: TensorStorageMetadata, like: Tensor | None) -> Tensor:
    """An empty tensor to read into: spread as the parameter that it belongs to, if it has its shape."""
    dtype = about.properties.dtype
    if isinstance(like, DTensor) and like.shape == about.size:
        return torch.empty_like(like, dtype=dtype, requires_grad=False)
    return torch.empty(about.size, dtype=dtype)
