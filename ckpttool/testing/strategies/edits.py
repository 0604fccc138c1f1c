"""Pairs of training states that differ by known edits: what a diff has to find, no more and no less."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from hypothesis import strategies as st

from ckpttool.changes import KINDS, Kind
from ckpttool.testing.strategies.real import import_torch

WEIGHTS = "model"
TIED = ("embed.weight", "head.weight")
"""Two tensors of equal content, apart from each other until an edit ties them."""

Expected: TypeAlias = "tuple[Kind, str, str | None]"
"""A change's kind, its key and, where it was renamed, its old key."""


@dataclass(frozen=True, slots=True)
class Edit:
    """Two states and the changes from one to the other, in no order."""

    before: dict[str, Any]
    after: dict[str, Any]
    changes: tuple[Expected, ...]


@st.composite
def edits(draw: st.DrawFn, *, max_size: int = 5, kinds: tuple[Kind, ...] = KINDS) -> Edit:
    """A state and the same after up to ``max_size`` edits, at most one to a tensor. Shrinks to no edit.

    No two tensors but ``TIED`` have equal content, and no two equal shapes, so that every edit has one
    reading. Needs torch.
    """
    before = draw(states())
    keys = [key for key in before[WEIGHTS] if key not in TIED]
    victims = draw(st.lists(st.sampled_from(keys), max_size=max_size, unique=True))
    possible = [edit for kind, edit in _EDITS if kind in kinds]
    weights, changes = before[WEIGHTS], []
    for number, victim in enumerate(victims if possible else []):
        weights, made = draw(st.sampled_from(possible))(draw, weights, victim, number)
        changes.append(made)
    after = {**before, WEIGHTS: weights}
    for kind, whole in (("retied", _retie), ("reordered", _reorder), ("edited", _edit_value)):
        if kind in kinds and draw(st.booleans()):
            after, made = whole(after)
            changes.append(made)
    return Edit(before, after, tuple(changes))


@st.composite
def states(draw: st.DrawFn, *, min_layers: int = 6, max_layers: int = 9) -> dict[str, Any]:
    """A state dict of distinct float32 tensors, each of its own shape, and a few values."""
    torch = import_torch()
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    found: Any = OrderedDict()
    found[TIED[0]] = torch.randn(11, 3, generator=random)
    for layer in range(draw(st.integers(min_layers, max_layers))):
        found[f"layers.{layer}.weight"] = torch.randn(2 * layer + 4, 6, generator=random)
    found[TIED[1]] = found[TIED[0]].clone()
    return {WEIGHTS: found, "epoch": draw(st.integers(0, 9)), "config": {"width": 6, "name": "small"}}


# --- edits of one tensor: state dict, key and a number of its own -> the state dict after, and what changed -----

_OfTensor: TypeAlias = "Callable[[st.DrawFn, Any, str, int], tuple[Any, Expected]]"


def _full(key: str) -> str:
    return f"{WEIGHTS}.{key}"


def _put(weights: Any, key: str, tensor: Any) -> Any:
    return OrderedDict((name, tensor if name == key else value) for name, value in weights.items())


def _rename(draw: st.DrawFn, weights: Any, key: str, number: int) -> tuple[Any, Expected]:
    new = f"{draw(st.sampled_from(['blocks', 'stem', 'layers.old']))}.{number}.kernel"
    after = OrderedDict((new if name == key else name, value) for name, value in weights.items())
    return after, ("renamed", _full(new), _full(key))


def _drop(_: st.DrawFn, weights: Any, key: str, __: int) -> tuple[Any, Expected]:
    after = OrderedDict((name, value) for name, value in weights.items() if name != key)
    return after, ("removed", _full(key), None)


def _add(_: st.DrawFn, weights: Any, __: str, number: int) -> tuple[Any, Expected]:
    # A shape that no other tensor has: a tensor added beside one removed could be that one, rewritten.
    new = f"extra.{number}.bias"
    torch = import_torch()
    tensor = torch.full((101 + number,), 0.5 + number)
    return OrderedDict([*weights.items(), (new, tensor)]), ("added", _full(new), None)


def _cast(draw: st.DrawFn, weights: Any, key: str, _: int) -> tuple[Any, Expected]:
    torch = import_torch()
    kind = draw(st.sampled_from([torch.float64, torch.bfloat16, torch.float16]))
    return _put(weights, key, weights[key].to(kind)), ("retyped", _full(key), None)


def _reshape(draw: st.DrawFn, weights: Any, key: str, _: int) -> tuple[Any, Expected]:
    shape = draw(st.sampled_from([(-1,), (2, -1), (1, -1, 6)]))
    return _put(weights, key, weights[key].reshape(shape)), ("reshaped", _full(key), None)


def _rewrite(draw: st.DrawFn, weights: Any, key: str, _: int) -> tuple[Any, Expected]:
    tensor = weights[key].clone()
    place = draw(st.integers(0, tensor.numel() - 1))
    tensor.view(-1)[place] = tensor.view(-1)[place] * 1.5 + 1
    return _put(weights, key, tensor), ("rewritten", _full(key), None)


_EDITS: tuple[tuple[Kind, _OfTensor], ...] = (
    ("rewritten", _rewrite),
    ("renamed", _rename),
    ("removed", _drop),
    ("added", _add),
    ("retyped", _cast),
    ("reshaped", _reshape),
)


# --- edits of the whole ----------------------------------------------------------------------------------------


def _retie(state: dict[str, Any]) -> tuple[dict[str, Any], Expected]:
    weights = _put(state[WEIGHTS], TIED[1], state[WEIGHTS][TIED[0]])
    return {**state, WEIGHTS: weights}, ("retied", _full(TIED[1]), None)


def _reorder(state: dict[str, Any]) -> tuple[dict[str, Any], Expected]:
    weights = OrderedDict(state[WEIGHTS])
    weights.move_to_end(TIED[0])
    return {**state, WEIGHTS: weights}, ("reordered", _full(TIED[0]), None)


def _edit_value(state: dict[str, Any]) -> tuple[dict[str, Any], Expected]:
    config = {**state["config"], "width": state["config"]["width"] + 1}
    return {**state, "config": config}, ("edited", "config.width", None)


__all__ = ["TIED", "WEIGHTS", "Edit", "edits", "states"]
