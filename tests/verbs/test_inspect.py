"""What inspect says of small checkpoints made by hand, and that it counts each byte once."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import pytest
from hypothesis import given, strategies as st

from ckpttool.dtypes import DTYPES
from ckpttool.errors import ExitCode, Unreadable, UsageError
from ckpttool.layout import Layout, Section
from ckpttool.model import Checkpoint, Mapping, Node, Sequence as List, Span, Storage, Tensor, Value
from ckpttool.render import render
from ckpttool.render.columns import cells
from ckpttool.report import Table
from ckpttool.verbs import inventory
from ckpttool.verbs.explain import explain
from ckpttool.verbs.inspect import inspect, keys
from ckpttool.verbs.inventory import Selection, items, owned_bytes, parameters, ties
from ckpttool.verbs.outline import outline

Make: TypeAlias = Callable[..., Path]
F32 = DTYPES["float32"]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Write a safetensors file of float32 vectors: name and values."""

    def make(**tensors: Sequence[float]) -> Path:
        header, content = {}, b""
        for name, values in tensors.items():
            start = len(content)
            content += struct.pack(f"<{len(values)}f", *values)
            header[name] = {"dtype": "F32", "shape": [len(values)], "data_offsets": [start, len(content)]}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        path = tmp_path / "made.safetensors"
        path.write_bytes(struct.pack("<Q", len(text)) + text + content)
        return path

    return make


def checkpoint(storages: Sequence[int], views: Sequence[tuple[int, int, int]]) -> Checkpoint:
    """A flat dict of vectors: views (storage, offset, length) into storages; all counted in elements."""
    nodes: list[Node] = []
    for place, (storage, offset, length) in enumerate(views):
        nodes += [Value(f"t{place}"), Tensor(F32, (length,), (1,), offset, storage)]
    pairs = range(0, len(nodes), 2)
    nodes.append(Mapping("dict", tuple(pairs), tuple(i + 1 for i in pairs)))
    made = tuple(Storage(str(i), F32, 4 * n, Span("x", 0, 4 * n)) for i, n in enumerate(storages))
    return Checkpoint("x", "torch-zip", tuple(nodes), len(nodes) - 1, made)


@given(
    st.lists(st.integers(0, 20), min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 25), st.integers(0, 25)), max_size=12),
)
def test_every_byte_is_owned_once_or_unreachable(sizes: list[int], views: list[tuple[int, int, int]]) -> None:
    views = [view for view in views if view[0] < len(sizes)]
    made = checkpoint(sizes, views)
    layout = Layout((Section("weights", (), 0), Section("ema", ("t1",), 0), Section("rng", ("t2",), 0)))
    owned, rest = owned_bytes(made, items(made, layout))
    seen = {(s, e) for s, offset, n in views for e in range(offset, min(offset + n, sizes[s]))}
    assert sum(owned.values()) == 4 * len(seen)
    assert sum(owned.values()) + rest == 4 * sum(sizes)


def test_ties_are_keys_over_the_same_bytes_and_count_once() -> None:
    made = checkpoint([8, 4], [(0, 0, 8), (1, 0, 4), (0, 0, 8), (0, 0, 4)])
    found = items(made, Layout((Section("weights", (), 0),)))
    assert ties(found) == (("t0", "t2"),)
    assert parameters(found) == 8 + 4 + 4


def test_buffers_are_no_parameters(make: Make) -> None:
    found = inspect(make(**{"bn.running_mean": [0.5, 0.5], "bn.weight": [1.0, 2.0, 3.0]})).json
    assert found["parameters"] == 3


def test_bytes_that_the_file_lacks_are_not_counted() -> None:
    huge = Storage("0", F32, 2**60, Span("x", 0, 8))
    assert inventory.present(huge) == 8
    assert inventory.present(Storage("0", F32, 2**60)) == 0


def test_selection_by_glob_and_section() -> None:
    made = checkpoint([4], [(0, 0, 1), (0, 1, 1), (0, 2, 1)])
    layout = Layout((Section("ema", ("t1",), 0),))

    def chosen(**wishes: tuple[str, ...]) -> list[str]:
        return [item.key for item in items(made, layout, Selection(**wishes))]

    assert chosen(only=("t[01]",)) == ["t0", "t1"]
    assert chosen(only=("t*",), ignore=("*1",)) == ["t0", "t2"]
    assert chosen(sections=("ema",)) == ["t1"]


