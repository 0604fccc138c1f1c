"""Computed tensors: read by span from files of any layout, and the same as when computed the plain way."""

from __future__ import annotations

import math
import tempfile
import tracemalloc
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st

from ckpttool import ops
from ckpttool.draft import Copied, Input, Made
from ckpttool.dtypes import DTYPES, DType
from ckpttool.errors import CkpttoolError, Unreadable
from ckpttool.expressions import Applied, Expression, Form, Leaf, OpError, form_of
from ckpttool.model import Checksum, Span, Storage, Tensor
from ckpttool.ops import blocks
from ckpttool.source import LocalFile
from ckpttool.testing import strategies
from ckpttool.testing.strategies import Grown
from ckpttool.writing.evaluate import as_copied, evaluate
from ckpttool.writing.fetching import component_width

FLOAT = DTYPES["float32"]


def row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))


def swap(data: bytes, dtype: DType) -> bytes:
    width = component_width(dtype)
    return np.frombuffer(data, f"u{width}").byteswap().tobytes() if width > 1 else data


def saved(path: Path, name: str, array: np.ndarray, dtype: DType, swapped: bool = False) -> Input:
    """A contiguous tensor in a file of its own."""
    data = np.ascontiguousarray(array).tobytes()
    path.write_bytes(b"head" + (swap(data, dtype) if swapped else data) + b"tail")
    span = Span(str(path), 4, 4 + len(data))
    storage = Storage(name, dtype, len(data), span, Checksum("crc32", 7), swapped=swapped)
    return Input(name, Tensor(dtype, array.shape, row_major(array.shape), 0, 0), storage)


@st.composite
def inputs(draw: st.DrawFn, folder: Path, name: str, form: Form) -> tuple[Input, np.ndarray]:
    """A tensor of this form, a view of a larger storage in some order of dimensions; its elements as bytes."""
    width = form.dtype.itemsize
    order = draw(st.permutations(range(len(form.shape))))
    gap, offset = draw(st.integers(1, 2)), draw(st.integers(0, 3))
    strides, step = [0] * len(form.shape), gap
    for dim in reversed(order):
        strides[dim] = step
        step *= max(form.shape[dim], 1)
    numel = offset + step
    seed = draw(st.integers(0, 255))
    flat = np.arange(numel * width, dtype="u4") * 7 + seed
    data = flat.astype("u1") % 2 if form.dtype.kind == "bool" else flat.astype("u1")
    swapped, kept = draw(st.booleans()), draw(st.sampled_from(["inline", "stored", "deflated"]))
    inline = kept == "inline"
    raw = swap(data.tobytes(), form.dtype) if swapped else data.tobytes()
    path = folder / name
    lies = deflated(raw) if kept == "deflated" else raw
    path.write_bytes(b"x" * 3 + lies + b"y" * 3)
    where = None if inline else Span(str(path), 3, 3 + len(lies))
    storage = Storage(name, form.dtype, len(raw), where, inline=raw if inline else None, swapped=swapped)
    elements = np.lib.stride_tricks.as_strided(
        data.reshape(-1, width)[offset:], (*form.shape, width), (*(s * width for s in strides), 1)
    )
    tensor = Tensor(form.dtype, form.shape, tuple(strides), offset, 0)
    return Input(name, tensor, storage, len(raw) if kept == "deflated" else None), elements


