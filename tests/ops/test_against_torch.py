"""Operations against what torch computes from the same files, for every element type."""

from __future__ import annotations

import io
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from ckpttool import ops
from ckpttool.draft import Input, Made
from ckpttool.dtypes import DTYPES, DType
from ckpttool.expressions import Applied, Expression, Form, Leaf, Op, form_of
from ckpttool.formats import describe_source
from ckpttool.source import Memory, open_source
from ckpttool.testing import strategies
from ckpttool.testing.strategies import Grown
from ckpttool.testing.strategies.plain import contents
from ckpttool.writing.evaluate import evaluate

torch: ModuleType = pytest.importorskip("torch", reason="torch is not installed")

pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental:UserWarning")

BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64, 16: torch.complex128}


def by_torch(op: Op, x: list[Any]) -> list[Any]:
    """The same operation in torch's own words."""
    return _TORCH[type(op)](op, *x)


_TORCH: dict[type, Callable[..., list[Any]]] = {
    ops.Permute: lambda op, x: [x.permute(op.axes)],
    ops.Transpose: lambda op, x: [x.transpose(op.first, op.second)],
    ops.Reshape: lambda op, x: [x.reshape(op.shape)],
    ops.Squeeze: lambda op, x: [x.squeeze(op.dims) if op.dims else x.squeeze()],
    ops.Unsqueeze: lambda op, x: [x.unsqueeze(op.dim)],
    ops.ViewPermute: lambda op, x: [
        x.reshape(op.view).permute(op.axes).reshape(x.shape if op.shape is None else op.shape)
    ],
    ops.Roll: lambda op, x: [x.roll(op.shift, op.dim)],
    ops.Reorder: lambda op, x: [x.index_select(op.dim, torch.tensor(op.indices, dtype=torch.int64))],
    ops.Split: lambda op, x: list(
        x.tensor_split(op.sections, op.dim) if op.sections else x.split(_left(op, x), op.dim)
    ),
    ops.Unstack: lambda op, x: list(x.unbind(op.dim)),
    ops.Slice: lambda op, x: [
        x.transpose(0, op.dim)[op.start : op.stop : op.step].transpose(0, op.dim)
    ],
    ops.Repeat: lambda op, x: [x.repeat(op.times)],
    ops.Expand: lambda op, x: [x.expand(op.shape)],
    ops.Concat: lambda op, *x: [torch.cat(x, op.dim)],
    ops.Stack: lambda op, *x: [torch.stack(x, op.dim)],
}  # fmt: skip


def _left(op: ops.Split, x: Any) -> list[int]:
    left = x.shape[op.dim] - sum(size for size in op.sizes if size != -1)
    return [left if size == -1 else size for size in op.sizes]


def evaluated(expression: Expression, tensors: dict[str, Any], swapped: bool = False) -> tuple[bytes, Form]:
    """What we make of tensors that torch has saved."""
    file = io.BytesIO()
    torch.save(tensors, file)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "saved.pt"
        path.write_bytes(file.getvalue())
        checkpoint = describe_source(open_source(str(path)))
        inputs = tuple(
            Input(entry.key, tensor, checkpoint.storages[tensor.storage])
            for entry, tensor in checkpoint.tensors()
            if tensor.storage is not None
        )
        forms = {i.name: Form(i.tensor.dtype, i.tensor.shape) for i in inputs}
        form = form_of(expression, forms)
        return bytes(evaluate(Made(expression, inputs, form), swapped)), form


def raw(tensor: Any) -> bytes:
    """A tensor's row-major bytes."""
    flat = tensor.contiguous().as_strided((tensor.numel(),), (1,))
    return bytes(flat.view(torch.uint8).numpy()) if tensor.numel() else b""


def values(data: bytes, dtype: DType) -> Any:
    """Bytes as a torch tensor."""
    kind = getattr(torch, dtype.name)
    return torch.frombuffer(bytearray(data), dtype=kind) if data else torch.empty(0, dtype=kind)


@st.composite
def filled(draw: st.DrawFn, form: Form) -> Any:
    count = math.prod(form.shape) * form.dtype.itemsize
    data = draw(contents(count, form.dtype))
    return values(data, form.dtype).reshape(form.shape)


@given(strategies.expressions(), st.data())
def test_what_moves_elements(grown: Grown, data: st.DataObject) -> None:
    tensors = {name: data.draw(filled(form)) for name, form in grown.leaves}
    if data.draw(st.booleans()):  # what is saved may be a view
        tensors = {name: t.t().contiguous().t() if t.dim() == 2 else t for name, t in tensors.items()}

    def of(expression: Expression) -> Any:
        if isinstance(expression, Leaf):
            whole = tensors[expression.name].contiguous()
            return whole.view(BITS[whole.element_size()]) if whole.dim() else whole.reshape(1).view(
                BITS[whole.element_size()]
            ).reshape(())  # fmt: skip
        return by_torch(expression.op, [of(part) for part in expression.inputs])[expression.part]

    found, form = evaluated(grown.expression, tensors)
    expected = of(grown.expression)
    assert tuple(expected.shape) == form.shape
    assert found == raw(expected)


