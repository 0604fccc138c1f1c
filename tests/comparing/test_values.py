"""Values that are no tensors: what counts as equal, what is folded, and that nothing overflows."""

from __future__ import annotations

import math
import struct
from typing import Any

import pytest
from hypothesis import given, strategies as st

from ckpttool.comparing.plain_tree import DEEP, LONG, plain_tree
from ckpttool.comparing.values import CROWD, Edited, compare, reorderings
from ckpttool.model import Blob, Checkpoint, Mapping, Node, Sequence, Span, Value
from ckpttool.testing.trees import Attributes, T, checkpoint_of

QUIET_NAN = float("nan")
OTHER_NAN: float = struct.unpack(">d", bytes.fromhex("7ff8000000000001"))[0]


def edits(a: Any, b: Any) -> list[Edited]:
    one, other = checkpoint_of({"x": a}), checkpoint_of({"x": b})
    assert one.root is not None
    assert other.root is not None
    return compare(plain_tree(one, one.root), plain_tree(other, other.root))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (1, 2), (1, 1.0), (1, True), (0.0, -0.0), (QUIET_NAN, OTHER_NAN), ("a", b"a"), ("1", 1), (None, False),
        (10**30, 10**30 + 1),
        (1 + 2j, 1 - 2j), ([1, 2], (1, 2)), ({1: 2}, {"1": 2}), ({}, []), ({}, None), ({}, {"a": {}}),
        (Attributes({"lr": 1}), {"lr": 1}), (Attributes({"lr": 1}), Attributes({"lr": 1}, "my.Args")),
    ],
)  # fmt: skip
def test_these_differ(a: Any, b: Any) -> None:
    assert edits(a, b)
    assert edits(b, a)


@pytest.mark.parametrize("value", [QUIET_NAN, -0.0, math.inf, [QUIET_NAN], {"__private": {"__x": 1}}, ()])
def test_these_are_equal_to_themselves(value: Any) -> None:
    assert edits(value, value) == []


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(width=64) | st.text(max_size=3) | st.binary(max_size=3),
    lambda below: (
        st.lists(below, max_size=4)
        | st.tuples(below, below)
        | st.dictionaries(st.text(max_size=2) | st.integers(0, 3), below, max_size=4)
    ),
    max_leaves=12,
)


@given(plain, plain)
def test_both_directions_see_the_same_places(a: Any, b: Any) -> None:
    forth, back = edits(a, b), edits(b, a)
    turned = {"added": "removed", "removed": "added", "changed": "changed"}
    assert sorted(e.path for e in forth) == sorted(e.path for e in back)
    assert sorted(turned[e.op] for e in forth) == sorted(e.op for e in back)
    assert edits(a, a) == []


def test_integers_too_long_to_print_are_compared() -> None:
    (edit,) = edits(10**5000, 10**5000 + 1)
    assert edit.before == "an integer of 16,610 bits"


def test_private_names_are_compared() -> None:
    assert [e.path for e in edits({"__x": 1}, {"__x": 2})] == [("x", "__x")]


def test_an_item_taken_out_of_a_list_is_one_edit() -> None:
    (edit,) = edits([1, 2, 3, 4], [1, 3, 4])
    assert (edit.op, edit.before) == ("removed", 2)


def test_another_class_of_object_is_named() -> None:
    (edit,) = edits(Attributes({"lr": 1}), Attributes({"lr": 1}, "my.Args"))
    assert (edit.before, edit.after, edit.note) == ("argparse.Namespace", "my.Args", "the kind of object")


def test_long_lists_are_counted() -> None:
    before = list(range(LONG))
    (edit,) = edits(before, [-1, *before[1:]])
    assert (edit.path, edit.several, edit.note) == (("x",), 1, f"1 of {LONG} values differ")
    (edit,) = edits(before, [*before, 1])
    assert edit.note == f"{LONG} → {LONG + 1} values, the first {LONG} equal"


def test_crowds_are_folded() -> None:
    before = {"y": {str(i): i for i in range(CROWD + 1)}}
    (edit,) = edits(before, {"y": {key: value + 1 for key, value in before["y"].items()}})
    assert (edit.path, edit.several) == (("x", "y"), CROWD + 1)