def deflated(data: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflater.compress(data) + deflater.flush()


def naive(expression: Expression, arrays: dict[str, np.ndarray], forms: dict[str, Form]) -> np.ndarray:
    if isinstance(expression, Leaf):
        return arrays[expression.name]
    given = tuple(form_of(part, forms) for part in expression.inputs)
    parts = [np.array(naive(part, arrays, forms), order="C") for part in expression.inputs]
    return expression.op.compute(parts, given)[expression.part]


def copied_bytes(made: Made, swapped: bool) -> bytes | None:
    found = as_copied(made, swapped)
    if found is None:
        return None
    return b"".join(Path(s.source).read_bytes()[s.start : s.stop] for s in found.spans)


@given(strategies.expressions(), st.booleans(), st.integers(1, 2), st.data())
def test_generated_expressions(grown: Grown, swapped: bool, workers: int, data: st.DataObject) -> None:
    forms = dict(grown.leaves)
    with tempfile.TemporaryDirectory() as folder:
        drawn = {name: data.draw(inputs(Path(folder), name, form)) for name, form in grown.leaves}
        made = Made(grown.expression, tuple(given for given, _ in drawn.values()), grown.form)
        found = evaluate(made, swapped, workers=workers)
        copied = copied_bytes(made, swapped)
    # Positions are moved first, then each element's bytes are looked up: no step of the evaluation is shared.
    places, start = {}, 0
    for name, form in grown.leaves:
        count = math.prod(form.shape)
        places[name] = np.arange(start, start + count, dtype="u8").reshape(form.shape)
        start += count
    width = grown.form.dtype.itemsize
    table = np.concatenate([np.array(e, order="C").reshape(-1, width) for _, e in drawn.values()])
    expected = table[naive(grown.expression, places, forms).reshape(-1)].tobytes()
    if swapped:
        expected = swap(expected, grown.form.dtype)
    assert bytes(found) == expected
    assert len(found) == made.nbytes
    assert copied is None or copied == expected


def test_rows_of_contiguous_tensors_are_ranges(tmp_path: Path) -> None:
    fused = saved(tmp_path / "a", "a", np.arange(24, dtype="u4").reshape(6, 4), FLOAT)
    part = Applied(ops.Split(sections=3), (Leaf("a"),), 1)
    found = as_copied(Made(part, (fused,), Form(FLOAT, (2, 4))))
    assert found is not None
    assert found.spans == (Span(str(tmp_path / "a"), 4 + 32, 4 + 64),)
    assert found.checksum is None


def test_a_whole_storage_keeps_its_checksum(tmp_path: Path) -> None:
    given = saved(tmp_path / "a", "a", np.arange(24, dtype="u4").reshape(6, 4), FLOAT)
    reshaped = Applied(ops.Reshape((2, -1)), (Leaf("a"),))
    found = as_copied(Made(reshaped, (given,), Form(FLOAT, (2, 12))))
    assert found is not None
    assert found.checksum == Checksum("crc32", 7)


def test_other_orders_are_no_ranges(tmp_path: Path) -> None:
    given = saved(tmp_path / "a", "a", np.arange(24, dtype="u4").reshape(6, 4), FLOAT)
    for op, shape in ((ops.Transpose(), (4, 6)), (ops.Split(sections=2, dim=1), (6, 2))):
        assert as_copied(Made(Applied(op, (Leaf("a"),)), (given,), Form(FLOAT, shape))) is None
    assert as_copied(Made(Leaf("a"), (given,), Form(FLOAT, (6, 4))), swapped=True) is None


def test_nothing_may_begin_past_the_end() -> None:
    storage = Storage("x", FLOAT, 0, Span("never opened", 0, 0))
    given = Input("x", Tensor(FLOAT, (0, 2), (1, 1), 3, 0), storage)
    for op, shape in ((ops.Split(sections=2, dim=1), (0, 1)), (ops.Transpose(), (2, 0))):
        made = Made(Applied(op, (Leaf("x"),)), (given,), Form(FLOAT, shape))
        assert bytes(evaluate(made)) == b""
    assert as_copied(Made(Leaf("x"), (given,), Form(FLOAT, (0, 2)))) == Copied(())


def test_packed_elements_pass_only_as_they_are(tmp_path: Path) -> None:
    packed = DTYPES["quint4x2"]
    path = tmp_path / "q"
    path.write_bytes(bytes(range(6)))
    storage = Storage("q", packed, 6, Span(str(path), 0, 6))
    given = Input("q", Tensor(packed, (3, 4), (4, 1), 0, 0), storage)
    assert bytes(evaluate(Made(Leaf("q"), (given,), Form(packed, (3, 4))))) == bytes(range(6))
    with pytest.raises(OpError, match="quint4x2 have 4 bits"):
        evaluate(Made(Applied(ops.Transpose(), (Leaf("q"),)), (given,), Form(packed, (4, 3))))


def test_new_tensors_need_no_input() -> None:
    count = DTYPES["int64"]
    made = Made(Applied(ops.Arange(4, shape=(1, -1)), ()), (), Form(count, (1, 4)))
    assert np.frombuffer(evaluate(made), "i8").tolist() == [0, 1, 2, 3]
    half = Made(Applied(ops.Fill((2,), DTYPES["bfloat16"], 1.5), ()), (), Form(DTYPES["bfloat16"], (2,)))
    assert bytes(evaluate(half, swapped=True)) == b"\x3f\xc0" * 2


def test_what_is_like_another_does_not_read_it(tmp_path: Path) -> None:
    storage = Storage("gone", FLOAT, 12, Span(str(tmp_path / "gone"), 0, 12))
    given = Input("gone", Tensor(FLOAT, (3,), (1,), 0, 0), storage)
    made = Made(Applied(ops.FillLike(1), (Leaf("gone"),)), (given,), Form(FLOAT, (3,)))
    assert np.frombuffer(evaluate(made), "f4").tolist() == [1, 1, 1]


def test_mixed_element_types(tmp_path: Path) -> None:
    weight = saved(tmp_path / "w", "w", np.array([0x3F80, 0x4000], "u2"), DTYPES["bfloat16"], swapped=True)
    mask = saved(tmp_path / "m", "m", np.array([0, 1], "u1"), DTYPES["bool"])
    made = Made(Applied(ops.Multiply(), (Leaf("w"), Leaf("m"))), (weight, mask), Form(DTYPES["bfloat16"], (2,)))
    assert np.frombuffer(evaluate(made), "u2").tolist() == [0, 0x4000]


@pytest.mark.parametrize(
    ("tensor", "nbytes", "span", "words"),
    [
        (Tensor(FLOAT, (4,), (1,), 0, 0), 12, 12, "needs bytes 0 to 16 of a storage that has 12"),
        (Tensor(FLOAT, (2,), (1,), 2, 0), 12, 12, "needs bytes 8 to 16 of a storage that has 12"),
        (Tensor(FLOAT, (2, 1), (1,), 0, 0), 12, 12, "2 sizes and 1 strides"),
        (Tensor(FLOAT, (2,), (-1,), 1, 0), 12, 12, "lie below 0"),
        (Tensor(FLOAT, (3,), (1,), 0, 0), 12, 8, "bytes 0 to 12 of a storage are needed, the file has 8"),
        (Tensor(FLOAT, (3,), (1,), 0, 0), 12, 12, "ends at byte 10, 12 are needed"),
        (Tensor(FLOAT, (1 << 40,), (0,), 0, 0), 12, 12, "1099511627776 elements are made of 1"),
    ],
)
def test_what_does_not_fit_is_said(tmp_path: Path, tensor: Tensor, nbytes: int, span: int, words: str) -> None:
    path = tmp_path / "short"
    path.write_bytes(bytes(10))
    given = Input("x", tensor, Storage("x", FLOAT, nbytes, Span(str(path), 0, span)))
    with pytest.raises((OpError, Unreadable), match=words):
        evaluate(Made(Leaf("x"), (given,), Form(FLOAT, tensor.shape)))


def test_a_plan_of_another_form_is_refused(tmp_path: Path) -> None:
    given = saved(tmp_path / "a", "a", np.zeros((2, 3), "u4"), FLOAT)
    with pytest.raises(OpError, match=r"float32 2 × 3, the plan has float32 3 × 2"):
        evaluate(Made(Leaf("a"), (given,), Form(FLOAT, (3, 2))))
    with pytest.raises(OpError, match="output 5 is asked for, there are 2"):
        evaluate(Made(Applied(ops.Unstack(), (Leaf("a"),), 5), (given,), Form(FLOAT, (3,))))


def test_one_expert_is_read_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = np.arange(8 * 6 * 4, dtype="u4").reshape(8, 6, 4)
    given = saved(tmp_path / "a", "a", packed, FLOAT)
    read: list[int] = []
    real = LocalFile.readinto
    monkeypatch.setattr(LocalFile, "readinto", lambda self, start, to: read.append(len(to)) or real(self, start, to))
    expert = Applied(ops.Transpose(), (Applied(ops.Unstack(), (Leaf("a"),), 5),))
    found = evaluate(Made(expert, (given,), Form(FLOAT, (4, 6))))
    assert bytes(found) == packed[5].T.tobytes()
    assert read == [6 * 4 * 4]


def test_inputs_that_overlap_everywhere_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = saved(tmp_path / "a", "a", np.arange(24, dtype="u4").reshape(4, 6), FLOAT)
    read: list[int] = []
    real = LocalFile.readinto
    monkeypatch.setattr(LocalFile, "readinto", lambda self, start, to: read.append(len(to)) or real(self, start, to))
    columns = [Applied(ops.Split(sections=3, dim=1), (Leaf("a"),), part) for part in (2, 0, 1)]
    evaluate(Made(Applied(ops.Concat(1), tuple(columns)), (given,), Form(FLOAT, (4, 6))))
    assert read == [4 * 6 * 4]


def test_sub_expressions_are_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = saved(tmp_path / "a", "a", np.arange(6, dtype="u4").reshape(2, 3), FLOAT)
    seen = []
    real = ops.Roll.compute
    monkeypatch.setattr(ops.Roll, "compute", lambda *args: seen.append(1) or real(*args))
    rolled = Applied(ops.Roll(0, 1), (Leaf("a"),))
    both = Applied(ops.Concat(0), (rolled, Applied(ops.Transpose(), (Applied(ops.Transpose(), (rolled,)),))))
    evaluate(Made(both, (given,), Form(FLOAT, (4, 3))))
    assert len(seen) == 1


@pytest.mark.parametrize(
    "op", [ops.Transpose(), ops.Cast(DTYPES["bfloat16"]), ops.ViewPermute((8, 64, 2, -1), (0, 2, 1, 3))]
)
def test_memory_is_that_of_input_and_output(tmp_path: Path, op: ops.Moves | ops.Mixes) -> None:
    array = np.ones((1024, 1024), "f4").view("u4")
    given = saved(tmp_path / "a", "a", array, FLOAT)
    expression = Applied(op, (Leaf("a"),))
    form = form_of(expression, {"a": Form(FLOAT, array.shape)})
    made = Made(expression, (given,), form)
    tracemalloc.start()
    try:
        evaluate(made)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < array.nbytes + made.nbytes + 32 * blocks.SMALL // 4


def test_deflated_bytes_are_never_taken_for_elements(tmp_path: Path) -> None:
    noise = np.frombuffer(np.random.default_rng(1).bytes(64), "f4")
    path = tmp_path / "noise"
    path.write_bytes(lies := deflated(noise.tobytes()))
    assert len(lies) >= noise.nbytes
    storage = Storage("0", FLOAT, noise.nbytes, Span(str(path), 0, len(lies)))
    given = Input("a", Tensor(FLOAT, (16,), (1,), 0, 0), storage, noise.nbytes)
    for expression, rows in ((Leaf("a"), slice(None)), (Applied(ops.Slice(0, 12, 16), (Leaf("a"),)), slice(12, 16))):
        made = Made(expression, (given,), Form(FLOAT, noise[rows].shape))
        assert as_copied(made) is None
        assert bytes(evaluate(made)) == noise[rows].tobytes()
    even = replace(given, storage=replace(storage, span=Span(str(path), 0, noise.nbytes)))
    assert as_copied(Made(Leaf("a"), (even,), Form(FLOAT, (16,)))) is None
    path.write_bytes(lies[:-20])
    with pytest.raises(CkpttoolError, match=r"declared|deflated"):
        evaluate(Made(Leaf("a"), (given,), Form(FLOAT, (16,))))