def _close(found: Any, expected: Any, ulps: float) -> None:
    """Equal but for so many units in the last place of the greatest magnitude."""
    a, b = found.double(), expected.double().reshape(-1)
    room = ulps * torch.finfo(expected.dtype).eps * b.abs().max().clamp(min=1e-30)
    assert (a - b).abs().max() <= room


FLOATS = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def random(*shape: int, dtype: Any = torch.float32, seed: int = 0) -> Any:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("dtype", FLOATS)
def test_elementwise_arithmetic_is_exact(dtype: Any) -> None:
    x, y = random(40, 30, dtype=dtype), random(40, 30, dtype=dtype, seed=1)
    one = torch.tensor(0.3, dtype=dtype)
    both = (Leaf("x"), Leaf("y"))
    assert evaluated(Applied(ops.Add(), both), {"x": x, "y": y})[0] == raw(x + y)
    assert evaluated(Applied(ops.Multiply(), both), {"x": x, "y": y})[0] == raw(x * y)
    assert evaluated(Applied(ops.Scale(0.3), both[:1]), {"x": x})[0] == raw(x * 0.3)
    assert evaluated(Applied(ops.Multiply(), (Leaf("x"), Leaf("one"))), {"x": x, "one": one})[0] == raw(x * one)


def max_type(dtype: Any) -> Any:
    return torch.float64 if dtype == torch.float64 else torch.float32


@pytest.mark.parametrize("dtype", FLOATS)
def test_pruning_made_permanent(dtype: Any) -> None:
    from torch.nn.utils import prune

    layer = torch.nn.Linear(20, 10).to(dtype)
    prune.l1_unstructured(layer, "weight", 0.5)
    state = {k: v.detach() for k, v in layer.state_dict().items()}
    prune.remove(layer, "weight")
    fold = Applied(ops.Multiply(), (Leaf("weight_orig"), Leaf("weight_mask")))
    assert evaluated(fold, state)[0] == raw(layer.weight.detach())


@pytest.mark.parametrize("dim", [0, 1, None])
def test_weight_normalization(dim: int | None) -> None:
    from torch.nn.utils.parametrizations import weight_norm

    layer = torch.nn.Conv2d(6, 8, 3)
    plain = layer.weight.detach().clone()
    with torch.no_grad():
        normed = weight_norm(layer, dim=dim)
        expected = normed.weight.detach().clone()
    g, v = (getattr(layer.parametrizations.weight, f"original{i}").detach() for i in (0, 1))
    found, _ = evaluated(Applied(ops.FoldWeightNorm(dim), (Leaf("g"), Leaf("v"))), {"g": g, "v": v})
    _close(values(found, DTYPES["float32"]), expected, 2)
    norm, form = evaluated(Applied(ops.UnfoldWeightNorm(dim), (Leaf("w"),), 0), {"w": plain})
    assert form.shape == tuple(g.shape)
    _close(values(norm, DTYPES["float32"]), g, 2)


@pytest.mark.parametrize("dtype", FLOATS)
def test_low_rank_merges(dtype: Any) -> None:
    w, a, b = random(24, 16, dtype=dtype), random(4, 16, dtype=dtype), random(24, 4, dtype=dtype, seed=2)
    parts = (Leaf("w"), Leaf("a"), Leaf("b"))
    wide = max_type(dtype)
    expected = (w.to(wide) + 0.5 * (b.to(wide) @ a.to(wide))).to(dtype)
    found, _ = evaluated(Applied(ops.MergeLowRank(0.5), parts), {"w": w, "a": a, "b": b})
    _close(values(found, DTYPES[str(dtype)[6:]]), expected, 4 if dtype in FLOATS[:2] else 1)
    turned = {"w": w.t().contiguous(), "a": a, "b": b}
    found, _ = evaluated(Applied(ops.MergeLowRank(0.5, rows_last=True), parts), turned)
    _close(values(found, DTYPES[str(dtype)[6:]]), expected.t().contiguous(), 4 if dtype in FLOATS[:2] else 1)


