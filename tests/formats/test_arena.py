"""The arena: what the machine's stand-ins become, and what deep, cyclic and unfolding trees cost."""

from __future__ import annotations

import pickle
import time
from typing import Any

import pytest

from ckpttool.dtypes import DTYPES
from ckpttool.formats.arena import CUT, Arena, shape_of_tree, structure
from ckpttool.formats.pickle_machine import Machine
from ckpttool.formats.plain_values import CONTAINERS
from ckpttool.formats.stack import CallOf, ListOf, Named, StorageRef, TensorOf
from ckpttool.limits import DEFAULT, Limits
from ckpttool.model import Blob, Call, Global, Mapping, Sequence, Span, Tensor, Value

F32 = DTYPES["float32"]


def frozen(data: bytes) -> tuple[Arena, int]:
    outcome = Machine(data, reducers=CONTAINERS).run()
    assert outcome.complete, outcome.problems
    arena = Arena()
    return arena, arena.add(outcome.root, "x.pt", 100)


def shape(data: bytes, limits: Limits = DEFAULT) -> list[str]:
    arena, root = frozen(data)
    return [rule for rule, _ in shape_of_tree(tuple(arena.nodes), root, limits)]


def test_parents_stand_before_their_children_and_equal_atoms_stand_once() -> None:
    arena, root = frozen(pickle.dumps({"a": 1, "b": [1, "a"]}, 2))
    assert root == 0
    assert [n for n in arena.nodes if isinstance(n, Value)].count(Value("a")) == 1
    for index, node in enumerate(arena.nodes):
        assert all(isinstance(arena.nodes[i], Value) or i > index for i in structure(node))


def test_atoms_that_are_equal_but_differ_are_kept_apart() -> None:
    values = [1, True, 1.0, 0.0, -0.0, False, 0, float("nan"), 1 + 0j, b"", ""]
    arena, root = frozen(pickle.dumps(values, 2))
    node = arena.nodes[root]
    assert isinstance(node, Sequence)
    kept: list[Any] = [arena.nodes[i].value for i in node.items]  # type: ignore[union-attr]
    assert [(type(v), repr(v)) for v in kept] == [(type(v), repr(v)) for v in values]


def test_complex_zeros_keep_their_signs() -> None:
    values = [complex(0.0, 0.0), complex(0.0, -0.0), complex(-0.0, 0.0)]
    arena, root = frozen(pickle.dumps(values, 2))
    kept = [repr(arena.nodes[i].value) for i in arena.nodes[root].items]  # type: ignore[union-attr]
    assert kept == [repr(v) for v in values]


def test_byte_strings_name_their_place_in_the_file() -> None:
    data = pickle.dumps(b"z" * 2000, 4)
    arena, root = frozen(data)
    start = data.index(b"zz")
    assert arena.nodes[root] == Blob(Span("x.pt", 100 + start, 2100 + start))


def test_byte_strings_of_an_inflated_pickle_are_copied() -> None:
    data = pickle.dumps(b"z" * 2000, 4)
    arena = Arena()
    root = arena.add(Machine(data).run().root, "x.pt", 0, data)
    assert arena.nodes[root] == Value(b"z" * 2000)


def test_calls_globals_and_storages_become_nodes() -> None:
    target = Named("m", "C", 0)
    made = CallOf("NEWOBJ", target, (target, 2))
    made.state, made.items, made.flat = "s", [3], ["k", 4]
    tensor = Tensor(F32, (2,), (1,), 0, 0)
    arena = Arena()
    root = arena.add(
        ListOf("list", [made, TensorOf(tensor, made, [("values", tensor)]), StorageRef(5, F32, 7, 28, 1)]), "x", 0
    )
    call, whole, storage = (arena.nodes[i] for i in arena.nodes[root].items)  # type: ignore[union-attr]
    assert isinstance(call, Call)
    assert (call.how, call.dotted, len(call.args), len(call.items)) == ("NEWOBJ", "m.C", 2, 1)
    assert isinstance(arena.nodes[call.args[0]], Global)
    assert isinstance(whole, Tensor)
    assert whole.call is not None
    assert [name for name, _ in whole.parts] == ["values"]
    assert isinstance(storage, Tensor)
    assert (storage.form, storage.shape, storage.offset, storage.storage) == ("storage", (7,), 1, 5)


def test_a_second_tree_shares_the_arena() -> None:
    arena = Arena()
    first = arena.add(ListOf("list", ["a"]), "x", 0)
    second = arena.add(ListOf("list", ["a"]), "x", 0)
    assert first != second
    assert arena.nodes[first] == arena.nodes[second]


def test_a_list_that_holds_itself_is_cyclic() -> None:
    loop: list[Any] = []
    loop.append(loop)
    assert shape(pickle.dumps(loop, 2)) == ["cyclic-tree"]
    assert shape(pickle.dumps([[1], [1]], 2)) == []


def test_deep_trees_are_folded_and_reported() -> None:
    for data in (b")" + b"\x85" * 100_000 + b".", b"]" * 100_001 + b"a" * 100_000 + b"."):
        arena, root = frozen(data)
        assert len(arena.nodes) <= CUT + 3
        assert shape_of_tree(tuple(arena.nodes), root, DEFAULT)[0][0] == "too-deep"
    assert shape(b")" + b"\x85" * 300 + b".") == []


@pytest.mark.parametrize("levels", [40, 400])
def test_a_tree_that_unfolds_without_end_is_counted_in_no_time(levels: int) -> None:
    began = time.process_time()
    assert "too-many-leaves" in shape(b"K\1" + b"2\x86" * levels + b".")
    assert time.process_time() - began < 0.2


def test_a_key_that_unfolds_without_end_is_a_hash_bomb() -> None:
    began = time.process_time()
    assert "hash-bomb" in shape(b"}K\1" + b"2\x86" * 60 + b"Ns.")
    assert "hash-bomb" in shape(b"})" + b"\x85" * 450 + b"Ns.")
    assert time.process_time() - began < 0.2
    assert shape(pickle.dumps({(1, (2, 3)): 4}, 2)) == []


def test_elements_of_sets_are_hashed_too() -> None:
    for kind in (b"\x8f(", b"cbuiltins\nset\n]("):
        close = b"\x90." if kind[0] == 0x8F else b"e\x85R."
        assert "hash-bomb" in shape(kind + b"K\1" + b"2\x86" * 60 + close)
    assert "hash-bomb" in shape(b"(K\1" + b"2\x86" * 60 + b"\x91.")
    assert shape(pickle.dumps({(1, 2), (3,)}, 4)) == []


def test_a_wide_tree_is_one_mapping() -> None:
    arena, root = frozen(pickle.dumps({str(i): i for i in range(5000)}, 2))
    node = arena.nodes[root]
    assert isinstance(node, Mapping)
    assert len(node.keys) == len(node.values) == 5000
