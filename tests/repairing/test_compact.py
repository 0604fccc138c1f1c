"""Bytes that no tensor needs: gone, with every value, shape and tie as it was."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, strategies as st

from ckpttool.dtypes import DTYPES
from ckpttool.formats import describe
from ckpttool.model import Tensor
from ckpttool.repairing.ranges import is_one_view, ranges
from ckpttool.verbs.diff import diff
from ckpttool.verbs.repair import repair
from ckpttool.verbs.verify import verify

if TYPE_CHECKING:
    from ckpttool.report import Report


def data_of(report: Report) -> Any:
    """The report's JSON."""
    return report.json


def compacted(path: Path, **wishes: Any) -> tuple[Path, dict[str, Any]]:
    target = path.with_name("small.pth")
    target.unlink(missing_ok=True)
    report = data_of(repair(path, target, compact=True, **wishes))
    return (target if report["written"] else path), report


def test_views_get_storages_of_their_own(torch: ModuleType, tmp_path: Path) -> None:
    big = torch.arange(1 << 20, dtype=torch.float32)
    value = {"head": big[:10], "tail": big[-10:].reshape(2, 5), "step": big[1000:3000:20], "w": torch.ones(3)}
    torch.save(value, tmp_path / "in.pth")
    small, report = compacted(tmp_path / "in.pth")
    loaded = torch.load(small, weights_only=True)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in value.items())
    assert [t.untyped_storage().nbytes() for t in loaded.values()] == [40, 40, 400, 12]
    assert small.stat().st_size < 10_000
    assert report["exit_code"] == 0
    assert data_of(diff(tmp_path / "in.pth", small))["summary"].keys() <= {"retied"}
    assert data_of(repair(small, compact=True))["sound"]


def test_what_is_shared_stays_shared(torch: ModuleType, tmp_path: Path) -> None:
    big = torch.arange(1000.0)
    row = big[100:200]
    value = {"a": row, "b": row, "part": big[150:250], "param": torch.nn.Parameter(row), "far": big[900:901]}
    torch.save(value, tmp_path / "in.pth")
    small, _ = compacted(tmp_path / "in.pth")
    loaded = torch.load(small, weights_only=True)
    homes = {name: tensor.untyped_storage().data_ptr() for name, tensor in loaded.items()}
    assert homes["a"] == homes["b"] == homes["part"] == homes["param"] != homes["far"]
    assert loaded["a"].untyped_storage().nbytes() == 600
    loaded["a"][60] = -1
    assert loaded["part"][10] == -1


def test_tied_views_are_gathered_together(torch: ModuleType, tmp_path: Path) -> None:
    column = torch.arange(10_000.0).reshape(100, 100)[:, 3]
    torch.save({"a": column, "b": column, "g": column.clone()}, tmp_path / "in.pth")
    small, _ = compacted(tmp_path / "in.pth")
    loaded = torch.load(small, weights_only=True)
    assert torch.equal(loaded["a"], column)
    assert loaded["a"].is_contiguous()
    assert loaded["a"].untyped_storage().data_ptr() == loaded["b"].untyped_storage().data_ptr()
    assert loaded["a"].untyped_storage().nbytes() == 400


def test_what_needs_a_storage_whole_keeps_it(torch: ModuleType, tmp_path: Path) -> None:
    storage = torch.arange(100, dtype=torch.uint8).untyped_storage()
    value = {"storage": storage, "view": torch.tensor(storage, dtype=torch.uint8)}
    value["view"] = torch.empty(0, dtype=torch.uint8).set_(storage, 0, (5,))
    torch.save(value, tmp_path / "in.pth")
    _, report = compacted(tmp_path / "in.pth")
    assert report["plan"] == []


def test_wasted_bytes_are_no_finding_any_more(torch: ModuleType, tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(1 << 20)[:5]}, tmp_path / "in.pth")
    assert "unaddressed-bytes" in named(tmp_path / "in.pth")
    small, _ = compacted(tmp_path / "in.pth")
    assert named(small) <= {"all-zero", "not-resumable"}


def named(path: Path) -> set[str]:
    target: Any = data_of(verify([path]))["targets"][0]
    return {finding["name"] for finding in target["findings"]}