def test_low_rank_merges_of_convolutions() -> None:
    w, a, b = random(8, 6, 3, 3), random(2, 6, 3, 3), random(8, 2, 1, 1, seed=3)
    expected = w + torch.nn.functional.conv2d(a.permute(1, 0, 2, 3), b).permute(1, 0, 2, 3)
    found, _ = evaluated(Applied(ops.MergeLowRank(), (Leaf("w"), Leaf("a"), Leaf("b"))), {"w": w, "a": a, "b": b})
    _close(values(found, DTYPES["float32"]), expected, 4)


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize(
    ("old", "new"), [((14, 14), (24, 24)), ((24, 24), (14, 14)), ((7, 5), (3, 16)), ((1, 1), (4, 4)), ((6, 6), (6, 6))]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_interpolation(mode: Any, antialias: bool, old: Any, new: Any, dtype: Any) -> None:
    image = random(2, 3, *old, dtype=dtype)
    expected = torch.nn.functional.interpolate(image, size=new, mode=mode, antialias=antialias)
    found, form = evaluated(Applied(ops.Interpolate(new, mode, antialias), (Leaf("x"),)), {"x": image})
    assert form.shape == tuple(expected.shape)
    _close(values(found, DTYPES[str(dtype)[6:]]), expected, 32)


@pytest.mark.parametrize("dtype", FLOATS)
def test_position_embeddings_as_timm_has_them(dtype: Any) -> None:
    """``timm.layers.resample_abs_pos_embed``, spelled out."""
    table = random(1, 2 + 14 * 14, 8, dtype=dtype)
    grid = table[:, 2:].float().reshape(1, 14, 14, 8).permute(0, 3, 1, 2)
    grid = torch.nn.functional.interpolate(grid, size=(16, 12), mode="bicubic", antialias=True)
    rows = grid.permute(0, 2, 3, 1).reshape(1, -1, 8).to(dtype)
    expected = torch.cat([table[:, :2], rows], 1)
    found, form = evaluated(Applied(ops.ResizePositions((16, 12), prefix=2), (Leaf("x"),)), {"x": table})
    assert form.shape == tuple(expected.shape)
    made = values(found, DTYPES[str(dtype)[6:]])
    _close(made, expected, 1 if dtype in FLOATS[2:] else 32 if dtype == torch.float32 else 1 << 34)
    assert torch.equal(made.reshape(expected.shape)[:, :2], table[:, :2])


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16", "int64", "uint8", "bool", "float8_e4m3fn"])
def test_padding_and_filling(name: str) -> None:
    kind = getattr(torch, name)
    x = torch.ones(3, 2).to(kind)
    padded, _ = evaluated(Applied(ops.Pad(0, 5), (Leaf("x"),)), {"x": x})
    assert padded == raw(torch.cat([x.float(), torch.zeros(2, 2)]).to(kind))
    ones, _ = evaluated(Applied(ops.FillLike(1), (Leaf("x"),)), {"x": x})
    assert ones == raw(torch.ones_like(x.float()).to(kind))


def test_new_rows_are_the_mean() -> None:
    x = random(50, 8)
    found, _ = evaluated(Applied(ops.Pad(0, 60, "mean"), (Leaf("x"),)), {"x": x})
    made = values(found, DTYPES["float32"]).reshape(60, 8)
    assert torch.equal(made[:50], x)
    _close(made[50:].reshape(-1), x.double().mean(0, keepdim=True).expand(10, 8).float(), 1)


def wide(x: Any) -> Any:
    """Real numbers of the widest type."""
    return torch.view_as_real(x.to(torch.complex128)) if x.is_complex() else x.double()


@settings(max_examples=4 * settings().max_examples)
@given(strategies.dtypes(), strategies.dtypes(), st.data())
def test_casts(old: DType, new: DType, data: st.DataObject) -> None:
    if old.kind == "complex" != new.kind:
        return
    x = data.draw(filled(Form(old, (4, 16))))
    if old.kind == "float" and new.kind in ("int", "uint"):
        low, high = (-(2 ** (new.bits - 1)), 2 ** (new.bits - 1)) if new.kind == "int" else (0, 2**new.bits)
        whole = x.double().trunc()
        x = torch.where((whole >= float(low)) & (whole < float(high)), x.double(), 1.0).to(x.dtype)
    found, form = evaluated(Applied(ops.Cast(new), (Leaf("x"),)), {"x": x})
    assert form == Form(new, (4, 16))
    expected = x.to(getattr(torch, new.name))
    if new.kind in ("float", "complex"):
        mine, theirs = wide(values(found, new)), wide(expected.reshape(-1))
        assert torch.equal(mine.isnan(), theirs.isnan())
        mine, theirs = mine.nan_to_num(0), theirs.nan_to_num(0)
        assert torch.equal(mine, theirs)
        assert torch.equal(mine.signbit(), theirs.signbit())
    else:
        assert found == raw(expected)


def test_memory_is_described_alike() -> None:
    """The oracle itself: what it reads back is what was saved."""
    x = torch.arange(6).reshape(2, 3)
    file = io.BytesIO()
    torch.save({"x": x}, file)
    assert [e.key for e, _ in describe_source(Memory(file.getvalue())).tensors()] == ["x"]
    assert evaluated(Leaf("x"), {"x": x})[0] == np.arange(6).tobytes()