def test_the_data_is_the_contracts(make: Make) -> None:
    report = inspect(make(a=[1, 2], b=[3]))
    assert report.exit_code is ExitCode.OK
    assert report.data["format"] == "safetensors"
    assert [one["name"] for one in report.data["sections"]] == ["weights", "unreachable"]  # type: ignore[union-attr, index, call-overload]
    assert report.data["tensors"][0] == {  # type: ignore[index, call-overload]
        "key": "a",
        "path": ["a"],
        "dtype": "float32",
        "shape": [2],
        "bytes": 8,
        "storage": report.data["tensors"][0]["storage"],  # type: ignore[index, call-overload]
        "section": "weights",
    }
    assert keys(report)["keys"] == [
        {"key": "a", "path": ["a"], "dtype": "float32", "shape": [2]},
        {"key": "b", "path": ["b"], "dtype": "float32", "shape": [1]},
    ]


def test_statistics_count_what_is_not_a_number(make: Make) -> None:
    report = inspect(make(a=[0, 1, 3, float("nan"), float("inf")]), views=["stats"])
    (tensor,) = report.data["tensors"]  # type: ignore[misc]
    stats = tensor["stats"]  # type: ignore[index, call-overload]
    assert (stats["nan"], stats["inf"], stats["zeros"]) == (1, 1, 1)
    assert (stats["min"], stats["max"], stats["mean"]) == (0.0, 3.0, pytest.approx(4 / 3))
    (table,) = [block for block in report.blocks if isinstance(block, Table)]
    assert table.rows[0][1:8] == ("0", "3", "1.333", "1.247", "1", "1", "1")


def test_progress_ends_at_the_total(make: Make) -> None:
    seen: list[tuple[int, int]] = []
    inspect(make(a=[1, 2], b=[3]), views=["stats"], progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (12, 12)


def test_without_views_no_content_is_read(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("content was measured")

    monkeypatch.setattr("ckpttool.measure.statistics", refuse)
    inspect(make(a=[1]), views=["tree", "tensors"])


def test_a_typo_in_a_glob_is_said(make: Make) -> None:
    with pytest.raises(
        UsageError, match=r"no tensor is left by --only 'layrs\.\*'; the file has 1 tensor, such as 'a'"
    ):
        inspect(make(a=[1]), only=["layrs.*"])


def test_what_cannot_be_opened_is_raised(tmp_path: Path) -> None:
    with pytest.raises(Unreadable):
        inspect(tmp_path / "absent.pt")


def test_damage_met_while_reading_leads_to_verify(make: Make) -> None:
    path = make(a=[1, 2, 3])
    path.write_bytes(path.read_bytes()[:-4])
    text = render(inspect(path), "text")
    assert "met while reading" in text
    assert "run: ckpttool verify" in text


def test_the_tree_folds_and_lists_values() -> None:
    nodes: tuple[Node, ...] = (
        Value("model"),
        Value("layers.0.w"),
        Value("layers.1.w"),
        Tensor(F32, (2,), (1,), 0, 0),
        Mapping("dict", (1, 2), (3, 3)),
        Value("betas"),
        Value(0.9),
        List("tuple", (6, 6)),
        Value("mixed"),
        List("list", (6, 3)),
        Value("name"),
        Value("x" * 100),
        Mapping("dict", (0, 5, 8, 10), (4, 7, 9, 11)),
    )
    made = Checkpoint("x", "pickle", nodes, 12, (Storage("0", F32, 8),))
    assert outline(list(made.entries())) == (
        (0, "model.layers.{0,1}.w: float32 2"),
        (0, "betas: [0.9, 0.9]"),
        (0, "mixed"),
        (1, "0: 0.9"),
        (1, "1: float32 2"),
        (0, f"name: {'x' * 60!r}… (100 characters)"),
    )


@pytest.mark.parametrize("views", [(), ("tree",), ("tensors",), ("stats",)])
def test_real_files_read_well_at_80_columns(fixtures_dir: Path, views: tuple[str, ...]) -> None:
    for name in ("training.pth", "mlp.safetensors", "sharded", "legacy.pth", "page.html.pth"):
        report = inspect(fixtures_dir / name, views=views)  # type: ignore[arg-type]
        assert max(map(cells, render(report, "text", 80).splitlines())) <= 80
        for item in report.data["tensors"]:  # type: ignore[union-attr]
            assert isinstance(item, dict)
            if views == ("tensors",):
                squeezed = "".join(render(report, "text", 80).split())
                assert str(item["key"]).split(".")[-1] in squeezed


def test_explaining_a_rule() -> None:
    report = explain("ck101")
    assert report.data["name"] == "truncated"
    assert all(report.data[part] for part in ("what", "why", "cause", "remedy"))
    with pytest.raises(UsageError, match="did you mean truncated"):
        explain("truncatd")