def test_sets_have_no_order() -> None:
    def of(items: list[int]) -> Checkpoint:
        nodes: list[Node] = [Value(item) for item in items]
        return Checkpoint("", "torch-zip", (*nodes, Sequence("set", tuple(range(len(items))))), len(items))

    one, other, less = of([1, 2, 3]), of([3, 1, 2]), of([1, 2])
    assert compare(plain_tree(one, 3), plain_tree(other, 3)) == []
    assert [e.op for e in compare(plain_tree(one, 3), plain_tree(less, 2))] == ["removed"]


def nested(depth: int, leaf: int) -> Checkpoint:
    """A dict in a dict in a dict …, built without recursion."""
    nodes: list[Node] = [Value("k"), Value(leaf)]
    for _ in range(depth):
        nodes.append(Mapping("dict", (0,), (len(nodes) - 1,)))
    return Checkpoint("", "torch-zip", tuple(nodes), len(nodes) - 1)


@pytest.mark.parametrize("depth", [DEEP - 1, DEEP, DEEP + 1, 390])
def test_deep_values_are_compared_to_the_bottom(depth: int) -> None:
    one, other = nested(depth, 1), nested(depth, 2)
    assert one.root is not None
    (edit,) = compare(plain_tree(one, one.root), plain_tree(other, one.root))
    assert (".".join(edit.path), edit.before, edit.after) == (".".join("k" * depth), 1, 2)


def test_cycles_and_endless_depth_end() -> None:
    loop = Checkpoint("", "torch-zip", (Value("me"), Mapping("dict", (0,), (1,))), 1)
    assert compare(plain_tree(loop, 1), plain_tree(loop, 1)) == []
    deep = nested(5000, 1)
    assert deep.root is not None
    assert compare(plain_tree(deep, deep.root), plain_tree(deep, deep.root)) == []


def test_shared_containers_do_not_explode() -> None:
    nodes: list[Node] = [Value("a"), Value("b"), Value(1)]
    for _ in range(60):
        nodes.append(Mapping("dict", (0, 1), (len(nodes) - 1, len(nodes) - 1)))
    bomb = Checkpoint("", "torch-zip", tuple(nodes), len(nodes) - 1)
    assert compare(plain_tree(bomb, len(nodes) - 1), plain_tree(bomb, len(nodes) - 1)) == []


def test_tensors_and_what_holds_nothing_else_are_left_to_others() -> None:
    assert edits({"w": T(), "n": 1}, {"n": 1}) == []
    assert edits({"model": {"w": T()}}, {}) == []
    assert [e.path for e in edits({"model": {}}, {})] == [("x", "model")]
    assert edits([T(), 1], [T(), 1]) == []
    assert edits([{"w": T()}, {"w": T()}], [{"w": T()}]) == []
    (edit,) = edits([T(), 1], [T(), 2])
    assert edit.path == ("x", "1")


def test_byte_strings_left_in_the_file_are_compared_by_digest() -> None:
    one = Checkpoint("", "torch-zip", (Blob(Span("a", 0, 4)),), 0)
    other = Checkpoint("", "torch-zip", (Blob(Span("b", 0, 4)),), 0)
    assert compare(plain_tree(one, 0, lambda s: s.source), plain_tree(other, 0, lambda s: s.source))
    assert compare(plain_tree(one, 0), plain_tree(other, 0)) == []


def test_another_order_of_keys_is_told_once() -> None:
    def tree(value: Any) -> Any:
        checkpoint = checkpoint_of(value)
        assert checkpoint.root is not None
        return plain_tree(checkpoint, checkpoint.root)

    found = list(reorderings(tree({"c": {"a": 1, "b": 2, "d": 3}}), tree({"c": {"d": 3, "a": 1, "b": 2}})))
    assert found == [(("c",), 1, 3)]
    assert list(reorderings(tree({"a": 1, "b": 2}), tree({"a": 1, "x": 0, "b": 2}))) == []


def test_lists_that_align_in_several_ways_are_seen_alike_from_both_sides() -> None:
    forth, back = edits([None, False, None], [False, False]), edits([False, False], [None, False, None])
    assert [e.path for e in forth] == [e.path for e in back]
