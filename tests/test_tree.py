"""Walking the arena: order, paths, sharing, cycles, depth, modules as their state dict."""

from __future__ import annotations

import time

from hypothesis import given, strategies as st

from ckpttool.dtypes import DTYPES
from ckpttool.model import MAX_DEPTH, Call, Checkpoint, Global, Mapping, Node, Sequence, Tensor, Value
from ckpttool.tree import children, fields, items, key_text, lookup, paths_to, walk

TENSOR = Tensor(DTYPES["float32"], (2,), (1,), 0, 0)


def of(*nodes: Node, root: int | None = 0) -> Checkpoint:
    return Checkpoint("x", "torch-zip", nodes, root)


def keys(checkpoint: Checkpoint) -> list[str]:
    return [entry.key for entry in walk(checkpoint)]


def test_leaves_come_in_the_files_order_with_their_paths() -> None:
    tree = of(
        Mapping("dict", (1, 2), (3, 4)), Value("b"), Value("a"), Sequence("list", (5, 6)), TENSOR, Value(1), Value(2)
    )
    assert keys(tree) == ["b.0", "b.1", "a"]
    assert [(e.path, e.index) for e in walk(tree)] == [(("b", "0"), 5), (("b", "1"), 6), (("a",), 4)]
    assert [(e.key, t) for e, t in tree.tensors()] == [("a", TENSOR)]


def test_a_checkpoint_without_a_tree_has_no_leaves() -> None:
    assert keys(of(root=None)) == []


def test_a_walk_may_start_anywhere() -> None:
    tree = of(Mapping("dict", (1,), (2,)), Value("model"), Sequence("list", (3,)), Value(7))
    assert [e.path for e in walk(tree, 2, ("here",))] == [("here", "0")]


def test_empty_containers_are_leaves() -> None:
    assert keys(of(Mapping("dict", (1,), (2,)), Value("empty"), Mapping("dict", (), ()))) == ["empty"]


def test_a_shared_container_is_walked_under_each_name() -> None:
    tree = of(Mapping("dict", (1, 2), (3, 3)), Value("model"), Value("ema"), Sequence("list", (4,)), TENSOR)
    assert keys(tree) == ["model.0", "ema.0"]


def test_cycles_are_cut() -> None:
    assert keys(of(Sequence("list", (0, 1)), Value(1))) == ["1"]
    tree = of(Sequence("list", (1, 2)), Sequence("list", (0, 2)), Value(1))
    assert keys(tree) == ["0.1", "1"]


def test_levels_below_the_limit_are_left_out() -> None:
    for depth, seen in ((MAX_DEPTH, 1), (MAX_DEPTH + 1, 0)):
        nodes = [*(Sequence("list", (i + 1,)) for i in range(depth)), Value(1)]
        assert len(keys(of(*nodes))) == seen


@given(levels=st.integers(1, 60), width=st.integers(2, 4))
def test_unfolding_trees_are_walked_in_linear_time(levels: int, width: int) -> None:
    nodes = [*(Sequence("tuple", (i + 1,) * width) for i in range(levels)), Value(1)]
    began = time.process_time()
    assert len(keys(of(*nodes))) <= 40_000
    assert time.process_time() - began < 2


def test_keys_of_every_kind_have_a_text() -> None:
    assert [key_text(n) for n in (Value("a.b"), Value(3), Value(None), Value(b"x"), Global("m", "C"), TENSOR)] == [
        "a.b", "3", "None", "b'x'", "m.C", "<tensor>",
    ]  # fmt: skip


def test_a_module_shows_parameters_buffers_and_submodules_under_their_names() -> None:
    names = [Value(n) for n in ("training", "_parameters", "_buffers", "_modules", "weight", "mean")]
    inner = Call("NEWOBJ", "nets", "Net", (), 8)
    nodes: list[Node] = [
        inner, *names, TENSOR,
        Mapping("dict", (1, 2, 3, 4), (9, 10, 11, 12)), Value(True),
        Mapping("dict", (5,), (7,)), Mapping("dict", (6,), (7,)), Mapping("dict", (), ()),
    ]  # fmt: skip
    assert keys(of(*nodes)) == ["training", "weight", "mean"]


def test_arguments_items_and_states_of_calls_are_shown() -> None:
    call = Call("REDUCE", "m", "C", (1, 2), 3, (4,), (5,), (6,))
    tree = of(call, Global("m", "D"), Value(1), Value("state"), Value(4), Value("key"), Value(6))
    assert [step for step, _ in children(tree.nodes, call)] == [("state",), ("args[1]",), ("0",), ("key",)]
    assert paths_to(tree, {1, 3, 6}) == {1: ("args[0]",), 3: ("state",), 6: ("key",)}


def test_paths_lead_to_containers_and_leave_out_what_is_out_of_reach() -> None:
    tree = of(Mapping("dict", (1,), (2,)), Value("model"), Sequence("list", (3,)), TENSOR, Value("lost"))
    assert paths_to(tree, {0, 2, 3, 4}) == {0: (), 2: ("model",), 3: ("model", "0")}
    assert paths_to(of(root=None), {0}) == {}


def test_lookups() -> None:
    tree = of(
        Mapping("dict", (1, 1), (2, 3)), Value("a"), Value("first"), Mapping("dict", (4,), (5,)), Value(0),
        Sequence("list", (2, 3)), Call("NEWOBJ", "m", "C", (), 0),
    )  # fmt: skip
    assert lookup(tree, 0, "a") == 3, "the last one counts, as in a dict"
    assert lookup(tree, 0, "a", "0") == 5
    assert lookup(tree, 0, "b") is None
    assert lookup(tree, None, "a") is None
    assert fields(tree, 0) == fields(tree, 6) == {"a": 3}
    assert fields(tree, 5) == {}
    assert items(tree, 5) == (2, 3)
    assert items(tree, None) == ()
