"""Checkpoints of real torch objects: tensors, state dicts, stepped optimizers, whole training states."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from typing import Any

from hypothesis import strategies as st

from ckpttool.dtypes import DType
from ckpttool.errors import MissingExtra
from ckpttool.testing.plain import CLASS_OF
from ckpttool.testing.strategies.geometry import dtypes, names, shapes, views
from ckpttool.testing.strategies.plain import containers, contents, scalars

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "SGD": {"momentum": 0.9},
    "AdamW": {},
    "Adam": {"amsgrad": True},
    "RMSprop": {"momentum": 0.9, "centered": True},
    "Adagrad": {},
    "Adadelta": {},
    "Adamax": {},
    "NAdam": {},
    "RAdam": {},
    "Rprop": {},
    "ASGD": {},
    "Adafactor": {},
}
"""Class in ``torch.optim`` -> the options under which it keeps the most state."""


def import_torch() -> Any:
    """The torch module; raises ``MissingExtra``, which names what to install."""
    try:
        import torch
    except ImportError:
        raise MissingExtra("torch", "train") from None
    return torch


@st.composite
def tensors(draw: st.DrawFn, *, elements: st.SearchStrategy[DType] | None = None) -> Any:
    """Real tensors and Parameters of every dtype that saves, strided views within their storage among them.

    Shrinks to an empty contiguous float32 tensor.
    """
    torch = import_torch()
    dtype = draw(dtypes() if elements is None else elements)
    view = draw(views())
    data = bytearray(draw(contents(view.numel * dtype.itemsize, dtype)))
    kind = getattr(torch, dtype.name)
    with warnings.catch_warnings():
        # torch warns once in a process that complex32 is experimental; it saves and loads all the same.
        warnings.simplefilter("ignore", UserWarning)
        flat = torch.frombuffer(data, dtype=kind).clone() if data else torch.empty(0, dtype=kind)
    made = flat.as_strided(view.shape, view.stride, view.offset)
    # torch 2.13 saves a gradient-requiring tensor of a type without a storage class, and cannot load it.
    if dtype.name in CLASS_OF and dtype.kind in ("float", "complex") and draw(st.booleans()):
        made.requires_grad_()
    parameter = draw(st.booleans())
    return torch.nn.Parameter(made, requires_grad=made.requires_grad) if parameter else made


def trees(*, max_leaves: int = 12, elements: st.SearchStrategy[DType] | None = None) -> st.SearchStrategy[Any]:
    """Nested containers of plain values and real tensors; ``dtypes(TYPED)`` for the format before 1.6."""
    return containers(scalars() | tensors(elements=elements), max_leaves=max_leaves)


@st.composite
def state_dicts(draw: st.DrawFn, *, max_size: int = 6, elements: st.SearchStrategy[DType] | None = None) -> Any:
    """State dicts with ``_metadata``; some names share a tensor, some only its storage."""
    found: Any = OrderedDict(draw(st.dictionaries(names(), tensors(elements=elements), max_size=max_size)))
    for name in draw(st.lists(names(), max_size=2)) if found else []:
        other = draw(st.sampled_from(list(found.values())))
        found[name] = draw(st.sampled_from([other, other.detach()]))
    found._metadata = OrderedDict({"": {"version": 1}})
    return found


@st.composite
def optimizers(
    draw: st.DrawFn, *, kinds: tuple[str, ...] = tuple(OPTIMIZERS), max_parameters: int = 3, max_steps: int = 2
) -> Any:
    """Real optimizers of ``torch.optim`` after a few steps, with and without parameter names.

    Shrinks to SGD with one parameter and no step. The parameters are those of its groups.
    """
    torch = import_torch()
    # Adafactor divides by the number of elements, so none is empty.
    sides = draw(st.lists(shapes(min_dims=1, max_dims=2, min_side=1, max_side=3), min_size=1, max_size=max_parameters))
    parameters = [torch.nn.Parameter(torch.full(shape, 0.5)) for shape in sides]
    kind = draw(st.sampled_from(kinds))
    named = draw(st.booleans())
    given = [(f"layer{i}.weight", p) for i, p in enumerate(parameters)] if named else parameters
    made = getattr(torch.optim, kind)(given, lr=0.01, **OPTIMIZERS[kind])
    for _ in range(draw(st.integers(0, max_steps))):
        for parameter in parameters:
            parameter.grad = torch.full_like(parameter, 0.25)
        made.step()
    return made


@st.composite
def checkpoints(draw: st.DrawFn, *, elements: st.SearchStrategy[DType] | None = None) -> dict[str, Any]:
    """Whole training states as scripts save them: weights, and any of the other parts of a resume.

    Shrinks to a dict that holds an empty state dict alone.
    """
    torch = import_torch()
    found: dict[str, Any] = {
        draw(st.sampled_from(["model", "state_dict", "model_state_dict"])): draw(state_dicts(elements=elements))
    }
    if draw(st.booleans()):
        optimizer = draw(optimizers())
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3)
        found |= {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
    if draw(st.booleans()):
        found |= {"epoch": draw(st.integers(0, 9)), "global_step": draw(st.integers(0, 999))}
    if draw(st.booleans()):
        found["rng_state"] = torch.get_rng_state()
    if draw(st.booleans()):
        found["config"] = draw(containers(scalars(), max_leaves=5))
    return found
