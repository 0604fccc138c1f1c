"""Merging arenas: every part keeps its tree, its storages and its names."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from ckpttool.dtypes import DTYPES
from ckpttool.formats import describe
from ckpttool.formats.merge import merge, within
from ckpttool.model import (
    Blob,
    Call,
    Checkpoint,
    Damage,
    Entry,
    Extent,
    Global,
    GlobalUse,
    Mapping,
    Node,
    Sequence,
    Span,
    Storage,
    Tensor,
    Value,
)
from ckpttool.tree import walk

SPAN = Span("f", 0, 4)
PARTS = (
    Value(1), Value("k"), Blob(SPAN), Global("m", "n"),
    Mapping("dict", (1,), (0,), 2, (3,)),
    Sequence("list", (4, 4), 0),
    Call("REDUCE", "m", "n", (5,), 4, (0,), (1,), (2,)),
    Value(2.0, 6),
    Tensor(DTYPES["float32"], (1,), (1,), 0, 0, parts=(("data", 4),), call=6),
)  # fmt: skip


def part(root: int = 8) -> Checkpoint:
    return Checkpoint(
        "f", "x", PARTS, root, (Storage("0", DTYPES["float32"], 4, SPAN, record="data/0"),),
        (Extent("data/0", SPAN, None, "deflate", 9),), (GlobalUse("m", "n", "data.pkl", 3),),
        (Damage("truncated", "", "cut"), Damage("truncated", "byte 3", "cut")), ("f",), 10, {"a": 1},
    )  # fmt: skip


def test_references_of_every_kind_of_node_move() -> None:
    merged = merge([("a", part()), ("b", part())])
    count = len(PARTS)
    assert merged.nodes[:count] == PARTS
    assert merged.roots == (8, 8 + count)
    assert merged.nodes[count:] == (
        Value(1), Value("k"), Blob(SPAN), Global("m", "n"),
        Mapping("dict", (count + 1,), (count,), count + 2, (count + 3,)),
        Sequence("list", (count + 4, count + 4), count),
        Call("REDUCE", "m", "n", (count + 5,), count + 4, (count,), (count + 1,), (count + 2,)),
        Value(2.0, count + 6),
        Tensor(DTYPES["float32"], (1,), (1,), 0, 1, parts=(("data", count + 4),), call=count + 6),
    )  # fmt: skip


def test_names_say_which_part() -> None:
    merged = merge([("a", part()), ("b", part())])
    assert [s.record for s in merged.storages] == ["a: data/0", "b: data/0"]
    assert merged.extents[1] == Extent("b: data/0", SPAN, None, "deflate", 9)
    assert [use.where for use in merged.globals] == ["a: data.pkl", "b: data.pkl"]
    assert [damage.where for damage in merged.damage] == ["a", "a: byte 3", "b", "b: byte 3"]
    assert merged.metadata == {"a": {"format": "x", "a": 1}, "b": {"format": "x", "a": 1}}
    assert (merged.files, merged.nbytes) == (("f",), 20)


def test_a_part_without_a_tree_has_no_root() -> None:
    merged = merge([("a", Checkpoint("p", "x")), ("b", part())])
    assert merged.roots == (None, 8)
    assert merged.files == ("p", "f")
    assert within("a", "") == "a"


@given(st.lists(st.lists(st.integers(), max_size=4), max_size=5))
def test_every_part_walks_as_before(lists: list[list[int]]) -> None:
    parts = [("p", flat(values)) for values in lists]
    merged = merge(parts)
    whole = Checkpoint("all", "x", merged.nodes)
    for (_, one), root in zip(parts, merged.roots, strict=True):
        assert leaves(walk(whole, root)) == leaves(walk(one))


def flat(values: list[int]) -> Checkpoint:
    nodes: tuple[Node, ...] = (Sequence("list", tuple(range(1, len(values) + 1))), *map(Value, values))
    return Checkpoint("p", "x", nodes, 0)


def leaves(entries: object) -> list[tuple[tuple[str, ...], object]]:
    return [(e.path, getattr(e.node, "value", None)) for e in entries if isinstance(e, Entry)]  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["training.pth", "layouts.pth", "python_values.pth"])
def test_real_trees_walk_as_before(fixtures_dir: Path, name: str) -> None:
    one = describe(fixtures_dir / name)
    merged = merge([("first", one), ("second", one)])
    whole = Checkpoint("all", "x", merged.nodes)
    before = [(entry.path, type(entry.node)) for entry in walk(one)]
    for root in merged.roots:
        assert [(entry.path, type(entry.node)) for entry in walk(whole, root)] == before
