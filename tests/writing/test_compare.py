"""Two trees are the same only where nobody who loads them could tell one from the other."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ckpttool.dtypes import DTYPES
from ckpttool.model import Checkpoint, Mapping, Node, Storage, Tensor, Value
from ckpttool.writing.compare import first_difference

F32 = DTYPES["float32"]
A = Tensor(F32, (2, 2), (2, 1), 0, 0)
B = Tensor(F32, (2, 2), (2, 1), 0, 1)
STORAGES = (Storage("0", F32, 16), Storage("1", F32, 16))


def tree(*values: Node, storages: tuple[Storage, ...] = STORAGES) -> Checkpoint:
    """A dict of these values under the keys 0, 1, …"""
    keys = tuple(range(1, len(values) + 1))
    nodes = (
        Mapping("dict", keys, tuple(key + len(values) for key in keys)),
        *(Value(str(key)) for key in keys),
        *values,
    )
    return Checkpoint("a", "torch-zip", nodes, 0, storages)


@pytest.mark.parametrize(
    ("meant", "found"),
    [
        (tree(Value(0.0)), tree(Value(-0.0))),
        (tree(Value(1)), tree(Value(True))),
        (tree(Value(1)), tree(Value(1.0))),
        (tree(Value("a")), tree(Value("b"))),
        (tree(A, B), tree(A, A)),
        (tree(A, A), tree(A, B)),
        (tree(A), tree(replace(A, stride=(1, 2)))),
        (tree(A), tree(replace(A, requires_grad=True))),
        (tree(A), tree(A, storages=(Storage("0", F32, 20),))),
        (tree(A), tree(A, storages=(Storage("0", F32, 16, device="cuda:0"),))),
        (tree(A), tree(Value(1))),
        (tree(A, A), tree(A)),
    ],
)
def test_what_differs(meant: Checkpoint, found: Checkpoint) -> None:
    assert first_difference(meant, found)


def test_what_is_the_same() -> None:
    one = tree(A, B, Value(float("nan")), Value(0.0), Value("a"), Value(None))
    assert not first_difference(one, one)
    assert not first_difference(one, replace(one, storages=(replace(STORAGES[0], key="7"), STORAGES[1])))


def test_nodes_may_be_numbered_otherwise() -> None:
    one = tree(A, Value(1))
    nodes = (one.nodes[0], *one.nodes[1:3], one.nodes[4], one.nodes[3])
    other = replace(one, nodes=(replace(one.nodes[0], values=(4, 3)), *nodes[1:]))  # type: ignore[call-arg]
    assert not first_difference(one, other)
    assert first_difference(one, replace(one, nodes=nodes))
