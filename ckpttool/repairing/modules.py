"""Pickled modules as their state dicts: names and order as ``state_dict()`` would give them, without their classes.

Source: torch 2.13 ``torch/nn/modules/module.py`` ``_save_to_state_dict``, ``state_dict``; ``torch/jit/_recursive.py``.
What a class of its own adds (``get_extra_state``, packed weights of quantized layers) is not in the tree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence as SequenceABC
from dataclasses import replace
from typing import TypeAlias

from ckpttool.frozen import dataclass
from ckpttool.model import Call, Mapping, Node, Sequence, Tensor, Value
from ckpttool.repairing.plain.standard import pairs_of

DEPTH = 400
"""Modules within modules that are followed."""

MOST = 1 << 20
"""Names of one state dict; a module that stands under many names counts under each."""

_DENSE = ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3")


_Pairs: TypeAlias = "list[tuple[str, int]]"
_Look: TypeAlias = "Callable[[SequenceABC[Node], int], tuple[_Pairs, _Pairs]]"


@dataclass(frozen=True, slots=True)
class Named:
    """A tensor of a state dict: its name and its node."""

    name: str
    index: int


def is_module(nodes: SequenceABC[Node], index: int) -> bool:
    """Whether a node is a pickled ``nn.Module``: an object with parameters and submodules among its attributes."""
    own = _attributes(nodes, index)
    return "_parameters" in own and "_modules" in own


def is_script(node: Node) -> bool:
    """Whether a node is an object of a class that a TorchScript archive's code defines."""
    return isinstance(node, Call) and node.module.split(".")[0] == "__torch__"


def state_of(nodes: SequenceABC[Node], index: int) -> list[Named]:
    """The tensors of a pickled module, shared ones under each of their names; total."""
    return _collected(nodes, index, _of_module)


def state_of_script(nodes: SequenceABC[Node], index: int) -> list[Named]:
    """The tensors of a TorchScript module: every attribute that is one, before those of its submodules."""
    return _collected(nodes, index, _of_script)


def _collected(nodes: SequenceABC[Node], index: int, look: _Look) -> list[Named]:
    found: list[Named] = []
    # A module's own tensors stand before those of its submodules, which follow in their order.
    stack: list[tuple[str, int, frozenset[int]]] = [("", index, frozenset())]
    while stack and len(found) < MOST:
        prefix, here, above = stack.pop()
        tensors, inner = look(nodes, here)
        found.extend(Named(prefix + name, at) for name, at in tensors)
        if len(above) < DEPTH:
            within = above | {here}
            stack.extend((f"{prefix}{name}.", at, within) for name, at in reversed(inner) if at not in within)
    return found


def _of_module(nodes: SequenceABC[Node], index: int) -> tuple[_Pairs, _Pairs]:
    own = _attributes(nodes, index)
    passing = set(_texts(nodes, own.get("_non_persistent_buffers_set")))
    tensors = [(n, i) for n, i in _entries(nodes, own.get("_parameters")) if isinstance(nodes[i], Tensor)]
    tensors += [
        (n, i) for n, i in _entries(nodes, own.get("_buffers")) if isinstance(nodes[i], Tensor) and n not in passing
    ]
    return tensors, [(n, i) for n, i in _entries(nodes, own.get("_modules")) if isinstance(nodes[i], Call)]


def _of_script(nodes: SequenceABC[Node], index: int) -> tuple[_Pairs, _Pairs]:
    pairs = list(_attributes(nodes, index).items())
    tensors = [(name, at) for name, at in pairs if isinstance(nodes[at], Tensor)]
    return tensors, [(name, at) for name, at in pairs if is_script(nodes[at])]


def _attributes(nodes: SequenceABC[Node], index: int) -> dict[str, int]:
    node = nodes[index]
    if not isinstance(node, Call) or node.state is None:
        return {}
    return dict(_named(nodes, pairs_of(nodes, nodes[node.state]) or []))


def _entries(nodes: SequenceABC[Node], index: int | None) -> _Pairs:
    node = None if index is None else nodes[index]
    return list(_named(nodes, pairs_of(nodes, node) or [])) if isinstance(node, Mapping) else []


def _named(nodes: SequenceABC[Node], pairs: list[tuple[int, int]]) -> Iterator[tuple[str, int]]:
    for key, value in pairs:
        text = nodes[key]
        if isinstance(text, Value) and isinstance(text.value, str):
            yield text.value, value


def _texts(nodes: SequenceABC[Node], index: int | None) -> Iterator[str]:
    node = None if index is None else nodes[index]
    for item in node.items if isinstance(node, Sequence) else ():
        text = nodes[item]
        if isinstance(text, Value) and isinstance(text.value, str):
            yield text.value


def detached(nodes: SequenceABC[Node], tensor: Tensor) -> Tensor:
    """A parameter as a state dict has it: the tensor itself, without gradient. Others stay as they are."""
    here = tensor
    for _ in range(8):
        inner = dict(here.parts).get("data")
        node = None if inner is None else nodes[inner]
        if not here.form.startswith("torch._utils._rebuild_parameter") or not isinstance(node, Tensor):
            break
        here = node
    if here.call is None and here.form.startswith("torch._utils._rebuild_parameter") and here.storage is not None:
        here = replace(here, form=_DENSE[0])
    return replace(here, requires_grad=False) if here.form in _DENSE and here.call is None else here