def test_equal_contents_are_tied_only_when_asked(torch: ModuleType, tmp_path: Path) -> None:
    weight = torch.randn(64, 8)
    state = {"a.weight": weight, "b.weight": weight.clone(), "c.weight": weight.t().contiguous()}
    moments = {0: {"exp_avg": torch.zeros(64, 8), "exp_avg_sq": torch.zeros(64, 8), "step": torch.tensor(1.0)}}
    optimizer = {"state": moments, "param_groups": [{"lr": 0.1, "params": [0]}]}
    torch.save({"model": state, "optimizer": optimizer}, tmp_path / "in.pth")
    assert data_of(repair(tmp_path / "in.pth", compact=True))["sound"]
    target = tmp_path / "tied.pth"
    report = data_of(repair(tmp_path / "in.pth", target, dedupe=True))
    loaded = torch.load(target, weights_only=True)
    assert [step["op"] for step in report["plan"]] == ["tie"]
    model = loaded["model"]
    assert model["a.weight"].data_ptr() == model["b.weight"].data_ptr() != model["c.weight"].data_ptr()
    kept = loaded["optimizer"]["state"][0]
    assert kept["exp_avg"].data_ptr() != kept["exp_avg_sq"].data_ptr()
    assert all(torch.equal(model[name], tensor) for name, tensor in state.items())


@st.composite
def views(draw: st.DrawFn) -> list[Any]:
    """Views of one or two buffers, as (buffer, how to see it)."""
    import torch

    buffers = [torch.arange(240, dtype=torch.int32), torch.arange(240, dtype=torch.float64) + 0.5]
    found = []
    for _ in range(draw(st.integers(1, 5))):
        buffer = draw(st.sampled_from(buffers))
        rank = draw(st.integers(0, 3))
        shape = tuple(draw(st.integers(0, 4)) for _ in range(rank))
        stride = tuple(draw(st.integers(0, 12)) for _ in range(rank))
        extent = 1 + sum((size - 1) * step for size, step in zip(shape, stride, strict=True) if size)
        offset = draw(st.integers(0, 240 - max(1, extent)))
        found.append(buffer.as_strided(shape, stride, offset))
    return found


@given(st.data())
def test_values_and_ties_of_any_views_stay(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    torch = pytest.importorskip("torch")
    tensors = data.draw(views())
    path = tmp_path_factory.mktemp("views") / "in.pth"
    torch.save({str(i): tensor for i, tensor in enumerate(tensors)}, path)
    small, _ = compacted(path)
    loaded = torch.load(small, weights_only=True)
    assert small.stat().st_size <= path.stat().st_size + 256 * len(tensors)
    for i, tensor in enumerate(tensors):
        assert torch.equal(loaded[str(i)], tensor)
        assert loaded[str(i)].dtype == tensor.dtype
    # What overlapped still does: a change to one is seen in the others as it was before.
    for i, tensor in enumerate(tensors):
        if tensor.numel():
            where = (0,) * tensor.dim()
            tensor[where] = -7
            loaded[str(i)][where] = -7
    for i, tensor in enumerate(tensors):
        assert torch.equal(loaded[str(i)], tensor)
    assert data_of(repair(small, compact=True))["plan"] == []


F32, F64 = DTYPES["float32"], DTYPES["float64"]


def seen(dtype: Any, offset: int, *sizes: tuple[int, int]) -> Tensor:
    return Tensor(dtype, tuple(n for n, _ in sizes), tuple(step for _, step in sizes), offset, 0)


def test_ranges_by_hand() -> None:
    one, other, apart = seen(F32, 0, (4, 1)), seen(F32, 3, (4, 1)), seen(F32, 7, (2, 5))
    found = ranges([(1, one), (2, other), (3, apart), (4, seen(F32, 9, (0, 1)))])
    assert [(r.start, r.stop, r.nodes) for r in found] == [(0, 28, (1, 2, 4)), (28, 52, (3,))]
    mixed = ranges([(1, seen(F32, 3, (4, 1))), (2, seen(F64, 2, (1, 1)))])
    assert [(r.start, r.stop) for r in mixed] == [(8, 28)]


def test_only_a_view_that_skips_and_repeats_nothing_is_gathered() -> None:
    assert is_one_view([seen(F32, 0, (3, 2))])
    assert not is_one_view([seen(F32, 0, (3, 1))])
    assert not is_one_view([seen(F32, 0, (3, 0), (2, 9))])
    assert not is_one_view([seen(F32, 0, (3, 2)), seen(F32, 1, (3, 2))])
    assert not is_one_view([])


def test_nothing_of_the_archive_is_left_that_no_tensor_needs(torch: ModuleType, tmp_path: Path) -> None:
    torch.save({"w": torch.ones(3)}, tmp_path / "in.pth")
    small, report = compacted(tmp_path / "in.pth")
    assert report["sound"]
    assert len(describe(small).storages) == 1
